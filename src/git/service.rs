//! How repositories are opened, and who may work on them when.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use futures_util::{Stream, stream};
use git2::{ConfigLevel, ErrorCode, Repository, RepositoryOpenFlags};
use tokio::sync::mpsc;

use super::failure::{failed, words};
use super::locks::{self, Writers};
use super::racy;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::blocking::Lane;
use crate::platform::paths;
use crate::platform::shutdown::Shutdown;

/// Jobs on repositories at a time.
const JOBS: usize = 16;
/// Streamed replies at a time. A client that reads slowly keeps one waiting, which must not hold up other jobs.
const STREAMS: usize = 32;
/// Pieces of a streamed reply that wait for the client.
const AHEAD: usize = 2;
/// Objects that libgit2 keeps unpacked in memory, in bytes, over all repositories.
const OBJECT_CACHE: libc::ssize_t = 32 * 1024 * 1024;
/// Size of the windows in which packs are mapped, and of all of them, in bytes. libgit2's own are 1 and 8 GiB, which
/// would all count as ours.
const PACK_WINDOW: usize = 16 * 1024 * 1024;
const PACK_WINDOWS: usize = 256 * 1024 * 1024;

/// Works on repositories; a cheap handle.
#[derive(Debug, Clone)]
pub struct Git {
    /// The base of relative paths.
    pub(super) work_dir: Arc<Path>,
    /// Where `.gitconfig` and `.git-credentials` are.
    pub(super) home: Arc<Path>,
    /// Where the user's other settings of git are.
    pub(super) xdg: Arc<Path>,
    /// For temporary files.
    pub(super) spool: Arc<Path>,
    pub(super) lane: Lane,
    pub(super) streams: Lane,
    pub(super) writers: Writers,
    pub(super) shutdown: Shutdown,
}

impl Git {
    /// Relative paths are below `work_dir`. The user's own settings are in `home` and in `xdg_config_home`, by default
    /// its `.config`; `spool` takes temporary files.
    pub fn new(
        work_dir: PathBuf,
        home: &Path,
        xdg_config_home: Option<&Path>,
        spool: PathBuf,
        shutdown: Shutdown,
    ) -> Self {
        let xdg = xdg_config_home.map_or_else(|| home.join(".config"), Path::to_owned).join("git");
        set_up(home, &xdg);
        Self {
            work_dir: work_dir.into(),
            home: home.into(),
            xdg: xdg.into(),
            spool: spool.into(),
            lane: Lane::new(JOBS),
            streams: Lane::new(STREAMS),
            writers: Writers::default(),
            shutdown,
        }
    }

    /// The absolute path that a client's path means.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        paths::resolve(&self.work_dir, path)
    }

    /// Looks at a repository, whoever else works on it.
    ///
    /// # Errors
    /// As [`open`], and what the job fails with.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        path: &str,
        job: impl FnOnce(&mut Repository) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.resolve(path);
        self.lane.run(move || job(&mut open(&path)?)).await?
    }

    /// Changes a repository: nobody else here does so meanwhile, and another program's lock on the index is waited for.
    /// Goes on when the client leaves.
    ///
    /// # Errors
    /// As [`open`] and [`locks::await_others`], and what the job fails with.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        path: &str,
        job: impl FnOnce(&mut Repository) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (git, path) = (self.clone(), self.resolve(path));
        self.to_its_end(async move {
            let _turn = git.turn(&path).await?;
            git.lane
                .run(move || {
                    let mut repository = open(&path)?;
                    locks::await_others(&repository.path().join("index"))?;
                    racy::forget(&repository)?;
                    job(&mut repository)
                })
                .await?
        })
        .await
    }

    /// The turn to write to the repository at `path`; work trees that are linked to one another share it.
    ///
    /// # Errors
    /// As [`open`].
    pub(super) async fn turn(&self, path: &Path) -> Result<locks::Turn> {
        let path = path.to_owned();
        let key = self.lane.run(move || open(&path).map(|repository| lock_key(&repository))).await??;
        Ok(self.writers.turn(key).await)
    }

    /// Runs work that goes on when the client leaves; the daemon waits for it when it stops.
    ///
    /// # Errors
    /// What it fails with, and when it panicked.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let ended = self.shutdown.spawn(work).await;
        ended.map_err(|panic| Error::internal("git operation failed").with_source(panic))?
    }

    /// A reply in pieces, made while the client reads it.
    pub(super) fn stream<T, J>(
        &self,
        path: &str,
        job: J,
    ) -> impl Stream<Item = Result<T>> + Send + 'static + use<T, J>
    where
        T: Send + 'static,
        J: FnOnce(&Repository, &Pieces<T>) -> Result<()> + Send + 'static,
    {
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let (path, streams) = (self.resolve(path), self.streams.clone());
        self.shutdown.spawn(async move {
            let pieces = Pieces { sender: sender.clone() };
            let ended =
                streams.run(move || open(&path).and_then(|repository| job(&repository, &pieces))).await;
            if let Err(error) = ended.flatten() {
                let _ = sender.send(Err(error)).await; // nobody wants to know when the client has left
            }
        });
        stream::poll_fn(move |context| receiver.poll_recv(context))
    }
}

