//! Connections to servers: TCP, TLS, and what is between us and an HTTP server.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::location::{HttpUrl, Login};
use super::operation::{Operation, transport};
use super::proxy::proxy_for;
use crate::error::{Error, Result, os_text};
use crate::platform::tls;

/// Time for one address of a host to take a connection.
const CONNECT: Duration = Duration::from_secs(15);

/// Bytes both ways, over whatever there is below.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The body of a request: at hand, or handed over in pieces.
pub(super) enum Upload {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Bytes>),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// What moves a connection's bytes, while it is polled.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection to an HTTP server.
pub(super) struct Open {
    pub(super) sender: SendRequest<Upload>,
    driver: Option<Driver>,
    /// What a request for a path says in front of it, when a proxy has to be told where to.
    pub(super) prefix: String,
    /// For a proxy that sees each request.
    pub(super) proxy_authorization: Option<HeaderValue>,
}

impl Open {
    /// Connects to the server of `url`, through a proxy if there is one.
    ///
    /// # Errors
    /// Says what could not be reached, and why.
    pub(super) async fn to(url: &HttpUrl, operation: &Operation) -> Result<Self> {
        let Some(proxy) = proxy_for(operation, url)? else {
            let stream = tcp(&url.host, url.port).await?;
            let io =
                if url.is_tls { secured(stream, url, operation.verifies).await? } else { Box::new(stream) };
            return Self::over(io, String::new(), None).await;
        };
        if let Some(login) = &proxy.login {
            operation.conceal(login);
        }
        let stream =
            tcp(&proxy.host, proxy.port).await.map_err(|error| transport(format!("proxy: {error}")))?;
        let io: Box<dyn Io> =
            if proxy.is_tls { secured(stream, &proxy, true).await? } else { Box::new(stream) };
        let authorization = proxy.login.as_ref().map(basic).transpose()?;
        if url.is_tls {
            let tunnel = tunnel(io, url, &proxy, authorization).await?;
            return Self::over(secured(tunnel, url, operation.verifies).await?, String::new(), None).await;
        }
        Self::over(io, format!("http://{}", url.authority()), authorization).await
    }

    async fn over(io: Box<dyn Io>, prefix: String, proxy_authorization: Option<HeaderValue>) -> Result<Self> {
        let handshake = http1::handshake(TokioIo::new(io)).await;
        let (sender, driver) = handshake.map_err(|error| transport(format!("http: {error}")))?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), prefix, proxy_authorization })
    }

    /// Sends a request; the reply's body is read with [`Open::drive`] around it.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let Self { sender, driver, .. } = self;
        drive(driver, async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
    }

    /// Waits until a request can be sent.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        let Self { sender, driver, .. } = self;
        drive(driver, sender.ready()).await
    }

    /// Waits for something that the connection brings.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive(&mut self.driver, work).await
    }

    /// Whether another request can be sent.
    pub(super) fn is_alive(&self) -> bool {
        self.driver.is_some() && !self.sender.is_closed()
    }
}

/// Works while the connection moves; what the connection has brought when it ends is still worked on.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Some(connection) = driver {
        tokio::select! {
            biased;
            result = &mut work => return result,
            _ended = connection => {}
        }
        *driver = None;
    }
    work.await
}

/// Connects to the first address of a host that takes it.
///
/// # Errors
/// Says whether the host is unknown or does not answer.
pub(super) async fn tcp(host: &str, port: u16) -> Result<TcpStream> {
    let addresses = lookup_host((host, port)).await;
    let addresses =
        addresses.map_err(|error| transport(format!("host {host} cannot be found")).with_source(error))?;
    let mut last = None;
    for address in addresses {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true); // only slower without
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_late) => last = Some(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }
    let error = last.unwrap_or_else(|| io::Error::other("it has no address"));
    Err(transport(format!("connect to {host} port {port}: {}", os_text(&error))).with_source(error))
}

/// Puts TLS over a connection.
async fn secured(stream: impl Io + 'static, url: &HttpUrl, verifies: bool) -> Result<Box<dyn Io>> {
    let name = ServerName::try_from(url.host.clone());
    let name = name.map_err(|_| transport(format!("{} cannot be the name of a certificate", url.host)))?;
    // Reads files, on a thread that is for work that blocks: see `Operation::wait`.
    let config = if verifies { tls::client_config() } else { tls::unverified_client_config() };
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Ok(Box::new(connected.map_err(|error| tls_failed(url, error))?))
}

fn tls_failed(url: &HttpUrl, error: io::Error) -> Error {
    let host = url.authority();
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let message = match cause {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let reason = match reason {
                CertificateError::UnknownIssuer => "its issuer is not trusted".to_owned(),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "it has expired".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "it is for another host".to_owned()
                }
                CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                    "it is self-signed".to_owned()
                }
                other => other.to_string(),
            };
            format!("the certificate of {host} is not accepted: {reason}")
        }
        Some(other) => format!("tls with {host}: {other}"),
        None => format!("tls with {host}: {}", os_text(&error)),
    };
    transport(message).with_source(error)
}

/// Asks a proxy for a connection to the server.
async fn tunnel(
    io: Box<dyn Io>,
    url: &HttpUrl,
    proxy: &HttpUrl,
    authorization: Option<HeaderValue>,
) -> Result<impl Io + 'static> {
    let failed =
        |error: hyper::Error| transport(format!("proxy {}: {error}", proxy.authority())).with_source(error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    let target = match url.host.contains(':') {
        true => format!("[{}]:{}", url.host, url.port),
        false => format!("{}:{}", url.host, url.port),
    };
    let mut request = Request::connect(&target).header(header::HOST, &target);
    if let Some(authorization) = authorization {
        request = request.header(header::PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| transport(error.to_string()))?;
    let mut driver: Option<Driver> = Some(Box::pin(connection.with_upgrades()));
    let reply = drive(&mut driver, sender.send_request(request)).await.map_err(failed)?;
    match reply.status() {
        status if status.is_success() => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            return Err(transport(format!("proxy {} wants other credentials", proxy.authority())));
        }
        status => {
            let text = format!("proxy {} does not connect to {target}: {status}", proxy.authority());
            return Err(transport(text));
        }
    }
    let upgraded = drive(&mut driver, hyper::upgrade::on(reply)).await.map_err(failed)?;
    Ok(TokioIo::new(upgraded))
}

/// The value of a header that says who we are (RFC 7617).
///
/// # Errors
/// Never in practice: Base64 is always a valid value.
pub(super) fn basic(login: &Login) -> Result<HeaderValue> {
    let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", login.user, login.password)));
    let mut value =
        HeaderValue::try_from(text).map_err(|_| Error::invalid("the credentials are not valid"))?;
    value.set_sensitive(true);
    Ok(value)
}
