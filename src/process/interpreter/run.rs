//! One run of code in a context: what is asked, what comes of it, and how it ends.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::platform::shutdown::Shutdown;
use crate::supervisor::Stream;

/// Events that wait for the client.
const EVENTS: usize = 4;

/// Code to run, and how.
#[derive(Debug)]
pub(super) struct Snippet {
    pub(super) code: String,
    /// Variables for this run only.
    pub(super) envs: BTreeMap<String, String>,
    /// Interrupted when it has run for this long.
    pub(super) time_limit: Option<Duration>,
    /// Whether the value of a last expression is told.
    pub(super) rich: bool,
    /// Whether it is interrupted when its client leaves.
    pub(super) interrupt_on_disconnect: bool,
}

/// What comes of a run, in order.
#[derive(Debug)]
pub(super) enum Event {
    /// It printed something.
    Output(Stream, String),
    /// It failed. This does not end it: [`Event::End`] does.
    Error { name: String, value: String, traceback: String },
    /// The value of its last expression, by media type.
    Result(Box<RawValue>),
    /// Nothing comes after this.
    End(End),
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The code has ended, with or without an error.
    Completed,
    /// It reached its time limit.
    TimedOut,
    /// The process that ran it has ended.
    WorkerEnded,
    /// The context was deleted.
    Closed,
    /// There is no process to run it, for this reason.
    NotStarted(String),
}

/// What goes to the client of a run. Holds what the client has not taken yet, so that nobody has to wait for it.
#[derive(Debug)]
pub(super) struct Feed {
    events: mpsc::Sender<Event>,
    waiting: VecDeque<Event>,
}

impl Feed {
    /// With the client's end.
    pub(super) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (Self { events, waiting: VecDeque::new() }, receiver)
    }

    /// Adds an event, unless the client has left.
    pub(super) fn push(&mut self, event: Event) {
        if self.is_waiting() {
            self.waiting.push_back(event);
        } else if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            self.waiting.push_back(event);
        }
    }

    /// Adds pieces of text.
    pub(super) fn print(&mut self, stream: Stream, pieces: Vec<String>) {
        pieces.into_iter().for_each(|piece| self.push(Event::Output(stream, piece)));
    }

    /// Whether events wait for the client.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Passes one on, when the client can take it. Cancel safe.
    pub(super) async fn pass(&mut self) {
        match self.events.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.waiting.pop_front() {
                    permit.send(event);
                }
            }
            Err(_left) => self.waiting.clear(),
        }
    }

    /// Resolves when the client has left.
    pub(super) fn left(&self) -> impl Future<Output = ()> + use<> {
        let events = self.events.clone();
        async move { events.closed().await }
    }

    /// Whether the client has left.
    pub(super) fn has_left(&self) -> bool {
        self.events.is_closed()
    }

    /// Passes on what waits, and then the end, without anybody waiting for it.
    pub(super) fn end(mut self, end: End, shutdown: &Shutdown) {
        self.push(Event::End(end));
        if self.is_waiting() {
            shutdown.spawn(async move {
                while self.is_waiting() {
                    self.pass().await;
                }
            });
        }
    }
}
