//! JSON of PTYs, and the messages of their sockets (contract `pty.md` 1, 2, 4.3, 4.4, 5).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::service::{Request, check_env};
use super::state::{End, Pty};
use crate::error::{Error, Result};
use crate::http::extract::integral;
use crate::http::socket::{Close, ENVS_SUBPROTOCOL};

/// Largest environment in a handshake, in bytes as they are sent.
const ENVS_BYTES: usize = 64 * 1024;
/// Longest reason of a close, in bytes (RFC 6455 5.5).
const REASON_BYTES: usize = 123;
/// Without padding, as the contract has it; with padding it means the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A terminal to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatePty {
    /// Chosen by the client; up to 256 bytes without control characters.
    #[serde(default)]
    #[schema(required)]
    id: String,
    /// Working directory; relative to the daemon's, which is the default.
    cwd: Option<String>,
    /// Variables on top of those that every process inherits; `TERM` is `xterm-256color` unless it is among them.
    envs: Option<BTreeMap<String, String>>,
    /// Columns, 1 to 1000; 80 by default.
    #[serde(default, deserialize_with = "uint16")]
    cols: Option<u16>,
    /// Rows, 1 to 1000; 24 by default.
    #[serde(default, deserialize_with = "uint16")]
    rows: Option<u16>,
    /// Start when the first client connects.
    lazy_start: Option<bool>,
    /// Beyond the contract: program and arguments instead of the login shell.
    command: Option<Vec<String>>,
    /// Beyond the contract: name or number of the user whose process it is; only root can choose. The user's home
    /// directory is the default of `cwd` then, and `HOME`, `USER`, `LOGNAME` and `SHELL` are the user's.
    user: Option<String>,
}

impl From<CreatePty> for Request {
    fn from(body: CreatePty) -> Self {
        Self {
            id: body.id,
            cwd: body.cwd.filter(|cwd| !cwd.is_empty()),
            env: body.envs.unwrap_or_default(),
            cols: body.cols,
            rows: body.rows,
            lazy_start: body.lazy_start.unwrap_or_default(),
            command: body.command,
            user: body.user.filter(|user| !user.is_empty()),
        }
    }
}

/// A new size.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ResizePty {
    /// Columns, 1 to 1000.
    #[serde(default, deserialize_with = "uint16")]
    #[schema(required)]
    pub(super) cols: Option<u16>,
    /// Rows, 1 to 1000.
    #[serde(default, deserialize_with = "uint16")]
    #[schema(required)]
    pub(super) rows: Option<u16>,
}

fn uint16<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let number = integral(deserializer)?.map(u16::try_from).transpose();
    number.map_err(|_| serde::de::Error::custom("a size is a whole number from 0 to 65535"))
}

/// The id of a new terminal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PtyCreated {
    pub(super) session_id: String,
}

/// That something was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PtyDeleted {
    pub(super) message: &'static str,
}

/// A terminal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PtySessionInfo {
    id: String,
    /// Where its program began.
    cwd: String,
    /// What was asked for at creation, with `TERM`.
    envs: BTreeMap<String, String>,
    /// Columns, as they are now.
    cols: u16,
    /// Rows, as they are now.
    rows: u16,
    /// RFC 3339, UTC.
    created_at: String,
    /// Its program runs.
    active: bool,
    /// Its program starts, or started, when the first client connects.
    lazy_start: bool,
}

impl From<&Pty> for PtySessionInfo {
    fn from(pty: &Pty) -> Self {
        let size = pty.size();
        Self {
            id: pty.id.clone(),
            cwd: pty.cwd.to_string_lossy().into_owned(),
            envs: pty.env.clone(),
            cols: size.cols,
            rows: size.rows,
            created_at: format!("{:.9}", pty.created_at),
            active: pty.is_active(),
            lazy_start: pty.lazy_start,
        }
    }
}

/// All terminals.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PtySessions {
    /// Oldest first.
    pub(super) sessions: Vec<PtySessionInfo>,
}

/// Reads the environment that a client offers among its subprotocols.
pub(super) fn offered_env<'a>(mut offers: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>> {
    let Some(payload) = offers.find_map(|offer| offer.strip_prefix(ENVS_SUBPROTOCOL)) else {
        return Ok(BTreeMap::new());
    };
    let invalid = |why: String| Error::invalid(format!("invalid envs subprotocol: {why}"));
    if payload.len() > ENVS_BYTES {
        return Err(invalid(format!("it has more than {ENVS_BYTES} bytes")));
    }
    let bytes = BASE64.decode(payload).map_err(|error| invalid(error.to_string()))?;
    let env = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    check_env(&env).map_err(|error| invalid(error.to_string()))?;
    Ok(env)
}

