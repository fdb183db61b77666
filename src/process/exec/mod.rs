//! One command, bounded time, collected output (contract `process.md` 1).

pub(crate) mod routes;
mod service;
mod wire;

pub use service::Exec;
