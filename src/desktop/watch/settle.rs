//! Waiting until nothing is drawn any more, or something is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::desktop::Desktop;
use crate::desktop::x11::Area;
use crate::error::{Error, ErrorKind, Result};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::desktop) struct Wait {
    /// Time without change that counts as still.
    pub(super) stable: Duration,
    /// Longest wait.
    pub(super) limit: Duration,
    /// The part of the screen that counts; all of it when there is none.
    pub(super) region: Option<Area>,
    /// Parts that do not count, as where a caret blinks.
    pub(super) ignored: Vec<Area>,
    /// The first change ends the wait, not the end of all changes.
    pub(super) until_change: bool,
}

/// What was waited for came, or the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desktop) struct Settled {
    /// It came.
    pub(super) is_settled: bool,
    pub(super) elapsed: Duration,
    /// Whether something that counts was drawn.
    pub(super) has_changed: bool,
    /// Changes seen so far, of this daemon's life.
    pub(super) frame: u64,
}

/// Follows what is drawn from a moment on, to wait from a later one: what an action changes at once counts too.
pub(in crate::desktop) struct Watching {
    desktop: Desktop,
    drawn: broadcast::Receiver<Arc<[Area]>>,
    wait: Wait,
}

impl Desktop {
    /// Waits until the screen is still, from now on.
    ///
    /// # Errors
    /// Without a screen, and when it goes meanwhile. A time that is over is no error.
    pub(in crate::desktop) async fn wait(&self, wait: Wait) -> Result<Settled> {
        self.watching(wait).await?.settled().await
    }

    /// Begins to follow what is drawn.
    ///
    /// # Errors
    /// Without a screen, or when its server cannot tell.
    pub(in crate::desktop) async fn watching(&self, wait: Wait) -> Result<Watching> {
        Ok(Watching { desktop: self.clone(), drawn: self.drawings().await?, wait })
    }
}

impl Watching {
    /// Waits from now on; changes since the beginning count as changes.
    ///
    /// # Errors
    /// When the screen goes.
    pub(in crate::desktop) async fn settled(mut self) -> Result<Settled> {
        let began = Instant::now();
        let deadline = began + self.wait.limit;
        let mut last_change = None;
        let is_settled = loop {
            let quiet_since = last_change.unwrap_or(began);
            let until =
                if self.wait.until_change { deadline } else { deadline.min(quiet_since + self.wait.stable) };
            match timeout_at(until, self.drawn.recv()).await {
                Ok(Ok(areas)) if !self.wait.counts(&areas) => {}
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {
                    last_change = Some(Instant::now());
                    if self.wait.until_change {
                        break true;
                    }
                }
                Ok(Err(RecvError::Closed)) => {
                    return Err(Error::new(ErrorKind::Unavailable, "the X server has gone, call start"));
                }
                Err(_) => break !self.wait.until_change && quiet_since + self.wait.stable <= Instant::now(),
            }
        };
        Ok(Settled {
            is_settled,
            elapsed: began.elapsed(),
            has_changed: last_change.is_some(),
            frame: self.desktop.inner.drawings.frame(),
        })
    }
}

impl Wait {
    /// Longest time that it takes.
    pub(in crate::desktop) fn longest(&self) -> Duration {
        self.limit
    }

    fn counts(&self, drawn: &[Area]) -> bool {
        drawn.iter().any(|area| {
            let is_in = self.region.is_none_or(|region| overlap(region, *area));
            is_in && !self.ignored.iter().any(|ignored| contains(*ignored, *area))
        })
    }
}

fn ends(Area { x, y, width, height }: Area) -> (i64, i64) {
    (i64::from(x) + i64::from(width), i64::from(y) + i64::from(height))
}

fn overlap(one: Area, other: Area) -> bool {
    let ((right, bottom), (other_right, other_bottom)) = (ends(one), ends(other));
    i64::from(one.x) < other_right
        && i64::from(other.x) < right
        && i64::from(one.y) < other_bottom
        && i64::from(other.y) < bottom
}

fn contains(outer: Area, inner: Area) -> bool {
    let ((right, bottom), (inner_right, inner_bottom)) = (ends(outer), ends(inner));
    outer.x <= inner.x && outer.y <= inner.y && inner_right <= right && inner_bottom <= bottom
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(x: i32, y: i32, width: u32, height: u32) -> Area {
        Area { x, y, width, height }
    }

    #[test]
    fn only_what_is_in_the_region_and_not_ignored_counts() {
        let wait = Wait {
            stable: Duration::ZERO,
            limit: Duration::ZERO,
            region: Some(area(100, 100, 50, 50)),
            ignored: vec![area(110, 110, 5, 20)],
            until_change: false,
        };
        assert!(wait.counts(&[area(0, 0, 101, 101)]));
        assert!(!wait.counts(&[area(0, 0, 100, 100)]));
        assert!(!wait.counts(&[area(150, 120, 10, 10)]));
        assert!(!wait.counts(&[area(110, 112, 5, 5)]));
        assert!(wait.counts(&[area(110, 112, 5, 5), area(109, 110, 7, 20)]));
        assert!(Wait { region: None, ..wait }.counts(&[area(-5, -5, 1, 1)]));
    }
}
