//! URLs below `/git` that the contract has, but for those that speak to remotes.

use axum::Json as JsonReply;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::commit::CommitOrder;
use super::config::Scope;
use super::history::Wanted;
use super::reset::{Mode, Restore};
use super::service::Git;
use super::wire::{
    AddRequest, BranchList, BranchRequest, CheckoutRequest, CommitReply, CommitRequest, ConfigReply,
    ConfigRequest, GitCommitInfo, GitStatus, InitRequest, RemoteList, ResetRequest, RestoreRequest,
    UserRequest, require,
};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::body::{json_array, json_of};
use crate::http::extract::{Json, Query};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(crate) fn router(git: Git) -> Routes {
    Routes::new()
        .routes(endpoints!(status))
        .routes(endpoints!(add))
        .routes(endpoints!(commit))
        .routes(endpoints!(history))
        .routes(endpoints!(branches, create_branch, delete_branch))
        .routes(endpoints!(checkout))
        .routes(endpoints!(init))
        .routes(endpoints!(remotes))
        .routes(endpoints!(reset))
        .routes(endpoints!(restore))
        .routes(endpoints!(config, set_config))
        .routes(endpoints!(configure_user))
        .merge(super::beyond::routes::router())
        .with_state(git)
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct PathQuery {
    /// Root of the repository: absolute, or relative to the working directory.
    pub(super) path: String,
}

/// What has changed: from HEAD to the index, and from there to the work tree
#[utoipa::path(get, path = "/git/status", tag = "git", params(PathQuery),
    responses((status = 200, body = GitStatus), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn status(State(git): State<Git>, Query(query): Query<PathQuery>) -> Result<JsonReply<GitStatus>> {
    Ok(JsonReply(git.status(&query.path).await?.into()))
}

/// Stages files, deleted ones too, and all that is in directories: all of them or, when one is not known, none
#[utoipa::path(post, path = "/git/add", tag = "git", request_body = AddRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn add(State(git): State<Git>, Json(request): Json<AddRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path)])?;
    let files = request.files.ok_or_else(|| Error::new(ErrorKind::InvalidBody, "files is required"))?;
    git.add(&request.path, files).await?;
    Ok(StatusCode::OK)
}

/// Commits what is staged
///
/// Author and committer are those of the request. A merge, cherry-pick or revert that is in progress is concluded. Hooks
/// do not run, and nothing is signed.
#[utoipa::path(post, path = "/git/commit", tag = "git", request_body = CommitRequest,
    responses((status = 200, body = CommitReply), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn commit(
    State(git): State<Git>,
    Json(request): Json<CommitRequest>,
) -> Result<JsonReply<CommitReply>> {
    let CommitRequest { path, message, author, email, allow_empty } = request;
    require(&[("path", &path), ("message", &message), ("author", &author), ("email", &email)])?;
    let order = CommitOrder { message, author, email, allow_empty: allow_empty.unwrap_or(false) };
    let hash = git.commit(&path, order).await?.to_string();
    Ok(JsonReply(CommitReply { hash }))
}

#[derive(Debug, Deserialize, IntoParams)]
struct HistoryQuery {
    /// Root of the repository: absolute, or relative to the working directory.
    path: String,
    /// Any revision to begin at. Default: HEAD.
    revision: Option<String>,
    /// How many of the newest commits are left out.
    skip: Option<usize>,
    /// How many commits at most.
    limit: Option<usize>,
}

/// Commits, newest first, in the order of `git log`; the reply is streamed
#[utoipa::path(get, path = "/git/history", tag = "git", params(HistoryQuery),
    responses((status = 200, body = [GitCommitInfo]), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn history(State(git): State<Git>, Query(query): Query<HistoryQuery>) -> Result<Response> {
    let HistoryQuery { path, revision, skip, limit } = query;
    let wanted = Wanted { revision, skip: skip.unwrap_or(0), limit };
    let batches = git.history(&path, wanted).await?;
    let batches = batches.map(|batch| Ok(batch?.into_iter().map(GitCommitInfo::from).collect::<Vec<_>>()));
    Ok(json_of(json_array(batches).await?))
}

/// Local branches
#[utoipa::path(get, path = "/git/branches", tag = "git", params(PathQuery),
    responses((status = 200, body = BranchList), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn branches(State(git): State<Git>, Query(query): Query<PathQuery>) -> Result<JsonReply<BranchList>> {
    Ok(JsonReply(git.branches(&query.path).await?.into()))
}

/// Creates a branch at HEAD and switches to it; uncommitted changes are kept
#[utoipa::path(post, path = "/git/branches", tag = "git", request_body = BranchRequest,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn create_branch(State(git): State<Git>, Json(request): Json<BranchRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path), ("name", &request.name)])?;
    git.create_branch(&request.path, request.name).await?;
    Ok(StatusCode::CREATED)
}

/// Deletes a branch that is not checked out, merged or not
#[utoipa::path(delete, path = "/git/branches", tag = "git", request_body = BranchRequest,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn delete_branch(State(git): State<Git>, Json(request): Json<BranchRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path), ("name", &request.name)])?;
    git.delete_branch(&request.path, request.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks out a branch, tag or commit; uncommitted changes are kept, or it fails and nothing has changed
#[utoipa::path(post, path = "/git/checkout", tag = "git", request_body = CheckoutRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn checkout(State(git): State<Git>, Json(request): Json<CheckoutRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path), ("branch", &request.branch)])?;
    git.checkout(&request.path, request.branch).await?;
    Ok(StatusCode::OK)
}

/// Makes a repository; one that exists loses nothing
#[utoipa::path(post, path = "/git/init", tag = "git", request_body = InitRequest,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn init(State(git): State<Git>, Json(request): Json<InitRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path)])?;
    git.init(&request.path, request.bare.unwrap_or(false), request.initial_branch).await?;
    Ok(StatusCode::CREATED)
}

/// Remotes, sorted by name
#[utoipa::path(get, path = "/git/remotes", tag = "git", params(PathQuery),
    responses((status = 200, body = RemoteList), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn remotes(State(git): State<Git>, Query(query): Query<PathQuery>) -> Result<JsonReply<RemoteList>> {
    Ok(JsonReply(git.remotes(&query.path).await?.into()))
}

/// Moves HEAD and its branch to another commit; index and work tree follow as the mode says
#[utoipa::path(post, path = "/git/reset", tag = "git", request_body = ResetRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn reset(State(git): State<Git>, Json(request): Json<ResetRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path)])?;
    let mode = request.mode.as_deref().map_or(Ok(Mode::default()), str::parse)?;
    git.reset(&request.path, mode, request.target, request.files.unwrap_or_default()).await?;
    Ok(StatusCode::OK)
}

/// Takes files back to what the index, HEAD or another revision has
#[utoipa::path(post, path = "/git/restore", tag = "git", request_body = RestoreRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn restore(State(git): State<Git>, Json(request): Json<RestoreRequest>) -> Result<StatusCode> {
    let RestoreRequest { path, files, staged, worktree, source } = request;
    require(&[("path", &path)])?;
    if files.is_empty() {
        return Err(Error::new(ErrorKind::InvalidBody, "files must name at least one file"));
    }
    let staged = staged.unwrap_or(false);
    git.restore(&path, Restore { files, staged, worktree: worktree.unwrap_or(!staged), source }).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Deserialize, IntoParams)]
