//! URLs of PTYs (contract `pty.md`).

use axum::Json as JsonReply;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::service::{Ptys, Request};
use super::socket::{self, Habits};
use super::wire::{
    CreatePty, PtyCreated, PtyDeleted, PtySessionInfo, PtySessions, ResizePty, connected, failed,
    failed_close, offered_env,
};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::extract::{Path, Query, collect, idempotency_key, json};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::{EXIT_CONTROL_SUBPROTOCOL, Upgrade, offered};
use crate::platform::shutdown::Shutdown;

/// Largest request, in bytes.
const BODY_BYTES: usize = 8 * 1024 * 1024;
/// Largest frame of input, in bytes.
const INPUT_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone)]
struct Context {
    ptys: Ptys,
    shutdown: Shutdown,
}

pub(crate) fn router(ptys: Ptys, shutdown: Shutdown) -> Routes {
    Routes::new()
        .routes(endpoints!(create, list))
        .routes(endpoints!(create_connect))
        .route("/process/pty/create-connect", routing::delete(delete_create_connect))
        .routes(endpoints!(get, delete))
        .routes(endpoints!(resize))
        .routes(endpoints!(connect))
        .with_state(Context { ptys, shutdown })
}

/// Old clients read the text of an error from `error`.
fn told(error: Error) -> Error {
    let text = error.to_string();
    error.with_detail("error", text)
}

/// Starts a terminal, with a login shell or another program on it, under an id of the client's
///
/// Repeating a request with the same `Idempotency-Key` header gives the first one's answer.
#[utoipa::path(post, path = "/process/pty", tag = "pty", request_body = CreatePty,
    responses((status = 201, body = PtyCreated), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 500, body = ErrorBody)))]
async fn create(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, JsonReply<PtyCreated>)> {
    let create = async {
        let body = collect(body, BODY_BYTES).await?;
        let request = Request::from(json::<CreatePty>(&body)?);
        let session_id = request.id.clone();
        context.ptys.create(request, idempotency_key(&headers, &body)?).await?;
        Ok((StatusCode::CREATED, JsonReply(PtyCreated { session_id })))
    };
    create.await.map_err(told)
}

/// All terminals that run or wait for their first client, oldest first
#[utoipa::path(get, path = "/process/pty", tag = "pty", responses((status = 200, body = PtySessions)))]
async fn list(State(context): State<Context>) -> JsonReply<PtySessions> {
    let sessions = context.ptys.list();
    JsonReply(PtySessions { sessions: sessions.iter().map(|pty| PtySessionInfo::from(&**pty)).collect() })
}

/// One terminal
#[utoipa::path(get, path = "/process/pty/{sessionId}", tag = "pty",
    params(("sessionId" = String, Path, description = "Id of the terminal")),
    responses((status = 200, body = PtySessionInfo), (status = 404, body = ErrorBody)))]
async fn get(State(context): State<Context>, Path(id): Path<String>) -> Result<JsonReply<PtySessionInfo>> {
    Ok(JsonReply(PtySessionInfo::from(&*context.ptys.get(&id).map_err(told)?)))
}

/// Kills a terminal's program and everything that it started, and closes its sockets
#[utoipa::path(delete, path = "/process/pty/{sessionId}", tag = "pty",
    params(("sessionId" = String, Path, description = "Id of the terminal")),
    responses((status = 200, body = PtyDeleted), (status = 404, body = ErrorBody)))]
async fn delete(State(context): State<Context>, Path(id): Path<String>) -> Result<JsonReply<PtyDeleted>> {
    context.ptys.delete(&id).await.map_err(told)?;
    Ok(JsonReply(PtyDeleted { message: "PTY session deleted" }))
}

/// For a terminal of that name, which its path would hide.
async fn delete_create_connect(state: State<Context>) -> Result<JsonReply<PtyDeleted>> {
    delete(state, Path("create-connect".to_owned())).await
}

/// Changes the size of a terminal; the job in the foreground gets SIGWINCH
#[utoipa::path(post, path = "/process/pty/{sessionId}/resize", tag = "pty", request_body = ResizePty,
    params(("sessionId" = String, Path, description = "Id of the terminal")),
    responses((status = 200, body = PtySessionInfo), (status = 400, body = ErrorBody),
        (status = 410, body = ErrorBody)))]
async fn resize(
    State(context): State<Context>,
    Path(id): Path<String>,
    body: Body,
) -> Result<JsonReply<PtySessionInfo>> {
    let resize = async {
        let ResizePty { cols, rows } = json(&collect(body, BODY_BYTES).await?)?;
        Ok(JsonReply(PtySessionInfo::from(&*context.ptys.resize(&id, cols, rows)?)))
    };
    resize.await.map_err(told)
}

