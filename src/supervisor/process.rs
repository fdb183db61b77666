//! `Process`, the handle, and the task that owns the child.
//!
//! ```text
//!   start --> running --exit--> draining --> ended
//!               |  ^                           ^
//!               |  '-- stop: TERM, grace, KILL to the whole tree
//!               '----- time limit, kill: KILL to the whole tree
//! ```
//!
//! A process ends when it ends, not when its pipe closes: a grandchild may hold that open for ever. What is left in
//! the pipe is drained until nothing comes for a moment, and the exit is told last, so whoever sees it can read all
//! the output.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use super::command::{Command, Output};
use super::output::{OutputLog, Stream};
use super::pidfd::PidFd;
use super::pump::Pump;
use super::signal::ExitStatus;
use super::spawn::{self, Inherited, Standard, StartError};
use super::terminal::TerminalPump;
use super::tree::{self, Root};
use super::{Inner, Supervisor};
use crate::platform::cgroup;
use crate::platform::timer::until;

/// A running or ended process; a cheap handle. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Process {
    supervisor: Arc<Inner>,
    root: Root,
    pid: u32,
    output: OutputLog,
    exit: watch::Receiver<Option<Exit>>,
    stop: CancellationToken,
    kill: CancellationToken,
}

/// How a process ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Code or signal.
    pub status: ExitStatus,
    /// Whose doing it was.
    pub cause: Cause,
    /// From start to exit.
    pub run_time: Duration,
    /// CPU time of it and of the children that it waited for.
    pub cpu_time: Duration,
    /// Largest resident set of it or of a child that it waited for, in bytes.
    pub peak_memory_bytes: u64,
}

/// Whose doing the end of a process was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its own, or of a signal from elsewhere.
    Itself,
    /// It reached its time limit.
    TimeLimit,
    /// The kernel killed it for want of memory.
    MemoryLimit,
    /// The supervisor was told to stop it.
    Stopped,
}

impl Process {
    /// Its process id. Do not signal it: only the supervisor knows whether it is still this process's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it printed.
    pub fn output(&self) -> &OutputLog {
        &self.output
    }

    /// Waits for its end; by then its output is complete.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.expect("the owning task always tells the exit");
        exit.expect("waited for it")
    }

    /// As [`Process::exited`], and kills it with all its descendants when `abandoned` is cancelled before.
    pub async fn exited_or_killed(&self, abandoned: &CancellationToken) -> Exit {
        tokio::select! {
            exit = self.exited() => exit,
            () = abandoned.cancelled() => {
                self.kill();
                self.exited().await
            }
        }
    }

    /// Its end, when it has ended.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends a signal (signal(7)) to those of its descendants that were started after `since`, or to itself when there
    /// are none.
    pub async fn signal_since(&self, signal: i32, since: Instant) {
        if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
            tree::signal(&self.supervisor, &self.root, signal, since).await;
        }
    }

    /// Sends SIGINT to it and to those of its descendants that were started after `since`, as a terminal does for Ctrl-C.
    pub async fn interrupt_since(&self, since: Instant) {
        tree::interrupt(&self.supervisor, &self.root, since).await;
    }

    /// Kills those of its descendants that were started after `since`; it goes on itself.
    pub async fn kill_descendants_since(&self, since: Instant) {
        tree::kill_descendants(&self.supervisor, &self.root, since).await;
    }

    /// Ends it, or what it has left behind, with SIGTERM, and with SIGKILL what is there after `grace`.
    pub async fn end(&self, grace: Duration) {
        tree::stop(&self.supervisor, &self.root, grace).await;
    }

    /// Ends it and all its descendants: SIGTERM, grace, SIGKILL.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether a process is this one or was started, at whatever remove, by it.
    pub fn has_descendant(&self, pid: u32) -> bool {
        pid == self.pid || i32::try_from(pid).is_ok_and(|pid| self.root.has_tagged(pid))
    }

    /// Ends what an ended process left behind, as [`Process::stop`] does, and waits for that.
    pub async fn end_descendants(&self) {
        tree::stop(&self.supervisor, &self.root, self.supervisor.grace).await;
    }

    /// Ends it and all its descendants at once.
    pub fn kill(&self) {
        self.kill.cancel();
    }

    /// Once it has ended by itself: ends what it left behind, as [`Process::stop`] does. Waits for that.
    pub async fn end_rest(&self) {
        self.exited().await;
        tree::stop(&self.supervisor, &self.root, self.supervisor.grace).await;
    }
}

