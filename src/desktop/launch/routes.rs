//! URL of launching.

use axum::Json;
use axum::extract::State;

use super::wire::{LaunchReply, LaunchRequest};
use crate::desktop::Desktop;
use crate::desktop::body::Body;
use crate::endpoints;
use crate::error::Result;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new().routes(endpoints!(launch))
}

/// Starts a program on the desktop, and waits for its window when asked to
#[utoipa::path(post, path = "/computeruse/launch", tag = "computer use", request_body = LaunchRequest,
    responses((status = 200, body = LaunchReply), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn launch(
    State(desktop): State<Desktop>,
    Body(request): Body<LaunchRequest>,
) -> Result<Json<LaunchReply>> {
    Ok(Json(desktop.launch(request.check()?).await?.into()))
}
