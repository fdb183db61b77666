//! JSON of the interpreter.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::context::Context;
use super::run::{Event, Snippet};
use super::service::{DEFAULT, LANGUAGE};
use crate::http::socket::MAX_FRAME;
use crate::supervisor::{Stream, check_name, check_value};

/// Time for code that says nothing of it, in seconds.
const TIMEOUT: u64 = 600;

/// A context to make.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CreateContext {
    /// Its directory at first; relative to the daemon's, which is the default.
    pub(super) cwd: Option<String>,
    /// `python`, which is the default.
    pub(super) language: Option<String>,
}

/// A namespace that runs of code share, and the process that holds it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InterpreterContext {
    id: String,
    /// Its directory at first.
    cwd: String,
    /// RFC 3339, UTC.
    created_at: String,
    /// Whether its process lives; if not, the next run starts another one.
    active: bool,
    language: &'static str,
}

impl From<&Context> for InterpreterContext {
    fn from(context: &Context) -> Self {
        Self {
            id: context.id.clone(),
            cwd: context.cwd.clone(),
            created_at: context.created.to_string(),
            active: context.is_active(),
            language: LANGUAGE,
        }
    }
}

/// All contexts but the default one, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InterpreterContexts {
    pub(super) contexts: Vec<InterpreterContext>,
}

/// What became of a request without a result of its own.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    pub(super) message: &'static str,
}

/// The first frame of a client: code to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunRequest {
    /// The code, as the body of a module.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(required, example = "print(6 * 7)")]
    code: String,
    /// Id of the context to run it in; none is the default one.
    context_id: Option<String>,
    /// Variables in `os.environ` for this run only.
    envs: Option<BTreeMap<String, String>>,
    /// Seconds after which it is interrupted, and 2 seconds later killed; none is 600, 0 is no limit.
    #[serde(default, deserialize_with = "whole")]
    #[schema(value_type = Option<i64>)]
    timeout: Option<i64>,
    /// Beyond the contract: tell the value of a trailing expression, in a frame of type `result`.
    #[serde(default, deserialize_with = "null_is_default")]
    rich: bool,
    /// Beyond the contract: interrupt the code when the client leaves before its end.
    #[serde(default, deserialize_with = "null_is_default")]
    interrupt_on_disconnect: bool,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An integer, that may come as an integral float.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let of_float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
    #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
    let whole = number.as_i64().or_else(|| of_float().map(|float| float as i64));
    whole.map(Some).ok_or_else(|| de::Error::custom(format!("{number} is not a whole number")))
}

impl RunRequest {
    /// Where to run what.
    ///
    /// # Errors
    /// Says what makes no sense.
    pub(super) fn into_run(self) -> Result<(String, Snippet), String> {
        if self.code.is_empty() {
            return Err("code is required".to_owned());
        }
        let seconds = match self.timeout {
            None => TIMEOUT,
            Some(seconds) => {
                u64::try_from(seconds).map_err(|_| "timeout must be greater than or equal to 0".to_owned())?
            }
        };
        let envs = self.envs.unwrap_or_default();
        for (name, value) in &envs {
            check_name(name).and_then(|()| check_value(name, value)).map_err(|error| error.to_string())?;
        }
        let snippet = Snippet {
            code: self.code,
            envs,
            // What no clock can count to is no limit.
            time_limit: Some(seconds)
                .filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds))
                .map(Duration::from_secs),
            rich: self.rich,
            interrupt_on_disconnect: self.interrupt_on_disconnect,
        };
        Ok((self.context_id.filter(|id| !id.is_empty()).unwrap_or_else(|| DEFAULT.to_owned()), snippet))
    }
}

/// A later frame of a client.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(super) enum Control {
    /// Beyond the contract: raises a KeyboardInterrupt in the code.
    Interrupt,
}

