//! A process held by a descriptor (pidfd_open(2)), so that no other process can be taken for it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

/// A handle to one process, whatever becomes of its pid.
#[derive(Debug)]
pub(super) struct PidFd(OwnedFd);

impl PidFd {
    /// # Errors
    /// [`Errno::SRCH`] when there is no such process; others on kernels before 5.3 and where it is forbidden.
    pub(super) fn open(pid: Pid) -> Result<Self, Errno> {
        rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map(Self)
    }

    /// Refused for a process that has ended or belongs to another user: there is nothing to do about either.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// Waits for the end of the process. It may be a zombie then, if its parent has not asked.
    #[expect(unsafe_code, reason = "tokio cannot see that the descriptor stays open")]
    pub(super) async fn ended(self) {
        // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same until it is dropped.
        match unsafe { AsyncFd::register(self.0) } {
            Ok(handle) => drop(handle.readable().await),
            Err(error) => tracing::warn!(%error, "the end of a process cannot be awaited"),
        }
    }
}
