//! A directory tree under inotify(7): watches that follow the tree, and the kernel's events as changes of paths.
//!
//! inotify watches single directories. One that appears is watched first and then listed: what it has by then is told
//! as created, and the kernel's own word about the same entries, which may be under way, is swallowed. So there is no
//! gap, however fast a tree is made.
//!
//! Everything here blocks; nothing here waits.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::files::root::Root;

/// What is wanted to know of a directory.
const WATCHED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);
/// What is wanted to know of the directory that the root is in.
const ABOVE: WatchFlags = WatchFlags::DELETE.union(WatchFlags::MOVED_FROM).union(WatchFlags::ONLYDIR);
/// Buffer for the kernel's events, in bytes.
const BUFFER: usize = 64 * 1024;
/// Changes that may wait to be sent. The kernel's queue is behind them and says when it overflows.
const QUEUE: usize = 4096;

/// A change, in the client's words for paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Watching has begun: what happens from now on is told.
    Ready,
    Created {
        path: Vec<u8>,
        is_directory: bool,
    },
    /// Content or attributes.
    Modified {
        path: Vec<u8>,
        is_directory: bool,
    },
    /// Gone, or moved out of the tree.
    Deleted {
        path: Vec<u8>,
        is_directory: bool,
    },
    Renamed {
        from: Vec<u8>,
        to: Vec<u8>,
        is_directory: bool,
    },
    /// Changes were lost. What happens from now on is told again.
    Overflow,
    /// This directory, and perhaps others, cannot be watched: the system's limit is reached.
    Limit {
        path: Vec<u8>,
    },
}

/// What is known after reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The kernel has no more.
    Idle,
    /// The kernel has no more, and something has left of which it is not known yet whether it comes back elsewhere.
    Leaving,
    /// There is more to read.
    More,
    /// The root is gone: nothing more will come.
    Ended,
}

/// The tree that is watched.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: Arc<OwnedFd>,
    root: Root,
    recursive: bool,
    /// The root is a file of this name: its directory is watched, for files are replaced more often than written.
    file: Option<Vec<u8>>,
    nodes: HashMap<i32, Node>,
    children: BTreeMap<(i32, Vec<u8>), i32>,
    /// Entries told as created when their directory was listed, of which the kernel may yet speak.
    announced: HashSet<(i32, Vec<u8>)>,
    queue: VecDeque<Item>,
    root_watch: i32,
    /// The directory that the root is in, watched for the root's own end: a directory that is removed while a process
    /// is in it does not say so itself.
    above_watch: Option<i32>,
    has_ended: bool,
}

/// A watched directory; the root has no parent.
#[derive(Debug)]
struct Node {
    parent: Option<i32>,
    name: Vec<u8>,
}

#[derive(Debug)]
enum Item {
    Change(Change),
    /// Moved away; whether to a place in the tree is told by another event, at once or never.
    Leaving {
        cookie: u32,
        path: Vec<u8>,
        watch: Option<i32>,
        is_directory: bool,
    },
}

