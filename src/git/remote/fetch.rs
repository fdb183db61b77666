//! Connections to remotes through libgit2, and what they bring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{
    AutotagOption, Config, Direction, FetchOptions, FetchPrune, Oid, Remote, RemoteCallbacks, Repository,
};

use super::local;
use super::location::{self, Location, Login};
use super::operation::{Operation, transport};
use super::remarks;
use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::check_name;
use crate::git::failure::{failed, failing};

/// Depth that means the whole history (git's own `INFINITE_DEPTH`).
const UNSHALLOW: i32 = i32::MAX;

/// A ref as the remote tells it.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) id: Oid,
}

/// A remote that can be asked.
pub(super) struct Link<'r> {
    repository: &'r Repository,
    remote: Remote<'r>,
    pub(super) location: Location,
    operation: Arc<Operation>,
}

/// What is to be fetched.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) refspecs: &'a [String],
    pub(super) tags: AutotagOption,
    pub(super) depth: Option<Depth>,
    /// For the reflog.
    pub(super) message: &'a str,
}

/// How much history is fetched; by default as much as there is or, in a shallow repository, as much as is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Commits from each tip, at least 1.
    Commits(u32),
    /// All of it.
    Whole,
}

/// A ref that a fetch has changed.
#[derive(Debug, Clone)]
pub struct Update {
    /// Full name.
    pub name: String,
    /// Where it was; none when it is new.
    pub old: Option<Oid>,
    /// Where it is; none when it was removed.
    pub new: Option<Oid>,
}

impl<'r> Link<'r> {
    /// Connects to `url`, after the user's own rewriting of URLs (`url.<base>.insteadOf`). Paths are relative to
    /// `base`.
    ///
    /// # Errors
    /// Those of contract `git.md` 1.2 for the network.
    pub(super) fn connect(
        operation: &Arc<Operation>,
        repository: &'r Repository,
        url: &str,
        base: &Path,
        direction: Direction,
    ) -> Result<Self> {
        conceal(operation, &Location::parse(url, base)?);
        // libgit2's words have the URL with its password in them.
        let invalid = |_: git2::Error| Error::invalid("the url is not valid");
        let mut remote = repository.remote_anonymous(url).map_err(invalid)?;
        let rewritten = remote.url().map_err(invalid)?.to_owned();
        let mut location = Location::parse(&rewritten, base)?;
        conceal(operation, &location);
        if let Location::Local(path) = &location {
            location = Location::Local(local::open(path)?.path().to_owned());
            remote = repository.remote_anonymous(&location.engine_url(&rewritten)).map_err(invalid)?;
        }
        operation.failure(); // of an earlier try
        let connected = remote.connect(direction);
        connected.map_err(|error| sorted(operation, &location, error))?;
        Ok(Self { repository, remote, location, operation: Arc::clone(operation) })
    }

    /// Every ref of the remote, as it was when the connection was made.
    pub(super) fn heads(&self) -> Result<Vec<Head>> {
        let heads = self.remote.list().map_err(|error| sorted(&self.operation, &self.location, error))?;
        Ok(heads.iter().map(|head| Head { name: head.name().to_owned(), id: head.oid() }).collect())
    }

    /// Full name of the branch that the remote's HEAD is on; none when it is on none.
    pub(super) fn default_branch(&self) -> Option<String> {
        let name = self.remote.default_branch().ok()?;
        name.as_str().ok().map(str::to_owned)
    }

    /// Fetches over this connection, and ends it.
    ///
    /// # Errors
    /// Those of the network. Refs are as they were then.
    pub(super) fn fetch(&mut self, wanted: &Wanted<'_>) -> Result<Vec<Update>> {
        let (operation, mut updates) = (Arc::clone(&self.operation), Vec::new());
        let mut callbacks = callbacks(&operation);
        callbacks.update_tips(|name, old, new| {
            let known = |id: Oid| (!id.is_zero()).then_some(id);
            updates.push(Update { name: name.to_owned(), old: known(old), new: known(new) });
            true
        });
        let mut options = FetchOptions::new();
        // FETCH_HEAD would keep the URL with its password.
        options
            .remote_callbacks(callbacks)
            .download_tags(wanted.tags)
            .update_fetchhead(false)
            .prune(FetchPrune::Off);
        if let Location::Local(path) = &self.location {
            let source = local::open(path)?;
            let wants = self.wants(wanted)?;
            local::transfer(&operation, &source, self.repository, &wants, wanted.depth)?;
        } else if let Some(depth) = wanted.depth {
            options.depth(match depth {
                Depth::Commits(commits) => i32::try_from(commits).unwrap_or(UNSHALLOW),
                Depth::Whole => UNSHALLOW,
            });
        }
        let fetched = self.remote.fetch(wanted.refspecs, Some(&mut options), Some(wanted.message));
        drop(options);
        fetched.map_err(|error| sorted(&operation, &self.location, error))?;
        // Made empty by libgit2, whatever it is told.
        let _ = std::fs::remove_file(self.repository.path().join("FETCH_HEAD"));
        Ok(updates)
    }

