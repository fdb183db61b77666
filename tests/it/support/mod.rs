//! What the tests stand on.

mod client;
mod daemon;

pub(crate) use client::{Client, Reply};
pub(crate) use daemon::{Daemon, is_alive, within};
