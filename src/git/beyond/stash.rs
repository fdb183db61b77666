//! The stash: uncommitted changes put aside and taken back.

use git2::build::CheckoutBuilder;
use git2::{ErrorCode, Index, Oid, Repository, Signature, StashApplyOptions, StashFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::head_commit;
use crate::git::failure::{failed, failing};
use crate::git::history::rfc_3339;
use crate::git::service::{Git, work_tree};
use crate::git::worktree::{fresh_index, left_out, refuse_changes_between, refuse_unmerged};

/// Changes that were put aside.
#[derive(Debug)]
pub(super) struct Stash {
    /// 0 is the newest.
    pub(super) index: usize,
    pub(super) hash: String,
    pub(super) message: String,
    pub(super) timestamp: String,
}

/// What to put aside.
#[derive(Debug, Default)]
pub(super) struct StashOrder {
    pub(super) message: Option<String>,
    /// Whether untracked files, but not ignored ones, go along.
    pub(super) untracked: bool,
    /// Whether what is staged stays in index and work tree as well.
    pub(super) keep_index: bool,
}

impl Git {
    /// All that was put aside, newest first.
    ///
    /// # Errors
    /// When there is no repository.
    pub(super) async fn stashes(&self, path: &str) -> Result<Vec<Stash>> {
        self.read(path, |repository| {
            let mut found = Vec::new();
            let listed = repository.stash_foreach(|index, message, id| {
                found.push((index, message.to_owned(), *id));
                true
            });
            listed.map_err(failing("list stashes"))?;
            found
                .into_iter()
                .map(|(index, message, id)| {
                    let commit = repository.find_commit(id).map_err(failing("read the stash"))?;
                    Ok(Stash { index, hash: id.to_string(), message, timestamp: rfc_3339(commit.time()) })
                })
                .collect()
        })
        .await
    }

    /// Puts uncommitted changes aside; index and work tree are those of HEAD then.
    ///
    /// # Errors
    /// When there are none, no commit yet, or unmerged files.
    pub(super) async fn stash(&self, path: &str, order: StashOrder) -> Result<Oid> {
        self.change(path, move |repository| {
            work_tree(repository)?;
            head_commit(repository)?;
            let index = fresh_index(repository)?;
            refuse_unmerged(&index)?;
            if !left_out(&index).is_empty() {
                // libgit2 would put them aside as deleted.
                let text = "stash does not work in a sparse checkout: files that are left out would count as deleted";
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            drop(index);
            // As git does when nobody has said who they are.
            let identity = repository.signature().or_else(|_| Signature::now("git", "git@stash"));
            let identity = identity.map_err(failing("stash"))?;
            let mut flags = StashFlags::DEFAULT;
            flags.set(StashFlags::INCLUDE_UNTRACKED, order.untracked);
            flags.set(StashFlags::KEEP_INDEX, order.keep_index);
            repository.stash_save2(&identity, order.message.as_deref(), Some(flags)).map_err(|error| {
                match error.code() {
                    ErrorCode::NotFound => {
                        Error::new(ErrorKind::Conflict, "there are no changes to stash").with_source(error)
                    }
                    _ => failed("stash", error),
                }
            })
        })
        .await
    }

    /// Takes changes back; with `pop` they leave the stash, unless they conflict with what is committed by now.
    ///
    /// # Errors
    /// When there is no such stash, uncommitted changes are in the way (nothing has changed then), or there are
    /// conflicts, which are left in the work tree to be resolved.
    pub(super) async fn apply_stash(&self, path: &str, at: usize, with_index: bool, pop: bool) -> Result<()> {
        self.change(path, move |repository| {
            work_tree(repository)?;
            let index = fresh_index(repository)?;
            refuse_unmerged(&index)?;
            let id = find(repository, at)?;
            refuse_changes_in_the_way(repository, &index, id)?;
            drop(index);
            let mut checkout = CheckoutBuilder::new();
            checkout.safe().allow_conflicts(false).overwrite_ignored(false);
            let mut options = StashApplyOptions::new();
            options.checkout_options(checkout);
            if with_index {
                options.reinstantiate_index();
            }
            repository.stash_apply(at, Some(&mut options)).map_err(|error| match error.code() {
                ErrorCode::Exists | ErrorCode::Conflict | ErrorCode::Uncommitted => {
                    let text = "worktree contains changes that the stash would overwrite";
                    Error::new(ErrorKind::GitDirtyWorktree, text).with_source(error)
                }
                _ => failed("apply the stash", error),
            })?;
            refuse_unmerged(&fresh_index(repository)?)?;
            if pop { repository.stash_drop(at).map_err(failing("drop the stash")) } else { Ok(()) }
        })
        .await
    }

    /// Forgets changes that were put aside.
    ///
    /// # Errors
    /// When there is no such stash.
    pub(super) async fn drop_stash(&self, path: &str, at: usize) -> Result<()> {
        self.change(path, move |repository| {
            find(repository, at)?;
            repository.stash_drop(at).map_err(failing("drop the stash"))
        })
        .await
    }
}

fn find(repository: &mut Repository, at: usize) -> Result<Oid> {
    let mut found = None;
    let looked = repository.stash_foreach(|index, _, id| {
        if index == at {
            found = Some(*id);
        }
        found.is_none()
    });
    match (found, looked) {
        (Some(id), _) => Ok(id), // stopping early counts as an error
        (None, Err(error)) => Err(failed("list stashes", error)),
        (None, Ok(())) => Err(Error::not_found(format!("there is no stash {at}"))),
    }
}

/// libgit2 brings untracked files back before it looks at the others.
fn refuse_changes_in_the_way(repository: &Repository, index: &Index, stash: Oid) -> Result<()> {
    let failing = failing("read the stash");
    let commit = repository.find_commit(stash).map_err(&failing)?;
    let (base, changed) = (commit.parent(0).and_then(|base| base.tree()), commit.tree());
    let (base, changed) = (base.map_err(&failing)?, changed.map_err(&failing)?);
    let untracked = (commit.parent_count() > 2).then(|| commit.parent(2).and_then(|files| files.tree()));
    let untracked = untracked.transpose().map_err(&failing)?;
    let mut trees = vec![(Some(&base), &changed)];
    trees.extend(untracked.as_ref().map(|files| (None, files)));
    refuse_changes_between(repository, index, &trees)
}
