//! Search by name and by content (contract `files.md` 13, 14, 18.17 to 18.19).
//!
//! Results are encoded by the threads that find them and streamed in order; nothing holds all of them. The walk stops
//! when nobody wants its results any more.

mod glob;
mod ignored;
pub(super) mod routes;
mod scan;
mod walk;
mod wire;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use self::glob::Glob;
use self::ignored::Ignored;
use self::scan::{Context, Line, Pattern, Scanner};
use self::walk::{Block, Entry, Failed, Out, Results, Root, Visitor, walk};
use super::service::Files;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::paths;

/// With a limit the whole reply is held until it is known to be complete: no more than this, in bytes.
const LIMITED_BYTES: usize = 16 * 1024 * 1024;

/// What to look for in files.
#[derive(Debug)]
struct Find {
    /// A file or a directory, as the client gave it.
    path: String,
    /// A literal, unless `regex`.
    pattern: String,
    regex: bool,
    ignore_case: bool,
    /// Only files that this matches; `!` in front: only those that it does not.
    glob: Option<String>,
    /// Leave out what `.gitignore` files do.
    gitignore: bool,
    /// Lines around a match; absent when not asked for.
    context: Option<Context>,
}

/// A matching line.
#[derive(Debug)]
struct Match<'a> {
    entry: &'a Entry<'a>,
    line: &'a Line<'a>,
    has_context: bool,
}

/// Encoded entries, each by `encode` of the call that made them.
#[derive(Debug)]
struct Found {
    results: Results,
}

