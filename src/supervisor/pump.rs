//! From pipes to a log.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::output::{OutputLog, Stream};

/// Late output is awaited for as long as no pause is longer than this…
const PAUSE: Duration = Duration::from_millis(50);
/// …and for this long at most.
const LIMIT: Duration = Duration::from_secs(1);
/// Bytes read from a pipe at a time: as many as Linux keeps in one.
const READ: usize = 64 * 1024;

/// Reads the output of a program into its log. It is told when to stop, not dropped: what was read from a pipe and not
/// yet appended would be lost.
#[derive(Debug)]
pub struct Pump {
    sources: Vec<(Receiver, Stream)>,
    log: OutputLog,
}

impl Pump {
    /// Reads the read ends of pipes.
    ///
    /// # Errors
    /// When they cannot be registered with the runtime.
    pub fn new(pipes: impl IntoIterator<Item = (OwnedFd, Stream)>, log: OutputLog) -> io::Result<Self> {
        let sources = pipes.into_iter().map(|(pipe, stream)| Ok((Receiver::from_owned_fd(pipe)?, stream)));
        Ok(Self { sources: sources.collect::<io::Result<_>>()?, log })
    }

    /// Reads until nobody can write any more, or until `stop`.
    pub async fn run(&mut self, stop: &CancellationToken) {
        while !self.sources.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.ready() => {}
            }
            self.read().await;
        }
    }

    /// Reads what has been written up to now, and no more: a process in the background may write without end.
    pub async fn drain(&mut self) {
        let ready = |(source, _): &(Receiver, Stream)| rustix::io::ioctl_fionread(source).unwrap_or_default();
        let mut left: u64 = self.sources.iter().map(ready).sum();
        while left > 0 {
            let count = self.read().await;
            left = if count == 0 { 0 } else { left.saturating_sub(count) };
        }
    }

    /// Reads what may still come of a program that has ended: a process that it left behind may print a last word, or
    /// hold the pipe open for ever. Whether nobody can write any more.
    pub async fn linger(&mut self) -> bool {
        let limit = Instant::now() + LIMIT;
        self.drain().await;
        while !self.sources.is_empty() && Instant::now() < limit {
            if timeout(PAUSE, self.ready()).await.is_err() {
                break;
            }
            self.read().await;
        }
        self.sources.is_empty()
    }

    /// Waits until a pipe has something to tell.
    async fn ready(&self) {
        match &self.sources[..] {
            [] => {}
            [(only, _)] => drop(only.readable().await),
            [(first, _), (second, _), ..] => tokio::select! {
                _ = first.readable() => {}
                _ = second.readable() => {}
            },
        }
    }

    /// Reads once from each pipe that has something; how many bytes that were.
    async fn read(&mut self) -> u64 {
        let mut buffer = Vec::with_capacity(READ); // not kept: most programs print little, and there may be thousands
        let (mut read, mut index) = (0, 0);
        while let Some((source, stream)) = self.sources.get(index) {
            buffer.clear();
            match source.try_read_buf(&mut buffer) {
                Ok(0) => drop(self.sources.remove(index)),
                Ok(count) => {
                    self.log.append(*stream, &buffer).await;
                    read += count as u64;
                    index += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => index += 1,
                Err(error) => {
                    debug!(%error, "reading output failed");
                    drop(self.sources.remove(index));
                }
            }
        }
        read
    }
}
