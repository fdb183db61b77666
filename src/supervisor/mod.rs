//! The only place that starts processes, and the place that stops them all.
//!
//! One task owns each child: it alone waits, and every signal goes through it, so none can reach a recycled pid.
//! Everyone else holds a [`Process`]: give an order, await the exit, read the log.

mod audience;
mod command;
mod environment;
mod memory;
mod output;
mod pidfd;
mod process;
mod program;
mod pump;
mod script;
mod search;
mod shell;
mod signal;
mod spawn;
mod terminal;
mod tree;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

pub use audience::Viewer;
pub use command::{Command, Output};
pub use environment::{Environment, check_name, check_value};
pub use memory::memory;
pub use output::{Chunk, OutputLog, Piece, Stream};
pub use process::{Cause, Exit, Process};
pub use program::{DEFAULT_PATH, find_program, is_program};
pub use pump::Pump;
pub use script::{Script, ScriptMemory, descriptor_path, is_zsh};
pub use shell::Shells;
pub use signal::{ExitStatus, signal_by_name};
pub use spawn::StartError;
pub use terminal::{Ended, Input, Size, Terminal};

use crate::config::Config;
use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;

/// Processes started at a time; each start holds a thread until the child has reached its program.
const STARTS: usize = 16;

/// Starts processes and knows how to stop them. A cheap handle.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shutdown: Shutdown,
    environment: Environment,
    /// Time between SIGTERM and SIGKILL.
    grace: Duration,
    /// How often to look for ends on kernels that cannot tell.
    check_interval: Duration,
    limits: output::Limits,
    /// Full segments of output that are kept of a terminal.
    scrollback: usize,
    starts: Lane,
    /// Looks through `/proc` and writes what output spills.
    files: Lane,
    /// What children get as standard input, and those whose output nobody wants as output.
    null: OwnedFd,
    /// Soft limit of descriptors that we were started with, and that children get back.
    descriptors: Option<u64>,
    huge_pages: spawn::HugePages,
    memory_kills: process::MemoryKills,
    tag: tree::Tag,
    started: AtomicU32,
}

impl Supervisor {
    /// Raises our own limit of descriptors as far as the system lets us: a thousand commands at a time need several
    /// thousand. Children get the limit that we were started with.
    pub fn new(config: &Config, environment: Environment, shutdown: Shutdown) -> Self {
        let files = Lane::new(16);
        let inner = Inner {
            shutdown,
            environment,
            grace: config.termination_grace_period,
            check_interval: config.termination_check_interval,
            limits: output::Limits {
                in_memory: output::IN_MEMORY,
                spill_bytes: config.max_output.as_u64(),
                directory: config.temporary_directory(),
                lane: files.clone(),
            },
            scrollback: usize::try_from(config.terminal_scrollback.as_u64())
                .map_or(usize::MAX, |bytes| bytes.div_ceil(output::SEGMENT)),
            starts: Lane::new(STARTS),
            files,
            null: null().unwrap_or_else(|error| panic!("no descriptor for an empty standard input: {error}")),
            descriptors: raise_descriptor_limit(),
            huge_pages: spawn::HugePages::default(),
            memory_kills: process::MemoryKills::default(),
            tag: tree::Tag::of_daemon(),
            started: AtomicU32::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A log for output that does not come from a process's own pipes.
    pub fn output_log(&self) -> OutputLog {
        OutputLog::new(self.inner.limits.clone())
    }

    /// As [`Supervisor::output_log`], with memory alone: of more, the oldest is dropped.
    fn memory_log(&self) -> OutputLog {
        OutputLog::new(output::Limits { spill_bytes: 0, ..self.inner.limits.clone() })
    }

    /// As [`Supervisor::output_log`], for a terminal: the newest output, in memory only.
    fn scrollback(&self) -> OutputLog {
        let limits = &self.inner.limits;
        OutputLog::new(output::Limits { in_memory: self.inner.scrollback, spill_bytes: 0, ..limits.clone() })
    }

    /// Whether processes of this user can open the daemon's descriptors by their paths, as [`descriptor_path`] has them.
    ///
    /// # Errors
    /// What the operating system says of one: `/proc` may not be mounted.
    pub fn check_descriptor_paths(&self) -> std::io::Result<()> {
        File::open(descriptor_path(&self.inner.null)).map(drop)
    }

    /// Waits for the daemon to stop, then ends what its processes left behind: those in the background, those that
    /// called `setsid`, those whose parents have ended.
    pub async fn stop_all(self) {
        self.inner.shutdown.cancelled().await;
        let everything = tree::Root { tag: self.inner.tag, pid: None, reaped: Arc::default() };
        tree::stop(&self.inner, &everything, self.inner.grace).await;
    }
}

/// `/dev/null`, or in an image without it a pipe that nobody writes to.
fn null() -> std::io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).or_else(|_| {
        let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(reader)
    })
}

fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A hard limit of billions, as some container engines set, would cost the kernel memory for nothing.
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(1 << 20);
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
    limit.current
}
