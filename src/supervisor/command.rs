//! What to run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A program, its arguments and its surroundings. Standard output and standard error go to one pipe, so that the log
/// has them in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments; a program without a slash is looked up in `PATH` of the process's environment.
    pub argv: Vec<OsString>,
    /// Working directory; the daemon's own when there is none.
    pub cwd: Option<PathBuf>,
    /// Variables on top of the environment that every process inherits.
    pub env: Vec<(OsString, OsString)>,
    /// The whole tree is killed when it has run for this long.
    pub time_limit: Option<Duration>,
}

impl Command {
    /// A command with empty standard input and no time limit.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            cwd: None,
            env: Vec::new(),
            time_limit: None,
        }
    }
}
