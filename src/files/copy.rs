//! Copies a file or tree to another file system so that nobody can tell: links stay links, hard links within the tree
//! stay one file, and owners, modes, times, extended attributes and holes are kept.
//!
//! What the other side cannot take, as owners for a user who is not root or attributes on a file system without, is
//! left out, as mv(1) does it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::platform::paths::{Place, READ_DIRECTORY};
use crate::platform::replacement::copy_xattrs;

/// Bytes copied at a time.
const PIECE: usize = 1024 * 1024;
/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

/// Copies `from` to `to`, where nothing is yet.
///
/// # Errors
/// What the operating system says; part of the copy may be there then.
pub(super) fn copy(from: &Place, to: &Place, wanted: &CancellationToken) -> io::Result<()> {
    let mut copy = Copy { root: to.directory.as_fd(), wanted, links: HashMap::new(), buffer: Vec::new() };
    copy.entry(from.directory.as_fd(), &from.name, to.directory.as_fd(), &to.name, Path::new(&to.name))
}

struct Copy<'a> {
    /// What the paths in `links` are relative to.
    root: BorrowedFd<'a>,
    wanted: &'a CancellationToken,
    /// Files with several names, by device and inode of the source, and where their copy is.
    links: HashMap<(u64, u64), PathBuf>,
    buffer: Vec<u8>,
}

impl Copy<'_> {
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: BorrowedFd<'_>,
        new_name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        if self.wanted.is_cancelled() {
            return Err(Errno::CANCELED.into());
        }
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.directory(from, name, to, new_name, path),
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(target.as_c_str(), to, new_name)?;
                give_by_name(to, new_name, &stat)?;
            }
            kind => {
                if stat.st_nlink > 1 {
                    if let Some(copied) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                        return Ok(fs::linkat(self.root, copied, to, new_name, AtFlags::empty())?);
                    }
                    self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
                }
                if kind == FileType::RegularFile {
                    return self.file(from, name, to, new_name);
                }
                fs::mknodat(to, new_name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?;
                give_by_name(to, new_name, &stat)?;
                fs::chmodat(to, new_name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
            }
        }
        Ok(fs::utimensat(to, new_name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: BorrowedFd<'_>,
        new_name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        let old = fs::openat(from, name, READ_DIRECTORY, Mode::empty())?;
        fs::mkdirat(to, new_name, Mode::from_raw_mode(0o700))?;
        let new = fs::openat(to, new_name, READ_DIRECTORY, Mode::empty())?;
        for entry in Dir::read_from(&old)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.entry(old.as_fd(), name, new.as_fd(), name, &path.join(name))?;
            }
        }
        // Last, because entries change the times, and the mode may forbid making them.
        give_all(&old, &new)
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: BorrowedFd<'_>,
        new_name: &OsStr,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let old = fs::openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = fs::openat(to, new_name, flags, Mode::from_raw_mode(0o600))?;
        let size = u64::try_from(fs::fstat(&old)?.st_size).unwrap_or_default();
        let mut at = 0;
        while at < size {
            let start = match fs::seek(&old, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break, // a hole up to the end
                Err(_) => at,              // a file system that does not tell
            };
            let end = fs::seek(&old, SeekFrom::Hole(start)).unwrap_or(size).min(size);
            at = self.data(&old, &new, start, end)?;
        }
        fs::ftruncate(&new, size)?;
        give_all(&old, &new)
    }

    /// Copies bytes from `start` to `end`; returns where to go on, which is the largest offset when the file shrank.
    fn data(&mut self, old: &OwnedFd, new: &OwnedFd, start: u64, end: u64) -> io::Result<u64> {
        let mut at = start;
        while at < end {
            if self.wanted.is_cancelled() {
                return Err(Errno::CANCELED.into());
            }
            self.buffer.clear();
            self.buffer.reserve(PIECE);
            rustix::io::pread(old, rustix::buffer::spare_capacity(&mut self.buffer), at)?;
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let mut piece = &self.buffer[..length];
            if piece.is_empty() {
                return Ok(u64::MAX);
            }
            while !piece.is_empty() {
                let count = rustix::io::pwrite(new, piece, at)?;
                piece = &piece[count..];
                at += count as u64;
            }
        }
        Ok(at)
    }
}

/// Gives a copy the attributes of what it was copied from.
fn give_all(old: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    let stat = fs::fstat(old)?;
    let mut mode = stat.st_mode & 0o7777;
    match fs::fchown(new, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))) {
        Err(Errno::PERM | Errno::INVAL) => mode &= !SET_ID, // not for somebody else
        result => result?,
    }
    let _ = copy_xattrs(old.as_fd(), new.as_fd(), |_| true);
    fs::fchmod(new, Mode::from_raw_mode(mode))?;
    Ok(fs::futimens(new, &times(&stat))?)
}

fn give_by_name(to: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match fs::chownat(to, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::PERM | Errno::INVAL) => Ok(()),
        result => Ok(result?),
    }
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    }
}