    /// Writes what `git merge FETCH_HEAD` would merge, without the secrets of the URL.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn note(&self, id: Oid, branch: &str) -> Result<()> {
        let path = self.repository.path().join("FETCH_HEAD");
        let text = format!("{id}\t\tbranch '{branch}' of {}\n", self.location);
        std::fs::write(&path, text).map_err(|error| Error::io("write", &path, error))
    }

    /// Objects that the refspecs name.
    fn wants(&self, wanted: &Wanted<'_>) -> Result<Vec<Oid>> {
        let mut wants = Vec::new();
        let heads = self.heads()?;
        for refspec in wanted.refspecs {
            let source = refspec.trim_start_matches('+').split(':').next().unwrap_or_default();
            match source.strip_suffix('*') {
                Some(start) => {
                    wants
                        .extend(heads.iter().filter(|head| head.name.starts_with(start)).map(|head| head.id));
                }
                None => match Oid::from_str(source) {
                    Ok(id) if source.len() == 40 => wants.push(id),
                    _ => wants.extend(heads.iter().filter(|head| head.name == source).map(|head| head.id)),
                },
            }
        }
        if wanted.tags == AutotagOption::All {
            let tags = heads
                .iter()
                .filter(|head| head.name.starts_with("refs/tags/") && !head.name.ends_with("^{}"));
            wants.extend(tags.map(|head| head.id));
        }
        Ok(wants)
    }

    /// Pushes over this connection, and ends it; gives what the remote says of the ref, which is nothing when it took
    /// it.
    ///
    /// # Errors
    /// Those of the network, and when it would not be a fast-forward.
    pub(super) fn push(&mut self, refspec: &str) -> Result<Option<String>> {
        let (operation, mut refusal) = (Arc::clone(&self.operation), None);
        let mut callbacks = callbacks(&operation);
        callbacks.push_update_reference(|_, status| {
            refusal = status.map(str::to_owned);
            Ok(())
        });
        callbacks.push_transfer_progress(|current, total, bytes| {
            operation.progress(|| format!("push: {current} of {total} objects, {bytes} bytes"));
        });
        let mut options = git2::PushOptions::new();
        options.remote_callbacks(callbacks).packbuilder_parallelism(0);
        let pushed = self.remote.push(&[refspec], Some(&mut options));
        drop(options);
        pushed.map_err(|error| sorted(&operation, &self.location, error))?;
        Ok(refusal)
    }
}

/// Takes care that what a URL has of secrets is in no message.
fn conceal(operation: &Operation, location: &Location) {
    if let Location::Http(url) = location {
        let alone = url.user.clone().map(|user| Login { user, password: String::new() });
        url.login.iter().chain(&alone).for_each(|login| operation.conceal(login));
    }
}

fn callbacks(operation: &Arc<Operation>) -> RemoteCallbacks<'_> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(|progress| {
        operation.progress(|| {
            let (received, total) = (progress.received_objects(), progress.total_objects());
            format!("fetch: {received} of {total} objects, {} bytes", progress.received_bytes())
        });
        !operation.is_cancelled()
    });
    callbacks.sideband_progress(|text| {
        operation.remark(text);
        !operation.is_cancelled()
    });
    callbacks
}

/// Why a call into libgit2 failed: what its transport left behind, else what it says itself.
fn sorted(operation: &Operation, location: &Location, error: git2::Error) -> Error {
    if let Some(error) = operation.failure() {
        return error;
    }
    if let Err(stopping) = operation.check() {
        return stopping;
    }
    if let Some(words) = error.message().strip_prefix("remote error: ") {
        return remarks::sorted(&location.to_string(), words.trim());
    }
    match (error.code(), error.message()) {
        (git2::ErrorCode::NotFastForward, _) => {
            let text =
                format!("push to {location}: the remote has commits that are not in the branch: pull first");
            Error::new(ErrorKind::GitPushRejected, text).with_source(error)
        }
        (_, text) if text.starts_with("unpacking the sent packfile failed") => {
            let text = format!("{location} did not take the objects: {}", operation.remarks());
            Error::new(ErrorKind::GitRemoteRejected, text).with_source(error)
        }
        (git2::ErrorCode::Eof, _) => {
            transport(format!("{location}: the connection was cut")).with_source(error)
        }
        _ => failed(&format!("speak to {location}"), error),
    }
}

/// A remote of a repository, as its configuration has it.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) push_url: String,
}

