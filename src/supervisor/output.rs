//! `OutputLog`: what a process printed, addressed by byte offset since its start.
//!
//! Writers append bytes exactly as they came; readers ask from an offset and get bytes, "gone, the oldest after that
//! is X", or "ended". Replay, follow, late attach, many viewers and resume are the same call, nothing polls, and a
//! slow reader slows only itself.
//!
//! Bytes are kept in segments of 64 KiB. The newest ones are in memory; older ones go to slots of an unlinked
//! temporary file, whose first quarter keeps the head for ever and whose rest is a ring that keeps the tail:
//!
//! ```text
//!   0                                                             end
//!   | head slots | ... dropped ... | tail slots (ring) | memory | open |
//! ```
//!
//! A segment is a sequence of runs, each a header (stream, length) and its bytes, so that two streams can share a log
//! in the order in which they were read, without any mark in the bytes themselves.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::warn;

use crate::platform::blocking::Lane;

/// Size of a segment with its run headers, in bytes.
pub(super) const SEGMENT: usize = 64 * 1024;
/// Full segments that stay in memory, unless a log has its own limit.
pub(super) const IN_MEMORY: usize = 4;
/// Stream and length in front of each run.
const HEADER: usize = 5;

/// Which of its streams a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Standard output, or both when they share a pipe.
    Out = 1,
    /// Standard error.
    Err = 2,
}

/// Consecutive bytes of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where they were written to.
    pub stream: Stream,
    /// Never empty.
    pub bytes: Bytes,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// The bytes at the offset and after it, at least one.
    Data(Vec<Piece>),
    /// The bytes at the offset were dropped; the next ones that are there begin at `oldest`.
    Gone {
        /// Where to go on.
        oldest: u64,
    },
    /// Nothing will ever be at the offset.
    Ended,
}

/// What a log may use.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Full segments in memory at most, beside the one that is being filled.
    pub(super) in_memory: usize,
    /// Size of the temporary file at most, in bytes; 0 keeps everything in memory and drops the oldest.
    pub(super) spill_bytes: u64,
    /// Where the file is made.
    pub(super) directory: PathBuf,
    /// Reads and writes the file.
    pub(super) lane: Lane,
}

/// The log of one process; a cheap handle.
#[derive(Debug, Clone)]
pub struct OutputLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    /// Told when bytes were appended and when the log was closed.
    changed: Notify,
    /// Held while appending, so that bytes stay in order while older ones are being written to the file.
    writing: tokio::sync::Mutex<Option<Arc<File>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Full segments by their offsets, with holes where some were dropped.
    full: VecDeque<Segment>,
    open: Vec<u8>,
    /// Where in `open` the header of its last run is.
    last_run: Option<usize>,
    open_start: u64,
    end: u64,
    closed: bool,
    dropped: u64,
    /// Segments that were written to the file so far, those overwritten since included.
    spilled: u64,
    /// The file could not be made or written: from then on the oldest segments are dropped.
    no_file: bool,
}

#[derive(Debug, Clone)]
struct Segment {
    start: u64,
    /// Bytes without headers.
    length: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Bytes),
    File { file: Arc<File>, position: u64, size: usize },
}

impl OutputLog {
    pub(super) fn new(limits: Limits) -> Self {
        let inner = Inner {
            limits,
            state: Mutex::default(),
            changed: Notify::new(),
            writing: tokio::sync::Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Appends bytes of one stream. Waits while older bytes are being written to the file.
    pub async fn append(&self, stream: Stream, bytes: &[u8]) {
        let mut file = self.inner.writing.lock().await;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, evicted) = {
                let mut state = self.state();
                let taken = state.take(stream, rest);
                (taken, state.oldest_in_memory(self.inner.limits.in_memory))
            };
            rest = &rest[taken..];
            self.inner.changed.notify_waiters();
            if let Some((start, bytes)) = evicted {
                self.spill(start, bytes, &mut file).await;
            }
        }
    }

    /// No more bytes will come.
    pub fn close(&self) {
        self.state().closed = true;
        self.inner.changed.notify_waiters();
    }

