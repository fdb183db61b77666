//! Upload and download: streaming in bounded memory, and atomic replacement.
//!
//! Everything on the file system is done in short blocking jobs, a piece at a time, so a slow client holds no thread
//! and one that has left stops the work. While one piece is written the next one comes in.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use rustix::buffer::spare_capacity;
use rustix::fs::{self, Advice, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::service::{Files, base_name};
use crate::error::{Error, ErrorKind, Result, os_text};
use crate::platform::blocking::Lane;
use crate::platform::paths;
use crate::platform::replacement::{Replacement, not_regular};

/// Bytes read from a file at a time.
const READ: usize = 512 * 1024;
/// Bytes of an upload that are written at a time.
const WRITE: usize = 512 * 1024;
/// A file of up to this size is read at once, and what was read is what is announced: files in /sys have another
/// size than they say.
const SMALL: u64 = 64 * 1024;
/// Most that is read of a file that says it is empty, as those in /proc do.
const UNSIZED: usize = 8 * 1024 * 1024;

/// A file that is open for reading, and what was known of it then.
#[derive(Debug)]
pub struct Readable {
    /// The last element of the path as it was requested.
    pub name: OsString,
    /// Bytes that there are to read.
    pub size: u64,
    /// When its content was last changed; none before 1970.
    pub modified: Option<SystemTime>,
    /// Changes with the content, as far as size, inode and time tell.
    pub version: String,
    content: Content,
    lane: Lane,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    File(Arc<File>),
}

impl Files {
    /// Opens a regular file for reading; never waits for the other end of a pipe.
    ///
    /// # Errors
    /// When it does not exist, may not be read, or is not a regular file.
    pub async fn open(&self, path: &str) -> Result<Readable> {
        if path.is_empty() {
            return Err(Error::new(ErrorKind::InvalidFilePath, "invalid file path: path is empty"));
        }
        let (full, path) = (self.resolve(path), PathBuf::from(path));
        let opened = self.lane.run(move || {
            let (content, stat) =
                open(&full).map_err(|error| Error::read("failed to open file", &path, error))?;
            Ok::<_, Error>((content, stat, base_name(&path)))
        });
        let (content, stat, name) = opened.await??;
        let size = match &content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::File(_) => size(&stat),
        };
        let modified = u64::try_from(stat.st_mtime)
            .ok()
            .map(|seconds| UNIX_EPOCH + Duration::new(seconds, stat.st_mtime_nsec as u32));
        let version = format!("{size:x}-{:x}.{:x}-{:x}", stat.st_mtime, stat.st_mtime_nsec, stat.st_ino);
        Ok(Readable { name, size, modified, version, content, lane: self.lane.clone() })
    }

    /// Begins to write a file, with the directories that are missing above it.
    ///
    /// # Errors
    /// When a directory cannot be made, or the file may not be written.
    pub async fn create(&self, path: &str) -> Result<Upload, WriteError> {
        let (full, path, owner) = (self.resolve(path), PathBuf::from(path), self.owner);
        let requested = path.clone();
        let begun = self.lane.run(move || {
            let failed = |step, cause| WriteError { step, path: path.clone(), cause };
            if let Some(parent) = full.parent()
                && let Err(cause) = paths::create_ancestors(parent, owner)
            {
                return Err(failed(format!("mkdir {}", parent.display()), cause));
            }
            Replacement::begin(&full, owner, None).map_err(|cause| failed("create".to_owned(), cause))
        });
        let replacement = begun.await??;
        Ok(Upload { replacement: Some(replacement), path: requested, lane: self.lane.clone() })
    }

    /// The absolute path, without dots, that a client's path means; for the client to see.
    ///
    /// # Errors
    /// Only when looking panicked.
    pub async fn absolute(&self, path: &str) -> Result<PathBuf> {
        let full = self.resolve(path);
        self.lane.run(move || paths::clean(&full)).await
    }
}

/// Opens a regular file for reading without ever waiting for anything.
pub(super) fn open_regular(path: &Path) -> io::Result<(OwnedFd, Stat)> {
    let refuse = |stat: &Stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(io::Error::new(io::ErrorKind::InvalidInput, "path points to a directory")),
        _ => Err(not_regular()),
    };
    // Looked at before it is opened, because opening a pipe or a device has effects, and again after.
    refuse(&fs::stat(path)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = fs::fstat(&file)?;
    refuse(&stat)?;
    Ok((file, stat))
}

