//! An OTLP endpoint that keeps what it is sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::daemon::within;

/// Listens on a free loopback port until it is dropped.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    received: mpsc::UnboundedReceiver<Export>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

/// What the endpoint does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Answers each.
    Answers,
    /// Reads and never answers.
    Hangs,
}

impl Collector {
    pub(crate) async fn start(habit: Habit) -> Self {
        Self::start_with(habit, None).await
    }

    /// Over TLS.
    pub(crate) async fn start_with(habit: Habit, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await.unwrap(), habit, sender).await,
                        None => serve(stream, habit, sender).await,
                    }
                });
            }
        });
        Self { address, received }
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Export {
        within(self.received.recv()).await.expect("it runs as long as the test")
    }

    /// The next request to `path`.
    pub(crate) async fn next_to(&mut self, path: &str) -> Export {
        loop {
            let export = self.next().await;
            if export.path == path {
                return export;
            }
        }
    }

    /// Waits for the span of this name; gives also those that came before it.
    pub(crate) async fn spans_until(&mut self, name: &str) -> (Export, Vec<Span>) {
        let mut spans = Vec::new();
        loop {
            let export = self.next_to("/v1/traces").await;
            spans.extend(export.spans());
            if spans.iter().any(|span| span.name == name) {
                return (export, spans);
            }
        }
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    habit: Habit,
    received: mpsc::UnboundedSender<Export>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let received = received.clone();
        async move {
            assert_eq!(request.method(), Method::POST);
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            // A test that has seen enough does not listen any more.
            let _ = received.send(Export { path: head.uri.path().to_owned(), headers: head.headers, body });
            if habit == Habit::Hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(io), service).await; // the daemon may be gone
}

impl Export {
    pub(crate) fn token(&self) -> &str {
        self.headers.get("sandbox-auth-token").map_or("", |token| token.to_str().unwrap())
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let request = ExportTraceServiceRequest::decode(&self.body[..]).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        let request = ExportLogsServiceRequest::decode(&self.body[..]).unwrap();
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records).collect()
    }

    pub(crate) fn metric_names(&self) -> Vec<String> {
        let request = ExportMetricsServiceRequest::decode(&self.body[..]).unwrap();
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name).collect()
    }

    /// Where the spans come from.
    pub(crate) fn resource(&self) -> Resource {
        let mut request = ExportTraceServiceRequest::decode(&self.body[..]).unwrap();
        assert_eq!(request.resource_spans.len(), 1);
        request.resource_spans.remove(0).resource.unwrap()
    }
}

/// The value of an attribute; none when it is not there.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}
