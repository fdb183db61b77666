//! Staging and committing.

use std::io;
use std::path::Path;

use git2::{DiffDelta, DiffOptions, ErrorCode, FileMode, Index, IndexEntry, Oid, Repository, Signature};
use rustix::fs::FileType;

use super::branches::head_commit;
use super::failure::{failing, words};
use super::pathspec;
use super::service::{Git, work_tree};
use super::survey::{staged, unstaged};
use super::worktree::{as_path, entry, fresh_index, is_intended, is_left_out, refuse_unmerged};
use crate::error::{Error, ErrorKind, Result};

/// Files of git that say what the next commit concludes.
const CONCLUDED: &[&str] =
    &["MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "CHERRY_PICK_HEAD", "REVERT_HEAD", "SQUASH_MSG"];

/// What to commit.
#[derive(Debug)]
pub(super) struct CommitOrder {
    /// Stored byte for byte.
    pub(super) message: String,
    /// Name of author and committer.
    pub(super) author: String,
    /// Address of author and committer.
    pub(super) email: String,
    /// Whether nothing needs to have changed.
    pub(super) allow_empty: bool,
}

/// How a file that the client named goes into the index.
#[derive(Debug)]
enum Stage {
    /// It is there, and added also when it is ignored.
    File(Vec<u8>),
    /// All that is in a directory and not ignored.
    Directory(Vec<u8>),
    /// All that is in a directory that is ignored as a whole.
    Ignored(Vec<u8>),
    /// It is no more.
    Gone(Vec<Vec<u8>>),
}

impl Git {
    /// Stages files, deleted ones too, and all that is in directories. All or none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when neither the work tree nor the index knows a file.
    pub(super) async fn add(&self, path: &str, files: Vec<String>) -> Result<()> {
        self.change(path, move |repository| {
            work_tree(repository)?;
            let mut index = fresh_index(repository)?;
            let stages: Vec<Stage> =
                files.iter().map(|file| stage(repository, &index, file)).collect::<Result<_>>()?;
            let has_directory = stages.iter().any(|stage| matches!(stage, Stage::Directory(_)));
            let suspects = if has_directory { unstaged(repository) } else { None };
            for stage in &stages {
                put(repository, &mut index, suspects.as_deref(), stage)?;
            }
            if stages.is_empty() { Ok(()) } else { index.write().map_err(failing("write the index")) }
        })
        .await
    }

    /// Commits what is staged; concludes a merge, cherry-pick or revert. No hooks, no signing.
    ///
    /// # Errors
    /// When nothing is staged, unless that is allowed, when there are unmerged files, and when name or address make no
    /// sense.
    pub(super) async fn commit(&self, path: &str, order: CommitOrder) -> Result<Oid> {
        self.change(path, move |repository| commit(repository, &order)).await
    }
}

fn stage(repository: &Repository, index: &Index, file: &str) -> Result<Stage> {
    let root = work_tree(repository)?;
    let path = pathspec::below(root, file)?;
    let full = root.join(as_path(&path));
    let found = match full.symlink_metadata() {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let mut known = pathspec::in_index(index, &path);
            known.retain(|path| !entry(index, path).is_some_and(|entry| is_left_out(&entry)));
            if known.is_empty() {
                return Err(Error::not_found(format!("no such file: {file}")));
            }
            return Ok(Stage::Gone(known));
        }
        Err(error) => return Err(Error::io("stage", &full, error)),
    };
    let kind = FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&found));
    match kind {
        FileType::RegularFile | FileType::Symlink => Ok(Stage::File(path)),
        FileType::Directory if !path.is_empty() && full.join(".git").exists() => Ok(Stage::File(path)),
        FileType::Directory if !path.is_empty() && is_ignored(repository, &path)? => Ok(Stage::Ignored(path)),
        FileType::Directory => Ok(Stage::Directory(path)),
        _ => Err(Error::invalid(format!("{file} is neither a file nor a directory"))),
    }
}

fn is_ignored(repository: &Repository, path: &[u8]) -> Result<bool> {
    repository.is_path_ignored(as_path(path)).map_err(failing("read ignore rules"))
}

/// `suspects` are the paths that may have changed, unless all may.
fn put(
    repository: &Repository,
    index: &mut Index,
    suspects: Option<&[Vec<u8>]>,
    stage: &Stage,
) -> Result<()> {
    let name = |path: &[u8]| format!("stage {}", String::from_utf8_lossy(path));
    match stage {
        Stage::File(path) => index.add_path(as_path(path)).map_err(failing(&name(path))),
        Stage::Directory(path) => {
            let mut options = DiffOptions::new();
            options.include_typechange(true).include_untracked(true).recurse_untracked_dirs(true);
            options.disable_pathspec_match(true);
            let mut specs: Vec<&[u8]> = vec![path];
            if let Some(suspects) = suspects {
                specs = suspects.iter().filter_map(|suspect| common(suspect, path)).collect();
                if specs.is_empty() {
                    return Ok(());
                }
            }
            // Without any, all is compared: that is what the root stands for.
            for spec in specs.into_iter().filter(|spec| !spec.is_empty()) {
                options.pathspec(spec);
            }
            let changed = repository.diff_index_to_workdir(Some(index), Some(&mut options));
            let changed = changed.map_err(failing(&name(path)))?;
            changed.deltas().try_for_each(|delta| put_changed(index, &delta))
        }
        Stage::Ignored(path) => {
            let root = work_tree(repository)?;
            for path in pathspec::in_index(index, path) {
                let full = root.join(as_path(&path));
                if !full.is_symlink() && !full.exists() {
                    index.remove_path(as_path(&path)).map_err(failing(&name(&path)))?;
                }
            }
            let mut add = |path: &Path| {
                let path = path.as_os_str().as_encoded_bytes();
                index.add_path(as_path(path)).map_err(failing(&name(path)))
            };
            add_below(root, as_path(path), &mut add)
        }
        Stage::Gone(paths) => {
            paths.iter().try_for_each(|path| index.remove_path(as_path(path)).map_err(failing(&name(path))))
        }
    }
}

