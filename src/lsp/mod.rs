//! Language servers: real completions, symbols and faults, for any language that the image has a server for (contract
//! `lsp.md`).
//!
//! ```text
//!   routes ---> service (one server for each language and project) ---> server (process), sync (documents)
//!      |          ^                                                       |
//!      |       questions ---> answers (in the shape clients accept)     client (JSON-RPC) ---> framing ---> pipes
//!      '---> connect (an editor on the same server)
//! ```
//!
//! What is on disk counts: a file that changed is told to the server before the next question. Edits are answered, never
//! made.

mod answers;
pub mod client;
mod connect;
mod diagnostics;
mod documents;
mod events;
pub mod framing;
mod handshake;
mod languages;
mod position;
mod project;
mod questions;
pub(crate) mod routes;
mod server;
mod service;
mod sync;
mod uri;
mod wire;

pub use service::Lsp;
