//! The desktop, on displays of the tests' own.

mod keyboard;
mod mouse;
mod screenshot;
mod typing;
