//! From queues to the endpoint: what is under way between two calls of `/init`.
//!
//! ```text
//!   request spans     --> queue --> batch --> POST /v1/traces
//!   the daemon's log  --> queue --> batch --> POST /v1/logs
//!   entrypoint lines  --> queue --> batch --> POST /v1/logs
//!   a look a minute   ----------------------> POST /v1/metrics
//! ```
//!
//! Each row is a task with a connection of its own, so that none waits for another. Queues are bounded, and what finds
//! its queue full is dropped and counted. The batch processors of the OpenTelemetry SDK are not used: each is a thread
//! that blocks, and its end blocks too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::connection::{Connection, Endpoint};
use super::measure::Meter;
use super::otlp;
use crate::config::Token;

/// Records of the daemon itself that wait at a time.
const QUEUE: usize = 2048;
/// Lines of the entrypoint that wait at a time; its log keeps the others meanwhile.
const LINES: usize = 256;
/// A batch is at most a queue by this, so that a full queue can be filled again while one is being sent.
const BATCHES: usize = 4;
/// Time that a record waits for others to be sent with.
const DELAY: Duration = Duration::from_secs(1);
/// Time between two looks at the metrics.
const INTERVAL: Duration = Duration::from_secs(60);
/// Time for one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Pauses before a batch is sent again that the endpoint could not take at the moment; then it is dropped.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Time for each task to send what is left when it is stopped.
const FLUSH: Duration = Duration::from_secs(1);

/// The tasks, seen from where records come from.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) spans: Queue<Span>,
    pub(super) logs: Queue<LogRecord>,
    pub(super) lines: Queue<LogRecord>,
    stop: CancellationToken,
}

/// What records are put into.
#[derive(Debug)]
pub(super) struct Queue<T> {
    sender: mpsc::Sender<T>,
    dropped: Arc<AtomicU64>,
}

impl<T> Queue<T> {
    /// Takes a record if there is room.
    ///
    /// # Errors
    /// Gives it back when the pipeline was stopped.
    pub(super) fn push(&self, record: T) -> Result<(), T> {
        match self.sender.try_send(record) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(record)) => Err(record),
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Takes a record when there is room.
    ///
    /// # Errors
    /// Gives it back when the pipeline was stopped.
    pub(super) async fn send(&self, record: T) -> Result<(), T> {
        self.sender.send(record).await.map_err(|refused| refused.0)
    }
}

impl Pipeline {
    /// Starts the tasks; `tasks` has them.
    pub(super) fn start(
        endpoint: &Arc<Endpoint>,
        resource: &Arc<Resource>,
        token: Option<&Token>,
        tasks: &TaskTracker,
    ) -> Self {
        let stop = CancellationToken::new();
        let exporter = |path| Exporter {
            connection: Connection::new(Arc::clone(endpoint), path, token),
            endpoint: Arc::clone(endpoint),
            resource: Arc::clone(resource),
            stop: stop.clone(),
            path,
            is_failing: false,
        };
        let pipeline = Self {
            spans: exporter("/v1/traces").queue(QUEUE, otlp::spans, tasks),
            logs: exporter("/v1/logs").queue(QUEUE, otlp::logs, tasks),
            lines: exporter("/v1/logs").queue(LINES, otlp::logs, tasks),
            stop: stop.clone(),
        };
        tasks.spawn(until_flushed(stop.clone(), measure(exporter("/v1/metrics"))));
        pipeline
    }

