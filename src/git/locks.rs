//! One writer at a time: our own take turns, those of other programs are waited for, but not for long.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// How long another program's lock is waited for: much more than a `git add` needs, less than a client's patience.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose turn it is, for each repository that somebody writes to.
#[derive(Debug, Clone, Default)]
pub(super) struct Writers {
    queues: Arc<Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>>,
}

/// The right to write; given back when dropped.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Writers {
    /// Waits for the turn to write what `key` stands for: the directory that a repository's refs are in, or a file.
    pub(super) async fn turn(&self, key: PathBuf) -> Turn {
        self.queue(key).lock_owned().await
    }

    /// The turn, when nobody has it.
    pub(super) fn try_turn(&self, key: PathBuf) -> Option<Turn> {
        self.queue(key).try_lock_owned().ok()
    }

    fn queue(&self, key: PathBuf) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = queues.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        queues.insert(key, Arc::downgrade(&queue));
        queue
    }
}

/// Waits until no other program holds the lock on `file`, in git's way: a file beside it whose name ends in `.lock`.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it still does after two seconds.
pub(super) fn await_others(file: &Path) -> Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    if !exists(&lock) || vanishes(&lock).unwrap_or(!exists(&lock)) {
        return Ok(());
    }
    let text = format!("another program is changing this: {} exists", lock.display());
    Err(Error::new(ErrorKind::Conflict, text))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether it is gone before our patience is.
fn vanishes(lock: &Path) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let gone = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
    inotify::add_watch(&events, lock.parent().unwrap_or(lock), gone)?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    while exists(lock) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        while reader.next().is_ok() {}
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_then_told() {
        let directory = tempfile::TempDir::new().unwrap();
        let (file, lock) = (directory.path().join("index"), directory.path().join("index.lock"));
        await_others(&file).unwrap();
        std::fs::write(&lock, "").unwrap();
        let error = await_others(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("index.lock"), "{error}");
        let waiting = std::thread::spawn(move || await_others(&file));
        std::fs::remove_file(&lock).unwrap();
        waiting.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn writers_take_turns_and_leave_nothing_behind() {
        let writers = Writers::default();
        let first = writers.turn("/a".into()).await;
        let other = writers.turn("/b".into()).await;
        let mut second = Box::pin(writers.turn("/a".into()));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(writers.try_turn("/b".into()).is_none() && writers.try_turn("/d".into()).is_some());
        drop(first);
        drop((second.await, other));
        drop(writers.turn("/c".into()).await);
        assert_eq!(writers.queues.lock().unwrap().len(), 1);
    }
}
