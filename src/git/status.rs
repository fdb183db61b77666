//! What has changed: libgit2's flags in the contract's words, and where the branch is beside its upstream.

use git2::{ErrorCode, IndexEntryExtendedFlag, Repository, StatusOptions};

use super::failure::{failed, failing};
use super::locks::Writers;
use super::racy;
use super::service::{Git, lock_key, work_tree};
use super::survey::survey;
use crate::error::Result;

/// With more files that are not known to be as they were, what the index knows of them is brought up to date.
const STALE: usize = 64;

/// The state of a work tree.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) head: Head,
    pub(super) upstream: Option<Upstream>,
    /// Changed and untracked files, sorted by the bytes of their names.
    pub(super) files: Vec<FileStatus>,
}

/// What is checked out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// A branch by its short name; it may have no commit yet.
    Branch(String),
    /// A commit that is on no branch, or whose branch does not matter.
    Detached,
}

/// What a branch follows.
#[derive(Debug)]
pub(super) struct Upstream {
    /// As in `origin/main`.
    pub(super) name: String,
    /// Whether it was there when it was last fetched.
    pub(super) exists: bool,
    /// Commits that the branch has and it has not.
    pub(super) ahead: usize,
    /// Commits that it has and the branch has not.
    pub(super) behind: usize,
}

/// A file that is not as it was committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileStatus {
    /// Relative to the root.
    pub(super) path: Vec<u8>,
    /// From HEAD to the index.
    pub(super) staging: Change,
    /// From the index to the work tree.
    pub(super) worktree: Change,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Unmodified,
    Untracked,
    Modified,
    Added,
    Deleted,
    Unmerged,
}

impl Git {
    /// What has changed in a work tree.
    ///
    /// # Errors
    /// When there is no repository, or it is bare.
    pub(super) async fn status(&self, path: &str) -> Result<Status> {
        let writers = self.writers.clone();
        self.read(path, move |repository| {
            work_tree(repository)?;
            let head = head(repository)?;
            let upstream = match &head {
                Head::Branch(branch) => upstream(repository, branch)?,
                Head::Detached => None,
            };
            Ok(Status { head, upstream, files: changes(repository, &writers)? })
        })
        .await
    }
}

/// What HEAD is.
///
/// # Errors
/// When HEAD cannot be read.
pub(super) fn head(repository: &Repository) -> Result<Head> {
    let head = repository.find_reference("HEAD").map_err(failing("read HEAD"))?;
    let target = head.symbolic_target_bytes().map(|target| String::from_utf8_lossy(target).into_owned());
    Ok(match target.as_deref().and_then(|target| target.strip_prefix("refs/heads/")) {
        Some(branch) => Head::Branch(branch.to_owned()),
        None => Head::Detached,
    })
}

/// What `branch` is configured to follow, whether or not it has been fetched.
///
/// # Errors
/// When refs or history cannot be read.
pub(super) fn upstream(repository: &Repository, branch: &str) -> Result<Option<Upstream>> {
    let local = format!("refs/heads/{branch}");
    let Ok(full) = repository.branch_upstream_name(&local) else { return Ok(None) };
    let full = String::from_utf8_lossy(&full).into_owned();
    let short = ["refs/remotes/", "refs/heads/"].iter().find_map(|prefix| full.strip_prefix(prefix));
    let name = short.unwrap_or(&full).to_owned();
    let id = |name: &str| match repository.refname_to_id(name) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(failed(&format!("read {name}"), error)),
    };
    let (ahead, behind) = match (id(&local)?, id(&full)?) {
        (_, None) => return Ok(Some(Upstream { name, exists: false, ahead: 0, behind: 0 })),
        (None, Some(_)) => (0, 0),
        (Some(own), Some(theirs)) => {
            repository.graph_ahead_behind(own, theirs).map_err(failing("compare with the upstream"))?
        }
    };
    Ok(Some(Upstream { name, exists: true, ahead, behind }))
}

