//! What to run.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::platform::users::Credentials;

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
    /// Descriptors beside the standard three: number there, and what it is here.
    pub descriptors: Vec<(RawFd, Arc<OwnedFd>)>,
    /// Whose process it is; the daemon's own user's when there is none.
    pub user: Option<Credentials>,
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
            descriptors: Vec::new(),
            user: None,
            time_limit: None,
        }
    }
}
