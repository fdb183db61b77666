//! Files that were changed in the second in which they were staged, without a change of size.
//!
//! The `git` program compares whole seconds and looks at the content of a file where the index is of the same second as
//! what it says of the file. An index that is written in a later second must therefore not say that it knows such a file
//! (git's "racy git" notes). libgit2 compares nanoseconds, takes nothing for such a file, and would make git believe that
//! it is unchanged. So before anything here writes an index, what it says of such files is taken back.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use git2::{IndexEntry, Repository};

use super::failure::failing;
use super::index_file::{Entry, IndexFile};
use super::worktree::as_path;
use crate::error::Result;

/// Takes back what the index says of such files: their content is compared the next time that somebody looks.
///
/// # Errors
/// When the index has to be written and cannot be.
pub(super) fn forget(repository: &Repository) -> Result<()> {
    let (root, path) = (repository.workdir(), repository.path().join("index"));
    // What is wrong with an index, whoever works with it will say.
    let (Some(root), Ok(metadata), Ok(data)) = (root, path.metadata(), std::fs::read(&path)) else {
        return Ok(());
    };
    let Some(found) = IndexFile::parse(&data) else { return Ok(()) };
    let is_racy = |entry: &&Entry| {
        i64::from(entry.mtime.0) >= metadata.mtime()
            && has_changed(entry, &root.join(as_path(found.name(entry))))
    };
    let racy: Vec<&[u8]> = found.entries.iter().filter(is_racy).map(|entry| found.name(entry)).collect();
    if racy.is_empty() {
        return Ok(());
    }
    let mut index = repository.index().map_err(failing("read the index"))?;
    for name in racy {
        if let Some(entry) = index.get_path(as_path(name), 0) {
            index.add(&IndexEntry { file_size: 0, ..entry }).map_err(failing("change the index"))?;
        }
    }
    index.write().map_err(failing("write the index"))
}

/// Whether a file looks as it was staged in whole seconds, and does not in nanoseconds.
fn has_changed(entry: &Entry, path: &Path) -> bool {
    !(entry.is_unmerged || entry.is_left_out || entry.is_intent || entry.size == 0)
        && path.symlink_metadata().is_ok_and(|file| {
            (file.mtime(), file.len()) == (entry.mtime.0.into(), entry.size.into())
                && file.mtime_nsec() != i64::from(entry.mtime.1)
        })
}
