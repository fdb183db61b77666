//! Branches: list, create, delete.

use std::path::Path;

use git2::{Branch, BranchType, Commit, ErrorCode, Repository};

use super::config::drop_section;
use super::failure::{failed, failing};
use super::service::Git;
use super::status::{Head, head};
use crate::error::{Error, ErrorKind, Result};

/// Local branches.
#[derive(Debug)]
pub(super) struct Branches {
    /// Short names, sorted.
    pub(super) names: Vec<String>,
    /// The one that is checked out; it may have no commit yet.
    pub(super) current: Option<String>,
}

impl Git {
    /// Local branches.
    ///
    /// # Errors
    /// When there is no repository.
    pub(super) async fn branches(&self, path: &str) -> Result<Branches> {
        self.read(path, |repository| {
            let failing = failing("list branches");
            let mut names = Vec::new();
            for branch in repository.branches(Some(BranchType::Local)).map_err(&failing)? {
                let (branch, _) = branch.map_err(&failing)?;
                names.push(String::from_utf8_lossy(branch.name_bytes().map_err(&failing)?).into_owned());
            }
            names.sort_unstable();
            let current = match head(repository)? {
                Head::Branch(name) => Some(name),
                Head::Detached => None,
            };
            Ok(Branches { names, current })
        })
        .await
    }

    /// Creates a branch at HEAD and switches to it. Neither index nor work tree change.
    ///
    /// # Errors
    /// When the name makes no sense or is taken, or there is no commit yet.
    pub(super) async fn create_branch(&self, path: &str, name: String) -> Result<()> {
        self.change(path, move |repository| {
            check_name(&name)?;
            let commit = head_commit(repository)?;
            let mut branch = create(repository, &name, &commit)?;
            repository.set_head(&format!("refs/heads/{name}")).map_err(|error| {
                let _ = branch.delete();
                failed(&format!("switch to {name}"), error)
            })
        })
        .await
    }

    /// Deletes a branch and its settings, merged or not.
    ///
    /// # Errors
    /// When there is no such branch, or it is checked out, here or in a linked work tree.
    pub(super) async fn delete_branch(&self, path: &str, name: String) -> Result<()> {
        self.change(path, move |repository| {
            let branch = find(repository, &name)?.ok_or_else(|| not_found(&name))?;
            let is_current = head(repository)? == Head::Branch(name.clone());
            if is_current || checked_out_elsewhere(repository, &name) {
                let text = format!("cannot delete branch {name}: it is checked out");
                return Err(Error::new(ErrorKind::Conflict, text));
            }
            // libgit2's own way to delete a branch stops at settings that have several values.
            branch.into_reference().delete().map_err(failing(&format!("delete branch {name}")))?;
            drop_section(&repository.commondir().join("config"), "branch", &name)
        })
        .await
    }
}

/// # Errors
/// [`ErrorKind::InvalidInput`] when no branch may have that name (git-check-ref-format(1)).
pub(super) fn check_name(name: &str) -> Result<()> {
    match Branch::name_is_valid(name) {
        Ok(true) => Ok(()),
        _ => Err(Error::invalid(format!("invalid branch name: {name:?}"))),
    }
}

/// A local branch by its short name.
///
/// # Errors
/// When it cannot be read.
pub(super) fn find<'r>(repository: &'r Repository, name: &str) -> Result<Option<Branch<'r>>> {
    match repository.find_branch(name, BranchType::Local) {
        Ok(branch) => Ok(Some(branch)),
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => Ok(None),
        Err(error) => Err(failed(&format!("read branch {name}"), error)),
    }
}

/// Creates a branch, with nothing else changed.
///
/// # Errors
/// [`ErrorKind::GitBranchExists`] when the name is taken, also by what would be a directory of it.
pub(super) fn create<'r>(repository: &'r Repository, name: &str, commit: &Commit<'_>) -> Result<Branch<'r>> {
    let taken = |taken: &str| {
        Error::new(ErrorKind::GitBranchExists, format!("a branch named {taken} already exists"))
    };
    // Branches are files in directories: `a` and `a/b` cannot both be there.
    for (at, _) in name.match_indices('/') {
        if find(repository, &name[..at])?.is_some() {
            return Err(taken(&name[..at]));
        }
    }
    let mut below =
        repository.references_glob(&format!("refs/heads/{name}/*")).map_err(failing("list branches"))?;
    if let Some(below) = below.names().flatten().next() {
        return Err(taken(below.trim_start_matches("refs/heads/")));
    }
    repository.branch(name, commit, false).map_err(|error| match error.code() {
        ErrorCode::Exists => taken(name).with_source(error),
        _ => failed(&format!("create branch {name}"), error),
    })
}

/// The error for a branch, tag or commit that is not there.
pub(super) fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::GitBranchNotFound, format!("reference not found: {name}"))
}

/// The commit that is checked out.
///
/// # Errors
/// [`ErrorKind::GitBranchNotFound`] when there is none yet.
pub(super) fn head_commit(repository: &Repository) -> Result<Commit<'_>> {
    let head = repository.head().and_then(|head| head.peel_to_commit());
    head.map_err(|error| match error.code() {
        ErrorCode::UnbornBranch | ErrorCode::NotFound => {
            let text = "reference not found: HEAD has no commit yet";
            Error::new(ErrorKind::GitBranchNotFound, text).with_source(error)
        }
        _ => failed("read HEAD", error),
    })
}

/// The commit that any revision of gitrevisions(7) means.
///
/// # Errors
/// [`ErrorKind::GitBranchNotFound`] when it means none, [`ErrorKind::InvalidInput`] when it means several.
pub(super) fn revision<'r>(repository: &'r Repository, text: &str) -> Result<Commit<'r>> {
    if text.starts_with('-') {
        return Err(Error::invalid(format!("not a revision: {text:?}")));
    }
    let found = repository.revparse_single(text).and_then(|object| object.peel_to_commit());
    found.map_err(|error| match error.code() {
        ErrorCode::Ambiguous => Error::invalid(format!("revision {text:?} is ambiguous")).with_source(error),
        ErrorCode::NotFound | ErrorCode::InvalidSpec | ErrorCode::Peel | ErrorCode::UnbornBranch => {
            not_found(text).with_source(error)
        }
        _ => failed(&format!("look up {text}"), error),
    })
}

/// Whether another work tree of the same repository has a branch checked out.
pub(super) fn checked_out_elsewhere(repository: &Repository, name: &str) -> bool {
    let (own, common) = (repository.path(), repository.commondir());
    let linked = std::fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten();
    let others = linked.map(|entry| entry.path()).chain([common.to_owned()]);
    let is_own = |directory: &Path| directory.canonicalize().ok() == own.canonicalize().ok();
    let head = format!("ref: refs/heads/{name}");
    let is_bare = |directory: &Path| {
        directory == common
            && repository.config().is_ok_and(|config| config.get_bool("core.bare").unwrap_or(false))
    };
    others.filter(|directory| !is_own(directory) && !is_bare(directory)).any(|directory| {
        std::fs::read_to_string(directory.join("HEAD")).is_ok_and(|text| text.trim_end() == head)
    })
}
