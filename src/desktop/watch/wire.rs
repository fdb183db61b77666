//! JSON of waiting and of events.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::settle::{Settled, Wait};
use crate::desktop::display::wire::{Rectangle, WindowInfo};
use crate::desktop::x11::Area;
use crate::error::{Error, Result};

/// Time without change that counts as still, in milliseconds, when nothing is said.
const STABLE_MS: u64 = 300;
/// Longest wait, in milliseconds, when nothing is said.
const TIMEOUT_MS: u64 = 5000;
/// Longest wait that can be asked for.
const LONGEST_MS: u64 = 600_000;
/// Most regions that do not count.
const IGNORED: usize = 64;

/// What to wait for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(in crate::desktop) struct WaitQuery {
    /// Milliseconds without change that count as still; 300 by default.
    #[serde(alias = "stablems")]
    stable_ms: Option<u64>,
    /// Longest wait in milliseconds, 5000 by default, 600000 at most. That it is over is no error.
    #[serde(alias = "timeoutms")]
    timeout_ms: Option<u64>,
    /// Left edge of the part of the screen that counts; all four, or none for all of the screen.
    x: Option<i32>,
    /// Its upper edge.
    y: Option<i32>,
    /// Its pixels across.
    width: Option<u32>,
    /// Its pixels down.
    height: Option<u32>,
    /// Parts that do not count, as where a caret blinks: `x,y,width,height`, with semicolons between several.
    ignore: Option<String>,
    /// `stable`, the default: until nothing changes any more; `change`: until something does.
    until: Option<String>,
}

impl WaitQuery {
    pub(in crate::desktop) fn check(self) -> Result<Wait> {
        let region = match (self.x, self.y, self.width, self.height) {
            (None, None, None, None) => None,
            (Some(x), Some(y), Some(width), Some(height)) => Some(Area { x, y, width, height }),
            _ => return Err(Error::invalid("x, y, width and height of a region come together")),
        };
        let ignored =
            self.ignore.iter().flat_map(|text| text.split(';')).map(area).collect::<Result<Vec<_>>>()?;
        if ignored.len() > IGNORED {
            return Err(Error::invalid(format!("ignore has {IGNORED} parts at most")));
        }
        let until_change = match self.until.as_deref() {
            None | Some("stable") => false,
            Some("change") => true,
            Some(other) => {
                return Err(Error::invalid(format!("until must be stable or change, not {other:?}")));
            }
        };
        let (stable, limit) = times(self.stable_ms, self.timeout_ms)?;
        Ok(Wait { stable, limit, region, ignored, until_change })
    }
}

fn times(stable_ms: Option<u64>, timeout_ms: Option<u64>) -> Result<(Duration, Duration)> {
    let time = |name: &str, given: Option<u64>, default: u64| match given.unwrap_or(default) {
        milliseconds @ 0..=LONGEST_MS => Ok(Duration::from_millis(milliseconds)),
        milliseconds => {
            Err(Error::invalid(format!("{name} must be {LONGEST_MS} at most, not {milliseconds}")))
        }
    };
    Ok((time("stableMs", stable_ms, STABLE_MS)?, time("timeoutMs", timeout_ms, TIMEOUT_MS)?))
}

fn area(text: &str) -> Result<Area> {
    let numbers: Option<Vec<i32>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[x, y, width, height]) if width >= 0 && height >= 0 => {
            Ok(Area { x, y, width: width.unsigned_abs(), height: height.unsigned_abs() })
        }
        _ => Err(Error::invalid(format!("a part to ignore is x,y,width,height, not {text:?}"))),
    }
}

/// Waits after an action: `true`, or with times of one's own.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::desktop) enum SettleRequest {
    /// Whether to wait until the screen is still.
    Whether(bool),
    /// The same with times.
    #[serde(rename_all = "camelCase")]
    Times {
        /// Milliseconds without change that count as still; 300 by default.
        stable_ms: Option<u64>,
        /// Longest wait in milliseconds, 5000 by default.
        timeout_ms: Option<u64>,
    },
}

impl SettleRequest {
    /// What to wait for; none when it is not wanted.
    ///
    /// # Errors
    /// When a time is too long.
    pub(in crate::desktop) fn check(self) -> Result<Option<Wait>> {
        let (stable_ms, timeout_ms) = match self {
            Self::Whether(false) => return Ok(None),
            Self::Whether(true) => (None, None),
            Self::Times { stable_ms, timeout_ms } => (stable_ms, timeout_ms),
        };
        let (stable, limit) = times(stable_ms, timeout_ms)?;
        Ok(Some(Wait { stable, limit, region: None, ignored: Vec::new(), until_change: false }))
    }
}

/// How a wait ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::desktop) struct SettleReply {
    /// What was waited for came; false when the time was over before.
    settled: bool,
    elapsed_ms: u64,
    /// Whether something was drawn meanwhile.
    changed: bool,
    /// Grows with changes of the screen that somebody waited for.
    frame: u64,
}

impl From<Settled> for SettleReply {
    fn from(settled: Settled) -> Self {
        Self {
            settled: settled.is_settled,
            elapsed_ms: u64::try_from(settled.elapsed.as_millis()).unwrap_or(u64::MAX),
            changed: settled.has_changed,
            frame: settled.frame,
        }
    }
}

/// What to tell of.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct EventsQuery {
    /// Some of `windows`, `damage`, `clipboard`, `processes`, with commas between; all but `damage` by default.
    types: Option<String>,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topics {
    pub(super) windows: bool,
    pub(super) damage: bool,
    pub(super) clipboard: bool,
    pub(super) processes: bool,
}

impl EventsQuery {
    pub(super) fn check(&self) -> Result<Topics> {
        let Some(types) = &self.types else {
            return Ok(Topics { windows: true, damage: false, clipboard: true, processes: true });
        };
        let mut topics = Topics { windows: false, damage: false, clipboard: false, processes: false };
        for name in types.split(',') {
            match name.trim() {
                "windows" => topics.windows = true,
                "damage" => topics.damage = true,
                "clipboard" => topics.clipboard = true,
                "processes" => topics.processes = true,
                other => {
                    let known = "windows, damage, clipboard, processes";
                    return Err(Error::invalid(format!("unknown type of events {other:?}: some of {known}")));
                }
            }
        }
        Ok(topics)
    }
}

/// Something that happened on the desktop.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum DesktopEvent {
    /// What happens from now on is told. Also when the X server has come, or come back.
    Ready {
        /// Whether there is a screen; without one, only processes are told of.
        display: bool,
    },
    /// The X server has gone.
    DisplayLost,
    /// A window that is new.
    WindowOpened { window: WindowInfo },
    /// A window that is no more.
    WindowClosed { id: u32 },
    /// The focus went elsewhere.
    WindowFocused {
        /// Null when no window has it.
        id: Option<u32>,
    },
    /// A window has another title.
    WindowRetitled { id: u32, title: String },
    /// A window was moved or resized.
    WindowMoved { window: WindowInfo },
    /// Something was drawn; ten times a second at most.
    Damage { areas: Vec<Rectangle> },
    /// Someone has copied or marked something.
    Clipboard {
        /// `clipboard` or `primary`.
        selection: &'static str,
    },
    /// A process of the desktop has begun or ceased to be ready.
    Process {
        process_name: &'static str,
        running: bool,
        /// Why not, when that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The client was too slow: some changes were not told.
    Skipped,
}

impl DesktopEvent {
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("an event is plain JSON")
    }
}
