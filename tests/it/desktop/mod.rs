//! The desktop, on displays of the tests' own.

mod batch;
mod clipboard;
mod keyboard;
mod launch;
mod life;
mod mouse;
mod screenshot;
mod typing;
mod unavailable;
mod watch;
mod windows;
