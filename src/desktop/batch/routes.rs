//! URL of batches.

use axum::Json;
use axum::extract::State;

use super::wire::{BatchReply, BatchRequest};
use crate::desktop::Desktop;
use crate::desktop::body::Body;
use crate::endpoints;
use crate::error::Result;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new().routes(endpoints!(batch))
}

/// Does several things one after the other, with mouse and keyboard for itself throughout
///
/// All of it is checked before anything is done. What goes wrong after that is told in the results.
#[utoipa::path(post, path = "/computeruse/batch", tag = "computer use", request_body = BatchRequest,
    responses((status = 200, body = BatchReply), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn batch(
    State(desktop): State<Desktop>,
    Body(mut request): Body<BatchRequest>,
) -> Result<Json<BatchReply>> {
    let steps = request.steps()?;
    Ok(Json(desktop.batch(steps, request.stop_on_error).await?.into()))
}
