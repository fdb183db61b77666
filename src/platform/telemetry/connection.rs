//! One connection to the endpoint, kept open between requests: HTTP/1.1 over TCP or TLS.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::config::Token;
use crate::platform::blocking::Lane;
use crate::platform::tls;

/// Carries the token.
const TOKEN: &str = "sandbox-auth-token";
/// Most that is read of a reply, in bytes; a connection with a longer one is not used again.
const REPLY_BYTES: usize = 64 * 1024;

/// Where telemetry goes.
#[derive(Debug)]
pub(super) struct Endpoint {
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    /// In front of `/v1/…`.
    base: String,
    /// Made when it is needed first, because it reads many certificates.
    tls: OnceCell<Arc<ClientConfig>>,
    lane: Lane,
}

impl Endpoint {
    /// `url` has a host and is http or https.
    pub(super) fn new(url: &Uri) -> Self {
        let is_tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Self {
            is_tls,
            // An IPv6 address has brackets in a URL only.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: url.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            base: url.path().trim_end_matches('/').to_owned(),
            tls: OnceCell::new(),
            lane: Lane::new(1),
        }
    }

    /// The host, for messages.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    async fn tls(&self) -> io::Result<TlsConnector> {
        let make = || async { self.lane.run(|| Arc::new(tls::client_config())).await };
        let config = self.tls.get_or_try_init(make).await.map_err(io::Error::other)?;
        Ok(TlsConnector::from(Arc::clone(config)))
    }

    async fn connect(&self) -> io::Result<Open> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        if !self.is_tls {
            return Open::over(stream).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Open::over(self.tls().await?.connect(name, stream).await?).await
    }
}

/// What is sent where, and the connection while there is one.
pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    path: String,
    token: Option<HeaderValue>,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// Moves bytes while it is polled, which is as long as a request is under way.
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl Connection {
    /// To `path` below the endpoint's base.
    pub(super) fn new(endpoint: Arc<Endpoint>, path: &str, token: Option<&Token>) -> Self {
        let path = format!("{}{path}", endpoint.base);
        let token = token.and_then(|token| HeaderValue::from_str(token.reveal()).ok()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { endpoint, path, token, open: None }
    }

    /// Posts a message of protocol buffers.
    ///
    /// # Errors
    /// When there is no connection or no reply.
    pub(super) async fn post(&mut self, message: Bytes) -> io::Result<StatusCode> {
        if let Some(open) = self.open.take().filter(|open| !open.sender.is_closed())
            && let Ok(status) = self.post_over(open, message.clone()).await
        {
            return Ok(status);
        }
        // None was open, or the one that was had been closed by the peer meanwhile.
        let open = self.endpoint.connect().await?;
        self.post_over(open, message).await
    }

    async fn post_over(&mut self, mut open: Open, message: Bytes) -> io::Result<StatusCode> {
        let mut request = Request::post(&self.path)
            .header(header::HOST, &self.endpoint.authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("toolboxd/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token);
        }
        let request = request.body(Full::new(message)).map_err(io::Error::other)?;
        let (result, is_alive) = exchange(&mut open, request).await;
        let (status, is_read) = result.map_err(io::Error::other)?;
        if is_alive && is_read {
            self.open = Some(open);
        }
        Ok(status)
    }
}

/// One request and its reply: the status and whether all of it was read, and whether the connection lives on.
async fn exchange(
    open: &mut Open,
    request: Request<Full<Bytes>>,
) -> (hyper::Result<(StatusCode, bool)>, bool) {
    let exchange = async {
        open.sender.ready().await?;
        let reply = open.sender.send_request(request).await?;
        let status = reply.status();
        let is_read = Limited::new(reply.into_body(), REPLY_BYTES).collect().await.is_ok();
        Ok((status, is_read))
    };
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => (result, true),
        _ended = &mut open.driver => (exchange.await, false), // a reply may have come with the end
    }
}

impl Open {
    async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Self> {
        let (sender, driver) = handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: Box::pin(driver) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_ports_and_bases() {
        let endpoint = |url: &'static str| {
            let endpoint = Arc::new(Endpoint::new(&Uri::from_static(url)));
            let path = Connection::new(Arc::clone(&endpoint), "/v1/logs", None).path;
            (endpoint.host.clone(), endpoint.port, endpoint.authority.clone(), path)
        };
        let expected = |host: &str, port, authority: &str, path: &str| {
            (host.to_owned(), port, authority.to_owned(), path.to_owned())
        };
        assert_eq!(endpoint("http://a:4318"), expected("a", 4318, "a:4318", "/v1/logs"));
        assert_eq!(endpoint("https://a/otlp/"), expected("a", 443, "a", "/otlp/v1/logs"));
        assert_eq!(endpoint("http://[::1]:1/"), expected("::1", 1, "[::1]:1", "/v1/logs"));
    }
}
