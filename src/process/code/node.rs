//! Which Node.js the image has. What it can do depends on its version, which only it can tell; it is asked once.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::supervisor::{Chunk, Command, StartError, Supervisor, find_program};

/// Longest time for a program to tell its version.
const LIMIT: Duration = Duration::from_secs(20);

/// Version of a Node.js, without its last number.
pub(super) type Version = (u32, u32);

/// Knows the version of the one that was asked last.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    program: PathBuf,
    changed: Option<SystemTime>,
    version: Version,
}

impl Node {
    /// The version of the `node` that is in `path`; none when there is none, or when it does not tell.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn version(
        &self,
        supervisor: &Supervisor,
        path: &OsStr,
    ) -> Result<Option<Version>, StartError> {
        let Some(program) = find_program("node", Some(path)) else { return Ok(None) };
        let changed = program.metadata().and_then(|file| file.modified()).ok();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.program == program && known.changed == changed) {
            return Ok(Some(known.version));
        }
        let mut command = Command::new([program.as_os_str(), OsStr::new("--version")]);
        command.time_limit = Some(LIMIT);
        let process = supervisor.start(command).await?;
        process.exited().await;
        let Chunk::Data(pieces) = process.output().read(0, 64).await else { return Ok(None) };
        let text = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect::<Vec<u8>>();
        let version = parse(&String::from_utf8_lossy(&text));
        let known = version.map(|version| Known { program, changed, version });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(version)
    }
}

/// Reads `v20.11.1`.
fn parse(text: &str) -> Option<Version> {
    let mut numbers = text.trim().strip_prefix('v')?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("v20.11.1\n"), Some((20, 11)));
        assert_eq!(parse("20.11.1"), None);
        assert_eq!(parse(""), None);
    }
}
