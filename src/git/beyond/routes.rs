//! URLs of diff, show, stash and tags.

use axum::Json as JsonReply;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::diff::{Manner, Sides};
use super::stash::StashOrder;
use super::tags::TagOrder;
use super::wire::{
    ApplyRequest, DeleteTagRequest, DropRequest, GitFileDiff, GitShow, GitStashes, GitTags, Hash,
    StashRequest, TagRequest,
};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::git::routes::PathQuery;
use crate::git::service::Git;
use crate::git::wire::require;
use crate::http::body::{json_array, json_of};
use crate::http::extract::{Json, Query, repeated};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::git) fn router() -> Routes<Git> {
    Routes::new()
        .routes(endpoints!(diff))
        .routes(endpoints!(show))
        .routes(endpoints!(stashes, stash, drop_stash))
        .routes(endpoints!(apply_stash))
        .routes(endpoints!(pop_stash))
        .routes(endpoints!(tags, create_tag, delete_tag))
}

/// What a diff is told as.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = GitDiffFormat)]
enum Format {
    /// A unified diff.
    #[default]
    Patch,
    /// An array with an object for each file.
    Json,
}

#[derive(Debug, Deserialize, IntoParams)]
struct DiffQuery {
    /// Root of the repository: absolute, or relative to the working directory.
    path: String,
    /// Any revision: the old side. Default: the index; HEAD with `staged`.
    from: Option<String>,
    /// Any revision: the new side. Default: the work tree.
    to: Option<String>,
    /// Whether the index is the new side. Default false.
    staged: Option<bool>,
    /// Whether untracked files of the work tree are shown as new ones. Default false.
    untracked: Option<bool>,
    /// Lines around a change. Default 3.
    context: Option<u32>,
    /// `patch`, a unified diff, or `json`, an array with an object for each file. Default `patch`.
    #[param(inline)]
    format: Option<Format>,
    /// Only this file or directory; may be repeated.
    #[serde(rename = "file")]
    #[param(required = false)]
    _file: Option<String>,
}

