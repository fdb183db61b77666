//! From [`Error`] to status and envelope: the only such mapping (contract `core.md` 3).

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, ErrorKind};

/// The envelope of every error reply.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErrorResponse)]
pub struct ErrorBody {
    /// The same as the HTTP status.
    status_code: u16,
    /// One sentence for people that names the thing.
    message: String,
    /// What the caller can do about it, as a word for programs.
    #[schema(example = "FILE_NOT_FOUND")]
    code: &'static str,
    /// Who answers: always `DAYTONA_DAEMON`.
    source: &'static str,
    /// RFC 3339, UTC.
    timestamp: String,
    /// The request's path, without prefix and query.
    path: String,
    /// The request's method.
    method: String,
    /// What some endpoints add, as `errors` and `files` of a bulk upload.
    #[serde(flatten)]
    #[schema(ignore)]
    details: serde_json::Map<String, serde_json::Value>,
}

impl ErrorBody {
    /// The envelope for `error`, met while answering `method` on `path`.
    pub fn new(error: &Error, method: &Method, path: &str) -> Self {
        Self {
            status_code: status(error.kind()).as_u16(),
            message: format!("{}{error}", prefix(error.kind())),
            code: error.kind().code(),
            source: "DAYTONA_DAEMON",
            timestamp: format!("{:.6}", jiff::Timestamp::now()),
            path: path.to_owned(),
            method: method.to_string(),
            details: error.details().clone(),
        }
    }
}

/// The status that goes with a kind. No `_` arm, so that a new kind has to choose.
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::InvalidBody | ErrorKind::InvalidFilePath => {
            StatusCode::BAD_REQUEST
        }
        ErrorKind::Unauthorized | ErrorKind::GitAuthFailed => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden | ErrorKind::FileAccessDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound
        | ErrorKind::FileNotFound
        | ErrorKind::ProcessNotFound
        | ErrorKind::GitRepoNotFound
        | ErrorKind::GitBranchNotFound => StatusCode::NOT_FOUND,
        ErrorKind::Timeout | ErrorKind::ExecutionTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Conflict
        | ErrorKind::GitBranchExists
        | ErrorKind::GitPushRejected
        | ErrorKind::GitDirtyWorktree
        | ErrorKind::GitMergeConflict => StatusCode::CONFLICT,
        ErrorKind::Gone | ErrorKind::SessionEnded | ErrorKind::CommandCompleted => StatusCode::GONE,
        ErrorKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorKind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Unprocessable | ErrorKind::GitRemoteRejected => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::BadGateway | ErrorKind::GitTransportFailed => StatusCode::BAD_GATEWAY,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal | ErrorKind::FileReadFailed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the original daemon puts in front of a message; kinds of a single cause say it in their message.
fn prefix(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => "bad request: ",
        ErrorKind::InvalidBody => "invalid body request: ",
        ErrorKind::Unauthorized | ErrorKind::GitAuthFailed => "unauthorized: ",
        ErrorKind::Forbidden => "forbidden: ",
        ErrorKind::NotFound
        | ErrorKind::ProcessNotFound
        | ErrorKind::GitRepoNotFound
        | ErrorKind::GitBranchNotFound => "not found: ",
        ErrorKind::Timeout | ErrorKind::ExecutionTimeout => "request timeout: ",
        ErrorKind::Conflict
        | ErrorKind::GitBranchExists
        | ErrorKind::GitPushRejected
        | ErrorKind::GitDirtyWorktree
        | ErrorKind::GitMergeConflict => "conflict: ",
        ErrorKind::Gone | ErrorKind::SessionEnded | ErrorKind::CommandCompleted => "gone: ",
        ErrorKind::Unprocessable | ErrorKind::GitRemoteRejected => "unprocessable entity: ",
        ErrorKind::Internal => "internal server error: ",
        ErrorKind::PreconditionFailed
        | ErrorKind::RangeNotSatisfiable
        | ErrorKind::TooLarge
        | ErrorKind::Unsupported
        | ErrorKind::BadGateway
        | ErrorKind::GitTransportFailed
        | ErrorKind::Unavailable
        | ErrorKind::FileNotFound
        | ErrorKind::FileAccessDenied
        | ErrorKind::InvalidFilePath
        | ErrorKind::FileReadFailed => "",
    }
}

impl IntoResponse for Error {
    /// The status now; the request layer, which knows path and method, fills in the envelope with [`seal`] and logs
    /// the cause inside the request's span.
    fn into_response(self) -> Response {
        let mut reply = status(self.kind()).into_response();
        reply.extensions_mut().insert(Arc::new(self));
        reply
    }
}

/// Puts the envelope into a reply that was made from an [`Error`]; gives the error back for the log.
pub fn seal(reply: &mut Response, method: &Method, path: &str) -> Option<Arc<Error>> {
    let error = reply.extensions_mut().remove::<Arc<Error>>()?;
    let body = serde_json::to_vec(&ErrorBody::new(&error, method, path)).expect("an envelope is plain JSON");
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *reply.body_mut() = axum::body::Body::from(body);
    Some(error)
}
