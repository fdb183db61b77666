//! What the tests stand on.

mod client;
mod daemon;
mod events;
mod files;

pub(crate) use client::{Call, Client, Reply};
pub(crate) use daemon::{Daemon, is_alive, within};
pub(crate) use events::Events;
pub(crate) use files::{Changes, bulk_form, file_form, names_in};
