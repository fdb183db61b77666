//! Running things, in the ways that clients want it.
//!
//! [`exec`] is one command with bounded time and its collected output.

pub mod exec;
