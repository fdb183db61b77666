//! Files are replaced, not overwritten: readers see the old content or the new one, and an abort leaves the old one.
//!
//! ```text
//!                    usual                                     cannot be renamed over the target
//! begin --> temporary file beside the target --commit--> its mode, owner, xattrs; fsync; rename
//!                                                └-----> written into the target; fsync; temporary removed
//! begin --> no temporary file possible: the target itself --commit--> fsync
//! ```
//!
//! Written into the target is what has several hard links, an owner that we cannot give, or a mount point for a file.
//! No temporary file is possible where the directory cannot be written, beside devices, and on FUSE, whose file
//! systems are often object stores that cannot rename (contract `files.md` 17, 18.7).

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{
    self, Access, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::paths::{self, Owner, Place};

/// What names of temporary files begin with.
pub const TEMPORARY_PREFIX: &str = ".toolboxd-";
/// `f_type` of FUSE (statfs(2)).
const FUSE_MAGIC: i64 = 0x6573_5546;
/// Mode of new files, before the umask.
const FILE_MODE: u32 = 0o666;

/// New content for a file, complete when [`Replacement::commit`] has returned. Dropped before that, it leaves the old
/// content and no temporary file. Everything here blocks.
#[derive(Debug)]
pub struct Replacement {
    /// What is written to; none when commit has closed it.
    file: Option<File>,
    target: Place,
    /// The target as it was found.
    found: Option<Stat>,
    way: Way,
    owner: Owner,
    written: u64,
    done: bool,
}

#[derive(Debug)]
enum Way {
    /// `file` is a temporary file beside the target.
    Beside { temporary: OsString },
    /// `file` is a nameless file in another directory.
    Elsewhere,
    /// `file` is the target.
    Direct,
}

impl Replacement {
    /// Begins to replace what `path` leads to, or to create it. `spool` is a directory for a nameless temporary file
    /// where none is possible beside the target, for content that is made from the target's own.
    ///
    /// # Errors
    /// When the target is a directory, a pipe or a socket, or may not be written.
    pub fn begin(path: &Path, owner: Owner, spool: Option<&Path>) -> io::Result<Self> {
        match fs::statat(CWD, path, AtFlags::empty()).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile) | Err(Errno::NOENT) => {}
            Ok(FileType::Directory) => return Err(Errno::ISDIR.into()),
            Ok(FileType::CharacterDevice | FileType::BlockDevice) => {
                // Opened by its path, which may go through one of the kernel's own links, as /dev/stdout does.
                let file = open_for_writing(CWD, path, OFlags::empty())?;
                let (target, found) = Place::behind_links(path)?;
                return Ok(Self::new(file, target, found, Way::Direct, owner));
            }
            Ok(_) => return Err(not_regular()),
            Err(error) => return Err(error.into()),
        }
        let (target, found) = Place::behind_links(path)?;
        if found.is_some() {
            // A rename would get around the file's own mode.
            fs::accessat(&target.directory, &target.name, Access::WRITE_OK, AtFlags::EACCESS)?;
        }
        if !is_fuse(&target.directory) {
            match create_beside(&target, found.is_some()) {
                Ok((file, temporary)) => {
                    return Ok(Self::new(file, target, found, Way::Beside { temporary }, owner));
                }
                // The directory cannot be written, as those in /proc, but the file in it can.
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT | Errno::OPNOTSUPP)
                    if found.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(spool) = spool {
            let file = tempfile::tempfile_in(spool)?;
            return Ok(Self::new(file, target, found, Way::Elsewhere, owner));
        }
        let flags = if found.is_some() { OFlags::TRUNC } else { OFlags::CREATE | OFlags::EXCL };
        let file = open_for_writing(&target.directory, Path::new(&target.name), flags | OFlags::NOFOLLOW)?;
        Ok(Self::new(file, target, found, Way::Direct, owner))
    }

    fn new(file: File, target: Place, found: Option<Stat>, way: Way, owner: Owner) -> Self {
        Self { file: Some(file), target, found, way, owner, written: 0, done: false }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the new content in the old one's place, on disk.
    ///
    /// # Errors
    /// What the operating system says. The old content is still there then, unless it was written in place.
    pub fn commit(mut self) -> io::Result<()> {
        self.put_in_place()?;
        if let Some(file) = self.file.take() {
            // Network and FUSE file systems say only now that they could not store what was written.
            nix::unistd::close(OwnedFd::from(file))?;
        }
        self.done = true;
        Ok(())
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        match &self.way {
            Way::Direct => {
                if self.found.is_none() {
                    self.give_to_owner()?;
                }
                sync(self.file())
            }
            Way::Elsewhere => self.write_into_target(),
            Way::Beside { temporary } => {
                // The target may have changed while the content came in.
                let now = self.target.stat()?;
                let kept = match now.or(self.found) {
                    Some(stat) if now.is_some() && stat.st_nlink > 1 => false,
                    Some(stat) => keep_attributes(&self.target, now.is_some(), &stat, self.file()),
                    None => {
                        self.give_to_owner()?;
                        true
                    }
                };
                if !kept {
                    return self.write_into_target();
                }
                sync(self.file())?;
                let directory = &self.target.directory;
                match fs::renameat(directory, temporary, directory, &self.target.name) {
                    Ok(()) => Ok(()),
                    // A file that is a mount point, another's in a sticky directory, no rename at all.
                    Err(
                        Errno::BUSY
                        | Errno::ACCESS
                        | Errno::PERM
                        | Errno::XDEV
                        | Errno::INVAL
                        | Errno::NOSYS
                        | Errno::OPNOTSUPP,
                    ) => self.write_into_target(),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    fn give_to_owner(&self) -> io::Result<()> {
        paths::give_to(self.owner, self.file(), || fs::fstat(&self.target.directory))
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("closed at the end of commit only")
    }

    /// The content is complete, so as little as possible can go wrong between the first byte and the last.
    fn write_into_target(&mut self) -> io::Result<()> {
        let name = Path::new(&self.target.name);
        let mut target = open_for_writing(&self.target.directory, name, OFlags::CREATE | OFlags::NOFOLLOW)?;
        if self.written > 0 {
            // A help where it exists.
            let room = fs::fallocate(&target, FallocateFlags::KEEP_SIZE, 0, self.written);
            if let Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) = room {
                return Err(error.into());
            }
        }
        let mut file = self.file();
        file.seek(SeekFrom::Start(0))?;
        io::copy(&mut file, &mut target)?;
        target.set_len(self.written)?;
        sync(&target)?;
        if let Way::Beside { temporary } = &self.way {
            let _ = fs::unlinkat(&self.target.directory, temporary, AtFlags::empty());
        }
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file().write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let name = match &self.way {
            Way::Beside { temporary } => temporary,
            Way::Direct if self.found.is_none() => &self.target.name,
            Way::Direct | Way::Elsewhere => return,
        };
        let _ = fs::unlinkat(&self.target.directory, name, AtFlags::empty());
    }
}

/// A name that nobody else has.
pub fn temporary_name() -> OsString {
    format!("{TEMPORARY_PREFIX}{}", uuid::Uuid::new_v4().simple()).into()
}

/// The error for what is neither a file nor a directory.
pub fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

fn open_for_writing(directory: impl AsFd, path: &Path, flags: OFlags) -> io::Result<File> {
    // Non-blocking, so that a pipe or device that came in between does not hold us up.
    let flags = flags | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(fs::openat(directory, path, flags, Mode::from_raw_mode(FILE_MODE))?.into())
}

fn create_beside(target: &Place, exists: bool) -> Result<(File, OsString), Errno> {
    // What others may not read in the old file they may not read in the new one either, from the first byte on.
    let mode = Mode::from_raw_mode(if exists { 0o600 } else { FILE_MODE });
    let temporary = temporary_name();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&target.directory, &temporary, flags, mode)?;
    Ok((file.into(), temporary))
}

fn is_fuse(directory: &OwnedFd) -> bool {
    fs::fstatfs(directory).is_ok_and(|stat| stat.f_type == FUSE_MAGIC)
}

fn sync(file: &File) -> io::Result<()> {
    match fs::fsync(file) {
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()), // a device, or a file system without
        result => Ok(result?),
    }
}

/// Gives `file` the owner, mode and extended attributes of the target; false when that is not possible.
fn keep_attributes(target: &Place, exists: bool, stat: &Stat, file: &File) -> bool {
    let kept = || -> io::Result<()> {
        let own = fs::fstat(file)?;
        if (own.st_uid, own.st_gid) != (stat.st_uid, stat.st_gid) {
            fs::fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        if exists {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match fs::openat(&target.directory, &target.name, flags, Mode::empty()) {
                // The kernel takes capabilities from a file whose content changes.
                Ok(old) => copy_xattrs(old.as_fd(), file.as_fd(), |name| name != c"security.capability")?,
                Err(Errno::ACCESS) => return Err(Errno::ACCESS.into()), // may be written but not read
                Err(_) => {}
            }
        }
        Ok(fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
    };
    kept().is_ok()
}

/// Copies the extended attributes that `keep` wants, access control lists among them. The file systems may know none.
///
/// # Errors
/// When one cannot be read or set; the others are copied nevertheless.
pub fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>, keep: impl Fn(&CStr) -> bool) -> io::Result<()> {
    let mut names = Vec::new();
    match fs::flistxattr_query(from) {
        Err(Errno::NOTSUP | Errno::NOSYS) | Ok(0) => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(size) => names.reserve(size),
    }
    fs::flistxattr(from, spare_capacity(&mut names))?;
    let names = names.split_inclusive(|byte| *byte == 0);
    let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()).filter(|name| keep(name));
    let mut result = Ok(());
    for name in names {
        result = result.and(copy_xattr(from, to, name));
    }
    Ok(result?)
}

fn copy_xattr(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut value = Vec::with_capacity(fs::fgetxattr_query(from, name)?.max(1));
    fs::fgetxattr(from, name, spare_capacity(&mut value))?;
    fs::fsetxattr(to, name, &value, XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn replace(path: &Path, content: &[u8]) {
        let mut replacement = Replacement::begin(path, Owner::Own, None).unwrap();
        replacement.write_all(content).unwrap();
        replacement.commit().unwrap();
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replaced_file_is_a_new_one_with_the_old_ones_mode() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "old content").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o4751)).unwrap();
        let before = std::fs::metadata(&path).unwrap();
        replace(&path, b"new");
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_ne!(after.ino(), before.ino());
        assert_eq!(after.mode(), before.mode());
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn a_file_with_several_names_keeps_them_and_its_inode() {
        let directory = tempfile::TempDir::new().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&path, "old, and longer than the new one").unwrap();
        std::fs::hard_link(&path, &other).unwrap();
        replace(&path, b"new");
        assert_eq!(std::fs::read(&other).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["a", "b"]);
    }

    #[test]
    fn a_link_stays_a_link_and_a_dangling_one_creates_its_target() {
        let directory = tempfile::TempDir::new().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("target", &link).unwrap();
        replace(&link, b"one");
        replace(&link, b"two");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(directory.path().join("target")).unwrap(), b"two");
    }

    #[test]
    fn dropped_before_its_commit_it_leaves_nothing_behind() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a");
        for expected in [vec![], vec![OsString::from("a")]] {
            let mut replacement = Replacement::begin(&path, Owner::Own, None).unwrap();
            replacement.write_all(b"half").unwrap();
            assert_eq!(names(directory.path()).len(), expected.len() + 1);
            drop(replacement);
            assert_eq!(names(directory.path()), expected);
            std::fs::write(&path, "whole").unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn extended_attributes_are_kept() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "old").unwrap();
        if fs::setxattr(&path, "user.colour", b"red", XattrFlags::empty()).is_err() {
            return; // not on this file system
        }
        replace(&path, b"new");
        let mut value = Vec::with_capacity(16);
        fs::getxattr(&path, "user.colour", spare_capacity(&mut value)).unwrap();
        assert_eq!(value, b"red");
    }

    #[test]
    fn pipes_and_directories_are_refused_at_once() {
        let directory = tempfile::TempDir::new().unwrap();
        let pipe = directory.path().join("pipe");
        fs::mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        for path in [pipe.as_path(), directory.path()] {
            assert!(Replacement::begin(path, Owner::Own, None).is_err());
        }
        replace(Path::new("/dev/null"), b"gone");
    }
}
