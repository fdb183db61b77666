//! All processes of the desktop: started in the order of their dependence, stopped the other way round (contract
//! `computer-use.md` 2).
//!
//! Starting, stopping and restarting wait for each other; asking how things are does not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tracing::warn;

use super::Settings;
use super::logs::{Logs, Printing, Stream};
use super::parts::{DesktopPart, Kind};
use super::programs::Programs;
use super::unit::{Means, State, Unit};
use super::x11::Server;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{Command, Environment, Output, Process, Supervisor};

/// Longest wait for a session bus; the desktop goes without one then.
const BUS: Duration = Duration::from_secs(2);
/// Longest address of a bus, in bytes.
const BUS_ADDRESS: usize = 1024;

/// What is running; a cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    shared: Arc<Shared>,
}

/// What the parts have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) programs: Programs,
    pub(super) server: Server,
    environment: Environment,
    means: Means,
    units: [Unit; Kind::ALL.len()],
    /// Size that the screen is to have.
    size: Mutex<(u16, u16)>,
    speaks_vnc: AtomicBool,
    bus: tokio::sync::Mutex<Option<Process>>,
    /// Held while processes are started or stopped.
    changing: tokio::sync::Mutex<()>,
}

/// How the whole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overall {
    /// Everything that the image has runs.
    Active,
    /// Something runs.
    Partial,
    /// Nothing runs.
    Inactive,
}

impl Processes {
    /// Nothing is started.
    pub(super) fn new(
        settings: Settings,
        server: Server,
        supervisor: Supervisor,
        environment: Environment,
        shutdown: Shutdown,
    ) -> Self {
        let logs = Logs::new(&settings.home, shutdown.clone());
        let shared = Shared {
            size: Mutex::new(settings.resolution),
            programs: Programs::new(environment.clone()),
            settings,
            server,
            environment,
            means: Means { supervisor, shutdown, logs, lane: Lane::new(1) },
            units: std::array::from_fn(|_| Unit::new()),
            speaks_vnc: AtomicBool::new(false),
            bus: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts what does not run, and waits until all of it is ready. A process that cannot be started keeps none of the
    /// others from running.
    ///
    /// # Errors
    /// Names the first process that is needed and did not start, and why.
    pub(super) async fn start(&self) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        self.start_all().await
    }

    async fn start_all(&self) -> Result<()> {
        Kind::ALL.into_iter().for_each(|kind| self.keep(kind));
        if let State::Failed(reason) = self.shared.unit(Kind::Screen).settled().await {
            for kind in Kind::ALL.into_iter().filter(|kind| kind.needs_screen()) {
                self.shared.unit(kind).stop().await;
            }
            return Err(failed("start computer use", Kind::Screen, &reason));
        }
        self.shared.offer(true);
        for kind in Kind::ALL {
            if let State::Failed(reason) = self.shared.unit(kind).settled().await {
                return Err(failed("start computer use", kind, &reason));
            }
        }
        Ok(())
    }

    /// Ends everything that was started here; what was there before goes on.
    pub(super) async fn stop(&self) {
        let _changing = self.shared.changing.lock().await;
        for kind in Kind::ALL.into_iter().rev() {
            self.end(kind).await;
        }
        self.shared.offer(false);
        if let Some(bus) = self.shared.bus.lock().await.take() {
            bus.stop();
            bus.exited().await;
        }
    }

    /// Ends one process, starts it again, and waits until it is ready; with the X server, what depends on it too.
    ///
    /// # Errors
    /// When it does not become ready, and why.
    pub(super) async fn restart(&self, kind: Kind) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        if kind == Kind::Screen && self.state(kind) == (State::Ready { pid: None }) {
            let display = &self.shared.settings.display;
            let message = format!("the display {display} was there before and is not ours to restart");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let depends = |other: &Kind| *other == kind || kind == Kind::Screen && other.needs_screen();
        let was_wanted = |other: &Kind| *other == kind || self.shared.unit(*other).state() != State::Stopped;
        let chosen: Vec<Kind> = Kind::ALL.into_iter().filter(depends).filter(was_wanted).collect();
        for kind in chosen.iter().rev() {
            self.end(*kind).await;
        }
        if kind.needs_screen() && !self.shared.unit(Kind::Screen).state().is_ready() {
            self.shared.server.connection().await?; // says in the contract's words that there is no display
            self.keep(Kind::Screen);
        }
        chosen.iter().for_each(|kind| self.keep(*kind));
        for kind in chosen {
            let reason = match self.shared.unit(kind).settled().await {
                State::Failed(reason) => reason,
                State::Absent => {
                    "no window manager is installed (Debian package xfce4 or openbox)".to_owned()
                }
                _ => continue,
            };
            return Err(Error::internal(format!("failed to restart {}: {reason}", kind.name())));
        }
        Ok(())
    }

    fn keep(&self, kind: Kind) {
        let part = DesktopPart { kind, shared: Arc::clone(&self.shared) };
        self.shared.unit(kind).keep(part, &self.shared.means);
    }

    async fn end(&self, kind: Kind) {
        if kind == Kind::Screen && self.shared.owns_screen() {
            self.shared.server.close().await;
        }
        self.shared.unit(kind).stop().await;
    }

    /// How one process is.
    pub(super) fn state(&self, kind: Kind) -> State {
        self.shared.unit(kind).state()
    }

    /// For whoever follows how one process is.
    pub(super) fn follow(&self, kind: Kind) -> tokio::sync::watch::Receiver<State> {
        self.shared.unit(kind).follow()
    }

    /// How the whole is.
    pub(super) fn overall(&self) -> Overall {
        let states = Kind::ALL.map(|kind| self.state(kind));
        let is_fine = |state: &State| state.is_ready() || *state == State::Absent;
        if states[0].is_ready() && states.iter().all(is_fine) {
            Overall::Active
        } else if states.iter().any(State::is_ready) {
            Overall::Partial
        } else {
            Overall::Inactive
        }
    }

    /// What a process printed at last, `most` bytes of it.
    pub(super) async fn log(&self, kind: Kind, stream: Stream, most: u64) -> String {
        self.shared.means.logs.tail(kind.name(), stream, most).await
    }

    /// The size that the screen has from its next start on.
    pub(super) fn keep_size(&self, size: (u16, u16)) {
        *self.shared.size.lock().unwrap_or_else(PoisonError::into_inner) = size;
    }

    /// Whether the X server is one that we started.
    pub(super) fn owns_screen(&self) -> bool {
        self.shared.owns_screen()
    }

    /// The environment of the programs to start.
    pub(super) fn environment(&self) -> Environment {
        self.shared.environment.clone()
    }

    /// Runs work that looks at files.
    ///
    /// # Errors
    /// When it panicked.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.shared.means.logs.blocking(work).await
    }

