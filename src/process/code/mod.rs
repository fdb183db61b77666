//! A program in Python, JavaScript or TypeScript, bounded time, collected output, charts (contract `process.md` 2, 3).
//!
//! A language's interpreter is started on the program itself, never through a shell, so that arguments arrive as they
//! were sent. What has to happen in the program's own process (its charts are described, its arguments put right) is
//! done in a way that leaves its namespace, its line numbers and its descriptors alone.

mod artifacts;
mod chart;
mod javascript;
mod marker;
mod node;
mod python;
pub(crate) mod routes;
mod service;
mod typescript;
mod wire;

pub use service::Code;
