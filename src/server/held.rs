//! A stream that can keep the beginning of what is written back, so that it leaves with what comes next, in one write.
//!
//! hyper sends the reply to an upgrade and then hands the connection over. Some clients give a socket's first message a
//! few milliseconds after that reply, so the two have to arrive together, however busy the machine is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::socket::Hold;

/// Writes go to `stream` at once, or, while the hold is on, with the first write after it.
pub(super) struct Held<S> {
    stream: S,
    hold: Hold,
    held: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Held<S> {
    pub(super) fn new(stream: S, hold: Hold) -> Self {
        Self { stream, hold, held: BytesMut::new() }
    }

    /// Writes what was held, and as much of `bytes` as goes with it; how much of `bytes` that was.
    fn poll_release(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let both = [IoSlice::new(&self.held), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held.advance(of_held);
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        Poll::Ready(Ok(0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hold.is_on() {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        match ready!(self.poll_release(context, bytes))? {
            0 => Pin::new(&mut self.stream).poll_write(context, bytes),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.hold.is_on() || !self.held.is_empty() {
            let first = bytes.iter().find(|bytes| !bytes.is_empty()).map_or(&[][..], |bytes| bytes);
            return self.poll_write(context, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hold.is_on() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_release(context, &[]))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(context, &[]))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_held_leaves_with_what_comes_next() {
        let (stream, mut peer) = duplex(64);
        let hold = Hold::default();
        let mut held = Held::new(stream, hold.clone());
        hold.on();
        held.write_all(b"reply, ").await.unwrap();
        held.flush().await.unwrap();
        let mut buffer = [0; 64];
        let early = futures_util::poll!(std::pin::pin!(peer.read(&mut buffer)));
        assert!(early.is_pending());
        hold.off();
        held.write_all(b"first").await.unwrap();
        held.write_all(b", second").await.unwrap();
        held.flush().await.unwrap();
        let count = peer.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"reply, first, second");
    }

    #[tokio::test]
    async fn a_narrow_stream_gets_everything_in_order() {
        let (stream, mut peer) = duplex(3);
        let hold = Hold::default();
        let mut held = Held::new(stream, hold.clone());
        hold.on();
        held.write_all(b"reply, ").await.unwrap();
        hold.off();
        let write = async {
            held.write_all(b"first").await.unwrap();
            held.shutdown().await.unwrap();
        };
        let mut text = String::new();
        let (_, count) = tokio::join!(write, peer.read_to_string(&mut text));
        assert_eq!((count.unwrap(), &*text), (12, "reply, first"));
    }
}
