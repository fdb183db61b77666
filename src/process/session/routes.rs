//! URLs of sessions (contract `process.md` 4 and 5, `core.md` 6).

use std::sync::Arc;

use axum::Json as JsonReply;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use semver::Version;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::command::SessionCommand;
use super::service::{ENTRYPOINT, ENTRYPOINT_COMMAND, Sessions, Start};
use super::wire::{Command, CreateSession, ExecuteInSession, Executed, Input, Logs, Session, Shape, Signal};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::client::Client;
use crate::http::extract::{Json, Path, Query, collect, exactly_true, idempotency_key, json};
use crate::http::output::{LogText, Part, Select, json_document, json_string, text_body};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::{Close, Left, Sender, Upgrade};
use crate::platform::shutdown::Shutdown;
use crate::supervisor::Stream;

/// Largest command and largest input, in bytes.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Of a log reply: the offset of the first byte after what the reply has; of a stream, of its first byte.
const LOG_OFFSET: HeaderName = HeaderName::from_static("x-log-offset");

#[derive(Debug, Clone)]
struct Context {
    sessions: Sessions,
    shutdown: Shutdown,
}

pub(crate) fn router(sessions: Sessions, shutdown: Shutdown) -> Routes {
    Routes::new()
        .routes(endpoints!(create, list))
        .routes(endpoints!(entrypoint))
        .route("/process/session/entrypoint", routing::delete(refuse_delete))
        .routes(endpoints!(entrypoint_logs))
        .routes(endpoints!(get, delete))
        .routes(endpoints!(exec))
        .routes(endpoints!(command))
        .routes(endpoints!(input))
        .routes(endpoints!(signal))
        .routes(endpoints!(logs))
        .with_state(Context { sessions, shutdown })
}

/// Starts a shell that runs commands one by one, under an id of the client's
#[utoipa::path(post, path = "/process/session", tag = "sessions", request_body = CreateSession,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 500, body = ErrorBody)))]
async fn create(
    State(context): State<Context>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode> {
    let body = collect(body, BODY_BYTES).await?;
    let request: CreateSession = json(&body)?;
    let is_old = client.version().is_some_and(|version| version < Version::new(0, 103, 0));
    let start = if is_old && !client.version_text().contains("dev") { Start::Home } else { Start::WorkDir };
    context.sessions.create(request.session_id, start, idempotency_key(&headers, &body)?).await?;
    Ok(StatusCode::CREATED)
}

/// All sessions, oldest first, without the entrypoint's
#[utoipa::path(get, path = "/process/session", tag = "sessions", responses((status = 200, body = [Session])))]
async fn list(State(context): State<Context>) -> JsonReply<Vec<Session>> {
    JsonReply(context.sessions.list().iter().map(|session| Session::from(&**session)).collect())
}

/// One session with its commands
#[utoipa::path(get, path = "/process/session/{sessionId}", tag = "sessions",
    params(("sessionId" = String, Path, description = "Id of the session")),
    responses((status = 200, body = Session), (status = 404, body = ErrorBody)))]
async fn get(State(context): State<Context>, Path(id): Path<String>) -> Result<JsonReply<Session>> {
    Ok(JsonReply(Session::from(&*context.sessions.get(&id)?)))
}

/// The session of the command that the daemon was started with
#[utoipa::path(get, path = "/process/session/entrypoint", tag = "sessions",
    responses((status = 200, body = Session), (status = 404, body = ErrorBody)))]
async fn entrypoint(state: State<Context>) -> Result<JsonReply<Session>> {
    get(state, Path(ENTRYPOINT.to_owned())).await
}

/// Beside the route above, so that its path does not hide what the general one says.
async fn refuse_delete(state: State<Context>) -> Result<StatusCode> {
    delete(state, Path(ENTRYPOINT.to_owned())).await
}

/// Ends a session and everything that it started: SIGTERM, the grace period, SIGKILL
#[utoipa::path(delete, path = "/process/session/{sessionId}", tag = "sessions",
    params(("sessionId" = String, Path, description = "Id of the session")),
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn delete(State(context): State<Context>, Path(id): Path<String>) -> Result<StatusCode> {
    let sessions = context.sessions.clone();
    let deleted = context.shutdown.spawn(async move { sessions.delete(&id).await }).await;
    deleted.map_err(|error| Error::internal("the session was not deleted").with_source(error))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a command in a session's shell: to its end, or, asynchronously, until it is queued
///
/// Repeating a request with the same `Idempotency-Key` header gives the first one's answer.
#[utoipa::path(post, path = "/process/session/{sessionId}/exec", tag = "sessions", request_body = ExecuteInSession,
    params(("sessionId" = String, Path, description = "Id of the session")),
    responses((status = 200, body = Executed), (status = 202, body = Executed), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 410, body = ErrorBody)))]
