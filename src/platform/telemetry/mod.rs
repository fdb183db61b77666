//! Structured logs on stderr, and in a file when the settings name one.

mod log_file;

use std::io;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{self, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat, LogLevel};
use log_file::LogFile;

/// Lines that wait to be written to the file; more are lost.
const FILE_LINES: usize = 4096;

/// Keeps the log going; dropping it writes what is left to the file, for a second at most.
#[derive(Debug)]
pub struct Log {
    _file: Option<WorkerGuard>,
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
    let log = tracing_subscriber::registry().with(on_stderr).with(in_file).with(level);
    log.try_init().map_err(io::Error::other)?;
    Ok(Log { _file: guard })
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
