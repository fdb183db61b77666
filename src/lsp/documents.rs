//! Which files a server has open, and how each stood when the server was told of it.
//!
//! A file that changed is told again before the next question, so that answers are about what is on disk. Documents
//! that an editor has open are the editor's: what it typed counts, not the file.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, os_text};

/// Largest file that is opened, in bytes.
pub(super) const FILE_BYTES: u64 = 10 * 1024 * 1024;
/// Most documents that clients may have open at a time, for one server.
pub(super) const MOST_OPEN: usize = 512;
/// Most documents that are open only because a question needed them.
const MOST_PASSING: usize = 32;

/// How a file stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// As it stands now; none when it cannot be told. Blocks.
    pub(super) fn now(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }

    fn of(file: &std::fs::Metadata) -> Self {
        Self {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            size: file.size(),
            inode: file.ino(),
        }
    }
}

/// Who opened a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client, by `did-open`.
    Client,
    /// We, because a question needed it.
    Passing,
    /// An editor, by its connection; whether a client had it open before.
    Editor { connection: u64, was_open: bool },
}

impl Owner {
    /// Whether it is the editor with that connection.
    pub(super) fn is_of(self, connection: u64) -> bool {
        matches!(self, Self::Editor { connection: owner, .. } if owner == connection)
    }
}

/// A document that the server has open.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// Counts up with every change, as LSP wants it.
    pub(super) version: i32,
    /// None for an editor's.
    pub(super) stamp: Option<Stamp>,
    pub(super) owner: Owner,
    /// Counts up with every use of any document.
    pub(super) used: u64,
    /// How much the server had published when it was told the text last.
    pub(super) told: u64,
    /// What the server knows it by: an editor may escape in another way.
    pub(super) uri: lsp_types::Uri,
}

/// All documents of one server, by their absolute paths.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) open: HashMap<PathBuf, Document>,
    uses: u64,
}

impl Documents {
    /// A number for the use that is made now.
    pub(super) fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// The document to close before one more may be open that a question needs.
    pub(super) fn surplus(&self) -> Option<PathBuf> {
        let passing = self.open.iter().filter(|(_, document)| document.owner == Owner::Passing);
        if passing.clone().count() < MOST_PASSING {
            return None;
        }
        passing.min_by_key(|(_, document)| document.used).map(|(path, _)| path.clone())
    }

    /// Files with their stamps, to be compared with how they stand now.
    pub(super) fn stamps(&self) -> Vec<(PathBuf, Stamp)> {
        let stamped = self.open.iter();
        stamped.filter_map(|(path, document)| Some((path.clone(), document.stamp?))).collect()
    }

    /// What clients have open, to be opened again when the server is started anew.
    pub(super) fn of_clients(&self) -> Vec<PathBuf> {
        let of_clients = self.open.iter().filter(|(_, document)| {
            matches!(document.owner, Owner::Client | Owner::Editor { was_open: true, .. })
        });
        of_clients.map(|(path, _)| path.clone()).collect()
    }
}

/// A file's text and how it stood before it was read. Blocks. Bytes that are no UTF-8 are replaced: columns before
/// them stay right.
///
/// # Errors
/// When it cannot be read, is no regular file, or is too large.
pub(super) fn read(path: &Path) -> Result<(String, Stamp)> {
    let failed = |text: &str| {
        Error::new(ErrorKind::InvalidInput, format!("failed to read file: {text}: {}", path.display()))
    };
    let io_failed = |error: std::io::Error| failed(&os_text(&error)).with_source(error);
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC); // a pipe without a writer must not hold us
    let file = options.open(path).map_err(io_failed)?;
    let metadata = file.metadata().map_err(io_failed)?;
    if !metadata.is_file() {
        return Err(failed("not a regular file"));
    }
    if metadata.size() > FILE_BYTES {
        return Err(failed(&format!("larger than {FILE_BYTES} bytes")));
    }
    let mut bytes = Vec::with_capacity(metadata.size() as usize);
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_failed)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(failed(&format!("larger than {FILE_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Ok((text, Stamp::of(&metadata)))
}
