//! Rules about files: list, info, delete, folders, move, permissions.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::Stream;
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Stat, Uid};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::list::Walk;
use super::{copy, remove};
use crate::error::{Error, ErrorKind, Result, os_text};
use crate::platform::blocking::Lane;
use crate::platform::paths::{self, Owner, Place};
use crate::platform::replacement::temporary_name;
use crate::platform::shutdown::Shutdown;
use crate::platform::users;

/// Jobs on the file system at a time.
const JOBS: usize = 32;
/// Walks at a time. A client that reads slowly keeps one waiting, which must not hold up other jobs.
const WALKS: usize = 32;

/// Works on the file system; a cheap handle.
#[derive(Debug, Clone)]
pub struct Files {
    /// The base of relative paths.
    pub(super) work_dir: Arc<Path>,
    pub(super) lane: Lane,
    pub(super) walks: Lane,
    pub(super) shutdown: Shutdown,
    pub(super) owner: Owner,
    /// For temporary files that have no name.
    pub(super) spool: Arc<Path>,
}

/// A file or directory; of a link, all but name and path are its target's.
#[derive(Debug)]
pub struct Entry {
    /// The last element of its path.
    pub name: OsString,
    /// Absolute path without dots.
    pub path: PathBuf,
    /// What the operating system knows of it.
    pub stat: Stat,
}

/// What to change; nothing is changed when a part of it makes no sense.
#[derive(Debug, Default)]
pub struct Permissions {
    /// Octal digits, up to 7777.
    pub mode: Option<String>,
    /// User id or name.
    pub owner: Option<String>,
    /// Group id or name.
    pub group: Option<String>,
}

impl Files {
    /// Relative paths are below `work_dir`; `spool` takes temporary files that cannot be beside what they are for.
    pub fn new(work_dir: PathBuf, owner: Owner, spool: PathBuf, shutdown: Shutdown) -> Self {
        Self {
            work_dir: work_dir.into(),
            lane: Lane::new(JOBS),
            walks: Lane::new(WALKS),
            shutdown,
            owner,
            spool: spool.into(),
        }
    }

    /// One file or directory.
    ///
    /// # Errors
    /// When it does not exist or may not be looked up.
    pub async fn info(&self, path: &str) -> Result<Entry> {
        let (full, path) = (self.resolve(path), PathBuf::from(path));
        self.lane
            .run(move || {
                let stat = fs::stat(&full).map_err(|error| Error::io("look up", &path, error.into()))?;
                Ok(Entry { name: base_name(&path), path: paths::clean(&full), stat })
            })
            .await?
    }

    /// `depth` levels of a directory: each directory before its entries, those sorted by the bytes of their names.
    /// Links are not descended into. What cannot be inspected is left out.
    ///
    /// # Errors
    /// When `path` is no directory or may not be read.
    pub async fn list(
        &self,
        path: &str,
        depth: u64,
    ) -> Result<impl Stream<Item = Result<Vec<Entry>>> + Send + use<>> {
        if depth == 0 {
            return Err(Error::invalid("depth must be at least 1"));
        }
        let (full, path) = (self.resolve(path), PathBuf::from(path));
        let walk = self.lane.run(move || Walk::begin(&full, depth)).await?;
        let walk = walk.map_err(|error| Error::io("list", &path, error))?;
        let lane = self.lane.clone();
        Ok(futures_util::stream::try_unfold(Some(walk), move |walk| {
            let lane = lane.clone();
            async move {
                let Some(mut walk) = walk else { return Ok(None) };
                lane.run(move || {
                    let batch = walk.batch();
                    Some((batch, (!walk.is_done()).then_some(walk)))
                })
                .await
            }
        }))
    }

