//! Rules about files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;

/// Jobs on the file system at a time.
const JOBS: usize = 32;
/// Walks at a time. A client that reads slowly keeps one waiting, which must not hold up other jobs.
const WALKS: usize = 32;

/// Works on the file system; a cheap handle.
#[derive(Debug, Clone)]
pub struct Files {
    /// The base of relative paths.
    pub(super) work_dir: Arc<Path>,
    pub(super) lane: Lane,
    pub(super) walks: Lane,
    pub(super) shutdown: Shutdown,
}

impl Files {
    /// Relative paths are below `work_dir`.
    pub fn new(work_dir: PathBuf, shutdown: Shutdown) -> Self {
        Self { work_dir: work_dir.into(), lane: Lane::new(JOBS), walks: Lane::new(WALKS), shutdown }
    }
}
