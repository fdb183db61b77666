//! JSON of repositories (contract `git.md`). Members are in snake case, but for those of `GitStatus`.

use serde::Serialize;
use utoipa::ToSchema;

use super::status::{self, Change, Head};
use crate::error::{Error, ErrorKind, Result};

/// Refuses a body in which a text that it must have is missing or empty.
///
/// # Errors
/// [`ErrorKind::InvalidBody`], naming the first one.
pub(super) fn require(texts: &[(&str, &str)]) -> Result<()> {
    match texts.iter().find(|(_, text)| text.is_empty()) {
        Some((name, _)) => Err(Error::new(ErrorKind::InvalidBody, format!("{name} is required"))),
        None => Ok(()),
    }
}

/// What has changed in a work tree.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GitStatus {
    /// Short name of the branch, which may have no commit yet; `HEAD` when it is detached.
    current_branch: String,
    /// Changed and untracked files, sorted by name. A rename is one that is deleted and one that is added.
    file_status: Vec<FileStatus>,
    /// Whether the branch has an upstream that was there when it was last fetched.
    branch_published: bool,
    /// Commits that the branch has and its upstream, as last fetched, has not.
    ahead: usize,
    /// Commits that the upstream, as last fetched, has and the branch has not.
    behind: usize,
    /// Whether HEAD is on no branch.
    detached: bool,
    /// What the branch follows, as in `origin/main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
}

/// A file that is not as it was committed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FileStatus {
    /// Path below the root.
    name: String,
    /// Always empty.
    extra: &'static str,
    /// From HEAD to the index.
    staging: Word,
    /// From the index to the work tree.
    worktree: Word,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = GitFileChange)]
pub(super) enum Word {
    Unmodified,
    Untracked,
    Modified,
    Added,
    Deleted,
    #[serde(rename = "Updated but unmerged")]
    Unmerged,
}

impl From<Change> for Word {
    fn from(change: Change) -> Self {
        match change {
            Change::Unmodified => Self::Unmodified,
            Change::Untracked => Self::Untracked,
            Change::Modified => Self::Modified,
            Change::Added => Self::Added,
            Change::Deleted => Self::Deleted,
            Change::Unmerged => Self::Unmerged,
        }
    }
}

impl From<status::Status> for GitStatus {
    fn from(status: status::Status) -> Self {
        let (branch, detached) = match status.head {
            Head::Branch(name) => (name, false),
            Head::Detached => ("HEAD".to_owned(), true),
        };
        let upstream = status.upstream.as_ref();
        Self {
            current_branch: branch,
            file_status: status.files.into_iter().map(FileStatus::from).collect(),
            branch_published: upstream.is_some_and(|upstream| upstream.exists),
            ahead: upstream.map_or(0, |upstream| upstream.ahead),
            behind: upstream.map_or(0, |upstream| upstream.behind),
            detached,
            upstream: status.upstream.map(|upstream| upstream.name),
        }
    }
}

impl From<status::FileStatus> for FileStatus {
    fn from(file: status::FileStatus) -> Self {
        Self {
            name: lossy(file.path),
            extra: "",
            staging: file.staging.into(),
            worktree: file.worktree.into(),
        }
    }
}

/// Text of bytes that should be UTF-8; those that are not become replacement characters.
pub(super) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
