//! Interactive terminals (contract `pty.md`).
//!
//! A PTY is a login shell, or any other program, on a pseudo-terminal of its own, under an id of the client's. Clients
//! come and go over WebSockets; it lives until its program ends or it is deleted.
//!
//! ```text
//!   create --> [not started] --first connect--> running --exit--> ended --a minute--> forgotten
//!        '------------------------------------->   |
//!                                                  '--delete--> gone
//! ```
//!
//! The id is free as soon as the program has ended. An ended PTY can still be connected to for a minute, by a client that
//! asks for an offset, or when nobody has seen any of it: what it printed, its exit code and the close come then as they
//! would have come before. What a terminal looked like is not kept: replay is bytes, drawing them is the client's.

pub(crate) mod routes;
mod service;
mod socket;
mod state;
mod wire;

pub use service::Ptys;
