//! What the tests stand on.

mod client;
mod collector;
mod daemon;
mod socket;

pub(crate) use client::{Call, Client};
pub(crate) use collector::{Collector, Habit, attribute};
pub(crate) use daemon::{Daemon, SHELLS, gone, make_fifo, pid_in, within};
pub(crate) use socket::Socket;
