//! Finds the few paths that may have changed, so that libgit2 has to look at no others.
//!
//! libgit2 compares every file with one thread and reads every tree of HEAD. Here, threads go through the directories:
//! a file is as it was when everything that stat(2) says is as the index has it, and a directory of the index is that of
//! HEAD when the cache tree says so. All that is not certain is a suspect, and libgit2 decides: contents, filters,
//! ignore rules and submodules are its business alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use git2::{ObjectType, Oid, Repository};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, openat, statat};

use super::index_file::{CacheTree, Entry, IndexFile};
use super::worktree::as_path;

/// Most threads of one survey.
const THREADS: usize = 8;
/// Buffer for directory entries, in bytes.
const LISTING: usize = 32 * 1024;
/// With more suspects than this share of all files, libgit2 had better look at all of them.
const SHARE: usize = 2;
/// Untracked files that are asked about one by one whether they are ignored.
const ASKED: usize = 256;

/// Looks for what may have changed since HEAD: paths of files, or of directories that stand for all that is in them.
/// None when everything should be looked at.
pub(super) fn survey(repository: &Repository) -> Option<Vec<Vec<u8>>> {
    let snapshot = Snapshot::read(repository)?;
    let mut paths = snapshot.staged(repository)?;
    paths.append(&mut snapshot.unstaged(repository)?);
    snapshot.sorted(paths)
}

/// As [`survey`], of what the index may have and HEAD has not.
pub(super) fn staged(repository: &Repository) -> Option<Vec<Vec<u8>>> {
    let snapshot = Snapshot::read(repository)?;
    snapshot.sorted(snapshot.staged(repository)?)
}

/// As [`survey`], of what the work tree may have and the index has not.
pub(super) fn unstaged(repository: &Repository) -> Option<Vec<Vec<u8>>> {
    let snapshot = Snapshot::read(repository)?;
    snapshot.sorted(snapshot.unstaged(repository)?)
}

/// The index, and when it was written.
struct Snapshot {
    index: IndexFile,
    /// Seconds and nanoseconds.
    written: (u32, u32),
}

impl Snapshot {
    fn read(repository: &Repository) -> Option<Self> {
        let mut file = File::open(repository.path().join("index")).ok()?;
        let metadata = file.metadata().ok()?;
        let mut data = Vec::with_capacity(usize::try_from(metadata.len()).ok()?);
        file.read_to_end(&mut data).ok()?;
        let written = (u32::try_from(metadata.mtime()).ok()?, u32::try_from(metadata.mtime_nsec()).ok()?);
        Some(Self { index: IndexFile::parse(&data)?, written })
    }

    fn staged(&self, repository: &Repository) -> Option<Vec<Vec<u8>>> {
        let head = super::worktree::head_tree(repository).ok()?.map(|tree| tree.id());
        let (whole, mut paths) = (0..self.index.entries.len(), Vec::new());
        let staged = Staged { repository, index: &self.index };
        staged.compare(head, whole, b"", self.index.cache.as_ref(), &mut paths)?;
        Some(paths)
    }

    fn unstaged(&self, repository: &Repository) -> Option<Vec<Vec<u8>>> {
        let rules = Rules::of(repository)?;
        let Found { changed: mut paths, untracked } =
            Walk::new(repository.workdir()?, &self.index, rules, self.written).run()?;
        let (asked, rest) = untracked.split_at(untracked.len().min(ASKED));
        let is_ignored = |path: &Vec<u8>| repository.is_path_ignored(as_path(path)).unwrap_or(false);
        paths.extend(asked.iter().filter(|path| !is_ignored(path)).chain(rest).cloned());
        Some(paths)
    }

    /// None when they are so many that everything had better be looked at.
    fn sorted(&self, mut paths: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
        paths.sort_unstable();
        paths.dedup();
        (paths.len() <= self.index.entries.len() / SHARE + 64).then_some(paths)
    }
}

/// How files are compared with what the index knows of them.
#[derive(Debug, Clone, Copy)]
struct Rules {
    executable: bool,
    ctime: bool,
}

impl Rules {
    /// None when the file system is odd enough that libgit2 should look at everything.
    fn of(repository: &Repository) -> Option<Self> {
        let config = repository.config().ok()?.snapshot().ok()?;
        let is = |name: &str, default| config.get_bool(name).unwrap_or(default);
        if !is("core.symlinks", true) || is("core.ignorecase", false) {
            return None;
        }
        Some(Self { executable: is("core.filemode", true), ctime: is("core.trustctime", true) })
    }