/// A frame that a client gets. Members that its type does not use are empty.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct OutputFrame<'a> {
    /// `stdout`, `stderr`, `error`, `control`, and where it was asked for `result`.
    r#type: &'static str,
    /// Of `stdout` and `stderr` what was printed, of `control` the word `completed`.
    text: &'a str,
    /// Of `error` the name of the exception's class.
    name: &'a str,
    /// Of `error` what the exception says.
    value: &'a str,
    /// Of `error` its traceback, the frames of the user's code.
    traceback: &'a str,
    /// Of `result` the value by media type: `text/plain`, and what else there is of `text/html`, `image/png` (Base64),
    /// `application/json` and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, serde_json::Value>>)]
    data: Option<&'a RawValue>,
}

impl OutputFrame<'_> {
    /// The code has ended.
    pub(super) fn completed() -> String {
        OutputFrame { r#type: "control", text: "completed", ..OutputFrame::default() }.json()
    }

    /// The code was interrupted before it began.
    pub(super) fn interrupted() -> String {
        OutputFrame { r#type: "error", name: "KeyboardInterrupt", ..OutputFrame::default() }.json()
    }

    /// An event as frames, which are no larger than frames may be; none for an end.
    pub(super) fn of(event: &Event) -> Vec<String> {
        let frame = match event {
            Event::Output(stream, text) => {
                let mut frames = Vec::new();
                Self::printed(*stream, text, &mut frames);
                return frames;
            }
            Event::Error { name, value, traceback } => {
                OutputFrame { r#type: "error", name, value, traceback, ..OutputFrame::default() }
            }
            Event::Result(data) => {
                OutputFrame { r#type: "result", data: Some(data), ..OutputFrame::default() }
            }
            Event::End(_) => return Vec::new(),
        };
        vec![frame.json()]
    }

    /// Text that JSON makes too long is halved until it is not.
    fn printed(stream: Stream, text: &str, frames: &mut Vec<String>) {
        let r#type = match stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        };
        let frame = OutputFrame { r#type, text, ..OutputFrame::default() }.json();
        let half = (text.len() / 2..text.len()).find(|half| text.is_char_boundary(*half));
        match half.filter(|_| frame.len() > MAX_FRAME) {
            Some(half) => {
                Self::printed(stream, &text[..half], frames);
                Self::printed(stream, &text[half..], frames);
            }
            None => frames.push(frame),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("a frame is plain JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(json: &str) -> Result<(String, Snippet), String> {
        serde_json::from_str::<RunRequest>(json).map_err(|_| "no JSON".to_owned())?.into_run()
    }

    #[test]
    fn requests_have_defaults_and_null_is_absent() {
        let (id, snippet) =
            run(r#"{"code":"x","contextId":null,"envs":null,"timeout":null,"rich":null}"#).unwrap();
        assert_eq!((id.as_str(), snippet.time_limit), ("default", Some(Duration::from_secs(600))));
        let (id, snippet) = run(r#"{"code":"x","contextId":"c","timeout":5.0,"envs":{"A":"1"}}"#).unwrap();
        assert_eq!((id.as_str(), snippet.time_limit), ("c", Some(Duration::from_secs(5))));
        assert_eq!(run(r#"{"code":"x","timeout":0}"#).unwrap().1.time_limit, None);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (json, reason) in [
            (r#"{"code":"x","timeout":1.5}"#, "no JSON"),
            (r#"{"code":5}"#, "no JSON"),
            (r#"{"code":"x","envs":{"A":null}}"#, "no JSON"),
            (r#"{"code":""}"#, "code is required"),
            (r#"{"timeout":-1}"#, "code is required"),
            (r#"{"code":"x","timeout":-1}"#, "timeout must be greater than or equal to 0"),
            (r#"{"code":"x","envs":{"A-B":""}}"#, "invalid environment variable name: 'A-B'"),
        ] {
            assert_eq!(run(json).unwrap_err(), reason, "{json}");
        }
    }

    #[test]
    fn frames_are_never_too_large() {
        let text = "\0é".repeat(20_000);
        let frames = OutputFrame::of(&Event::Output(Stream::Err, text.clone()));
        assert!(frames.len() > 1 && frames.iter().all(|frame| frame.len() <= MAX_FRAME));
        let texts = frames.iter().map(|frame| {
            let frame: serde_json::Value = serde_json::from_str(frame).unwrap();
            frame["text"].as_str().unwrap().to_owned()
        });
        assert_eq!(texts.collect::<String>(), text);
    }
}