impl Files {
    /// Entries of a tree, its root included, whose base name matches `pattern`.
    ///
    /// # Errors
    /// When the pattern is malformed or the path has a NUL byte. A path that is not there has no entries.
    async fn search(
        &self,
        path: &str,
        pattern: &str,
        encode: impl Fn(&Entry<'_>, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Found> {
        let root = self.root(path).await?;
        Ok(self.found(root, Names { glob: Glob::new(pattern)?, encode }))
    }

    /// Lines of files that match.
    ///
    /// # Errors
    /// When a pattern is malformed or the path has a NUL byte. A path that is not there has no lines.
    async fn find(
        &self,
        find: Find,
        encode: impl Fn(&Match<'_>, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Found> {
        let pattern = Pattern::new(&find.pattern, find.regex, find.ignore_case)?;
        let mut root = self.root(&find.path).await?;
        if find.gitignore || find.glob.is_some() {
            let (gitignore, glob) = (find.gitignore, find.glob);
            root = self.lane.run(move || with_rules(root, gitignore, glob.as_deref())).await??;
        }
        Ok(self.found(root, Contents { pattern, context: find.context, encode }))
    }

    fn found(&self, root: Root, visitor: impl Visitor) -> Found {
        let (walk, results) = walk(root);
        let lane = self.walks.clone();
        self.shutdown.spawn(async move {
            if let Err(error) = lane.run(move || walk.run(&visitor)).await {
                tracing::error!(%error, "a search failed");
            }
        });
        Found { results }
    }

    async fn root(&self, given: &str) -> Result<Root> {
        if given.contains('\0') {
            return Err(Error::new(ErrorKind::InvalidFilePath, "invalid file path: path has a NUL byte"));
        }
        let (path, work_dir, text) =
            (paths::resolve(&self.work_dir, given), self.work_dir.clone(), given.to_owned());
        let clean = self.lane.run(move || cleaned(&work_dir, &text)).await?;
        let prefix = match clean.as_str() {
            "." => String::new(),
            "/" => clean,
            _ => format!("{clean}/"),
        };
        let path = path.into_os_string().into_encoded_bytes();
        Ok(Root { path, given: given.as_bytes().to_vec(), prefix: prefix.into_bytes(), ignored: None })
    }
}

fn with_rules(mut root: Root, gitignore: bool, glob: Option<&str>) -> Result<Root> {
    let path = Path::new(OsStr::from_bytes(&root.path));
    // Rules are relative to real directories. A root that is a link, and not to be entered, stays as it is.
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
        && let Ok(real) = path.canonicalize()
    {
        root.path = real.into_os_string().into_encoded_bytes();
    }
    root.ignored = Some(Ignored::new(&root.path, gitignore, glob)?);
    Ok(root)
}

/// A path without `.`, doubled slashes, a slash at the end, and `..`, the last only where that changes nothing: behind
/// a link it would name another place than the one that is searched.
fn cleaned(base: &Path, given: &str) -> String {
    let lexical = clean(given, true);
    let identity = |path: &str| {
        let stat = rustix::fs::stat(&base.join(path)).ok()?;
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

struct Names<E> {
    glob: Glob,
    encode: E,
}

impl<E: Fn(&Entry<'_>, &mut Vec<u8>) + Send + Sync + 'static> Visitor for Names<E> {
    type Scratch = ();
    const BATCH: usize = 1024;

    fn scratch(&self) -> Self::Scratch {}

    fn wants(&self, _: FileType) -> bool {
        true
    }

    fn visit(&self, entry: &Entry<'_>, (): &mut (), out: &mut Out<'_>) {
        if self.glob.matches(entry.base) {
            out.entry(|bytes| (self.encode)(entry, bytes));
        }
    }
}

struct Contents<E> {
    pattern: Pattern,
    context: Option<Context>,
    encode: E,
}

impl<E: Fn(&Match<'_>, &mut Vec<u8>) + Send + Sync + 'static> Visitor for Contents<E> {
    type Scratch = Scanner;
    const BATCH: usize = 32;

    fn scratch(&self) -> Scanner {
        Scanner::new()
    }

    fn wants(&self, kind: FileType) -> bool {
        kind == FileType::RegularFile
    }

    fn visit(&self, entry: &Entry<'_>, scanner: &mut Scanner, out: &mut Out<'_>) {
        let Some((file, size)) = open(&entry.path()) else { return };
        let mut sink = Sink { contents: self, entry, out };
        scanner.scan(&file, size, &self.pattern, self.context.unwrap_or_default(), &mut sink);
    }
}

/// A regular file and its size.
fn open(path: &[u8]) -> Option<(OwnedFd, u64)> {
    // Should a pipe have taken the file's place, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        .then(|| (file, u64::try_from(stat.st_size).unwrap_or(0)))
}

struct Sink<'a, 'b, E> {
    contents: &'a Contents<E>,
    entry: &'a Entry<'a>,
    out: &'a mut Out<'b>,
}

impl<E: Fn(&Match<'_>, &mut Vec<u8>)> scan::Sink for Sink<'_, '_, E> {
    fn line(&mut self, line: Line<'_>) -> bool {
        let Self { contents, entry, out } = self;
        let found = Match { entry, line: &line, has_context: contents.context.is_some() };
        out.entry(|bytes| (contents.encode)(&found, bytes))
    }

    fn progress(&mut self) -> bool {
        self.out.flush()
    }
}

impl Found {
    /// The next entries.
    ///
    /// # Errors
    /// When the search failed midway.
    async fn next(&self) -> Result<Option<Block>, Failed> {
        self.results.next().await
    }

    /// The first `limit` entries, [`LIMITED_BYTES`] at most, and whether there are more.
    ///
    /// # Errors
    /// When the search failed midway.
    async fn first(self, limit: usize) -> Result<(Vec<u8>, bool), Failed> {
        let (mut bytes, mut entries) = (Vec::new(), 0);
        while let Some(block) = self.next().await? {
            let room = LIMITED_BYTES - bytes.len();
            let fit = block.ends.iter().take(limit - entries).take_while(|end| **end <= room).count();
            bytes.extend_from_slice(&block.bytes[..fit.checked_sub(1).map_or(0, |last| block.ends[last])]);
            entries += fit;
            if fit < block.ends.len() {
                return Ok((bytes, true));
            }
        }
        Ok((bytes, false))
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
