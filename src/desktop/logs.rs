//! What the desktop's processes print: files of a bounded size, and their last lines (contract `computer-use.md` 2.1,
//! 2.5).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::Result;
use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;

/// Size at which a file becomes the predecessor of a new one, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Bytes read of a pipe at a time.
const READ: usize = 64 * 1024;
/// Most of a line that is kept to say why a process failed, in bytes.
const LINE: usize = 400;

/// Which of its streams a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// `<name>.log`
    Output,
    /// `<name>.err`
    Errors,
}

/// The directory of all logs.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    directory: Arc<Path>,
    lane: Lane,
    shutdown: Shutdown,
}

/// What a running process prints, as it comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Printing {
    inner: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Told at every bit of output.
    more: Notify,
    /// Last line of the errors, else of the output.
    last: Mutex<[String; 2]>,
    /// Cancelled when the stream of errors has ended.
    ended: CancellationToken,
}

impl Printing {
    /// Resolves at the next output; at once when there was some since the last time.
    pub(super) async fn more(&self) {
        self.inner.more.notified().await;
    }

    /// Resolves when all of its errors have been read.
    pub(super) async fn ended(&self) {
        self.inner.ended.cancelled().await;
    }

    /// The last line that it printed, best of its errors; empty when it printed none.
    pub(super) fn last_line(&self) -> String {
        let last = self.inner.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().find(|line| !line.is_empty()).cloned().unwrap_or_default()
    }

    fn note(&self, stream: Stream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            let line = line.chars().take(LINE).collect();
            let index = usize::from(stream == Stream::Output);
            self.inner.last.lock().unwrap_or_else(PoisonError::into_inner)[index] = line;
        }
        self.inner.more.notify_one();
    }
}

impl Logs {
    /// Files in `.daytona/computeruse` below `home`; none are made before a process runs.
    pub(super) fn new(home: &Path, shutdown: Shutdown) -> Self {
        let directory = home.join(".daytona/computeruse").into();
        Self { directory, lane: Lane::new(2), shutdown }
    }

    fn path(&self, name: &str, stream: Stream) -> PathBuf {
        let suffix = match stream {
            Stream::Output => "log",
            Stream::Errors => "err",
        };
        self.directory.join(format!("{name}.{suffix}"))
    }

    /// Write ends for the two streams of a process, whose bytes go to its files until nobody can write any more.
    pub(super) fn record(&self, name: &'static str) -> io::Result<(OwnedFd, OwnedFd, Printing)> {
        self.follow(Some(name))
    }

    /// As [`Logs::record`], for what is not kept.
    pub(super) fn listen(&self) -> io::Result<(OwnedFd, OwnedFd, Printing)> {
        self.follow(None)
    }

    /// Runs work that looks at files.
    ///
    /// # Errors
    /// When it panicked.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.lane.run(work).await
    }

    fn follow(&self, name: Option<&'static str>) -> io::Result<(OwnedFd, OwnedFd, Printing)> {
        let ((out, stdout), (err, stderr)) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
        let printing = Printing::default();
        for (pipe, stream) in [(out, Stream::Output), (err, Stream::Errors)] {
            let (logs, printing) = (self.clone(), printing.clone());
            let pipe = pipe::Receiver::from_owned_fd(pipe)?;
            self.shutdown.spawn(async move {
                logs.copy(name, stream, pipe, &printing).await;
                if stream == Stream::Errors {
                    printing.inner.ended.cancel();
                }
            });
        }
        Ok((stdout, stderr, printing))
    }

    async fn copy(self, name: Option<&str>, stream: Stream, pipe: pipe::Receiver, printing: &Printing) {
        let mut file = name.map(|name| LogFile::new(self.path(name, stream)));
        while pipe.readable().await.is_ok() {
            let mut buffer = Vec::with_capacity(READ);
            match pipe.try_read_buf(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            printing.note(stream, &buffer);
            let Some(mut log) = file.take() else { continue };
            let written = self.lane.run(move || log.append(&buffer).map(|()| log)).await;
            // One that cannot be written, as in a read-only image, is given up; the process goes on.
            file = match written {
                Ok(Ok(log)) => Some(log),
                Ok(Err(error)) => {
                    warn!(%error, "the log of {} cannot be written", name.unwrap_or_default());
                    None
                }
                Err(_panicked) => None,
            };
        }
    }

    /// The last `most` bytes of what a process printed, from the beginning of a line on.
    pub(super) async fn tail(&self, name: &str, stream: Stream, most: u64) -> String {
        let path = self.path(name, stream);
        let bytes = self.lane.run(move || tail(&path, most)).await.unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A file that is appended to, and its predecessor.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= LARGEST) {
            self.open = None;
            fs::rename(&self.path, predecessor(&self.path))?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            None => {
                if let Some(directory) = self.path.parent() {
                    fs::create_dir_all(directory)?;
                }
                let file = File::options().create(true).append(true).mode(0o644).open(&self.path)?;
                let size = file.metadata()?.len();
                self.open.insert((file, size))
            }
        };
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        Ok(())
    }
}

fn predecessor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn tail(path: &Path, most: u64) -> Vec<u8> {
    let last = |path: &Path, most: u64| -> io::Result<(Vec<u8>, bool)> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok((bytes, size > most))
    };
    let (newer, mut is_cut) = last(path, most).unwrap_or_default();
    let mut bytes = Vec::new();
    if !is_cut {
        (bytes, is_cut) = last(&predecessor(path), most - newer.len() as u64).unwrap_or_default();
    }
    bytes.extend(newer);
    if is_cut {
        let line = memchr::memchr(b'\n', &bytes).map_or(0, |end| end + 1);
        bytes.drain(..line);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_one_predecessor_and_its_tail_begins_with_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/x.log");
        let mut log = LogFile::new(path.clone());
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..3 * 8 * 1024 - 10 {
            log.append(&line).unwrap();
        }
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 2);
        assert_eq!(predecessor(&path).metadata().unwrap().len(), LARGEST);
        assert_eq!(tail(&path, 3000).len(), 2048);
        assert_eq!(tail(&path, 2 * LARGEST).len() as u64, 2 * LARGEST - 10 * 1024);
        assert_eq!(tail(&path, 2 * LARGEST - 5000).len() as u64 % 1024, 0);
        assert_eq!(tail(&directory.path().join("none"), 10), b"");
    }
}
