//! JSON of `/process/execute`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::service::Request;
use crate::http::exit::ExitRecord;
use crate::http::extract::integral;

/// A command to run to its end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecuteRequest {
    /// Text of a shell script; may have many lines and any length.
    #[serde(default)]
    #[schema(required, example = "ls -l | head -n 3")]
    command: String,
    /// Working directory; relative to the daemon's, which is the default.
    cwd: Option<String>,
    /// Seconds after which the command and all its descendants are killed; none or 0 is no limit.
    #[serde(default, deserialize_with = "integral")]
    timeout: Option<u32>,
    /// Variables on top of those that every process inherits.
    envs: Option<BTreeMap<String, String>>,
    /// Beyond the contract: kill the command, with all its descendants, when the client leaves before the answer.
    #[serde(default)]
    kill_on_disconnect: bool,
}

impl From<ExecuteRequest> for Request {
    fn from(body: ExecuteRequest) -> Self {
        Self {
            command: body.command,
            cwd: body.cwd.filter(|cwd| !cwd.is_empty()),
            time_limit: body
                .timeout
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.into())),
            env: body.envs.unwrap_or_default().into_iter().collect(),
            kill_on_disconnect: body.kill_on_disconnect,
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecuteResponse {
    /// Exit code of the shell; -1 when a signal ended it or it could not be started.
    exit_code: i32,
    /// Standard output and standard error in the order in which they were written. Bytes that are not UTF-8 are
    /// U+FFFD; of more than the daemon keeps, the middle is replaced by a notice.
    result: String,
    /// How it ended, when the query says `detail=true`.
    exit: Option<ExitRecord>,
}
