//! A named shell that runs commands one by one, with logs (contract `process.md` 4 to 9).
//!
//! ```text
//!   exec ---> queue ---> driver ---line---> shell ---> the command's own pipes ---> pump ---> log ---> clients
//!                          ^                  | status
//!                          '---- control <----'
//! ```
//!
//! The shell belongs to the user: its directory, variables, functions, traps and umask are what commands made of them,
//! and nothing of ours is in its namespace, no helper process runs beside it, and no file is left behind.

mod command;
mod driver;
mod export;
mod print;
pub(crate) mod routes;
mod service;
mod wire;

pub use print::print;
pub use service::Sessions;
