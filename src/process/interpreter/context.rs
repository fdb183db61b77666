//! A context: a task that owns a Python process, and the queue in front of it.
//!
//! ```text
//!             run                    Done
//!   idle -----------------> running -------> idle        the process stays
//!    ^                        |   '--------> ended       it died, or was killed after its time limit
//!    |        next run        |                 |
//!    '-- started again, and the run is told <---'
//!
//!   closed, from any state: SIGTERM, grace, SIGKILL, and the task ends
//! ```
//!
//! The queue is a semaphore with one permit, which is fair: a client that leaves while it waits is out of the queue.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::run::{End, Event, Feed, Snippet};
use super::text::Text;
use super::worker::{self, GRACE, Message, Request, Worker, ending};
use crate::platform::shutdown::Shutdown;
use crate::platform::timer::until;
use crate::supervisor::{Stream, Supervisor};

/// Runs that wait for their turn at most.
const WAITING: usize = 128;
/// Time for a killed process to be gone, before it is given up: one may hang in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A namespace that runs share.
#[derive(Debug)]
pub struct Context {
    /// What it is called by.
    pub id: String,
    /// Its directory at first, as it was asked for.
    pub cwd: String,
    /// When it was made.
    pub created: Timestamp,
    active: Arc<AtomicBool>,
    turn: Arc<Semaphore>,
    places: Semaphore,
    jobs: mpsc::Sender<Job>,
    closed: CancellationToken,
    ended: CancellationToken,
}

/// A run whose turn it is.
#[derive(Debug)]
struct Job {
    snippet: Snippet,
    feed: Feed,
    interrupt: Arc<Notify>,
    _turn: OwnedSemaphorePermit,
}

/// The client's side of a run. Dropping it lets the run go on.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) events: mpsc::Receiver<Event>,
    /// Tells the code to stop, by a KeyboardInterrupt.
    pub(super) interrupt: Arc<Notify>,
}

/// Why code is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many runs wait.
    Full,
    /// The context was deleted.
    Closed,
}

/// What a context and its task are made of.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) supervisor: Supervisor,
    pub(super) shutdown: Shutdown,
}

impl Context {
    /// A context in a directory, `shown` as it was asked for. Its process is `worker`, or is started by the first run.
    pub(super) fn new(
        id: String,
        shown: String,
        cwd: PathBuf,
        worker: Option<Worker>,
        surroundings: Surroundings,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(1);
        let (closed, ended) = (CancellationToken::new(), CancellationToken::new());
        let active = Arc::new(AtomicBool::new(worker.is_some()));
        let owner = Owner {
            id: id.clone(),
            cwd,
            worker,
            lost: None,
            active: Arc::clone(&active),
            closed: closed.clone(),
            surroundings: surroundings.clone(),
            _ended: ended.clone().drop_guard(),
        };
        surroundings.shutdown.spawn(owner.own(queue));
        Self {
            id,
            cwd: shown,
            created: Timestamp::now(),
            active,
            turn: Arc::new(Semaphore::new(1)),
            places: Semaphore::new(WAITING + 1),
            jobs,
            closed,
            ended,
        }
    }

    /// Whether its process lives.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Runs code when its turn has come. Cancel safe: whoever stops waiting is out of the queue.
    ///
    /// # Errors
    /// When it will not be run.
    pub(super) async fn run(&self, snippet: Snippet) -> Result<Running, Refusal> {
        let place = self.places.try_acquire().map_err(|_| Refusal::Full)?;
        let turn = tokio::select! {
            turn = Arc::clone(&self.turn).acquire_owned() => turn.expect("it is never closed"),
            () = self.closed.cancelled() => return Err(Refusal::Closed),
        };
        drop(place);
        let ((feed, events), interrupt) = (Feed::new(), Arc::<Notify>::default());
        let job = Job { snippet, feed, interrupt: Arc::clone(&interrupt), _turn: turn };
        self.jobs.send(job).await.map_err(|_| Refusal::Closed)?;
        Ok(Running { events, interrupt })
    }

    /// Ends its process and everything that it started, and all its runs; waits for that.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        self.ended.cancelled().await;
    }
}

/// The task that owns the process.
struct Owner {
    id: String,
    cwd: PathBuf,
    worker: Option<Worker>,
    /// How the process before the next one ended.
    lost: Option<String>,
    active: Arc<AtomicBool>,
    closed: CancellationToken,
    surroundings: Surroundings,
    _ended: DropGuard,
}

