//! JSON of sessions, and its shape by client version (contract `process.md` 4, 6).

use std::sync::Arc;

use http::HeaderMap;
use semver::{Prerelease, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::command::{self, Cause, SessionCommand, State};
use super::service::{self, ExecRequest};
use crate::http::client::Client;

/// A session to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateSession {
    /// Chosen by the client; up to 256 bytes without control characters, and not `entrypoint`.
    #[serde(default)]
    #[schema(required)]
    pub(super) session_id: String,
}

/// A session and its commands, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    session_id: String,
    commands: Vec<Command>,
}

impl From<&service::Session> for Session {
    fn from(session: &service::Session) -> Self {
        let commands = session.commands();
        Self {
            session_id: session.id.clone(),
            commands: commands.iter().map(|command| Command::new(command, false)).collect(),
        }
    }
}

/// A command of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Command {
    id: String,
    /// The text as it was submitted.
    command: String,
    /// Absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// When the query says `detail=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
}

/// What is known of a command beyond the contract.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detail {
    /// `queued`, `running`, `exited`, `endedSession` (the shell ended while it ran) or `neverRan`.
    state: &'static str,
    /// Milliseconds from its start to its end, or to now.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_time_ms: Option<u64>,
    /// Bytes that it printed so far: the offset of the next one.
    output_bytes: u64,
    /// Bytes of those that were dropped from the middle of the log.
    dropped_bytes: u64,
}

impl Command {
    pub(super) fn new(command: &Arc<SessionCommand>, has_detail: bool) -> Self {
        Self {
            id: command.id.clone(),
            command: command.text.clone(),
            exit_code: command.exit_code(),
            detail: has_detail.then(|| Detail::of(command)),
        }
    }
}

impl Detail {
    fn of(command: &SessionCommand) -> Self {
        let (state, run_time) = match command.state() {
            State::Queued => ("queued", None),
            State::Running { since } => ("running", Some(since.elapsed())),
            State::Ended(command::End { cause, run_time, .. }) => match cause {
                Cause::Itself => ("exited", Some(run_time)),
                Cause::EndedSession => ("endedSession", Some(run_time)),
                Cause::NeverRan => ("neverRan", None),
            },
        };
        Self {
            state,
            run_time_ms: run_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            output_bytes: command.log().end(),
            dropped_bytes: command.log().dropped(),
        }
    }
}

/// A command for a session.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecuteInSession {
    /// Text for the shell; may have many lines and any length.
    #[serde(default)]
    #[schema(required)]
    command: String,
    /// Answer at once, with the command's input open.
    #[serde(default)]
    run_async: bool,
    /// The same, as old clients spell it.
    #[serde(default, rename = "async")]
    is_async: bool,
    /// Input does not show in the command's log.
    #[serde(default)]
    suppress_input_echo: bool,
}

impl From<ExecuteInSession> for ExecRequest {
    fn from(body: ExecuteInSession) -> Self {
        Self {
            text: body.command,
            is_async: body.run_async || body.is_async,
            hides_input: body.suppress_input_echo,
        }
    }
}

/// What became of a command; all but the id is null for one that was only started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Executed {
    /// Names the command within its session.
    cmd_id: String,
    /// Both streams as units, each a marker and its bytes: `01 01 01` for standard output, `02 02 02` for standard
    /// error.
    output: Option<String>,
    /// Standard output.
    stdout: Option<String>,
    /// Standard error.
    stderr: Option<String>,
    /// As the shell tells it.
    exit_code: Option<i32>,
}

impl Executed {
    pub(super) fn started(command: &SessionCommand) -> Self {
        Self { cmd_id: command.id.clone(), output: None, stdout: None, stderr: None, exit_code: None }
    }
}

/// What a command has printed so far.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Logs {
    /// Both streams as units.
    output: String,
    /// Standard output.
    stdout: String,
    /// Standard error.
    stderr: String,
}

/// Input for a command.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Input {
    /// A newline is added unless it ends with one.
    #[serde(default)]
    pub(super) data: String,
    /// Beyond the contract: no more input will come.
    #[serde(default)]
    pub(super) close: bool,
}

/// A signal for a command.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Signal {
    /// Its name in signal(7), with or without `SIG`.
    #[schema(example = "INT")]
    pub(super) signal: String,
}

/// In which form a client reads output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Bytes alone.
    Stripped,
    /// Units.
    Marked,
    /// Units, and each stream by itself: JSON.
    Split,
}

impl Shape {
    /// Contract `process.md` 6, first match. A version that cannot be read is a development build of a new client.
    pub(super) fn of(client: &Client, headers: &HeaderMap) -> Self {
        let text = client.version_text();
        let before = |minor| {
            // Also before its pre-releases: 0.27.0-0.
            let mut limit = Version::new(0, minor, 0);
            limit.pre = Prerelease::new("0").expect("a number");
            client.version().is_some_and(|version| version < limit)
        };
        if text.is_empty() {
            let asked = headers.get("x-daytona-split-output").is_some_and(|value| value == "true");
            return if asked { Self::Marked } else { Self::Stripped };
        }
        if text.contains("dev") {
            return Self::Split;
        }
        if before(27) {
            return Self::Stripped;
        }
        if before(167) { Self::Marked } else { Self::Split }
    }

    /// For a WebSocket: the Java SDK tells no version and reads units all the same.
    pub(super) fn of_socket(client: &Client, headers: &HeaderMap) -> Self {
        let agent =
            headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        if client.version_text().is_empty() && agent.starts_with("okhttp/") {
            return Self::Marked;
        }
        Self::of(client, headers)
    }

    /// For the entrypoint's log, which is never stripped.
    pub(super) fn unstripped(self) -> Self {
        if self == Self::Stripped { Self::Marked } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(version: &str, headers: &[(&'static str, &'static str)]) -> (Shape, Shape) {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        if !version.is_empty() {
            all.insert("x-daytona-sdk-version", version.parse().unwrap());
        }
        let client = Client::from_headers(&all);
        (Shape::of(&client, &all), Shape::of_socket(&client, &all))
    }

    #[test]
    fn every_generation_of_clients_gets_its_shape() {
        let both = |shape| (shape, shape);
        assert_eq!(shape("0.226.1", &[]), both(Shape::Split));
        assert_eq!(shape("0.0.0-dev", &[]), both(Shape::Split));
        assert_eq!(shape("unknown", &[]), both(Shape::Split));
        assert_eq!(shape("0.167.0a1", &[]), both(Shape::Split));
        assert_eq!(shape("0.166.9", &[]), both(Shape::Marked));
        assert_eq!(shape("0.27.0", &[]), both(Shape::Marked));
        assert_eq!(shape("v0.26.3", &[]), both(Shape::Stripped));
        assert_eq!(shape("", &[]), both(Shape::Stripped));
        assert_eq!(shape("", &[("x-daytona-split-output", "true")]), both(Shape::Marked));
        assert_eq!(shape("", &[("user-agent", "okhttp/4.12.0")]), (Shape::Stripped, Shape::Marked));
    }
}