async fn exec(
    State(context): State<Context>,
    Path(id): Path<String>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let body = collect(body, BODY_BYTES).await?;
    let request: ExecuteInSession = json(&body)?;
    let key = idempotency_key(&headers, &[id.as_bytes(), b"\0", &body].concat())?;
    let command = context.sessions.exec(&id, request.into(), key).await?;
    if command.is_async {
        return Ok((StatusCode::ACCEPTED, JsonReply(Executed::started(&command))).into_response());
    }
    let end = command.log().end();
    let text = |select| Part::Log(LogText::between(command.log(), 0..end, select));
    let code = command.exit_code().map_or("null".to_owned(), |code| code.to_string());
    let mut parts = vec![Part::Json(format!("{{\"cmdId\":{},\"output\":", json_string(&command.id)))];
    match Shape::of(&client, &headers) {
        Shape::Split => parts.extend([
            text(Select::Marked),
            Part::Json(",\"stdout\":".to_owned()),
            text(Select::Only(Stream::Out)),
            Part::Json(",\"stderr\":".to_owned()),
            text(Select::Only(Stream::Err)),
        ]),
        Shape::Marked => {
            parts.extend([text(Select::Marked), Part::Json(",\"stdout\":null,\"stderr\":null".to_owned())])
        }
        Shape::Stripped => {
            parts.extend([text(Select::All), Part::Json(",\"stdout\":null,\"stderr\":null".to_owned())])
        }
    }
    parts.push(Part::Json(format!(",\"exitCode\":{code}}}")));
    Ok(json_reply(json_document(parts).await))
}

fn json_reply(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

#[derive(Debug, Deserialize, IntoParams)]
struct CommandQuery {
    /// Adds what is known beyond the contract, as `detail`.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    detail: bool,
}

/// One command of a session; its exit code is there when all that it printed is in its log
#[utoipa::path(get, path = "/process/session/{sessionId}/command/{commandId}", tag = "sessions",
    params(("sessionId" = String, Path, description = "Id of the session"),
        ("commandId" = String, Path, description = "Id of the command"), CommandQuery),
    responses((status = 200, body = Command), (status = 404, body = ErrorBody)))]
async fn command(
    State(context): State<Context>,
    Path((session, command)): Path<(String, String)>,
    Query(query): Query<CommandQuery>,
) -> Result<JsonReply<Command>> {
    Ok(JsonReply(Command::new(&context.sessions.command(&session, &command)?, query.detail)))
}

/// Sends input to an asynchronous command
#[utoipa::path(post, path = "/process/session/{sessionId}/command/{commandId}/input", tag = "sessions",
    params(("sessionId" = String, Path, description = "Id of the session"),
        ("commandId" = String, Path, description = "Id of the command")),
    request_body = Input,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 410, body = ErrorBody)))]
async fn input(
    State(context): State<Context>,
    Path((session, command)): Path<(String, String)>,
    body: Body,
) -> Result<StatusCode> {
    let Input { mut data, close } = json(&collect(body, BODY_BYTES).await?)?;
    if data.is_empty() && !close {
        return Err(Error::new(ErrorKind::InvalidBody, "data is required"));
    }
    if !data.is_empty() && !data.ends_with('\n') {
        data.push('\n');
    }
    context.sessions.input(&session, &command, Bytes::from(data), close).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a signal to the processes of a running command, or to the shell itself when it runs none
#[utoipa::path(post, path = "/process/session/{sessionId}/command/{commandId}/signal", tag = "sessions",
    params(("sessionId" = String, Path, description = "Id of the session"),
        ("commandId" = String, Path, description = "Id of the command")),
    request_body = Signal,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 410, body = ErrorBody)))]
