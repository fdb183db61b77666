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
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

use super::command::Command;
use super::output::{OutputLog, Stream};
use super::pidfd::PidFd;
use super::signal::ExitStatus;
use super::tree::{self, Root, Tag};
use super::{Inner, Supervisor};
use crate::error::os_text;
use crate::platform::cgroup;

/// After the exit, output is awaited for as long as no pause is longer than this…
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
/// …and for this long at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Bytes read from a pipe at a time: as many as Linux keeps in one.
const READ: usize = 64 * 1024;

/// A running or ended process; a cheap handle. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Process {
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

/// A process that did not start.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {}", os_text(.source))]
pub struct StartError {
    /// What failed, and on what: `fork/exec /bin/bash`, `chdir /no/such`.
    step: String,
    source: io::Error,
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

    /// Ends it and all its descendants: SIGTERM, grace, SIGKILL.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it and all its descendants at once.
    pub fn kill(&self) {
        self.kill.cancel();
    }
}

impl Supervisor {
    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started: the error says which step failed and why.
    pub async fn start(&self, command: Command) -> Result<Process, StartError> {
        let supervisor = Arc::clone(&self.inner);
        let time_limit = command.time_limit;
        let started = Instant::now();
        let spawned = {
            let supervisor = Arc::clone(&supervisor);
            self.inner.starts.run(move || spawn(&supervisor, &command)).await
        };
        let Spawned { pid: child, root, output: pipe } = spawned
            .map_err(|panic| StartError { step: "start".to_owned(), source: io::Error::other(panic) })??;
        let pid = child.as_raw_nonzero().get().unsigned_abs();
        let output = OutputLog::new(supervisor.limits.clone());
        let (state, exit) = watch::channel(None);
        let process =
            Process { pid, output, exit, stop: CancellationToken::new(), kill: CancellationToken::new() };
        let owner = Owner { supervisor, child, root, process: process.clone(), started, time_limit };
        let span = info_span!("process", pid);
        self.inner.shutdown.spawn(
            async move {
                let exit = owner.own(pipe).await;
                debug!(?exit, "process {pid} ended");
                state.send_replace(Some(exit));
            }
            .instrument(span),
        );
        Ok(process)
    }
}

struct Spawned {
    pid: Pid,
    root: Root,
    output: OwnedFd,
}

fn spawn(supervisor: &Inner, command: &Command) -> Result<Spawned, StartError> {
    let program = command.argv.first().cloned().unwrap_or_default();
    let shown = Path::new(&program).display().to_string();
    let failed = |step: &str| {
        let step = format!("{step} {shown}");
        move |source: io::Error| StartError { step, source }
    };
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| failed("pipe")(error.into()))?;
    let copies = || Ok::<_, io::Error>((supervisor.null.try_clone()?, writer.try_clone()?));
    let (stdin, stderr) = copies().map_err(failed("pipe"))?;
    let environment = supervisor.environment.snapshot();
    let tag = supervisor.tag.of_process(supervisor.started.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
    let descriptors = supervisor.descriptors;
    #[expect(clippy::disallowed_methods, reason = "the one place that starts processes")]
    let mut child = std::process::Command::new(&program);
    child
        .args(command.argv.iter().skip(1))
        .env_clear()
        .envs(environment.iter())
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(writer))
        .stderr(Stdio::from(stderr))
        .process_group(0);
    if let Some(cwd) = &command.cwd {
        child.current_dir(cwd);
    }
    before_exec(&mut child, tag, descriptors);
    let spawned = child.spawn().map_err(|error| match &command.cwd {
        // The child tells the error but not its step.
        Some(cwd) if !cwd.is_dir() => {
            let source = std::fs::read_dir(cwd).map_or_else(|error| error, |_| error);
            StartError { step: format!("chdir {}", cwd.display()), source }
        }
        _ => failed("fork/exec")(error),
    })?;
    let pid = Pid::from_raw(spawned.id().cast_signed()).expect("a child has a pid");
    // `spawned` is never waited for: the owning task reaps by pid, to learn what the process used.
    Ok(Spawned { pid, root: Root { tag, pid: Some(pid), reaped: Arc::default() }, output: reader })
}

