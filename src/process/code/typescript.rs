//! How TypeScript is run: with what the image has. That is `ts-node`, which the original daemon wants, else `tsx`, else a
//! Node.js that strips types itself (22.6 and later). Nothing is downloaded.
//!
//! All of them want a file, which gets a private directory of its own. Beside it is a link to the `node_modules` of the
//! working directory, so that packages are found as they are from there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::javascript::with_argv_fixed;
use super::node::Version;
use crate::error::{Error, Result, os_text};
use crate::supervisor::{Command, is_program};

const TS_NODE: &[&str] = &["-T", "-O", "{\"module\":\"CommonJS\"}", "--ignoreDiagnostics", "5107"];
/// From these on Node.js strips types when it is told to, …
const STRIPS: Version = (22, 6);
/// … and also rewrites what is more than types, as enums are.
const TRANSFORMS: Version = (22, 7);

/// What runs TypeScript here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Runner {
    /// The program of this name.
    TsNode(PathBuf),
    /// The program of this name.
    Tsx(PathBuf),
    /// Node.js itself.
    Node(Version),
}

impl Runner {
    /// Looks in the `node_modules` of `directory` and of those above it, then in the directories of `path`.
    ///
    /// # Errors
    /// Says what was looked for, and where.
    pub(super) fn find(directory: &Path, path: &OsStr, node: Option<Version>) -> Result<Self, String> {
        let local = directory.ancestors().map(|above| above.join("node_modules/.bin"));
        let places: Vec<PathBuf> = local.chain(std::env::split_paths(path)).collect();
        let find = |name: &str| places.iter().map(|place| place.join(name)).find(|file| is_program(file));
        if let Some(program) = find("ts-node") {
            return Ok(Self::TsNode(program));
        }
        if let Some(program) = find("tsx") {
            return Ok(Self::Tsx(program));
        }
        let node = match node {
            Some(version) if version >= STRIPS => return Ok(Self::Node(version)),
            Some((major, minor)) => {
                format!("Node.js {major}.{minor}, which is here, cannot run it without them")
            }
            None => "there is no Node.js either".to_owned(),
        };
        Err(format!(
            "TypeScript cannot be run: neither ts-node nor tsx is in node_modules/.bin of {} or above it, or in PATH \
             ({}), and {node} (22.6 and later can); `npm install -g tsx` is enough\n",
            directory.display(),
            path.display(),
        ))
    }

    /// This runner on the program that `file` has.
    pub(super) fn command(&self, file: &Path, argv: &[String]) -> Command {
        let words: Vec<OsString> = match self {
            Self::TsNode(program) => {
                [program.into()].into_iter().chain(TS_NODE.iter().map(OsString::from)).collect()
            }
            Self::Tsx(program) => vec![program.into()],
            Self::Node(version) => {
                let strip = if *version >= TRANSFORMS {
                    "--experimental-transform-types"
                } else {
                    "--experimental-strip-types"
                };
                ["node", strip, "--disable-warning=ExperimentalWarning"].map(OsString::from).into()
            }
        };
        Command::new(words.into_iter().chain([file.into()]).chain(argv.iter().map(OsString::from)))
    }
}

/// A file with the program, in a directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct ProgramFile {
    directory: TempDir,
}

impl ProgramFile {
    /// In a directory below `temporary`; the program runs in `work`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn new(temporary: &Path, work: &Path, code: &str) -> Result<Self> {
        let failed = |error: io::Error| {
            let message = format!("no file for a program in {}: {}", temporary.display(), os_text(&error));
            Error::internal(message).with_source(error)
        };
        let directory = tempfile::Builder::new().prefix("dtn_").tempdir_in(temporary).map_err(failed)?;
        let file = Self { directory };
        std::fs::write(file.path(), with_argv_fixed(code)).map_err(failed)?;
        if let Some(modules) =
            work.ancestors().map(|above| above.join("node_modules")).find(|path| path.is_dir())
        {
            // Without it, packages are not found; the program says so itself.
            let _ = symlink(modules, file.directory.path().join("node_modules"));
        }
        Ok(file)
    }

    /// Where the program is.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("main.ts")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place(directory: &Path, program: &str) -> PathBuf {
        let file = directory.join(program);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn what_the_image_has_is_used() {
        let root = TempDir::new().unwrap();
        let (work, bin) = (root.path().join("work"), root.path().join("bin"));
        std::fs::create_dir(&work).unwrap();
        let find = |node| Runner::find(&work, bin.as_os_str(), node);
        let missing = find(Some((20, 20))).unwrap_err();
        for word in ["ts-node", "tsx", "20.20", work.to_str().unwrap(), bin.to_str().unwrap()] {
            assert!(missing.contains(word), "{missing}");
        }
        assert!(find(None).unwrap_err().contains("no Node.js"));
        assert_eq!(find(Some((22, 6))), Ok(Runner::Node((22, 6))));
        let tsx = place(&bin, "tsx");
        assert_eq!(find(Some((24, 0))), Ok(Runner::Tsx(tsx)));
        let ts_node = place(root.path(), "node_modules/.bin/ts-node");
        assert_eq!(find(None), Ok(Runner::TsNode(ts_node)));
    }
}
