//! Python that keeps its state between runs (contract `interpreter.md`).
//!
//! ```text
//!   client --- socket --- run --- turn (FIFO) ---> context ---requests---> worker.py --- descriptors 1 and 2
//!                          ^                        |   ^------answers--------'                |
//!                          '------- events ---------'   '--------------- pipes ----------------'
//! ```
//!
//! A context is a task that owns one Python process. What code prints comes through pipes, whoever prints it; what the
//! worker says comes through a socket of its own, so neither can be taken for the other. A slow client slows the code
//! that it runs, and nobody else.

mod context;
pub(crate) mod routes;
mod run;
mod service;
mod text;
mod wire;
mod worker;

pub use service::Interpreter;