    /// Tells the tasks to send what they have and end, within [`FLUSH`].
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

/// Runs a task to its end, which has to come soon after `stop`.
async fn until_flushed(stop: CancellationToken, task: impl Future<Output = ()>) {
    let mut task = std::pin::pin!(task);
    tokio::select! {
        () = &mut task => return,
        () = stop.cancelled() => {}
    }
    let _ = timeout(FLUSH, task).await;
}

/// Sends batches, and again if need be.
struct Exporter {
    connection: Connection,
    endpoint: Arc<Endpoint>,
    resource: Arc<Resource>,
    stop: CancellationToken,
    path: &'static str,
    /// The last batch could not be sent.
    is_failing: bool,
}

impl Exporter {
    /// Starts a task that sends what is put into the queue.
    fn queue<T: Send + 'static>(
        self,
        room: usize,
        encode: fn(&Resource, Vec<T>) -> Bytes,
        tasks: &TaskTracker,
    ) -> Queue<T> {
        let (sender, queued) = mpsc::channel(room);
        let dropped = Arc::new(AtomicU64::new(0));
        let stop = self.stop.clone();
        tasks.spawn(until_flushed(stop, self.batches(queued, room / BATCHES, encode, Arc::clone(&dropped))));
        Queue { sender, dropped }
    }

    async fn batches<T>(
        mut self,
        mut queued: mpsc::Receiver<T>,
        most: usize,
        encode: fn(&Resource, Vec<T>) -> Bytes,
        dropped: Arc<AtomicU64>,
    ) {
        loop {
            let mut batch = Vec::new();
            // Begins with the first record; without any, nothing wakes this task.
            let mut full_at = None;
            while batch.len() < most {
                let room = most - batch.len();
                tokio::select! {
                    biased;
                    () = self.stop.cancelled(), if !queued.is_closed() => queued.close(),
                    count = queued.recv_many(&mut batch, room) => match count {
                        0 => break,
                        _ => full_at = full_at.or(Some(Instant::now() + DELAY)),
                    },
                    () = sleep_until(full_at.unwrap_or_else(Instant::now)), if full_at.is_some() => break,
                }
            }
            if batch.is_empty() {
                return; // stopped, and nothing is left
            }
            let message = encode(&self.resource, batch);
            self.deliver(message).await;
            let dropped = dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                warn!("{dropped} telemetry records for {} were dropped: too many at a time", self.path);
            }
        }
    }

    /// Sends one message; drops it when that is in vain.
    async fn deliver(&mut self, message: Bytes) {
        let mut pauses = PAUSES.into_iter();
        let failure = loop {
            let failure = match timeout(REQUEST, self.connection.post(message.clone())).await {
                Ok(Ok(status)) if status.is_success() => break None,
                Ok(Ok(status)) if !is_passing(status) => break Some(format!("it answers {status}")),
                Ok(Ok(status)) => format!("it answers {status}"),
                Ok(Err(error)) => cause(&error),
                Err(_) => format!("it does not answer within {REQUEST:?}"),
            };
            match pauses.next().filter(|_| !self.stop.is_cancelled()) {
                None => break Some(failure),
                Some(pause) => tokio::select! {
                    () = sleep(pause) => {}
                    () = self.stop.cancelled() => {} // one last time
                },
            }
        };
        // Told once, not with every batch: these lines are exported too.
        let (host, path, is_failing) = (self.endpoint.authority(), self.path, failure.is_some());
        match failure {
            Some(failure) if !self.is_failing => warn!("telemetry cannot be sent to {host}{path}: {failure}"),
            None if self.is_failing => info!("telemetry can be sent to {host}{path} again"),
            _ => {}
        }
        self.is_failing = is_failing;
    }
}

/// The endpoint may take the same later (OTLP 1.x, "Retryable Response Codes").
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// An error with what is behind it: hyper's own text hides the reason.
fn cause(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let deeper = error.to_string();
        if !text.contains(&deeper) {
            text = format!("{text}: {deeper}");
        }
        source = error.source();
    }
    text
}

/// Sends metrics soon after the start, once CPU use can be told, then regularly and at the end.
async fn measure(mut exporter: Exporter) {
    let meter = Meter::default();
    meter.measure().await;
    let mut pause = DELAY;
    while !exporter.stop.is_cancelled() {
        tokio::select! {
            () = sleep(pause) => {}
            () = exporter.stop.cancelled() => {}
        }
        pause = INTERVAL;
        let message = otlp::metrics(&exporter.resource, meter.measure().await);
        exporter.deliver(message).await;
    }
}
