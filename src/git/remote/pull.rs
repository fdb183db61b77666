//! Pull: fetch what a branch follows, then move it there if that is a fast-forward.
//!
//! The network has its part while others may work on the repository; only the move takes its turn. It looks at
//! everything before it changes anything.

use std::sync::Arc;

use git2::{AutotagOption, Direction, ErrorCode, Oid, Repository, StatusOptions};

use super::configured::{Configured, base};
use super::link::{Link, Wanted, find_branch};
use super::operation::Operation;
use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::check_name;
use crate::git::failure::failing;
use crate::git::service::work_tree;
use crate::git::status::{Head, head};
use crate::git::worktree::switch;

/// What to pull.
#[derive(Debug, Default)]
pub struct PullRequest {
    /// What the branch follows, else `origin`.
    pub remote: Option<String>,
    /// What the branch follows, else the remote's branch of the same name.
    pub branch: Option<String>,
    /// Goes on when there are uncommitted changes that are not in the way, and keeps them.
    pub allow_dirty: bool,
}

/// What was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    id: Oid,
    /// For messages: `origin/main`.
    shown: String,
}

/// Brings what is to be pulled.
///
/// # Errors
/// Those of the network, and when there is nothing to follow.
pub(super) fn fetch(
    operation: &Arc<Operation>,
    repository: &Repository,
    request: &PullRequest,
) -> Result<Fetched> {
    work_tree(repository)?;
    let current = head(repository)?;
    let (remote, branch) = source(repository, &current, request)?;
    check_name(&branch)?;
    let remote = Configured::find(repository, &remote)?;
    let mut link = Link::connect(operation, repository, &remote.url, &base(repository), Direction::Fetch)?;
    let id = find_branch(&link.heads()?, &branch, &remote.shown())?;
    let refspec = format!("+refs/heads/{branch}:{}", remote.tracking(repository, &branch));
    let message = format!("pull {} {branch}", remote.name);
    link.fetch(&Wanted { refspecs: &[refspec], tags: AutotagOption::Auto, depth: None, message: &message })?;
    link.note(id, &branch)?;
    Ok(Fetched { id, shown: format!("{}/{branch}", remote.name) })
}

/// Names of the remote and of its branch.
fn source(repository: &Repository, current: &Head, request: &PullRequest) -> Result<(String, String)> {
    let Head::Branch(name) = current else {
        let remote = request.remote.clone().unwrap_or_else(|| "origin".to_owned());
        return match &request.branch {
            Some(branch) => Ok((remote, branch.clone())),
            None => {
                let text = "HEAD is on no branch, so there is no upstream to pull from: name a branch";
                Err(Error::new(ErrorKind::GitBranchNotFound, text))
            }
        };
    };
    let config = repository
        .config()
        .and_then(|mut config| config.snapshot())
        .map_err(failing("read the configuration"))?;
    let setting = |variable: &str| config.get_string(&format!("branch.{name}.{variable}")).ok();
    let followed = setting("remote").filter(|remote| remote != ".");
    let remote = request.remote.clone().or_else(|| followed.clone()).unwrap_or_else(|| "origin".to_owned());
    if let Some(branch) = &request.branch {
        return Ok((remote, branch.clone()));
    }
    let merge = setting("merge").filter(|_| followed.as_ref() == Some(&remote));
    let branch = merge.and_then(|merge| merge.strip_prefix("refs/heads/").map(str::to_owned));
    Ok((remote, branch.unwrap_or_else(|| name.clone())))
}

/// Moves what is checked out to what was fetched.
///
/// # Errors
/// When that is no fast-forward, or uncommitted changes are in the way. Everything is as it was then.
pub(super) fn fast_forward(repository: &Repository, fetched: &Fetched, allow_dirty: bool) -> Result<()> {
    let old = match repository.head() {
        Ok(head) => Some(head.peel_to_commit().map_err(failing("read HEAD"))?.id()),
        Err(error) if error.code() == ErrorCode::UnbornBranch => None,
        Err(error) => return Err(failing("read HEAD")(error)),
    };
    if let Some(old) = old {
        let is_ahead =
            |of: Oid, than: Oid| of == than || repository.graph_descendant_of(of, than).unwrap_or(false);
        if is_ahead(old, fetched.id) {
            return Ok(());
        }
        if !is_ahead(fetched.id, old) {
            let text = format!("non-fast-forward update: the branch and {} have diverged", fetched.shown);
            return Err(Error::new(ErrorKind::GitMergeConflict, text));
        }
    }
    if !allow_dirty {
        refuse_changes(repository)?;
    }
    let commit = repository.find_commit(fetched.id).map_err(failing("read the commit"))?;
    let current = head(repository)?;
    switch(repository, &commit, || {
        let message = "pull: Fast-forward";
        let moved = match (&current, old) {
            (Head::Branch(name), Some(old)) => repository
                .reference_matching(&format!("refs/heads/{name}"), fetched.id, true, old, message)
                .map(drop),
            (Head::Branch(name), None) => {
                repository.reference(&format!("refs/heads/{name}"), fetched.id, false, message).map(drop)
            }
            (Head::Detached, _) => repository.set_head_detached(fetched.id),
        };
        moved.map_err(failing("move the branch"))
    })
}

/// Uncommitted changes of files that git knows.
fn refuse_changes(repository: &Repository) -> Result<()> {
    let mut options = StatusOptions::new();
    options.include_untracked(false).include_ignored(false).exclude_submodules(true);
    let found = repository.statuses(Some(&mut options)).map_err(failing("compare the work tree"))?;
    if found.iter().any(|entry| entry.status().is_conflicted()) {
        return Err(Error::new(ErrorKind::GitMergeConflict, "there are unmerged files"));
    }
    let mut names = found.iter().map(|entry| String::from_utf8_lossy(entry.path_bytes()).into_owned());
    match names.next() {
        None => Ok(()),
        Some(first) => {
            let more = names.count();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let text = format!("worktree contains unstaged changes: {first}{more}");
            Err(Error::new(ErrorKind::GitDirtyWorktree, text))
        }
    }
}