/// Where a job puts the pieces of a streamed reply.
#[derive(Debug)]
pub(super) struct Pieces<T> {
    sender: mpsc::Sender<Result<T>>,
}

impl<T> Pieces<T> {
    /// Waits until the client is ready for more.
    ///
    /// # Errors
    /// When the client has left, which ends the job.
    pub(super) fn send(&self, piece: T) -> Result<()> {
        let left = |_| Error::internal("the client has left");
        self.sender.blocking_send(Ok(piece)).map_err(left)
    }
}

/// Opens the repository whose root is `path`: a work tree, also a linked one or a submodule, or a bare repository. There
/// is no search upwards, and no work tree elsewhere, so nothing is touched that the client has not named. Whom it
/// belongs to does not matter: nothing in it is run.
///
/// # Errors
/// When there is none, or it is of a kind that libgit2 does not know.
pub(super) fn open(path: &Path) -> Result<Repository> {
    let shown = path.display();
    let missing = || Error::new(ErrorKind::GitRepoNotFound, format!("repository does not exist: {shown}"));
    let flags = RepositoryOpenFlags::NO_SEARCH;
    let repository =
        Repository::open_ext(path, flags, &[] as &[&Path]).map_err(|error| match error.code() {
            ErrorCode::NotFound => missing().with_source(error),
            _ if error.message().contains("extension") || error.message().contains("repository version") => {
                Error::new(ErrorKind::Unsupported, format!("open {shown}: {}", words(&error)))
                    .with_source(error)
            }
            _ => failed(&format!("open {shown}"), error),
        })?;
    match repository.workdir().map(Path::canonicalize) {
        Some(work_tree) if work_tree.as_ref().ok() != path.canonicalize().ok().as_ref() => Err(missing()),
        _ => Ok(repository),
    }
}

/// As [`open`], for what makes no sense without a work tree.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a bare repository.
pub(super) fn work_tree(repository: &Repository) -> Result<&Path> {
    repository.workdir().ok_or_else(|| {
        Error::invalid(format!(
            "this operation must be run in a work tree: {} is bare",
            repository.path().display()
        ))
    })
}

/// What stands for a repository and all its linked work trees, when it comes to taking turns.
pub(super) fn lock_key(repository: &Repository) -> PathBuf {
    let common = repository.commondir();
    common.canonicalize().unwrap_or_else(|_| common.to_owned())
}

/// libgit2's settings, which belong to the process: they are made once, and never changed for a single operation.
#[expect(unsafe_code, reason = "libgit2 keeps its settings in globals")]
fn set_up(home: &Path, xdg: &Path) {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let (home, xdg) = (home.as_os_str().as_encoded_bytes(), xdg.as_os_str().as_encoded_bytes());
        // SAFETY: nothing else in this process uses libgit2 before there is a `Git`, and each begins here.
        let set = unsafe {
            git2::opts::set_verify_owner_validation(false)
                .and_then(|()| git2::opts::set_search_path(ConfigLevel::Global, home))
                .and_then(|()| git2::opts::set_search_path(ConfigLevel::XDG, xdg))
                .and_then(|()| git2::opts::set_extensions(&["partialclone"]))
                .map(|()| git2::opts::strict_object_creation(false)) // reads all that a new tree refers to
                .and_then(|()| git2::opts::set_cache_max_size(OBJECT_CACHE))
                .and_then(|()| git2::opts::set_mwindow_size(PACK_WINDOW))
                .and_then(|()| git2::opts::set_mwindow_mapped_limit(PACK_WINDOWS))
        };
        if let Err(error) = set {
            tracing::error!("libgit2 does not take its settings: {error}");
        }
    });
}
