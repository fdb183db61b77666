//! Runs a command to its end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::platform::idempotency::{Idempotent, Key};
use crate::platform::paths;
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{
    Command, Exit, OutputLog, Script, Shells, StartError, Supervisor, check_name, check_value,
};

/// Runs commands; a cheap handle.
#[derive(Debug, Clone)]
pub struct Exec {
    supervisor: Supervisor,
    shells: Shells,
    work_dir: Arc<Path>,
    finished: Idempotent<Outcome>,
}

/// What to run.
#[derive(Debug)]
pub struct Request {
    /// Text of a shell script, of any length.
    pub command: String,
    /// Working directory; relative ones are below the daemon's.
    pub cwd: Option<String>,
    /// The whole tree is killed when it has run for this long.
    pub time_limit: Option<Duration>,
    /// Variables on top of those that every process inherits.
    pub env: Vec<(String, String)>,
    /// Killed, with its whole tree, when nobody waits for the answer any more.
    pub kill_on_disconnect: bool,
}

/// What became of a command.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran; see the exit for how it ended.
    Ended {
        /// How it ended.
        exit: Exit,
        /// What it printed, complete.
        output: OutputLog,
    },
    /// It could not be started.
    NotStarted(Arc<StartError>),
}

impl Exec {
    /// Relative working directories are below `work_dir`.
    pub fn new(supervisor: Supervisor, shells: Shells, work_dir: PathBuf, shutdown: Shutdown) -> Self {
        Self { supervisor, shells, work_dir: work_dir.into(), finished: Idempotent::new(shutdown) }
    }

    /// Runs a command to its end. It goes on when the caller goes away, unless the request says otherwise.
    ///
    /// # Errors
    /// When the request makes no sense, or its key stands for another one. Nothing was started then.
    pub async fn run(&self, request: Request, key: Option<Key>) -> Result<Outcome> {
        check(&request)?;
        let abandoned = CancellationToken::new();
        let guard = request.kill_on_disconnect.then(|| abandoned.clone().drop_guard());
        let exec = self.clone();
        let outcome = self.finished.run(key, async move { exec.run_to_end(request, abandoned).await }).await;
        drop(guard);
        outcome
    }

    async fn run_to_end(&self, request: Request, abandoned: CancellationToken) -> Result<Outcome> {
        let script = Script::new(&self.shells.find(), &request.command)?;
        let mut command = Command::new(script.argv());
        command.cwd = request.cwd.map(|cwd| paths::resolve(&self.work_dir, &cwd));
        command.cwd.get_or_insert_with(|| self.work_dir.to_path_buf());
        command.env =
            request.env.into_iter().map(|(name, value)| (OsString::from(name), value.into())).collect();
        command.time_limit = request.time_limit;
        let process = match self.supervisor.start(command).await {
            Ok(process) => process,
            Err(error) => return Ok(Outcome::NotStarted(Arc::new(error))),
        };
        let exit = process.exited_or_killed(&abandoned).await;
        drop(script); // the shell has read it
        Ok(Outcome::Ended { exit, output: process.output().clone() })
    }
}

fn check(request: &Request) -> Result<()> {
    if request.command.is_empty() {
        return Err(Error::invalid("invalid request body: command is required"));
    }
    if request.command.trim().is_empty() {
        return Err(Error::invalid("command cannot be empty or whitespace-only"));
    }
    if request.command.contains('\0') {
        return Err(Error::invalid("command has a NUL byte"));
    }
    if request.cwd.as_ref().is_some_and(|cwd| cwd.contains('\0')) {
        return Err(Error::invalid("cwd has a NUL byte"));
    }
    for (name, value) in &request.env {
        check_name(name)?;
        check_value(name, value)?;
    }
    Ok(())
}