    /// How many bytes were appended so far, dropped ones included.
    pub fn end(&self) -> u64 {
        self.state().end
    }

    /// How many bytes were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// The first offset from `offset` on whose byte is kept; the end when there is none.
    pub fn first_kept(&self, offset: u64) -> u64 {
        match self.look(offset, 1) {
            Look::At(Chunk::Gone { oldest }) => oldest,
            _ => offset.min(self.end()),
        }
    }

    /// Bytes from `offset` on, `most` or a little less; waits until there are some.
    pub async fn read(&self, offset: u64, most: usize) -> Chunk {
        loop {
            let mut changed = std::pin::pin!(self.inner.changed.notified());
            changed.as_mut().enable(); // before looking, so that no change is missed in between
            match self.look(offset, most) {
                Look::At(chunk) => return chunk,
                Look::InFile(segment) => {
                    if let Some(chunk) = self.read_file(segment, offset, most).await {
                        return chunk;
                    }
                }
                Look::NotYet => changed.await,
            }
        }
    }

    fn look(&self, offset: u64, most: usize) -> Look {
        let state = self.state();
        if offset >= state.end {
            return if state.closed { Look::At(Chunk::Ended) } else { Look::NotYet };
        }
        if offset >= state.open_start {
            let skip = offset - state.open_start;
            return Look::At(Chunk::Data(runs(&state.open, skip, most, Bytes::copy_from_slice)));
        }
        let after = state.full.partition_point(|segment| segment.start <= offset);
        let segment = after.checked_sub(1).and_then(|index| state.full.get(index));
        match segment.filter(|segment| offset < segment.start + segment.length) {
            None => {
                let oldest = state.full.get(after).map_or(state.open_start, |segment| segment.start);
                Look::At(Chunk::Gone { oldest })
            }
            Some(Segment { place: Place::Memory(bytes), start, .. }) => {
                Look::At(Chunk::Data(runs(bytes, offset - start, most, |run| bytes.slice_ref(run))))
            }
            Some(segment) => Look::InFile(segment.clone()),
        }
    }