    /// Deletes a file, a link, or with `recursive` a directory with all that is in it.
    ///
    /// # Errors
    /// When it does not exist, is a directory without `recursive`, is the root, a mount point, the working directory
    /// or above that, or when the operating system refuses. A tree may then be partly deleted.
    pub async fn delete(&self, path: &str, recursive: bool) -> Result<()> {
        let (full, path) = (self.resolve(path), PathBuf::from(path));
        let work_dir = Arc::clone(&self.work_dir);
        self.while_wanted(move |wanted| {
            let failed = |error: io::Error| Error::io("delete", &path, error);
            let target = fs::stat(&full).map_err(|error| failed(error.into()))?;
            let is_directory = FileType::from_raw_mode(target.st_mode) == FileType::Directory;
            if is_directory && !recursive {
                return Err(Error::invalid("cannot delete directory without recursive flag"));
            }
            if is_directory && remove::is_or_is_above(&full, &work_dir) {
                let text =
                    format!("refusing to delete the working directory or one above it: {}", path.display());
                return Err(Error::invalid(text));
            }
            let place = itself(&full).map_err(failed)?;
            remove::remove(&place, wanted).map_err(failed)
        })
        .await?
    }

    /// Creates a directory of exactly `mode` (octal digits, all twelve bits) and what is missing above it with 0755.
    /// One that exists is left as it is.
    ///
    /// # Errors
    /// When the mode makes no sense, something else is there, or the operating system refuses.
    pub async fn create_folder(&self, path: &str, mode: &str) -> Result<()> {
        let mode = parse_mode(mode)?;
        let (full, path, owner) = (self.resolve(path), PathBuf::from(path), self.owner);
        let created = self.lane.run(move || {
            paths::create_directory(&full, mode, owner).map_err(|error| Error::io("create", &path, error))
        });
        created.await?
    }

    /// Moves a file, directory or link; across file systems by copying. What cannot be removed of the source after
    /// that is told in words.
    ///
    /// # Errors
    /// When the source or the destination's directory does not exist, the destination exists, a directory would go
    /// into itself, or the operating system refuses. The source is whole then, and nothing is at the destination.
    pub async fn rename(&self, source: &str, destination: &str) -> Result<Option<String>> {
        let (from, to) = (self.resolve(source), self.resolve(destination));
        let (source, destination) = (PathBuf::from(source), PathBuf::from(destination));
        self.while_wanted(move |wanted| {
            let source_failed = |error: io::Error| Error::io("move", &source, error);
            let exists = || {
                let text = format!("destination exists: {}", destination.display());
                Error::new(ErrorKind::Conflict, text)
            };
            fs::stat(&from).map_err(|error| source_failed(error.into()))?;
            let from = itself(&from).map_err(source_failed)?;
            let to = match Place::of(&to.components().collect::<PathBuf>()) {
                Ok(place) => place,
                Err(error) if is(&error, Errno::ISDIR) => return Err(exists()),
                Err(error) => return Err(Error::io("move to", &destination, error)),
            };
            if remove::is_above(&from, &to).map_err(source_failed)? {
                let text = format!("cannot move a directory into itself: {}", source.display());
                return Err(Error::new(ErrorKind::InvalidFilePath, text));
            }
            match rename_to_nothing(&from, &to) {
                Ok(()) => return Ok(None),
                Err(Errno::EXIST | Errno::NOTEMPTY) => return Err(exists()),
                Err(Errno::XDEV) if to.stat().is_ok_and(|found| found.is_some()) => return Err(exists()),
                Err(Errno::XDEV) => {}
                Err(error) => return Err(source_failed(error.into())),
            }
            let copied =
                Place { directory: to.directory.try_clone().map_err(source_failed)?, name: temporary_name() };
            let failed = |error| {
                let _ = remove::remove(&copied, &CancellationToken::new());
                error
            };
            copy::copy(&from, &copied, wanted).map_err(|error| failed(source_failed(error)))?;
            rename_to_nothing(&copied, &to).map_err(|error| {
                failed(if error == Errno::EXIST { exists() } else { source_failed(error.into()) })
            })?;
            // The destination is complete: from here on it ends, also when nobody waits any more.
            let removed = remove::remove(&from, &CancellationToken::new());
            Ok(removed.err().map(|error| os_text(&error)))
        })
        .await?
    }