impl Configured {
    /// # Errors
    /// When there is no such remote, or its name cannot be one.
    pub(super) fn find(repository: &Repository, name: &str) -> Result<Self> {
        if !Remote::is_valid_name(name) {
            return Err(Error::invalid(format!("{name:?} cannot be the name of a remote")));
        }
        let missing = || Error::not_found(format!("remote not found: {name}"));
        let config = repository
            .config()
            .and_then(|mut config| config.snapshot())
            .map_err(failing("read the configuration"))?;
        let first = |variable: &str| -> Option<String> {
            let mut entries = config.multivar(&format!("remote.{name}.{variable}"), None).ok()?;
            entries.next()?.ok()?.value().ok().map(str::to_owned)
        };
        let url = first("url").ok_or_else(missing)?;
        Ok(Self { name: name.to_owned(), push_url: first("pushurl").unwrap_or_else(|| url.clone()), url })
    }

    /// Where the remote's branch is kept: what the configuration says, else the usual place.
    pub(super) fn tracking(&self, repository: &Repository, branch: &str) -> String {
        self.configured_tracking(repository, branch)
            .unwrap_or_else(|| format!("refs/remotes/{}/{branch}", self.name))
    }

    /// As the configuration says; none when it leaves the branch out, as that of a clone of a single other branch.
    pub(super) fn configured_tracking(&self, repository: &Repository, branch: &str) -> Option<String> {
        let source = format!("refs/heads/{branch}");
        let remote = repository.find_remote(&self.name).ok()?;
        let fetching = remote
            .refspecs()
            .filter(|spec| spec.direction() == Direction::Fetch && spec.src_matches(&source));
        let mut names =
            fetching.filter_map(|spec| spec.transform(&source).ok()?.as_str().ok().map(str::to_owned));
        names.find(|name| !name.is_empty())
    }

    /// What the configuration lacks for the branch to have a place.
    pub(super) fn missing_refspec(&self, repository: &Repository, branch: &str) -> Option<String> {
        let is_missing = self.configured_tracking(repository, branch).is_none();
        is_missing.then(|| format!("+refs/heads/{branch}:refs/remotes/{}/{branch}", self.name))
    }

    /// For messages and logs.
    pub(super) fn shown(&self) -> String {
        location::shown(&self.url)
    }
}

/// What is to be written into a repository's configuration after an operation.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) file: PathBuf,
    /// A remote, and what to fetch of it as well.
    pub(super) refspec: Option<(String, String)>,
    /// A branch, and the remote whose branch of the same name it follows.
    pub(super) upstream: Option<(String, String)>,
}

impl Settings {
    pub(super) fn of(repository: &Repository) -> Self {
        Self { file: repository.commondir().join("config"), refspec: None, upstream: None }
    }

    pub(super) fn are_empty(&self) -> bool {
        self.refspec.is_none() && self.upstream.is_none()
    }

    /// # Errors
    /// When the configuration has something else in their place.
    pub(super) fn write(&self, config: &mut Config) -> Result<()> {
        let mut write = || -> Result<(), git2::Error> {
            if let Some((remote, refspec)) = &self.refspec {
                // A value that no pattern fits is added.
                config.set_multivar(&format!("remote.{remote}.fetch"), "^$never", refspec)?;
            }
            if let Some((branch, remote)) = &self.upstream {
                config.set_str(&format!("branch.{branch}.remote"), remote)?;
                config.set_str(&format!("branch.{branch}.merge"), &format!("refs/heads/{branch}"))?;
            }
            Ok(())
        };
        write().map_err(failing("change the settings"))
    }
}

/// What a fetch is asked for.
#[derive(Debug, Default)]
pub struct FetchRequest {
    /// `origin` by default.
    pub remote: Option<String>,
    /// Only this branch; by default what the configuration says.
    pub branch: Option<String>,
    /// Commits of history from each tip.
    pub depth: Option<u32>,
    /// All of the history, of a shallow clone.
    pub unshallow: bool,
    /// Removes what the remote has no more.
    pub prune: bool,
    /// All tags, and not only those that point into what is fetched.
    pub tags: bool,
}

