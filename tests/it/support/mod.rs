//! What the tests stand on.

mod client;
mod collector;
mod daemon;
mod display;
mod events;
mod files;
mod pty;
mod remotes;
mod repo;
mod socket;
mod upstream;

pub(crate) use client::{Call, Client};
pub(crate) use collector::{Collector, Habit, attribute};
pub(crate) use daemon::{
    Daemon, NODE_MODULES, SHELLS, gone, held_pipe, make_fifo, pid_in, program, python_path, within,
};
pub(crate) use display::{Display, Recorder, Seen, free_display, free_port};
pub(crate) use events::Events;
pub(crate) use files::{Changes, bulk_form, file_form, names_in};
pub(crate) use pty::{EXIT_CONTROL, Tty, until_unlisted};
pub(crate) use remotes::{
    GitServer, Manner, Origin, Proxy, SshServer, certificate, git, git_command, git_daemon, new_key,
    new_key_with, whoami,
};
pub(crate) use repo::Repo;
pub(crate) use socket::Socket;
pub(crate) use upstream::{Upstream, Wire, sent_header, streamed};