#[derive(Debug, Deserialize, IntoParams)]
struct ConnectQuery {
    /// Beyond the contract: begins with what was printed from this byte on, counted from the start, or from the oldest
    /// that is kept; 0 is all that is kept. The `connected` message then has the `offset` of the first byte that
    /// follows, and a client that is too slow gets `{"type":"control","status":"skipped","offset":…}` in place of what
    /// is no longer kept. An ended terminal can be asked for a minute.
    offset: Option<u64>,
}

/// Attaches to a terminal: input and output as frames, control messages as JSON text
///
/// Without an offset, the first client of all gets what was printed before it came, later ones what comes next.
#[utoipa::path(get, path = "/process/pty/{sessionId}/connect", tag = "pty",
    params(("sessionId" = String, Path, description = "Id of the terminal"), ConnectQuery),
    responses((status = 101, description = "WebSocket"), (status = 400, body = ErrorBody)))]
async fn connect(
    State(context): State<Context>,
    upgrade: Upgrade,
    Path(id): Path<String>,
    Query(query): Query<ConnectQuery>,
    headers: HeaderMap,
) -> Response {
    match context.ptys.connect(&id, query.offset).await {
        Ok((pty, attached)) => {
            let counts = query.offset.is_some();
            let offset = counts.then(|| attached.viewer.offset());
            let habits = Habits { takes_exit: takes_exit(&headers), counts };
            let upgrade = upgrade.greeting(connected(offset)).max_message(INPUT_BYTES);
            upgrade.serve(&context.shutdown, move |sender, receiver| {
                socket::serve(pty, attached, habits, sender, receiver)
            })
        }
        Err(error) => {
            let text = error.to_string();
            refuse(&context, upgrade, &format!("Failed to connect to PTY session: {text}"), text)
        }
    }
}

fn takes_exit(headers: &HeaderMap) -> bool {
    offered(headers).any(|token| token == EXIT_CONTROL_SUBPROTOCOL)
}

/// Clients read why from a message and from the close, and some know no other way.
fn refuse(context: &Context, upgrade: Upgrade, message: &str, reason: String) -> Response {
    let close = failed_close(&reason);
    upgrade.greeting(failed(message)).serve(&context.shutdown, async move |_, _| close)
}

#[derive(Debug, Deserialize, IntoParams)]
struct CreateConnectQuery {
    /// Id of the new terminal.
    #[param(required)]
    id: Option<String>,
    /// Columns, up to 1000; 80 by default, also for 0.
    #[param(value_type = Option<u16>)]
    cols: Option<String>,
    /// Rows, up to 1000; 24 by default, also for 0.
    #[param(value_type = Option<u16>)]
    rows: Option<String>,
    /// Working directory; relative to the daemon's, which is the default.
    cwd: Option<String>,
}

impl CreateConnectQuery {
    fn request(self, headers: &HeaderMap) -> Result<Request> {
        let id = self.id.ok_or_else(|| Error::invalid("session id required"))?;
        let env = offered_env(offered(headers))?;
        let (cols, rows) = (dimension("cols", self.cols)?, dimension("rows", self.rows)?);
        let (lazy_start, command, user) = (false, None, None);
        Ok(Request { id, cwd: self.cwd, env, cols, rows, lazy_start, command, user })
    }
}

/// None for 0, which means the default.
fn dimension(name: &str, text: Option<String>) -> Result<Option<u16>> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<u16>() {
        Ok(0) => Ok(None),
        Ok(number) if number <= 1000 => Ok(Some(number)),
        Ok(_) => Err(Error::invalid("cols and rows must be less than 1000")),
        Err(_) => Err(Error::invalid(format!("{name} must be an integer between 0 and 65535"))),
    }
}

/// Starts a terminal with a login shell and attaches to it
///
/// An environment comes as the subprotocol `X-Daytona-Pty-Envs~` followed by base64url of a JSON object.
#[utoipa::path(get, path = "/process/pty/create-connect", tag = "pty", params(CreateConnectQuery),
    responses((status = 101, description = "WebSocket"), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn create_connect(
    State(context): State<Context>,
    upgrade: Upgrade,
    Query(query): Query<CreateConnectQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let request = query.request(&headers).map_err(told)?;
    match context.ptys.create_for_client(request).await {
        Ok(unclaimed) => {
            let habits = Habits { takes_exit: takes_exit(&headers), counts: false };
            let upgrade = upgrade.greeting(connected(None)).max_message(INPUT_BYTES);
            Ok(upgrade.serve(&context.shutdown, async move |sender, receiver| match unclaimed.claim() {
                Ok((pty, attached)) => socket::serve(pty, attached, habits, sender, receiver).await,
                Err(error) => failed_close(&error.to_string()),
            }))
        }
        Err(error) if error.kind() == ErrorKind::Internal => {
            let text = error.to_string();
            let message = text.replacen("failed", "Failed", 1);
            Ok(refuse(&context, upgrade, &message, text))
        }
        Err(error) => Err(told(error)),
    }
}
