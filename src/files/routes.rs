//! URLs below `/files`.

use utoipa_axum::router::OpenApiRouter;

use super::service::Files;

pub(crate) fn router(files: Files) -> OpenApiRouter {
    OpenApiRouter::new().with_state(files)
}
