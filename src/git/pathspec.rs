//! Files as clients name them: exact paths below the root of the work tree, no patterns.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use git2::Index;

use super::worktree::as_path;
use crate::error::{Error, Result};

/// The path below `root` that `file` names, with `/` between its elements; empty for the root itself.
///
/// # Errors
/// When it is outside of the root, in `.git`, or leads through a link.
pub(super) fn below(root: &Path, file: &str) -> Result<Vec<u8>> {
    if file.is_empty() || file.contains('\0') {
        return Err(Error::invalid(format!("not a path: {file:?}")));
    }
    let outside = || Error::invalid(format!("{file} is outside the repository"));
    let mut path = Path::new(file);
    if path.is_absolute() {
        path = path.strip_prefix(root).map_err(|_| outside())?;
    }
    let mut elements = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => elements.push(name.as_bytes()),
            Component::ParentDir if elements.pop().is_none() => return Err(outside()),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if elements.iter().any(|name| name.eq_ignore_ascii_case(b".git")) {
        return Err(Error::invalid(format!("{file} is part of the repository itself")));
    }
    let relative = elements.join(&b'/');
    let is_link = |directory: &Path| root.join(directory).is_symlink();
    if as_path(&relative)
        .ancestors()
        .skip(1)
        .any(|directory| directory != Path::new("") && is_link(directory))
    {
        return Err(Error::invalid(format!("{file} is beyond a symbolic link")));
    }
    Ok(relative)
}

/// Whether `path` is `spec` or below it.
pub(super) fn covers(spec: &[u8], path: &[u8]) -> bool {
    spec.is_empty() || path.strip_prefix(spec).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Paths of the index that are `spec` or below it, each once.
pub(super) fn in_index(index: &Index, spec: &[u8]) -> Vec<Vec<u8>> {
    let Ok(first) = (if spec.is_empty() { Ok(0) } else { index.find_prefix(spec) }) else {
        return Vec::new();
    };
    let mut paths: Vec<Vec<u8>> = (first..index.len())
        .map_while(|at| index.get(at).map(|entry| entry.path).filter(|path| path.starts_with(spec)))
        .filter(|path| covers(spec, path))
        .collect();
    paths.dedup(); // an unmerged path has several entries
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_root_and_stay_below_it() {
        let directory = tempfile::TempDir::new().unwrap();
        let root = directory.path();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        let named = |file: &str| below(root, file).map(|path| String::from_utf8(path).unwrap());
        for (file, path) in [
            (".", ""),
            ("./a/", "a"),
            ("a/../b", "b"),
            ("a//b/./c", "a/b/c"),
            ("link", "link"),
            ("*.rs", "*.rs"),
        ] {
            assert_eq!(named(file).unwrap(), path);
        }
        assert_eq!(named(root.join("a/b").to_str().unwrap()).unwrap(), "a/b");
        for file in ["", "..", "a/../../b", "/etc/passwd", ".git/config", "a/.GIT/x", "link/passwd", "a\0b"] {
            assert!(named(file).is_err(), "{file:?}");
        }
    }

    #[test]
    fn a_directory_covers_what_is_below_it() {
        assert!(covers(b"", b"a") && covers(b"a", b"a") && covers(b"a", b"a/b"));
        assert!(!covers(b"a", b"ab") && !covers(b"a/b", b"a"));
    }
}