    /// None when the slot was given to another segment meanwhile.
    async fn read_file(&self, segment: Segment, offset: u64, most: usize) -> Option<Chunk> {
        let Place::File { file, position, size } = segment.place else { return None };
        let read = self.inner.limits.lane.run(move || {
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, position).map(|()| Bytes::from(bytes))
        });
        let bytes = match read.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                warn!(%error, "kept output cannot be read back");
                self.state().forget(segment.start);
                return None;
            }
            Err(_panicked) => return None,
        };
        let still_there = self.state().full.iter().any(|kept| kept.start == segment.start);
        still_there
            .then(|| Chunk::Data(runs(&bytes, offset - segment.start, most, |run| bytes.slice_ref(run))))
    }

    /// Moves the segment at `start` from memory to the file, or drops it.
    async fn spill(&self, start: u64, bytes: Bytes, file: &mut Option<Arc<File>>) {
        let slots = self.inner.limits.spill_bytes / SEGMENT as u64;
        let slot = {
            let mut state = self.state();
            if slots < 2 || state.no_file {
                state.forget(start);
                return;
            }
            let head = (slots / 4).max(1);
            let slot = if state.spilled < slots {
                state.spilled
            } else {
                head + (state.spilled - head) % (slots - head)
            };
            if state.spilled >= slots {
                // The slot's old segment is the oldest after the head; readers learn that before it is overwritten.
                let oldest = state.full.get(head as usize).map(|segment| segment.start);
                oldest.into_iter().for_each(|oldest| state.forget(oldest));
            }
            state.spilled += 1;
            slot
        };
        let (existing, directory) = (file.clone(), self.inner.limits.directory.clone());
        let (position, size) = (slot * SEGMENT as u64, bytes.len());
        let written = self.inner.limits.lane.run(move || {
            let file = match existing {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(directory)?),
            };
            file.write_all_at(&bytes, position).map(|()| file)
        });
        match written.await {
            Ok(Ok(written)) => {
                self.state().moved(start, Place::File { file: Arc::clone(&written), position, size });
                *file = Some(written);
            }
            Ok(Err(error)) => {
                warn!(%error, "output cannot be kept in a temporary file: the oldest is dropped");
                let mut state = self.state();
                state.no_file = true;
                state.forget(start);
            }
            Err(_panicked) => self.state().forget(start),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Look {
    At(Chunk),
    InFile(Segment),
    NotYet,
}

impl State {
    /// Appends as much as fits into the open segment, at least one byte; returns how much.
    fn take(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        let extends = self.last_run.filter(|header| self.open[*header] == stream as u8);
        let header = extends.unwrap_or(self.open.len());
        if extends.is_none() {
            self.open.push(stream as u8);
            self.open.extend(0_u32.to_le_bytes());
            self.last_run = Some(header);
        }
        let taken = bytes.len().min(SEGMENT - self.open.len());
        self.open.extend_from_slice(&bytes[..taken]);
        let length =
            u32::try_from(self.open.len() - header - HEADER).expect("a run is shorter than a segment");
        self.open[header + 1..header + HEADER].copy_from_slice(&length.to_le_bytes());
        self.end += taken as u64;
        // A run needs its header and a byte.
        if self.open.len() + HEADER >= SEGMENT {
            let bytes = Bytes::from(std::mem::take(&mut self.open));
            let length = self.end - self.open_start;
            self.full.push_back(Segment { start: self.open_start, length, place: Place::Memory(bytes) });
            (self.open_start, self.last_run) = (self.end, None);
        }
        taken
    }

    /// The oldest segment in memory, when there are more of them than `most`.
    fn oldest_in_memory(&self, most: usize) -> Option<(u64, Bytes)> {
        let mut in_memory = self.full.iter().rev().map_while(|segment| match &segment.place {
            Place::Memory(bytes) => Some((segment.start, bytes)),
            Place::File { .. } => None,
        });
        let (start, bytes) = in_memory.nth(most)?;
        Some((start, bytes.clone()))
    }

    fn index(&self, start: u64) -> Option<usize> {
        self.full.binary_search_by_key(&start, |segment| segment.start).ok()
    }

    fn moved(&mut self, start: u64, place: Place) {
        if let Some(index) = self.index(start) {
            self.full[index].place = place;
        }
    }

    fn forget(&mut self, start: u64) {
        if let Some(segment) = self.index(start).and_then(|index| self.full.remove(index)) {
            self.dropped += segment.length;
        }
    }
}

/// The runs of a segment from `skip` bytes after its start, `most` bytes of them but at least one.
fn runs(segment: &[u8], skip: u64, most: usize, piece: impl Fn(&[u8]) -> Bytes) -> Vec<Piece> {
    let (mut skip, mut most) = (skip as usize, most.max(1));
    let (mut pieces, mut rest) = (Vec::new(), segment);
    while let (Some((header, after)), true) = (rest.split_first_chunk::<HEADER>(), most > 0) {
        let [stream, length @ ..] = header;
        let (run, next) = after.split_at(u32::from_le_bytes(*length) as usize);
        rest = next;
        if skip >= run.len() {
            skip -= run.len();
            continue;
        }
        let run = &run[skip..];
        let run = &run[..run.len().min(most)];
        (skip, most) = (0, most - run.len());
        let stream = if *stream == Stream::Err as u8 { Stream::Err } else { Stream::Out };
        pieces.push(Piece { stream, bytes: piece(run) });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(spill_bytes: u64) -> OutputLog {
        OutputLog::new(Limits {
            in_memory: IN_MEMORY,
            spill_bytes,
            directory: std::env::temp_dir(),
            lane: Lane::new(2),
        })
    }

    /// Everything a reader gets from `offset` on, with the offsets that were gone.
    async fn read_all(log: &OutputLog, mut offset: u64, most: usize) -> (Vec<(u64, Piece)>, Vec<(u64, u64)>) {
        let (mut pieces, mut gaps) = (Vec::new(), Vec::new());
        loop {
            match log.read(offset, most).await {
                Chunk::Data(data) => {
                    assert!(!data.is_empty());
                    for piece in data {
                        let at = offset;
                        offset += piece.bytes.len() as u64;
                        pieces.push((at, piece));
                    }
                }
                Chunk::Gone { oldest } => {
                    assert!(oldest > offset);
                    gaps.push((offset, oldest));
                    offset = oldest;
                }
                Chunk::Ended => return (pieces, gaps),
            }
        }
    }

    fn write() -> impl Strategy<Value = (bool, usize)> {
        (any::<bool>(), prop_oneof![1_usize..20, 1_usize..5_000, 60_000_usize..200_000])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Against a plain vector of bytes and streams: every byte that is not said to be gone is right.
        #[test]
        fn readers_get_what_was_written_minus_what_is_said_to_be_gone(
            writes in prop::collection::vec(write(), 1..40),
            spill_slots in 0_u64..24,
            from in 0.0_f64..1.0,
            most in prop_oneof![1_000_usize..2_000, 60_000_usize..70_000],
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let log = log(spill_slots * SEGMENT as u64);
                let mut model: Vec<(u8, u8)> = Vec::new();
                for (index, (is_err, size)) in writes.into_iter().enumerate() {
                    let stream = if is_err { Stream::Err } else { Stream::Out };
                    let bytes: Vec<u8> = (0..size).map(|at| (at * 31 + index * 7) as u8).collect();
                    model.extend(bytes.iter().map(|byte| (stream as u8, *byte)));
                    log.append(stream, &bytes).await;
                }
                log.close();
                prop_assert_eq!(log.end(), model.len() as u64);
                let start = (model.len() as f64 * from) as u64;
                let (pieces, gaps) = read_all(&log, start, most).await;
                let mut next = start;
                let mut gaps = gaps.into_iter().peekable();
                for (at, piece) in pieces {
                    while let Some((_, to)) = gaps.next_if(|(from, _)| *from == next) {
                        next = to;
                    }
                    prop_assert_eq!(at, next);
                    for (index, byte) in piece.bytes.iter().enumerate() {
                        prop_assert_eq!((piece.stream as u8, *byte), model[at as usize + index]);
                    }
                    next = at + piece.bytes.len() as u64;
                }
                prop_assert_eq!(next, model.len() as u64);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn head_and_tail_are_kept_and_the_middle_is_counted() {
        let log = log(16 * SEGMENT as u64);
        let bytes = vec![b'x'; 10 << 20];
        log.append(Stream::Out, &bytes).await;
        log.close();
        let (pieces, gaps) = read_all(&log, 0, SEGMENT).await;
        let read: u64 = pieces.iter().map(|(_, piece)| piece.bytes.len() as u64).sum();
        assert_eq!(gaps.len(), 1);
        assert!(gaps[0].0 >= 3 * SEGMENT as u64, "the head is there");
        assert_eq!(read + log.dropped(), bytes.len() as u64);
        assert_eq!(gaps[0].1 - gaps[0].0, log.dropped());
    }

    #[tokio::test]
    async fn without_a_file_the_newest_are_kept() {
        let log = log(0);
        assert_eq!((log.first_kept(0), log.first_kept(9)), (0, 0));
        log.append(Stream::Out, &vec![b'x'; 10 * SEGMENT]).await;
        let oldest = log.first_kept(0);
        assert_eq!(oldest, log.dropped());
        assert!(log.end() - oldest >= (IN_MEMORY * SEGMENT) as u64 - 100, "{oldest}");
        assert_eq!((log.first_kept(oldest + 1), log.first_kept(u64::MAX)), (oldest + 1, log.end()));
    }

    #[tokio::test]
    async fn a_reader_that_waits_gets_the_bytes_and_then_the_end() {
        let log = log(0);
        let reader = {
            let log = log.clone();
            async move { read_all(&log, 0, 100).await.0 }
        };
        let writer = async {
            for word in ["one", "two"] {
                tokio::task::yield_now().await;
                log.append(Stream::Out, word.as_bytes()).await;
            }
            tokio::task::yield_now().await;
            log.close();
        };
        let (pieces, ()) = tokio::join!(reader, writer);
        let text: Vec<u8> = pieces.iter().flat_map(|(_, piece)| piece.bytes.to_vec()).collect();
        assert_eq!(text, b"onetwo");
    }
}
