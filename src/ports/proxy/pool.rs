//! Connections that wait for their next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::line::Line;
use crate::platform::shutdown::Shutdown;

/// Longest time that a connection waits.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Time between looking for those that have waited too long or were closed; nobody looks while none waits.
const SWEEP: Duration = Duration::from_secs(5);
/// Most connections that wait, of one port and of all.
const OF_A_PORT: usize = 32;
const OF_ALL: usize = 256;

/// Connections without a request, by port.
pub(super) struct Pool {
    state: Mutex<State>,
    shutdown: Shutdown,
}

#[derive(Default)]
struct State {
    /// The one that was used last is last.
    waiting: HashMap<u16, Vec<(Instant, Line)>>,
    is_swept: bool,
}

impl Pool {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self { state: Mutex::default(), shutdown }
    }

    /// An open connection to `port` that has waited for less than `limit`. One that has waited for longer is closed: a
    /// server that serves one connection at a time could not take a new one beside it.
    pub(super) fn take(&self, port: u16, limit: Duration) -> Option<Line> {
        let mut state = self.state();
        let lines = state.waiting.get_mut(&port)?;
        let mut found = None;
        while let Some((since, mut line)) = lines.pop() {
            if !line.is_idle() {
                continue;
            }
            if since.elapsed() < limit {
                found = Some(line);
            }
            break;
        }
        if lines.is_empty() {
            state.waiting.remove(&port);
        }
        found
    }

    /// Keeps a connection, unless it is over or there are enough.
    pub(super) fn put(self: &Arc<Self>, port: u16, mut line: Line) {
        if !line.is_idle() || self.shutdown.is_cancelled() {
            return;
        }
        let mut state = self.state();
        let all: usize = state.waiting.values().map(Vec::len).sum();
        let lines = state.waiting.entry(port).or_default();
        if all >= OF_ALL || lines.len() >= OF_A_PORT {
            return;
        }
        lines.push((Instant::now(), line));
        if !std::mem::replace(&mut state.is_swept, true) {
            self.shutdown.spawn(sweep(Arc::clone(self)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what has waited too long, until nothing waits or the daemon stops.
async fn sweep(pool: Arc<Pool>) {
    loop {
        let stops = tokio::select! {
            () = sleep(SWEEP) => false,
            () = pool.shutdown.cancelled() => true,
        };
        let mut state = pool.state();
        state.waiting.retain(|_, lines| {
            lines.retain_mut(|(since, line)| !stops && since.elapsed() < IDLE && line.is_idle());
            !lines.is_empty()
        });
        if state.waiting.is_empty() {
            state.is_swept = false;
            return;
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool(…)")
    }
}
