//! Checkout of a branch or a commit. Check first, then change: see [`super::worktree`].

use git2::{Branch, ErrorCode, Repository, RepositoryState};

use super::branches::{checked_out_elsewhere, create, find, revision};
use super::failure::failing;
use super::service::{Git, work_tree};
use super::status::{Head, head};
use super::worktree::switch;
use crate::error::{Error, ErrorKind, Result};

impl Git {
    /// Checks out a local branch, a branch that only one remote has (then a local one is made that follows it), or the
    /// commit of any other revision, which detaches HEAD. Uncommitted changes are kept.
    ///
    /// # Errors
    /// When nothing has that name, or uncommitted changes are in the way; nothing has changed then.
    pub(super) async fn checkout(&self, path: &str, target: String) -> Result<()> {
        self.change(path, move |repository| checkout(repository, &target)).await
    }
}

fn checkout(repository: &Repository, target: &str) -> Result<()> {
    work_tree(repository)?;
    refuse_midway(repository)?;
    if matches!(target, "HEAD" | "@") {
        return revision(repository, target).map(drop); // stays where it is
    }
    if let Some(branch) = find(repository, target)? {
        return to_branch(repository, target, &branch);
    }
    match revision(repository, target) {
        Ok(commit) => switch(repository, &commit, || {
            repository.set_head_detached(commit.id()).map_err(failing("move HEAD"))
        }),
        Err(error) if error.kind() == ErrorKind::GitBranchNotFound => {
            match remote_branch(repository, target)? {
                Some(followed) => to_new_branch(repository, target, &followed),
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// What is being merged would be forgotten.
fn refuse_midway(repository: &Repository) -> Result<()> {
    let what = match repository.state() {
        RepositoryState::Merge => "a merge",
        RepositoryState::CherryPick | RepositoryState::CherryPickSequence => "a cherry-pick",
        RepositoryState::Revert | RepositoryState::RevertSequence => "a revert",
        _ => return Ok(()),
    };
    let text = format!("{what} is in progress: commit or reset first");
    Err(Error::new(ErrorKind::GitMergeConflict, text))
}

fn to_branch(repository: &Repository, name: &str, branch: &Branch<'_>) -> Result<()> {
    if head(repository)? == Head::Branch(name.to_owned()) {
        return Ok(());
    }
    if checked_out_elsewhere(repository, name) {
        let text = format!("branch {name} is checked out in another work tree");
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    let commit = branch.get().peel_to_commit().map_err(failing(&format!("read branch {name}")))?;
    switch(repository, &commit, || set_head(repository, name))
}

fn to_new_branch(repository: &Repository, name: &str, followed: &Branch<'_>) -> Result<()> {
    let commit = followed.get().peel_to_commit().map_err(failing(&format!("read branch {name}")))?;
    let upstream =
        String::from_utf8_lossy(followed.name_bytes().map_err(failing("read a branch"))?).into_owned();
    switch(repository, &commit, || {
        let mut branch = create(repository, name, &commit)?;
        let followed = branch.set_upstream(Some(&upstream)).map_err(failing("set the upstream"));
        followed.and_then(|()| set_head(repository, name)).inspect_err(|_| drop(branch.delete()))
    })
}

fn set_head(repository: &Repository, branch: &str) -> Result<()> {
    repository.set_head(&format!("refs/heads/{branch}")).map_err(failing("move HEAD"))
}

/// The branch of that name which exactly one remote has.
fn remote_branch<'r>(repository: &'r Repository, name: &str) -> Result<Option<Branch<'r>>> {
    let mut found = Vec::new();
    for remote in repository.remotes().map_err(failing("list remotes"))?.iter().flatten().flatten() {
        match repository.find_reference(&format!("refs/remotes/{remote}/{name}")) {
            Ok(reference) => found.push(reference),
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => {}
            Err(error) => return Err(failing("read a branch")(error)),
        }
    }
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop().map(Branch::wrap)),
        count => Err(Error::invalid(format!(
            "{count} remotes have a branch {name}: say which, as in origin/{name}"
        ))),
    }
}
