//! Moves index and work tree from HEAD to another commit, without losing what is in neither of them.
//!
//! The rules are those of git's two-way merge (git-read-tree(1)): a file that both commits have alike stays as it is,
//! whatever the user did with it; one that differs may only be replaced where index and work tree are as HEAD has them,
//! or the index is already as the other commit has it. Untracked files are never replaced, ignored ones neither. All of
//! this is looked at before anything is changed, and what fails midway is put back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use git2::build::CheckoutBuilder;
use git2::{Commit, Delta, DiffFile, DiffOptions, FileMode, Index, IndexEntry, IndexEntryExtendedFlag, Oid};
use git2::{Repository, Tree};

use super::failure::failing;
use crate::error::{Error, ErrorKind, Result};

/// Names in the message of a refusal; the others are counted.
const NAMED: usize = 5;

/// What a commit or the index has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    id: Oid,
    mode: u32,
}

/// A path at which something has to change.
#[derive(Debug)]
struct Step {
    path: Vec<u8>,
    to: Option<Version>,
    /// What the index has.
    index: Option<IndexEntry>,
    /// Whether the index has several versions of it.
    is_unmerged: bool,
}

impl Step {
    /// Whether the work tree has no part in it: submodules are left alone, and a sparse checkout leaves files out.
    fn is_index_only(&self) -> bool {
        let is_submodule = |mode: u32| mode == u32::from(FileMode::Commit);
        self.index.as_ref().is_some_and(|entry| is_submodule(entry.mode) || is_left_out(entry))
            || self.to.is_some_and(|to| is_submodule(to.mode))
    }
}

/// Whether the work tree lacks a file on purpose.
pub(super) fn is_left_out(entry: &IndexEntry) -> bool {
    entry.flags_extended & IndexEntryExtendedFlag::SKIP_WORKTREE.bits() != 0
}

/// Whether the file is to be added, but nothing of it is staged yet.
pub(super) fn is_intended(entry: &IndexEntry) -> bool {
    entry.flags_extended & IndexEntryExtendedFlag::INTENT_TO_ADD.bits() != 0
}

/// Takes index and work tree from HEAD to `target`; then `finish` moves HEAD. When that fails too, everything is as it
/// was.
///
/// # Errors
/// [`ErrorKind::GitDirtyWorktree`] when uncommitted changes would be lost, [`ErrorKind::GitMergeConflict`] when there
/// are unmerged files, and what `finish` and libgit2 fail with.
pub(super) fn switch(
    repository: &Repository,
    target: &Commit<'_>,
    finish: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let index = fresh_index(repository)?;
    refuse_unmerged(&index)?;
    let from = head_tree(repository)?;
    let to = target.tree().map_err(failing("read the commit"))?;
    let steps = two_way(repository, &index, from.as_ref(), &to)?;
    refuse_lost_changes(repository, &index, &steps)?;
    apply(repository, &steps, &to, finish)
}

/// As `git reset --merge`: index and work tree become those of `target`, but for files whose unstaged changes are on
/// top of what `target` has. What was staged or unmerged is given up.
///
/// # Errors
/// As [`switch`], when unstaged changes are in the way.
pub(super) fn reset_merge(
    repository: &Repository,
    target: &Commit<'_>,
    finish: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let index = fresh_index(repository)?;
    let to = target.tree().map_err(failing("read the commit"))?;
    let unmerged = unmerged(&index)?;
    let mut options = exact();
    let diff = repository.diff_tree_to_index(Some(&to), Some(&index), Some(&mut options));
    let diff = diff.map_err(failing("compare the index"))?;
    let mut steps = Vec::new();
    for delta in diff.deltas() {
        let Some(path) = delta.new_file().path_bytes().or(delta.old_file().path_bytes()) else { continue };
        if !unmerged.contains(path) {
            let to = version(&delta.old_file());
            steps.push(Step { path: path.to_owned(), to, index: entry(&index, path), is_unmerged: false });
        }
    }
    refuse_lost_changes(repository, &index, &steps)?;
    for path in unmerged {
        let to = in_tree(&to, &path)?;
        steps.push(Step { path, to, index: None, is_unmerged: true });
    }
    apply(repository, &steps, &to, finish)
}

