//! What happens to every request: an id, a span, a log line, the error envelope, and a guard against panics.

use std::any::Any;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;
use tracing::{Instrument, debug, error, error_span, info, warn};
use uuid::Uuid;

use super::preview::is_passed_on;
use crate::error::{Error, ErrorKind};
use crate::http::reply;
use crate::platform::telemetry::{ServerSpan, Telemetry};

/// Carries the request's id to the client, and from a client that has one already.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken from a client, in bytes.
const REQUEST_ID_BYTES: usize = 64;
/// Polled every few milliseconds while a sandbox starts: no log line and no trace.
const QUIET: &str = "/version";

/// Observes a request from its routing to its reply's head.
pub(super) async fn observe(State(telemetry): State<Telemetry>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request.headers().get(&REQUEST_ID).filter(|id| is_sane(id)).cloned().unwrap_or_else(new_id);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The route, not the path: paths may hold names that are nobody's business in a log.
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    // At this level it is there whatever the log's level: a warning names its request.
    let span = error_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let mut trace = trace(&telemetry, &method, &path, &route, request.headers());
    if let Some(trace) = &mut trace {
        trace.set("request.id", id.to_str().unwrap_or_default());
        trace.cover(&span);
    }

    let is_proxied = is_passed_on(&path);
    let mut reply = next.run(request).instrument(span.clone()).await;
    let is_ours = span.in_scope(|| {
        let failure = reply::seal(&mut reply, &method, &path);
        let (status, ms) = (reply.status().as_u16(), began.elapsed().as_secs_f64() * 1e3);
        if let Some(trace) = &mut trace {
            trace.set_number("http.response.status_code", status.into());
            if let Some(failure) = &failure {
                trace.set("error.type", failure.kind().code());
            }
            if reply.status().is_server_error() {
                trace.fail(failure.as_ref().map(ToString::to_string).unwrap_or_default());
            }
        }
        match &failure {
            Some(failure) if reply.status().is_server_error() && failure.kind() != ErrorKind::Unsupported => {
                let cause = std::error::Error::source(&**failure).map(ToString::to_string);
                warn!(status, ms, code = failure.kind().code(), cause, "{failure}");
            }
            Some(failure) => info!(status, ms, code = failure.kind().code(), "refused"),
            None if route == QUIET => {}
            None if is_proxied => debug!(status, ms, "passed on"),
            None => info!(status, ms, "answered"),
        }
        failure.is_some() || !is_proxied
    });
    if is_ours {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}

/// The exported span of a request. What is only passed on to a port of the sandbox has none.
fn trace(
    telemetry: &Telemetry,
    method: &Method,
    path: &str,
    route: &str,
    headers: &HeaderMap,
) -> Option<ServerSpan> {
    if route == QUIET || is_passed_on(path) {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let name = || if route == "-" { method.to_string() } else { format!("{method} {route}") };
    let mut span = telemetry.server_span(name, text("traceparent"), text("tracestate"))?;
    span.set("http.request.method", method.as_str());
    if route != "-" {
        span.set("http.route", route);
    }
    span.set("url.scheme", "http");
    if let Some(agent) = text("user-agent") {
        span.set("user_agent.original", agent);
    }
    Some(span)
}

fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is plain ASCII")
}

/// Turns a handler's panic into a reply; the connection and everything else go on.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    error!(panic = text, "a handler panicked");
    Error::internal("the request could not be served because of a fault in toolboxd").into_response()
}
