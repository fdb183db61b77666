//! Paths as clients give them, against the daemon's working directory.

use std::path::{Path, PathBuf};

/// The absolute path that `path` means: relative ones are below `base`. `~`, `$VAR`, `.` and `..` are left to the
/// operating system (contract `files.md` 1.2).
pub fn resolve(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}
