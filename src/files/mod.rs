//! Files: list, info, move, delete, permissions, upload and download, search and replace, watch (contract `files.md`).

pub(crate) mod routes;
mod service;

pub use service::Files;