    /// Changes owner, group and mode, the mode last because a change of owner takes set-id bits away. Links are
    /// followed.
    ///
    /// # Errors
    /// When a part makes no sense or names nobody, and then nothing has changed; when the operating system refuses.
    pub async fn set_permissions(&self, path: &str, permissions: Permissions) -> Result<()> {
        let (full, path) = (self.resolve(path), PathBuf::from(path));
        let mode = permissions.mode.as_deref().map(parse_mode).transpose()?;
        self.lane
            .run(move || {
                let failed = |error: Errno| Error::io("change", &path, error.into());
                fs::stat(&full).map_err(failed)?;
                let owner = permissions.owner.as_deref().map(find_user).transpose()?;
                let group = permissions.group.as_deref().map(find_group).transpose()?;
                if owner.is_some() || group.is_some() {
                    fs::chownat(CWD, &full, owner, group, AtFlags::empty()).map_err(failed)?;
                }
                if let Some(mode) = mode {
                    fs::chmodat(CWD, &full, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(failed)?;
                }
                Ok(())
            })
            .await?
    }

    /// The absolute path that a client's path means.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        paths::resolve(&self.work_dir, path)
    }

    /// Runs a long job, which looks at its token between steps: cancelled means that the caller has left.
    pub(super) async fn while_wanted<T: Send + 'static>(
        &self,
        job: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T> {
        let token = CancellationToken::new();
        let _guard = token.clone().drop_guard();
        self.lane.run(move || job(&token)).await
    }
}

/// The last element of a path as it was requested: `/` of the root, `.` of the working directory.
pub(super) fn base_name(path: &Path) -> OsString {
    path.components().next_back().map_or_else(|| ".".into(), |last| last.as_os_str().to_owned())
}

/// The place of a file, directory or link itself, whatever its path ends in.
fn itself(path: &Path) -> io::Result<Place> {
    let path: PathBuf = path.components().collect();
    if path.file_name().is_none() { Place::of(&path.canonicalize()?) } else { Place::of(&path) }
}

/// Renames without ever replacing what is there, be it a dangling link.
fn rename_to_nothing(from: &Place, to: &Place) -> Result<(), Errno> {
    let (old, new) = (from.directory.as_fd(), to.directory.as_fd());
    match fs::renameat_with(old, &from.name, new, &to.name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {} // not known to this file system
        result => return result,
    }
    match fs::statat(new, &to.name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => fs::renameat(old, &from.name, new, &to.name),
        Err(error) => Err(error),
        Ok(_) => Err(Errno::EXIST),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn parse_mode(text: &str) -> Result<u32> {
    let mode = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(text, 8));
    match mode {
        Some(Ok(mode)) if mode <= 0o7777 => Ok(mode),
        _ => Err(Error::invalid(format!("mode must be octal digits from 0 to 7777, not {text:?}"))),
    }
}

fn find_user(text: &str) -> Result<Uid> {
    let id = text.parse().ok().or_else(|| users::user_by_name(text).map(|user| user.uid));
    id.filter(|id| *id != u32::MAX)
        .map(Uid::from_raw)
        .ok_or_else(|| Error::invalid(format!("user not found: {text}")))
}

fn find_group(text: &str) -> Result<Gid> {
    let id = text.parse().ok().or_else(|| users::group_by_name(text));
    id.filter(|id| *id != u32::MAX)
        .map(Gid::from_raw)
        .ok_or_else(|| Error::invalid(format!("group not found: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_have_twelve_bits() {
        assert_eq!(parse_mode("755").unwrap(), 0o755);
        assert_eq!(parse_mode("0755").unwrap(), 0o755);
        assert_eq!(parse_mode("7777").unwrap(), 0o7777);
        for text in ["", "0o755", "u+x", "999", "10000", "37777777777", "+755", "-1"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_the_last_element_as_requested() {
        for (path, name) in [("/", "/"), (".", "."), ("a/b/", "b"), ("a/..", ".."), ("x", "x")] {
            assert_eq!(base_name(Path::new(path)), name);
        }
    }
}
