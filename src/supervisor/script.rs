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
    _memory: Option<File>,
}

impl Script {
    /// A script for `shell`, which reads POSIX commands.
    ///
    /// # Errors
    /// When there is no memory for a long one.
    pub fn new(shell: &Path, text: &str) -> Result<Self> {
        let memory = if text.len() <= ARGUMENT { None } else { Some(in_memory(text)?) };
        let shell = shell.as_os_str();
        let mut argv: Vec<OsString> = vec![shell.into(), "-c".into()];
        match &memory {
            None => argv.extend(["eval \"shift; $1\"".into(), shell.into(), text.into()]),
            Some(memory) => {
                let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
                // In zsh, `.` changes `$0` and `$(<file)` needs no program; elsewhere it is the other way round.
                let is_zsh = Path::new(shell).ends_with("zsh");
                let read = if is_zsh { format!("eval \"$(<{path})\n\"") } else { format!(". {path}") };
                argv.extend([read.into(), shell.into()]);
            }
        }
        Ok(Self { argv, _memory: memory })
    }

    /// The shell and its arguments.
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }
}

fn in_memory(text: &str) -> Result<File> {
    let made = rustix::fs::memfd_create("script", MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
    made.map(File::from)
        .and_then(|mut memory| memory.write_all(text.as_bytes()).map(|()| memory))
        .map_err(|error| Error::internal("no memory for a long command").with_source(error))
}