    /// Follows what a command is going to print, without keeping it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn listen(&self, command: &mut Command) -> Result<Printing> {
        let listening = self.shared.means.logs.listen();
        let (stdout, stderr, printing) = listening
            .map_err(|error| Error::internal("no pipes for a program's output").with_source(error))?;
        command.descriptors.extend([(1, Arc::new(stdout)), (2, Arc::new(stderr))]);
        Ok(printing)
    }

    /// What the image has to run.
    pub(super) fn programs(&self) -> &Programs {
        &self.shared.programs
    }
}

fn failed(what: &str, kind: Kind, reason: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("failed to {what}: {}: {reason}", kind.name()))
}

impl Shared {
    pub(super) fn unit(&self, kind: Kind) -> &Unit {
        &self.units[kind as usize]
    }

    pub(super) fn size(&self) -> (u16, u16) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn speaks_vnc(&self) -> bool {
        self.speaks_vnc.load(Ordering::Acquire)
    }

    pub(super) fn set_speaks_vnc(&self, it_does: bool) {
        self.speaks_vnc.store(it_does, Ordering::Release);
    }

    /// Whether the X server is one that we started.
    pub(super) fn owns_screen(&self) -> bool {
        matches!(self.unit(Kind::Screen).state(), State::Ready { pid: Some(_) } | State::Starting)
    }

    /// While the desktop is started, programs that know of no display get this one.
    fn offer(&self, it_runs: bool) {
        let display = it_runs.then(|| self.settings.display.clone().into());
        self.environment.offer("DISPLAY", display);
        if !it_runs {
            self.environment.offer("DBUS_SESSION_BUS_ADDRESS", None);
        }
    }

    /// Starts a session bus for the desktop's programs, unless there is one or the image has none.
    pub(super) async fn start_bus(&self) {
        let mut bus = self.bus.lock().await;
        if bus.as_ref().is_some_and(|bus| bus.exit().is_none()) {
            return;
        }
        self.environment.offer("DBUS_SESSION_BUS_ADDRESS", None);
        if self.environment.get("DBUS_SESSION_BUS_ADDRESS").is_some() {
            return;
        }
        let Some(program) = self.programs.find("dbus-daemon") else { return };
        match self.bus(program.into_os_string()).await {
            Ok((process, address)) => {
                self.environment.offer("DBUS_SESSION_BUS_ADDRESS", Some(address.into()));
                *bus = Some(process);
            }
            Err(error) => warn!(%error, "no session bus for the desktop"),
        }
    }

    async fn bus(&self, program: std::ffi::OsString) -> io::Result<(Process, String)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut ours = pipe::Receiver::from_owned_fd(ours)?;
        let arguments = ["--session", "--nofork", "--nopidfile", "--print-address=3"].map(Into::into);
        let mut command = Command::new(std::iter::once(program).chain(arguments));
        command.output = Output::Discarded;
        command.env = vec![("DISPLAY".into(), self.settings.display.clone().into())];
        command.descriptors = vec![(3, Arc::new(theirs))];
        let process = self.means.supervisor.start(command).await.map_err(io::Error::other)?;
        let told = async {
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                if ours.read_buf(&mut line).await? == 0 || line.len() > BUS_ADDRESS {
                    return Err(io::Error::other("it tells no address"));
                }
            }
            Ok(String::from_utf8_lossy(&line).trim().to_owned())
        };
        match timeout(BUS, told).await.unwrap_or_else(|late| Err(late.into())) {
            Ok(address) => Ok((process, address)),
            Err(error) => {
                process.kill();
                Err(error)
            }
        }
    }
}
