//! Reset and restore: what gives changes up on purpose, and no others.

use std::collections::BTreeSet;
use std::path::Path;

use git2::build::CheckoutBuilder;
use git2::{Commit, ErrorCode, Index, Repository, ResetType, Tree, TreeWalkMode, TreeWalkResult};

use super::branches::{head_commit, revision};
use super::failure::{failed, failing};
use super::pathspec::{self, covers};
use super::service::{Git, work_tree};
use super::status::{Head, head};
use super::worktree::{
    as_path, blank_entry, entry, fresh_index, head_tree, listed, remove_file, reset_merge, switch,
};
use crate::error::{Error, ErrorKind, Result};

/// What a reset changes beside HEAD (git-reset(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// Nothing.
    Soft,
    /// The index.
    #[default]
    Mixed,
    /// Index and work tree: uncommitted changes are given up.
    Hard,
    /// As hard, but unstaged changes are kept, and it fails where they are in the way.
    Merge,
    /// As checkout: uncommitted changes are kept, and it fails where they are in the way.
    Keep,
}

impl std::str::FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "soft" => Self::Soft,
            "mixed" => Self::Mixed,
            "hard" => Self::Hard,
            "merge" => Self::Merge,
            "keep" => Self::Keep,
            _ => {
                let text = format!("mode must be soft, mixed, hard, merge or keep, not {text:?}");
                return Err(Error::invalid(text));
            }
        })
    }
}

/// What to take back to an earlier state.
#[derive(Debug)]
pub(super) struct Restore {
    /// Paths below the root.
    pub(super) files: Vec<String>,
    /// In the index.
    pub(super) staged: bool,
    /// In the work tree.
    pub(super) worktree: bool,
    /// The revision that has it; by default the index, and HEAD when the index is to change.
    pub(super) source: Option<String>,
}

impl Git {
    /// Moves HEAD, and its branch, to another commit; index and work tree follow as `mode` says. With `files` HEAD
    /// stays, and only they change in the index.
    ///
    /// # Errors
    /// When there is no such revision or file, or changes that are to be kept are in the way.
    pub(super) async fn reset(
        &self,
        path: &str,
        mode: Mode,
        target: Option<String>,
        files: Vec<String>,
    ) -> Result<()> {
        if mode != Mode::Mixed && !files.is_empty() {
            return Err(Error::invalid("files can only be reset with mode mixed"));
        }
        self.change(path, move |repository| match target.as_deref() {
            // As git does, so that the first files can be unstaged.
            None | Some("HEAD")
                if repository.head().is_err_and(|error| error.code() == ErrorCode::UnbornBranch) =>
            {
                reset_unborn(repository, mode, &files)
            }
            target => {
                let commit = revision(repository, target.unwrap_or("HEAD"))?;
                if files.is_empty() {
                    reset(repository, mode, &commit)
                } else {
                    let tree = commit.tree().map_err(failing("read the commit"))?;
                    reset_files(repository, Some(&tree), &files)
                }
            }
        })
        .await
    }

    /// Takes files back to what the index, HEAD or another revision has.
    ///
    /// # Errors
    /// When no such revision or file is known, and nothing has changed then.
    pub(super) async fn restore(&self, path: &str, order: Restore) -> Result<()> {
        self.change(path, move |repository| restore(repository, &order)).await
    }
}

fn reset(repository: &Repository, mode: Mode, commit: &Commit<'_>) -> Result<()> {
    if mode != Mode::Soft && mode != Mode::Mixed {
        work_tree(repository)?;
    }
    let before = repository.refname_to_id("HEAD").ok();
    let to = |kind| {
        let failing = failing("reset");
        repository.reset(commit.as_object(), kind, None).map_err(failing)
    };
    match mode {
        Mode::Soft => to(ResetType::Soft)?,
        Mode::Mixed => to(ResetType::Mixed)?,
        Mode::Hard => reset_hard(repository, commit)?,
        Mode::Keep => switch(repository, commit, || to(ResetType::Mixed))?,
        Mode::Merge => reset_merge(repository, commit, || to(ResetType::Mixed))?,
    }
    if let Some(before) = before {
        // As git does: the way back.
        let _ = repository.reference("ORIG_HEAD", before, true, "reset");
    }
    Ok(())
}

