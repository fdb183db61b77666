//! Structured logs on stderr.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat, LogLevel};

/// Starts the log. Call once, before anything is logged.
///
/// # Errors
/// When a log was started already.
pub fn start_log(config: &Config) -> io::Result<()> {
    let level = match config.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let lines: Box<dyn tracing_subscriber::Layer<_> + Send + Sync> = match config.log_format {
        LogFormat::Text => Box::new(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))),
        LogFormat::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false))
        }
    };
    tracing_subscriber::registry().with(lines).with(level).try_init().map_err(io::Error::other)
}
