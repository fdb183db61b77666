//! Directories, environment and metrics of the daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Token;
use crate::error::Result;
use crate::platform::blocking::Lane;
use crate::platform::metrics::{Metrics, Sampler};
use crate::platform::telemetry::Telemetry;
use crate::supervisor::Environment;

/// The daemon's own facts; a cheap handle.
#[derive(Debug, Clone)]
pub struct System {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    work_dir: PathBuf,
    home: PathBuf,
    environment: Environment,
    sampler: Arc<Sampler>,
    lane: Lane,
    telemetry: Telemetry,
}

/// What `/env` asks for, in the order in which it is applied.
#[derive(Debug, Default)]
pub struct EnvironmentChange {
    /// Names removed first.
    pub unset: Vec<String>,
    /// Then variables whose value starts with this, unless `set` names them; empty means none.
    pub unset_value_prefix: String,
    /// Applied last.
    pub set: BTreeMap<String, String>,
}

impl System {
    /// `work_dir` is the base of relative paths, fixed for the daemon's life.
    pub fn new(work_dir: PathBuf, home: PathBuf, environment: Environment, telemetry: Telemetry) -> Self {
        let inner =
            Inner { work_dir, home, environment, sampler: Arc::default(), lane: Lane::new(1), telemetry };
        Self { inner: Arc::new(inner) }
    }

    /// The base of relative paths.
    pub fn work_dir(&self) -> &Path {
        &self.inner.work_dir
    }

    /// The home directory of the daemon's user.
    pub fn home(&self) -> &Path {
        &self.inner.home
    }

    /// Starts the export of telemetry with this token, or goes on with it; none keeps the token there is.
    pub fn start_telemetry(&self, token: Option<String>) {
        self.inner.telemetry.start(token.as_deref().and_then(Token::new));
    }

    /// Changes what later processes inherit, all of it or nothing.
    ///
    /// # Errors
    /// When a name is not a shell name or a value has a NUL byte.
    pub fn update_environment(&self, change: EnvironmentChange) -> Result<()> {
        let EnvironmentChange { unset, unset_value_prefix, set } = change;
        self.inner.environment.update(&unset, &unset_value_prefix, &set)
    }

    /// Use of CPU, memory and disk.
    ///
    /// # Errors
    /// Only when measuring panicked.
    pub async fn metrics(&self) -> Result<Metrics> {
        let sampler = Arc::clone(&self.inner.sampler);
        self.inner.lane.run(move || sampler.sample()).await
    }
}
