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
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use self::glob::Glob;
use self::ignored::Ignored;
use self::scan::{Context, Line, Pattern, Scanner};
use self::walk::{Block, Entry, Failed, Out, Results, Visitor, walk};
use super::root::Root;
use super::service::Files;
use crate::error::Result;

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
        Ok(self.found(root, None, Names { glob: Glob::new(pattern)?, encode }))
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
        let root = self.root(&find.path).await?;
        if find.gitignore || find.glob.is_some() {
            let (gitignore, glob) = (find.gitignore, find.glob);
            let ruled = self.lane.run(move || with_rules(root, gitignore, glob.as_deref())).await?;
            let (root, rules) = ruled?;
            return Ok(self.found(root, Some(rules), Contents { pattern, context: find.context, encode }));
        }
        Ok(self.found(root, None, Contents { pattern, context: find.context, encode }))
    }

    fn found(&self, root: Root, rules: Option<Arc<Ignored>>, visitor: impl Visitor) -> Found {
        let (walk, results) = walk(root, rules);
        let lane = self.walks.clone();
        self.shutdown.spawn(async move {
            if let Err(error) = lane.run(move || walk.run(&visitor)).await {
                tracing::error!(%error, "a search failed");
            }
        });
        Found { results }
    }
}

fn with_rules(mut root: Root, gitignore: bool, glob: Option<&str>) -> Result<(Root, Arc<Ignored>)> {
    let path = Path::new(OsStr::from_bytes(&root.path));
    // Rules are relative to real directories. A root that is a link, and not to be entered, stays as it is.
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
        && let Ok(real) = path.canonicalize()
    {
        root.path = real.into_os_string().into_encoded_bytes();
    }
    let rules = Ignored::new(&root.path, gitignore, glob)?;
    Ok((root, rules))
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
