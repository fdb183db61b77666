//! The desktop: a real screen that programs are seen and driven on (contract `computer-use.md`).
//!
//! One [`Desktop`] has everything: the processes that make up the screen ([`processes`]), the one connection to the X
//! server ([`x11`], the only folder that names the X11 libraries), and the lock over all input ([`input`]). Nothing of
//! it costs anything before it is asked for: no process, no thread, no connection.
//!
//! A screen that was there before, which `DISPLAY` names, is used as it is.

mod batch;
mod body;
mod clipboard;
mod display;
mod input;
mod launch;
mod logs;
mod parts;
mod processes;
mod programs;
mod routes;
mod screenshot;
mod service;
mod unit;
mod watch;
mod wire;
pub(crate) mod x11;

pub(crate) use routes::router;
pub use service::{Desktop, Settings};
