//! Walks a directory in the order in which it is listed, a batch at a time.
//!
//! All names of the directories from the root to the current one are in memory, because they are sorted; what is
//! known of the entries is not. Look-ups are relative to open directories.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::service::Entry;
use crate::platform::paths::{self, READ_DIRECTORY};

/// Entries in a batch.
const BATCH: usize = 512;

/// Where the walk is.
#[derive(Debug)]
pub(super) struct Walk {
    depth: u64,
    /// The directories from the root to the current one.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    names: Names,
    next: usize,
}

impl Walk {
    /// Opens the root of the walk, which may be a link.
    ///
    /// # Errors
    /// When it is not a directory or cannot be read.
    pub(super) fn begin(root: &Path, depth: u64) -> io::Result<Self> {
        let directory = fs::openat(CWD, root, READ_DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let level = Level::new(directory, paths::clean(root))?;
        Ok(Self { depth, levels: vec![level] })
    }

    /// The next entries.
    pub(super) fn batch(&mut self) -> Vec<Entry> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(level) = self.levels.last_mut()
        {
            let Some(name) = level.names.get(level.next) else {
                self.levels.pop();
                continue;
            };
            level.next += 1;
            // Gone meanwhile, or a link to nothing.
            let Ok(stat) = fs::statat(&level.directory, name, AtFlags::empty()) else { continue };
            let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let below = if is_directory && (self.levels.len() as u64) < self.depth {
                self.descend(&path)
            } else {
                None
            };
            let name = path.file_name().map(OsString::from).unwrap_or_default();
            batch.push(Entry { name, path, stat });
            self.levels.extend(below);
        }
        batch
    }

    /// Whether everything was listed.
    pub(super) fn is_done(&self) -> bool {
        self.levels.is_empty()
    }

    /// None for links and for what cannot be read.
    fn descend(&self, path: &Path) -> Option<Level> {
        let directory =
            fs::openat(&self.levels.last()?.directory, path.file_name()?, READ_DIRECTORY, Mode::empty())
                .ok()?;
        Level::new(directory, path.to_owned()).ok()
    }
}

impl Level {
    fn new(directory: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let names = Names::read(&directory)?;
        Ok(Self { directory, path, names, next: 0 })
    }
}

/// The names in a directory, sorted by their bytes; one allocation for all, as there may be millions.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Each with its NUL byte.
    text: Vec<u8>,
    starts: Vec<usize>,
}

impl Names {
    /// All but `.` and `..`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn read(directory: &OwnedFd) -> io::Result<Self> {
        let mut names = Self::default();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.starts.push(names.text.len());
                names.text.extend_from_slice(name.to_bytes_with_nul());
            }
        }
        let text = &names.text;
        names.starts.sort_unstable_by(|a, b| name_at(text, *a).cmp(name_at(text, *b)));
        Ok(names)
    }

    fn get(&self, index: usize) -> Option<&CStr> {
        Some(name_at(&self.text, *self.starts.get(index)?))
    }
}

fn name_at(text: &[u8], start: usize) -> &CStr {
    CStr::from_bytes_until_nul(&text[start..]).expect("each name has its NUL byte")
}
