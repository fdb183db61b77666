//! JSON of diff, show, stash and tags.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::diff::{FileDiff, Kind};
use super::show::Shown;
use super::stash::Stash;
use super::tags::TagInfo;
use crate::git::wire::{GitCommitInfo, lossy};

/// The changes of one file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitFileDiff {
    /// Path below the root.
    path: String,
    /// Of a renamed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_path: Option<String>,
    /// What happened to it.
    status: Word,
    /// Lines that are new.
    additions: usize,
    /// Lines that are gone.
    deletions: usize,
    /// Whether it is not text, or too large to be compared line by line.
    binary: bool,
    /// Unified diff with git's header.
    patch: String,
}

/// What happened to a file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GitFileDiffStatus)]
enum Word {
    Added,
    Deleted,
    Modified,
    Renamed,
    #[serde(rename = "Type changed")]
    TypeChanged,
    #[serde(rename = "Updated but unmerged")]
    Unmerged,
}

impl From<FileDiff> for GitFileDiff {
    fn from(file: FileDiff) -> Self {
        Self {
            path: lossy(file.path),
            old_path: file.old_path.map(lossy),
            status: match file.kind {
                Kind::Added => Word::Added,
                Kind::Deleted => Word::Deleted,
                Kind::Modified => Word::Modified,
                Kind::Renamed => Word::Renamed,
                Kind::TypeChanged => Word::TypeChanged,
                Kind::Unmerged => Word::Unmerged,
            },
            additions: file.additions,
            deletions: file.deletions,
            binary: file.is_binary,
            patch: lossy(file.patch),
        }
    }
}

/// A commit with all that it says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitShow {
    #[serde(flatten)]
    info: GitCommitInfo,
    /// Hashes of the commits before it.
    parents: Vec<String>,
    /// Hash of its tree.
    tree: String,
    /// Name of the committer.
    committer: String,
    /// Address of the committer.
    committer_email: String,
    /// When it was committed: RFC 3339 with the committer's offset.
    committed: String,
    /// Its changes beside its first parent. Patches end at 32 MiB in all: files beyond come without.
    files: Vec<GitFileDiff>,
}

impl From<Shown> for GitShow {
    fn from(shown: Shown) -> Self {
        let Shown { info, parents, tree, committer, committer_email, committed, files } = shown;
        let files = files.into_iter().map(GitFileDiff::from).collect();
        Self { info: info.into(), parents, tree, committer, committer_email, committed, files }
    }
}

/// All that was put aside.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitStashes {
    /// Newest first.
    stashes: Vec<GitStash>,
}

/// Changes that were put aside.
#[derive(Debug, Serialize, ToSchema)]
struct GitStash {
    /// 0 is the newest.
    index: usize,
    /// Hash of the commit that holds them.
    hash: String,
    /// As in `On main: before the refactoring`.
    message: String,
    /// When: RFC 3339.
    timestamp: String,
}

impl From<Vec<Stash>> for GitStashes {
    fn from(stashes: Vec<Stash>) -> Self {
        let stashes = stashes.into_iter().map(|Stash { index, hash, message, timestamp }| GitStash {
            index,
            hash,
            message,
            timestamp,
        });
        Self { stashes: stashes.collect() }
    }
}

/// What to put aside.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitStashRequest)]
pub(super) struct StashRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// To know it by.
    pub(super) message: Option<String>,
    /// Whether untracked files, but not ignored ones, go along. Default false.
    pub(super) include_untracked: Option<bool>,
    /// Whether what is staged stays as well. Default false.
    pub(super) keep_index: Option<bool>,
}

/// Which changes to take back.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitStashApplyRequest)]
pub(super) struct ApplyRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Default 0, the newest.
    pub(super) index: Option<usize>,
    /// Whether what was staged is staged again. Default false.
    pub(super) reinstate_index: Option<bool>,
}

/// Which changes to forget.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitStashDropRequest)]
pub(super) struct DropRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// Default 0, the newest.
    pub(super) index: Option<usize>,
}

/// A hash.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GitHash)]
pub(super) struct Hash {
    /// 40 hexadecimal digits.
    pub(super) hash: String,
}

/// All tags.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitTags {
    /// Sorted by name.
    tags: Vec<GitTag>,
}

/// A tag.
#[derive(Debug, Serialize, ToSchema)]
struct GitTag {
    /// As in `v1.0`.
    name: String,
    /// Hash of what it points at, a commit as a rule.
    hash: String,
    /// Of an annotated tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl From<Vec<TagInfo>> for GitTags {
    fn from(tags: Vec<TagInfo>) -> Self {
        let tags = tags.into_iter().map(|TagInfo { name, hash, message }| GitTag { name, hash, message });
        Self { tags: tags.collect() }
    }
}

/// A tag to create.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitTagRequest)]
pub(super) struct TagRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// As in `v1.0`.
    #[serde(default)]
    #[schema(required)]
    pub(super) name: String,
    /// Any revision. Default `HEAD`.
    pub(super) target: Option<String>,
    /// Makes it an annotated tag.
    pub(super) message: Option<String>,
    /// Name of who tags. Default: `user.name`.
    pub(super) tagger: Option<String>,
    /// Address of who tags. Default: `user.email`.
    pub(super) email: Option<String>,
    /// Whether it may replace one of the same name. Default false.
    pub(super) force: Option<bool>,
}

/// A tag to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GitDeleteTagRequest)]
pub(super) struct DeleteTagRequest {
    /// Root of the repository.
    #[serde(default)]
    #[schema(required)]
    pub(super) path: String,
    /// As in `v1.0`.
    #[serde(default)]
    #[schema(required)]
    pub(super) name: String,
}
