//! URLs of mouse and keyboard, below `/computeruse/mouse` and `/computeruse/keyboard`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::wire::{
    ButtonRequest, ClickRequest, DragRequest, HoldRequest, HotkeyRequest, KeyRequest, MoveRequest,
    OutcomeReply, Position, ScrollRequest, Scrolled, TypeRequest,
};
use super::{ActionRequest, mouse, perform};
use crate::desktop::Desktop;
use crate::desktop::batch::{Acting, After, AfterReply};
use crate::desktop::body::{Body, Empty};
use crate::endpoints;
use crate::error::Result;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new()
        .routes(endpoints!(position))
        .routes(endpoints!(move_to))
        .routes(endpoints!(click))
        .routes(endpoints!(drag))
        .routes(endpoints!(scroll))
        .routes(endpoints!(button_down))
        .routes(endpoints!(button_up))
        .routes(endpoints!(type_text))
        .routes(endpoints!(press))
        .routes(endpoints!(hotkey))
        .routes(endpoints!(key_down))
        .routes(endpoints!(key_up))
}

type Reply = Result<Json<Acted>>;

/// What an action replies, and what was asked for to follow it.
#[derive(Debug, Serialize)]
struct Acted {
    #[serde(flatten)]
    outcome: OutcomeReply,
    #[serde(flatten)]
    after: AfterReply,
}

async fn act(desktop: &Desktop, request: ActionRequest, after: After) -> Reply {
    let (action, follow) = (request.check()?, after.check()?);
    let (outcome, after) = follow.after(desktop, perform(desktop, action)).await?;
    Ok(Json(Acted { outcome: outcome.into(), after }))
}

/// Where the pointer is
#[utoipa::path(get, path = "/computeruse/mouse/position", tag = "computer use",
    responses((status = 200, body = Position), (status = 503, body = ErrorBody)))]
async fn position(State(desktop): State<Desktop>) -> Result<Json<Position>> {
    let position = desktop.x11().await?.run(|wire| mouse::position(wire, None)).await?;
    Ok(Json(position.into()))
}

/// Moves the pointer; replies where it is then
#[utoipa::path(post, path = "/computeruse/mouse/move", tag = "computer use", request_body = Acting<MoveRequest>,
    responses((status = 200, body = Position), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn move_to(State(desktop): State<Desktop>, Body(acting): Body<Acting<MoveRequest>>) -> Reply {
    act(&desktop, ActionRequest::Move(acting.request), acting.after).await
}

/// Clicks, once or more often; replies where the pointer is then
#[utoipa::path(post, path = "/computeruse/mouse/click", tag = "computer use", request_body = Acting<ClickRequest>,
    responses((status = 200, body = Position), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn click(State(desktop): State<Desktop>, Body(acting): Body<Acting<ClickRequest>>) -> Reply {
    act(&desktop, ActionRequest::Click(acting.request), acting.after).await
}

/// Moves along a path with a button down; replies where the pointer is then
#[utoipa::path(post, path = "/computeruse/mouse/drag", tag = "computer use", request_body = Acting<DragRequest>,
    responses((status = 200, body = Position), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn drag(State(desktop): State<Desktop>, Body(acting): Body<Acting<DragRequest>>) -> Reply {
    act(&desktop, ActionRequest::Drag(acting.request), acting.after).await
}

/// Turns the wheel
#[utoipa::path(post, path = "/computeruse/mouse/scroll", tag = "computer use", request_body = Acting<ScrollRequest>,
    responses((status = 200, body = Scrolled), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn scroll(State(desktop): State<Desktop>, Body(acting): Body<Acting<ScrollRequest>>) -> Reply {
    act(&desktop, ActionRequest::Scroll(acting.request), acting.after).await
}

/// Presses a button and keeps it down
#[utoipa::path(post, path = "/computeruse/mouse/down", tag = "computer use", request_body = Acting<ButtonRequest>,
    responses((status = 200, body = Position), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn button_down(State(desktop): State<Desktop>, Body(acting): Body<Acting<ButtonRequest>>) -> Reply {
    act(&desktop, ActionRequest::MouseDown(acting.request), acting.after).await
}

/// Releases a button; one that is not down is left as it is
#[utoipa::path(post, path = "/computeruse/mouse/up", tag = "computer use", request_body = Acting<ButtonRequest>,
    responses((status = 200, body = Position), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn button_up(State(desktop): State<Desktop>, Body(acting): Body<Acting<ButtonRequest>>) -> Reply {
    act(&desktop, ActionRequest::MouseUp(acting.request), acting.after).await
}

/// Types text, every character of it or none
///
/// What the keyboard has no key for is typed as well, at some hundreds of different characters a second.
#[utoipa::path(post, path = "/computeruse/keyboard/type", tag = "computer use", request_body = Acting<TypeRequest>,
    responses((status = 200, body = Empty), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn type_text(State(desktop): State<Desktop>, Body(acting): Body<Acting<TypeRequest>>) -> Reply {
    act(&desktop, ActionRequest::Type(acting.request), acting.after).await
}

/// Presses a key, with modifiers, and releases them
#[utoipa::path(post, path = "/computeruse/keyboard/key", tag = "computer use", request_body = Acting<KeyRequest>,
    responses((status = 200, body = Empty), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn press(State(desktop): State<Desktop>, Body(acting): Body<Acting<KeyRequest>>) -> Reply {
    act(&desktop, ActionRequest::Key(acting.request), acting.after).await
}

/// Presses a chord and releases it
#[utoipa::path(post, path = "/computeruse/keyboard/hotkey", tag = "computer use", request_body = Acting<HotkeyRequest>,
    responses((status = 200, body = Empty), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn hotkey(State(desktop): State<Desktop>, Body(acting): Body<Acting<HotkeyRequest>>) -> Reply {
    act(&desktop, ActionRequest::Hotkey(acting.request), acting.after).await
}

/// Presses a key and keeps it down, until it is released or the input has not been used for a minute
#[utoipa::path(post, path = "/computeruse/keyboard/down", tag = "computer use", request_body = Acting<HoldRequest>,
    responses((status = 200, body = Empty), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn key_down(State(desktop): State<Desktop>, Body(acting): Body<Acting<HoldRequest>>) -> Reply {
    act(&desktop, ActionRequest::KeyDown(acting.request), acting.after).await
}

/// Releases a key; one that is not down is left as it is
#[utoipa::path(post, path = "/computeruse/keyboard/up", tag = "computer use", request_body = Acting<HoldRequest>,
    responses((status = 200, body = Empty), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn key_up(State(desktop): State<Desktop>, Body(acting): Body<Acting<HoldRequest>>) -> Reply {
    act(&desktop, ActionRequest::KeyUp(acting.request), acting.after).await
}
