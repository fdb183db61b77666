//! URLs of ports and of the proxy to them (contract `core.md` 2 and 5).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Json as JsonReply;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::{StreamExt, stream};
use http::header;
use tokio::time::timeout;

use super::service::Ports;
use super::watch::{Change, Watch};
use super::wire::{InUse, ListenerDto, PortEvent, PortList, PortsQuery};
use crate::endpoints;
use crate::error::{Error, Result};
use crate::http::extract::{Path, Query};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::{Close, Receiver, Sender, Upgrade};
use crate::platform::sockets::{self, Listener};

/// The ports that can be asked about one by one.
const ASKABLE: std::ops::RangeInclusive<u16> = 3000..=9999;
/// A comment is sent after so much silence, so that nothing on the way takes the stream for dead.
const SILENCE: Duration = Duration::from_secs(30);

pub(crate) fn router(ports: Ports) -> Routes {
    Routes::new()
        .routes(endpoints!(list))
        .routes(endpoints!(in_use))
        .routes(endpoints!(watch))
        .routes(endpoints!(proxy at "/proxy/{port}/{*path}"))
        .route("/proxy/{port}", any(proxy))
        .route("/proxy/{port}/", any(proxy))
        .routes(endpoints!(proxy_whole at "/absproxy/{port}/{*path}"))
        .route("/absproxy/{port}", any(proxy_whole))
        .route("/absproxy/{port}/", any(proxy_whole))
        .with_state(ports)
}

/// Ports that something listens on, by number, without the daemon's own
#[utoipa::path(get, path = "/port", tag = "ports", params(PortsQuery), responses((status = 200, body = PortList)))]
async fn list(State(ports): State<Ports>, Query(query): Query<PortsQuery>) -> Result<JsonReply<PortList>> {
    let found = ports.list().await?.into_values().flatten().collect();
    Ok(JsonReply(port_list(&ports, found, query.detail).await?))
}

/// Whether something listens on a port from 3000 to 9999
#[utoipa::path(get, path = "/port/{port}/in-use", tag = "ports", params(("port" = u16, Path)),
    responses((status = 200, body = InUse), (status = 400, body = ErrorBody)))]
async fn in_use(State(ports): State<Ports>, Path(port): Path<String>) -> Result<JsonReply<InUse>> {
    let port = sockets::port(&port).filter(|port| ASKABLE.contains(port)).ok_or_else(|| {
        Error::invalid(format!("the port must be a number from {} to {}", ASKABLE.start(), ASKABLE.end()))
    })?;
    Ok(JsonReply(InUse { is_in_use: ports.is_in_use(port).await? }))
}

/// Streams which ports are opened and closed
///
/// As server-sent events, or, when asked to upgrade, as text frames of a WebSocket; each is one JSON object. The first
/// is a `snapshot`. A close is told at once, an opening within 0.2 s; who takes events slowly gets what has changed
/// since. The stream ends when the daemon stops (close code 1001).
#[utoipa::path(get, path = "/port/watch", tag = "ports", params(PortsQuery),
    responses((status = 200, body = PortEvent, content_type = "text/event-stream"),
        (status = 101, description = "A WebSocket with the same events")))]
async fn watch(
    State(ports): State<Ports>,
    Query(query): Query<PortsQuery>,
    upgrade: Option<Upgrade>,
) -> Result<Response> {
    let events = Events { watch: ports.watch().await?, ports, detail: query.detail };
    let shutdown = events.ports.inner.shutdown.clone();
    Ok(match upgrade {
        Some(upgrade) => upgrade.serve(&shutdown, move |sender, receiver| frames(events, sender, receiver)),
        None => {
            let lines = stream::unfold(events, async |mut events| {
                let text = match timeout(SILENCE, events.watch.next()).await {
                    Ok(change) => format!("data: {}\n\n", events.tell(change?).await?),
                    Err(_) => ":\n\n".to_owned(),
                };
                Some((Ok::<_, Infallible>(text), events))
            });
            let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
            (headers, Body::from_stream(lines.take_until(Box::pin(shutdown.cancelled())))).into_response()
        }
    })
}

async fn frames(mut events: Events, sender: Sender, mut receiver: Receiver) -> Close {
    loop {
        tokio::select! {
            change = events.watch.next() => {
                let Some(change) = change else { return Close::AWAY };
                let Some(event) = events.tell(change).await else { return Close::failed("the watch failed") };
                if sender.text(event).await.is_err() {
                    return Close::NORMAL;
                }
            }
            frame = receiver.recv() => {
                if frame.is_none() {
                    return Close::NORMAL;
                }
            }
        }
    }
}

/// A watch, as lines of JSON.
struct Events {
    watch: Watch,
    ports: Ports,
    detail: bool,
}

impl Events {
    async fn tell(&self, change: Change) -> Option<String> {
        let event = match change {
            Change::Snapshot(found) => {
                PortEvent::Snapshot(port_list(&self.ports, found, self.detail).await.ok()?)
            }
            Change::Opened(port, found) => {
                let listeners = details(&self.ports, found, self.detail).await.ok()?;
                PortEvent::Open { port, listeners }
            }
            Change::Closed(port) => PortEvent::Close { port },
        };
        Some(event.json())
    }
}

async fn port_list(ports: &Ports, found: Vec<Listener>, detail: bool) -> Result<PortList> {
    let mut numbers: Vec<u16> = found.iter().map(|listener| listener.address.port()).collect();
    numbers.dedup();
    Ok(PortList { ports: numbers, listeners: details(ports, found, detail).await? })
}

async fn details(ports: &Ports, found: Vec<Listener>, detail: bool) -> Result<Option<Vec<ListenerDto>>> {
    if !detail {
        return Ok(None);
    }
    Ok(Some(ports.describe(found).await?.into_iter().map(ListenerDto::from).collect()))
}

/// Passes a request of any method, WebSockets too, on to what listens on a port of the sandbox
///
/// Path and query go as they are, percent-encoding included, to `127.0.0.1` or `::1`; bodies are streamed both ways. The
/// `Host` is `localhost:{port}`; `X-Forwarded-For` is added to, `X-Forwarded-Host` and `X-Forwarded-Proto` are set where
/// they are not. The reply comes back as it is. The port is plain digits.
#[utoipa::path(get, path = "/proxy/{port}/{path}", tag = "ports",
    params(("port" = u16, Path), ("path" = String, Path, description = "May be empty and may have slashes")),
    responses((status = 200, description = "Whatever the port answers"), (status = 400, body = ErrorBody),
        (status = 502, body = ErrorBody, description = "Nothing listens there, or it did not answer in HTTP"),
        (status = 503, body = ErrorBody, description = "Too many connections to ports at a time")))]
async fn proxy(
    State(ports): State<Ports>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response> {
    ports.inner.proxy.pass(request, peer.ip()).await
}

/// As `/proxy/{port}/{path}`, and the port is asked for the whole path, from `/absproxy` on
///
/// For servers that are told the base of their URLs, as `vite --base /absproxy/5173/` is.
#[utoipa::path(get, path = "/absproxy/{port}/{path}", tag = "ports",
    params(("port" = u16, Path), ("path" = String, Path, description = "May be empty and may have slashes")),
    responses((status = 200, description = "Whatever the port answers"), (status = 400, body = ErrorBody),
        (status = 502, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn proxy_whole(
    ports: State<Ports>,
    peer: ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response> {
    proxy(ports, peer, request).await
}
