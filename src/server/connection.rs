//! One connection: its time-outs and what is known of its peer.
//!
//! ```text
//!            first byte               request            reply sent
//!   Waiting ------------> Reading head -------> Serving ----------> Waiting
//!   70 s                  10 s                  no limit
//! ```
//!
//! A connection begins in Reading head: who connects has something to say.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::auth::{Access, Peer};
use super::exchange::Exchange;
use super::held::Held;
use super::router::Api;
use crate::http::socket::Hold;
use crate::platform::shutdown::Shutdown;
use crate::platform::splice::Socket;

/// Time for the whole head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Time between requests: longer than the 30 s of common peers, so that they close first.
const IDLE: Duration = Duration::from_secs(70);
/// Largest head of a request.
const HEAD_BYTES: usize = 128 * 1024;
/// Most header fields of a request.
const HEADERS: usize = 256;

/// Serves requests until the peer leaves, a time-out passes, or the daemon stops.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    api: Api,
    access: Arc<Access>,
    shutdown: Shutdown,
) {
    let Ok(own) = stream.local_addr() else { return };
    let peer = Peer::of(address, own, &access).await;
    let clock = Arc::new(Clock::new());
    let hold = Hold::default();
    let socket = Socket::new(stream);
    let valve = socket.valve();
    let io = TokioIo::new(Timed { stream: Held::new(socket, hold.clone()), clock: Arc::clone(&clock) });
    let service = service_fn(|mut request: Request<Incoming>| {
        let exchange = Exchange::begin(&clock, &shutdown, request.headers());
        request.extensions_mut().insert(hold.clone());
        request.extensions_mut().insert(valve.clone());
        let reply = api.answer(request.map(|body| exchange.lend(Body::new(body))), peer);
        async move { Ok::<_, std::convert::Infallible>(exchange.reply(reply.await)) }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES) // also the most that is buffered of a body
        .max_headers(HEADERS)
        .half_close(false)
        .preserve_header_case(true) // of what is passed on to a port, and of what comes back
        .header_read_timeout(None)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stop = pin!(shutdown.cancelled());
    let mut stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection with {address} ended");
                }
                return;
            }
            () = &mut stop, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = clock.expired() => return,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    ReadingHead,
    Serving,
    Waiting,
}

/// Knows the phase, and when it has lasted too long.
pub(super) struct Clock {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    deadline: Option<Instant>,
    /// Exchanges that are not over. What is left of one body may be read when the next request begins.
    exchanges: usize,
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.deadline = match phase {
            Phase::ReadingHead => Some(Instant::now() + HEAD),
            Phase::Serving => None,
            Phase::Waiting => Some(Instant::now() + IDLE),
        };
    }
}

impl Clock {
    pub(super) fn new() -> Self {
        let mut state = State { phase: Phase::ReadingHead, deadline: None, exchanges: 0 };
        state.enter(Phase::ReadingHead);
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// An exchange has begun.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.exchanges += 1;
        state.enter(Phase::Serving);
        self.changed.notify_one();
    }

    /// An exchange is over.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.exchanges -= 1;
        if state.exchanges == 0 {
            state.enter(Phase::Waiting);
            self.changed.notify_one();
        }
    }

    /// Bytes came in: the head of a request has begun, when none is being served.
    fn received(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Waiting {
            state.enter(Phase::ReadingHead);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when a phase has lasted too long.
    async fn expired(&self) {
        loop {
            let deadline = self.lock().deadline;
            let passed = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                () = self.changed.notified() => {}
            }
        }
    }
}

/// The socket, which tells the clock when bytes come in.
struct Timed {
    stream: Held<Socket>,
    clock: Arc<Clock>,
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.clock.received();
        }
        result
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
