//! URLs below `/git` of what speaks to remotes.

use axum::Json as JsonReply;
use axum::extract::State;
use http::StatusCode;

use super::service::Remotes;
use super::wire::{
    GitCloneRequest, GitCredentialsRequest, GitFetchRequest, GitFetchResponse, GitPullRequest, GitPushRequest,
};
use crate::endpoints;
use crate::error::Result;
use crate::git::wire::{AddRemoteRequest, require};
use crate::http::extract::Json;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(crate) fn router(remotes: Remotes) -> Routes {
    Routes::new()
        .routes(endpoints!(clone))
        .routes(endpoints!(add_remote))
        .routes(endpoints!(fetch))
        .routes(endpoints!(pull))
        .routes(endpoints!(push))
        .routes(endpoints!(credentials))
        .with_state(remotes)
}

/// Clones a repository; goes on when the client leaves
#[utoipa::path(post, path = "/git/clone", tag = "git", request_body = GitCloneRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 502, body = ErrorBody)))]
async fn clone(State(remotes): State<Remotes>, Json(body): Json<GitCloneRequest>) -> Result<StatusCode> {
    require(&[("url", &body.url), ("path", &body.path)])?;
    let (path, request, access) = body.parts();
    remotes.clone_repository(&path, request, access).await?;
    Ok(StatusCode::OK)
}

/// Adds a remote, or replaces one, and fetches it if that is asked for; when that fails, nothing is added
#[utoipa::path(post, path = "/git/remotes", tag = "git", request_body = AddRemoteRequest,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 502, body = ErrorBody)))]
async fn add_remote(
    State(remotes): State<Remotes>,
    Json(request): Json<AddRemoteRequest>,
) -> Result<StatusCode> {
    let AddRemoteRequest { path, name, url, fetch, overwrite } = request;
    require(&[("path", &path), ("name", &name), ("url", &url)])?;
    remotes.add(&path, name, url, fetch.unwrap_or(false), overwrite.unwrap_or(false)).await?;
    Ok(StatusCode::CREATED)
}

/// Brings a remote's refs and objects; nothing in the work tree changes
#[utoipa::path(post, path = "/git/fetch", tag = "git", request_body = GitFetchRequest,
    responses((status = 200, body = GitFetchResponse), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 502, body = ErrorBody)))]
async fn fetch(
    State(remotes): State<Remotes>,
    Json(body): Json<GitFetchRequest>,
) -> Result<JsonReply<GitFetchResponse>> {
    require(&[("path", &body.path)])?;
    let (path, request, access) = body.parts();
    Ok(JsonReply(remotes.fetch(&path, request, access).await?.into()))
}

/// Fetches what the branch follows and moves it there, if that is a fast-forward
#[utoipa::path(post, path = "/git/pull", tag = "git", request_body = GitPullRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 502, body = ErrorBody)))]
async fn pull(State(remotes): State<Remotes>, Json(body): Json<GitPullRequest>) -> Result<StatusCode> {
    require(&[("path", &body.path)])?;
    let (path, request, access) = body.parts();
    remotes.pull(&path, request, access).await?;
    Ok(StatusCode::OK)
}

/// Pushes a branch to its own name, never by force
#[utoipa::path(post, path = "/git/push", tag = "git", request_body = GitPushRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 502, body = ErrorBody)))]
async fn push(State(remotes): State<Remotes>, Json(body): Json<GitPushRequest>) -> Result<StatusCode> {
    require(&[("path", &body.path)])?;
    let (path, request, access) = body.parts();
    remotes.push(&path, request, access).await?;
    Ok(StatusCode::OK)
}

/// Keeps a login in the user's `.git-credentials`, for the `git` program and for what is called here without one
#[utoipa::path(post, path = "/git/credentials", tag = "git", request_body = GitCredentialsRequest,
    responses((status = 200), (status = 400, body = ErrorBody)))]
async fn credentials(
    State(remotes): State<Remotes>,
    Json(body): Json<GitCredentialsRequest>,
) -> Result<StatusCode> {
    require(&[("username", &body.username), ("password", &body.password)])?;
    let (host, protocol) = (body.host().to_owned(), body.protocol().to_owned());
    remotes.keep_credentials(&host, &protocol, body.username, body.password).await?;
    Ok(StatusCode::OK)
}
