//! URLs of mouse and keyboard.

use crate::desktop::Desktop;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new()
}
