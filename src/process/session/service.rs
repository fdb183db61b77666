//! Rules about sessions.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::command::{Cause, End, SessionCommand, State};
use super::driver::Driver;
use super::export;
use crate::error::{Error, ErrorKind, Result, os_text};
use crate::platform::idempotency::{Idempotent, Key};
use crate::platform::shutdown::Shutdown;
use crate::platform::telemetry::Telemetry;
use crate::supervisor::{Command, Output, Process, Shells, StartError, Supervisor, signal_by_name};

/// The session of the command that the daemon was started with.
pub(super) const ENTRYPOINT: &str = "entrypoint";
/// Its command.
pub(super) const ENTRYPOINT_COMMAND: &str = "entrypoint_command";
/// Longest session id, in bytes.
const ID_BYTES: usize = 256;
/// Commands that wait for their turn in one session.
const QUEUE: usize = 1024;
/// Commands that a session remembers; of more, the oldest that has ended is forgotten.
const REMEMBERED: usize = 10_000;

/// All sessions; a cheap handle.
#[derive(Debug, Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    supervisor: Supervisor,
    shells: Shells,
    telemetry: Telemetry,
    shutdown: Shutdown,
    work_dir: PathBuf,
    home: PathBuf,
    /// None is a name that is taken by a session that is being started.
    sessions: Mutex<HashMap<String, Option<Arc<Session>>>>,
    started: AtomicU64,
    created: Idempotent<()>,
    executed: Idempotent<Arc<SessionCommand>>,
}

/// A shell and what it was given to do.
#[derive(Debug)]
pub struct Session {
    /// Chosen by the client.
    pub id: String,
    /// Its place among all sessions, by creation.
    order: u64,
    /// None for the entrypoint of a daemon that was started without one.
    process: Option<Process>,
    /// None for the entrypoint, which takes no commands.
    queue: Option<mpsc::Sender<Arc<SessionCommand>>>,
    commands: Mutex<Vec<Arc<SessionCommand>>>,
    is_deleted: AtomicBool,
}

/// Where a session's shell begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// In the daemon's working directory.
    WorkDir,
    /// In the home directory, as SDKs before 0.103 expect.
    Home,
}

/// A command for a session.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Text for the shell.
    pub text: String,
    /// Answer at once, with input open, instead of at its end.
    pub is_async: bool,
    /// Input does not show in its log.
    pub hides_input: bool,
}

impl Session {
    /// Its commands, oldest first.
    pub fn commands(&self) -> Vec<Arc<SessionCommand>> {
        locked(&self.commands).clone()
    }

    fn command(&self, id: &str) -> Result<Arc<SessionCommand>> {
        let commands = locked(&self.commands);
        let found = commands.iter().find(|command| command.id == id);
        found.cloned().ok_or_else(|| Error::not_found("command not found"))
    }

    /// Why it takes no commands any more.
    fn ended(&self) -> Option<Error> {
        let code = match &self.process {
            Some(process) => process.exit()?.status.shell_code(),
            None => 0,
        };
        Some(Error::new(
            ErrorKind::SessionEnded,
            format!("session {} has ended with exit code {code}", self.id),
        ))
    }
}

