//! Paths as clients give them, against the daemon's working directory, and the directories on the way to them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Links followed one after the other before a path counts as a loop, as Linux has it (path_resolution(7)).
const LINKS: usize = 40;
/// Mode of directories that are made on the way to a file, before the umask.
pub const DIRECTORY_MODE: u32 = 0o755;
/// Flags to open a directory whose entries are read; fails for a link to one.
pub const READ_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// The absolute path that `path` means: relative ones are below `base`. `~`, `$VAR`, `.` and `..` are left to the
/// operating system (contract `files.md` 1.2).
pub fn resolve(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}

/// `path` without `.`, `..` and doubled slashes. The last element stays as it is, also when it is a link. Asks the
/// operating system what `..` means, because that may differ from the text where there are links.
pub fn clean(path: &Path) -> PathBuf {
    if !path.components().any(|component| component == Component::ParentDir) {
        return path.components().collect();
    }
    let real = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map(|parent| parent.join(name)),
        _ => path.canonicalize(),
    };
    real.unwrap_or_else(|_| lexically_clean(path))
}

fn lexically_clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}

/// Splits a path into the directory that holds its last element and that element.
///
/// # Errors
/// `EISDIR` when the path's form says that it is a directory: it ends in a slash, `.` or `..`.
pub fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, name) = bytes.split_at(start);
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::ISDIR.into());
    }
    let parent = if parent.is_empty() { b".".as_slice() } else { parent };
    Ok((Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name)))
}

/// A name in an open directory: stays the same place when directories above it are renamed.
#[derive(Debug)]
pub struct Place {
    /// The directory, opened for its path only.
    pub directory: OwnedFd,
    /// One path element.
    pub name: OsString,
}

impl Place {
    /// The place that `path` names itself, without following it when it is a link.
    ///
    /// # Errors
    /// When its directory cannot be opened, and as [`split`].
    pub fn of(path: &Path) -> io::Result<Self> {
        let (parent, name) = split(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::openat(CWD, parent, flags, Mode::empty())?;
        Ok(Self { directory, name: name.to_owned() })
    }

    /// The place that `path` leads to when links are followed; what is there, if anything. A dangling link leads to
    /// the place that its target would have.
    ///
    /// # Errors
    /// As [`Place::of`], and when there are too many links.
    pub fn behind_links(path: &Path) -> io::Result<(Self, Option<Stat>)> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let place = Self::of(&path)?;
            match place.stat()? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    let target = fs::readlinkat(&place.directory, &place.name, Vec::new())?;
                    path = split(&path)?.0.join(OsStr::from_bytes(target.as_bytes()));
                }
                found => return Ok((place, found)),
            }
        }
        Err(Errno::LOOP.into())
    }

    /// What is there, without following it; none when there is nothing.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn stat(&self) -> io::Result<Option<Stat>> {
        match fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whom new files and directories belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Our own user, as the operating system does it.
    Own,
    /// The owner of the directory that they are in.
    Parent,
}

/// Creates a directory of exactly `mode`, all twelve bits, and its missing ancestors with [`DIRECTORY_MODE`]. One
/// that exists is left as it is.
///
/// # Errors
/// `ENOTDIR` when something else is there, and what the operating system says.
pub fn create_directory(path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
    let path: PathBuf = path.components().collect();
    let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
        return create_ancestors(&path, owner); // the root, or ends in `..`
    };
    if path.is_dir() {
        return Ok(());
    }
    create_ancestors(parent, owner)?;
    // Not open to anybody before it is what it should be.
    match fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) if path.is_dir() => return Ok(()),
        Err(Errno::EXIST) => return Err(Errno::NOTDIR.into()),
        result => result?,
    }
    let directory = fs::openat(CWD, &path, READ_DIRECTORY, Mode::empty())?;
    give_to(owner, &directory, || fs::statat(CWD, parent, AtFlags::empty()))?;
    Ok(fs::fchmod(&directory, Mode::from_raw_mode(mode))?)
}

/// Creates what is missing of a directory and its ancestors, with [`DIRECTORY_MODE`] less the umask.
///
/// # Errors
/// What the operating system says.
pub fn create_ancestors(path: &Path, owner: Owner) -> io::Result<()> {
    match fs::mkdirat(CWD, path, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Ok(()) => {}
        Err(Errno::NOENT) => {
            let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
                return Err(Errno::NOENT.into());
            };
            create_ancestors(parent, owner)?;
            match fs::mkdirat(CWD, path, Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) => {}
                Err(_) if path.is_dir() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(_) if path.is_dir() => return Ok(()),
        Err(Errno::EXIST) => return Err(Errno::NOTDIR.into()),
        Err(error) => return Err(error.into()),
    }
    if owner == Owner::Parent
        && let Some(parent) = path.parent()
    {
        let directory = fs::openat(CWD, path, READ_DIRECTORY, Mode::empty())?;
        give_to(owner, &directory, || fs::statat(CWD, parent, AtFlags::empty()))?;
    }
    Ok(())
}

/// Gives something new to its owner; only root can, and for others it is theirs already.
///
/// # Errors
/// When root may not, as on some network file systems.
pub fn give_to(
    owner: Owner,
    new: impl AsFd,
    parent: impl FnOnce() -> rustix::io::Result<Stat>,
) -> io::Result<()> {
    if owner == Owner::Parent && rustix::process::geteuid().is_root() {
        let parent = parent()?;
        fs::fchown(new, Some(Uid::from_raw(parent.st_uid)), Some(Gid::from_raw(parent.st_gid)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_paths_are_short_and_dots_mean_what_the_system_says() {
        assert_eq!(clean(Path::new("/a//b/./c/")), Path::new("/a/b/c"));
        assert_eq!(clean(Path::new("/no/such/../x")), Path::new("/no/x"));
        let directory = tempfile::TempDir::new().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        assert_eq!(clean(&root.join("link/../b")), root.join("a/b"));
        assert_eq!(clean(&root.join("a/../link")), root.join("link"));
        assert_eq!(clean(&root.join("link/..")), root.join("a"));
    }

    #[test]
    fn paths_that_look_like_directories_name_no_file() {
        assert_eq!(split(Path::new("/a/b")).unwrap(), (Path::new("/a/"), OsStr::new("b")));
        for path in ["/", "/a/", "/a/.", "/a/..", ".."] {
            assert_eq!(split(Path::new(path)).unwrap_err().raw_os_error(), Some(libc::EISDIR), "{path}");
        }
    }

    #[test]
    fn links_lead_to_where_they_point_also_when_nothing_is_there() {
        let directory = tempfile::TempDir::new().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::os::unix::fs::symlink("sub/target", root.join("one")).unwrap();
        std::os::unix::fs::symlink("one", root.join("two")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        let (place, found) = Place::behind_links(&root.join("two")).unwrap();
        assert_eq!((place.name.as_os_str(), found.is_some()), (OsStr::new("target"), false));
        assert!(Place::behind_links(&root.join("loop")).is_err());
    }
}
