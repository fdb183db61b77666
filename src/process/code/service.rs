//! Runs a program of some language to its end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::artifacts::Artifacts;
use super::node::Node;
use super::typescript::{ProgramFile, Runner};
use super::{javascript, marker, python};
use crate::error::{Error, Result};
use crate::platform::blocking::Lane;
use crate::platform::idempotency::{Idempotent, Key};
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{
    Command, DEFAULT_PATH, Environment, Exit, OutputLog, Process, StartError, Supervisor, check_name,
    check_value,
};

/// Charts and program files worked on at a time.
const FILES: usize = 4;

/// Runs programs; a cheap handle.
#[derive(Debug, Clone)]
pub struct Code {
    supervisor: Supervisor,
    environment: Environment,
    work_dir: Arc<Path>,
    /// Where files of programs go that need one.
    temporary: Arc<Path>,
    node: Node,
    files: Lane,
    shutdown: Shutdown,
    finished: Idempotent<Outcome>,
}

/// What a program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python 3.
    Python,
    /// JavaScript, for Node.js.
    JavaScript,
    /// TypeScript, for Node.js.
    TypeScript,
}

/// What to run.
#[derive(Debug)]
pub struct Request {
    /// The program, of any length.
    pub code: String,
    /// What it is written in.
    pub language: Language,
    /// Its arguments.
    pub argv: Vec<String>,
    /// Variables on top of those that every process inherits.
    pub env: Vec<(String, String)>,
    /// The whole tree is killed when it has run for this long.
    pub time_limit: Option<Duration>,
    /// Killed, with its whole tree, when nobody waits for the answer any more.
    pub kill_on_disconnect: bool,
}

/// What became of a program.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran; see the exit for how it ended.
    Ended {
        /// How it ended.
        exit: Exit,
        /// What it printed, complete.
        output: OutputLog,
        /// The parts of that which are meant to be seen.
        shown: Arc<[Range<u64>]>,
        /// The charts that it drew, each as JSON.
        charts: Arc<[String]>,
    },
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// Why a program does not start.
enum Failure {
    /// The image lacks something: a result.
    Missing(String),
    /// We failed.
    Ours(Error),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Missing(error.to_string())
    }
}

/// A program that runs, and what has to stay until it has ended.
struct Started {
    process: Process,
    artifacts: Option<Artifacts>,
    file: Option<ProgramFile>,
}

