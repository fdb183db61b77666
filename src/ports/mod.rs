//! Ports of the sandbox: which ones are listened on, told once or as they open and close, and the way to them.
//!
//! `/port` asks the kernel when it is asked itself and keeps nothing; `watch.rs` looks again and again, but only while
//! somebody watches. `proxy/` passes on what comes for a port as if there were nothing between.

mod local;
mod proxy;
pub(crate) mod routes;
mod service;
mod watch;
mod wire;

pub use service::Ports;
