//! What the tests stand on.

mod client;
mod daemon;
mod events;
mod socket;

pub(crate) use client::{Client, Reply};
pub(crate) use daemon::{Daemon, within};
pub(crate) use events::Events;
pub(crate) use socket::Socket;
