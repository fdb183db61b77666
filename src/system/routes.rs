//! URLs of the core endpoints (contract `core.md` 2).

use axum::Json as JsonReply;
use axum::extract::State;

use super::service::{EnvironmentChange, System};
use super::wire::{Directory, Done, Init, SystemMetrics, UpdateEnv, Version};
use crate::endpoints;
use crate::error::Result;
use crate::http::extract::Json;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(crate) fn router(system: System) -> Routes {
    Routes::new()
        .routes(endpoints!(version))
        .routes(endpoints!(init))
        .routes(endpoints!(work_dir))
        .routes(endpoints!(user_home_dir))
        .routes(endpoints!(project_dir))
        .routes(endpoints!(update_env))
        .routes(endpoints!(metrics))
        .with_state(system)
}

/// Version of the daemon; answers from the moment the port is open, without a token
#[utoipa::path(get, path = "/version", tag = "system", responses((status = 200, body = Version)))]
async fn version() -> JsonReply<Version> {
    JsonReply(Version { version: format!("v{}", env!("CARGO_PKG_VERSION")) })
}

/// Gives the daemon its telemetry token and starts the export of telemetry; may be called again at any time
#[utoipa::path(post, path = "/init", tag = "system", request_body = Init,
    responses((status = 200, body = Done), (status = 400, body = ErrorBody)))]
async fn init(State(system): State<System>, Json(body): Json<Init>) -> JsonReply<Done> {
    system.start_telemetry(body.token);
    JsonReply(Done { message: "Auth token set and telemetry initialized successfully" })
}

/// Working directory of the daemon, the base of all relative paths
#[utoipa::path(get, path = "/work-dir", tag = "system", responses((status = 200, body = Directory)))]
async fn work_dir(State(system): State<System>) -> JsonReply<Directory> {
    JsonReply(Directory { dir: system.work_dir().to_string_lossy().into_owned() })
}

/// Home directory of the user that the daemon runs as
#[utoipa::path(get, path = "/user-home-dir", tag = "system", responses((status = 200, body = Directory)))]
async fn user_home_dir(State(system): State<System>) -> JsonReply<Directory> {
    JsonReply(Directory { dir: system.home().to_string_lossy().into_owned() })
}

/// The home directory, as SDKs from before September 2025 ask for it
#[utoipa::path(get, path = "/project-dir", tag = "system", responses((status = 200, body = Directory)))]
async fn project_dir(state: State<System>) -> JsonReply<Directory> {
    user_home_dir(state).await
}

/// Changes the environment that later processes inherit; running ones keep theirs
#[utoipa::path(post, path = "/env", tag = "system", request_body = UpdateEnv,
    responses((status = 200, body = Done), (status = 400, body = ErrorBody)))]
async fn update_env(State(system): State<System>, Json(body): Json<UpdateEnv>) -> Result<JsonReply<Done>> {
    system.update_environment(EnvironmentChange {
        unset: body.unset.unwrap_or_default(),
        unset_value_prefix: body.unset_value_prefix.unwrap_or_default(),
        set: body.set.unwrap_or_default(),
    })?;
    Ok(JsonReply(Done { message: "Environment updated successfully" }))
}

/// Use of CPU, memory and disk against the sandbox's limits
#[utoipa::path(get, path = "/system/metrics", tag = "system", responses((status = 200, body = SystemMetrics)))]
async fn metrics(State(system): State<System>) -> Result<JsonReply<SystemMetrics>> {
    Ok(JsonReply(system.metrics().await?.into()))
}
