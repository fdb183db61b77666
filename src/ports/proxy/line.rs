//! One connection to a port, driven by whoever uses it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};

use super::through::Through;
use crate::error::{Error, ErrorKind, os_text};
use crate::platform::splice::{Socket, Valve};
use crate::ports::local;

/// Longest wait for a connection to be accepted.
const CONNECT: Duration = Duration::from_secs(10);
/// Most header fields of a reply.
const HEADERS: usize = 256;
/// Largest head of a reply, and the most that is buffered of a body.
const BUFFER: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing takes connections.
    Connect(io::Error),
    /// The connection ended before the answer began or in its head.
    Closed(hyper::Error),
    /// What came was no answer.
    Malformed(hyper::Error),
    /// It switched to a protocol that nobody had asked for.
    Switched,
    /// The request's own body cannot be read to its end.
    Request(hyper::Error),
}

impl Failure {
    /// In words for the client.
    pub(super) fn told(self, port: u16) -> Error {
        let error = |message| Error::new(ErrorKind::BadGateway, message);
        match self {
            Self::Connect(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
                error(format!("nothing listens on port {port}")).with_source(cause)
            }
            Self::Connect(cause) if cause.kind() == io::ErrorKind::TimedOut => error(format!(
                "what listens on port {port} did not take the connection within {} s",
                CONNECT.as_secs()
            )),
            Self::Connect(cause) => {
                error(format!("connect to port {port}: {}", os_text(&cause))).with_source(cause)
            }
            Self::Closed(cause) => {
                error(format!("what listens on port {port} closed the connection without an answer"))
                    .with_source(cause)
            }
            Self::Malformed(cause) => {
                error(format!("what listens on port {port} did not answer in HTTP: {cause}"))
                    .with_source(cause)
            }
            Self::Request(cause) => {
                Error::new(ErrorKind::InvalidBody, "the body ended early").with_source(cause)
            }
            Self::Switched => {
                error(format!("what listens on port {port} switched protocols without being asked to"))
            }
        }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() {
            return Self::Request(error);
        }
        if error.is_parse() || error.is_parse_too_large() {
            Self::Malformed(error)
        } else {
            Self::Closed(error)
        }
    }
}

/// Why there is no answer, and the request when nothing of it was sent.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    pub(super) unsent: Option<Box<Request<Upload>>>,
}

/// A connection that carries one exchange at a time.
pub(super) struct Line {
    sender: SendRequest<Upload>,
    /// None when it has ended without an answer.
    connection: Option<Connection<TokioIo<Socket>, Upload>>,
    valve: Valve,
    /// The connection is done and must not be polled again.
    is_over: bool,
    /// The request of the last exchange is written, or will not be.
    sent: Arc<AtomicBool>,
}

impl Line {
    /// Connects.
    pub(super) async fn open(port: u16) -> Result<Self, Failure> {
        let stream = local::connect(port, CONNECT).await.map_err(Failure::Connect)?;
        // A process that was stopped for good is noticed, also on a connection that nothing is sent on.
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(Failure::Connect)?;
        let socket = Socket::new(stream);
        let valve = socket.valve();
        let (sender, connection) = Builder::new()
            .preserve_header_case(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(socket))
            .await?;
        Ok(Self { sender, connection: Some(connection), valve, is_over: false, sent: Arc::default() })
    }

    /// Sends a request and waits for the head of the reply.
    ///
    /// # Errors
    /// With the request, when nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.sent = Arc::default();
        let upload = request.body_mut();
        upload.sent = Arc::clone(&self.sent);
        upload.through =
            upload.client.clone().and_then(|client| Through::new(&upload.body, client, self.valve.clone()));
        let mut reply = pin!(self.sender.try_send_request(request));
        poll_fn(|context| {
            let is_over = self.poll(context);
            let answer = reply.as_mut().poll(context);
            if is_over && answer.is_pending() {
                // It ended before it took the request: dropping it gives the request back.
                self.connection = None;
                return reply.as_mut().poll(context);
            }
            answer
        })
        .await
        .map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            Unanswered { failure: error.into_error().into(), unsent }
        })
    }

    /// Leads what comes from the port.
    pub(super) fn valve(&self) -> Valve {
        self.valve.clone()
    }

    /// Whether the request is out of the way of the reply's body.
    pub(super) fn has_sent_all(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Moves bytes; true when the connection is done. What went wrong was told to whoever waits for the reply or reads
    /// its body.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if let (false, Some(connection)) = (self.is_over, &mut self.connection) {
            self.is_over = connection.poll_without_shutdown(context).is_ready();
        }
        self.is_over
    }

    /// Whether another request can be sent. Nobody is woken when that changes.
    pub(super) fn is_idle(&mut self) -> bool {
        !self.poll(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }

    /// Carries what is under way to its end; no other request follows.
    pub(super) async fn finish(self) {
        let Self { sender, connection, is_over, .. } = self;
        drop(sender); // without one who sends, a connection ends when it is idle
        if let (false, Some(connection)) = (is_over, connection) {
            let _ = connection.await; // told to whoever reads the body
        }
    }

    /// The socket and what was read of it already, after a switch of protocols.
    pub(super) async fn into_parts(mut self) -> Parts<TokioIo<Socket>> {
        poll_fn(|context| if self.poll(context) { Poll::Ready(()) } else { Poll::Pending }).await;
        self.connection.expect("it has answered").into_parts()
    }
}

/// A request's body, which tells when the connection has no more use for it.
#[derive(Debug)]
pub(super) struct Upload {
    body: Body,
    /// Where it comes from.
    client: Option<Valve>,
    through: Option<Through>,
    sent: Arc<AtomicBool>,
}

impl Upload {
    pub(super) fn new(body: Body, client: Option<Valve>) -> Self {
        Self { body, client, through: None, sent: Arc::default() }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, through, .. } = self.get_mut();
        let read = |context: &mut Context<'_>| Pin::new(body).poll_frame(context);
        match through {
            Some(through) => through.poll_frame(context, read),
            None => read(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sent.store(true, Ordering::Relaxed);
    }
}
