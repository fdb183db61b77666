//! One commit with its changes, or one file as a commit has it.

use bytes::Bytes;
use futures_util::Stream;
use git2::{ErrorCode, ObjectType};

use super::diff::{FileDiff, Manner, files, options};
use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::revision;
use crate::git::failure::{failed, failing};
use crate::git::history::{CommitInfo, rfc_3339};
use crate::git::pathspec;
use crate::git::service::Git;
use crate::git::worktree::as_path;

/// Content in a piece of the reply, in bytes.
const PIECE: usize = 64 * 1024;
/// Most that is told of a commit's changes at once, in bytes of patches; the files beyond come without theirs.
const PATCHES: usize = 32 * 1024 * 1024;

/// A commit with all that it says.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) info: CommitInfo,
    pub(super) parents: Vec<String>,
    pub(super) tree: String,
    pub(super) committer: String,
    pub(super) committer_email: String,
    /// When it was committed: RFC 3339 with the committer's offset.
    pub(super) committed: String,
    /// Its changes beside its first parent.
    pub(super) files: Vec<FileDiff>,
}

impl Git {
    /// A commit, beside its first parent.
    ///
    /// # Errors
    /// When there is no such revision.
    pub(super) async fn show(&self, path: &str, text: String, context: u32) -> Result<Shown> {
        self.read(path, move |repository| {
            let commit = revision(repository, &text)?;
            let failing = failing("read the commit");
            let tree = commit.tree().map_err(&failing)?;
            let parent = match commit.parent(0) {
                Ok(parent) => Some(parent.tree().map_err(&failing)?),
                Err(error) if error.code() == ErrorCode::NotFound => None, // the first one, or where a shallow clone ends
                Err(error) => return Err(failing(error)),
            };
            let mut options = options(&Manner { context, ..Manner::default() }, &[]);
            let diff = repository.diff_tree_to_tree(parent.as_ref(), Some(&tree), Some(&mut options));
            let (mut changes, mut size) = (Vec::new(), 0);
            files(&mut diff.map_err(&failing)?, |mut file| {
                size += file.patch.len();
                if size > PATCHES {
                    file.patch = Vec::new();
                }
                changes.push(file);
                Ok(())
            })?;
            let committer = commit.committer();
            let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Shown {
                info: CommitInfo::of(&commit),
                parents: commit.parent_ids().map(|id| id.to_string()).collect(),
                tree: tree.id().to_string(),
                committer: lossy(committer.name_bytes()),
                committer_email: lossy(committer.email_bytes()),
                committed: rfc_3339(committer.when()),
                files: changes,
            })
        })
        .await
    }

    /// The content of a file as a commit has it, without conversion of line endings.
    ///
    /// # Errors
    /// When there is no such revision, or it has no such file.
    pub(super) async fn content(
        &self,
        path: &str,
        text: String,
        file: String,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes>> + Send + 'static + use<>)> {
        let found = self.read(path, move |repository| {
            let root = repository.workdir().unwrap_or(repository.path());
            let name = pathspec::below(root, &file)?;
            let tree = revision(repository, &text)?.tree().map_err(failing("read the commit"))?;
            let missing = || Error::new(ErrorKind::NotFound, format!("{text} has no file {file}"));
            let entry = tree.get_path(as_path(&name)).map_err(|error| match error.code() {
                ErrorCode::NotFound => missing().with_source(error),
                _ => failed("read the commit", error),
            })?;
            if entry.kind() != Some(ObjectType::Blob) {
                return Err(missing());
            }
            let odb = repository.odb().map_err(failing("read objects"))?;
            let (size, _) = odb.read_header(entry.id()).map_err(failing("read the file"))?;
            Ok((entry.id(), size as u64))
        });
        let (id, size) = found.await?;
        let pieces = self.stream(path, move |repository, pieces| {
            let blob = repository.find_blob(id).map_err(failing("read the file"))?;
            blob.content().chunks(PIECE).try_for_each(|piece| pieces.send(Bytes::copy_from_slice(piece)))
        });
        Ok((size, pieces))
    }
}
