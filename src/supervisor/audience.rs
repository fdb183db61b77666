//! Who reads a terminal's output as it is printed, and how far its programs may run ahead of them.
//!
//! A program waits while a viewer is [`WINDOW`] bytes behind, as it would for a terminal on a slow line: then every
//! viewer gets every byte, and Ctrl-C is not answered by megabytes that were printed long before. But nobody is waited
//! for for ever. While all viewers are slow the program waits as long as they go on, [`ALONE`] for one that takes
//! nothing. While others keep up it waits a [`SHARED`] in all for one that does not. Who is not waited for any more is
//! served from the scrollback, and counts again once it has caught up.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::output::{Chunk, OutputLog};

/// Bytes that a viewer may be behind before the program waits.
pub(super) const WINDOW: u64 = 256 * 1024;
/// A viewer that is behind by no more than this has caught up.
const CAUGHT_UP: u64 = WINDOW / 4;
/// Longest wait for a viewer that takes nothing, when nobody else keeps up.
const ALONE: Duration = Duration::from_secs(10);
/// Longest wait for a viewer until it has caught up, when others are held up by it.
const SHARED: Duration = Duration::from_secs(1);

/// The viewers of one terminal.
#[derive(Debug, Default)]
pub(super) struct Audience {
    seats: Mutex<Vec<Seat>>,
    /// Told when a viewer has taken bytes or left.
    moved: Notify,
}

#[derive(Debug)]
struct Seat {
    id: u64,
    /// Offset of the first byte that it has not taken.
    position: u64,
    /// Its position when it was looked at last.
    seen: u64,
    /// The program waits for it at the moment.
    is_awaited: bool,
    /// How long the program has waited for it since it last kept up.
    waited: Duration,
}

/// Reads a terminal's output from some offset on. It is no viewer any more when it is dropped.
#[derive(Debug)]
pub struct Viewer {
    log: OutputLog,
    audience: Arc<Audience>,
    id: u64,
    offset: u64,
}

impl Audience {
    /// A viewer that begins at `offset`, or, when that was dropped already, at what is kept after it; with none, at what
    /// comes next.
    pub(super) fn admit(self: &Arc<Self>, log: &OutputLog, offset: Option<u64>) -> Viewer {
        let mut seats = self.seats();
        let id = seats.last().map_or(0, |last| last.id + 1);
        let offset = log.first_kept(offset.unwrap_or(u64::MAX));
        seats.push(Seat { id, position: offset, seen: offset, is_awaited: false, waited: Duration::ZERO });
        Viewer { log: log.clone(), audience: Arc::clone(self), id, offset }
    }

