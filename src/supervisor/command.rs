//! What to run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A program, its arguments and its surroundings.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments; a program without a slash is looked up in `PATH` of the process's environment.
    pub argv: Vec<OsString>,
    /// Working directory; the daemon's own when there is none.
    pub cwd: Option<PathBuf>,
    /// Variables on top of the environment that every process inherits.
    pub env: Vec<(OsString, OsString)>,
    /// Where its output goes.
    pub output: Output,
    /// The whole tree is killed when it has run for this long.
    pub time_limit: Option<Duration>,
}

/// Where standard output and standard error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Into one pipe, so that the log has both in the order in which they were written.
    Merged,
    /// Into a pipe each, so that the log knows which is which.
    Split,
    /// Nowhere.
    Discarded,
}

impl Command {
    /// A command with merged output and no time limit.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            cwd: None,
            env: Vec::new(),
            output: Output::Merged,
            time_limit: None,
        }
    }
}
