//! One process of the desktop, kept running.
//!
//! ```text
//!              .------------- start -------------.
//!              v                                  |
//!  Stopped -> Starting -- it answers --> Ready    |
//!              |                           |      |
//!              | first try fails           | ends |
//!              v                           v      |
//!            Failed <-- ten quick ends -- Waiting-'
//! ```
//!
//! Whether it is ready is asked, never guessed: see [`Probe`]. The first try's failure is told at once, for whoever
//! called start; once it has been ready, it is started again whenever it ends, after a pause that grows.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::logs::{Logs, Printing};
use crate::error::Result;
use crate::platform::blocking::Lane;
use crate::platform::shared_memory::SharedMemory;
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{Command, ExitStatus, Output, Process, Supervisor};

/// Longest wait for a process to be ready.
const READY: Duration = Duration::from_secs(30);
/// First pause before it is started again; it doubles…
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// …up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An end before this is a quick one.
const QUICK: Duration = Duration::from_secs(10);
/// Quick ends in a row after which it is given up.
const QUICK_ENDS: u32 = 10;
/// Longest wait for the last words of a process that has ended.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where a process is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody wants it.
    Stopped,
    /// It has been started, or is about to be, and is not ready yet.
    Starting,
    /// It does its work.
    Ready {
        /// None when it is not ours: it was there before, or is part of another process.
        pid: Option<u32>,
    },
    /// It ended, for this reason, and will be started again.
    Waiting(String),
    /// It is not started again, for this reason.
    Failed(String),
    /// The image has nothing for it, and nothing depends on it.
    Absent,
}

impl State {
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Whether there is nothing to wait for.
    fn is_settled(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Failed(_) | Self::Absent)
    }
}

/// What there is to run at this moment.
pub(super) enum Plan {
    /// A process of ours, and what asks whether it is ready.
    Run(Command, Probe),
    /// It is there already and not ours; the future resolves when it is not any more.
    Present(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// The image has nothing for it, and that is fine.
    Nothing,
    /// The image has nothing for it, and this is why that is an error.
    Missing(String),
}

/// How to ask a process whether it is ready.
pub(super) enum Probe {
    /// An X server: it says so on this pipe, and then answers.
    Screen(OwnedFd),
    /// A window manager: it owns its place on the screen.
    Manager,
    /// A server: its port accepts, and greets with these bytes.
    Port(u16, &'static [u8]),
}

/// A part of the desktop: says what to run and when, and asks whether it is ready.
pub(super) trait Part: Clone + Send + Sync + 'static {
    /// As the contract names it; also the name of its logs.
    fn name(&self) -> &'static str;

    /// Resolves when what it depends on is there.
    fn possible(&self) -> impl Future<Output = ()> + Send;

    /// What to run now.
    fn plan(&self) -> impl Future<Output = Plan> + Send;

    /// Resolves when the process is ready, which it may be at each bit of output.
    fn ready(&self, probe: Probe, printing: &Printing) -> impl Future<Output = Result<()>> + Send;
}

/// What units need to run processes.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) supervisor: Supervisor,
    pub(super) shutdown: Shutdown,
    pub(super) logs: Logs,
    /// Where shared memory is looked after.
    pub(super) lane: Lane,
}

/// One process of the desktop.
#[derive(Debug)]
pub(super) struct Unit {
    state: watch::Sender<State>,
    keeper: Mutex<Option<Keeper>>,
    /// Ends the pause before the next try.
    hurry: Arc<Notify>,
}

#[derive(Debug)]
struct Keeper {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Unit {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::new(State::Stopped), keeper: Mutex::default(), hurry: Arc::default() }
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// For whoever follows its states.
    pub(super) fn follow(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Keeps `part` running from now on. One that is kept already and waits for its next try is tried now.
    pub(super) fn keep(&self, part: impl Part, means: &Means) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.as_ref().is_some_and(|keeper| !keeper.task.is_finished()) {
            if matches!(*self.state.borrow(), State::Waiting(_)) {
                self.hurry.notify_one();
            }
            return;
        }
        self.state.send_replace(State::Starting);
        let stop = CancellationToken::new();
        let (state, hurry) = (self.state.clone(), Arc::clone(&self.hurry));
        let keeping = Keeping { part, means: means.clone(), state, stop: stop.clone(), hurry };
        *keeper = Some(Keeper { stop, task: means.shutdown.spawn(keeping.run()) });
    }

    /// Waits until it is ready, or will not be.
    pub(super) async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        match state.wait_for(State::is_settled).await {
            Ok(state) => state.clone(),
            Err(_) => State::Stopped,
        }
    }

    /// Ends the process with all that it started, and waits for that.
    pub(super) async fn stop(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Keeper { stop, task }) = keeper {
            stop.cancel();
            let _ = task.await; // it has panicked when it fails, and then nothing is left of it
        }
        self.state.send_replace(State::Stopped);
    }
}

/// The task that keeps a process.
struct Keeping<P> {
    part: P,
    means: Means,
    state: watch::Sender<State>,
    stop: CancellationToken,
    hurry: Arc<Notify>,
}

/// How a try ended.
enum Ended {
    /// We were told to stop.
    Stopped,
    /// It was ready for so long, then ended.
    After(Duration, String),
    /// It never was ready.
    Failed(String),
    /// There is nothing to run.
    Nothing,
}

