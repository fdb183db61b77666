//! URLs below `/files`.

use utoipa_axum::router::OpenApiRouter;

use super::search;
use super::service::Files;
use super::watch;

pub(crate) fn router(files: Files) -> OpenApiRouter {
    OpenApiRouter::new().merge(search::routes::router()).merge(watch::routes::router()).with_state(files)
}
