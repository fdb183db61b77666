//! URLs of waiting and of events.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::events;
use super::wire::{DesktopEvent, EventsQuery, SettleReply, WaitQuery};
use crate::desktop::Desktop;
use crate::endpoints;
use crate::error::Result;
use crate::http::extract::Query;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::Upgrade;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new().routes(endpoints!(wait)).routes(endpoints!(follow))
}

/// Waits until nothing on the screen changes any more, or until something does
#[utoipa::path(get, path = "/computeruse/wait", tag = "computer use", params(WaitQuery),
    responses((status = 200, body = SettleReply), (status = 400, body = ErrorBody), (status = 501, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn wait(State(desktop): State<Desktop>, Query(query): Query<WaitQuery>) -> Result<Json<SettleReply>> {
    Ok(Json(desktop.wait(query.check()?).await?.into()))
}

/// Streams what happens on the desktop, over a WebSocket
///
/// Text frames, each one JSON object. The first is `ready`. A stream outlives the X server: it says when that has gone
/// and when it is there again.
#[utoipa::path(get, path = "/computeruse/events", tag = "computer use", params(EventsQuery),
    responses((status = 101, body = DesktopEvent, description = "A WebSocket"), (status = 400, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn follow(
    State(desktop): State<Desktop>,
    Query(query): Query<EventsQuery>,
    upgrade: Upgrade,
) -> Result<Response> {
    let topics = query.check()?;
    desktop.check_available().await?;
    let shutdown = desktop.inner.shutdown.clone();
    Ok(upgrade.serve(&shutdown, move |sender, receiver| events::stream(desktop, topics, sender, receiver)))
}
