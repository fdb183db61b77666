//! A reply's body on its way to the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::line::Line;
use super::pool::Pool;
use super::through::Through;

/// Drives the connection as it is read. A client that leaves drops it, and the connection with it; after the last byte
/// the connection is kept for the next request.
pub(super) struct Download {
    body: Incoming,
    /// None when another task drives the connection.
    line: Option<Line>,
    through: Option<Through>,
    is_ended: bool,
    failure: Option<hyper::Error>,
    /// Of a stream of events, which has no end of its own: the end of the daemon, which would wait for it in vain.
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    port: u16,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Download {
    pub(super) fn new(
        body: Incoming,
        line: Option<Line>,
        through: Option<Through>,
        port: u16,
        pool: Arc<Pool>,
        place: OwnedSemaphorePermit,
        stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ) -> Self {
        Self { is_ended: false, failure: None, stop, body, line, through, port, pool, _place: place }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if this.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
            this.line = None;
            this.stop = None;
            return Poll::Ready(None);
        }
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        let mut read = |context: &mut Context<'_>| {
            let mut frame = Pin::new(&mut this.body).poll_frame(context);
            if frame.is_pending()
                && let Some(line) = &mut this.line
            {
                line.poll(context); // reads a frame now that one was asked for
                frame = Pin::new(&mut this.body).poll_frame(context);
            }
            frame
        };
        let frame = match &mut this.through {
            Some(through) => through.poll_frame(context, read),
            None => read(context),
        };
        match frame {
            // A failure makes hyper drop what it has not sent yet: it waits for one round.
            Poll::Ready(Some(Err(failure))) => {
                this.failure = Some(failure);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(None) => this.is_ended = true,
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.through = None;
        if let Some(line) = self.line.take().filter(|_| self.is_ended || self.body.is_end_stream()) {
            self.pool.put(self.port, line);
        }
    }
}