/// Refuses what would take files of the work tree from the first to the second of some trees, where they are not as the
/// index has them.
///
/// # Errors
/// [`ErrorKind::GitDirtyWorktree`], naming files.
pub(super) fn refuse_changes_between(
    repository: &Repository,
    index: &Index,
    trees: &[(Option<&Tree<'_>>, &Tree<'_>)],
) -> Result<()> {
    let mut steps = Vec::new();
    for (from, to) in trees {
        let diff = repository.diff_tree_to_tree(*from, Some(to), Some(&mut exact()));
        for delta in diff.map_err(failing("compare the commits"))?.deltas() {
            let Some(path) = delta.new_file().path_bytes().or(delta.old_file().path_bytes()) else {
                continue;
            };
            let to = version(&delta.new_file());
            steps.push(Step { path: path.to_owned(), to, index: entry(index, path), is_unmerged: false });
        }
    }
    refuse_lost_changes(repository, index, &steps)
}

/// Files of the index that the work tree lacks on purpose, as a sparse checkout does: they are not deleted.
pub(super) fn left_out(index: &Index) -> BTreeSet<Vec<u8>> {
    index.iter().filter(is_left_out).map(|entry| entry.path).collect()
}

/// The index as it is on disk now, but for changes of this process that are not written.
///
/// # Errors
/// When it cannot be read.
pub(super) fn fresh_index(repository: &Repository) -> Result<Index> {
    let mut index = repository.index().map_err(failing("read the index"))?;
    index.read(false).map_err(failing("read the index"))?;
    Ok(index)
}

/// The tree of HEAD's commit; none when there is no commit yet.
///
/// # Errors
/// When HEAD cannot be read.
pub(super) fn head_tree(repository: &Repository) -> Result<Option<Tree<'_>>> {
    match repository.head() {
        Ok(head) => head.peel_to_tree().map(Some).map_err(failing("read HEAD")),
        Err(error) if error.code() == git2::ErrorCode::UnbornBranch => Ok(None),
        Err(error) => Err(failing("read HEAD")(error)),
    }
}

/// # Errors
/// [`ErrorKind::GitMergeConflict`] when the index has unmerged files; they are named.
pub(super) fn refuse_unmerged(index: &Index) -> Result<()> {
    if !index.has_conflicts() {
        return Ok(());
    }
    let names = listed(unmerged(index)?.iter().map(Vec::as_slice));
    Err(Error::new(ErrorKind::GitMergeConflict, format!("there are unmerged files: {names}")))
}

fn unmerged(index: &Index) -> Result<BTreeSet<Vec<u8>>> {
    let mut paths = BTreeSet::new();
    for conflict in index.conflicts().map_err(failing("read the index"))? {
        let conflict = conflict.map_err(failing("read the index"))?;
        paths.extend(
            [conflict.ancestor, conflict.our, conflict.their].into_iter().flatten().map(|side| side.path),
        );
    }
    Ok(paths)
}

/// Some names, with commas between, and how many more there are.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut names = names.into_iter();
    let mut text: Vec<_> =
        names.by_ref().take(NAMED).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let more = names.count();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join(", ")
}

/// Which paths have to change, by git's two-way merge.
fn two_way(
    repository: &Repository,
    index: &Index,
    from: Option<&Tree<'_>>,
    to: &Tree<'_>,
) -> Result<Vec<Step>> {
    let mut options = exact();
    let diff = repository.diff_tree_to_tree(from, Some(to), Some(&mut options));
    let diff = diff.map_err(failing("compare the commits"))?;
    let (mut steps, mut lost) = (Vec::new(), BTreeSet::new());
    for delta in diff.deltas() {
        let Some(path) = delta.new_file().path_bytes().or(delta.old_file().path_bytes()) else { continue };
        let (old, new) = (version(&delta.old_file()), version(&delta.new_file()));
        let entry = entry(index, path);
        let current = entry.as_ref().map(|entry| Version { id: entry.id, mode: entry.mode });
        if current == new && new.is_some() {
            continue; // staged already: it stays as it is
        }
        // What was taken out of the index may still be there, untracked: it would be in the way.
        if current == old || current == new {
            steps.push(Step { path: path.to_owned(), to: new, index: entry, is_unmerged: false });
        } else {
            lost.insert(path.to_owned());
        }
    }
    refuse(&lost)?;
    Ok(steps)
}

