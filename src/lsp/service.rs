//! Rules about language servers: one for each language and project, started once, stopped when nobody needs it.
//!
//! ```text
//!   new --start--> running --stop--> stopped (and forgotten)
//!                  |     ^
//!        crashed,  |     | any question; after a crash only so often
//!        idle, or  v     |
//!        in the way: down
//! ```
//!
//! A server that is down keeps the list of documents that clients had open, and has them open again when it is up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::server::{Server, Start};
use super::{languages, uri};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::blocking::Lane;
use crate::platform::paths;
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{Environment, Supervisor};

/// Jobs on the file system at a time.
const JOBS: usize = 16;
/// Crashes in a row after which only `start` starts a server again. One that ran for [`STABLE`] begins a new row.
const CRASHES: u32 = 3;
const STABLE: Duration = Duration::from_secs(60);
/// Projects that are remembered.
const PROJECTS: usize = 4096;

/// Language servers; a cheap handle.
#[derive(Debug, Clone)]
pub struct Lsp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    supervisor: Supervisor,
    environment: Environment,
    work_dir: PathBuf,
    shutdown: Shutdown,
    /// Says which servers to start.
    file: Option<PathBuf>,
    idle: Duration,
    most: usize,
    /// One for each server that may run.
    places: Arc<Semaphore>,
    lane: Lane,
    projects: Mutex<HashMap<Key, Arc<Project>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    language: String,
    /// Absolute and clean.
    root: PathBuf,
}

/// A language in a project.
#[derive(Debug)]
struct Project {
    key: Key,
    /// Held while a server is started, so that only one is, and whoever asks meanwhile waits for it.
    state: tokio::sync::Mutex<State>,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Usage {
    /// Questions and editors at the moment.
    active: usize,
    last: Instant,
}

#[derive(Debug)]
enum State {
    New,
    Running(Running),
    Down(Down),
    Stopped,
}

#[derive(Debug)]
struct Running {
    server: Arc<Server>,
    since: Instant,
    crashes: u32,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Down {
    documents: Vec<PathBuf>,
    /// In a row.
    crashes: u32,
    /// How it ended, if by itself.
    cause: Option<String>,
}

/// A server in use: it is not stopped for want of use meanwhile.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) server: Arc<Server>,
    /// The project's directory.
    pub(super) root: PathBuf,
    _use: Use,
}

#[derive(Debug)]
struct Use {
    project: Arc<Project>,
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut usage = self.project.usage();
        usage.active -= 1;
        usage.last = Instant::now();
    }
}

/// Why nobody can be asked.
enum Refusal {
    /// The project was forgotten meanwhile.
    Stopped,
    Failed(Error),
}

fn not_initialised(detail: &str) -> Error {
    Error::new(ErrorKind::LspNotInitialized, format!("server not initialized{detail}"))
}

