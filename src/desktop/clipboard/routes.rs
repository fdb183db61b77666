//! URL of the clipboard.

use axum::Json;
use axum::body::Body;
use axum::extract::State;

use super::wire::{Clipboard, ClipboardQuery, SetClipboard};
use crate::desktop::Desktop;
use crate::desktop::body::Empty;
use crate::desktop::x11::selection::LARGEST;
use crate::endpoints;
use crate::error::Result;
use crate::http::extract::{Query, collect, json};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new().routes(endpoints!(get, put))
}

/// What is in the clipboard: text or a picture
#[utoipa::path(get, path = "/computeruse/clipboard", tag = "computer use", params(ClipboardQuery),
    responses((status = 200, body = Clipboard), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn get(State(desktop): State<Desktop>, Query(query): Query<ClipboardQuery>) -> Result<Json<Clipboard>> {
    let (selection, prefers_png) = query.check()?;
    Ok(Json(desktop.clipboard(selection, prefers_png).await?.into()))
}

/// Puts text or a picture into the clipboard
#[utoipa::path(put, path = "/computeruse/clipboard", tag = "computer use", request_body = SetClipboard,
    responses((status = 200, body = Empty), (status = 400, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn put(State(desktop): State<Desktop>, body: Body) -> Result<Json<Empty>> {
    let request: SetClipboard = json(&collect(body, LARGEST).await?)?;
    let (selection, content) = request.check()?;
    desktop.set_clipboard(selection, content).await?;
    Ok(Json(Empty {}))
}
