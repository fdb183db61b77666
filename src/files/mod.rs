//! Files: list, info, move, delete, permissions, upload and download, search and replace, watch (contract `files.md`).

mod copy;
mod forms;
mod list;
mod remove;
mod replace;
mod root;
pub(crate) mod routes;
mod search;
mod service;
mod transfer;
mod watch;
mod wire;

pub use service::Files;
