//! How a shell is given a script: neither on standard input, which is the command's own, nor in a way that changes what
//! the script sees.
//!
//! `sh -c 'eval "shift; $1"' /bin/sh SCRIPT`: `$0` is the shell and there are no arguments, as in a script on standard
//! input, and line numbers are right. It is `eval` that keeps shells from replacing themselves by the last command:
//! a program killed by a signal is then seen by the shell, as code 128 + n, and not taken for the shell's own end.
//!
//! An argument may have 128 KiB (execve(2), `MAX_ARG_STRLEN`), so a longer script is put into memory that the shell
//! opens through the daemon's own descriptor: no file to leave behind, and nothing that the command inherits.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::MemfdFlags;

use crate::error::{Error, Result};

/// Longest script that is passed as an argument, in bytes; with the `shift` and the NUL it fits.
const ARGUMENT: usize = 128 * 1024 - 64;

/// A script for a shell. Keep it until the shell has ended.
#[derive(Debug)]
pub struct Script {
    argv: Vec<OsString>,
    /// Holds a script that is too long for an argument.
    _memory: Option<ScriptMemory>,
}

impl Script {
    /// A script for `shell`, which reads POSIX commands.
    ///
    /// # Errors
    /// When there is no memory for a long one.
    pub fn new(shell: &Path, text: &str) -> Result<Self> {
        let mut argv: Vec<OsString> = vec![shell.into(), "-c".into()];
        if text.len() <= ARGUMENT {
            argv.extend(["eval \"shift; $1\"".into(), shell.into(), text.into()]);
            return Ok(Self { argv, _memory: None });
        }
        let memory = ScriptMemory::new(text)?;
        argv.extend([memory.read_by(shell).into(), shell.into()]);
        Ok(Self { argv, _memory: Some(memory) })
    }

    /// The shell and its arguments.
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }
}

/// A long script, in memory that a shell reads through the daemon's descriptor. Keep it until it has been read.
#[derive(Debug)]
pub struct ScriptMemory(File);

impl ScriptMemory {
    /// Copies `text`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(text: &str) -> Result<Self> {
        let made = rustix::fs::memfd_create("script", MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
        made.map(File::from)
            .and_then(|mut memory| memory.write_all(text.as_bytes()).map(|()| Self(memory)))
            .map_err(|error| Error::internal("no memory for a long command").with_source(error))
    }

    /// The command by which `shell` runs it in itself. In zsh, `.` would change `$0`, and `$(<file)` needs no program;
    /// elsewhere it is the other way round.
    pub fn read_by(&self, shell: &Path) -> String {
        let path = descriptor_path(&self.0);
        if is_zsh(shell) { format!("eval \"$(<{path})\n\"") } else { format!(". {path}") }
    }
}

/// Whether a shell is zsh, which differs from POSIX in what matters here.
pub fn is_zsh(shell: &Path) -> bool {
    shell.ends_with("zsh")
}

/// Where other processes of this user can open what `descriptor` refers to.
pub fn descriptor_path(descriptor: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd())
}
