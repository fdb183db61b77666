//! URL of `/process/execute`.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::service::{Exec, Outcome};
use super::wire::{ExecuteRequest, ExecuteResponse};
use crate::endpoints;
use crate::error::{Error, Result};
use crate::http::exit::{ExitRecord, exit_code, timed_out};
use crate::http::extract::{Query, collect, exactly_true, idempotency_key, json};
use crate::http::output::{LogText, Part, Select, json_document, json_string};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::supervisor::{Cause, Exit, OutputLog};

/// Largest request, in bytes: a command may have many megabytes.
const BODY_BYTES: usize = 64 * 1024 * 1024;

pub(crate) fn router(exec: Exec) -> Routes {
    Routes::new().routes(endpoints!(execute)).with_state(exec)
}

#[derive(Debug, Deserialize, IntoParams)]
struct ExecuteQuery {
    /// Adds the exit record to the answer, and to a timeout's error the last output as `partialOutput`.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    detail: bool,
}

/// Runs one command to its end and answers with its output and exit code
///
/// The command runs on when the client leaves, unless `killOnDisconnect` is set. Background processes do not hold the
/// answer. Repeating a request with the same `Idempotency-Key` header gives the first one's answer.
#[utoipa::path(post, path = "/process/execute", tag = "process", params(ExecuteQuery), request_body = ExecuteRequest,
    responses((status = 200, body = ExecuteResponse), (status = 400, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn execute(
    State(exec): State<Exec>,
    Query(query): Query<ExecuteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let body = collect(body, BODY_BYTES).await?;
    let key = idempotency_key(&headers, &body)?;
    let request: ExecuteRequest =
        json(&body).map_err(|error| Error::invalid(format!("invalid request body: {error}")))?;
    match exec.run(request.into(), key).await? {
        Outcome::NotStarted(error) => {
            let result = json_string(&error.to_string());
            Ok(json_reply(Body::from(format!("{{\"exitCode\":-1,\"result\":{result}}}"))))
        }
        Outcome::Ended { exit, output } if exit.cause == Cause::TimeLimit => {
            Err(timed_out(&output, query.detail).await)
        }
        Outcome::Ended { exit, output } => Ok(ended(exit, output, query.detail).await),
    }
}

async fn ended(exit: Exit, output: OutputLog, detail: bool) -> Response {
    let code = exit_code(exit);
    let record = if detail {
        let record = ExitRecord::new(exit, output.end(), output.dropped());
        format!("\"exit\":{},", serde_json::to_string(&record).expect("a record is plain JSON"))
    } else {
        String::new()
    };
    let parts = vec![
        Part::Json(format!("{{\"exitCode\":{code},{record}\"result\":")),
        Part::Log(LogText::between(&output, 0..output.end(), Select::All)),
        Part::Json("}".to_owned()),
    ];
    json_reply(json_document(parts).await)
}

fn json_reply(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}
