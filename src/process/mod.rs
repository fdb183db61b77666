//! Running things, in the ways that clients want it.
//!
//! [`exec`] is one command with bounded time and its collected output; [`session`] is a named shell that runs commands
//! one by one, with logs that can be followed; [`pty`] is an interactive terminal. [`code`] is a program in some language,
//! with the charts that it draws; [`interpreter`] is Python that keeps its state.

pub mod code;
pub mod exec;
pub mod interpreter;
pub mod pty;
pub mod session;
