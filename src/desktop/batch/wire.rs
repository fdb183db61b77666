//! JSON of batches.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Step, StepReply};
use crate::desktop::body::from_members;
use crate::desktop::input::ActionRequest;
use crate::desktop::screenshot::PictureRequest;
use crate::desktop::watch::WaitQuery;
use crate::error::{Error, Result};

/// Most actions of a batch.
const ACTIONS: usize = 1000;
/// Longest pause of a batch, in milliseconds.
const LONGEST_SLEEP_MS: u64 = 60_000;

/// Longest time that all waits and pauses of a batch may take: nobody else has mouse and keyboard meanwhile.
const LONGEST: Duration = Duration::from_secs(300);

/// What to do, one after the other.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct BatchRequest {
    /// Each has a `type`: `move`, `click`, `drag`, `scroll`, `mouseDown`, `mouseUp`, `type`, `key`, `hotkey`, `keyDown`
    /// and `keyUp` with the members of their own endpoints; `wait` with the parameters of `/computeruse/wait`;
    /// `screenshot` with those of `/computeruse/screenshot/compressed`; `sleep` with `ms`. 1000 at most.
    #[serde(default)]
    #[schema(value_type = Vec<Object>, required)]
    actions: Vec<Map<String, Value>>,
    /// Whether the first that fails is the last; true by default.
    #[serde(default = "yes", rename = "stopOnError", alias = "stoponerror")]
    pub(super) stop_on_error: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
struct Sleep {
    #[serde(default)]
    ms: u64,
}

impl BatchRequest {
    /// All is checked before anything is done.
    pub(super) fn steps(&mut self) -> Result<Vec<Step>> {
        let actions = std::mem::take(&mut self.actions);
        if actions.len() > ACTIONS {
            return Err(Error::invalid(format!(
                "a batch has {ACTIONS} actions at most, not {}",
                actions.len()
            )));
        }
        let named = |(index, action): (usize, Map<String, Value>)| {
            step(action).map_err(|error| Error::new(error.kind(), format!("actions[{index}]: {error}")))
        };
        let steps = actions.into_iter().enumerate().map(named).collect::<Result<Vec<_>>>()?;
        let longest: Duration = steps.iter().map(Step::pause).sum();
        if longest > LONGEST {
            let (longest, most) = (longest.as_secs(), LONGEST.as_secs());
            return Err(Error::invalid(format!("a batch waits {most} seconds at most, not {longest}")));
        }
        Ok(steps)
    }
}

fn step(action: Map<String, Value>) -> Result<Step> {
    match action.get("type").and_then(Value::as_str) {
        Some("wait") => Ok(Step::Wait(from_members::<WaitQuery>(action)?.check()?)),
        Some("sleep") => match from_members::<Sleep>(action)?.ms {
            ms @ 0..=LONGEST_SLEEP_MS => Ok(Step::Sleep(Duration::from_millis(ms))),
            ms => Err(Error::invalid(format!("ms must be {LONGEST_SLEEP_MS} at most, not {ms}"))),
        },
        Some("screenshot") => {
            let picture = PictureRequest::Members(action).check()?;
            picture.map(Step::Picture).ok_or_else(|| Error::invalid("no picture is wanted"))
        }
        Some(_) => from_members::<ActionRequest>(action)?.check().map(Step::Input),
        None => Err(Error::invalid("type is required")),
    }
}

/// What the actions gave, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchReply {
    results: Vec<StepResult>,
    /// How many were done without an error.
    completed: usize,
}

/// What one action gave.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepResult {
    ok: bool,
    /// What the action's own endpoint replies; absent for one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// What went wrong; absent for one that was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<StepError>,
}

/// What went wrong with an action.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepError {
    /// As that of an error reply.
    code: &'static str,
    message: String,
}

impl From<Vec<Result<StepReply>>> for BatchReply {
    fn from(replies: Vec<Result<StepReply>>) -> Self {
        let results: Vec<StepResult> = replies.into_iter().map(StepResult::from).collect();
        Self { completed: results.iter().filter(|result| result.ok).count(), results }
    }
}

impl From<Result<StepReply>> for StepResult {
    fn from(reply: Result<StepReply>) -> Self {
        let result = match reply {
            Ok(StepReply::Input(outcome)) => json(&outcome),
            Ok(StepReply::Waited(settled)) => json(&settled),
            Ok(StepReply::Slept) => Value::Object(Map::new()),
            Ok(StepReply::Picture(picture)) => picture,
            Err(error) => {
                let error = StepError { code: error.kind().code(), message: error.to_string() };
                return Self { ok: false, result: None, error: Some(error) };
            }
        };
        Self { ok: true, result: Some(result), error: None }
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("a reply is plain JSON")
}