    /// Whether a file is certainly as it was when it was staged. One that was written in the same moment as the index may
    /// have changed since.
    fn are_kept(self, entry: &Entry, stat: &Stat, written: (u32, u32)) -> bool {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = match kind {
            FileType::Symlink => 0o120_000,
            FileType::RegularFile if !self.executable => entry.mode,
            FileType::RegularFile if stat.st_mode & 0o100 != 0 => 0o100_755,
            FileType::RegularFile => 0o100_644,
            _ => return false,
        };
        // Some programs store no nanoseconds.
        let same = |(seconds, nanos): (u32, u32), now: (i64, u64)| {
            seconds == truncated(now.0) && (nanos == 0 || u64::from(nanos) == now.1)
        };
        mode == entry.mode
            && (entry.mode & 0o170_000 == 0o100_000) == (kind == FileType::RegularFile)
            && entry.size == truncated(stat.st_size)
            && entry.ino == truncated(stat.st_ino.cast_signed())
            && (entry.uid, entry.gid) == (stat.st_uid, stat.st_gid)
            && same(entry.mtime, (stat.st_mtime, stat.st_mtime_nsec))
            && (!self.ctime || same(entry.ctime, (stat.st_ctime, stat.st_ctime_nsec)))
            && entry.mtime < written
    }
}

/// The index keeps 32 bits of everything.
fn truncated(number: i64) -> u32 {
    (number & i64::from(u32::MAX)) as u32
}

/// What a directory has in the index, under one name.
enum Child {
    File(usize),
    Directory(Range<usize>),
}

/// The children of a directory whose entries are `range` and whose path, with a slash at its end, is `prefix` long.
fn children(index: &IndexFile, range: Range<usize>, prefix: usize) -> Vec<(&[u8], Child)> {
    let mut found: Vec<(&[u8], Child)> = Vec::new();
    for at in range {
        let name = &index.name(&index.entries[at])[prefix..];
        match memchr::memchr(b'/', name) {
            None => found.push((name, Child::File(at))),
            Some(end) => match found.last_mut() {
                Some((last, Child::Directory(range))) if *last == &name[..end] => range.end = at + 1,
                _ => found.push((&name[..end], Child::Directory(at..at + 1))),
            },
        }
    }
    found
}

/// Compares the index with HEAD.
struct Staged<'a> {
    repository: &'a Repository,
    index: &'a IndexFile,
}

impl Staged<'_> {
    fn compare(
        &self,
        tree: Option<Oid>,
        range: Range<usize>,
        prefix: &[u8],
        cache: Option<&CacheTree>,
        suspects: &mut Vec<Vec<u8>>,
    ) -> Option<()> {
        if let (Some(tree), Some(hash)) = (tree, cache.and_then(|cache| cache.hash))
            && tree.as_bytes() == hash
        {
            return Some(());
        }
        let tree = match tree {
            Some(id) => Some(self.repository.find_tree(id).ok()?),
            None => None,
        };
        let mut stored: HashMap<Vec<u8>, (Oid, u32, bool)> = HashMap::new();
        for entry in tree.iter().flat_map(|tree| tree.iter()) {
            let is_tree = entry.kind() == Some(ObjectType::Tree);
            let mode = entry.filemode().cast_unsigned();
            stored.insert(entry.name_bytes().to_owned(), (entry.id(), mode, is_tree));
        }
        for (name, child) in children(self.index, range, prefix.len()) {
            let before = stored.remove(name);
            let path = || [prefix, name].concat();
            match (child, before) {
                (Child::File(at), before) => {
                    let entry = &self.index.entries[at];
                    let same = before.is_some_and(|(id, mode, is_tree)| {
                        !is_tree && id.as_bytes() == entry.hash && mode == entry.mode
                    });
                    if !same || entry.is_unmerged || entry.is_intent {
                        suspects.push(path());
                    }
                }
                (Child::Directory(range), Some((id, _, true))) => {
                    let cache = cache.and_then(|cache| cache.child(name));
                    self.compare(Some(id), range, &[&path(), b"/".as_slice()].concat(), cache, suspects)?;
                }
                (Child::Directory(_), _) => suspects.push(path()),
            }
        }
        suspects.extend(stored.into_keys().map(|name| [prefix, &name].concat()));
        Some(())
    }
}

