//! URLs below `/git`.

use axum::Json as JsonReply;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::service::Git;
use super::wire::GitStatus;
use crate::endpoints;
use crate::error::Result;
use crate::http::extract::Query;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(crate) fn router(git: Git) -> Routes {
    Routes::new().routes(endpoints!(status)).with_state(git)
}

#[derive(Debug, Deserialize, IntoParams)]
struct PathQuery {
    /// Root of the repository: absolute, or relative to the working directory.
    path: String,
}

/// What has changed: from HEAD to the index, and from there to the work tree
#[utoipa::path(get, path = "/git/status", tag = "git", params(PathQuery),
    responses((status = 200, body = GitStatus), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn status(State(git): State<Git>, Query(query): Query<PathQuery>) -> Result<JsonReply<GitStatus>> {
    Ok(JsonReply(git.status(&query.path).await?.into()))
}