impl Supervisor {
    /// Starts a process with nothing to read on standard input.
    ///
    /// # Errors
    /// When it cannot be started: the error says which step failed and why.
    pub async fn start(&self, command: Command) -> Result<Process, StartError> {
        self.launch(command, Ends::default()).await
    }

    /// Starts a process whose standard input is the returned pipe.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub async fn start_with_input(&self, command: Command) -> Result<(Process, pipe::Sender), StartError> {
        let (stdin, writer) = input().map_err(no_pipe)?;
        Ok((self.launch(command, Ends { stdin: Some(stdin), stdout: None }).await?, writer))
    }

    /// Starts a process that talks through the returned pipes, its standard input and output. Its log has standard
    /// error alone, whatever the command says, and stays in memory: the newest 256 KiB and a little more.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub async fn start_with_pipes(
        &self,
        command: Command,
    ) -> Result<(Process, pipe::Sender, pipe::Receiver), StartError> {
        let (stdin, writer) = input().map_err(no_pipe)?;
        let made = || {
            let (reader, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            Ok((pipe::Receiver::from_owned_fd(reader)?, stdout))
        };
        let (reader, stdout) = made().map_err(no_pipe)?;
        let ends = Ends { stdin: Some(stdin), stdout: Some(stdout) };
        Ok((self.launch(command, ends).await?, writer, reader))
    }

    async fn launch(&self, command: Command, ends: Ends) -> Result<Process, StartError> {
        let output = if ends.stdout.is_some() { self.memory_log() } else { self.output_log() };
        let log = output.clone();
        let prepare = move |supervisor: &Inner, command: &Command| {
            let (standard, pipes) = standard(supervisor, command.output, ends)?;
            Ok((standard, Reader::Pipes(Pump::new(pipes, log)?), ()))
        };
        Ok(self.launch_with(command, output, "pipe", prepare).await?.0)
    }

    /// Starts a process whose standard descriptors `prepare` makes, on a thread that may block, with what reads its
    /// output; what else that gives is given back.
    pub(super) async fn launch_with<T: Send + 'static>(
        &self,
        command: Command,
        output: OutputLog,
        step: &'static str,
        prepare: impl FnOnce(&Inner, &Command) -> io::Result<(Standard, Reader, T)> + Send + 'static,
    ) -> Result<(Process, T), StartError> {
        let supervisor = Arc::clone(&self.inner);
        let time_limit = command.time_limit;
        let started = Instant::now();
        let failed = |step: &str, source| StartError { step: step.to_owned(), source };
        let spawned = self.inner.starts.run(move || {
            let (standard, reader, more) =
                prepare(&supervisor, &command).map_err(|source| failed(step, source))?;
            Ok((spawn(&supervisor, &command, &standard)?, reader, more))
        });
        let ((child, root), reader, more) =
            spawned.await.map_err(|panic| failed("start", io::Error::other(panic)))??;
        let pid = child.as_raw_nonzero().get().unsigned_abs();
        let (state, exit) = watch::channel(None);
        let process = Process {
            supervisor: Arc::clone(&self.inner),
            root,
            pid,
            output,
            exit,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let has_terminal = matches!(reader, Reader::Terminal(_));
        let owner = Owner { child, process: process.clone(), has_terminal, started, time_limit };
        let span = info_span!("process", pid);
        self.inner.shutdown.spawn(
            async move {
                let exit = owner.own(reader).await;
                debug!(?exit, "process {pid} ended");
                state.send_replace(Some(exit));
            }
            .instrument(span),
        );
        Ok((process, more))
    }
}