/// libgit2's own hard reset deletes files that the index does not know, when HEAD does. HEAD goes first here, so that
/// only what is tracked goes away.
fn reset_hard(repository: &Repository, commit: &Commit<'_>) -> Result<()> {
    let before = repository.refname_to_id("HEAD").ok();
    let failing = failing("reset");
    move_head(repository, commit.id())?;
    let mut checkout = CheckoutBuilder::new();
    checkout.force();
    let done = repository.checkout_tree(commit.as_object(), Some(&mut checkout)).and_then(|()| {
        let mut index = repository.index()?;
        index.read_tree(&commit.tree()?)?;
        index.write()?;
        repository.cleanup_state()
    });
    done.map_err(|error| {
        if let Some(before) = before
            && let Err(second) = move_head(repository, before)
        {
            tracing::error!("HEAD could not be put back after a failed reset: {second}");
        }
        failing(error)
    })
}

/// Moves what HEAD stands for, the branch or HEAD itself.
fn move_head(repository: &Repository, to: git2::Oid) -> Result<()> {
    let moved = match head(repository)? {
        Head::Branch(name) => {
            let message = format!("reset: moving to {to}");
            repository.reference(&format!("refs/heads/{name}"), to, true, &message).map(drop)
        }
        Head::Detached => repository.set_head_detached(to),
    };
    moved.map_err(failing("move HEAD"))
}

fn reset_unborn(repository: &Repository, mode: Mode, files: &[String]) -> Result<()> {
    match mode {
        Mode::Soft => Ok(()),
        Mode::Mixed if files.is_empty() => {
            let mut index = fresh_index(repository)?;
            index.clear().and_then(|()| index.write()).map_err(failing("write the index"))
        }
        Mode::Mixed => reset_files(repository, None, files),
        Mode::Hard | Mode::Merge | Mode::Keep => head_commit(repository).map(drop),
    }
}

/// Makes the index have of `files` what `tree` has.
fn reset_files(repository: &Repository, tree: Option<&Tree<'_>>, files: &[String]) -> Result<()> {
    let specs = specs(repository, files)?;
    let mut index = fresh_index(repository)?;
    let found = Found::look(&index, tree, &specs)?;
    found.refuse_unknown(&specs, files)?;
    found.stage(&mut index)?;
    index.write().map_err(failing("write the index"))
}

fn restore(repository: &Repository, order: &Restore) -> Result<()> {
    work_tree(repository)?;
    let (staged, worktree) = (order.staged, order.worktree || !order.staged);
    let specs = specs(repository, &order.files)?;
    let source = match &order.source {
        Some(text) => Some(revision(repository, text)?.tree().map_err(failing("read the commit"))?),
        None if staged => head_tree(repository)?,
        None => None,
    };
    let mut index = fresh_index(repository)?;
    let found = Found::look(&index, source.as_ref(), &specs)?;
    found.refuse_unknown(&specs, &order.files)?;
    if !staged && source.is_none() {
        found.refuse_unmerged(&index)?;
    }
    let mut checkout = CheckoutBuilder::new();
    checkout.force().disable_pathspec_match(true);
    // Without any, all is taken: that is what the root stands for.
    if specs.iter().all(|spec| !spec.is_empty()) {
        for spec in &specs {
            checkout.path(spec.as_slice());
        }
    }
    let failing = failing("restore files");
    match (&source, staged, worktree) {
        (None, false, _) => repository.checkout_index(Some(&mut index), Some(&mut checkout)).map_err(failing),
        (Some(tree), false, _) => {
            checkout.update_index(false);
            repository.checkout_tree(tree.as_object(), Some(&mut checkout)).map_err(failing)?;
            found.remove_missing(work_tree(repository)?)
        }
        (_, true, worktree) => {
            if worktree {
                let empty;
                let tree = match &source {
                    Some(tree) => tree,
                    None => {
                        let id = repository
                            .treebuilder(None)
                            .and_then(|builder| builder.write())
                            .map_err(&failing)?;
                        empty = repository.find_tree(id).map_err(&failing)?;
                        &empty
                    }
                };
                repository.checkout_tree(tree.as_object(), Some(&mut checkout)).map_err(&failing)?;
                found.remove_missing(work_tree(repository)?)?;
                index = fresh_index(repository)?;
            }
            found.stage(&mut index)?;
            index.write().map_err(failing)
        }
    }
}