/// Differences of files alone, as they are.
fn exact() -> DiffOptions {
    let mut options = DiffOptions::new();
    options.include_typechange(true).skip_binary_check(true).ignore_submodules(false);
    options
}

fn version(file: &DiffFile<'_>) -> Option<Version> {
    let mode = file.mode();
    (file.exists() && mode != FileMode::Unreadable).then(|| Version { id: file.id(), mode: mode.into() })
}

fn in_tree(tree: &Tree<'_>, path: &[u8]) -> Result<Option<Version>> {
    match tree.get_path(as_path(path)) {
        Ok(entry) => Ok(Some(Version { id: entry.id(), mode: entry.filemode().cast_unsigned() })),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(failing("read the commit")(error)),
    }
}

/// What the index has at a path that is not unmerged.
pub(super) fn entry(index: &Index, path: &[u8]) -> Option<IndexEntry> {
    index.get_path(as_path(path), 0)
}

pub(super) fn as_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// Refuses steps that would replace what neither the index nor a commit has.
fn refuse_lost_changes(repository: &Repository, index: &Index, steps: &[Step]) -> Result<()> {
    let root = super::service::work_tree(repository)?;
    let steps: Vec<&Step> = steps.iter().filter(|step| !step.is_index_only()).collect();
    if steps.is_empty() {
        return Ok(());
    }
    let mut options = exact();
    options.disable_pathspec_match(true).ignore_submodules(true);
    options
        .include_untracked(true)
        .recurse_untracked_dirs(true)
        .include_ignored(true)
        .recurse_ignored_dirs(true);
    for step in &steps {
        options.pathspec(step.path.as_slice());
    }
    let diff = repository.diff_index_to_workdir(Some(index), Some(&mut options));
    let diff = diff.map_err(failing("compare the work tree"))?;
    // A file that was deleted has nothing to lose.
    let changed = diff.deltas().filter(|delta| delta.status() != Delta::Deleted);
    let mut lost: BTreeSet<Vec<u8>> =
        changed.filter_map(|delta| delta.new_file().path_bytes().map(<[u8]>::to_owned)).collect();
    // Something untracked may be where a directory is needed.
    let leaving: BTreeSet<&[u8]> =
        steps.iter().filter(|step| step.to.is_none()).map(|step| step.path.as_slice()).collect();
    let mut seen = BTreeSet::new();
    for step in steps.iter().filter(|step| step.to.is_some()) {
        for directory in as_path(&step.path).ancestors().skip(1) {
            let bytes = directory.as_os_str().as_bytes();
            if bytes.is_empty() || !seen.insert(bytes) {
                break;
            }
            let found = root.join(directory).symlink_metadata();
            if found.is_ok_and(|found| !found.is_dir()) && !leaving.contains(bytes) {
                lost.insert(bytes.to_owned());
            }
        }
    }
    refuse(&lost)
}

fn refuse(lost: &BTreeSet<Vec<u8>>) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let names = listed(lost.iter().map(Vec::as_slice));
    let text = format!("worktree contains changes that would be overwritten: {names}");
    Err(Error::new(ErrorKind::GitDirtyWorktree, text))
}

/// Takes the steps, and puts everything back when one of them or `finish` fails.
fn apply(
    repository: &Repository,
    steps: &[Step],
    to: &Tree<'_>,
    finish: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // An index is replaced, never written in place: what is open stays as it was.
    let saved = match File::open(repository.path().join("index")) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::internal("read the index").with_source(error)),
    };
    let done = replace(repository, steps, to).and_then(|()| finish());
    let Err(error) = done else { return Ok(()) };
    if let Err(second) = put_back(repository, steps, saved) {
        tracing::error!("what a failed git operation has changed could not be put back: {second}");
    }
    Err(error)
}

