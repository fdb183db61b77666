//! JSON of what speaks to remotes (contract `git.md` 2, 9, 10, 15).

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::clone::CloneRequest;
use super::fetch::FetchRequest;
use super::link::Update;
use super::pull::PullRequest;
use super::push::PushRequest;
use super::service::Access;
use crate::http::extract::integral;

/// `null` is what is missing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty text is a missing one.
fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// What to clone, and where to.
#[derive(Deserialize, ToSchema)]
pub(super) struct GitCloneRequest {
    /// `http(s)://`, `ssh://`, `git@host:path`, `git://`, `file://`, or a path.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) url: String,
    /// Directory that is made, or empty.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) path: String,
    /// Branch to check out; the remote's default branch by default.
    branch: Option<String>,
    /// Commit to check out instead of the branch's tip, which detaches HEAD; 4 to 40 hexadecimal digits.
    commit_id: Option<String>,
    /// For HTTP; counts only together with `password`, and is kept nowhere.
    username: Option<String>,
    /// Password or token.
    password: Option<String>,
    /// Takes any certificate.
    #[serde(default, deserialize_with = "or_default")]
    insecure_skip_tls: bool,
    /// Commits of history; all by default.
    #[serde(default, deserialize_with = "integral")]
    depth: Option<u32>,
}

impl GitCloneRequest {
    pub(super) fn parts(self) -> (String, CloneRequest, Access) {
        let access = Access::new(self.username, self.password).skipping_tls(self.insecure_skip_tls);
        let request = CloneRequest {
            url: self.url,
            branch: some(self.branch),
            commit: some(self.commit_id),
            depth: self.depth.filter(|depth| *depth > 0),
        };
        (self.path, request, access)
    }
}

/// What to pull.
#[derive(Deserialize, ToSchema)]
pub(super) struct GitPullRequest {
    /// Root of the repository.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) path: String,
    /// For HTTP; counts only together with `password`, and is kept nowhere.
    username: Option<String>,
    /// Password or token.
    password: Option<String>,
    /// Remote; what the branch follows, else `origin`.
    remote: Option<String>,
    /// The remote's branch; what the branch follows, else the one of the same name.
    branch: Option<String>,
    /// Beyond the contract: goes on when there are uncommitted changes that are not in the way, and keeps them.
    #[serde(default, deserialize_with = "or_default")]
    allow_dirty: bool,
}

impl GitPullRequest {
    pub(super) fn parts(self) -> (String, PullRequest, Access) {
        let access = Access::new(self.username, self.password);
        let request = PullRequest {
            remote: some(self.remote),
            branch: some(self.branch),
            allow_dirty: self.allow_dirty,
        };
        (self.path, request, access)
    }
}

/// What to push.
#[derive(Deserialize, ToSchema)]
pub(super) struct GitPushRequest {
    /// Root of the repository.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) path: String,
    /// For HTTP; counts only together with `password`, and is kept nowhere.
    username: Option<String>,
    /// Password or token.
    password: Option<String>,
    /// Remote; `origin` by default.
    remote: Option<String>,
    /// Branch; the one that is checked out by default.
    branch: Option<String>,
    /// Makes the branch follow the remote's.
    #[serde(default, deserialize_with = "or_default")]
    set_upstream: bool,
}

impl GitPushRequest {
    pub(super) fn parts(self) -> (String, PushRequest, Access) {
        let access = Access::new(self.username, self.password);
        let request = PushRequest {
            remote: some(self.remote),
            branch: some(self.branch),
            set_upstream: self.set_upstream,
        };
        (self.path, request, access)
    }
}

/// What to fetch.
#[derive(Deserialize, ToSchema)]
pub(super) struct GitFetchRequest {
    /// Root of the repository.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) path: String,
    /// For HTTP; counts only together with `password`, and is kept nowhere.
    username: Option<String>,
    /// Password or token.
    password: Option<String>,
    /// Remote; `origin` by default.
    remote: Option<String>,
    /// Only this branch; by default what the configuration says.
    branch: Option<String>,
    /// Commits of history from each tip.
    #[serde(default, deserialize_with = "integral")]
    depth: Option<u32>,
    /// Makes a shallow clone whole.
    #[serde(default, deserialize_with = "or_default")]
    unshallow: bool,
    /// Removes tracking branches whose branch is gone.
    #[serde(default, deserialize_with = "or_default")]
    prune: bool,
    /// All tags, and not only those that point into what is fetched.
    #[serde(default, deserialize_with = "or_default")]
    tags: bool,
}

impl GitFetchRequest {
    pub(super) fn parts(self) -> (String, FetchRequest, Access) {
        let access = Access::new(self.username, self.password);
        let request = FetchRequest {
            remote: some(self.remote),
            branch: some(self.branch),
            depth: self.depth.filter(|depth| *depth > 0),
            unshallow: self.unshallow,
            prune: self.prune,
            tags: self.tags,
        };
        (self.path, request, access)
    }
}

/// What a fetch has changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitFetchResponse {
    /// Refs that were made, moved or removed.
    updates: Vec<GitRefUpdate>,
}

/// A ref that was made, moved or removed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitRefUpdate {
    /// Full name, as `refs/remotes/origin/main`.
    r#ref: String,
    /// Where it was; absent when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    /// Where it is; absent when it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<String>,
}

impl From<Vec<Update>> for GitFetchResponse {
    fn from(updates: Vec<Update>) -> Self {
        let text = |id: git2::Oid| id.to_string();
        let updates = updates.into_iter().map(|update| GitRefUpdate {
            r#ref: update.name,
            old: update.old.map(text),
            new: update.new.map(text),
        });
        Self { updates: updates.collect() }
    }
}

/// A login to keep.
#[derive(Deserialize, ToSchema)]
pub(super) struct GitCredentialsRequest {
    /// User name.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) username: String,
    /// Password or token.
    #[serde(default, deserialize_with = "or_default")]
    #[schema(required = true)]
    pub(super) password: String,
    /// Host, and its port if it is not the usual one; `github.com` by default.
    host: Option<String>,
    /// `https`, the default, or `http`.
    protocol: Option<String>,
}

impl GitCredentialsRequest {
    pub(super) fn host(&self) -> &str {
        self.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("github.com")
    }

    pub(super) fn protocol(&self) -> &str {
        self.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("https")
    }
}
