//! URL of `/process/code-run`.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;

use super::service::{Code, Outcome, Request};
use super::wire::{CodeRunRequest, CodeRunResponse};
use crate::endpoints;
use crate::error::Result;
use crate::http::body::json_of;
use crate::http::exit::{ExitRecord, exit_code, timed_out};
use crate::http::extract::{Query, collect, exactly_true, idempotency_key, json};
use crate::http::output::{LogText, Part, Select, json_document, json_string};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::supervisor::{Cause, Exit};

/// Largest request, in bytes: a program may have data in it.
const BODY_BYTES: usize = 64 * 1024 * 1024;

pub(crate) fn router(code: Code) -> Routes {
    Routes::new().routes(endpoints!(run)).with_state(code)
}

#[derive(Debug, Deserialize, IntoParams)]
struct RunQuery {
    /// Adds the exit record to the answer, and to a timeout's error the last output as `partialOutput`.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    detail: bool,
}

/// Runs a program in Python, JavaScript or TypeScript to its end and answers with its output, exit code and charts
///
/// The program runs on when the client leaves, unless `killOnDisconnect` is set. Repeating a request with the same
/// `Idempotency-Key` header gives the first one's answer.
#[utoipa::path(post, path = "/process/code-run", tag = "process", params(RunQuery), request_body = CodeRunRequest,
    responses((status = 200, body = CodeRunResponse), (status = 400, body = ErrorBody),
        (status = 408, body = ErrorBody), (status = 409, body = ErrorBody), (status = 500, body = ErrorBody)))]
async fn run(
    State(code): State<Code>,
    Query(query): Query<RunQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let body = collect(body, BODY_BYTES).await?;
    let key = idempotency_key(&headers, &body)?;
    let request: Request = json::<CodeRunRequest>(&body)?.try_into()?;
    match code.run(request, key).await? {
        Outcome::NotStarted(reason) => {
            Ok(json_of(Body::from(format!("{{\"exitCode\":-1,\"result\":{}}}", json_string(&reason)))))
        }
        Outcome::Ended { exit, output, .. } if exit.cause == Cause::TimeLimit => {
            Err(timed_out(&output, query.detail).await)
        }
        Outcome::Ended { exit, output, shown, charts } => {
            let record = query.detail.then(|| ExitRecord::new(exit, output.end(), output.dropped()));
            let text = shown.iter().map(|range| LogText::between(&output, range.clone(), Select::All));
            let parts =
                vec![Part::Json(head(exit, record)), Part::Logs(text.collect()), Part::Json(tail(&charts))];
            Ok(json_of(json_document(parts).await))
        }
    }
}

fn head(exit: Exit, record: Option<ExitRecord>) -> String {
    let record = record.map_or_else(String::new, |record| {
        format!("\"exit\":{},", serde_json::to_string(&record).expect("a record is plain JSON"))
    });
    format!("{{\"exitCode\":{},{record}\"result\":", exit_code(exit))
}

fn tail(charts: &[String]) -> String {
    if charts.is_empty() {
        "}".to_owned()
    } else {
        format!(",\"artifacts\":{{\"charts\":[{}]}}}}", charts.join(","))
    }
}