fn specs(repository: &Repository, files: &[String]) -> Result<Vec<Vec<u8>>> {
    let root = work_tree(repository)?;
    files.iter().map(|file| pathspec::below(root, file)).collect()
}

/// What index and tree have of some paths.
struct Found {
    /// All paths that the index has.
    indexed: BTreeSet<Vec<u8>>,
    /// Path, object and mode.
    stored: Vec<(Vec<u8>, git2::Oid, u32)>,
}

impl Found {
    fn look(index: &Index, tree: Option<&Tree<'_>>, specs: &[Vec<u8>]) -> Result<Self> {
        let indexed = specs.iter().flat_map(|spec| pathspec::in_index(index, spec)).collect();
        let mut stored = Vec::new();
        if let Some(tree) = tree {
            let walked = tree.walk(TreeWalkMode::PreOrder, |parent, entry| {
                let path = [parent.as_bytes(), entry.name_bytes()].concat();
                if entry.kind() == Some(git2::ObjectType::Tree) {
                    let leads_to = specs.iter().any(|spec| covers(spec, &path) || covers(&path, spec));
                    return if leads_to { TreeWalkResult::Ok } else { TreeWalkResult::Skip };
                }
                if specs.iter().any(|spec| covers(spec, &path)) {
                    stored.push((path, entry.id(), entry.filemode().cast_unsigned()));
                }
                TreeWalkResult::Ok
            });
            walked.map_err(failing("read the commit"))?;
        }
        Ok(Self { indexed, stored })
    }

    fn refuse_unknown(&self, specs: &[Vec<u8>], files: &[String]) -> Result<()> {
        let is_known = |spec: &[u8]| {
            spec.is_empty()
                || self.indexed.iter().any(|path| covers(spec, path))
                || self.stored.iter().any(|(path, ..)| covers(spec, path))
        };
        match specs.iter().zip(files).find(|(spec, _)| !is_known(spec)) {
            Some((_, file)) => Err(Error::not_found(format!("git knows no such file: {file}"))),
            None => Ok(()),
        }
    }

    fn refuse_unmerged(&self, index: &Index) -> Result<()> {
        let unmerged: Vec<_> = self.indexed.iter().filter(|path| entry(index, path).is_none()).collect();
        if unmerged.is_empty() {
            return Ok(());
        }
        let names = listed(unmerged.into_iter().map(Vec::as_slice));
        Err(Error::new(ErrorKind::GitMergeConflict, format!("there are unmerged files: {names}")))
    }

    /// Removes what the index has and the tree has not; libgit2 takes some names for patterns when it does that.
    fn remove_missing(&self, root: &Path) -> Result<()> {
        let stored: BTreeSet<&[u8]> = self.stored.iter().map(|(path, ..)| path.as_slice()).collect();
        let mut missing = self.indexed.iter().filter(|path| !stored.contains(path.as_slice()));
        missing.try_for_each(|path| remove_file(root, path))
    }

    /// Makes the index have what the tree has, and no more.
    fn stage(&self, index: &mut Index) -> Result<()> {
        let failing = |error| failed("change the index", error);
        let stored: BTreeSet<&[u8]> = self.stored.iter().map(|(path, ..)| path.as_slice()).collect();
        for path in self.indexed.iter().filter(|path| !stored.contains(path.as_slice())) {
            index.remove_path(as_path(path)).map_err(failing)?;
        }
        for (path, id, mode) in &self.stored {
            let current = entry(index, path);
            if current.is_some_and(|entry| entry.id == *id && entry.mode == *mode) {
                continue;
            }
            let unmerged = index.conflict_get(as_path(path)).is_ok();
            if unmerged {
                index.conflict_remove(as_path(path)).map_err(failing)?;
            }
            index.add(&blank_entry(path, *id, *mode)).map_err(failing)?;
        }
        Ok(())
    }
}
