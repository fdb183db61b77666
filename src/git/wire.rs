//! JSON of repositories (contract `git.md`). Members are in snake case, but for those of `GitStatus`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::branches::Branches;
use super::history::CommitInfo;
use super::remotes::RemoteInfo;
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

/// Files to stage.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitAddRequest)]
pub(super) struct AddRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Files and directories below the root; `.` is everything. Ignored files are staged when they are named.
    #[schema(required)]
    pub(super) files: Option<Vec<String>>,
}

/// What to commit.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitCommitRequest)]
pub(super) struct CommitRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Stored byte for byte.
    #[serde(default)]
    #[schema(required)]
    pub(super) message: String,
    /// Name of author and committer.
    #[serde(default)]
    #[schema(required)]
    pub(super) author: String,
    /// Address of author and committer.
    #[serde(default)]
    #[schema(required)]
    pub(super) email: String,
    /// Whether nothing needs to have changed. Default false.
    pub(super) allow_empty: Option<bool>,
}

/// A new commit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GitCommitResponse)]
pub(super) struct CommitReply {
    /// 40 hexadecimal digits.
    pub(super) hash: String,
}

/// A commit of the history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitCommitInfo {
    /// 40 hexadecimal digits.
    hash: String,
    /// Name of the author.
    author: String,
    /// Address of the author.
    email: String,
    /// As it is stored.
    message: String,
    /// When it was written: RFC 3339 with the author's offset.
    timestamp: String,
}

impl From<CommitInfo> for GitCommitInfo {
    fn from(commit: CommitInfo) -> Self {
        let CommitInfo { hash, author, email, message, timestamp } = commit;
        Self { hash, author, email, message, timestamp }
    }
}

/// Local branches.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListBranchResponse)]
pub(super) struct BranchList {
    /// Short names, sorted.
    branches: Vec<String>,
    /// The one that is checked out, which may have no commit yet; absent when HEAD is detached.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
}

impl From<Branches> for BranchList {
    fn from(branches: Branches) -> Self {
        Self { branches: branches.names, current: branches.current }
    }
}

/// A branch to create or delete.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitBranchRequest)]
pub(super) struct BranchRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Short name of the branch.
    #[serde(default)]
    #[schema(required)]
    pub(super) name: String,
}

/// What to check out.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitCheckoutRequest)]
pub(super) struct CheckoutRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// A local branch, one that only one remote has (a local one is made that follows it), or any other revision, which
    /// detaches HEAD.
    #[serde(default)]
    #[schema(required)]
    pub(super) branch: String,
}

/// A repository to make.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitInitRequest)]
pub(super) struct InitRequest {
    /// Its root, created with the directories above it.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Whether it has no work tree. Default false.
    pub(super) bare: Option<bool>,
    /// Name of the first branch. Default: as configured (`init.defaultBranch`), else `master`.
    pub(super) initial_branch: Option<String>,
}

/// Remotes of a repository.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListRemotesResponse)]
pub(super) struct RemoteList {
    /// Sorted by name.
    remotes: Vec<GitRemote>,
}

/// A remote.
#[derive(Debug, Serialize, ToSchema)]
struct GitRemote {
    /// As in `origin`.
    name: String,
    /// What is fetched from.
    url: String,
}

impl From<Vec<RemoteInfo>> for RemoteList {
    fn from(remotes: Vec<RemoteInfo>) -> Self {
        let remotes = remotes.into_iter().map(|RemoteInfo { name, url }| GitRemote { name, url });
        Self { remotes: remotes.collect() }
    }
}

/// A remote to add.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitAddRemoteRequest)]
pub(super) struct AddRemoteRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// As in `origin`.
    #[serde(default)]
    #[schema(required)]
    pub(super) name: String,
    /// http, https, ssh, git or file URL, or a path.
    #[serde(default)]
    #[schema(required)]
    pub(super) url: String,
    /// Whether it is fetched right away. Default false.
    pub(super) fetch: Option<bool>,
    /// Whether it replaces a remote of the same name. Default false.
    pub(super) overwrite: Option<bool>,
}

/// Where to reset to.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitResetRequest)]
pub(super) struct ResetRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// `soft`, `mixed`, `hard`, `merge` or `keep`, as git-reset(1) has them. Default `mixed`.
    pub(super) mode: Option<String>,
    /// Any revision. Default `HEAD`.
    pub(super) target: Option<String>,
    /// With mode `mixed`: only these change in the index, and HEAD stays.
    pub(super) files: Option<Vec<String>>,
}

/// What to restore.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitRestoreRequest)]
pub(super) struct RestoreRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Files and directories below the root.
    #[serde(default)]
    #[schema(required)]
    pub(super) files: Vec<String>,
    /// Whether the index is restored. Default false.
    pub(super) staged: Option<bool>,
    /// Whether the work tree is restored. Default: when `staged` is not.
    pub(super) worktree: Option<bool>,
    /// The revision to take files from. Default: the index, and `HEAD` for the index itself.
    pub(super) source: Option<String>,
}

/// The value of a setting.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GitConfigResponse)]
pub(super) struct ConfigReply {
    /// The last one when there are several; null when it is not set.
    #[schema(required)]
    pub(super) value: Option<String>,
}

/// A setting.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitSetConfigRequest)]
pub(super) struct ConfigRequest {
    /// As in `user.name`.
    #[serde(default)]
    #[schema(required)]
    pub(super) key: String,
    /// Any text, also none.
    #[schema(required)]
    pub(super) value: Option<String>,
    /// `global`, `local` or `system`. Default `global`.
    pub(super) scope: Option<String>,
    /// Root of the repository, for `local`.
    pub(super) path: Option<String>,
}

/// Who commits.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitConfigureUserRequest)]
pub(super) struct UserRequest {
    /// Goes to `user.name`.
    #[serde(default)]
    #[schema(required)]
    pub(super) name: String,
    /// Goes to `user.email`.
    #[serde(default)]
    #[schema(required)]
    pub(super) email: String,
    /// `global`, `local` or `system`. Default `global`.
    pub(super) scope: Option<String>,
    /// Root of the repository, for `local`.
    pub(super) path: Option<String>,
}