impl Owner {
    async fn own(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut stopping = std::pin::pin!(self.surroundings.shutdown.cancelled());
        loop {
            tokio::select! {
                () = self.closed.cancelled() => break,
                () = &mut stopping => return,
                ending = idle(&mut self.worker) => self.lose(ending),
                job = jobs.recv() => match job {
                    Some(job) => self.run(job).await,
                    None => break,
                },
            }
        }
        if let Some(worker) = &self.worker {
            worker.process().end(GRACE).await;
        }
    }

    async fn run(&mut self, job: Job) {
        let Job { snippet, mut feed, interrupt, _turn } = job;
        if feed.has_left() {
            return;
        }
        let closed = self.closed.clone();
        let begun = tokio::select! {
            begun = self.begin(&mut feed) => begun,
            () = closed.cancelled() => Err(End::Closed),
        };
        let mut worker = match begun {
            Ok(worker) => worker,
            Err(end) => return feed.end(end, &self.surroundings.shutdown),
        };
        let mut run = Run {
            started: Instant::now(),
            feed,
            texts: [Text::new(Stream::Out), Text::new(Stream::Err)],
            error: None,
            result: None,
            has_begun: false,
            wants_break: false,
            breaking: None,
        };
        let (end, lost) =
            run.drive(&mut worker, &snippet, &interrupt, &closed, &self.surroundings.shutdown).await;
        let (started, is_late, breaking) = (run.started, end == End::TimedOut, run.breaking.take());
        if lost.is_some() {
            self.active.store(false, Ordering::Relaxed); // before the client knows that its run has ended
        }
        run.end(end, lost.as_deref(), &self.surroundings.shutdown);
        match lost {
            Some(lost) => {
                self.worker = Some(worker);
                self.lose(lost);
            }
            None => {
                if let Some(breaking) = breaking {
                    let _ = breaking.await; // or it would hit the next run
                }
                if is_late {
                    // The code has given up; what it started must not go on either.
                    worker.process().kill_descendants_since(started).await;
                }
                self.worker = Some(worker);
            }
        }
    }

    /// The process for a run, started if there is none.
    async fn begin(&mut self, feed: &mut Feed) -> Result<Worker, End> {
        if let Some(worker) = self.worker.take() {
            return Ok(worker);
        }
        let (supervisor, cwd) = (self.surroundings.supervisor.clone(), self.cwd.clone());
        // A task of its own, so that no process is left halfway when the context is deleted meanwhile.
        let started = self.surroundings.shutdown.spawn(async move { Worker::start(&supervisor, &cwd).await });
        let failed = |_| Err("starting it was interrupted".to_owned());
        let worker = started.await.unwrap_or_else(failed).map_err(End::NotStarted)?;
        info!(context.id = %self.id, pid = worker.process().pid(), "context {} has a Python process", self.id);
        self.active.store(true, Ordering::Relaxed);
        if let Some(lost) = self.lost.take() {
            let notice =
                format!("[toolboxd: the state of this context was lost: its Python worker {lost}]\n");
            feed.push(Event::Output(Stream::Err, notice));
        }
        Ok(worker)
    }

    /// The process has ended, or will: what it left behind goes too.
    fn lose(&mut self, ending: String) {
        warn!(context.id = %self.id, "the Python process of context {} {ending}", self.id);
        self.active.store(false, Ordering::Relaxed);
        self.lost = Some(ending);
        if let Some(worker) = self.worker.take() {
            self.surroundings.shutdown.spawn(async move { worker.process().end(GRACE).await });
        }
    }
}

/// Reads what is printed while nothing runs, which nobody gets: who prints must not wait. Resolves when the process has
/// ended.
async fn idle(worker: &mut Option<Worker>) -> String {
    let Some(worker) = worker else { return std::future::pending().await };
    loop {
        if let worker::Event::Ended(exit) = worker.event(true).await {
            return ending(exit);
        }
    }
}

/// A run that has begun.
struct Run {
    started: Instant,
    feed: Feed,
    texts: [Text; 2],
    error: Option<Event>,
    result: Option<Box<RawValue>>,
    /// Whether the code runs: an interrupt before that would be for nobody.
    has_begun: bool,
    /// Whether it is to be interrupted as soon as it does.
    wants_break: bool,
    /// Interrupts it.
    breaking: Option<JoinHandle<()>>,
}

/// What a time limit has led to.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// Not reached.
    Ahead(Option<Instant>),
    /// The code was interrupted; when it is killed.
    Interrupted(Instant),
    /// The process was killed; when it is given up.
    Killed(Instant),
}

