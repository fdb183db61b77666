//! What a program leaves beside its output, in memory that it appends to through a descriptor.
//!
//! Memory and not a pipe: forks may write at the same time without mixing what they write, nobody waits for a reader, and
//! nothing is left when the program is killed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::chart::acceptable;
use crate::supervisor::memory;

/// Most that is taken, in bytes; charts.py sends no more.
const TOTAL: u64 = 64 * 1024 * 1024;

/// Where a program's charts go.
#[derive(Debug)]
pub(super) struct Artifacts {
    memory: Arc<OwnedFd>,
}

impl Artifacts {
    /// Empty.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn new() -> io::Result<Self> {
        let memory = memory("artifacts", &[])?;
        rustix::fs::fcntl_setfl(&memory, OFlags::RDWR | OFlags::APPEND)?;
        Ok(Self { memory: Arc::new(memory) })
    }

    /// What the program is given.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.memory)
    }

    /// Whether anything came.
    pub(super) fn is_empty(&self) -> bool {
        rustix::fs::fstat(self.memory.as_fd()).is_ok_and(|status| status.st_size == 0)
    }

    /// The charts, each as JSON that clients accept. Blocks for as long as it takes to look through them.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub(super) fn charts(&self) -> io::Result<Vec<String>> {
        let file = File::from(self.memory.try_clone()?);
        let size = usize::try_from(file.metadata()?.len().min(TOTAL)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, 0)?;
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        Ok(lines.filter_map(acceptable).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn each_line_is_a_chart() {
        let artifacts = Artifacts::new().unwrap();
        assert!(artifacts.is_empty());
        let mut file = File::from(artifacts.descriptor().try_clone().unwrap());
        file.write_all(b"{\"type\":\"line\"}\n\xff\nno chart\n{\"type\":\"pie\"}\n{\"type\":").unwrap();
        assert!(!artifacts.is_empty());
        assert_eq!(artifacts.charts().unwrap(), ["{\"type\":\"line\"}", "{\"type\":\"pie\"}"]);
    }
}