/// What a walk has found.
#[derive(Debug, Default)]
struct Found {
    /// Tracked, and perhaps not as they were.
    changed: Vec<Vec<u8>>,
    /// Not tracked.
    untracked: Vec<Vec<u8>>,
}

/// A directory to go through: its path, with a slash at its end unless it is the root's, and its entries.
struct Task {
    prefix: Vec<u8>,
    range: Range<usize>,
}

#[derive(Default)]
struct State {
    tasks: Vec<Task>,
    /// Tasks that somebody is at.
    active: usize,
    failed: bool,
    found: Found,
}

/// Compares the work tree with the index, several directories at a time.
struct Walk<'a> {
    root: &'a Path,
    index: &'a IndexFile,
    rules: Rules,
    written: (u32, u32),
    state: Mutex<State>,
    changed: Condvar,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path, index: &'a IndexFile, rules: Rules, written: (u32, u32)) -> Self {
        let first = Task { prefix: Vec::new(), range: 0..index.entries.len() };
        let state = State { tasks: vec![first], ..State::default() };
        Self { root, index, rules, written, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self) -> Option<Found> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, self.root, flags, Mode::empty()).ok()?;
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work(&root));
            }
            self.work(&root);
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (!state.failed).then_some(state.found)
    }

    fn work(&self, root: &OwnedFd) {
        let (mut found, mut buffer) = (Found::default(), vec![MaybeUninit::uninit(); LISTING]);
        let mut state = self.state();
        loop {
            if state.failed {
                return;
            }
            if let Some(task) = state.tasks.pop() {
                state.active += 1;
                drop(state);
                let below = self.visit(root, &task, &mut found, &mut buffer);
                state = self.state();
                state.active -= 1;
                state.failed |= below.is_none();
                state.tasks.extend(below.unwrap_or_default());
                self.changed.notify_all();
            } else if state.active == 0 {
                state.found.changed.append(&mut found.changed);
                state.found.untracked.append(&mut found.untracked);
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Goes through one directory; gives those in it. None when it cannot be read.
    fn visit(
        &self,
        root: &OwnedFd,
        task: &Task,
        found: &mut Found,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Option<Vec<Task>> {
        let prefix = &task.prefix;
        let path = if prefix.is_empty() { b".".as_slice() } else { prefix };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(root, path, flags, Mode::empty()).ok()?;
        let mut children = children(self.index, task.range.clone(), prefix.len());
        children.sort_unstable_by_key(|(name, _)| *name);
        let mut seen = vec![false; children.len()];
        let mut below = Vec::new();
        let mut listing = RawDir::new(&directory, buffer);
        while let Some(entry) = listing.next() {
            let entry = entry.ok()?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || (name == b".git" && prefix.is_empty()) {
                continue;
            }
            let whole = || [prefix, name].concat();
            let Ok(first) = children.binary_search_by_key(&name, |(name, _)| *name) else {
                if name == b".git" {
                    found.changed.push(prefix[..prefix.len() - 1].to_vec()); // a repository in a tracked directory
                } else {
                    found.untracked.push(whole());
                }
                continue;
            };
            // An unmerged file is there up to three times.
            let same = |at: &usize| children[*at].0 == name;
            let first = (0..=first).rev().take_while(same).last().unwrap_or(first);
            for at in (first..children.len()).take_while(same) {
                seen[at] = true;
                match &children[at].1 {
                    Child::File(at)
                        if self.is_kept(&directory, entry.file_name(), &self.index.entries[*at]) => {}
                    Child::Directory(range) if entry.file_type() == FileType::Directory => {
                        below.push(Task { prefix: [prefix, name, b"/"].concat(), range: range.clone() });
                    }
                    _ => found.changed.push(whole()),
                }
            }
        }
        for ((name, child), _) in children.iter().zip(&seen).filter(|(_, seen)| !**seen) {
            let is_left_out = match child {
                Child::File(at) => self.index.entries[*at].is_left_out,
                Child::Directory(range) => {
                    self.index.entries[range.clone()].iter().all(|entry| entry.is_left_out)
                }
            };
            if !is_left_out {
                found.changed.push([prefix, *name].concat());
            }
        }
        Some(below)
    }

    fn is_kept(&self, directory: &OwnedFd, name: &std::ffi::CStr, entry: &Entry) -> bool {
        if entry.is_left_out {
            return true;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        !entry.is_unmerged
            && !entry.is_intent
            && stat.is_ok_and(|stat| self.rules.are_kept(entry, &stat, self.written))
    }
}
