//! Directories, environment and metrics of the daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Token;
use crate::error::Result;
use crate::platform::blocking::Lane;
use crate::platform::metrics::{Metrics, Sampler};
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
    telemetry_token: Mutex<Option<Token>>,
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
    pub fn new(work_dir: PathBuf, home: PathBuf, environment: Environment) -> Self {
        let inner = Inner {
            work_dir,
            home,
            environment,
            sampler: Arc::default(),
            lane: Lane::new(1),
            telemetry_token: Mutex::default(),
        };
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

    /// Remembers the token that exported telemetry carries; none keeps what there is.
    pub fn set_telemetry_token(&self, token: Option<String>) {
        if let Some(token) = token.as_deref().and_then(Token::new) {
            *self.inner.telemetry_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        }
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