impl Lsp {
    /// Relative paths are below `work_dir`; programs are found with `environment`.
    pub fn new(
        config: &Config,
        supervisor: Supervisor,
        environment: Environment,
        work_dir: PathBuf,
        shutdown: Shutdown,
    ) -> Self {
        let most = usize::from(config.max_language_servers);
        let inner = Inner {
            supervisor,
            environment,
            work_dir,
            shutdown,
            file: config.language_servers.clone(),
            idle: config.language_server_idle,
            most,
            places: Arc::new(Semaphore::new(most)),
            lane: Lane::new(JOBS),
            projects: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts the server of a language for a project; nothing happens when it runs. Goes on when the caller leaves.
    ///
    /// # Errors
    /// When nobody knows the language, the image has no server for it, or it cannot be started.
    pub async fn start(&self, language: &str, path: &str) -> Result<()> {
        let key = self.key(language, path).await?;
        self.check(language).await?;
        loop {
            let project = self.project(&key)?;
            match self.up(&project, true).await {
                Ok(_) => return Ok(()),
                Err(Refusal::Stopped) => {} // by another request, while this one waited
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
    }

    /// Ends a server and everything that it started. Goes on when the caller leaves.
    ///
    /// # Errors
    /// When none was started.
    pub async fn stop(&self, language: &str, path: &str) -> Result<()> {
        let key = self.key(language, path).await?;
        let Some(project) = self.projects().remove(&key) else {
            self.check(language).await?;
            let root = key.root.display();
            return Err(Error::internal(format!(
                "error stopping LSP server: none was started for {language} in {root}"
            )));
        };
        let stopped = self.inner.shutdown.spawn(async move {
            let before = std::mem::replace(&mut *project.state.lock().await, State::Stopped);
            if let State::Running(running) = before {
                running.server.stop().await;
            }
        });
        stopped.await.map_err(|error| Error::internal("error stopping LSP server").with_source(error))
    }

    /// The server for a project, to be asked something. One that is down is started again.
    ///
    /// # Errors
    /// When it was not started, was stopped, or keeps crashing.
    pub(super) async fn lease(&self, language: &str, path: &str) -> Result<Lease> {
        let key = self.key(language, path).await?;
        let project = self.projects().get(&key).cloned();
        let Some(project) = project else {
            self.check(language).await?;
            return Err(not_initialised(""));
        };
        let usage = project.enter();
        let running = match &*project.state.lock().await {
            State::Running(running) if !running.server.is_over() => Some(Arc::clone(&running.server)),
            _ => None,
        };
        let server = match running {
            Some(server) => server,
            None => match self.up(&project, false).await {
                Ok(server) => server,
                Err(Refusal::Stopped) => return Err(not_initialised(": it was stopped")),
                Err(Refusal::Failed(error)) => return Err(error),
            },
        };
        Ok(Lease { server, root: key.root, _use: usage })
    }

    /// As [`Lsp::lease`], and starts the server first if need be.
    ///
    /// # Errors
    /// As [`Lsp::start`].
    pub(super) async fn started(&self, language: &str, path: &str) -> Result<Lease> {
        self.start(language, path).await?;
        self.lease(language, path).await
    }

    /// The file that a client's URI means: an absolute, clean path.
    ///
    /// # Errors
    /// When it names none.
    pub(super) async fn file(&self, uri: &str) -> Result<PathBuf> {
        let given = uri::given(uri, &self.inner.work_dir)?;
        let path = match given.unescaped {
            None => given.literal,
            Some(unescaped) => {
                let literal = given.literal.clone();
                let is_literal = self.inner.lane.run(move || literal.exists()).await?;
                if is_literal { given.literal } else { unescaped }
            }
        };
        self.clean(path).await
    }

    /// Runs blocking work on files.
    pub(super) fn lane(&self) -> &Lane {
        &self.inner.lane
    }

    async fn clean(&self, path: PathBuf) -> Result<PathBuf> {
        // Only then is the system asked.
        if path.components().any(|component| component == std::path::Component::ParentDir) {
            return self.inner.lane.run(move || paths::clean(&path)).await;
        }
        Ok(paths::clean(&path))
    }

    async fn key(&self, language: &str, path: &str) -> Result<Key> {
        let path = path.strip_prefix("file://").unwrap_or(path);
        if path.contains('\0') {
            return Err(Error::invalid("pathToProject has a NUL byte"));
        }
        let root = self.clean(paths::resolve(&self.inner.work_dir, path)).await?;
        Ok(Key { language: language.to_owned(), root })
    }

    async fn check(&self, language: &str) -> Result<()> {
        let (language, file) = (language.to_owned(), self.inner.file.clone());
        self.inner.lane.run(move || languages::check(&language, file.as_deref())).await?
    }

    fn project(&self, key: &Key) -> Result<Arc<Project>> {
        let mut projects = self.projects();
        if let Some(project) = projects.get(key) {
            return Ok(Arc::clone(project));
        }
        if projects.len() >= PROJECTS {
            // Those whose start failed are remembered only so that `stop` finds them.
            projects.retain(|_, project| !matches!(project.state.try_lock().as_deref(), Ok(State::New)));
        }
        if projects.len() >= PROJECTS {
            let message = format!("{PROJECTS} language servers were started, which are the most: stop some");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let project = Arc::new(Project {
            key: key.clone(),
            state: tokio::sync::Mutex::new(State::New),
            usage: Mutex::new(Usage { active: 0, last: Instant::now() }),
        });
        projects.insert(key.clone(), Arc::clone(&project));
        Ok(project)
    }

    fn projects(&self) -> MutexGuard<'_, HashMap<Key, Arc<Project>>> {
        self.inner.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running server of a project; starts it when it was asked for, or ran before.
    async fn up(&self, project: &Arc<Project>, was_asked_for: bool) -> Result<Arc<Server>, Refusal> {
        let (lsp, project) = (self.clone(), Arc::clone(project));
        // To its end, also when the caller leaves.
        let up = self.inner.shutdown.spawn(async move { lsp.up_now(&project, was_asked_for).await });
        up.await.unwrap_or_else(|panic| {
            Err(Refusal::Failed(Error::internal("error starting LSP server").with_source(panic)))
        })
    }

    async fn up_now(&self, project: &Arc<Project>, was_asked_for: bool) -> Result<Arc<Server>, Refusal> {
        let mut state = project.state.lock().await;
        self.notice_end(&mut state).await;
        let (documents, crashes) = match &mut *state {
            State::Running(running) => return Ok(Arc::clone(&running.server)),
            State::Stopped => return Err(Refusal::Stopped),
            State::New if !was_asked_for => return Err(Refusal::Failed(not_initialised(""))),
            State::Down(Down { crashes, cause, .. }) if !was_asked_for && *crashes >= CRASHES => {
                let cause = cause.as_deref().map(|cause| format!(": {cause}")).unwrap_or_default();
                return Err(Refusal::Failed(not_initialised(&cause)));
            }
            State::Down(down) => (down.documents.clone(), if was_asked_for { 0 } else { down.crashes }),
            State::New => (Vec::new(), 0),
        };
        let running = self.launch(project, crashes).await.map_err(Refusal::Failed)?;
        for path in documents {
            if let Err(error) = running.server.open(&path).await {
                debug!(%error, "a document is not open any more");
            }
        }
        let server = Arc::clone(&running.server);
        self.inner.shutdown.spawn(self.clone().keep(Arc::clone(project), Arc::clone(&server)));
        *state = State::Running(running);
        Ok(server)
    }

    async fn launch(&self, project: &Arc<Project>, crashes: u32) -> Result<Running> {
        let Key { language, root } = &project.key;
        let (id, file, path) =
            (language.clone(), self.inner.file.clone(), self.inner.environment.get("PATH"));
        let launch =
            self.inner.lane.run(move || languages::find(&id, file.as_deref(), path.as_deref())).await??;
        let place = self.place(project).await?;
        let server = Server::start(Start {
            supervisor: &self.inner.supervisor,
            shutdown: &self.inner.shutdown,
            lane: &self.inner.lane,
            launch,
            language,
            root,
            cwd: &self.inner.work_dir,
        })
        .await?;
        Ok(Running { server: Arc::new(server), since: Instant::now(), crashes, _place: place })
    }

    /// A place for one more server; the one that was used least recently makes room.
    async fn place(&self, wanting: &Arc<Project>) -> Result<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.inner.places).try_acquire_owned() {
                return Ok(place);
            }
            let mut others: Vec<(Instant, Arc<Project>)> = {
                let projects = self.projects();
                let others = projects.values().filter(|other| !Arc::ptr_eq(other, wanting));
                others.map(|other| (other.usage().last, Arc::clone(other))).collect()
            };
            others.sort_by_key(|(last, _)| *last);
            let mut made_room = false;
            for (_, other) in others {
                // One that is being started is in use.
                let Ok(mut state) = other.state.try_lock() else { continue };
                if matches!(*state, State::Running(_)) && other.usage().active == 0 {
                    self.take_down(&mut state).await;
                    made_room = true;
                    break;
                }
            }
            if !made_room {
                let most = self.inner.most;
                let message = format!("{most} language servers are busy, which are the most that may run");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }

    /// Stops a server that may be wanted again.
    async fn take_down(&self, state: &mut State) {
        let State::Running(running) = state else { return };
        let server = Arc::clone(&running.server);
        let documents = server.open_paths().await;
        server.stop().await;
        *state = State::Down(Down { documents, crashes: 0, cause: None });
    }

    /// Notices that a server has ended by itself.
    async fn notice_end(&self, state: &mut State) {
        let State::Running(running) = state else { return };
        if !running.server.is_over() {
            return;
        }
        let crashes = if running.since.elapsed() > STABLE { 1 } else { running.crashes + 1 };
        let server = Arc::clone(&running.server);
        let cause = server.end_text().await;
        warn!("{cause}");
        let documents = server.open_paths().await;
        *state = State::Down(Down { documents, crashes, cause: Some(cause) });
        self.inner.shutdown.spawn(async move { server.kill().await });
    }

    /// Stays with a server until it has ended; stops it when it is not used for long.
    async fn keep(self, project: Arc<Project>, server: Arc<Server>) {
        loop {
            let idle_at = {
                let usage = project.usage();
                let last = if usage.active > 0 { Instant::now() } else { usage.last };
                last.checked_add(self.inner.idle).unwrap_or_else(|| Instant::now() + STABLE)
            };
            tokio::select! {
                () = self.inner.shutdown.cancelled() => return,
                () = server.over() => {}
                () = sleep_until(idle_at) => {}
            }
            let mut state = project.state.lock().await;
            match &*state {
                State::Running(running) if Arc::ptr_eq(&running.server, &server) => {}
                _ => return, // someone else has ended it
            }
            if server.is_over() {
                return self.notice_end(&mut state).await;
            }
            let is_idle = {
                let usage = project.usage();
                usage.active == 0 && usage.last.elapsed() >= self.inner.idle
            };
            if is_idle {
                debug!("{} is stopped until it is needed again", server.name);
                return self.take_down(&mut state).await;
            }
        }
    }
}

impl Project {
    fn enter(self: &Arc<Self>) -> Use {
        let mut usage = self.usage();
        usage.active += 1;
        usage.last = Instant::now();
        drop(usage);
        Use { project: Arc::clone(self) }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
