//! Where a walk or a watch begins, and how the paths below it are told to the client.

use std::path::Path;

use super::service::Files;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::paths;

/// A path that the client gave.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// Absolute.
    pub(super) path: Vec<u8>,
    /// As the client gave it.
    pub(super) given: Vec<u8>,
    /// What stands before the names of entries in it: the path, cleaned; empty, or ends in `/`.
    pub(super) prefix: Vec<u8>,
}

impl Files {
    /// The place that a path means, whether or not there is something.
    ///
    /// # Errors
    /// When it has a NUL byte.
    pub(super) async fn root(&self, given: &str) -> Result<Root> {
        if given.contains('\0') {
            return Err(Error::new(ErrorKind::InvalidFilePath, "invalid file path: path has a NUL byte"));
        }
        let path = paths::resolve(&self.work_dir, given).into_os_string().into_encoded_bytes();
        let (work_dir, text) = (self.work_dir.clone(), given.to_owned());
        let clean = self.lane.run(move || cleaned(&work_dir, &text)).await?;
        let prefix = match clean.as_str() {
            "." => String::new(),
            "/" => clean,
            _ => format!("{clean}/"),
        };
        Ok(Root { path, given: given.as_bytes().to_vec(), prefix: prefix.into_bytes() })
    }
}

/// A path without `.`, doubled slashes, a slash at the end, and `..`, the last only where that changes nothing: behind
/// a link it would name another place than the one that is meant.
fn cleaned(base: &Path, given: &str) -> String {
    let lexical = clean(given, true);
    let identity = |path: &str| {
        let stat = rustix::fs::stat(base.join(path)).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    if !given.split('/').any(|name| name == "..") || identity(given) == identity(&lexical) {
        lexical
    } else {
        clean(given, false)
    }
}

fn clean(given: &str, resolves_parents: bool) -> String {
    let is_absolute = given.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in given.split('/').filter(|name| !name.is_empty() && *name != ".") {
        match (name, names.last()) {
            ("..", Some(last)) if resolves_parents && *last != ".." => drop(names.pop()),
            ("..", None) if resolves_parents && is_absolute => {}
            _ => names.push(name),
        }
    }
    match (is_absolute, names.is_empty()) {
        (true, _) => format!("/{}", names.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => names.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_like_those_of_the_original() {
        for (given, expected) in [
            ("./t/", "t"),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("//a//b/.", "/a/b"),
            ("..", ".."),
            ("../a/../../b", "../../b"),
        ] {
            assert_eq!(clean(given, true), expected);
        }
        assert_eq!(clean("/../a/..", true), "/");
        assert_eq!(clean("a/./../b/", false), "a/../b");
    }

    #[test]
    fn a_parent_of_a_link_is_not_the_directory_it_is_in() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real/deep", directory.path().join("link")).unwrap();
        assert_eq!(cleaned(directory.path(), "real/../real/"), "real");
        assert_eq!(cleaned(directory.path(), "link/.."), "link/..");
    }
}
