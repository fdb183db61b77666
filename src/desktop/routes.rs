//! URLs of the desktop, below `/computeruse`: here those of its life cycle (contract `computer-use.md` 2).

use axum::Json;
use axum::extract::State;

use super::logs::Stream;
use super::parts::Kind;
use super::wire::{Changed, Errors, LogQuery, Logs, Restarted, Running, Status, StatusQuery};
use super::{Desktop, batch, clipboard, display, input, launch, screenshot, watch};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::extract::{Path, Query};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

/// Bytes of a log that a reply has when nothing is said.
const TAIL: u64 = 1024 * 1024;
/// Most bytes of a log that a reply has.
const LARGEST_TAIL: u64 = 16 * 1024 * 1024;

pub(crate) fn router(desktop: Desktop) -> Routes {
    Routes::new()
        .routes(endpoints!(start))
        .routes(endpoints!(stop))
        .routes(endpoints!(status))
        .routes(endpoints!(process_status_of_all))
        .routes(endpoints!(process_status))
        .routes(endpoints!(restart))
        .routes(endpoints!(logs))
        .routes(endpoints!(errors))
        .merge(batch::routes::router())
        .merge(clipboard::routes::router())
        .merge(display::routes::router())
        .merge(input::routes::router())
        .merge(launch::routes::router())
        .merge(screenshot::routes::router())
        .merge(watch::routes::router())
        .with_state(desktop)
}

/// Starts the desktop and answers when it is ready; what runs already goes on
#[utoipa::path(post, path = "/computeruse/start", tag = "computer use",
    responses((status = 200, body = Changed), (status = 503, body = ErrorBody)))]
async fn start(State(desktop): State<Desktop>) -> Result<Json<Changed>> {
    desktop.start().await?;
    Ok(Json(Changed::new("Computer use processes started successfully", desktop.processes())))
}

/// Stops the desktop with all that runs on it
#[utoipa::path(post, path = "/computeruse/stop", tag = "computer use",
    responses((status = 200, body = Changed), (status = 503, body = ErrorBody)))]
async fn stop(State(desktop): State<Desktop>) -> Result<Json<Changed>> {
    desktop.stop().await?;
    Ok(Json(Changed::new("Computer use processes stopped successfully", desktop.processes())))
}

/// Whether the desktop runs
#[utoipa::path(get, path = "/computeruse/status", tag = "computer use", params(StatusQuery),
    responses((status = 200, body = Status), (status = 503, body = ErrorBody)))]
async fn status(State(desktop): State<Desktop>, Query(query): Query<StatusQuery>) -> Result<Json<Status>> {
    desktop.check_available().await?;
    let detail = if query.detail { Some(desktop.detail().await) } else { None };
    Ok(Json(Status::new(desktop.processes().overall(), detail)))
}

/// Whether the desktop runs, as SDKs ask it
#[utoipa::path(get, path = "/computeruse/process-status", tag = "computer use", params(StatusQuery),
    responses((status = 200, body = Status), (status = 503, body = ErrorBody)))]
async fn process_status_of_all(desktop: State<Desktop>, query: Query<StatusQuery>) -> Result<Json<Status>> {
    status(desktop, query).await
}

fn kind(name: &str) -> Result<Kind> {
    let unknown = || Error::new(ErrorKind::ProcessNotFound, format!("process {name} not found"));
    Kind::named(name).ok_or_else(unknown)
}

/// Whether one process of the desktop is alive and ready
#[utoipa::path(get, path = "/computeruse/process/{processName}/status", tag = "computer use",
    params(("processName" = String, Path, description = "xvfb, xfce4, x11vnc or novnc")),
    responses((status = 200, body = Running), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn process_status(State(desktop): State<Desktop>, Path(name): Path<String>) -> Result<Json<Running>> {
    desktop.check_available().await?;
    let running = desktop.processes().state(kind(&name)?).is_ready();
    Ok(Json(Running { process_name: name, running }))
}

/// Restarts one process and answers when it is ready; with the X server, also what depends on it
#[utoipa::path(post, path = "/computeruse/process/{processName}/restart", tag = "computer use",
    params(("processName" = String, Path, description = "xvfb, xfce4, x11vnc or novnc")),
    responses((status = 200, body = Restarted), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 500, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn restart(State(desktop): State<Desktop>, Path(name): Path<String>) -> Result<Json<Restarted>> {
    desktop.check_available().await?;
    desktop.restart(kind(&name)?).await?;
    Ok(Json(Restarted { message: format!("Process {name} restarted successfully"), process_name: name }))
}

/// What one process printed on standard output
#[utoipa::path(get, path = "/computeruse/process/{processName}/logs", tag = "computer use",
    params(("processName" = String, Path, description = "xvfb, xfce4, x11vnc or novnc"), LogQuery),
    responses((status = 200, body = Logs), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn logs(
    State(desktop): State<Desktop>,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Json<Logs>> {
    let logs = log(&desktop, &name, Stream::Output, &query).await?;
    Ok(Json(Logs { process_name: name, logs }))
}

/// What one process printed on standard error
#[utoipa::path(get, path = "/computeruse/process/{processName}/errors", tag = "computer use",
    params(("processName" = String, Path, description = "xvfb, xfce4, x11vnc or novnc"), LogQuery),
    responses((status = 200, body = Errors), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn errors(
    State(desktop): State<Desktop>,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Json<Errors>> {
    let errors = log(&desktop, &name, Stream::Errors, &query).await?;
    Ok(Json(Errors { process_name: name, errors }))
}

async fn log(desktop: &Desktop, name: &str, stream: Stream, query: &LogQuery) -> Result<String> {
    desktop.check_available().await?;
    let most = query.tail.unwrap_or(TAIL).min(LARGEST_TAIL);
    Ok(desktop.processes().log(kind(name)?, stream, most).await)
}
