//! Server spans, and the trace context that callers send with their requests (W3C Trace Context level 1).

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

use super::{Telemetry, otlp};

/// The trace flag of spans that are recorded, as all of ours are.
const SAMPLED: u32 = 1;
/// Longest `tracestate` that is kept, in bytes: what every implementation has to pass on.
const STATE_BYTES: usize = 512;

/// Names a span among all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

impl Context {
    /// Reads a `traceparent`: `00-<trace id>-<span id>-<flags>`. A later version may have more behind that.
    fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.trim().split('-');
        let [version] = bytes(fields.next()?)?;
        let (trace, span) = (bytes(fields.next()?)?, bytes(fields.next()?)?);
        let [_flags] = bytes(fields.next()?)?;
        let is_known = version != 0xff && (version > 0 || fields.next().is_none());
        (is_known && trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span })
    }

    fn new(trace: Option<[u8; 16]>) -> Self {
        let mut context = Self { trace: trace.unwrap_or_default(), span: [0; 8] };
        // Without random bytes the ids would be zeros, which receivers drop.
        if trace.is_none() {
            let _ = getrandom::fill(&mut context.trace);
        }
        let _ = getrandom::fill(&mut context.span);
        context
    }
}

/// Lower-case hexadecimal digits, as the standard demands.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if hex.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The span of a request that is being served. It is exported when it is dropped, so that a request whose client has
/// left has one too.
#[derive(Debug)]
pub struct ServerSpan {
    telemetry: Telemetry,
    context: Context,
    span: Span,
}

impl ServerSpan {
    /// Begins now. Continues the trace of a caller that names one.
    pub(super) fn start(
        telemetry: Telemetry,
        name: String,
        traceparent: Option<&str>,
        tracestate: Option<&str>,
    ) -> Self {
        let parent = traceparent.and_then(Context::parse);
        let context = Context::new(parent.map(|parent| parent.trace));
        let remote = SpanFlags::ContextHasIsRemoteMask as u32 | SpanFlags::ContextIsRemoteMask as u32;
        let span = Span {
            trace_id: context.trace.into(),
            span_id: context.span.into(),
            // Without a parent that can be read, its state means nothing.
            trace_state: tracestate
                .filter(|state| parent.is_some() && state.len() <= STATE_BYTES)
                .unwrap_or_default()
                .to_owned(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.span.into()),
            flags: SAMPLED | if parent.is_some() { remote } else { SpanFlags::ContextHasIsRemoteMask as u32 },
            name,
            kind: SpanKind::Server as i32,
            start_time_unix_nano: otlp::now(),
            ..Span::default()
        };
        Self { telemetry, context, span }
    }

    /// Makes what is logged within `span` part of this one.
    pub fn cover(&self, span: &tracing::Span) {
        span.with_subscriber(|(id, subscriber)| {
            let registry = subscriber.downcast_ref::<Registry>();
            if let Some(data) = registry.and_then(|registry| registry.span(id)) {
                data.extensions_mut().insert(self.context);
            }
        });
    }

    /// Says something about the request; keys are those of OpenTelemetry's semantic conventions.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.span.attributes.push(otlp::attribute(key, otlp::text(value)));
    }

    /// As [`ServerSpan::set`], for a whole number.
    pub fn set_number(&mut self, key: &'static str, value: i64) {
        self.span.attributes.push(otlp::attribute(key, Value::IntValue(value)));
    }

    /// Marks it as failed for a fault of ours.
    pub fn fail(&mut self, message: String) {
        self.span.status = Some(Status { message, code: StatusCode::Error as i32 });
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        let mut span = std::mem::take(&mut self.span);
        span.end_time_unix_nano = otlp::now().max(span.start_time_unix_nano);
        self.telemetry.push(span, |pipeline| &pipeline.spans);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_as_the_standard_says() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Context::parse(valid).unwrap();
        assert_eq!((parent.trace[0], parent.span[1]), (0x4b, 0xf0));
        assert_eq!(Context::parse(&format!("cc{}-more", &valid[2..])), Some(parent), "a later version");
        for wrong in [
            "",
            "00-0-0-0",
            &format!("ff{}", &valid[2..]),
            &format!("{valid}-more"),
            &valid.to_uppercase(),
            &valid[..50],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(Context::parse(wrong), None, "{wrong}");
        }
    }
}