/// Differences between work tree, index and commits, as `git diff` tells them
///
/// Without parameters from the index to the work tree. Files are told in the order of their names, and renamed ones are
/// recognised; those larger than 32 MiB count as binary. The reply is streamed.
#[utoipa::path(get, path = "/git/diff", tag = "git", params(DiffQuery),
    responses((status = 200, content((String = "text/x-diff"), ([GitFileDiff] = "application/json"))),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn diff(
    State(git): State<Git>,
    Query(query): Query<DiffQuery>,
    RawQuery(text): RawQuery,
) -> Result<Response> {
    let sides = Sides { from: query.from, to: query.to, staged: query.staged.unwrap_or(false) };
    let manner = Manner {
        files: repeated(&text.unwrap_or_default(), "file"),
        context: query.context.unwrap_or(3),
        untracked: query.untracked.unwrap_or(false),
    };
    let files = git.diff(&query.path, sides, manner).await?;
    Ok(match query.format.unwrap_or_default() {
        Format::Patch => {
            let text = files.map(|file| file.map(|file| Bytes::from(file.patch)));
            ([(header::CONTENT_TYPE, "text/x-diff")], Body::from_stream(text)).into_response()
        }
        Format::Json => {
            let batches = files.map(|file| Ok(vec![GitFileDiff::from(file?)]));
            json_of(json_array(batches).await?)
        }
    })
}

#[derive(Debug, Deserialize, IntoParams)]
struct ShowQuery {
    /// Root of the repository: absolute, or relative to the working directory.
    path: String,
    /// Any revision. Default: HEAD.
    revision: Option<String>,
    /// Path below the root: its content as the commit has it is the reply.
    file: Option<String>,
    /// Lines around a change. Default 3.
    context: Option<u32>,
}

/// One commit with its changes; with `file`, the content of that file as the commit has it
#[utoipa::path(get, path = "/git/show", tag = "git", params(ShowQuery),
    responses((status = 200, content((GitShow = "application/json"), (Vec<u8> = "application/octet-stream"))),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn show(State(git): State<Git>, Query(query): Query<ShowQuery>) -> Result<Response> {
    let revision = query.revision.unwrap_or_else(|| "HEAD".to_owned());
    let Some(file) = query.file else {
        let shown = git.show(&query.path, revision, query.context.unwrap_or(3)).await?;
        return Ok(JsonReply(GitShow::from(shown)).into_response());
    };
    let (size, content) = git.content(&query.path, revision, file).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}

/// All that was put aside, newest first
#[utoipa::path(get, path = "/git/stash", tag = "git", params(PathQuery),
    responses((status = 200, body = GitStashes), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn stashes(State(git): State<Git>, Query(query): Query<PathQuery>) -> Result<JsonReply<GitStashes>> {
    Ok(JsonReply(git.stashes(&query.path).await?.into()))
}

/// Puts uncommitted changes aside; index and work tree are those of HEAD then
#[utoipa::path(post, path = "/git/stash", tag = "git", request_body = StashRequest,
    responses((status = 200, body = Hash), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn stash(State(git): State<Git>, Json(request): Json<StashRequest>) -> Result<JsonReply<Hash>> {
    require(&[("path", &request.path)])?;
    let order = StashOrder {
        message: request.message,
        untracked: request.include_untracked.unwrap_or(false),
        keep_index: request.keep_index.unwrap_or(false),
    };
    let hash = git.stash(&request.path, order).await?.to_string();
    Ok(JsonReply(Hash { hash }))
}

/// Takes changes back that were put aside, and keeps them in the stash
#[utoipa::path(post, path = "/git/stash/apply", tag = "git", request_body = ApplyRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn apply_stash(State(git): State<Git>, Json(request): Json<ApplyRequest>) -> Result<StatusCode> {
    take_back(&git, &request, false).await
}

/// Takes changes back that were put aside; they leave the stash unless there are conflicts
#[utoipa::path(post, path = "/git/stash/pop", tag = "git", request_body = ApplyRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn pop_stash(State(git): State<Git>, Json(request): Json<ApplyRequest>) -> Result<StatusCode> {
    take_back(&git, &request, true).await
}

async fn take_back(git: &Git, request: &ApplyRequest, drop: bool) -> Result<StatusCode> {
    require(&[("path", &request.path)])?;
    let with_index = request.reinstate_index.unwrap_or(false);
    git.apply_stash(&request.path, request.index.unwrap_or(0), with_index, drop).await?;
    Ok(StatusCode::OK)
}

/// Forgets changes that were put aside
#[utoipa::path(delete, path = "/git/stash", tag = "git", request_body = DropRequest,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn drop_stash(State(git): State<Git>, Json(request): Json<DropRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path)])?;
    git.drop_stash(&request.path, request.index.unwrap_or(0)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All tags, sorted by name
#[utoipa::path(get, path = "/git/tags", tag = "git", params(PathQuery),
    responses((status = 200, body = GitTags), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn tags(State(git): State<Git>, Query(query): Query<PathQuery>) -> Result<JsonReply<GitTags>> {
    Ok(JsonReply(git.tags(&query.path).await?.into()))
}

/// Creates a tag, with a message an annotated one; answers with what it points at
#[utoipa::path(post, path = "/git/tags", tag = "git", request_body = TagRequest,
    responses((status = 201, body = Hash), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn create_tag(
    State(git): State<Git>,
    Json(request): Json<TagRequest>,
) -> Result<(StatusCode, JsonReply<Hash>)> {
    let TagRequest { path, name, target, message, tagger, email, force } = request;
    require(&[("path", &path), ("name", &name)])?;
    let tagger = match (tagger, email) {
        (Some(tagger), Some(email)) => Some((tagger, email)),
        (None, None) => None,
        _ => return Err(Error::new(ErrorKind::InvalidBody, "tagger and email go together")),
    };
    let order = TagOrder { name, target, message, tagger, force: force.unwrap_or(false) };
    let hash = git.create_tag(&path, order).await?.to_string();
    Ok((StatusCode::CREATED, JsonReply(Hash { hash })))
}

/// Deletes a tag
#[utoipa::path(delete, path = "/git/tags", tag = "git", request_body = DeleteTagRequest,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn delete_tag(State(git): State<Git>, Json(request): Json<DeleteTagRequest>) -> Result<StatusCode> {
    require(&[("path", &request.path), ("name", &request.name)])?;
    git.delete_tag(&request.path, request.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
