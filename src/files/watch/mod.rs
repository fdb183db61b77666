//! Watches files and directories for changes (beyond the contract).
//!
//! Built on inotify(7) itself, not on `notify`: that crate does not tell what was made in a new directory before its
//! watch was placed, does not say which later directories the system's limit leaves unwatched, and puts no bound on
//! what waits for a slow reader. Here a slow reader keeps us from reading, the kernel's own queue fills, and the
//! kernel says when it has overflowed.

pub(super) mod routes;
mod tree;
mod wire;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::tree::{Change, Progress, Tree};
use super::service::Files;
use crate::error::{Error, ErrorKind, Result};

/// How long something that was moved away may take to arrive elsewhere in the tree. The kernel tells both at once, but
/// not in one step.
const ARRIVAL: Duration = Duration::from_millis(10);
/// Changes that wait for the client; more wait where they come from.
const WAITING: usize = 64;

/// Changes of a tree as they happen. Dropping it ends the watch.
#[derive(Debug)]
struct Watch {
    changes: mpsc::Receiver<Change>,
}

impl Watch {
    /// The next change; none when the root is gone, which was told before. Cancel safe.
    async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}

impl Files {
    /// Watches what is at `path`, with `recursive` everything below it too, also what is made later.
    ///
    /// # Errors
    /// When there is nothing, it may not be read, or the system's limits leave no room for one more watch.
    async fn watch(&self, path: &str, recursive: bool) -> Result<Watch> {
        let root = self.root(path).await?;
        let given = path.to_owned();
        let tree = self.lane.run(move || Tree::new(&root, recursive)).await?;
        let tree = tree.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM) => {
                let limits = "fs.inotify.max_user_instances, fs.inotify.max_user_watches";
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the system's limit for watches is reached ({limits})"),
                )
                .with_source(error)
            }
            _ => Error::io("watch", given.as_ref(), error),
        })?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, for descriptors that nobody owns; this one is owned"
        )]
        let ready = AsyncFd::new(tree.descriptor())
            .map_err(|error| Error::internal("watching is not possible").with_source(error))?;
        let (sender, changes) = mpsc::channel(WAITING);
        let files = self.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                result = follow(&files, tree, &ready, &sender) => {
                    if let Err(error) = result {
                        tracing::error!(%error, "a watch failed");
                    }
                }
            }
        });
        Ok(Watch { changes })
    }
}

/// Passes on changes until the root is gone or nobody wants them.
async fn follow(
    files: &Files,
    mut tree: Tree,
    ready: &AsyncFd<Arc<OwnedFd>>,
    sender: &mpsc::Sender<Change>,
) -> Result<()> {
    let mut settle = false;
    loop {
        let changes;
        let progress;
        (tree, (changes, progress)) = files
            .lane
            .run(move || {
                let read = tree.read(settle);
                (tree, read)
            })
            .await?;
        for change in changes {
            if sender.send(change).await.is_err() {
                return Ok(());
            }
        }
        let readable = async {
            let guard = ready.readable().await;
            guard.map(|mut guard| guard.clear_ready()) // before reading, which goes on until there is no more
        };
        settle = match progress {
            Progress::Ended => return Ok(()),
            Progress::More => false,
            Progress::Leaving => timeout(ARRIVAL, readable).await.is_err(),
            Progress::Idle => {
                readable.await.map_err(|error| Error::internal("waiting for changes").with_source(error))?;
                false
            }
        };
    }
}