/// Standard descriptors of a child whose other ends the caller has.
#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
}

/// A child's standard input and our end of it.
fn input() -> io::Result<(OwnedFd, pipe::Sender)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((reader, pipe::Sender::from_owned_fd(writer)?))
}

fn no_pipe(source: io::Error) -> StartError {
    StartError { step: "pipe".to_owned(), source }
}

/// What reads a process's output into its log.
pub(super) enum Reader {
    Pipes(Pump),
    Terminal(TerminalPump),
}

impl Reader {
    /// Until `exited`, and then what is left.
    async fn read_all(self, exited: &CancellationToken) {
        match self {
            Self::Pipes(mut pump) => {
                pump.run(exited).await;
                pump.linger().await;
            }
            Self::Terminal(mut pump) => {
                pump.run(exited).await;
                pump.linger().await;
            }
        }
    }
}

fn spawn(supervisor: &Inner, command: &Command, standard: &Standard) -> Result<(Pid, Root), StartError> {
    let environment = supervisor.environment.snapshot();
    let inherited = Inherited {
        environment: &environment,
        descriptors: supervisor.descriptors,
        huge_pages: &supervisor.huge_pages,
    };
    let tag = supervisor.tag.of_process(supervisor.started.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
    let pid = spawn::spawn(command, standard, &inherited, tag)?;
    Ok((pid, Root { tag, pid: Some(pid), reaped: Arc::default() }))
}

/// What a child gets as its three standard descriptors, and our ends of them.
fn standard(
    supervisor: &Inner,
    output: Output,
    ends: Ends,
) -> io::Result<(Standard, Vec<(OwnedFd, Stream)>)> {
    let stdin = ends.stdin.map_or_else(|| supervisor.null.try_clone(), Ok)?;
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (stdout, stderr, output) = match (ends.stdout, output) {
        (Some(stdout), _) => {
            let (reader, stderr) = pipe()?;
            (stdout, stderr, vec![(reader, Stream::Err)])
        }
        (None, Output::Merged) => {
            let (reader, writer) = pipe()?;
            (writer.try_clone()?, writer, vec![(reader, Stream::Out)])
        }
        (None, Output::Split) => {
            let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
            (stdout, stderr, vec![(out, Stream::Out), (err, Stream::Err)])
        }
        (None, Output::Discarded) => (supervisor.null.try_clone()?, supervisor.null.try_clone()?, Vec::new()),
    };
    Ok((Standard { stdin, stdout, stderr, is_terminal: false }, output))
}

/// The task that owns a child.
struct Owner {
    child: Pid,
    process: Process,
    /// It leads a terminal's session.
    has_terminal: bool,
    started: Instant,
    time_limit: Option<Duration>,
}

impl Owner {
    async fn own(self, reader: Reader) -> Exit {
        let exited = CancellationToken::new();
        let pumping = {
            let exited = exited.clone();
            self.process.supervisor.shutdown.spawn(async move { reader.read_all(&exited).await })
        };
        let mut ending = None;
        let deadline = self.time_limit.map(|limit| self.started + limit);
        let mut wait = std::pin::pin!(wait(self.child, &self.process.root));
        let (status, usage) = loop {
            tokio::select! {
                biased; // an exit first: who ends in time has not reached the limit
                end = &mut wait => break end,
                () = until(deadline), if ending.is_none() => ending = Some(self.end(Cause::TimeLimit, None)),
                () = self.process.kill.cancelled(), if !matches!(ending, Some((Cause::Stopped, None, _))) => {
                    ending = Some(self.end(Cause::Stopped, None));
                }
                () = stopping(&self.process), if ending.is_none() => {
                    ending = Some(self.end(Cause::Stopped, Some(self.process.supervisor.grace)));
                }
            }
        };
        let run_time = self.started.elapsed();
        if self.has_terminal && ending.is_none() {
            let (supervisor, root) = (Arc::clone(&self.process.supervisor), self.process.root.clone());
            let hang_up = async move { tree::hang_up(&supervisor, &root, supervisor.grace).await };
            self.process.supervisor.shutdown.spawn(hang_up);
        }
        let cause = match ending {
            Some((cause, _, ender)) => {
                let _ = ender.await; // the rest of the tree
                cause
            }
            None if status == ExitStatus::Signal(libc::SIGKILL) => {
                self.process.supervisor.memory_kills.explain()
            }
            None => Cause::Itself,
        };
        exited.cancel();
        let _ = pumping.await;
        self.process.output.close();
        Exit { status, cause, run_time, cpu_time: usage.cpu_time, peak_memory_bytes: usage.peak_memory_bytes }
    }

    /// Begins to end the tree, at once when there is no grace.
    fn end(
        &self,
        cause: Cause,
        grace: Option<Duration>,
    ) -> (Cause, Option<Duration>, tokio::task::JoinHandle<()>) {
        let (supervisor, root) = (Arc::clone(&self.process.supervisor), self.process.root.clone());
        // Without /proc the tree cannot be found; the process group can always be told.
        let signal =
            if grace.is_some() { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
        let _ = rustix::process::kill_process_group(self.child, signal);
        if self.has_terminal && grace.is_some() {
            // A shell that has someone at its terminal ignores SIGTERM.
            let _ = rustix::process::kill_process_group(self.child, rustix::process::Signal::HUP);
        }
        let task = self.process.supervisor.shutdown.spawn(async move {
            match grace {
                Some(grace) => tree::stop(&supervisor, &root, grace).await,
                None => tree::kill(&supervisor, &root).await,
            }
        });
        (cause, grace, task)
    }
}

async fn stopping(process: &Process) {
    tokio::select! {
        () = process.stop.cancelled() => {}
        () = process.supervisor.shutdown.cancelled() => {}
    }
}

/// Waits for the root of a tree and reaps it.
async fn wait(pid: Pid, root: &Root) -> (ExitStatus, Usage) {
    match PidFd::open(pid) {
        Ok(handle) => handle.ended().await,
        Err(_unsupported) => children(pid).await,
    }
    root.reaped.store(true, Ordering::Release);
    reap(pid)
}

/// Waits by SIGCHLD until `pid` can be reaped.
async fn children(pid: Pid) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let mut child: Option<Signal> = signal(SignalKind::child()).ok();
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
        match &mut child {
            Some(child) => drop(child.recv().await),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

struct Usage {
    cpu_time: Duration,
    peak_memory_bytes: u64,
}

#[expect(unsafe_code, reason = "wait4(2), for what the process used")]
fn reap(pid: Pid) -> (ExitStatus, Usage) {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both places are valid for the results, and all zeros is a valid `rusage` should the call fail.
    let (reaped, usage) = unsafe {
        let reaped = libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, usage.as_mut_ptr());
        (reaped, usage.assume_init())
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let usage = Usage {
        cpu_time: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory_bytes: usage.ru_maxrss as u64 * 1024,
    };
    // A status that was lost, as to a debugger that reaps for us, is told as a kill.
    let status = if reaped < 0 { ExitStatus::Signal(libc::SIGKILL) } else { ExitStatus::from_wait(status) };
    (status, usage)
}

/// How many kills for want of memory were explained so far.
#[derive(Debug)]
pub(super) struct MemoryKills {
    seen: AtomicU64,
}

impl Default for MemoryKills {
    fn default() -> Self {
        Self { seen: AtomicU64::new(cgroup::memory_kills()) }
    }
}

impl MemoryKills {
    /// Why a process got a SIGKILL that did not come from us: a kill that the kernel counted and nobody explained yet
    /// was for memory.
    fn explain(&self) -> Cause {
        let now = cgroup::memory_kills();
        if self.seen.fetch_max(now, Ordering::AcqRel) < now { Cause::MemoryLimit } else { Cause::Itself }
    }
}