fn changes(repository: &Repository, writers: &Writers) -> Result<Vec<FileStatus>> {
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).exclude_submodules(false);
    let mut is_stale = true;
    match survey(repository) {
        Some(suspects) if suspects.is_empty() => return Ok(Vec::new()),
        Some(suspects) => {
            is_stale = suspects.len() > STALE;
            options.disable_pathspec_match(true);
            for path in suspects {
                options.pathspec(path);
            }
        }
        None => {}
    }
    // As git does: the next one need not look at their contents again. Others who write go first.
    let turn = if is_stale { writers.try_turn(lock_key(repository)) } else { None };
    let turn = turn.filter(|_| racy::forget(repository).is_ok()); // one that cannot be written is left alone
    let mut statuses = repository.statuses(Some(options.update_index(turn.is_some())));
    if turn.is_some() && statuses.as_ref().is_err_and(|error| error.code() == ErrorCode::Locked) {
        statuses = repository.statuses(Some(options.update_index(false)));
    }
    let statuses = statuses.map_err(failing("compare the work tree"))?;
    drop(turn);
    let index = repository.index().map_err(failing("read the index"))?;
    let mut files: Vec<FileStatus> = statuses
        .iter()
        .filter_map(|entry| {
            let path = entry.path_bytes();
            let flags =
                index.find_prefix(path).ok().and_then(|at| index.get(at)).filter(|found| found.path == path);
            let flags = flags.map_or(0, |found| found.flags_extended);
            let (staging, worktree) =
                words(entry.status(), IndexEntryExtendedFlag::from_bits_truncate(flags));
            let is_changed = (staging, worktree) != (Change::Unmodified, Change::Unmodified);
            is_changed.then(|| FileStatus { path: path.to_owned(), staging, worktree })
        })
        .collect();
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The two columns of `git status --porcelain` for libgit2's flags of one file.
fn words(status: git2::Status, entry: IndexEntryExtendedFlag) -> (Change, Change) {
    use git2::Status as Is;
    if status.contains(Is::CONFLICTED) {
        return (Change::Unmerged, Change::Unmerged);
    }
    let staging = if status.contains(Is::INDEX_NEW) {
        Change::Added
    } else if status.contains(Is::INDEX_DELETED) {
        Change::Deleted
    } else if status.intersects(Is::INDEX_MODIFIED | Is::INDEX_TYPECHANGE | Is::INDEX_RENAMED) {
        Change::Modified
    } else {
        Change::Unmodified
    };
    // A sparse checkout leaves files out on purpose.
    let is_left_out = entry.contains(IndexEntryExtendedFlag::SKIP_WORKTREE);
    let worktree = if status.contains(Is::WT_NEW) {
        Change::Untracked
    } else if status.contains(Is::WT_DELETED) && !is_left_out {
        Change::Deleted
    } else if status.intersects(Is::WT_MODIFIED | Is::WT_TYPECHANGE | Is::WT_RENAMED) {
        Change::Modified
    } else {
        Change::Unmodified
    };
    match (staging, worktree) {
        // `git add --intent-to-add`: the index knows the name and no content.
        (Change::Added, _) if entry.contains(IndexEntryExtendedFlag::INTENT_TO_ADD) => {
            (Change::Unmodified, Change::Added)
        }
        (Change::Unmodified, Change::Untracked) => (Change::Untracked, Change::Untracked),
        columns => columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_columns_of_porcelain() {
        use Change::{Added, Deleted, Modified, Unmerged, Unmodified, Untracked};
        use git2::Status as Is;
        let none = IndexEntryExtendedFlag::empty();
        for (status, columns) in [
            (Is::WT_NEW, (Untracked, Untracked)),
            (Is::INDEX_NEW, (Added, Unmodified)),
            (Is::INDEX_NEW | Is::WT_MODIFIED, (Added, Modified)),
            (Is::INDEX_DELETED | Is::WT_NEW, (Deleted, Untracked)),
            (Is::INDEX_TYPECHANGE, (Modified, Unmodified)),
            (Is::WT_DELETED, (Unmodified, Deleted)),
            (Is::CONFLICTED | Is::WT_MODIFIED, (Unmerged, Unmerged)),
        ] {
            assert_eq!(words(status, none), columns, "{status:?}");
        }
        let sparse = IndexEntryExtendedFlag::SKIP_WORKTREE;
        assert_eq!(words(Is::WT_DELETED, sparse), (Unmodified, Unmodified));
        let intent = IndexEntryExtendedFlag::INTENT_TO_ADD;
        assert_eq!(words(Is::INDEX_NEW | Is::WT_MODIFIED, intent), (Unmodified, Added));
    }
}
