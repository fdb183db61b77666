//! What the tests stand on.

mod client;
mod daemon;
mod socket;

pub(crate) use client::{Call, Client};
pub(crate) use daemon::{Daemon, SHELLS, gone, make_fifo, pid_in, within};
pub(crate) use socket::Socket;
