//! JSON of launching.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Launch, Launched, Program};
use crate::desktop::display::wire::WindowInfo;
use crate::error::{Error, Result};
use crate::supervisor::ExitStatus;

/// Time that a window gets when none is given, in milliseconds.
const TIMEOUT_MS: u64 = 15_000;
/// Longest time for it.
const LONGEST_TIMEOUT_MS: u64 = 600_000;

/// What to run: one of `command`, `desktopId` and `uri`, or an application and the URI that it is to open.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LaunchRequest {
    /// Program and arguments: a list, or text that is split as a shell would, and not interpreted otherwise.
    command: Option<Words>,
    /// Id of an installed application, as `org.xfce.mousepad`.
    #[serde(alias = "desktopid")]
    desktop_id: Option<String>,
    /// A URI or path to open.
    uri: Option<String>,
    /// Working directory; the home directory by default.
    cwd: Option<String>,
    /// Variables on top of those that every process inherits.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Whether to wait for its window.
    #[serde(default)]
    wait: bool,
    /// Milliseconds to wait for it, 15000 by default.
    #[serde(alias = "timeoutms")]
    timeout_ms: Option<u64>,
    /// Has Chromium, and what is built on it, describe its pages to assistive programs.
    #[serde(default)]
    accessibility: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Words {
    fn split(self) -> Result<Vec<String>> {
        let words = match self {
            Self::Text(text) => shell_words::split(&text)
                .map_err(|error| Error::invalid(format!("command cannot be split into words: {error}")))?,
            Self::List(words) => words,
        };
        if words.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("command is empty"));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(Error::invalid("command has a NUL byte"));
        }
        Ok(words)
    }
}

impl LaunchRequest {
    pub(super) fn check(self) -> Result<Launch> {
        let program = match (self.command, self.desktop_id, self.uri) {
            (Some(command), None, None) => Program::Command(command.split()?),
            (None, Some(id), uri) => Program::Entry { id, uri },
            (None, None, Some(uri)) if !uri.is_empty() && !uri.starts_with('-') => Program::Uri(uri),
            _ => return Err(Error::invalid("one of command, desktopId and uri is required")),
        };
        let timeout = self.timeout_ms.unwrap_or(TIMEOUT_MS);
        if timeout > LONGEST_TIMEOUT_MS {
            return Err(Error::invalid(format!(
                "timeoutMs must be {LONGEST_TIMEOUT_MS} at most, not {timeout}"
            )));
        }
        Ok(Launch {
            program,
            cwd: self.cwd.map(PathBuf::from),
            env: self.env.into_iter().collect(),
            wait: self.wait.then(|| Duration::from_millis(timeout)),
            accessibility: self.accessibility,
        })
    }
}

/// A program that was started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LaunchReply {
    pid: u32,
    /// Null when none came in time, or none was waited for.
    window_id: Option<u32>,
    /// The same with all that is known of it.
    window: Option<WindowInfo>,
    /// When it has ended meanwhile: its exit code, or 128 and the number of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// When it opened no window: the last line that it printed.
    #[serde(skip_serializing_if = "String::is_empty")]
    last_line: String,
}

impl From<Launched> for LaunchReply {
    fn from(launched: Launched) -> Self {
        Self {
            pid: launched.pid,
            window_id: launched.window.as_ref().map(|window| window.id),
            window: launched.window.map(|window| WindowInfo::new(window, true)),
            exit_code: launched.exit.map(|exit| ExitStatus::shell_code(exit.status)),
            last_line: launched.last_line,
        }
    }
}
