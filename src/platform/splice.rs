//! The bytes of one body from a socket to another without a copy in between: splice(2), through a pipe.
//!
//! Whoever speaks the protocol of the two sockets goes on doing so, and counts the bytes: for each that takes the pipe, a
//! placeholder takes the old way.
//!
//! ```text
//!   Socket ---------------- splice ----> Pipe ----- splice ----------------> Socket
//!      \                                                                      ^
//!       +--> placeholders --> reader of `from` --> Passage --> writer of `to` +
//! ```
//!
//! What is read in place of such bytes means nothing; [`Passage::claim`] exchanges it for a piece of the pipe's `hole`,
//! which the other socket knows by its address: it writes what the pipe has instead. So the ends of a body, early or
//! not, and the next message on either connection are where they would be without the pipe, which the protocol's own
//! errors and its flow control apply to as well.
//!
//! The pipe may only be opened while the reader has no bytes of the body that nobody has seen yet. It is brought there by
//! giving it nothing for a moment:
//!
//! ```text
//!           is_still           the reader asks            open                  all was read
//!   Plain -----------> Asked -----------------> Still -----------> Piped --------------------> Plain
//! ```
//!
//! A pipe is filled when it is empty and then emptied: a socket that would block has nothing to read then, or no room.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a pipe is asked to hold: what everyone may ask for (`/proc/sys/fs/pipe-max-size`). One that must be
/// smaller is no faster than copying.
const PIPE: usize = 1024 * 1024;
/// Most placeholders at a time.
const HOLE: usize = 256 * 1024;

/// A connection whose bytes can be led through a pipe.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    valve: Valve,
}

/// Leads the bytes of a [`Socket`], which belongs to someone else meanwhile.
#[derive(Clone, Default)]
pub struct Valve(Arc<Mutex<Sides>>);

#[derive(Default)]
struct Sides {
    source: Source,
    /// What may have to be written. A pipe lives as long as its placeholders.
    outlets: Vec<Weak<Pipe>>,
}

/// Where what is read comes from.
#[derive(Default)]
enum Source {
    #[default]
    Plain,
    /// Someone waits until the reader asks for bytes, which it does when it has none.
    Asked(Waker),
    /// The reader waits.
    Still(Waker),
    Piped(Arc<Pipe>),
}

struct Pipe {
    outlet: OwnedFd,
    inlet: OwnedFd,
    /// Only its address matters.
    hole: Box<[u8]>,
    flow: Mutex<Flow>,
}

/// Counts of bytes.
#[derive(Default)]
struct Flow {
    /// Not in the pipe yet.
    left: u64,
    held: usize,
    /// Taken from the source, without a placeholder so far.
    untold: usize,
    /// Placeholders that are not claimed.
    unclaimed: usize,
    /// Written before their placeholders.
    ahead: usize,
    /// The reader, which waits for the pipe to be empty.
    reader: Option<Waker>,
}

impl Socket {
    /// Of a connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, valve: Valve::default() }
    }

    /// For whoever leads bytes past the owner.
    #[must_use]
    pub fn valve(&self) -> Valve {
        self.valve.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pipe) = ready!(self.valve.poll_source(context))
            && ready!(pipe.poll_fill(&self.stream, context, buffer))?
        {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while let [first, rest @ ..] = bytes
            && first.is_empty()
        {
            bytes = rest;
        }
        match self.valve.outlet(bytes) {
            Some((0, pipe)) => pipe.poll_empty(&self.stream, context, bytes[0].len()),
            Some((place, _)) => Pin::new(&mut self.stream).poll_write_vectored(context, &bytes[..place]),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, bytes),
        }
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

