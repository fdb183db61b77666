//! Who may ask remotes what, and for how long: each operation has a thread of its own, goes on when its client leaves,
//! and ends when the daemon does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use git2::{Config, ErrorCode, Repository};
use tracing::info;

use super::clone::{self, CloneRequest};
use super::configured::Settings;
use super::credentials::{self, Server};
use super::fetch::{self, FetchRequest};
use super::link::Update;
use super::location::{self, Login};
use super::operation::{Operation, Surroundings};
use super::pull::{self, PullRequest};
use super::push::{self, PushRequest};
use crate::error::{Error, Result};
use crate::git::Git;
use crate::git::config::Scope;
use crate::git::failure::failing;
use crate::git::service::open;
use crate::platform::blocking::Lane;
use crate::supervisor::Environment;

/// Operations at a time; more wait their turn.
const JOBS: usize = 32;

/// Speaks to remotes; a cheap handle.
#[derive(Debug, Clone)]
pub struct Remotes {
    git: Git,
    environment: Environment,
    stall: Duration,
    lane: Lane,
}

/// Who asks, and how far the server is trusted.
#[derive(Debug, Default)]
pub struct Access {
    login: Option<Login>,
    skips_tls: bool,
}

impl Access {
    /// Credentials count only when both are there and the user or the password is not empty.
    pub fn new(username: Option<String>, password: Option<String>) -> Self {
        let login = username.zip(password).map(|(user, password)| Login { user, password });
        Self {
            login: login.filter(|login| !login.password.is_empty() || !login.user.is_empty()),
            skips_tls: false,
        }
    }

    /// Takes any certificate.
    #[must_use]
    pub fn skipping_tls(mut self, skips: bool) -> Self {
        self.skips_tls = skips;
        self
    }
}

impl Remotes {
    /// `stall` is the longest wait for a byte. Proxies and the agent of SSH are looked up in `environment`.
    pub fn new(git: Git, environment: Environment, stall: Duration) -> Self {
        super::register_transports();
        Self { git, environment, stall, lane: Lane::new(JOBS) }
    }

    /// Clones into a directory that is empty or not there.
    ///
    /// # Errors
    /// Those of contract `git.md` 1.2. What was created is removed then.
    pub async fn clone_repository(&self, path: &str, request: CloneRequest, access: Access) -> Result<()> {
        let (remotes, destination) = (self.clone(), self.git.resolve(path));
        self.git
            .to_its_end(async move {
                let _turn = remotes.git.writers.turn(destination.join(".git")).await;
                let base = Arc::clone(&remotes.git.work_dir);
                let what = format!("clone {} into {}", location::shown(&request.url), destination.display());
                remotes
                    .run(what, access, move |operation| {
                        clone::clone(operation, &request, &base, &destination)
                    })
                    .await
            })
            .await
    }

    /// Brings refs and objects; nothing in the work tree changes.
    ///
    /// # Errors
    /// Those of contract `git.md` 1.2.
    pub async fn fetch(&self, path: &str, request: FetchRequest, access: Access) -> Result<Vec<Update>> {
        let (remotes, path) = (self.clone(), self.git.resolve(path));
        self.git
            .to_its_end(async move {
                let what = format!("fetch into {}", path.display());
                let job = move |operation: &Arc<Operation>, repository: &Repository| {
                    fetch::fetch(operation, repository, &request)
                };
                let (updates, settings) = remotes.with(what, path, access, job).await?;
                remotes.write(settings).await?;
                Ok(updates)
            })
            .await
    }

    /// Adds a remote, after it was fetched if that is asked for: so nothing is added when that fails.
    ///
    /// # Errors
    /// When name or URL make no sense, the name is taken, and those of the network.
    pub(crate) async fn add(
        &self,
        path: &str,
        name: String,
        url: String,
        fetches: bool,
        overwrite: bool,
    ) -> Result<()> {
        if !fetches {
            return self.git.add_remote(path, name, url, overwrite).await;
        }
        let (remotes, resolved, path) = (self.clone(), self.git.resolve(path), path.to_owned());
        self.git
            .to_its_end(async move {
                let what = format!("fetch a new remote into {}", resolved.display());
                let order = (name.clone(), url.clone());
                let job = move |operation: &Arc<Operation>, repository: &Repository| {
                    fetch::fetch_new(operation, repository, &order.0, &order.1, overwrite)
                };
                remotes.with(what, resolved, Access::default(), job).await?;
                remotes.git.add_remote(&path, name, url, overwrite).await
            })
            .await
    }

