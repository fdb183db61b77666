//! Several actions in one request, and what follows an action (contract `computer-use.md` 12, items 22 and 23).

mod after;
pub(super) mod routes;
mod wire;

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::sleep;

use super::Desktop;
use super::input::{self, Action, OutcomeReply};
use super::screenshot::Picture;
use super::watch::{SettleReply, Wait};
use crate::error::{Error, Result};

pub(in crate::desktop) use after::{Acting, After, AfterReply};

/// One thing of a batch, checked.
#[derive(Debug)]
enum Step {
    Input(Action),
    /// Waits until the screen is still, or changes.
    Wait(Wait),
    /// Lets time pass.
    Sleep(Duration),
    Picture(Picture),
}

impl Step {
    /// Longest time that it lets pass on purpose.
    fn pause(&self) -> Duration {
        match self {
            Self::Wait(wait) => wait.longest(),
            Self::Sleep(time) => *time,
            Self::Input(_) | Self::Picture(_) => Duration::ZERO,
        }
    }
}

/// What one thing of a batch gave.
#[derive(Debug)]
enum StepReply {
    Input(OutcomeReply),
    Waited(SettleReply),
    Slept,
    Picture(Value),
}

impl Desktop {
    /// Does one thing after the other, with mouse and keyboard for itself throughout. With `stop_on_error`, the first
    /// that fails is the last.
    ///
    /// # Errors
    /// Without a screen. What the things themselves fail with is among the results.
    async fn batch(&self, steps: Vec<Step>, stop_on_error: bool) -> Result<Vec<Result<StepReply>>> {
        let desktop = self.clone();
        input::act(self, move |hand| {
            async move {
                let mut replies = Vec::with_capacity(steps.len());
                for step in steps {
                    let reply = match step {
                        Step::Input(action) => {
                            hand.perform(action).await.map(|outcome| StepReply::Input(outcome.into()))
                        }
                        Step::Wait(wait) => {
                            desktop.wait(wait).await.map(|settled| StepReply::Waited(settled.into()))
                        }
                        Step::Sleep(time) => {
                            sleep(time).await;
                            Ok(StepReply::Slept)
                        }
                        Step::Picture(picture) => picture.take(&desktop).await.map(StepReply::Picture),
                    };
                    let has_failed = reply.is_err();
                    replies.push(reply);
                    if has_failed && stop_on_error {
                        break;
                    }
                }
                Ok::<_, Error>(replies)
            }
            .boxed()
        })
        .await
    }
}
