//! URLs of pictures of the screen.

use crate::desktop::Desktop;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new()
}