    /// Fetches what the branch follows, and moves the branch there if that is a fast-forward.
    ///
    /// # Errors
    /// Those of contract `git.md` 1.2. Branch, index and work tree are as they were then.
    pub async fn pull(&self, path: &str, request: PullRequest, access: Access) -> Result<()> {
        let (remotes, resolved) = (self.clone(), self.git.resolve(path));
        let (git, path, allow_dirty) = (self.git.clone(), path.to_owned(), request.allow_dirty);
        self.git
            .to_its_end(async move {
                let what = format!("pull into {}", resolved.display());
                let job = move |operation: &Arc<Operation>, repository: &Repository| {
                    pull::fetch(operation, repository, &request)
                };
                let fetched = remotes.with(what, resolved, access, job).await?;
                git.change(&path, move |repository| pull::fast_forward(repository, &fetched, allow_dirty))
                    .await
            })
            .await
    }

    /// Pushes a branch to its own name.
    ///
    /// # Errors
    /// Those of contract `git.md` 1.2.
    pub async fn push(&self, path: &str, request: PushRequest, access: Access) -> Result<()> {
        let (remotes, path) = (self.clone(), self.git.resolve(path));
        self.git
            .to_its_end(async move {
                let what = format!("push from {}", path.display());
                let job = move |operation: &Arc<Operation>, repository: &Repository| {
                    push::push(operation, repository, &request)
                };
                let settings = remotes.with(what, path, access, job).await?;
                remotes.write(settings).await
            })
            .await
    }

    /// Keeps a login for later operations, of ours and of the `git` program: in `.git-credentials`, which
    /// `credential.helper` is set to.
    ///
    /// # Errors
    /// When it makes no sense or cannot be written.
    pub async fn keep_credentials(
        &self,
        host: &str,
        protocol: &str,
        username: String,
        password: String,
    ) -> Result<()> {
        let server = Server::new(protocol, host)?;
        let login = Login { user: username, password };
        let (git, home) = (self.git.clone(), Arc::clone(&self.git.home));
        self.git
            .to_its_end(async move {
                let turn = git.writers.turn(home.join(".git-credentials")).await;
                git.lane.run(move || credentials::keep(&home, &server, &login)).await??;
                drop(turn);
                let settings = git.file_to_write(Scope::Global, None)?;
                git.edit(settings, use_store).await
            })
            .await
    }

    async fn write(&self, settings: Settings) -> Result<()> {
        if settings.are_empty() {
            return Ok(());
        }
        self.git.edit(settings.file.clone(), move |config| settings.write(config)).await
    }

    /// Runs a job on the repository at `path`.
    async fn with<T: Send + 'static>(
        &self,
        what: String,
        path: PathBuf,
        access: Access,
        job: impl FnOnce(&Arc<Operation>, &Repository) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(what, access, move |operation| job(operation, &open(&path)?)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        what: String,
        access: Access,
        job: impl FnOnce(&Arc<Operation>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let around = Surroundings {
            shutdown: self.git.shutdown.clone(),
            stall: self.stall,
            environment: self.environment.snapshot(),
            home: self.git.home.to_path_buf(),
            xdg: self.git.xdg.to_path_buf(),
        };
        self.lane
            .run(move || {
                let operation = Operation::new(around, access.login, !access.skips_tls);
                info!("{what}: begins");
                let result = operation.run(|| job(&operation)).map_err(|error| redacted(&operation, error));
                match &result {
                    Ok(_) => info!("{what}: done"),
                    Err(error) => info!("{what}: {error}"),
                }
                result
            })
            .await?
    }
}

/// The error without secrets; without its cause, when that has them.
fn redacted(operation: &Operation, error: Error) -> Error {
    let mut texts = vec![error.to_string()];
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        texts.push(inner.to_string());
        cause = inner.source();
    }
    let has_secrets = texts.iter().any(|text| operation.redacted(text) != *text);
    if has_secrets { Error::new(error.kind(), operation.redacted(&texts[0])) } else { error }
}

/// Makes git look into `.git-credentials`. Other helpers that are listed stay, when there are several.
fn use_store(config: &mut Config) -> Result<()> {
    let configuring = failing("change the settings");
    let name = "credential.helper";
    let mut helpers = Vec::new();
    match config.multivar(name, None) {
        Ok(entries) => entries
            .for_each(|entry| helpers.extend(entry.value().ok().map(str::to_owned)))
            .map_err(&configuring)?,
        Err(error) if error.code() == ErrorCode::NotFound => {}
        Err(error) => return Err(configuring(error)),
    }
    match helpers.len() {
        _ if helpers.iter().any(|helper| helper == "store") => Ok(()),
        0 | 1 => config.set_str(name, "store").map_err(configuring),
        // A value that no pattern fits is added.
        _ => config.set_multivar(name, "^$never", "store").map_err(configuring),
    }
}
