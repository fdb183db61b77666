//! What the daemon is and what it runs on: version, directories, environment, metrics.

pub mod routes;
mod service;
mod wire;

pub use service::System;