impl Valve {
    /// The pipe to read by, or none. Waits while the reader is to have nothing.
    fn poll_source(&self, context: &Context<'_>) -> Poll<Option<Arc<Pipe>>> {
        let mut sides = self.sides();
        match &mut sides.source {
            Source::Plain => Poll::Ready(None),
            Source::Asked(_) => {
                let asked = std::mem::replace(&mut sides.source, Source::Still(context.waker().clone()));
                drop(sides);
                asked.wake();
                Poll::Pending
            }
            Source::Still(reader) => {
                reader.clone_from(context.waker());
                Poll::Pending
            }
            Source::Piped(pipe) if pipe.is_through() => {
                sides.source = Source::Plain;
                Poll::Ready(None)
            }
            Source::Piped(pipe) => Poll::Ready(Some(Arc::clone(pipe))),
        }
    }

    /// The first of `bytes` that stands for others, and their pipe.
    fn outlet(&self, bytes: &[IoSlice<'_>]) -> Option<(usize, Arc<Pipe>)> {
        let mut sides = self.sides();
        if sides.outlets.is_empty() {
            return None;
        }
        sides.outlets.retain(|pipe| pipe.strong_count() > 0);
        let pipes: Vec<_> = sides.outlets.iter().filter_map(Weak::upgrade).collect();
        bytes.iter().enumerate().find_map(|(place, bytes)| {
            let pipe = pipes.iter().find(|pipe| pipe.hole.as_ptr_range().contains(&bytes.as_ptr()))?;
            Some((place, Arc::clone(pipe)))
        })
    }

    fn set_source(&self, source: Source) {
        let before = std::mem::replace(&mut self.sides().source, source);
        before.wake();
    }

    fn sides(&self) -> MutexGuard<'_, Sides> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn wake(self) {
        if let Self::Asked(waker) | Self::Still(waker) = self {
            waker.wake();
        }
    }
}