/// A message from the daemon; all else that a socket carries is input and output.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Control<'a> {
    r#type: Kind,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    exit: Option<ExitRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    #[default]
    Control,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExitRecord {
    exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_reason: Option<String>,
}

impl From<End> for ExitRecord {
    fn from(end: End) -> Self {
        Self { exit_code: end.code, exit_reason: end.reason() }
    }
}

fn text(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("a message is plain JSON")
}

/// The first message of a socket; with the offset of the first byte for a client that asked for one.
pub(super) fn connected(offset: Option<u64>) -> String {
    text(&Control { status: "connected", offset, ..Control::default() })
}

/// Output before this offset was dropped; the next byte is the one there.
pub(super) fn skipped(offset: u64) -> String {
    text(&Control { status: "skipped", offset: Some(offset), ..Control::default() })
}

/// The only message of a socket that leads nowhere.
pub(super) fn failed(error: &str) -> String {
    text(&Control { status: "error", error: Some(error), ..Control::default() })
}

/// How such a socket ends; the reason is whole JSON, whatever the length of the text.
pub(super) fn failed_close(error: &str) -> Close {
    let encoded = |error: &str| json!({"error": error}).to_string();
    let ends = error.char_indices().map(|(index, _)| index).chain([error.len()]);
    let fits = ends.rev().find(|end| encoded(&error[..*end]).len() <= REASON_BYTES).unwrap_or_default();
    Close::failed(encoded(&error[..fits]))
}

/// The last message of a socket, for clients that want it.
pub(super) fn exited(end: End) -> String {
    text(&Control { status: "exited", exit: Some(end.into()), ..Control::default() })
}

/// How a socket ends when the program has.
pub(super) fn exited_close(end: End) -> Close {
    Close::new(if end.code == 0 { 1000 } else { 1011 }, text(&ExitRecord::from(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_are_read_or_refused() {
        let read = |payload: &str| offered_env(["x", &format!("{ENVS_SUBPROTOCOL}{payload}")].into_iter());
        let encode = |json: &str| BASE64.encode(json).trim_end_matches('=').to_owned();
        assert_eq!(offered_env(["x"].into_iter()).unwrap(), BTreeMap::new());
        assert_eq!(read("e30").unwrap(), BTreeMap::new());
        let env = BTreeMap::from([("A".to_owned(), "ü".to_owned()), ("my.b".to_owned(), String::new())]);
        assert_eq!(read(&encode(r#"{"A":"ü","my.b":""}"#)).unwrap(), env);
        assert_eq!(read(&BASE64.encode(r#"{"A":"ü","my.b":""}"#)).unwrap(), env);
        for bad in [r#"{"A":1}"#, "[]", r#"{"":"x"}"#, r#"{"A=":"x"}"#, r#"{"A\n":"x"}"#, r#"{"A":"\u0000"}"#]
        {
            assert!(read(&encode(bad)).unwrap_err().to_string().starts_with("invalid envs subprotocol: "));
        }
        assert!(read("!").is_err() && read(&"A".repeat(ENVS_BYTES + 4)).is_err());
    }

    #[test]
    fn reasons_are_whole_json_however_long_the_text() {
        for text in ["short", &"é\"".repeat(200), ""] {
            let message = format!("{:?}", failed_close(text));
            assert!(message.contains(r#"{\"error\":\""#) && message.contains(r#"\"}"#), "{message}");
        }
    }

    #[test]
    fn ends_are_told_in_the_contracts_words() {
        assert_eq!(connected(None), r#"{"type":"control","status":"connected"}"#);
        assert_eq!(exited(End { code: 0 }), r#"{"type":"control","status":"exited","exitCode":0}"#);
        assert_eq!(exited_close(End { code: 0 }), Close::new(1000, r#"{"exitCode":0}"#));
        let killed = Close::new(1011, r#"{"exitCode":137,"exitReason":"SIGKILL"}"#);
        assert_eq!(exited_close(End { code: 137 }), killed);
    }
}
