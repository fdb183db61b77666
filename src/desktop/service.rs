//! What every part of the desktop shares: settings, the connection, the lock over input.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use super::input::Held;
use super::screenshot::Camera;
use super::x11::{Connection, Server};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{Environment, Supervisor};

/// The desktop; a cheap handle.
#[derive(Debug, Clone)]
pub struct Desktop {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) supervisor: Supervisor,
    pub(super) environment: Environment,
    pub(super) shutdown: Shutdown,
    pub(super) server: Server,
    pub(super) camera: Camera,
    input: Mutex<Held>,
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
        let display = settings.display.clone();
        let absent = move || {
            let message = format!("computer use is not running on display {display}: call start first");
            Error::new(ErrorKind::Unavailable, message)
        };
        let inner = Inner {
            server: Server::new(settings.display.clone(), absent, shutdown.clone()),
            settings,
            supervisor,
            environment,
            shutdown,
            camera: Camera::default(),
            input: Mutex::default(),
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

    /// The lock over all input, first come first served, with what is held down. A batch keeps it throughout.
    pub(super) async fn input(&self) -> MutexGuard<'_, Held> {
        self.inner.input.lock().await
    }
}
