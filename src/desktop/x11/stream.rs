//! The socket to the X server, with a limit on every wait: a server that has stopped must not hold our threads.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use x11rb::rust_connection::{DefaultStream, PollMode, Stream};
use x11rb::utils::RawFdContainer;

/// Longest wait for the server to take or to send something.
const LIMIT: Duration = Duration::from_secs(4);

/// A stream whose waits end with [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub(crate) struct Limited(pub(super) DefaultStream);

impl Limited {
    /// Cuts the connection, which wakes whoever waits on it.
    pub(super) fn cut(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Limited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Limited {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Stream for Limited {
    fn poll(&self, mode: PollMode) -> Result<()> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, mode.readable());
        flags.set(PollFlags::OUT, mode.writable());
        let limit = Timespec::try_from(LIMIT).map_err(Error::other)?;
        loop {
            match poll(&mut [PollFd::new(&self.0, flags)], Some(&limit)) {
                Ok(0) => return Err(Error::new(ErrorKind::TimedOut, "the X server does not answer")),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&self, buffer: &mut [u8], descriptors: &mut Vec<RawFdContainer>) -> Result<usize> {
        self.0.read(buffer, descriptors)
    }

    fn write(&self, bytes: &[u8], descriptors: &mut Vec<RawFdContainer>) -> Result<usize> {
        self.0.write(bytes, descriptors)
    }

    fn write_vectored(&self, parts: &[IoSlice<'_>], descriptors: &mut Vec<RawFdContainer>) -> Result<usize> {
        self.0.write_vectored(parts, descriptors)
    }
}