impl Code {
    /// Programs run in `work_dir`; those that need a file get it below `temporary`.
    pub fn new(
        supervisor: Supervisor,
        environment: Environment,
        work_dir: PathBuf,
        temporary: PathBuf,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            supervisor,
            environment,
            work_dir: work_dir.into(),
            temporary: temporary.into(),
            node: Node::default(),
            files: Lane::new(FILES),
            finished: Idempotent::new(shutdown.clone()),
            shutdown,
        }
    }

    /// Runs a program to its end. It goes on when the caller goes away, unless the request says otherwise.
    ///
    /// # Errors
    /// When the request makes no sense, or its key stands for another one. Nothing was started then.
    pub async fn run(&self, request: Request, key: Option<Key>) -> Result<Outcome> {
        check(&request)?;
        let abandoned = CancellationToken::new();
        let guard = request.kill_on_disconnect.then(|| abandoned.clone().drop_guard());
        let code = self.clone();
        let outcome = self.finished.run(key, async move { code.run_to_end(request, abandoned).await }).await;
        drop(guard);
        outcome
    }

    async fn run_to_end(&self, request: Request, abandoned: CancellationToken) -> Result<Outcome> {
        let Started { process, artifacts, file } = match self.start(&request).await {
            Ok(started) => started,
            Err(Failure::Missing(reason)) => return Ok(Outcome::NotStarted(reason)),
            Err(Failure::Ours(error)) => return Err(error),
        };
        let exit = process.exited_or_killed(&abandoned).await;
        file.into_iter().for_each(|file| self.files.discard(file));
        let output = process.output().clone();
        let found = marker::find(&output).await;
        let mut charts = self.charts(artifacts).await?;
        charts.extend(found.charts);
        Ok(Outcome::Ended { exit, output, shown: found.kept.into(), charts: charts.into() })
    }

    async fn charts(&self, artifacts: Option<Artifacts>) -> Result<Vec<String>> {
        let Some(artifacts) = artifacts.filter(|artifacts| !artifacts.is_empty()) else {
            return Ok(Vec::new());
        };
        let read = self.files.run(move || artifacts.charts()).await?;
        read.map_err(|error| Error::internal("the charts cannot be read").with_source(error))
    }

    async fn start(&self, request: &Request) -> Result<Started, Failure> {
        match request.language {
            Language::Python => self.start_python(request).await,
            Language::JavaScript => self.start_javascript(request).await,
            Language::TypeScript => self.start_typescript(request).await,
        }
    }

    async fn start_python(&self, request: &Request) -> Result<Started, Failure> {
        let no_memory =
            |error: io::Error| Failure::Ours(Error::internal("no memory for a program").with_source(error));
        let artifacts = Artifacts::new().map_err(no_memory)?;
        let [preferred, other] = python::NAMES;
        let command = |name| {
            python::command(name, &request.code, &request.argv, artifacts.descriptor())
                .map(|command| self.prepared(command, request))
                .map_err(no_memory)
        };
        let process = match self.supervisor.start(command(preferred)?).await {
            Err(error) if error.is_missing_program() => {
                self.supervisor.start(command(other)?).await.map_err(|_| error)? // told by the name that people expect
            }
            started => started?,
        };
        Ok(Started { process, artifacts: Some(artifacts), file: None })
    }

    async fn start_javascript(&self, request: &Request) -> Result<Started, Failure> {
        let version = self.node.version(&self.supervisor, &self.path(request)).await?.unwrap_or_default();
        let (command, program) = javascript::command(version, &request.code, &request.argv);
        let (process, mut input) = self.supervisor.start_with_input(self.prepared(command, request)).await?;
        let reader = process.clone();
        self.shutdown.spawn(async move {
            // One that ends without reading it all wants no more of it.
            tokio::select! {
                _ = input.write_all(program.as_bytes()) => {}
                _ = reader.exited() => {}
            }
        });
        Ok(Started { process, artifacts: None, file: None })
    }

    async fn start_typescript(&self, request: &Request) -> Result<Started, Failure> {
        let path = self.path(request);
        let node = self.node.version(&self.supervisor, &path).await?;
        let (work, temporary, code) =
            (Arc::clone(&self.work_dir), Arc::clone(&self.temporary), request.code.clone());
        let found = self.files.run(move || {
            let runner = Runner::find(&work, &path, node).map_err(Failure::Missing)?;
            let file = ProgramFile::new(&temporary, &work, &code).map_err(Failure::Ours)?;
            Ok::<_, Failure>((runner, file))
        });
        let (runner, file) = found.await.map_err(Failure::Ours)??;
        let command = self.prepared(runner.command(&file.path(), &request.argv), request);
        Ok(Started { process: self.supervisor.start(command).await?, artifacts: None, file: Some(file) })
    }

    /// With what all languages have.
    fn prepared(&self, mut command: Command, request: &Request) -> Command {
        command.cwd = Some(self.work_dir.to_path_buf());
        command.env = request.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        command.time_limit = request.time_limit;
        command
    }

    /// `PATH` as the program will have it.
    fn path(&self, request: &Request) -> OsString {
        let own = request.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| OsString::from(path));
        own.or_else(|| self.environment.get("PATH")).unwrap_or_else(|| OsStr::new(DEFAULT_PATH).to_owned())
    }
}

fn check(request: &Request) -> Result<()> {
    if request.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::invalid("an element of argv has a NUL byte"));
    }
    for (name, value) in &request.env {
        check_name(name)?;
        check_value(name, value)?;
    }
    Ok(())
}