fn replace(repository: &Repository, steps: &[Step], to: &Tree<'_>) -> Result<()> {
    let root = super::service::work_tree(repository)?;
    let mut checkout = CheckoutBuilder::new();
    checkout.force().disable_pathspec_match(true);
    let mut is_needed = false;
    for step in steps.iter().filter(|step| !step.is_index_only()) {
        checkout.path(step.path.as_slice());
        is_needed = true;
    }
    if is_needed {
        repository.checkout_tree(to.as_object(), Some(&mut checkout)).map_err(failing("check files out"))?;
    }
    let mut index = repository.index().map_err(failing("read the index"))?;
    let mut has_changed = false;
    for step in steps {
        if step.is_index_only() {
            has_changed = true;
            set_version(&mut index, &step.path, step.to, step.index.as_ref().is_some_and(is_left_out))?;
            if step.to.is_some_and(|to| to.mode == u32::from(FileMode::Commit)) {
                let _ = std::fs::create_dir_all(root.join(as_path(&step.path))); // where a submodule would be
            }
        } else if step.to.is_none() {
            // libgit2 takes some names for patterns when it removes what only the index has.
            remove_file(root, &step.path)?;
            if entry(&index, &step.path).is_some() {
                has_changed = true;
                set_version(&mut index, &step.path, None, false)?;
            }
        }
    }
    if has_changed {
        index.write().map_err(failing("write the index"))?;
    }
    Ok(())
}

/// Removes a file or link, and the directories that are empty then. A directory in its place stays.
///
/// # Errors
/// What the operating system says.
pub(super) fn remove_file(root: &Path, path: &[u8]) -> Result<()> {
    let full = root.join(as_path(path));
    match full.symlink_metadata() {
        Ok(found) if !found.is_dir() => {
            std::fs::remove_file(&full).map_err(|error| Error::io("remove", &full, error))?;
        }
        _ => return Ok(()),
    }
    for directory in as_path(path).ancestors().skip(1).filter(|directory| *directory != Path::new("")) {
        if std::fs::remove_dir(root.join(directory)).is_err() {
            break; // something else is in it
        }
    }
    Ok(())
}

/// Makes the index have `version` at `path`, or nothing.
fn set_version(index: &mut Index, path: &[u8], version: Option<Version>, left_out: bool) -> Result<()> {
    let result = match version {
        Some(Version { id, mode }) => {
            let mut entry = blank_entry(path, id, mode);
            if left_out {
                entry.flags_extended = IndexEntryExtendedFlag::SKIP_WORKTREE.bits();
            }
            index.add(&entry)
        }
        None => index.remove(as_path(path), 0),
    };
    result.map_err(failing("change the index"))
}

/// An index entry that says nothing of the file in the work tree: it is looked at the next time.
pub(super) fn blank_entry(path: &[u8], id: Oid, mode: u32) -> IndexEntry {
    let never = git2::IndexTime::new(0, 0);
    IndexEntry {
        ctime: never,
        mtime: never,
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.to_owned(),
    }
}

/// The index from its old file, and each path that a step may have touched from the index: they were as that has them.
/// Unmerged files stay as they are, nothing has what was in them.
fn put_back(repository: &Repository, steps: &[Step], saved: Option<File>) -> Result<()> {
    let root = super::service::work_tree(repository)?;
    let (path, lock) = (repository.path().join("index"), repository.path().join("index.lock"));
    let failed = |error: io::Error| Error::internal("put the index back").with_source(error);
    match saved {
        Some(mut old) => {
            let mut new = File::create_new(&lock).map_err(failed)?;
            io::copy(&mut old, &mut new).and_then(|_| std::fs::rename(&lock, &path)).map_err(failed)?;
        }
        None => std::fs::remove_file(&path).or_else(unless_missing).map_err(failed)?,
    }
    let mut index = repository.index().map_err(failing("read the index"))?;
    index.read(true).map_err(failing("read the index"))?; // it may have changes that were not written
    let mut checkout = CheckoutBuilder::new();
    checkout.force().disable_pathspec_match(true);
    let mut is_needed = false;
    for step in steps.iter().filter(|step| !step.is_index_only() && !step.is_unmerged) {
        if step.index.is_some() {
            checkout.path(step.path.as_slice());
            is_needed = true;
        } else {
            remove_file(root, &step.path)?;
        }
    }
    if is_needed {
        let failing = failing("put files back");
        repository.checkout_index(Some(&mut index), Some(&mut checkout)).map_err(failing)?;
    }
    Ok(())
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
