//! Memory that a program is given as a descriptor: what it would otherwise need a file for.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;

/// Memory with these bytes, to be read from its beginning (memfd_create(2)). `name` shows in `/proc`.
///
/// # Errors
/// When there is none.
pub fn memory(name: &str, contents: &[&[u8]]) -> io::Result<OwnedFd> {
    let mut memory = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    contents.iter().try_for_each(|part| memory.write_all(part))?;
    memory.rewind()?;
    Ok(memory.into())
}
