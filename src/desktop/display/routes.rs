//! URLs of displays and windows, below `/computeruse/display`.

use axum::Json;
use axum::extract::State;

use super::WindowAction;
use super::wire::{
    DetailQuery, Displays, PlaceWindow, Resize, Resized, TimeoutQuery, WindowChanged, Windows,
};
use crate::desktop::Desktop;
use crate::desktop::body::Body;
use crate::endpoints;
use crate::error::Result;
use crate::http::extract::{Path, Query};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new()
        .routes(endpoints!(resize))
        .routes(endpoints!(info))
        .routes(endpoints!(windows))
        .routes(endpoints!(place))
        .routes(endpoints!(act))
}

/// The monitors that the screen is made of
#[utoipa::path(get, path = "/computeruse/display/info", tag = "computer use", params(DetailQuery),
    responses((status = 200, body = Displays), (status = 503, body = ErrorBody)))]
async fn info(State(desktop): State<Desktop>, Query(query): Query<DetailQuery>) -> Result<Json<Displays>> {
    let areas = desktop.x11().await?.run(|wire| wire.monitors()).await?;
    Ok(Json(Displays::new(&areas, query.detail)))
}

/// The windows, bottom to top; those without a title only with `detail`
#[utoipa::path(get, path = "/computeruse/display/windows", tag = "computer use", params(DetailQuery),
    responses((status = 200, body = Windows), (status = 503, body = ErrorBody)))]
async fn windows(State(desktop): State<Desktop>, Query(query): Query<DetailQuery>) -> Result<Json<Windows>> {
    Ok(Json(Windows::new(desktop.windows().await?, query.detail)))
}

/// Changes the size of the screen while everything on it goes on
///
/// A size larger than the X server can show needs a restart of it, which has to be allowed.
#[utoipa::path(patch, path = "/computeruse/display", tag = "computer use", request_body = Resize,
    responses((status = 200, body = Resized), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn resize(State(desktop): State<Desktop>, Body(request): Body<Resize>) -> Result<Json<Resized>> {
    let (width, height) = request.size()?;
    Ok(Json(desktop.resize(width, height, request.restart).await?.into()))
}

/// Moves and resizes a window; replies when the window manager has done it
#[utoipa::path(patch, path = "/computeruse/display/windows/{id}", tag = "computer use", request_body = PlaceWindow,
    params(("id" = u32, Path, description = "Id of the window"), TimeoutQuery),
    responses((status = 200, body = WindowChanged), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn place(
    State(desktop): State<Desktop>,
    Path(id): Path<u32>,
    Query(query): Query<TimeoutQuery>,
    Body(request): Body<PlaceWindow>,
) -> Result<Json<WindowChanged>> {
    Ok(Json(desktop.place_window(id, request.check()?, query.limit()?).await?.into()))
}

/// Focuses, raises, minimizes, maximizes, restores or closes a window; replies when the window manager has done it
#[utoipa::path(post, path = "/computeruse/display/windows/{id}/{action}", tag = "computer use",
    params(("id" = u32, Path, description = "Id of the window"),
        ("action" = String, Path, description = "focus, raise, minimize, maximize, restore or close"), TimeoutQuery),
    responses((status = 200, body = WindowChanged), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn act(
    State(desktop): State<Desktop>,
    Path((id, action)): Path<(u32, String)>,
    Query(query): Query<TimeoutQuery>,
) -> Result<Json<WindowChanged>> {
    Ok(Json(desktop.act_on_window(id, WindowAction::named(&action)?, query.limit()?).await?.into()))
}
