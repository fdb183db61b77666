//! Connections to remotes through libgit2, and what they bring.

use std::path::Path;
use std::sync::Arc;

use git2::{AutotagOption, Direction, FetchOptions, FetchPrune, Oid, Remote, RemoteCallbacks, Repository};

use super::local;
use super::location::{Location, Login};
use super::operation::{Operation, transport};
use super::remarks;
use crate::error::{Error, ErrorKind, Result};
use crate::git::failure::failed;

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
