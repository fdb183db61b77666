//! toolboxd: the toolbox API of a sandbox, in one static binary.
//!
//! ```text
//! main -> server -> <slice>/routes -> <slice>/service -> supervisor -> platform -> the OS
//!           |            |                  |
//!          app       http, wire       error, config          (these know nothing above them)
//! ```
//!
//! A slice owns its URLs, its rules and its wire types; its folder is named after the first segment of its URLs.
//! No slice imports another: what two of them need moves down to [`supervisor`] or [`platform`].

pub mod app;
pub mod config;
pub mod error;
pub mod server;

pub mod desktop;
pub mod files;
pub mod git;
pub mod ports;
pub mod process;
pub mod standalone;
pub mod system;

pub mod http;
pub mod platform;
pub mod supervisor;
