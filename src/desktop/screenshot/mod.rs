//! Pictures of the screen.

pub(super) mod routes;
