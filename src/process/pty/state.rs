//! One PTY: its program, its terminal, its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::supervisor::{Command, Exit, Input, Process, Size, Supervisor, Terminal, Viewer};

/// A terminal that clients have a name for.
#[derive(Debug)]
pub struct Pty {
    /// Chosen by the client.
    pub id: String,
    /// Its place among all PTYs, by creation.
    pub(super) order: u64,
    /// Where its program begins.
    pub cwd: PathBuf,
    /// What the client asked for, with `TERM`.
    pub env: BTreeMap<String, String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Its program starts when the first client connects.
    pub lazy_start: bool,
    command: Command,
    /// Held while the program is being started.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    was_attached: AtomicBool,
    end: watch::Sender<Option<End>>,
}

#[derive(Debug)]
struct State {
    size: Size,
    program: Option<(Process, Terminal)>,
    is_deleted: bool,
}

/// How a PTY ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// As a shell counts it: 128 and the signal's number for a program that a signal ended.
    pub code: i32,
}

/// What a client needs to take part.
#[derive(Debug)]
pub struct Attached {
    /// What is printed.
    pub viewer: Viewer,
    /// What is typed.
    pub input: Input,
}

impl End {
    /// `SIGKILL`, also when the program ended by itself in the moment it was deleted.
    const DELETED: Self = Self { code: 128 + libc::SIGKILL };

    /// The code in words; none for success.
    pub fn reason(self) -> Option<String> {
        const CTRL_C: i32 = 128 + libc::SIGINT;
        const KILLED: i32 = 128 + libc::SIGKILL;
        const TERMINATED: i32 = 128 + libc::SIGTERM;
        match self.code {
            0 => None,
            CTRL_C => Some("Ctrl+C".to_owned()),
            KILLED => Some("SIGKILL".to_owned()),
            TERMINATED => Some("SIGTERM".to_owned()),
            code if code > 128 => Some(format!("signal {}", code - 128)),
            _ => Some("non-zero exit".to_owned()),
        }
    }
}

impl Pty {
    pub(super) fn new(
        id: String,
        order: u64,
        env: BTreeMap<String, String>,
        lazy_start: bool,
        command: Command,
        size: Size,
    ) -> Self {
        Self {
            id,
            order,
            cwd: command.cwd.clone().unwrap_or_default(),
            env,
            created_at: Timestamp::now(),
            lazy_start,
            command,
            starting: tokio::sync::Mutex::new(()),
            state: Mutex::new(State { size, program: None, is_deleted: false }),
            was_attached: AtomicBool::new(false),
            end: watch::Sender::new(None),
        }
    }

    /// Columns and rows, as they are now.
    pub fn size(&self) -> Size {
        self.state().size
    }

    /// Whether its program runs.
    pub fn is_active(&self) -> bool {
        self.state().program.as_ref().is_some_and(|(process, _)| process.exit().is_none())
    }

    /// Whether it is there for clients: it runs, or waits for the first of them.
    pub(super) fn is_listed(&self) -> bool {
        match &self.state().program {
            Some((process, _)) => process.exit().is_none(),
            None => self.lazy_start,
        }
    }

    /// Starts its program, unless it was started before; gives it when this call did it.
    ///
    /// # Errors
    /// When it cannot be started, or the PTY was deleted meanwhile.
    pub(super) async fn start(&self, supervisor: &Supervisor) -> Result<Option<Process>> {
        let _starting = self.starting.lock().await;
        let size = {
            let state = self.state();
            if state.is_deleted {
                return Err(not_found(&self.id));
            }
            if state.program.is_some() {
                return Ok(None);
            }
            state.size
        };
        let started = supervisor.start_in_terminal(self.command.clone(), size).await;
        let (process, terminal) = started.map_err(|error| {
            Error::internal(format!("failed to start PTY session: {error}")).with_source(error)
        })?;
        let mut state = self.state();
        if state.size != size {
            let _ = terminal.resize(state.size); // it was resized while it started
        }
        state.program = Some((process.clone(), terminal));
        if state.is_deleted {
            process.kill();
        }
        Ok(Some(process))
    }

    /// Changes the size, also that of a terminal to come.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub(super) fn resize(&self, size: Size) -> Result<()> {
        let mut state = self.state();
        let resized = match &state.program {
            Some((_, terminal)) => terminal.resize(size),
            None => Ok(()),
        };
        if resized.is_err() || self.end().is_some() {
            return Err(self.terminated("cannot be resized"));
        }
        state.size = size;
        Ok(())
    }

    /// Takes part from `offset` on. With none, the first client of all gets everything that is kept, later ones get what
    /// comes next.
    ///
    /// # Errors
    /// When it has ended, unless an offset is asked for or nobody has seen any of it.
    pub(super) fn attach(&self, offset: Option<u64>) -> Result<Attached> {
        let is_first = !self.was_attached.swap(true, Ordering::AcqRel);
        if self.end().is_some() && !is_first && offset.is_none() {
            return Err(self.terminated("is no longer available"));
        }
        let state = self.state();
        let Some((_, terminal)) = &state.program else { return Err(not_found(&self.id)) };
        let viewer = terminal.attach(offset.or(is_first.then_some(0)));
        Ok(Attached { viewer, input: terminal.input() })
    }

    /// Whether a client has ever taken part.
    pub(super) fn was_attached(&self) -> bool {
        self.was_attached.load(Ordering::Acquire)
    }

    /// Kills its program with all its descendants; one that was not started will not be. Gives the program.
    pub(super) fn delete(&self) -> Option<Process> {
        let mut state = self.state();
        state.is_deleted = true;
        let process = state.program.as_ref().map(|(process, _)| process.clone());
        if let Some(process) = &process {
            process.kill();
        }
        process
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.state().is_deleted
    }

    /// Tells its end to whoever waits for it.
    pub(super) fn tell_end(&self, exit: Exit) {
        let end = if self.is_deleted() { End::DELETED } else { End { code: exit.status.shell_code() } };
        self.end.send_replace(Some(end));
    }

    /// Waits for its end; by then the id is free.
    pub async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await.expect("the PTY itself holds the sender");
        end.expect("waited for it")
    }

    fn end(&self) -> Option<End> {
        *self.end.borrow()
    }

    fn terminated(&self, consequence: &str) -> Error {
        let message = format!("PTY session '{}' has terminated and {consequence}", self.id);
        Error::new(ErrorKind::SessionEnded, message)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn not_found(id: &str) -> Error {
    Error::new(ErrorKind::ProcessNotFound, format!("PTY session {id} not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_have_reasons() {
        let reasons = [
            (0, None),
            (1, Some("non-zero exit")),
            (128, Some("non-zero exit")),
            (130, Some("Ctrl+C")),
            (137, Some("SIGKILL")),
            (139, Some("signal 11")),
            (143, Some("SIGTERM")),
        ];
        for (code, reason) in reasons {
            assert_eq!(End { code }.reason().as_deref(), reason, "{code}");
        }
    }
}
