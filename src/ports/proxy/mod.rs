//! The reverse proxy `/proxy/{port}/…`, and `/absproxy/{port}/…` for servers that know where they are seen: all preview
//! traffic comes this way, so what is not ours is not touched.
//!
//! ```text
//!   request ---> headers.rs ---> pool.rs or a new connection ---> line.rs ---> 127.0.0.1 or ::1
//!                                                                    |
//!   reply   <--- headers.rs <--- download.rs <-----------------------+---> upgrade.rs, after 101
//! ```
//!
//! hyper speaks HTTP to the port as it does to us. Its connection is driven by whoever has the request and then the
//! reply's body, not by a task of its own: a chunk passes through one task, and a client that leaves takes the
//! connection with it. hyper counts the bytes of a large body, of which it sees none: they pass by pipe (`through.rs`).
//!
//! - Without a limit: size and duration of bodies, and how long an answer may take. Connecting has one.
//! - A request is sent twice only when repeating it is harmless: it never left, or it is a read without a body that
//!   went to a kept connection, which was closed instead of answered.
//! - Paths are not decoded, `Location` and cookies not rewritten, bodies not compressed or decompressed.

mod download;
mod headers;
mod line;
mod pool;
mod through;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::download::Download;
use self::line::{Failure, Line, Unanswered, Upload};
use self::pool::Pool;
use self::through::Through;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::shutdown::Shutdown;
use crate::platform::sockets::{self, OwnPorts};
use crate::platform::splice::Valve;

/// A connection that was used less than so long ago is taken to be open for a request that must not be sent twice:
/// servers keep theirs for two seconds at least.
const FRESH: Duration = Duration::from_secs(1);

/// Passes requests on to ports of this machine.
#[derive(Debug)]
pub(super) struct Proxy {
    own: OwnPorts,
    pool: Arc<Pool>,
    /// One permit for each connection that is in use.
    places: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Proxy {
    pub(super) fn new(own: OwnPorts, connections: usize, shutdown: Shutdown) -> Self {
        let pool = Arc::new(Pool::new(shutdown.clone()));
        Self { own, pool, places: Arc::new(Semaphore::new(connections)), shutdown }
    }

    /// Passes on a request to `/proxy/{port}/…` and gives the reply's head; its body follows.
    ///
    /// # Errors
    /// When the path has no port, the port is the daemon's own, or there is no answer.
    pub(super) async fn pass(&self, mut request: Request<Body>, peer: IpAddr) -> Result<Response> {
        let (port, target) = target(request.uri())?;
        if self.own.is_api(port) {
            // The first `/proxy/{port}` was taken off by the server, as a prefix.
            let message =
                format!("port {port} is toolboxd itself, which is reached through itself once only");
            return Err(Error::new(ErrorKind::BadGateway, message));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Error::new(ErrorKind::Unavailable, "too many connections to ports of the sandbox are in use")
        })?;
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
        let upgrade = headers::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
        let has_body = !http_body::Body::is_end_stream(request.body());
        headers::forward(request.headers_mut(), port, peer, has_body);
        let client = request.extensions_mut().remove::<Valve>();
        let request = request.map(|body| Upload::new(body, client.clone()));
        let (line, reply) = self.exchange(port, request).await.map_err(|failure| failure.told(port))?;
        let (mut head, body) = reply.into_parts();
        head.version = Version::HTTP_11;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else { return Err(Failure::Switched.told(port)) };
            let parts = line.into_parts().await;
            headers::switched(&mut head.headers);
            head.extensions.clear();
            upgrade::splice(&self.shutdown, upgrade, parts, place);
            return Ok(Response::from_parts(head, Body::empty()));
        }
        headers::back(&mut head.headers);
        let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_events = kind.to_ascii_lowercase().starts_with(b"text/event-stream");
        let body = self.body(port, line, body, client, place, is_events);
        Ok(Response::from_parts(head, body))
    }

    /// Sends the request over a kept connection or a new one.
    async fn exchange(
        &self,
        port: u16,
        mut request: Request<Upload>,
    ) -> Result<(Line, Response<Incoming>), Failure> {
        let can_repeat = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            && http_body::Body::is_end_stream(request.body());
        if let Some(mut line) = self.pool.take(port, if can_repeat { pool::IDLE } else { FRESH }) {
            let copy = can_repeat.then(|| copy(&request));
            match line.send(request).await {
                Ok(reply) => return Ok((line, reply)),
                Err(Unanswered { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Unanswered { failure: failure @ Failure::Closed(_), .. }) => {
                    request = copy.ok_or(failure)?
                }
                Err(Unanswered { failure, .. }) => return Err(failure),
            }
        }
        let mut line = Line::open(port).await?;
        let reply = line.send(request).await.map_err(|unanswered| unanswered.failure)?;
        Ok((line, reply))
    }

    fn body(
        &self,
        port: u16,
        line: Line,
        body: Incoming,
        client: Option<Valve>,
        place: OwnedSemaphorePermit,
        is_events: bool,
    ) -> Body {
        let through = client.and_then(|client| Through::new(&body, line.valve(), client));
        let line = if line.has_sent_all() {
            Some(line)
        } else {
            // The answer came before the end of the request: both go on, whichever the client minds first.
            self.shutdown.spawn(line.finish());
            None
        };
        let stop = is_events.then(|| Box::pin(self.shutdown.cancelled()) as _);
        Body::new(Download::new(body, line, through, port, Arc::clone(&self.pool), place, stop))
    }
}

fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::new(Body::empty(), None));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// The port in a path like `/proxy/3000/a?b`, and what to ask it for, as it is: all that follows or, below
/// `/absproxy`, the whole.
fn target(uri: &Uri) -> Result<(u16, Uri)> {
    let whole = uri.path().strip_prefix("/absproxy/");
    let path = whole.or_else(|| uri.path().strip_prefix("/proxy/")).unwrap_or_default();
    let (text, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let port = sockets::port(text)
        .ok_or_else(|| Error::invalid(format!("{text:?} is not a port: plain digits from 1 to 65535 are")))?;
    if whole.is_some() {
        return Ok((port, uri.path_and_query().cloned().map(Uri::from).unwrap_or_default()));
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    let text = uri.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"));
    let target = PathAndQuery::try_from(text).map_err(|_| Error::invalid("the path is not one of HTTP's"))?;
    Ok((port, Uri::from(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_follows_the_port() {
        let target =
            |uri: &str| target(&uri.parse().unwrap()).map(|(port, uri)| format!("{port} {uri}")).ok();
        for (uri, expected) in [
            ("/proxy/3000", "3000 /"),
            ("/proxy/3000/", "3000 /"),
            ("/proxy/3000?a=b", "3000 /?a=b"),
            ("/proxy/3000//a/../b%2Fc(%40)/?x=%20&&y", "3000 //a/../b%2Fc(%40)/?x=%20&&y"),
            ("/proxy/65535/?", "65535 /?"),
            ("/absproxy/80//a%2Fb?c", "80 /absproxy/80//a%2Fb?c"),
        ] {
            assert_eq!(target(uri).as_deref(), Some(expected), "{uri}");
        }
        for uri in
            ["/proxy/02280/", "/proxy/+2280/", "/proxy/%32280/", "/proxy/2280./", "/proxy/[::]/", "/proxy//"]
        {
            assert_eq!(target(uri), None, "{uri}");
        }
    }
}
