//! JSON of `/process/code-run`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::chart::Chart;
use super::service::{Language, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::http::exit::ExitRecord;
use crate::http::extract::integral;

/// A program to run to its end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CodeRunRequest {
    /// The program; may have any length.
    #[serde(default)]
    #[schema(required, example = "print(6 * 7)")]
    code: String,
    /// `python`, `javascript` or `typescript`.
    #[serde(default)]
    #[schema(required, example = "python")]
    language: String,
    /// Arguments, as the program finds them behind its own name.
    argv: Option<Vec<String>>,
    /// Variables on top of those that every process inherits.
    envs: Option<BTreeMap<String, String>>,
    /// Seconds after which the program and all its descendants are killed; none or 0 is no limit.
    #[serde(default, deserialize_with = "integral")]
    timeout: Option<u32>,
    /// Beyond the contract: kill the program, with all its descendants, when the client leaves before the answer.
    #[serde(default)]
    kill_on_disconnect: bool,
}

impl TryFrom<CodeRunRequest> for Request {
    type Error = Error;

    fn try_from(body: CodeRunRequest) -> Result<Self> {
        let missing = |name| Error::new(ErrorKind::InvalidBody, format!("{name} is required"));
        if body.code.is_empty() {
            return Err(missing("code"));
        }
        let language = match body.language.as_str() {
            "python" => Language::Python,
            "javascript" => Language::JavaScript,
            "typescript" => Language::TypeScript,
            "" => return Err(missing("language")),
            other => return Err(Error::invalid(format!("unsupported language: {other}"))),
        };
        Ok(Self {
            code: body.code,
            language,
            argv: body.argv.unwrap_or_default(),
            env: body.envs.unwrap_or_default().into_iter().collect(),
            time_limit: body
                .timeout
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.into())),
            kill_on_disconnect: body.kill_on_disconnect,
        })
    }
}

/// What a program printed and drew, and how it ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CodeRunResponse {
    /// Exit code of the interpreter; -1 when a signal ended it or it could not be started.
    exit_code: i32,
    /// Standard output and standard error in the order in which they were written. Bytes that are not UTF-8 are
    /// U+FFFD; of more than the daemon keeps, the middle is replaced by a notice.
    result: String,
    /// What else it made; absent when that is nothing.
    artifacts: Option<CodeRunArtifacts>,
    /// How it ended, when the query says `detail=true`.
    exit: Option<ExitRecord>,
}

/// What a program made beside its output.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CodeRunArtifacts {
    /// What it drew with matplotlib, or with what uses that, in Python.
    charts: Vec<Chart>,
}