impl Sessions {
    /// Shells begin in `work_dir`, or in `home` for old clients.
    pub fn new(
        supervisor: Supervisor,
        shells: Shells,
        work_dir: PathBuf,
        home: PathBuf,
        telemetry: Telemetry,
        shutdown: Shutdown,
    ) -> Self {
        let inner = Inner {
            supervisor,
            shells,
            work_dir,
            home,
            sessions: Mutex::default(),
            started: AtomicU64::new(0),
            created: Idempotent::new(shutdown.clone()),
            executed: Idempotent::new(shutdown.clone()),
            telemetry,
            shutdown,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs the daemon's own arguments as the entrypoint session; without any, that session is there and idle.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub async fn start_entrypoint(&self, argv: &[OsString]) -> Result<(), StartError> {
        let quoted: Vec<String> = argv.iter().map(|word| quote(&word.to_string_lossy())).collect();
        let entrypoint = |log| {
            let id = ENTRYPOINT_COMMAND.to_owned();
            Arc::new(SessionCommand::new(id, quoted.join(" "), false, false, log))
        };
        let (process, command) = if argv.is_empty() {
            let command = entrypoint(self.inner.supervisor.output_log());
            command.log().close();
            command.end(0, Cause::NeverRan);
            (None, command)
        } else {
            let mut command = Command::new(argv);
            command.output = Output::Split;
            command.cwd = Some(self.inner.work_dir.clone());
            let process = self.inner.supervisor.start(command).await?;
            let command = entrypoint(process.output().clone());
            command.begin();
            let (telemetry, shutdown) = (self.inner.telemetry.clone(), self.inner.shutdown.clone());
            if telemetry.is_configured() {
                let lines = export::follow(process.output().clone(), telemetry, shutdown);
                self.inner.shutdown.spawn(lines);
            }
            let (running, ended) = (process.clone(), Arc::clone(&command));
            self.inner.shutdown.spawn(async move {
                let exit = running.exited().await;
                ended.end(exit.status.shell_code(), Cause::EndedSession);
            });
            (Some(process), command)
        };
        let session = self.session(ENTRYPOINT.to_owned(), process, None, vec![command]);
        self.sessions().insert(ENTRYPOINT.to_owned(), Some(Arc::new(session)));
        Ok(())
    }

    fn session(
        &self,
        id: String,
        process: Option<Process>,
        queue: Option<mpsc::Sender<Arc<SessionCommand>>>,
        commands: Vec<Arc<SessionCommand>>,
    ) -> Session {
        let order = self.inner.started.fetch_add(1, Ordering::Relaxed);
        Session {
            id,
            order,
            process,
            queue,
            commands: Mutex::new(commands),
            is_deleted: AtomicBool::new(false),
        }
    }

    /// Starts a session's shell.
    ///
    /// # Errors
    /// When the id is taken, reserved, or no name, or the shell cannot be started.
    pub async fn create(&self, id: String, start: Start, key: Option<Key>) -> Result<()> {
        check_id(&id)?;
        let sessions = self.clone();
        self.inner.created.run(key, async move { sessions.create_now(id, start).await }).await
    }

    async fn create_now(&self, id: String, start: Start) -> Result<()> {
        self.inner.supervisor.check_descriptor_paths().map_err(|error| {
            let message = format!("sessions need /proc, which cannot be used here: {}", os_text(&error));
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        {
            let mut sessions = self.sessions();
            if sessions.contains_key(&id) {
                return Err(Error::new(ErrorKind::Conflict, "session already exists"));
            }
            sessions.insert(id.clone(), None);
        }
        let started = self.start_shell(start).await;
        let mut sessions = self.sessions();
        match started {
            Ok((process, queue)) => {
                let session = self.session(id.clone(), Some(process), Some(queue), Vec::new());
                sessions.insert(id, Some(Arc::new(session)));
                Ok(())
            }
            Err(error) => {
                sessions.remove(&id);
                Err(Error::internal(format!("the session's shell cannot be started: {error}"))
                    .with_source(error))
            }
        }
    }

    async fn start_shell(
        &self,
        start: Start,
    ) -> Result<(Process, mpsc::Sender<Arc<SessionCommand>>), StartError> {
        let program = self.inner.shells.find();
        let mut command = Command::new([&program]);
        command.output = Output::Discarded;
        let directory: &Path = match start {
            Start::WorkDir => &self.inner.work_dir,
            Start::Home => &self.inner.home,
        };
        command.cwd = Some(directory.to_owned());
        let (shell, lines) = self.inner.supervisor.start_with_input(command).await?;
        let (queue, queued) = mpsc::channel(QUEUE);
        let driver = Driver {
            shell: shell.clone(),
            program,
            lines,
            queue: queued,
            shutdown: self.inner.shutdown.clone(),
        };
        self.inner.shutdown.spawn(driver.drive());
        Ok((shell, queue))
    }

    /// The sessions of clients, oldest first.
    pub fn list(&self) -> Vec<Arc<Session>> {
        let sessions = self.sessions();
        let mut sessions: Vec<_> =
            sessions.values().flatten().filter(|session| session.id != ENTRYPOINT).cloned().collect();
        sessions.sort_unstable_by_key(|session| session.order);
        sessions
    }

    /// One session.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn get(&self, id: &str) -> Result<Arc<Session>> {
        self.sessions().get(id).cloned().flatten().ok_or_else(|| Error::not_found("session not found"))
    }

    /// One command of a session.
    ///
    /// # Errors
    /// When there is none of these ids.
    pub fn command(&self, session: &str, command: &str) -> Result<Arc<SessionCommand>> {
        self.get(session)?.command(command)
    }

    /// Ends a session and everything that it started; the id is free at once. Goes on when the caller leaves.
    ///
    /// # Errors
    /// When there is none of that id, or it is the entrypoint.
    pub async fn delete(&self, id: &str) -> Result<()> {
        if id == ENTRYPOINT {
            return Err(Error::invalid("can't delete entrypoint session"));
        }
        let session = {
            let mut sessions = self.sessions();
            match sessions.get(id) {
                Some(Some(_)) => sessions.remove(id).flatten(),
                Some(None) | None => None,
            }
        };
        let session = session.ok_or_else(|| Error::not_found("session not found"))?;
        session.is_deleted.store(true, Ordering::Release);
        if let Some(process) = &session.process {
            process.stop();
            process.exited().await;
        }
        Ok(())
    }

    /// Gives a session a command. An asynchronous one is answered when it is queued, another at its end.
    ///
    /// # Errors
    /// When the session does not exist, has ended, or was deleted meanwhile, or the command is blank.
    pub async fn exec(
        &self,
        id: &str,
        request: ExecRequest,
        key: Option<Key>,
    ) -> Result<Arc<SessionCommand>> {
        if id == ENTRYPOINT {
            return Err(Error::invalid("can't execute command in entrypoint session"));
        }
        if request.text.trim().is_empty() {
            return Err(Error::invalid("command cannot be empty"));
        }
        if request.text.contains('\0') {
            return Err(Error::invalid("command has a NUL byte"));
        }
        let (sessions, id) = (self.clone(), id.to_owned());
        self.inner.executed.run(key, async move { sessions.exec_now(&id, request).await }).await
    }

    async fn exec_now(&self, id: &str, request: ExecRequest) -> Result<Arc<SessionCommand>> {
        let session = self.get(id)?;
        let command = SessionCommand::new(
            Uuid::new_v4().to_string(),
            request.text,
            request.is_async,
            !request.hides_input,
            self.inner.supervisor.output_log(),
        );
        let command = Arc::new(command);
        session.submit(&command)?;
        if command.is_async {
            return Ok(command);
        }
        let End { cause, .. } = command.ended().await;
        let was_deleted = cause != Cause::Itself && session.is_deleted.load(Ordering::Acquire);
        if was_deleted || cause == Cause::NeverRan {
            let reason = if was_deleted { "was deleted" } else { "ended before the command could run" };
            return Err(Error::new(ErrorKind::SessionEnded, format!("session {id} {reason}")));
        }
        Ok(command)
    }

    /// Sends input to an asynchronous command, and closes its input when that is asked for.
    ///
    /// # Errors
    /// When there is no such command, or it takes no input any more.
    pub async fn input(&self, session: &str, command: &str, bytes: Bytes, close: bool) -> Result<()> {
        if session == ENTRYPOINT {
            return Err(Error::invalid("can't send input to entrypoint session"));
        }
        let session = self.get(session)?;
        let command = session.command(command)?;
        if let Some(error) = session.ended().filter(|_| command.exit_code().is_none()) {
            return Err(error);
        }
        if !bytes.is_empty() {
            command.send_input(bytes).await?;
        }
        if close {
            command.close_input();
        }
        Ok(())
    }

    /// Sends a signal to the processes of a running command; to the shell itself when it runs none.
    ///
    /// # Errors
    /// When there is no such command or signal, or the command does not run.
    pub async fn signal(&self, session: &str, command: &str, name: &str) -> Result<()> {
        let signal =
            signal_by_name(name).ok_or_else(|| Error::invalid(format!("there is no signal {name}")))?;
        let session = self.get(session)?;
        let command = session.command(command)?;
        match (command.state(), &session.process) {
            (State::Running { since }, Some(process)) => process.signal_since(signal, since).await,
            (State::Ended(end), _) => {
                let message = format!("command has already completed with exit code {}", end.code);
                return Err(Error::new(ErrorKind::CommandCompleted, message));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "command has not started: commands before it are running",
                ));
            }
        }
        Ok(())
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Session>>>> {
        locked(&self.inner.sessions)
    }
}

impl Session {
    fn submit(&self, command: &Arc<SessionCommand>) -> Result<()> {
        if let Some(error) = self.ended() {
            return Err(error);
        }
        let mut commands = locked(&self.commands);
        let queue = self.queue.as_ref().expect("only the entrypoint takes no commands");
        match queue.try_send(Arc::clone(command)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let message = format!("{QUEUE} commands wait in session {} already", self.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Error::new(ErrorKind::SessionEnded, format!("session {} has ended", self.id)));
            }
        }
        if commands.len() >= REMEMBERED
            && let Some(oldest) = commands.iter().position(|command| command.exit_code().is_some())
        {
            commands.remove(oldest);
        }
        commands.push(Arc::clone(command));
        Ok(())
    }
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::new(ErrorKind::InvalidBody, "sessionId is required"));
    }
    if id == ENTRYPOINT {
        return Err(Error::invalid("provided session ID is reserved and cannot be created/overridden"));
    }
    if id.len() > ID_BYTES || id.chars().any(char::is_control) {
        let message = format!("sessionId must have at most {ID_BYTES} bytes and no control characters");
        return Err(Error::new(ErrorKind::InvalidBody, message));
    }
    Ok(())
}

/// A word as a shell reads it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