impl<P: Part> Keeping<P> {
    async fn run(self) {
        let (mut pauses, mut was_ready) = (Pauses::default(), false);
        loop {
            let possible = tokio::select! {
                () = self.part.possible() => true,
                () = self.stopped() => false,
            };
            if !possible {
                return;
            }
            let name = self.part.name();
            let reason = match self.attempt().await {
                Ended::Stopped => return,
                Ended::Nothing => {
                    self.state.send_replace(State::Absent);
                    return; // the next start looks again
                }
                Ended::Failed(reason) if !was_ready => {
                    warn!("{name} did not start: {reason}");
                    self.state.send_replace(State::Failed(reason));
                    return;
                }
                Ended::Failed(reason) => {
                    pauses.count(Duration::ZERO);
                    reason
                }
                Ended::After(time, reason) => {
                    was_ready = true;
                    pauses.count(time);
                    reason
                }
            };
            let Some(pause) = pauses.next() else {
                let reason = format!("given up after {QUICK_ENDS} quick ends: {reason}");
                warn!("{name} is {reason}");
                self.state.send_replace(State::Failed(reason));
                return;
            };
            warn!("{name} ended and is started again in {pause:?}: {reason}");
            self.state.send_replace(State::Waiting(reason));
            tokio::select! {
                () = sleep(pause) => {}
                () = self.hurry.notified() => {}
                () = self.stopped() => return,
            }
            self.state.send_replace(State::Starting);
        }
    }

    async fn stopped(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.means.shutdown.cancelled() => {}
        }
    }

    /// Runs it once, until it ends.
    async fn attempt(&self) -> Ended {
        let plan = tokio::select! {
            plan = self.part.plan() => plan,
            () = self.stopped() => return Ended::Stopped,
        };
        let (command, probe) = match plan {
            Plan::Run(command, probe) => (command, probe),
            Plan::Nothing => return Ended::Nothing,
            Plan::Missing(reason) => return Ended::Failed(reason),
            Plan::Present(gone) => {
                let since = Instant::now();
                self.state.send_replace(State::Ready { pid: None });
                tokio::select! {
                    () = gone => return Ended::After(since.elapsed(), "it has gone".to_owned()),
                    () = self.stopped() => return Ended::Stopped,
                }
            }
        };
        let since = SystemTime::now();
        match self.start(command).await {
            Ok((process, printing)) => {
                let memory = SharedMemory::of(process.pid(), since);
                let ended = self.watch(&process, memory, probe, &printing).await;
                process.stop();
                process.exited().await;
                process.end_descendants().await;
                self.look_after(memory, SharedMemory::remove_left).await;
                ended
            }
            Err(reason) => Ended::Failed(reason),
        }
    }

    async fn start(&self, mut command: Command) -> Result<(Process, Printing), String> {
        let (stdout, stderr, printing) =
            self.means.logs.record(self.part.name()).map_err(|error| format!("no pipes: {error}"))?;
        command.output = Output::Discarded;
        command.descriptors.extend([(1, Arc::new(stdout)), (2, Arc::new(stderr))]);
        let process = self.means.supervisor.start(command).await.map_err(|error| error.to_string())?;
        Ok((process, printing))
    }

    /// Until the process ends, or should be ended.
    async fn watch(
        &self,
        process: &Process,
        memory: SharedMemory,
        probe: Probe,
        printing: &Printing,
    ) -> Ended {
        let ready = timeout(READY, self.part.ready(probe, printing));
        tokio::select! {
            biased;
            exit = process.exited() => return Ended::Failed(self.why(exit.status, printing).await),
            ready = ready => match ready {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Ended::Failed(error.to_string()),
                Err(_) => return Ended::Failed(format!("it was not ready after {} seconds", READY.as_secs())),
            },
            () = self.stopped() => return Ended::Stopped,
        }
        self.look_after(memory, SharedMemory::remove_after_use).await;
        let since = Instant::now();
        info!("{} is ready", self.part.name());
        self.state.send_replace(State::Ready { pid: Some(process.pid()) });
        tokio::select! {
            exit = process.exited() => Ended::After(since.elapsed(), self.why(exit.status, printing).await),
            () = self.stopped() => Ended::Stopped,
        }
    }

    /// Screens and VNC servers share memory, which is there for ever when they are killed.
    async fn look_after(&self, memory: SharedMemory, how: fn(SharedMemory) -> io::Result<()>) {
        let name = self.part.name();
        match self.means.lane.run(move || how(memory)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("memory that {name} may share is not known: {error}"),
            Err(error) => warn!("memory that {name} may share: {error}"),
        }
    }

    /// How it ended, and its last words.
    async fn why(&self, status: ExitStatus, printing: &Printing) -> String {
        let end = match (status, status.signal_name()) {
            (_, Some(signal)) => format!("it was ended by {signal}"),
            (ExitStatus::Code(code), None) | (ExitStatus::Signal(code), None) => {
                format!("it exited with {code}")
            }
        };
        let _ = timeout(LAST_WORDS, printing.ended()).await;
        match printing.last_line() {
            line if line.is_empty() => end,
            line => format!("{end}: {line}"),
        }
    }
}

/// Pauses between tries: doubled at each quick end, and none when there were too many.
#[derive(Debug, Default)]
struct Pauses {
    quick_ends: u32,
}

impl Pauses {
    /// Notes an end after it was ready for `time`.
    fn count(&mut self, time: Duration) {
        self.quick_ends = if time < QUICK { self.quick_ends + 1 } else { 1 };
    }

    fn next(&self) -> Option<Duration> {
        let doublings = self.quick_ends.saturating_sub(1);
        (self.quick_ends < QUICK_ENDS).then(|| (SHORTEST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut pauses = Pauses::default();
        let mut all = Vec::new();
        loop {
            pauses.count(Duration::ZERO);
            match pauses.next() {
                Some(pause) => all.push(pause.as_secs_f64()),
                None => break,
            }
        }
        assert_eq!(all, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        pauses.count(QUICK);
        assert_eq!(pauses.next(), Some(SHORTEST_PAUSE));
    }
}
