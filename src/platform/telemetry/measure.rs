//! What is measured for export: the sandbox against its limits, the machine, and this process.
//!
//! The sandbox's names are those that the platform's metrics pages ask for (contract `core.md` 9); the others are
//! OpenTelemetry's semantic conventions.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Gauge, Metric, NumberDataPoint, Sum};

use super::otlp;
use crate::platform::blocking::Lane;
use crate::platform::metrics::{Metrics, Sampler};

/// Measures; remembers the last look at CPU use.
#[derive(Debug)]
pub(super) struct Meter {
    sampler: Arc<Sampler>,
    lane: Lane,
}

impl Default for Meter {
    fn default() -> Self {
        Self { sampler: Arc::default(), lane: Lane::new(1) }
    }
}

impl Meter {
    /// Measures now; nothing when that panicked.
    pub(super) async fn measure(&self) -> Vec<Metric> {
        let sampler = Arc::clone(&self.sampler);
        let measured = self.lane.run(move || {
            let mut metrics = sandbox(sampler.sample());
            metrics.extend(machine());
            metrics.extend(process());
            metrics
        });
        measured.await.unwrap_or_default()
    }
}

fn sandbox(now: Metrics) -> Vec<Metric> {
    let percent = |part: u64, whole: u64| {
        Value::AsDouble(if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 })
    };
    let gauge = |name, unit, value| gauge(name, unit, vec![point(value, &[])]);
    let disk = |name, unit, value| self::gauge(name, unit, vec![point(value, &[("device", "/")])]);
    vec![
        gauge("daytona.sandbox.cpu.limit", "cores", Value::AsDouble(now.cpus)),
        gauge("daytona.sandbox.cpu.utilization", "%", Value::AsDouble(now.cpu_percent)),
        gauge("daytona.sandbox.memory.limit", "By", whole(now.memory_total)),
        gauge("daytona.sandbox.memory.usage", "By", whole(now.memory_used)),
        gauge("daytona.sandbox.memory.cache", "By", whole(now.memory_cache)),
        gauge("daytona.sandbox.memory.utilization", "%", percent(now.memory_used, now.memory_total)),
        disk("daytona.sandbox.filesystem.total", "By", whole(now.disk_total)),
        disk("daytona.sandbox.filesystem.usage", "By", whole(now.disk_used)),
        disk("daytona.sandbox.filesystem.available", "By", whole(now.disk_free)),
        disk("daytona.sandbox.filesystem.utilization", "%", percent(now.disk_used, now.disk_total)),
    ]
}

fn machine() -> Vec<Metric> {
    let mut metrics = Vec::new();
    let text = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let stat = text("/proc/stat");
    let ticks: Vec<u64> = numbers(stat.lines().next().unwrap_or_default());
    if let [user, nice, system, idle, iowait, irq, softirq, ..] = ticks[..] {
        let modes =
            [("user", user + nice), ("system", system + irq + softirq), ("idle", idle), ("iowait", iowait)];
        let points = modes.map(|(mode, ticks)| point(seconds(ticks), &[("cpu.mode", mode)]));
        metrics.push(sum("system.cpu.time", "s", points.into()));
    }
    let meminfo = text("/proc/meminfo");
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| numbers(line).first().copied()).unwrap_or_default() * 1024
    };
    let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
    if total > 0 {
        let states = [("used", total.saturating_sub(available)), ("available", available)];
        let state = |value, state| point(value, &[("system.memory.state", state)]);
        let points = states.map(|(name, bytes)| state(whole(bytes), name));
        metrics.push(gauge("system.memory.usage", "By", points.into()));
        let points = states.map(|(name, bytes)| state(Value::AsDouble(bytes as f64 / total as f64), name));
        metrics.push(gauge("system.memory.utilization", "1", points.into()));
    }
    let (received, sent) = network(&text("/proc/net/dev"));
    let points = [("receive", received), ("transmit", sent)]
        .map(|(direction, bytes)| point(whole(bytes), &[("network.io.direction", direction)]));
    metrics.push(sum("system.network.io", "By", points.into()));
    metrics
}

/// Bytes received and sent over all interfaces but the loopback.
fn network(dev: &str) -> (u64, u64) {
    let interfaces = dev.lines().filter_map(|line| line.split_once(':'));
    interfaces.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, counts)| {
        let counts = numbers(counts);
        let count = |index: usize| counts.get(index).copied().unwrap_or_default();
        (received + count(0), sent + count(8))
    })
}

/// This daemon, without the processes that it started.
fn process() -> Vec<Metric> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: fields 4 to 52 of proc_pid_stat(5), the first one being the parent.
    let fields = numbers(stat.rsplit_once(") ").map_or("", |(_, fields)| fields));
    let field = |number: usize| fields.get(number - 4).copied().unwrap_or_default();
    let cpu = [("user", field(14)), ("system", field(15))];
    let points = cpu.map(|(mode, ticks)| point(seconds(ticks), &[("cpu.mode", mode)]));
    let resident = field(24) * rustix::param::page_size() as u64;
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let gauge = |name, unit, value| gauge(name, unit, vec![point(whole(value), &[])]);
    vec![
        sum("process.cpu.time", "s", points.into()),
        gauge("process.memory.usage", "By", resident),
        gauge("process.thread.count", "{thread}", field(20)),
        gauge("process.unix.file_descriptor.count", "{file_descriptor}", files),
    ]
}

/// The numbers among the words of a line.
fn numbers(line: &str) -> Vec<u64> {
    // Fields of stat that may be negative keep their place, and are not asked for.
    let number =
        |word: &str| word.parse::<i64>().ok().map(|number| u64::try_from(number).unwrap_or_default());
    line.split_whitespace().filter_map(number).collect()
}

fn whole(value: u64) -> Value {
    Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))
}

fn seconds(ticks: u64) -> Value {
    let second = rustix::param::clock_ticks_per_second().max(1);
    Value::AsDouble(Duration::from_secs(ticks).as_secs_f64() / second as f64)
}

fn point(value: Value, attributes: &[(&str, &str)]) -> NumberDataPoint {
    let attributes: Vec<KeyValue> =
        attributes.iter().map(|(key, value)| otlp::attribute(*key, otlp::text(*value))).collect();
    NumberDataPoint {
        attributes,
        time_unix_nano: otlp::now(),
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn gauge(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, unit, Data::Gauge(Gauge { data_points }))
}

/// What only grows.
fn sum(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    metric(name, unit, Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true }))
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_does_not_count_as_network() {
        let dev = "Inter-|   Receive |  Transmit\n face |bytes packets|bytes packets\n    \
            lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth0: 100 2 0 0 0 0 0 0 50 3 0 0 0 0 0 0\n";
        assert_eq!(network(dev), (100, 50));
    }

    #[test]
    fn this_process_has_threads_memory_and_files() {
        for metric in process() {
            let points = match metric.data.unwrap() {
                Data::Gauge(gauge) => gauge.data_points,
                Data::Sum(sum) => sum.data_points,
                other => panic!("{other:?}"),
            };
            assert!(points[0].value != Some(Value::AsInt(0)), "{}", metric.name);
        }
    }
}