impl Run {
    /// Runs code to its end. Gives how it ended, and, when the process is lost, how that came.
    async fn drive(
        &mut self,
        worker: &mut Worker,
        snippet: &Snippet,
        interrupt: &Notify,
        closed: &CancellationToken,
        shutdown: &Shutdown,
    ) -> (End, Option<String>) {
        let mut limit = Limit::Ahead(snippet.time_limit.map(|limit| self.started + limit));
        let mut watches_client = snippet.interrupt_on_disconnect;
        let mut left = std::pin::pin!(self.feed.left());
        worker.ask(&Request { code: &snippet.code, envs: &snippet.envs, rich: snippet.rich });
        loop {
            let is_waiting = self.feed.is_waiting();
            let due = self.texts.iter().filter_map(Text::due).min();
            tokio::select! {
                () = closed.cancelled() => return (End::Closed, None),
                () = shutdown.cancelled() => return (End::Closed, None),
                () = until(limit.moment()) => {
                    limit = match limit {
                        Limit::Ahead(_) => {
                            self.break_off(worker, shutdown);
                            Limit::Interrupted(Instant::now() + GRACE)
                        }
                        Limit::Interrupted(_) => {
                            worker.process().kill();
                            Limit::Killed(Instant::now() + KILL_LIMIT)
                        }
                        Limit::Killed(_) => return (End::TimedOut, Some(limit.ending())),
                    };
                }
                () = interrupt.notified() => self.break_off(worker, shutdown),
                () = &mut left, if watches_client => {
                    watches_client = false;
                    self.break_off(worker, shutdown);
                }
                () = self.feed.pass(), if is_waiting => {}
                () = until(due), if !is_waiting => {
                    for text in &mut self.texts {
                        self.feed.print(text.stream, text.waited());
                    }
                }
                event = worker.event(!is_waiting) => match event {
                    worker::Event::Output(stream, bytes) => self.print(stream, &bytes),
                    worker::Event::Message(Message::Error { name, value, traceback }) => {
                        self.error = Some(Event::Error { name, value, traceback });
                    }
                    worker::Event::Message(Message::Result(data)) => self.result = Some(data),
                    worker::Event::Message(Message::Ready) => {}
                    worker::Event::Message(Message::Begun) => {
                        self.has_begun = true;
                        if self.wants_break {
                            self.break_off(worker, shutdown);
                        }
                    }
                    worker::Event::Message(Message::Done) => {
                        self.print_rest(worker).await;
                        let end = if let Limit::Ahead(_) = limit { End::Completed } else { End::TimedOut };
                        return (end, None);
                    }
                    worker::Event::Ended(exit) => {
                        self.print_rest(worker).await;
                        return match limit {
                            Limit::Ahead(_) => (End::WorkerEnded, Some(ending(exit))),
                            _ => (End::TimedOut, Some(limit.ending())),
                        };
                    }
                },
            }
        }
    }

    /// Interrupts the code and what it has started.
    fn break_off(&mut self, worker: &Worker, shutdown: &Shutdown) {
        self.wants_break = true;
        if self.has_begun && self.breaking.as_ref().is_none_or(JoinHandle::is_finished) {
            let (process, started) = (worker.process().clone(), self.started);
            self.breaking = Some(shutdown.spawn(async move { process.interrupt_since(started).await }));
        }
    }

    fn print(&mut self, stream: Stream, bytes: &[u8]) {
        let text = &mut self.texts[stream as usize - 1];
        self.feed.print(stream, text.push(bytes));
    }

    /// What was printed and not read yet.
    async fn print_rest(&mut self, worker: &mut Worker) {
        for (stream, bytes) in worker.drain().await {
            self.print(stream, &bytes);
        }
        for text in &mut self.texts {
            self.feed.print(text.stream, text.rest());
        }
    }

    /// Tells the client what is left to tell.
    fn end(mut self, end: End, lost: Option<&str>, shutdown: &Shutdown) {
        match end {
            End::Completed => {
                self.error.take().into_iter().for_each(|error| self.feed.push(error));
                self.result.take().into_iter().for_each(|data| self.feed.push(Event::Result(data)));
            }
            End::WorkerEnded => self.feed.push(Event::Error {
                name: "WorkerProcessError".to_owned(),
                value: format!("the Python worker {}", lost.unwrap_or("has ended")),
                traceback: String::new(),
            }),
            End::TimedOut | End::Closed | End::NotStarted(_) => {}
        }
        self.feed.end(end, shutdown);
    }
}

impl Limit {
    fn moment(self) -> Option<Instant> {
        match self {
            Self::Ahead(moment) => moment,
            Self::Interrupted(moment) | Self::Killed(moment) => Some(moment),
        }
    }

    /// How a process ended that did not survive it.
    fn ending(self) -> String {
        match self {
            Self::Killed(_) => "was killed, because the code went on after its time limit".to_owned(),
            _ => "ended at the time limit of its code".to_owned(),
        }
    }
}
