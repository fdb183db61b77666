//! Mouse and keyboard.

pub(super) mod routes;

/// Keys and buttons that are held down between requests.
#[derive(Debug, Default)]
pub(super) struct Held {}
