//! Removes files and trees, and knows what must not be removed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use tokio_util::sync::CancellationToken;

use crate::platform::paths::{Place, READ_DIRECTORY};

/// Removes what is at `place`, a directory with all that is in it. Links are removed, never followed.
///
/// # Errors
/// What the operating system says; `EBUSY` for a mount point, wherever it is in the tree. A tree may be partly
/// removed then.
pub(super) fn remove(place: &Place, wanted: &CancellationToken) -> io::Result<()> {
    match place.stat()?.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Some(FileType::Directory) => {
            let name = place.name.as_os_str().into_c_str()?.into_owned();
            remove_directory(place.directory.as_fd(), &name, wanted)
        }
        _ => Ok(fs::unlinkat(&place.directory, &place.name, AtFlags::empty())?),
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CString, wanted: &CancellationToken) -> io::Result<()> {
    let directory = match fs::openat(parent, name, READ_DIRECTORY, Mode::empty()) {
        // It cannot be read, but it may be empty.
        Err(Errno::ACCESS) => {
            return fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(|error| match error {
                Errno::NOTEMPTY | Errno::EXIST => Errno::ACCESS.into(),
                error => error.into(),
            });
        }
        result => result?,
    };
    if is_mount_point(&directory, parent)? {
        return Err(Errno::BUSY.into());
    }
    for entry in Dir::read_from(&directory)? {
        if wanted.is_cancelled() {
            return Err(Errno::CANCELED.into());
        }
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let removed = if entry.file_type() == FileType::Directory {
            Err(Errno::ISDIR)
        } else {
            fs::unlinkat(&directory, name, AtFlags::empty())
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {} // removed, by us or meanwhile
            Err(Errno::ISDIR) => match remove_directory(directory.as_fd(), &name.to_owned(), wanted) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn is_mount_point(directory: &OwnedFd, parent: BorrowedFd<'_>) -> io::Result<bool> {
    if let Ok(found) = fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        && found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    Ok(fs::fstat(directory)?.st_dev != fs::fstat(parent)?.st_dev)
}

/// Whether `path` leads to `other`, or to a directory above it.
pub(super) fn is_or_is_above(path: &Path, other: &Path) -> bool {
    let Ok(found) = fs::stat(path) else { return false };
    other.ancestors().any(|above| fs::stat(above).is_ok_and(|above| are_same(&above, &found)))
}

/// Whether `place` is a directory that `other` is in, also when a bind mount hides that.
pub(super) fn is_above(place: &Place, other: &Place) -> io::Result<bool> {
    let Some(found) =
        place.stat()?.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    else {
        return Ok(false);
    };
    let mut directory = other.directory.try_clone()?;
    let mut here = fs::fstat(&directory)?;
    loop {
        if are_same(&here, &found) {
            return Ok(true);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Above what we may not search we cannot move anything from either.
        let Ok(above) = fs::openat(&directory, "..", flags, Mode::empty()) else { return Ok(false) };
        let next = fs::fstat(&above)?;
        if are_same(&here, &next) {
            return Ok(false);
        }
        (directory, here) = (above, next);
    }
}

fn are_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_removed_and_their_targets_stay() {
        let directory = tempfile::TempDir::new().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("tree/deep/er")).unwrap();
        std::fs::create_dir(root.join("kept")).unwrap();
        std::fs::write(root.join("kept/file"), "x").unwrap();
        std::os::unix::fs::symlink("../../kept", root.join("tree/deep/link")).unwrap();
        let place = Place::of(&root.join("tree")).unwrap();
        remove(&place, &CancellationToken::new()).unwrap();
        assert!(!root.join("tree").exists() && root.join("kept/file").exists());
    }

    #[test]
    fn a_cancelled_removal_stops() {
        let directory = tempfile::TempDir::new().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "x").unwrap();
        let token = CancellationToken::new();
        token.cancel();
        assert!(remove(&Place::of(&tree).unwrap(), &token).is_err());
        assert!(tree.join("file").exists());
    }
}