    /// Waits until the program may print what comes after `end`.
    pub(super) async fn pace(&self, end: u64) {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable(); // before looking, so that no move is missed in between
            let Some(patience) = self.look(end) else { return };
            let began = Instant::now();
            let _ = timeout(patience, moved).await;
            let waited = began.elapsed();
            self.seats().iter_mut().filter(|seat| seat.is_awaited).for_each(|seat| seat.waited += waited);
        }
    }

    /// How long to wait at most; none when nobody is waited for.
    fn look(&self, end: u64) -> Option<Duration> {
        let mut seats = self.seats();
        let behind = |seat: &Seat| end.saturating_sub(seat.position);
        let is_shared = seats.iter().any(|seat| behind(seat) <= WINDOW);
        let most = if is_shared { SHARED } else { ALONE };
        for seat in seats.iter_mut() {
            let goes_on = std::mem::replace(&mut seat.seen, seat.position) != seat.position;
            if behind(seat) <= CAUGHT_UP || (goes_on && !is_shared) {
                seat.waited = Duration::ZERO;
            }
            seat.is_awaited = behind(seat) > WINDOW && seat.waited < most;
        }
        seats.iter().filter(|seat| seat.is_awaited).map(|seat| most - seat.waited).min()
    }

    fn take(&self, id: u64, position: u64) {
        let mut seats = self.seats();
        if let Some(seat) = seats.iter_mut().find(|seat| seat.id == id) {
            seat.position = position;
        }
        drop(seats);
        self.moved.notify_waiters();
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewer {
    /// The offset of what [`Viewer::read`] gives next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, `most` at most; by asking for them the viewer has taken those that it was given before. After
    /// [`Chunk::Gone`] it goes on at what is kept. Cancel safe.
    pub async fn read(&mut self, most: usize) -> Chunk {
        self.audience.take(self.id, self.offset);
        let chunk = self.log.read(self.offset, most).await;
        match &chunk {
            Chunk::Data(pieces) => {
                self.offset += pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
            }
            Chunk::Gone { oldest } => self.offset = *oldest,
            Chunk::Ended => {}
        }
        chunk
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.audience.seats().retain(|seat| seat.id != self.id);
        self.audience.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::blocking::Lane;
    use crate::supervisor::output::{Limits, Stream};

    async fn printed(bytes: u64) -> (Arc<Audience>, OutputLog) {
        let (directory, lane) = (std::env::temp_dir(), Lane::new(1));
        let log = OutputLog::new(Limits { in_memory: 32, spill_bytes: 0, directory, lane });
        log.append(Stream::Out, &vec![b'x'; usize::try_from(bytes).unwrap()]).await;
        (Arc::default(), log)
    }

    async fn pause(audience: &Audience, log: &OutputLog) -> Duration {
        let began = Instant::now();
        audience.pace(log.end()).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_not_waited_for_and_neither_is_who_keeps_up() {
        let (audience, log) = printed(2 * WINDOW).await;
        assert_eq!(pause(&audience, &log).await, Duration::ZERO);
        let _viewer = audience.admit(&log, Some(WINDOW));
        assert_eq!(pause(&audience, &log).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_nothing_is_waited_for_once() {
        let (audience, log) = printed(2 * WINDOW).await;
        let mut viewer = audience.admit(&log, Some(0));
        assert_eq!(pause(&audience, &log).await, ALONE);
        assert_eq!(pause(&audience, &log).await, Duration::ZERO);
        // It goes on: it counts again.
        viewer.read(10).await;
        viewer.read(10).await;
        assert_eq!(pause(&audience, &log).await, ALONE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_goes_on_slowly_is_waited_for_until_it_is_near() {
        let (audience, log) = printed(2 * WINDOW).await;
        let mut viewer = audience.admit(&log, Some(0));
        let read = async {
            while viewer.offset() <= WINDOW {
                tokio::time::sleep(ALONE / 2).await;
                viewer.read(16 * 1024).await;
            }
            viewer.read(1).await;
        };
        let (paused, ()) = tokio::join!(pause(&audience, &log), read);
        assert!(paused >= ALONE * 8, "{paused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_holds_others_up_has_a_second_in_all() {
        let (audience, log) = printed(2 * WINDOW).await;
        let mut slow = audience.admit(&log, Some(0));
        let _quick = audience.admit(&log, None);
        let read = async {
            for _ in 0..4 {
                tokio::time::sleep(SHARED / 2).await;
                slow.read(10).await;
            }
        };
        let (paused, ()) = tokio::join!(pause(&audience, &log), read);
        assert_eq!(paused, SHARED);
        assert_eq!(pause(&audience, &log).await, Duration::ZERO);
        // Caught up, and behind again.
        slow.read(usize::MAX).await;
        while slow.offset() < log.end() {
            slow.read(usize::MAX).await;
        }
        drop(slow);
        let _slow = audience.admit(&log, Some(0));
        assert_eq!(pause(&audience, &log).await, SHARED);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_not_waited_for() {
        let (audience, log) = printed(2 * WINDOW).await;
        let viewer = audience.admit(&log, Some(0));
        let leave = async {
            tokio::task::yield_now().await;
            drop(viewer);
        };
        assert_eq!(tokio::join!(pause(&audience, &log), leave).0, Duration::ZERO);
    }
}