impl Tree {
    /// Watches `root`, whose path is made free of links.
    ///
    /// # Errors
    /// What the system says of the root, or of one more inotify instance.
    pub(super) fn new(root: &Root, recursive: bool) -> io::Result<Self> {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&root.path)).canonicalize()?;
        let is_directory = path.metadata()?.is_dir();
        let watched = if is_directory { Some(&*path) } else { path.parent() };
        let file = path.file_name().filter(|_| !is_directory).map(|name| name.as_bytes().to_vec());
        let mut root = root.clone();
        root.path = watched.unwrap_or(&path).to_path_buf().into_os_string().into_vec();
        let inotify = Arc::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
        let mut tree = Self {
            inotify,
            root,
            recursive: recursive && is_directory,
            file,
            nodes: HashMap::new(),
            children: BTreeMap::new(),
            announced: HashSet::new(),
            queue: VecDeque::new(),
            root_watch: -1,
            above_watch: None,
            has_ended: false,
        };
        tree.begin()?;
        tree.queue.push_front(Item::Change(Change::Ready)); // before what may have been said of limits
        Ok(tree)
    }

    /// Readable when the kernel has something to tell.
    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.inotify)
    }

    /// Reads what the kernel has, and gives what is known for certain. With `settle`, what is leaving has left.
    pub(super) fn read(&mut self, settle: bool) -> (Vec<Change>, Progress) {
        let is_drained = !self.has_ended && self.drain();
        if is_drained {
            self.announced.clear(); // the kernel has spoken of everything that was there when it was told
        }
        if settle || self.has_ended {
            self.settle();
        }
        if self.queue.len() >= QUEUE && matches!(self.queue.front(), Some(Item::Leaving { .. })) {
            self.settle(); // where it went would have been told long before so many others
        }
        let mut changes = Vec::new();
        while let Some(Item::Change(_)) = self.queue.front() {
            if let Some(Item::Change(change)) = self.queue.pop_front() {
                changes.push(change);
            }
        }
        let progress = match (self.has_ended, is_drained, self.queue.is_empty()) {
            (true, ..) => Progress::Ended,
            (_, false, _) => Progress::More,
            (_, true, false) => Progress::Leaving,
            (_, true, true) => Progress::Idle,
        };
        (changes, progress)
    }

    /// Watches the root, and with `recursive` what is below it.
    fn begin(&mut self) -> io::Result<()> {
        let watch = inotify::add_watch(&self.inotify, &self.root.path[..], WATCHED)?;
        self.root_watch = watch;
        self.nodes.insert(watch, Node { parent: None, name: Vec::new() });
        let end = self.root.path.iter().rposition(|byte| *byte == b'/').filter(|_| self.file.is_none());
        self.above_watch = end.and_then(|end| {
            let above = &self.root.path[..end.max(1)];
            // Without the right to read it, the root's own word has to do.
            inotify::add_watch(&self.inotify, above, ABOVE).ok().filter(|above| *above != watch)
        });
        if self.recursive {
            self.list(watch, false);
        }
        Ok(())
    }

    /// Handles events until there are none (true) or enough changes wait (false).
    fn drain(&mut self) -> bool {
        let inotify = Arc::clone(&self.inotify);
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&*inotify, &mut buffer);
        while self.queue.len() < QUEUE || !reader.is_buffer_empty() {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_vec());
                    let (watch, flags, cookie) = (event.wd(), event.events(), event.cookie());
                    self.handle(watch, flags, cookie, name);
                    if self.has_ended {
                        return false;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn handle(&mut self, watch: i32, flags: ReadFlags, cookie: u32, name: Option<Vec<u8>>) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.restart();
        }
        if Some(watch) == self.above_watch
            && let Some(name) = &name
            && flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM)
            && self.root.path.rsplit(|byte| *byte == b'/').next() == Some(name)
        {
            return self.end(true);
        }
        if !self.nodes.contains_key(&watch) {
            return; // it was let go of, with some of its events under way
        }
        if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            if watch == self.root_watch {
                self.end(self.file.is_none());
            }
            return; // of any other the directory above it tells
        }
        if flags.contains(ReadFlags::IGNORED) {
            return self.forget(watch);
        }
        let Some(name) = name else { return };
        let is_directory = flags.contains(ReadFlags::ISDIR);
        if let Some(file) = &self.file {
            if *file == name {
                self.handle_file(flags);
            }
            return;
        }
        let path = self.shown(watch, &name);
        let key = (watch, name);
        if flags.contains(ReadFlags::CREATE) {
            if !self.announced.remove(&key) {
                self.push(Change::Created { path, is_directory });
                self.enter(key, is_directory);
            }
        } else if flags.contains(ReadFlags::DELETE) {
            self.announced.remove(&key);
            self.push(Change::Deleted { path, is_directory });
            // While a process is in it, a directory lives on without a name.
            if let Some(watch) = self.children.remove(&key) {
                self.let_go(watch);
            }
        } else if flags.contains(ReadFlags::MOVED_FROM) {
            self.announced.remove(&key);
            let watch = self.children.remove(&key);
            self.queue.push_back(Item::Leaving { cookie, path, watch, is_directory });
        } else if flags.contains(ReadFlags::MOVED_TO) {
            self.arrive(cookie, key, path, is_directory);
        } else if flags.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
            self.modified(path, is_directory);
        }
    }

    /// Something happened to the one file that is watched.
    fn handle_file(&mut self, flags: ReadFlags) {
        if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.end(false);
        } else {
            self.modified(self.root.given.clone(), false); // also when another file took its place
        }
    }

    fn arrive(&mut self, cookie: u32, key: (i32, Vec<u8>), to: Vec<u8>, is_directory: bool) {
        let came = self
            .queue
            .iter()
            .position(|item| matches!(item, Item::Leaving { cookie: of, .. } if *of == cookie));
        let Some(Item::Leaving { path: from, watch, .. }) = came.and_then(|at| self.queue.remove(at)) else {
            if !self.announced.remove(&key) {
                self.push(Change::Created { path: to, is_directory });
                self.enter(key, is_directory);
            }
            return;
        };
        self.push(Change::Renamed { from, to, is_directory });
        match watch.filter(|watch| self.nodes.contains_key(watch)) {
            Some(watch) => self.place(watch, key),
            None => self.enter(key, is_directory),
        }
    }

    /// Adds a modification, unless it would only repeat the last change.
    fn modified(&mut self, path: Vec<u8>, is_directory: bool) {
        let change = Change::Modified { path, is_directory };
        if !matches!(self.queue.back(), Some(Item::Change(last)) if *last == change) {
            self.push(change);
        }
    }

    fn push(&mut self, change: Change) {
        self.queue.push_back(Item::Change(change));
    }

    /// Watches a directory that has appeared, with everything in it, which is told as created.
    fn enter(&mut self, key: (i32, Vec<u8>), is_directory: bool) {
        if self.recursive
            && is_directory
            && let Some(watch) = self.watch(key)
        {
            self.list(watch, true);
        }
    }

    /// Watches one directory. None when that is impossible, or not necessary.
    fn watch(&mut self, key: (i32, Vec<u8>)) -> Option<i32> {
        let path = [&self.path(key.0), &b"/"[..], &key.1].concat();
        match inotify::add_watch(&self.inotify, &path[..], WATCHED | WatchFlags::DONT_FOLLOW) {
            // It moved here, which the kernel is about to tell.
            Ok(watch) if self.nodes.contains_key(&watch) => {
                self.place(watch, key);
                None
            }
            Ok(watch) => {
                self.nodes.insert(watch, Node { parent: Some(key.0), name: key.1.clone() });
                self.children.insert(key, watch);
                Some(watch)
            }
            Err(Errno::NOSPC | Errno::NOMEM) => {
                // Once is enough until something else happens.
                if !matches!(self.queue.back(), Some(Item::Change(Change::Limit { .. }))) {
                    let path = self.shown(key.0, &key.1);
                    self.push(Change::Limit { path });
                }
                None
            }
            Err(_) => None, // it has gone again, or may not be read
        }
    }

    /// Watches the directories below a watched one; with `announce`, tells of everything there as created.
    fn list(&mut self, watch: i32, announce: bool) {
        let mut pending = vec![watch];
        while let Some(watch) = pending.pop() {
            for (name, is_directory) in entries(&self.path(watch)) {
                let key = (watch, name);
                if announce {
                    if self.queue.len() >= 16 * QUEUE {
                        return self.restart(); // a huge tree was moved here: the client had better list it itself
                    }
                    self.announced.insert(key.clone());
                    let path = self.shown(watch, &key.1);
                    self.push(Change::Created { path, is_directory });
                }
                if is_directory {
                    pending.extend(self.watch(key));
                }
            }
        }
    }

    /// Puts a watched directory, with what is below it, in another place.
    fn place(&mut self, watch: i32, key: (i32, Vec<u8>)) {
        let node = self.nodes.get_mut(&watch).expect("the caller has looked");
        let old = (node.parent.unwrap_or(key.0), std::mem::replace(&mut node.name, key.1.clone()));
        node.parent = Some(key.0);
        if self.children.get(&old) == Some(&watch) {
            self.children.remove(&old);
        }
        self.children.insert(key, watch);
    }

    fn forget(&mut self, watch: i32) {
        if let Some(Node { parent: Some(parent), name }) = self.nodes.remove(&watch) {
            let key = (parent, name);
            if self.children.get(&key) == Some(&watch) {
                self.children.remove(&key);
            }
        }
    }

    /// What is leaving has left the tree.
    fn settle(&mut self) {
        for at in 0..self.queue.len() {
            if let Item::Leaving { path, watch, is_directory, .. } = &mut self.queue[at] {
                let (watch, is_directory) = (*watch, *is_directory);
                let path = std::mem::take(path);
                self.queue[at] = Item::Change(Change::Deleted { path, is_directory });
                if let Some(watch) = watch {
                    self.let_go(watch);
                }
            }
        }
    }

    /// Stops watching a directory that is not in the tree any more, and what is below it.
    fn let_go(&mut self, top: i32) {
        let mut pending = vec![top];
        while let Some(watch) = pending.pop() {
            let below = self.children.range((watch, Vec::new())..(watch + 1, Vec::new()));
            pending.extend(below.map(|(_, watch)| *watch));
            let _ = inotify::remove_watch(&self.inotify, watch); // fails when it has gone by itself
            self.forget(watch);
        }
    }

    /// Changes were lost, of directories too: begins anew, and says so when everything is watched again.
    fn restart(&mut self) {
        self.settle();
        for watch in self.nodes.keys().chain(&self.above_watch) {
            let _ = inotify::remove_watch(&self.inotify, *watch); // fails when it has gone by itself
        }
        self.nodes.clear();
        self.children.clear();
        self.announced.clear();
        match self.begin() {
            Ok(()) => self.push(Change::Overflow),
            Err(_) => self.end(self.file.is_none()),
        }
    }

    fn end(&mut self, is_directory: bool) {
        self.settle();
        self.push(Change::Deleted { path: self.root.given.clone(), is_directory });
        self.has_ended = true;
    }

    /// Names from the root down to a watched directory.
    fn names(&self, watch: i32) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut next = self.nodes.get(&watch);
        while let Some(Node { parent: Some(parent), name }) = next {
            names.push(&name[..]);
            next = self.nodes.get(parent);
        }
        names.reverse();
        names
    }

    /// Where a watched directory is.
    fn path(&self, watch: i32) -> Vec<u8> {
        let mut path = self.root.path.clone();
        for name in self.names(watch) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// How an entry of a watched directory is told to the client.
    fn shown(&self, watch: i32, name: &[u8]) -> Vec<u8> {
        let mut path = self.root.prefix.clone();
        for above in self.names(watch) {
            path.extend_from_slice(above);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

/// What is in a directory; nothing when it cannot be read.
fn entries(path: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(path, flags, Mode::empty()).and_then(Dir::new) else {
        return Vec::new();
    };
    let names = directory.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().to_bytes();
        let is_directory = match entry.file_type() {
            _ if name == b"." || name == b".." => return None,
            FileType::Unknown => {
                let stat =
                    rustix::fs::statat(CWD, &[path, b"/", name].concat()[..], AtFlags::SYMLINK_NOFOLLOW)
                        .ok()?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        Some((name.to_vec(), is_directory))
    });
    names.collect()
}
