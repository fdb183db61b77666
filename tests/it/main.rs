//! Drives the real binary over HTTP. One module per slice; what they stand on is in `support`.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]
#![expect(clippy::disallowed_methods, reason = "tests start programs and read their environment")]

mod support;

mod code;
mod desktop;
mod exec;
mod files;
mod git;
mod git_remote;
mod interpreter;
mod logs;
mod lsp;
mod pid_1;
mod ports;
mod preview;
mod proxy;
mod proxy_bodies;
mod pty;
mod readme;
mod replace;
mod search;
mod server;
mod session;
mod standalone;
mod system;
mod telemetry;
mod transfer;
mod watch;
mod wire;
