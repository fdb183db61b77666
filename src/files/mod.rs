//! Files: list, info, move, delete, permissions, upload and download, search and replace, watch (contract `files.md`).

mod root;
pub(crate) mod routes;
mod search;
mod service;
mod watch;

pub use service::Files;