struct ConfigQuery {
    /// As in `user.name`.
    key: String,
    /// `global`, `local` or `system`. Default: `global`.
    scope: Option<String>,
    /// Root of the repository, for `local`.
    path: Option<String>,
}

/// The value of a setting, null when it is not set
#[utoipa::path(get, path = "/git/config", tag = "git", params(ConfigQuery),
    responses((status = 200, body = ConfigReply), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn config(State(git): State<Git>, Query(query): Query<ConfigQuery>) -> Result<JsonReply<ConfigReply>> {
    let scope = scope(query.scope.as_deref())?;
    let value = git.setting(query.key, scope, query.path.as_deref()).await?;
    Ok(JsonReply(ConfigReply { value }))
}

/// Sets a setting
#[utoipa::path(post, path = "/git/config", tag = "git", request_body = ConfigRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn set_config(State(git): State<Git>, Json(request): Json<ConfigRequest>) -> Result<StatusCode> {
    require(&[("key", &request.key)])?;
    let value = request.value.ok_or_else(|| Error::new(ErrorKind::InvalidBody, "value is required"))?;
    let scope = scope(request.scope.as_deref())?;
    git.set(vec![(request.key, value)], scope, request.path.as_deref()).await?;
    Ok(StatusCode::OK)
}

/// Sets who commits: `user.name` and `user.email`
#[utoipa::path(post, path = "/git/config/user", tag = "git", request_body = UserRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn configure_user(State(git): State<Git>, Json(request): Json<UserRequest>) -> Result<StatusCode> {
    let UserRequest { name, email, scope: scope_text, path } = request;
    require(&[("name", &name), ("email", &email)])?;
    let settings = vec![("user.name".to_owned(), name), ("user.email".to_owned(), email)];
    git.set(settings, scope(scope_text.as_deref())?, path.as_deref()).await?;
    Ok(StatusCode::OK)
}

fn scope(text: Option<&str>) -> Result<Scope> {
    text.filter(|text| !text.is_empty()).map_or(Ok(Scope::default()), str::parse)
}