fn open(path: &Path) -> io::Result<(Content, Stat)> {
    let (file, stat) = open_regular(path)?;
    if size(&stat) <= SMALL {
        if let Some(bytes) = read_whole(&file)? {
            return Ok((Content::Whole(bytes), stat));
        }
        let stat = fs::fstat(&file)?;
        if size(&stat) == 0 {
            return Err(Errno::FBIG.into());
        }
        return Ok((Content::File(Arc::new(file.into())), stat)); // it has grown
    }
    let _ = fs::fadvise(&file, 0, None, Advice::Sequential);
    Ok((Content::File(Arc::new(file.into())), stat))
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// None when there is too much of it.
fn read_whole(file: impl AsFd) -> io::Result<Option<Bytes>> {
    let mut bytes = Vec::new();
    while bytes.len() <= UNSIZED {
        bytes.reserve(bytes.len().max(4096));
        match rustix::io::read(&file, spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(Some(bytes.into())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !bytes.is_empty() => return Ok(Some(bytes.into())), // all there is for now
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

impl Readable {
    /// The bytes of `range`, exactly: when the file has become shorter, the stream fails.
    pub fn read(&self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        match &self.content {
            Content::Whole(bytes) => {
                let index = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                stream::iter([Ok(bytes.slice(index(range.start)..index(range.end)))]).left_stream()
            }
            Content::File(file) => pieces(Arc::clone(file), range, self.lane.clone()).right_stream(),
        }
    }
}

fn pieces(
    file: Arc<File>,
    range: Range<u64>,
    lane: Lane,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let buffers = Buffers::default();
    stream::try_unfold(range, move |range| {
        let (file, lane, buffers) = (Arc::clone(&file), lane.clone(), buffers.clone());
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let start = range.start;
            let length = usize::try_from(range.end - start).unwrap_or(READ).min(READ);
            let mut piece = buffers.take(length);
            let read = lane.run(move || {
                rustix::io::retry_on_intr(|| rustix::io::pread(&file, spare_capacity(&mut piece), start))?;
                Ok::<_, Errno>(piece)
            });
            let mut piece = read.await.map_err(io::Error::other)??;
            if piece.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"));
            }
            piece.truncate(length); // an allocation may have more room than was asked for
            let next = start + piece.len() as u64..range.end;
            Ok(Some((buffers.lend(piece), next)))
        }
    })
}

/// Memory that is used again when what was read into it has been sent: allocated by one thread and freed by another
/// for each piece, it would pile up in the allocator.
#[derive(Debug, Clone, Default)]
struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// An empty buffer with room for `length` bytes.
    fn take(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.free().pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(length);
        buffer
    }

    /// The bytes of a buffer that comes back when the last reference to them is gone.
    fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, buffers: self.clone() })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent {
    bytes: Vec<u8>,
    buffers: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.free().push(std::mem::take(&mut self.bytes));
    }
}

/// Why a file was not written, and at which step.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {}", os_text(.cause))]
pub struct WriteError {
    /// `mkdir <directory>`, `create`, `write` or `close`.
    step: String,
    path: PathBuf,
    cause: io::Error,
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        Self::io(&error.step, &error.path, error.cause)
    }
}

/// A job that panicked.
impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self { step: "write".to_owned(), path: PathBuf::new(), cause: io::Error::other(error) }
    }
}

/// Why an upload was not taken.
#[derive(Debug)]
pub enum UploadError {
    /// Its content did not come to its end.
    Content(Error),
    /// It could not be written.
    Write(WriteError),
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Content(error) => error,
            UploadError::Write(error) => error.into(),
        }
    }
}

/// A file that is being written. Dropped before [`Upload::commit`], it leaves what was there before.
#[derive(Debug)]
pub struct Upload {
    /// None only while a job has it.
    replacement: Option<Replacement>,
    /// As it was requested.
    path: PathBuf,
    lane: Lane,
}

impl Upload {
    /// Appends all that comes.
    ///
    /// # Errors
    /// When the content fails or cannot be written. The upload is aborted then.
    pub async fn fill<S>(&mut self, content: &mut S) -> Result<(), UploadError>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        let result = self.append(content).await;
        if result.is_err() {
            self.abort().await;
        }
        result
    }

    /// Waits until nothing is left of it; dropping it does not wait.
    pub async fn abort(&mut self) {
        if let Some(replacement) = self.replacement.take() {
            let _ = self.lane.run(move || drop(replacement)).await;
        }
    }

    async fn append<S>(&mut self, content: &mut S) -> Result<(), UploadError>
    where
        S: Stream<Item = Result<Bytes>> + Unpin,
    {
        let (mut full, mut next) = (Vec::new(), Vec::new());
        gather(content, &mut full).await.map_err(UploadError::Content)?;
        while !full.is_empty() {
            let (written, gathered) = tokio::join!(self.write(full), gather(content, &mut next));
            full = next;
            next = written.map_err(UploadError::Write)?;
            gathered.map_err(UploadError::Content)?;
        }
        Ok(())
    }

    /// Gives the buffer back, empty.
    async fn write(&mut self, mut buffer: Vec<u8>) -> Result<Vec<u8>, WriteError> {
        let mut replacement = self.replacement.take().ok_or_else(lost)?;
        let job = self.lane.run(move || {
            let result = replacement.write_all(&buffer);
            buffer.clear();
            (replacement, result.map(|()| buffer))
        });
        let (replacement, result) = job.await?;
        self.replacement = Some(replacement);
        result.map_err(|cause| WriteError { step: "write".to_owned(), path: self.path.clone(), cause })
    }

    /// Puts the new content in place, on disk; returns how many bytes it has.
    ///
    /// # Errors
    /// What the operating system says; the old content is still there then.
    pub async fn commit(mut self) -> Result<u64, WriteError> {
        let replacement = self.replacement.take().ok_or_else(lost)?;
        let job = self.lane.run(move || {
            let bytes = replacement.written();
            replacement.commit().map(|()| bytes)
        });
        let result = job.await?;
        result.map_err(|cause| WriteError { step: "close".to_owned(), path: self.path.clone(), cause })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(replacement) = self.replacement.take() {
            // Removing a large file takes its time.
            self.lane.discard(replacement);
        }
    }
}

fn lost() -> WriteError {
    Error::internal("an earlier write has failed").into()
}

/// Fills an empty buffer with what comes next; it stays empty at the end. The pieces are copied, so that the memory
/// they are in is free for the next ones at once: held back, each would keep a whole network buffer.
async fn gather<S>(content: &mut S, buffer: &mut Vec<u8>) -> Result<()>
where
    S: Stream<Item = Result<Bytes>> + Unpin,
{
    while buffer.len() < WRITE
        && let Some(piece) = content.next().await
    {
        let piece = piece?;
        if buffer.capacity() - buffer.len() < piece.len() {
            // All of a small content, or all that is gathered of a large one.
            let room = if buffer.is_empty() { 0 } else { WRITE - buffer.len() };
            buffer.reserve_exact(room + piece.len());
        }
        buffer.extend_from_slice(&piece);
    }
    Ok(())
}
