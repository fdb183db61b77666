//! One command of a session: its text, its log, its end, its input.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{OutputLog, Stream};

/// Input that a command has not read yet, in bytes at most.
const INPUT_BYTES: usize = 8 * 1024 * 1024;

/// A command that was given to a session.
#[derive(Debug)]
pub struct SessionCommand {
    /// Names it within its session.
    pub id: String,
    /// The text as it was submitted.
    pub text: String,
    /// Whether it takes input; the others have none.
    pub is_async: bool,
    /// What is sent to it shows in its log too.
    pub echoes_input: bool,
    log: OutputLog,
    state: watch::Sender<State>,
    /// None when no more input can come.
    input: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
    /// The other end: input waits in it for the command's turn.
    waiting: Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>,
    /// Bytes of input that are still to be written.
    unread: AtomicUsize,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// Others are before it.
    Queued,
    /// Its shell works on it.
    Running {
        /// Since when.
        since: Instant,
    },
    /// It has ended, and what it printed is in the log.
    Ended(End),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct End {
    /// As the shell tells it: 128 + n for a signal.
    pub code: i32,
    /// What its end has to do with its session's.
    pub cause: Cause,
    /// From its start to its end.
    pub run_time: Duration,
}

/// What the end of a command has to do with the end of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing.
    Itself,
    /// The shell ended while it ran: because of it (`exit 3`), by a signal, or because the session was deleted.
    EndedSession,
    /// The session had ended before its turn came.
    NeverRan,
}

impl SessionCommand {
    pub(super) fn new(id: String, text: String, is_async: bool, echoes_input: bool, log: OutputLog) -> Self {
        let (queue, queued) = mpsc::unbounded_channel(); // bounded by `unread`
        Self {
            id,
            text,
            is_async,
            echoes_input,
            log,
            state: watch::Sender::new(State::Queued),
            input: Mutex::new(is_async.then_some(queue)),
            waiting: Mutex::new(is_async.then_some(queued)),
            unread: AtomicUsize::new(0),
        }
    }

    /// What it printed.
    pub fn log(&self) -> &OutputLog {
        &self.log
    }

    /// How far it is now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self.state() {
            State::Ended(end) => Some(end.code),
            State::Queued | State::Running { .. } => None,
        }
    }

    /// Waits for its end; by then its output is in the log.
    pub async fn ended(&self) -> End {
        let mut state = self.state.subscribe();
        loop {
            if let State::Ended(end) = *state.borrow_and_update() {
                return end;
            }
            state.changed().await.expect("the command itself holds the sender");
        }
    }

    pub(super) fn begin(&self) {
        self.state.send_replace(State::Running { since: Instant::now() });
    }

    pub(super) fn end(&self, code: i32, cause: Cause) {
        self.close_input();
        locked(&self.waiting).take(); // it never had its turn
        let since = match self.state() {
            State::Running { since } => since,
            State::Queued | State::Ended(_) => Instant::now(),
        };
        self.state.send_replace(State::Ended(End { code, cause, run_time: since.elapsed() }));
    }

    /// Gives it the pipe that its input is written to, also what was sent already, by a task that ends with it.
    pub(super) fn open_input(self: &Arc<Self>, mut pipe: pipe::Sender, shutdown: &Shutdown) {
        let mut queued = locked(&self.waiting).take().expect("it has its turn once, and takes input");
        let command = Arc::clone(self);
        shutdown.spawn(async move {
            let mut ended = std::pin::pin!(command.ended());
            while let Some(bytes) = queued.recv().await {
                let written = tokio::select! {
                    biased;
                    _ = &mut ended => return,
                    written = pipe.write_all(&bytes) => written,
                };
                command.unread.fetch_sub(bytes.len(), Ordering::AcqRel);
                if written.is_err() {
                    return; // it has closed its input
                }
            }
        });
    }

    /// No more input will come: the command reads what was sent, and then the end.
    pub fn close_input(&self) {
        locked(&self.input).take();
    }

    /// Sends it input, in order, without waiting until it reads, or until its turn comes.
    ///
    /// # Errors
    /// When it has ended, takes no input, or has much that it has not read.
    pub async fn send_input(&self, bytes: Bytes) -> Result<()> {
        {
            let input = locked(&self.input);
            if let Some(code) = self.exit_code() {
                return Err(completed(format!("command has already completed with exit code {code}")));
            }
            let Some(queue) = &*input else {
                return Err(completed(if self.is_async {
                    "command's input has been closed".to_owned()
                } else {
                    "command runs synchronously, its input is empty".to_owned()
                }));
            };
            if self.unread.load(Ordering::Acquire) + bytes.len() > INPUT_BYTES {
                let message = format!("command has {INPUT_BYTES} bytes of input that it has not read");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            self.unread.fetch_add(bytes.len(), Ordering::AcqRel);
            if queue.send(bytes.clone()).is_err() {
                return Err(completed("command has closed its input".to_owned()));
            }
        }
        if self.echoes_input {
            self.log.append(Stream::Out, &bytes).await;
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn completed(message: String) -> Error {
    Error::new(ErrorKind::CommandCompleted, message)
}
