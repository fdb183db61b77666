//! Tells a warm shell to run commands, one after another, and learns how each ended.
//!
//! For each command there are pipes of its own. The shell opens them through the daemon's descriptors,
//! `/proc/<pid of the daemon>/fd/<n>`, and writes the command's status to the session's control pipe:
//!
//! ```sh
//! { command eval 'TEXT'; } </proc/7/fd/20 >/proc/7/fd/22 2>/proc/7/fd/24; command printf '%s\n' "$?" >/proc/7/fd/12
//! ```
//!
//! `eval` in a group runs the text in the shell itself and confines redirections to it; `command` keeps a syntax error
//! from ending the shell where `eval` is a special built-in (POSIX 2.14), and finds the built-ins although the user may
//! have functions of the same names. A shell that ends instead of writing a status (`exit 3`, `exec`, `set -e`, a
//! signal) ends the command with its own status.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::command::{Cause, SessionCommand};
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{OutputLog, Process, Pump, ScriptMemory, Stream, descriptor_path, is_zsh};

/// Longest text that is written into the line itself: shells read lines byte by byte.
const INLINE_BYTES: usize = 16 * 1024;

/// Owns a shell's standard input and runs what is queued.
pub(super) struct Driver {
    pub(super) shell: Process,
    /// The shell's program.
    pub(super) program: PathBuf,
    /// The shell's standard input.
    pub(super) lines: pipe::Sender,
    pub(super) queue: mpsc::Receiver<Arc<SessionCommand>>,
    pub(super) shutdown: Shutdown,
}

impl Driver {
    /// Runs what is queued until the shell has ended; then everything that is left ends with it.
    pub(super) async fn drive(mut self) {
        if let Err(error) = self.run_all().await {
            warn!(%error, "a session's shell cannot be told what to run");
            self.shell.kill();
        }
        let code = self.shell.exited().await.status.shell_code();
        self.queue.close();
        while let Some(command) = self.queue.recv().await {
            command
                .log()
                .append(Stream::Err, b"[toolboxd: the session ended before this command could run]\n")
                .await;
            command.log().close();
            command.end(code, Cause::NeverRan);
        }
    }

    async fn run_all(&mut self) -> io::Result<()> {
        let (reader, control) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut statuses = Statuses { pipe: pipe::Receiver::from_owned_fd(reader)?, read: Vec::new() };
        let mut previous = 0;
        loop {
            let command = tokio::select! {
                command = self.queue.recv() => command,
                _ = self.shell.exited() => return Ok(()),
            };
            let Some(command) = command else { return Ok(()) };
            match self.run(&command, &control, &mut statuses, previous).await? {
                Some(code) => previous = code,
                None => return Ok(()),
            }
        }
    }

    /// Runs one command; gives its exit code, or none when the shell ended with it.
    async fn run(
        &mut self,
        command: &Arc<SessionCommand>,
        control: &OwnedFd,
        statuses: &mut Statuses,
        previous: i32,
    ) -> io::Result<Option<i32>> {
        let (out_reader, out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err_reader, err) = pipe_with(PipeFlags::CLOEXEC)?;
        let (input, input_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let input_writer = command.is_async.then(|| pipe::Sender::from_owned_fd(input_writer)).transpose()?;
        let mut pump =
            Pump::new([(out_reader, Stream::Out), (err_reader, Stream::Err)], command.log().clone())?;
        let memory = match command.text.len() {
            ..=INLINE_BYTES => None,
            _ => Some(ScriptMemory::new(&command.text).map_err(io::Error::other)?),
        };
        let text = match &memory {
            None => format!("eval '{}'", command.text.replace('\'', r"'\''")),
            Some(memory) => memory.read_by(&self.program),
        };
        let line = self.line(&text, [&input, &out, &err], control, previous);
        command.begin();
        if let Some(writer) = input_writer {
            command.open_input(writer, &self.shutdown);
        } // else nobody can write: the command reads the end at once
        let ran = CancellationToken::new();
        let status = async {
            let status = self.status(&line, statuses).await;
            ran.cancel();
            status
        };
        let ((), status) = tokio::join!(pump.run(&ran), status);
        drop((out, err, input)); // who writes now was left behind by the command
        pump.drain().await;
        let code = match status {
            Some(code) => code,
            None => self.shell.exited().await.status.shell_code(),
        };
        command.end(code, if status.is_some() { Cause::Itself } else { Cause::EndedSession });
        self.shutdown.spawn(collect_rest(pump, command.log().clone(), self.shell.clone()));
        Ok(status.map(|_| code))
    }

    /// The line that makes the shell run `text`.
    fn line(&self, text: &str, pipes: [&OwnedFd; 3], control: &impl AsRawFd, previous: i32) -> String {
        let [input, out, err] = pipes.map(descriptor_path);
        let control = descriptor_path(control);
        let builtin = if is_zsh(&self.program) { "builtin" } else { "command" };
        // The user's `$?` is the status of the command before, not of our own; `&&` keeps `set -e` out of it.
        let status = if previous == 0 { String::new() } else { format!("(exit {previous}) && :; ") };
        format!(
            "{status}{{ {builtin} {text}; }} <{input} >{out} 2>{err}; {builtin} printf '%s\\n' \"$?\" >{control}\n"
        )
    }

    /// Sends the line and waits for the status; none when the shell ends instead.
    async fn status(&mut self, line: &str, statuses: &mut Statuses) -> Option<i32> {
        let shell = self.shell.clone();
        let told = async {
            // Fails when the shell has ended, which the other branch sees.
            let _ = self.lines.write_all(line.as_bytes()).await;
            statuses.next().await
        };
        tokio::select! {
            biased;
            status = told => status,
            _ = shell.exited() => statuses.now(), // it may have ended right after the command
        }
    }
}

/// Keeps what still comes after a command's end: for a moment as part of its stream, later for those who ask again.
async fn collect_rest(mut pump: Pump, log: OutputLog, shell: Process) {
    let is_all = pump.linger().await;
    log.close();
    if is_all {
        return;
    }
    let ended = CancellationToken::new();
    let mut rest = std::pin::pin!(pump.run(&ended));
    tokio::select! {
        () = &mut rest => {}
        _ = shell.exited() => {
            ended.cancel();
            rest.await;
        }
    }
}

/// Reads the statuses that the shell writes, a line each.
struct Statuses {
    pipe: pipe::Receiver,
    read: Vec<u8>,
}

impl Statuses {
    /// The next one; none when the pipe fails. Cancel safe.
    async fn next(&mut self) -> Option<i32> {
        loop {
            if let Some(status) = self.now() {
                return Some(status);
            }
            self.pipe.readable().await.ok()?;
        }
    }

    /// The next one, if it is there already.
    fn now(&mut self) -> Option<i32> {
        while self.pipe.try_read_buf(&mut self.read).is_ok_and(|count| count > 0) {}
        let end = self.read.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.read.drain(..=end).collect();
        std::str::from_utf8(&line[..end]).ok()?.trim().parse().ok()
    }
}