/// The inner of two paths, when one covers the other.
fn common<'a>(one: &'a [u8], other: &'a [u8]) -> Option<&'a [u8]> {
    if pathspec::covers(other, one) { Some(one) } else { pathspec::covers(one, other).then_some(other) }
}

fn put_changed(index: &mut Index, delta: &DiffDelta<'_>) -> Result<()> {
    let (old, new) = (delta.old_file(), delta.new_file());
    let Some(path) = old.path_bytes().or(new.path_bytes()) else { return Ok(()) };
    let is_gone = !new.exists();
    // A file that the work tree lacks on purpose is not deleted.
    let result = match entry(index, path) {
        Some(entry) if is_gone && is_left_out(&entry) => Ok(()),
        _ if is_gone => index.remove_path(as_path(path)),
        _ => index.add_path(as_path(path)),
    };
    result.map_err(failing(&format!("stage {}", String::from_utf8_lossy(path))))
}

/// Adds the files of a directory and those below it, one by one.
fn add_below(root: &Path, directory: &Path, add: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let failed = |error| Error::io("read", &root.join(directory), error);
    for entry in std::fs::read_dir(root.join(directory)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, kind) = (directory.join(entry.file_name()), entry.file_type().map_err(failed)?);
        if kind.is_dir() && !entry.path().join(".git").exists() {
            add_below(root, &path, add)?;
        } else if kind.is_dir() || kind.is_file() || kind.is_symlink() {
            add(&path)?;
        }
    }
    Ok(())
}

fn commit(repository: &mut Repository, order: &CommitOrder) -> Result<Oid> {
    let identity = identity(&order.author, &order.email)?;
    let mut index = fresh_index(repository)?;
    refuse_unmerged(&index)?;
    let staged = staged(repository).unwrap_or_else(|| vec![Vec::new()]);
    let staged: Vec<Vec<u8>> = staged.iter().flat_map(|path| pathspec::in_index(&index, path)).collect();
    let intended = take_intended(&mut index, &staged)?;
    refuse_missing(repository, &index, &staged)?;
    let tree = index.write_tree_to(repository).map_err(failing("write the tree"))?;
    intended.iter().try_for_each(|entry| index.add(entry)).map_err(failing("write the index"))?;
    let head = match head_commit(repository) {
        Ok(head) => Some(head.id()),
        Err(error) if error.kind() == ErrorKind::GitBranchNotFound => None,
        Err(error) => return Err(error),
    };
    let mut merged = Vec::new();
    if repository.path().join("MERGE_HEAD").exists() {
        let heads = repository.mergehead_foreach(|id| {
            merged.push(*id);
            true
        });
        heads.map_err(failing("read MERGE_HEAD"))?;
    }
    let failing = failing("commit");
    let parents = head.iter().chain(&merged).map(|id| repository.find_commit(*id));
    let parents = parents.collect::<Result<Vec<_>, _>>().map_err(&failing)?;
    let tree = repository.find_tree(tree).map_err(&failing)?;
    let is_empty = match parents.first() {
        Some(parent) => parent.tree_id() == tree.id(),
        None => tree.is_empty(),
    };
    if is_empty && merged.is_empty() && !order.allow_empty {
        return Err(Error::new(ErrorKind::Conflict, "cannot create empty commit: clean working tree"));
    }
    let parents: Vec<_> = parents.iter().collect();
    let commit = repository.commit(Some("HEAD"), &identity, &identity, &order.message, &tree, &parents);
    let id = commit.map_err(|error| match error.code() {
        ErrorCode::Modified => {
            Error::new(ErrorKind::Conflict, "another program has committed meanwhile").with_source(error)
        }
        _ => failing(error),
    })?;
    // With the tree that it is like by now, which makes the next status and commit quick; it is true without.
    let _ = index.write();
    for name in CONCLUDED {
        let _ = std::fs::remove_file(repository.path().join(name));
    }
    Ok(id)
}

/// Takes out of the index what is to be added but has no content yet (`git add --intent-to-add`): no commit has it.
fn take_intended(index: &mut Index, staged: &[Vec<u8>]) -> Result<Vec<IndexEntry>> {
    let intended: Vec<_> = staged.iter().filter_map(|path| entry(index, path)).filter(is_intended).collect();
    for entry in &intended {
        index.remove_path(as_path(&entry.path)).map_err(failing("write the tree"))?;
    }
    Ok(intended)
}

/// Refuses a commit that would refer to contents that are not there.
fn refuse_missing(repository: &Repository, index: &Index, staged: &[Vec<u8>]) -> Result<()> {
    let objects = repository.odb().map_err(failing("open the objects"))?;
    let is_missing =
        |entry: IndexEntry| entry.mode != u32::from(FileMode::Commit) && !objects.exists(entry.id);
    match staged.iter().find(|path| entry(index, path).is_some_and(is_missing)) {
        Some(path) => {
            let path = String::from_utf8_lossy(path);
            Err(Error::internal(format!("write the tree: the content of {path} is missing")))
        }
        None => Ok(()),
    }
}

/// Author or committer, as of now.
///
/// # Errors
/// When git cannot store name or address.
pub(super) fn identity(name: &str, email: &str) -> Result<Signature<'static>> {
    Signature::now(name, email).map_err(|error| {
        Error::invalid(format!("invalid author or email: {}", words(&error))).with_source(error)
    })
}
