//! What the tests stand on.

mod client;
mod daemon;

pub(crate) use client::{Call, Client};
pub(crate) use daemon::{Daemon, SHELLS, gone, make_fifo, pid_in, within};