impl Pipe {
    fn new(left: u64) -> io::Result<Self> {
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&inlet, PIPE)?;
        let flow = Mutex::new(Flow { left, ..Flow::default() });
        Ok(Self { outlet, inlet, hole: vec![0; HOLE].into(), flow })
    }

    /// All that takes the pipe has been read, as far as the reader knows.
    fn is_through(&self) -> bool {
        let flow = self.flow();
        flow.left == 0 && flow.untold == 0
    }

    /// No more than is in the pipe takes it.
    fn stop(&self) {
        let mut flow = self.flow();
        flow.left = 0;
        let reader = flow.reader.take();
        drop(flow);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Reads placeholders for what it takes from `stream`. False: the pipe is of no use, and `stream` is to be read.
    fn poll_fill(
        &self,
        stream: &TcpStream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut flow = self.flow();
        if flow.untold == 0 && flow.held > 0 {
            flow.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        while flow.untold == 0 {
            ready!(stream.poll_read_ready(context))?;
            let most = usize::try_from(flow.left).unwrap_or(PIPE).min(PIPE);
            match stream
                .try_io(Interest::READABLE, || Ok(splice(stream, None, &self.inlet, None, most, FLAGS)?))
            {
                Ok(0) => {
                    flow.left = 0; // the end, which the stream tells once more
                    return Poll::Ready(Ok(false));
                }
                Ok(count) => {
                    flow.left -= count as u64;
                    (flow.held, flow.untold) = (count, count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_refusal(&error) => {
                    flow.left = 0;
                    return Poll::Ready(Ok(false));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let count = flow.untold.min(buffer.remaining()).min(HOLE);
        buffer.initialize_unfilled_to(count);
        buffer.advance(count);
        flow.untold -= count;
        flow.unclaimed += count;
        Poll::Ready(Ok(true))
    }

    /// Writes what the pipe has to `stream`; how many of `placeholders` are done with.
    fn poll_empty(
        &self,
        stream: &TcpStream,
        context: &mut Context<'_>,
        placeholders: usize,
    ) -> Poll<io::Result<usize>> {
        let mut flow = self.flow();
        while flow.ahead == 0 {
            if flow.held == 0 {
                return Poll::Ready(Err(io::Error::other("a placeholder stands for nothing")));
            }
            ready!(stream.poll_write_ready(context))?;
            let most = flow.held;
            match stream
                .try_io(Interest::WRITABLE, || Ok(splice(&self.outlet, None, stream, None, most, FLAGS)?))
            {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    flow.held -= count;
                    flow.ahead = count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let count = flow.ahead.min(placeholders);
        flow.ahead -= count;
        let reader = if flow.held == 0 { flow.reader.take() } else { None };
        drop(flow);
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// The system does not do this, here or at all.
fn is_refusal(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP]
        .contains(&Errno::from_io_error(error).unwrap_or(Errno::IO))
}

/// One body's way from a socket to another.
pub struct Passage {
    from: Valve,
    to: Valve,
    stage: Stage,
}

enum Stage {
    Begun,
    Asked,
    Piped(Arc<Pipe>, Bytes),
    /// Bytes are copied.
    Given,
}

/// Placeholders that keep their pipe.
struct Placeholders(Arc<Pipe>);

impl AsRef<[u8]> for Placeholders {
    fn as_ref(&self) -> &[u8] {
        &self.0.hole
    }
}

impl Passage {
    /// Of a body of which the reader of `from` cannot have all bytes already, and that goes to the writer of `to` as it
    /// is.
    #[must_use]
    pub fn new(from: Valve, to: Valve) -> Self {
        Self { from, to, stage: Stage::Begun }
    }

    /// Whether the reader has nothing more but what it has passed on, and gets nothing until [`open`](Self::open).
    /// Wakes when that is so.
    pub fn is_still(&mut self, context: &Context<'_>) -> bool {
        if !matches!(self.stage, Stage::Begun | Stage::Asked) {
            return false;
        }
        let mut sides = self.from.sides();
        match (&self.stage, &mut sides.source) {
            (Stage::Begun, Source::Plain) => {
                sides.source = Source::Asked(context.waker().clone());
                self.stage = Stage::Asked;
                false
            }
            (Stage::Asked, Source::Asked(waker)) => {
                waker.clone_from(context.waker());
                false
            }
            (Stage::Asked, Source::Still(_)) => true,
            _ => {
                self.stage = Stage::Given;
                false
            }
        }
    }

    /// Leads the next `left` bytes of `from` by pipe, if the system lets it.
    pub fn open(&mut self, left: u64) {
        let Ok(pipe) = Pipe::new(left).map(Arc::new) else {
            self.from.set_source(Source::Plain);
            self.stage = Stage::Given;
            return;
        };
        self.to.sides().outlets.push(Arc::downgrade(&pipe));
        self.from.set_source(Source::Piped(Arc::clone(&pipe)));
        let hole = Bytes::from_owner(Placeholders(Arc::clone(&pipe)));
        self.stage = Stage::Piped(pipe, hole);
    }

    /// What `to` is to write for `bytes` that came from `from`, as many.
    #[must_use]
    pub fn claim(&self, bytes: Bytes) -> Bytes {
        let Stage::Piped(pipe, hole) = &self.stage else { return bytes };
        let mut flow = pipe.flow();
        match flow.unclaimed.checked_sub(bytes.len()) {
            Some(unclaimed) => {
                flow.unclaimed = unclaimed;
                hole.slice(..bytes.len())
            }
            None => bytes,
        }
    }
}

/// What the reader of `from` has no placeholders for yet, it still gets; the rest of the body comes as it is.
impl Drop for Passage {
    fn drop(&mut self) {
        match &self.stage {
            Stage::Asked => self.from.set_source(Source::Plain),
            Stage::Piped(pipe, _) => pipe.stop(),
            Stage::Begun | Stage::Given => {}
        }
    }
}

impl fmt::Debug for Valve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Valve(…)")
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passage(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        (Socket::new(accepted.unwrap().0), connected.unwrap())
    }

    fn body(length: usize) -> Vec<u8> {
        (0..length)
            .map(|number| u8::try_from(number.wrapping_mul(2_654_435_761) >> 24 & 0xff).unwrap())
            .collect()
    }

    /// Asks for stillness, as a reader without bytes; opens the passage for `left`.
    async fn open(passage: &mut Passage, from: &mut Socket, left: u64) {
        poll_fn(|context| {
            if passage.is_still(context) {
                return Poll::Ready(());
            }
            let mut byte = [0];
            assert!(Pin::new(&mut *from).poll_read(context, &mut ReadBuf::new(&mut byte)).is_pending());
            Poll::Pending
        })
        .await;
        passage.open(left);
    }

    #[tokio::test]
    async fn what_is_written_is_what_was_read_and_the_rest_comes_as_it_is() {
        for length in [1, 4096, PIPE - 1, PIPE, PIPE + 1, 3 * PIPE + 77] {
            let ((mut from, mut client), (mut to, mut server)) = (pair().await, pair().await);
            let mut passage = Passage::new(from.valve(), to.valve());
            let sent = body(length);
            let send = async {
                client.write_all(&sent).await.unwrap();
                client.write_all(b"next").await.unwrap();
            };
            let pass = async {
                open(&mut passage, &mut from, length as u64).await;
                let mut left = length;
                while left > 0 {
                    let mut chunk = vec![1; 100_000];
                    let count = from.read(&mut chunk).await.unwrap();
                    chunk.truncate(count);
                    left -= count;
                    to.write_all(&passage.claim(chunk.into())).await.unwrap();
                }
                let mut next = [0; 4];
                from.read_exact(&mut next).await.unwrap();
                to.write_all(&next).await.unwrap();
                drop(to);
            };
            let mut came = Vec::new();
            let (_, (), end) = tokio::join!(send, pass, server.read_to_end(&mut came));
            end.unwrap();
            assert!(came[..length] == sent && came[length..] == *b"next", "{length}");
        }
    }

    #[tokio::test]
    async fn a_passage_that_is_given_up_leaves_the_count_right() {
        let ((mut from, mut client), (to, _server)) = (pair().await, pair().await);
        let length = 3 * PIPE;
        for reads in 0..3 {
            let mut passage = Passage::new(from.valve(), to.valve());
            let send = async {
                client.write_all(&body(length)).await.unwrap();
                client.write_all(b"next").await.unwrap();
            };
            let give_up = async {
                open(&mut passage, &mut from, length as u64).await;
                let mut chunk = vec![0; length];
                let mut left = length;
                for _ in 0..reads {
                    if let Poll::Ready(count) =
                        futures_util::poll!(std::pin::pin!(from.read(&mut chunk[..1000])))
                    {
                        left -= count.unwrap();
                    } else {
                        from.stream.readable().await.unwrap();
                    }
                }
                drop(passage);
                from.read_exact(&mut chunk[..left]).await.unwrap();
                let mut next = [0; 4];
                from.read_exact(&mut next).await.unwrap();
                assert_eq!(next, *b"next");
            };
            tokio::join!(send, give_up);
        }
    }

    #[tokio::test]
    async fn the_end_is_read_amid_a_passage() {
        let ((mut from, mut client), (to, _server)) = (pair().await, pair().await);
        let mut passage = Passage::new(from.valve(), to.valve());
        open(&mut passage, &mut from, 100).await;
        client.write_all(b"some").await.unwrap();
        drop(client);
        let mut came = Vec::new();
        // Nobody empties the pipe, so that there is no end in sight.
        let early = futures_util::poll!(std::pin::pin!(from.read_to_end(&mut came)));
        drop(passage);
        assert!(early.is_pending());
        from.read_to_end(&mut came).await.unwrap();
        assert!(came.len() <= 4);
    }

    #[tokio::test]
    async fn one_that_was_asked_for_and_not_opened_changes_nothing() {
        let ((mut from, mut client), (to, _server)) = (pair().await, pair().await);
        let mut passage = Passage::new(from.valve(), to.valve());
        assert!(!passage.is_still(&Context::from_waker(Waker::noop())));
        client.write_all(b"some").await.unwrap();
        let mut byte = [0];
        assert!(futures_util::poll!(std::pin::pin!(from.read(&mut byte))).is_pending());
        assert_eq!(&passage.claim(Bytes::from_static(b"as it is"))[..], b"as it is");
        drop(passage);
        let mut came = [0; 4];
        from.read_exact(&mut came).await.unwrap();
        assert_eq!(came, *b"some");
    }
}
