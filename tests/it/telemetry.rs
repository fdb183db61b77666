//! The log file and the export to an OTLP endpoint.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::process::Command;

use crate::support::{Collector, Daemon, Habit, attribute, program, within};

/// A caller's span, as the standard's examples have it.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Its trace.
const TRACE: [u8; 16] =
    [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];

async fn start(endpoint: &str, change: impl FnOnce(&mut Command)) -> Daemon {
    Daemon::start_with(|command| {
        command.env("DAYTONA_OTEL_ENDPOINT", endpoint);
        change(command);
    })
    .await
}

async fn init(daemon: &Daemon, token: &str) {
    daemon.client().post("/init").json(json!({"token": token})).ok().await;
}

fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

fn body(record: &LogRecord) -> Option<Value> {
    record.body.clone().and_then(|body| body.value)
}

#[tokio::test]
async fn a_request_is_a_span_that_continues_its_callers_trace() {
    let mut collector = Collector::start(Habit::Answers).await;
    let daemon = start(&format!("http://{}/base/", collector.address), |command| {
        command
            .env("DAYTONA_SANDBOX_ID", "s1")
            .env("DAYTONA_ORGANIZATION_ID", "o1")
            .env("DAYTONA_SANDBOX_OTEL_EXTRA_LABELS", "team=a,malformed,rack=7");
    })
    .await;
    let client = daemon.client();
    client.get("/user-home-dir").ok().await; // before there is anyone to tell
    init(&daemon, "t1").await;
    client.get("/version").ok().await;
    client.get("/proxy/1/x").send().await;
    let call = client.get("/work-dir").header("traceparent", PARENT).header("tracestate", "a=1");
    call.header("baggage", "user=7").header("x-request-id", "r1").ok().await;
    let export = loop {
        let export = collector.next_to("/base/v1/traces").await;
        let spans = export.spans();
        for unwanted in ["/user-home-dir", "/version", "/proxy"] {
            assert!(spans.iter().all(|span| !span.name.contains(unwanted)), "{spans:?}");
        }
        if spans.iter().any(|span| span.name == "GET /work-dir") {
            break export;
        }
    };
    assert_eq!(export.token(), "t1");
    assert_eq!(export.headers["content-type"], "application/x-protobuf");

    let span = export.spans().into_iter().find(|span| span.name == "GET /work-dir").unwrap();
    assert_eq!((&span.trace_id[..], &span.trace_state[..]), (&TRACE[..], "a=1"));
    assert_eq!(span.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert_eq!((span.kind(), span.span_id.len()), (SpanKind::Server, 8));
    assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
    assert_eq!(attribute(&span.attributes, "http.route"), text("/work-dir"));
    assert_eq!(attribute(&span.attributes, "http.response.status_code"), Some(Value::IntValue(200)));
    assert_eq!(attribute(&span.attributes, "request.id"), text("r1"));

    let resource = export.resource().attributes;
    for (key, value) in [
        ("service.name", "sandbox-s1"),
        ("service.version", concat!("v", env!("CARGO_PKG_VERSION"))),
        ("deployment.environment.name", ""),
        ("daytona_organization_id", "o1"),
        ("team", "a"),
        ("rack", "7"),
    ] {
        assert_eq!(attribute(&resource, key), text(value), "{key}");
    }
    assert!(attribute(&resource, "service.instance.id").is_some());
    assert_eq!(attribute(&resource, "malformed"), None);
}

#[tokio::test]
async fn the_entrypoints_lines_and_the_daemons_own_are_log_records() {
    let mut collector = Collector::start(Habit::Answers).await;
    let daemon = start(&format!("http://{}", collector.address), |command| {
        command.args(["sh", "-c", "echo one; printf 'two' >&2"]);
    })
    .await;
    init(&daemon, "t1").await;
    daemon.client().get("/work-dir").header("traceparent", PARENT).ok().await;
    let mut records = Vec::new();
    let find =
        |records: &[LogRecord], line: &str| records.iter().find(|record| body(record) == text(line)).cloned();
    let (out, err, own) = loop {
        let export = collector.next_to("/v1/logs").await;
        assert_eq!(export.token(), "t1");
        records.extend(export.logs());
        let own = records.iter().find(|record| record.trace_id == TRACE).cloned();
        if let (Some(out), Some(err), Some(own)) = (find(&records, "one"), find(&records, "two"), own) {
            break (out, err, own);
        }
    };
    for (record, severity) in [(out, "INFO"), (err, "ERROR")] {
        assert_eq!(record.severity_text, severity);
        assert_eq!(attribute(&record.attributes, "daytona-entrypoint"), Some(Value::BoolValue(true)));
    }
    assert_eq!((body(&own), &own.severity_text[..]), (text("answered"), "INFO"));
    assert_eq!(attribute(&own.attributes, "status"), Some(Value::IntValue(200)));
    assert_eq!(attribute(&own.attributes, "daytona-entrypoint"), None);
}

#[tokio::test]
async fn metrics_have_the_names_that_the_platform_asks_for() {
    let mut collector = Collector::start(Habit::Answers).await;
    let daemon = start(&format!("http://{}", collector.address), |_| {}).await;
    daemon.client().post("/init").json(json!({})).ok().await;
    let export = collector.next_to("/v1/metrics").await;
    assert_eq!(export.token(), "", "none was given");
    let names = export.metric_names();
    for name in [
        "daytona.sandbox.cpu.limit",
        "daytona.sandbox.cpu.utilization",
        "daytona.sandbox.memory.limit",
        "daytona.sandbox.memory.usage",
        "daytona.sandbox.memory.utilization",
        "daytona.sandbox.filesystem.total",
        "daytona.sandbox.filesystem.usage",
        "daytona.sandbox.filesystem.available",
        "daytona.sandbox.filesystem.utilization",
        "process.cpu.time",
        "system.cpu.time",
    ] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn another_init_switches_the_token() {
    let mut collector = Collector::start(Habit::Answers).await;
    let daemon = start(&format!("http://{}", collector.address), |_| {}).await;
    init(&daemon, "t1").await;
    daemon.client().get("/work-dir").ok().await;
    // What was collected before goes out with the token it was collected under, also when nobody waited for it.
    init(&daemon, "t2").await;
    daemon.client().get("/user-home-dir").ok().await;
    let (before, _) = collector.spans_until("GET /work-dir").await;
    assert_eq!(before.token(), "t1");
    let (after, _) = collector.spans_until("GET /user-home-dir").await;
    assert_eq!(after.token(), "t2");
    // Without a token it goes on with the one there is.
    daemon.client().post("/init").json(json!({"token": ""})).ok().await;
    daemon.client().get("/project-dir").ok().await;
    assert_eq!(collector.spans_until("GET /project-dir").await.0.token(), "t2");
}

#[tokio::test]
async fn what_is_left_is_sent_when_the_daemon_stops() {
    let mut collector = Collector::start(Habit::Answers).await;
    let mut daemon = start(&format!("http://{}", collector.address), |_| {}).await;
    init(&daemon, "t1").await;
    daemon.client().get("/work-dir").ok().await;
    daemon.signal("TERM").await;
    assert!(daemon.exited().await.success());
    let (mut span, mut stopped, mut metrics) = (false, false, false);
    while !(span && stopped && metrics) {
        let export = collector.next().await;
        match &export.path[..] {
            "/v1/traces" => span |= export.spans().iter().any(|span| span.name == "GET /work-dir"),
            "/v1/logs" => stopped |= export.logs().iter().any(|record| body(record) == text("stopped")),
            _ => metrics |= !export.metric_names().is_empty(),
        }
    }
}

#[tokio::test]
async fn a_collector_that_hangs_slows_neither_requests_nor_the_end() {
    let mut collector = Collector::start(Habit::Hangs).await;
    let mut daemon = start(&format!("http://{}", collector.address), |command| {
        command.args(["sh", "-c", "seq 100000"]);
    })
    .await;
    init(&daemon, "t1").await;
    let client = daemon.client();
    client.get("/work-dir").ok().await;
    collector.next_to("/v1/traces").await;
    let began = Instant::now();
    for _ in 0..3000 {
        client.get("/work-dir").ok().await; // more than a queue holds
    }
    init(&daemon, "t2").await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let began = Instant::now();
    daemon.signal("TERM").await;
    assert!(daemon.exited().await.success());
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_a_line_in_the_log() {
    let mut daemon = start("127.0.0.1:1", |_| {}).await;
    init(&daemon, "t1").await;
    daemon.client().get("/work-dir").ok().await;
    daemon.signal("TERM").await;
    assert!(daemon.exited().await.success());
    let log = daemon.log();
    assert!(log.contains("telemetry cannot be sent to 127.0.0.1:1/v1/traces: "), "{log}");
    assert!(!log.contains("t1"), "{log}");
}

#[tokio::test]
async fn the_endpoint_may_be_https() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, certificate.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let mut collector = Collector::start_with(Habit::Answers, Some(tls)).await;
    let daemon = start(&format!("https://localhost:{}", collector.address.port()), |command| {
        command.env("SSL_CERT_FILE", &roots);
    })
    .await;
    init(&daemon, "t1").await;
    daemon.client().get("/work-dir").ok().await;
    let (export, _) = collector.spans_until("GET /work-dir").await;
    assert_eq!(export.token(), "t1");
}

#[tokio::test]
async fn the_log_also_goes_to_a_file_which_is_put_aside_when_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/daemon.log");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let old = "x".repeat(1 << 20);
    std::fs::write(&path, &old).unwrap();
    let mut daemon = Daemon::start_with(|command| {
        command
            .env("DAYTONA_DAEMON_LOG_FILE_PATH", &path)
            .env("DAYTONA_DAEMON_LOG_MAX_SIZE_MB", "1")
            .env("DAYTONA_DAEMON_LOG_COMPRESS", "false");
    })
    .await;
    daemon.client().get("/work-dir").ok().await;
    daemon.signal("TERM").await;
    assert!(daemon.exited().await.success());
    let log = std::fs::read_to_string(&path).unwrap();
    // The two are written one after the other: their times differ.
    let lines =
        |log: &str| log.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&log), lines(&daemon.log()));
    assert!(log.contains("/work-dir") && log.contains("stopped"), "{log}");
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|name| *name != path).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read_to_string(&aside[0]).unwrap(), old);
}

#[tokio::test]
async fn a_log_file_that_cannot_be_opened_ends_the_program_and_is_named() {
    let mut command = Command::new(program());
    command.env_clear().env("TOOLBOXD_LISTEN", "127.0.0.1:0");
    let output =
        within(command.args(["--daemon-log-file-path", "/proc/no/daemon.log"]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--daemon-log-file-path /proc/no/daemon.log: "), "{text}");
}