#[expect(unsafe_code, reason = "code between fork and exec")]
fn before_exec(child: &mut std::process::Command, tag: Tag, descriptors: Option<u64>) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are plain system calls, and
    // nothing is allocated or locked.
    unsafe {
        child.pre_exec(move || {
            tag.mark_self();
            // Whoever started the daemon may have had it ignore signals, as shells do for what they run with `&`.
            for signal in 1..=31 {
                libc::signal(signal, libc::SIG_DFL);
            }
            if let Some(current) = descriptors {
                let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
                let _ =
                    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
            }
            Ok(())
        });
    }
}

/// The task that owns a child.
struct Owner {
    supervisor: Arc<Inner>,
    child: Pid,
    root: Root,
    process: Process,
    started: Instant,
    time_limit: Option<Duration>,
}

impl Owner {
    async fn own(self, pipe: OwnedFd) -> Exit {
        let exited = CancellationToken::new();
        let pump = self.supervisor.shutdown.spawn(pump(pipe, self.process.output.clone(), exited.clone()));
        let mut ending = None;
        let deadline = self.time_limit.map(|limit| self.started + limit);
        let mut wait = std::pin::pin!(wait(self.child, &self.root));
        let (status, usage) = loop {
            tokio::select! {
                biased; // an exit first: who ends in time has not reached the limit
                end = &mut wait => break end,
                () = until(deadline), if ending.is_none() => ending = Some(self.end(Cause::TimeLimit, None)),
                () = self.process.kill.cancelled(), if !matches!(ending, Some((Cause::Stopped, None, _))) => {
                    ending = Some(self.end(Cause::Stopped, None));
                }
                () = stopping(&self.process, &self.supervisor), if ending.is_none() => {
                    ending = Some(self.end(Cause::Stopped, Some(self.supervisor.grace)));
                }
            }
        };
        let run_time = self.started.elapsed();
        let cause = match ending {
            Some((cause, _, ender)) => {
                let _ = ender.await; // the rest of the tree
                cause
            }
            None if status == ExitStatus::Signal(libc::SIGKILL) => self.supervisor.memory_kills.explain(),
            None => Cause::Itself,
        };
        exited.cancel();
        let _ = pump.await;
        self.process.output.close();
        Exit { status, cause, run_time, cpu_time: usage.cpu_time, peak_memory_bytes: usage.peak_memory_bytes }
    }

    /// Begins to end the tree, at once when there is no grace.
    fn end(
        &self,
        cause: Cause,
        grace: Option<Duration>,
    ) -> (Cause, Option<Duration>, tokio::task::JoinHandle<()>) {
        let (supervisor, root) = (Arc::clone(&self.supervisor), self.root.clone());
        // Without /proc the tree cannot be found; the process group can always be told.
        let signal =
            if grace.is_some() { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
        let _ = rustix::process::kill_process_group(self.child, signal);
        let task = self.supervisor.shutdown.spawn(async move {
            match grace {
                Some(grace) => tree::stop(&supervisor, &root, grace).await,
                None => tree::kill(&supervisor, &root).await,
            }
        });
        (cause, grace, task)
    }
}

async fn stopping(process: &Process, supervisor: &Inner) {
    tokio::select! {
        () = process.stop.cancelled() => {}
        () = supervisor.shutdown.cancelled() => {}
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// From the pipe to the log, until the pipe ends or, after the exit, nothing more comes.
async fn pump(pipe: OwnedFd, log: OutputLog, exited: CancellationToken) {
    let reader = match pipe::Receiver::from_owned_fd(pipe) {
        Ok(reader) => reader,
        Err(error) => return debug!(%error, "a pipe cannot be read"),
    };
    let mut buffer = vec![0; READ];
    let mut drained_by = None;
    loop {
        let ready = match drained_by {
            None => tokio::select! {
                biased;
                ready = reader.readable() => ready.is_ok(),
                () = exited.cancelled() => {
                    drained_by = Some(Instant::now() + DRAIN_LIMIT);
                    continue;
                }
            },
            Some(limit) if Instant::now() < limit => {
                matches!(timeout(DRAIN_PAUSE, reader.readable()).await, Ok(Ok(())))
            }
            Some(_) => false,
        };
        if !ready {
            return;
        }
        match reader.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => log.append(Stream::Out, &buffer[..count]).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return debug!(%error, "reading output failed"),
        }
        if drained_by.is_none() && exited.is_cancelled() {
            drained_by = Some(Instant::now() + DRAIN_LIMIT); // it prints faster than we look for its exit
        }
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
            None => tokio::time::sleep(DRAIN_PAUSE).await,
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
