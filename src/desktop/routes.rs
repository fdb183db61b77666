//! URLs of the desktop, below `/computeruse`.

use super::{Desktop, input, screenshot};
use crate::http::routes::Routes;

pub(crate) fn router(desktop: Desktop) -> Routes {
    Routes::new().merge(input::routes::router()).merge(screenshot::routes::router()).with_state(desktop)
}
