//! Log records for export: of what the daemon logs itself, and of the lines that the entrypoint prints.

use std::fmt::{Debug, Write};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{Telemetry, otlp, span};

/// Exports what the daemon logs.
#[derive(Debug)]
pub(super) struct Export(pub(super) Telemetry);

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Export {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !self.0.is_running() {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let severity = match level {
            Level::ERROR => SeverityNumber::Error,
            Level::WARN => SeverityNumber::Warn,
            Level::INFO => SeverityNumber::Info,
            Level::DEBUG => SeverityNumber::Debug,
            Level::TRACE => SeverityNumber::Trace,
        };
        let mut record = record(severity, level.as_str(), fields.message, fields.attributes);
        let request = context
            .event_scope(event)
            .and_then(|mut spans| spans.find_map(|span| span.extensions().get::<span::Context>().copied()));
        if let Some(request) = request {
            (record.trace_id, record.span_id) = (request.trace.into(), request.span.into());
            record.flags = 1;
        }
        self.0.push(record, |pipeline| &pipeline.logs);
    }
}

/// The record of a line that the entrypoint printed.
pub(super) fn entrypoint(line: String, is_error: bool) -> LogRecord {
    let (severity, level) =
        if is_error { (SeverityNumber::Error, "ERROR") } else { (SeverityNumber::Info, "INFO") };
    record(severity, level, line, vec![otlp::attribute("daytona-entrypoint", Value::BoolValue(true))])
}

fn record(severity: SeverityNumber, level: &str, body: String, attributes: Vec<KeyValue>) -> LogRecord {
    let now = otlp::now();
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: severity as i32,
        severity_text: level.to_owned(),
        body: otlp::any(otlp::text(body)),
        attributes,
        ..LogRecord::default()
    }
}

/// The fields of an event, with their types.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        self.attributes.push(otlp::attribute(field.name(), value));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::DoubleValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::BoolValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, otlp::text(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}"); // writing to a string cannot fail
        } else {
            self.push(field, otlp::text(format!("{value:?}")));
        }
    }
}