async fn signal(
    State(context): State<Context>,
    Path((session, command)): Path<(String, String)>,
    Json(Signal { signal }): Json<Signal>,
) -> Result<StatusCode> {
    context.sessions.signal(&session, &command, &signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
struct LogsQuery {
    /// Goes on until the command has ended and all of its output was sent. Only `true` switches this on.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    follow: bool,
    /// Beyond the contract: begins at this byte of the log instead of its first, as `X-Log-Offset` or a position told
    /// before. A WebSocket then gets JSON text frames too: `position` after each binary frame, and `exit` before the
    /// close.
    offset: Option<u64>,
}

/// What a command has printed: all at once, or as a stream that follows it
///
/// JSON for SDKs from 0.167 on, text for older ones; a WebSocket sends binary frames of whole units.
#[utoipa::path(get, path = "/process/session/{sessionId}/command/{commandId}/logs", tag = "sessions",
    params(("sessionId" = String, Path, description = "Id of the session"),
        ("commandId" = String, Path, description = "Id of the command"), LogsQuery),
    responses((status = 101, description = "WebSocket"), (status = 200, body = Logs), (status = 404, body = ErrorBody)))]
async fn logs(
    State(context): State<Context>,
    Path((session, command)): Path<(String, String)>,
    Query(query): Query<LogsQuery>,
    client: Client,
    headers: HeaderMap,
    upgrade: Option<Upgrade>,
) -> Result<Response> {
    let found = context.sessions.command(&session, &command)?;
    let shape =
        if upgrade.is_some() { Shape::of_socket(&client, &headers) } else { Shape::of(&client, &headers) };
    let shape = if session == ENTRYPOINT { shape.unstripped() } else { shape };
    Ok(log_reply(&found, query, shape, upgrade, &context.shutdown).await)
}

/// What the entrypoint has printed: all at once, or as a stream that follows it
#[utoipa::path(get, path = "/process/session/entrypoint/logs", tag = "sessions", params(LogsQuery),
    responses((status = 101, description = "WebSocket"), (status = 200, body = Logs), (status = 404, body = ErrorBody)))]
async fn entrypoint_logs(
    state: State<Context>,
    query: Query<LogsQuery>,
    client: Client,
    headers: HeaderMap,
    upgrade: Option<Upgrade>,
) -> Result<Response> {
    let path = Path((ENTRYPOINT.to_owned(), ENTRYPOINT_COMMAND.to_owned()));
    logs(state, path, query, client, headers, upgrade).await
}

async fn log_reply(
    command: &Arc<SessionCommand>,
    query: LogsQuery,
    shape: Shape,
    upgrade: Option<Upgrade>,
    shutdown: &Shutdown,
) -> Response {
    let log = command.log();
    let offset = query.offset.unwrap_or(0);
    let select = if shape == Shape::Stripped { Select::All } else { Select::Marked };
    let end = log.end();
    let now = |select| LogText::between(log, offset..end, select);
    let text = |select| if query.follow { LogText::follow(log, offset, select) } else { now(select) };
    let (mut reply, at) = match upgrade {
        Some(upgrade) => {
            let positions = query.offset.is_some();
            let text = if positions { text(select).exact() } else { text(select) };
            let command = Arc::clone(command);
            let reply = upgrade.serve(shutdown, async move |sender, _| {
                stream(text, &command, positions, &sender).await.unwrap_or(Close::NORMAL)
            });
            (reply, offset)
        }
        None if query.follow => {
            let body = text_body(text(select));
            (([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response(), offset)
        }
        None if shape == Shape::Split => {
            let part = |select| Part::Log(now(select));
            let parts = vec![
                Part::Json("{\"output\":".to_owned()),
                part(Select::Marked),
                Part::Json(",\"stdout\":".to_owned()),
                part(Select::Only(Stream::Out)),
                Part::Json(",\"stderr\":".to_owned()),
                part(Select::Only(Stream::Err)),
                Part::Json("}".to_owned()),
            ];
            (json_reply(json_document(parts).await), end)
        }
        None => {
            let body = text_body(text(select));
            (([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response(), end)
        }
    };
    reply.headers_mut().insert(LOG_OFFSET, HeaderValue::from(at));
    reply
}

/// Sends a log to a WebSocket. A client that asked for an offset is told where it is, so that it can go on from there
/// over another connection.
async fn stream(
    mut text: LogText,
    command: &SessionCommand,
    tells_positions: bool,
    sender: &Sender,
) -> Result<Close, Left> {
    while let Some(frames) = text.next().await {
        for frame in frames {
            sender.binary(frame).await?;
        }
        if tells_positions {
            sender.text(json!({"type": "position", "offset": text.offset()}).to_string()).await?;
        }
    }
    if let Some(code) = command.exit_code().filter(|_| tells_positions) {
        sender.text(json!({"type": "exit", "exitCode": code}).to_string()).await?;
    }
    Ok(Close::NORMAL)
}
