//! What every part of the desktop shares: settings, the connection, the lock over input.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::input::{self, Held};
use super::parts::Kind;
use super::processes::Processes;
use super::programs::Programs;
use super::screenshot::Camera;
use super::unit::State;
use super::watch::Drawings;
use super::wire::StatusDetail;
use super::x11::{Connection, Server};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{Environment, Supervisor};

/// Longest wait for input that is under way when the desktop is stopped.
const RELEASE: Duration = Duration::from_secs(1);

/// The desktop; a cheap handle.
#[derive(Debug, Clone)]
pub struct Desktop {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) supervisor: Supervisor,
    pub(super) shutdown: Shutdown,
    server: Server,
    processes: Processes,
    pub(super) camera: Camera,
    input: Mutex<Held>,
    pub(super) drawings: Drawings,
}

/// What the settings say of the desktop.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the display, as `:0`.
    pub display: String,
    /// Width and height of the screen at the start, in pixels.
    pub resolution: (u16, u16),
    /// Port of the VNC server, on loopback.
    pub vnc_port: u16,
    /// Port of the live view.
    pub no_vnc_port: u16,
    /// What `USER` is for the programs of the desktop.
    pub user: String,
    /// What `HOME` is, and where logs go.
    pub home: PathBuf,
    /// Time without input after which held keys are released.
    pub held_key_timeout: Duration,
    /// Whether regions that SDKs are known to send in the wrong order are put right.
    pub fix_swapped_regions: bool,
}

impl Settings {
    /// From all settings.
    pub fn new(config: &Config) -> Self {
        let user = config.vnc_user.clone().or_else(|| config.sandbox_user.clone());
        Self {
            display: config.display.clone(),
            resolution: config.vnc_resolution,
            vnc_port: config.vnc_port,
            no_vnc_port: config.no_vnc_port,
            user: user.unwrap_or_else(|| "root".to_owned()),
            home: config.home(),
            held_key_timeout: config.held_key_timeout,
            fix_swapped_regions: config.fix_swapped_regions,
        }
    }
}

impl Desktop {
    /// Nothing is started before it is asked for.
    pub fn new(
        settings: Settings,
        supervisor: Supervisor,
        environment: Environment,
        shutdown: Shutdown,
    ) -> Self {
        let absent = {
            let (display, programs) = (settings.display.clone(), Programs::new(environment.clone()));
            move || absent(&display, &programs)
        };
        let server = Server::new(settings.display.clone(), absent, shutdown.clone());
        let processes = Processes::new(
            settings.clone(),
            server.clone(),
            supervisor.clone(),
            environment,
            shutdown.clone(),
        );
        let inner = Inner {
            settings,
            supervisor,
            shutdown,
            server,
            processes,
            camera: Camera::default(),
            input: Mutex::default(),
            drawings: Drawings::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The live connection, opened when there is none; everything that asks the X server begins here.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], in the words of contract `computer-use.md` 1.2 and 1.3: the image has no X server, or
    /// it does not run.
    pub(super) async fn x11(&self) -> Result<Connection> {
        self.inner.server.connection().await
    }

    /// What runs.
    pub(super) fn processes(&self) -> &Processes {
        &self.inner.processes
    }

    /// Whether the image can have a desktop at all.
    ///
    /// # Errors
    /// As [`Desktop::x11`] when it has no X server and none answers.
    pub(super) async fn check_available(&self) -> Result<()> {
        match self.processes().programs().screen_server() {
            Some(_) => Ok(()),
            None => self.x11().await.map(drop),
        }
    }

    /// Starts the desktop. It is started to its end even when the caller leaves.
    ///
    /// # Errors
    /// Names what did not start, and why.
    pub(super) async fn start(&self) -> Result<()> {
        self.check_available().await?;
        let processes = self.processes().clone();
        self.to_its_end(async move { processes.start().await }).await
    }

    /// Releases what is held down, then stops the desktop, to its end even when the caller leaves.
    ///
    /// # Errors
    /// When the image cannot have a desktop.
    pub(super) async fn stop(&self) -> Result<()> {
        self.check_available().await?;
        let desktop = self.clone();
        self.to_its_end(async move {
            // Text that is still being typed does not hold a stop up: it fails with the connection.
            let _ = timeout(RELEASE, input::release(&desktop)).await;
            desktop.processes().stop().await;
            Ok(())
        })
        .await
    }

    /// Restarts one process, to its end even when the caller leaves.
    ///
    /// # Errors
    /// When it does not become ready, and why.
    pub(super) async fn restart(&self, kind: Kind) -> Result<()> {
        self.check_available().await?;
        let processes = self.processes().clone();
        self.to_its_end(async move { processes.restart(kind).await }).await
    }

    /// What is known beyond the contract.
    pub(super) async fn detail(&self) -> StatusDetail {
        let processes = self.processes();
        let manager = match self.x11().await {
            Ok(connection) => connection.run(|wire| wire.manager()).await.ok().flatten(),
            Err(_) => None,
        };
        let reason = |kind: Kind| match processes.state(kind) {
            State::Failed(reason) | State::Waiting(reason) => Some((kind.name(), reason)),
            State::Absent => Some((kind.name(), "the image has none".to_owned())),
            _ => None,
        };
        StatusDetail {
            display: self.inner.settings.display.clone(),
            window_manager: manager.map(|manager| manager.name),
            owns_display: processes.owns_screen(),
            held: self.inner.input.try_lock().ok().map(|held| held.keys().map(str::to_owned).collect()),
            reasons: Kind::ALL.into_iter().filter_map(reason).collect(),
        }
    }

    async fn to_its_end(&self, work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        let done = self.inner.shutdown.spawn(work).await;
        done.map_err(|panic| Error::internal("the desktop was not changed").with_source(panic))?
    }

    /// The lock over all input, first come first served, with what is held down. A batch keeps it throughout.
    pub(super) async fn input(&self) -> MutexGuard<'_, Held> {
        self.inner.input.lock().await
    }
}

/// Why no display answers, in the words of contract `computer-use.md` 1.2 and 1.3.
fn absent(display: &str, programs: &Programs) -> Error {
    if programs.screen_server().is_some() {
        let message = format!("computer use is not running on display {display}: call start first");
        return Error::new(ErrorKind::Unavailable, message);
    }
    // The platform's pages compare this text.
    let message = "Computer-use functionality is not available";
    let missing = programs.missing();
    let packages: Vec<&str> = missing.iter().map(|missing| missing.package).collect();
    let details: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Error::new(ErrorKind::Unavailable, message)
        .with_detail("details", format!("no X server answers on {display}, and {}", details.join(", ")))
        .with_detail("solution", format!("install {} in the image", packages.join(", ")))
}