/// Brings refs and objects; nothing in the work tree changes.
///
/// # Errors
/// Those of contract `git.md` 1.2.
pub(super) fn fetch(
    operation: &Arc<Operation>,
    repository: &Repository,
    request: &FetchRequest,
) -> Result<(Vec<Update>, Settings)> {
    let remote = Configured::find(repository, request.remote.as_deref().unwrap_or("origin"))?;
    let base = base(repository);
    let mut link = Link::connect(operation, repository, &remote.url, &base, Direction::Fetch)?;
    let heads = link.heads()?;
    let mut named = None;
    let refspecs = match &request.branch {
        Some(branch) => {
            check_name(branch)?;
            named = Some((find_branch(&heads, branch, &remote.shown())?, branch));
            vec![format!("+refs/heads/{branch}:{}", remote.tracking(repository, branch))]
        }
        None => configured(repository, &remote)?,
    };
    let depth = match (request.unshallow, request.depth) {
        (true, _) => repository.is_shallow().then_some(Depth::Whole),
        (false, depth) => depth.map(Depth::Commits),
    };
    let tags = if request.tags { AutotagOption::All } else { AutotagOption::Auto };
    let message = format!("fetch {}", remote.name);
    let mut updates = link.fetch(&Wanted { refspecs: &refspecs, tags, depth, message: &message })?;
    let mut settings = Settings::of(repository);
    if let Some((id, branch)) = named {
        link.note(id, branch)?;
        settings.refspec =
            remote.missing_refspec(repository, branch).map(|refspec| (remote.name.clone(), refspec));
    }
    if request.prune {
        updates.extend(prune(repository, &heads, &refspecs)?);
    }
    Ok((updates, settings))
}

/// Fetches what will be a remote, as it will be configured.
///
/// # Errors
/// As [`fetch`], and when the name is taken.
pub(super) fn fetch_new(
    operation: &Arc<Operation>,
    repository: &Repository,
    name: &str,
    url: &str,
    overwrite: bool,
) -> Result<()> {
    if name.starts_with('-') || !Remote::is_valid_name(name) {
        return Err(Error::invalid(format!("invalid remote name: {name:?}")));
    }
    if !overwrite && Configured::find(repository, name).is_ok() {
        return Err(Error::new(ErrorKind::Conflict, format!("remote {name} already exists")));
    }
    let mut link = Link::connect(operation, repository, url, &base(repository), Direction::Fetch)?;
    let refspecs = [format!("+refs/heads/*:refs/remotes/{name}/*")];
    let message = format!("fetch {name}");
    link.fetch(&Wanted { refspecs: &refspecs, tags: AutotagOption::Auto, depth: None, message: &message })?;
    Ok(())
}

fn configured(repository: &Repository, remote: &Configured) -> Result<Vec<String>> {
    let found = repository.find_remote(&remote.name).map_err(failing("read the configuration"))?;
    let specs = found.fetch_refspecs().map_err(failing("read the configuration"))?;
    let specs: Vec<String> = specs.iter().filter_map(|spec| spec.ok().flatten().map(str::to_owned)).collect();
    if specs.is_empty() {
        return Ok(vec![format!("+refs/heads/*:refs/remotes/{}/*", remote.name)]);
    }
    Ok(specs)
}

/// Removes refs that stand for what the remote has no more.
fn prune(repository: &Repository, heads: &[Head], refspecs: &[String]) -> Result<Vec<Update>> {
    let mut removed = Vec::new();
    for refspec in refspecs {
        let Some((source, target)) = refspec.trim_start_matches('+').split_once(':') else { continue };
        let (Some(source), Some(target)) = (source.strip_suffix('*'), target.strip_suffix('*')) else {
            continue;
        };
        let found = repository.references_glob(&format!("{target}*")).map_err(failing("list refs"))?;
        for reference in found {
            let mut reference = reference.map_err(failing("list refs"))?;
            let Ok(name) = reference.name().map(str::to_owned) else { continue };
            let Some(rest) = name.strip_prefix(target) else { continue };
            let is_there = heads.iter().any(|head| head.name.strip_prefix(source) == Some(rest));
            // A symbolic one is ours: which of the remote's branches is its default.
            if let (false, Some(old)) = (is_there, reference.target()) {
                reference.delete().map_err(failing("remove a ref"))?;
                removed.push(Update { name, old: Some(old), new: None });
            }
        }
    }
    Ok(removed)
}

/// The remote's branch.
///
/// # Errors
/// [`ErrorKind::GitBranchNotFound`], which says when there is a tag of that name.
pub(super) fn find_branch(heads: &[Head], branch: &str, shown: &str) -> Result<Oid> {
    let find = |name: String| heads.iter().find(|head| head.name == name);
    if let Some(head) = find(format!("refs/heads/{branch}")) {
        return Ok(head.id);
    }
    let text = match find(format!("refs/tags/{branch}")) {
        Some(_) => format!("{branch} is a tag and no branch of {shown}"),
        None => format!("branch not found: {branch} at {shown}"),
    };
    Err(Error::new(ErrorKind::GitBranchNotFound, text))
}

/// What relative URLs of a repository's remotes are relative to.
pub(super) fn base(repository: &Repository) -> PathBuf {
    repository.workdir().unwrap_or_else(|| repository.path()).to_owned()
}
