//! The messages of OTLP 1.x, as far as they do not depend on what is measured.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::config::Config;

/// Version of this daemon, as `/version` has it.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn text(text: impl Into<String>) -> Value {
    Value::StringValue(text.into())
}

pub(super) fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

pub(super) fn attribute(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: any(value), ..KeyValue::default() }
}

/// What all telemetry of this sandbox says of its origin (contract `core.md` 9).
pub(super) fn resource(config: &Config) -> Resource {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let id = config.sandbox_id.as_deref().unwrap_or(&host);
    let mut attributes = vec![
        attribute("service.name", text(format!("sandbox-{id}"))),
        attribute("service.version", text(VERSION)),
        attribute("service.instance.id", text(host.as_ref())),
        attribute("deployment.environment.name", text("")),
    ];
    let labels = [
        ("daytona_organization_id", &config.organization_id),
        ("daytona_region_id", &config.region_id),
        ("daytona_snapshot", &config.sandbox_snapshot),
    ];
    let labels = labels.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    let extra = config.sandbox_otel_extra_labels.as_deref().unwrap_or_default();
    for (key, value) in labels.chain(pairs(extra)) {
        attributes.retain(|attribute| attribute.key != key);
        attributes.push(attribute(key, text(value)));
    }
    Resource { attributes, ..Resource::default() }
}

/// `a=b,c=d`; what is not of that shape is left out.
fn pairs(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim())).filter(|(key, _)| !key.is_empty())
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("toolboxd".to_owned(), VERSION.to_owned());
    Some(InstrumentationScope { name, version, ..InstrumentationScope::default() })
}

pub(super) fn spans(resource: &Resource, spans: Vec<Span>) -> Bytes {
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }];
    let resource = Some(resource.clone());
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

pub(super) fn logs(resource: &Resource, log_records: Vec<LogRecord>) -> Bytes {
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }];
    let resource = Some(resource.clone());
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec().into()
}

pub(super) fn metrics(resource: &Resource, metrics: Vec<Metric>) -> Bytes {
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
    let resource = Some(resource.clone());
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_labels_are_skipped() {
        let found: Vec<_> = pairs("a=b, c = d ,e,=f,g=h=i,").collect();
        assert_eq!(found, [("a", "b"), ("c", "d"), ("g", "h=i")]);
    }
}
