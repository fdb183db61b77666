//! One request and its reply: the clock waits for the next request when both are over.
//!
//! Many clients send a head, then its body, and look for the reply only then. When the reply leaves before the body has
//! come, as from a route that there is not, and nobody reads that body, hyper closes the connection, and the client's
//! next request is lost. So what a handler leaves of a body is read over here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::connection::Clock;
use crate::platform::shutdown::Shutdown;

/// Longest wait for more of a body that nobody reads.
const STALL: Duration = Duration::from_secs(10);

/// What goes on while parts of it are there.
pub(super) struct Exchange {
    clock: Arc<Clock>,
    shutdown: Shutdown,
    /// The client sends the body when it is asked to ("100 Continue").
    is_asked_for: bool,
    /// It was never asked to: nobody knows whether a body comes now.
    is_last: AtomicBool,
}

impl Exchange {
    /// Begins with a request's head.
    pub(super) fn begin(clock: &Arc<Clock>, shutdown: &Shutdown, head: &HeaderMap) -> Arc<Self> {
        clock.begin();
        Arc::new(Self {
            clock: Arc::clone(clock),
            shutdown: shutdown.clone(),
            is_asked_for: head.contains_key(header::EXPECT),
            is_last: AtomicBool::new(false),
        })
    }

    /// The body as its handler has it.
    pub(super) fn lend(self: &Arc<Self>, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Lent { body: Some((body, Arc::clone(self))), was_read: false })
    }

    /// The reply as it is sent.
    pub(super) fn reply(self: Arc<Self>, mut reply: Response<Body>) -> Response<Reply> {
        if self.is_last.load(Ordering::Acquire) {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply.map(|body| Reply { body, _exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.clock.end();
    }
}

/// A reply's body.
pub(super) struct Reply {
    body: Body,
    _exchange: Arc<Exchange>,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body, which is read to its end whoever drops it.
struct Lent {
    /// None when it has ended.
    body: Option<(Body, Arc<Exchange>)>,
    was_read: bool,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.was_read = true;
        let Some((body, _)) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some((mut body, exchange)) = self.body.take().filter(|(body, _)| !body.is_end_stream()) else {
            return;
        };
        if exchange.is_asked_for && !self.was_read {
            exchange.is_last.store(true, Ordering::Release);
            return;
        }
        // Beside the reply: a client that looks for it meanwhile need not send what nobody wants.
        exchange.shutdown.clone().spawn(async move {
            while let Ok(Some(Ok(_))) = timeout(STALL, body.frame()).await {}
            drop(exchange);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use tokio::time::Instant;

    use super::*;

    fn lent(body: Body) -> (Body, Arc<Exchange>) {
        let exchange = Exchange::begin(&Arc::new(Clock::new()), &Shutdown::new(), &HeaderMap::new());
        (exchange.lend(body), exchange)
    }

    /// Resolves when everyone else has let go of the exchange.
    async fn over(exchange: &Arc<Exchange>) {
        while Arc::strong_count(exchange) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_left_is_read_to_its_end() {
        let (sent, mut read) = tokio::sync::mpsc::unbounded_channel();
        let pieces = stream::iter(0..5).map(move |number| {
            sent.send(number).unwrap();
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        });
        let (mut lent, exchange) = lent(Body::from_stream(pieces));
        lent.frame().await.unwrap().unwrap();
        drop(lent);
        over(&exchange).await;
        let mut numbers = Vec::new();
        while let Some(number) = read.recv().await {
            numbers.push(number);
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_not_awaited_for_long() {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
        let (lent, exchange) = lent(Body::from_stream(first.chain(stream::pending())));
        let began = Instant::now();
        drop(lent);
        tokio::time::sleep(STALL).await;
        over(&exchange).await;
        assert!(began.elapsed() < 2 * STALL);
    }
}
