//! What the daemon tells of itself: a log on stderr and in a file, and traces, logs and metrics that are exported over
//! OTLP (contract `core.md` 9).
//!
//! ```text
//!   tracing events --> stderr
//!                 \--> log_file, when the settings name one
//!                  \-> log --------\
//!   server requests -> span --------> pipeline --> connection --> endpoint, when the settings name one
//!   a timer ---------> measure ----/                              and since /init was called
//! ```
//!
//! Export never slows or breaks anything: queues are bounded, waits have limits, failures are a line in the log. What
//! is not asked for costs a look at an `Option`. Messages are those of `opentelemetry-proto`; how they are collected
//! and sent is our own, because the SDK's exporters are threads that block (see `pipeline.rs`).

mod connection;
mod log;
mod log_file;
mod measure;
mod otlp;
mod pipeline;
mod span;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, info};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{self, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat, LogLevel, Token};
use connection::Endpoint;
use log_file::LogFile;
use pipeline::{Pipeline, Queue};
pub use span::ServerSpan;

/// Lines that wait to be written to the file; more are lost.
const FILE_LINES: usize = 4096;

/// Keeps the log going; dropping it writes what is left to the file, for a second at most.
#[derive(Debug)]
pub struct Log {
    telemetry: Telemetry,
    _file: Option<WorkerGuard>,
}

impl Log {
    /// For exporting more than the log.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }
}

/// Starts the log. Call once, before anything is logged.
///
/// # Errors
/// When the log file cannot be opened, or a log was started already.
pub fn start_log(config: &Config) -> io::Result<Log> {
    let level = match config.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let on_stderr = lines(config.log_format, io::stderr, io::IsTerminal::is_terminal(&io::stderr()));
    let (in_file, guard) = LogFile::open(config)?
        .map(|file| {
            let writer = NonBlockingBuilder::default().buffered_lines_limit(FILE_LINES).thread_name("log");
            let (writer, guard) = writer.finish(file);
            (lines(config.log_format, writer, false), guard)
        })
        .unzip();
    let telemetry = Telemetry::new(config);
    let exported = telemetry.is_configured().then(|| log::Export(telemetry.clone()));
    let log = tracing_subscriber::registry().with(on_stderr).with(in_file).with(exported).with(level);
    log.try_init().map_err(io::Error::other)?;
    Ok(Log { telemetry, _file: guard })
}

/// Lines of text or JSON.
fn lines<S, W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Text if colours => Box::new(lines.with_ansi(true)),
        LogFormat::Text => Box::new(lines.with_ansi(false).fmt_fields(Plain(DefaultFields::new()))),
        LogFormat::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false))
        }
    }
}

/// Fields without colours. A type of its own, because a span keeps its formatted fields by the formatter's type: the
/// file would get the colours of a terminal.
struct Plain(DefaultFields);

impl<'writer> FormatFields<'writer> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        self.0.format_fields(writer, fields)
    }
}

/// The export of telemetry; a cheap handle, empty when the settings name no endpoint.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Arc<Endpoint>,
    resource: Arc<Resource>,
    state: watch::Sender<Stage>,
    running: RwLock<Option<Running>>,
    /// Those of every pipeline, so that the daemon's end waits for one that was replaced just before too.
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Running {
    token: Option<Token>,
    pipeline: Arc<Pipeline>,
}

/// How far the export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    NotStarted,
    Running,
    /// For good.
    Stopped,
}

impl Telemetry {
    /// Nothing is exported before [`Telemetry::start`].
    pub fn new(config: &Config) -> Self {
        let inner = config.otel_endpoint.as_ref().map(|url| {
            Arc::new(Inner {
                endpoint: Arc::new(Endpoint::new(url)),
                resource: Arc::new(otlp::resource(config)),
                state: watch::Sender::new(Stage::NotStarted),
                running: RwLock::default(),
                tasks: TaskTracker::new(),
            })
        });
        Self { inner }
    }

    /// Starts exporting, or goes on with another token; none keeps the one there is. Returns at once, whatever the
    /// endpoint does. What was not sent yet still goes out with the token that it was collected under.
    pub fn start(&self, token: Option<Token>) {
        let Some(inner) = &self.inner else { return };
        let old = {
            let mut running = inner.running.write().unwrap_or_else(PoisonError::into_inner);
            let is_same = running.as_ref().is_some_and(|running| token.is_none() || running.token == token);
            if is_same || *inner.state.borrow() == Stage::Stopped {
                return;
            }
            let pipeline = Pipeline::start(&inner.endpoint, &inner.resource, token.as_ref(), &inner.tasks);
            inner.state.send_replace(Stage::Running);
            running.replace(Running { token, pipeline: Arc::new(pipeline) })
        };
        match old {
            Some(old) => old.pipeline.stop(),
            None => info!("telemetry goes to {}", inner.endpoint.authority()),
        }
    }

    /// Sends what is left, for a second at most, and ends.
    pub async fn stop(&self) {
        let Some(inner) = &self.inner else { return };
        let running = {
            let mut running = inner.running.write().unwrap_or_else(PoisonError::into_inner);
            inner.state.send_replace(Stage::Stopped);
            running.take()
        };
        running.into_iter().for_each(|running| running.pipeline.stop());
        inner.tasks.close();
        inner.tasks.wait().await;
    }

    /// The settings name an endpoint.
    pub fn is_configured(&self) -> bool {
        self.inner.is_some()
    }

    /// Resolves when exporting has begun; never when it does not.
    pub async fn started(&self) {
        match &self.inner {
            Some(inner) => {
                let mut state = inner.state.subscribe();
                let _ = state.wait_for(|stage| *stage == Stage::Running).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Begins the span of a request, which continues the trace of a caller that names one; none when nothing is
    /// exported. `name` is made only if it is needed.
    pub fn server_span(
        &self,
        name: impl FnOnce() -> String,
        traceparent: Option<&str>,
        tracestate: Option<&str>,
    ) -> Option<ServerSpan> {
        self.is_running().then(|| ServerSpan::start(self.clone(), name(), traceparent, tracestate))
    }

    /// Exports a line that the entrypoint printed; waits for room.
    pub async fn entrypoint_line(&self, line: String, is_error: bool) {
        let mut record = log::entrypoint(line, is_error);
        while let Some(pipeline) = self.pipeline() {
            match pipeline.lines.send(record).await {
                Ok(()) => return,
                Err(refused) => record = refused, // it was replaced meanwhile
            }
        }
    }

    fn is_running(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| *inner.state.borrow() == Stage::Running)
    }

    fn pipeline(&self) -> Option<Arc<Pipeline>> {
        let running = self.inner.as_ref()?.running.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| Arc::clone(&running.pipeline))
    }

    fn push<T>(&self, mut record: T, queue: impl Fn(&Pipeline) -> &Queue<T>) {
        while let Some(pipeline) = self.pipeline() {
            match queue(&pipeline).push(record) {
                Ok(()) => return,
                Err(refused) => record = refused, // it was replaced meanwhile
            }
        }
    }
}
