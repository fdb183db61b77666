//! Walks a tree with several threads and gives what they find in pre-order, names sorted byte-wise.
//!
//! ```text
//!   order:   [0.0] [0.1.0] [0.1.1] [0.2] [1]      tasks by their place in the result
//!             ^head          ^claimed ^unclaimed
//! ```
//!
//! A task is a directory to list or some files to search. Listing puts tasks for what is in the directory in its
//! place. Threads always take the first task that nobody has, so that they stay near the head, where results are
//! taken from; a thread whose results are not at the head stops when [`BUFFERED`] bytes wait. The head never stops,
//! hence this cannot lock up, and memory is bounded by the tree's shape, not by the number of matches. `ignore`'s
//! parallel walk has no order, and sorting what it gives would need all of it.
//!
//! What cannot be read is skipped alone. Links met on the way are never followed.

use std::collections::{BTreeMap, VecDeque};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use tokio::sync::Notify;

use super::ignored::Ignored;
use crate::files::root::Root;

/// Results that may wait behind the head, in bytes.
const BUFFERED: usize = 4 * 1024 * 1024;
/// Results are passed on when there are so many bytes of them.
const BLOCK: usize = 64 * 1024;
/// Buffer for directory entries, in bytes.
const LISTING: usize = 32 * 1024;
/// Most threads of one walk.
const THREADS: usize = 8;

/// What a walk is for.
pub(super) trait Visitor: Send + Sync + 'static {
    /// What a thread needs for itself.
    type Scratch;
    /// Entries that make one task.
    const BATCH: usize;

    /// Made once for each thread.
    fn scratch(&self) -> Self::Scratch;

    /// Whether entries of this type are to be visited.
    fn wants(&self, kind: FileType) -> bool;

    /// Visits an entry. Called by several threads at a time, in any order.
    fn visit(&self, entry: &Entry<'_>, scratch: &mut Self::Scratch, out: &mut Out<'_>);
}

/// Something in the tree, or its root.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The directory it is in; of the root its own path.
    directory: &'a [u8],
    is_root: bool,
    /// What stands before its name in results: empty, or ends in `/`.
    pub(super) parent: &'a [u8],
    /// Its name in results; of the root its whole path, as given.
    pub(super) name: &'a [u8],
    /// Its base name.
    pub(super) base: &'a [u8],
}

impl Entry<'_> {
    /// Where it is.
    pub(super) fn path(&self) -> Vec<u8> {
        if self.is_root { self.directory.to_vec() } else { join(self.directory, self.name) }
    }
}

/// Some results: encoded entries, one after another.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// Where each entry ends.
    pub(super) ends: Vec<usize>,
}

impl Block {
    fn append(&mut self, other: &Self) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| offset + end));
    }
}

/// Results as they come. Dropping it stops the walk.
#[derive(Debug)]
pub(super) struct Results {
    shared: Arc<Shared>,
}

impl Results {
    /// The next results in order; none at the end. Cancel safe.
    ///
    /// # Errors
    /// When a thread panicked: what was given so far is not everything.
    pub(super) async fn next(&self) -> Result<Option<Block>, Failed> {
        loop {
            let ready = self.shared.ready.notified(); // keeps a wake-up that comes before it is awaited
            match self.shared.take() {
                Taken::Block(block) => return Ok(Some(block)),
                Taken::End => return Ok(None),
                Taken::Failed => return Err(Failed),
                Taken::Later => ready.await,
            }
        }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        self.shared.stop(false);
    }
}

/// A thread of the walk panicked.
#[derive(Debug, thiserror::Error)]
#[error("the search failed midway")]
pub(super) struct Failed;

/// A walk that has not begun.
#[derive(Debug)]
pub(super) struct Walk {
    shared: Arc<Shared>,
}

/// A walk from `root` that passes over what `ignored` leaves out, and where its results come out.
pub(super) fn walk(root: Root, ignored: Option<Arc<Ignored>>) -> (Walk, Results) {
    let mut state = State::default();
    state.order.insert(Place::new(), Slot::default());
    state.unclaimed.insert(Place::new(), Task::Root(root, ignored));
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        changed: Condvar::new(),
        ready: Notify::new(),
        stopped: AtomicBool::new(false),
    });
    (Walk { shared: Arc::clone(&shared) }, Results { shared })
}

impl Walk {
    /// Runs to the end, or until nobody wants the results. Blocks.
    pub(super) fn run(self, visitor: &impl Visitor) {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| work(&self.shared, visitor));
            }
            work(&self.shared, visitor);
        });
    }
}

/// Where a task's results belong: the places of the tasks it came from and its own among its siblings.
type Place = Vec<u32>;

#[derive(Debug)]
enum Task {
    Root(Root, Option<Arc<Ignored>>),
    List(Arc<Directory>),
    Visit { directory: Arc<Directory>, names: Arc<Names>, range: Range<usize> },
}

/// A directory on the way.
#[derive(Debug)]
struct Directory {
    path: Vec<u8>,
    /// Stands before its entries' names in results.
    prefix: Vec<u8>,
    ignored: Option<Arc<Ignored>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// For threads: something can be claimed, or more results can be held.
    changed: Condvar,
    /// For the reader: there is something to take.
    ready: Notify,
    /// Nobody wants the results.
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Every task that is not done, and results that were not taken. The first is the head.
    order: BTreeMap<Place, Slot>,
    unclaimed: BTreeMap<Place, Task>,
    /// Threads at work.
    active: usize,
    /// Bytes of results that were not taken.
    buffered: usize,
    failed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    blocks: VecDeque<Block>,
    is_done: bool,
}

enum Taken {
    Block(Block),
    Later,
    End,
    Failed,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self, failed: bool) {
        let mut state = self.lock();
        state.failed |= failed;
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        self.ready.notify_one();
    }

    /// The first task that nobody has; none when there will be no more.
    fn claim(&self) -> Option<(Place, Task)> {
        let mut state = self.lock();
        loop {
            if self.is_stopped() {
                return None;
            }
            if let Some(first) = state.unclaimed.pop_first() {
                state.active += 1;
                return Some(first);
            }
            if state.active == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds results to a claimed task's; waits while there are too many. False when nobody wants them.
    fn push(&self, place: &Place, block: Block) -> bool {
        let mut state = self.lock();
        loop {
            if self.is_stopped() {
                return false;
            }
            let is_head = state.order.first_key_value().is_some_and(|(head, _)| head == place);
            let slot = state.order.get(place).expect("a claimed task has its slot");
            if state.buffered < BUFFERED || (is_head && slot.blocks.is_empty()) {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.buffered += block.bytes.len();
        state.order.get_mut(place).expect("a claimed task has its slot").blocks.push_back(block);
        self.tell(&state);
        true
    }

    /// A task is done; `tasks` stand in its place, after its own results.
    fn finish(&self, place: &Place, tasks: Vec<Task>) {
        let mut state = self.lock();
        state.active -= 1;
        for (number, task) in (0..).zip(tasks) {
            let at: Place = place.iter().copied().chain([number]).collect();
            state.order.insert(at.clone(), Slot::default());
            state.unclaimed.insert(at, task);
        }
        let slot = state.order.get_mut(place).expect("a claimed task has its slot");
        if slot.blocks.is_empty() {
            state.order.remove(place);
        } else {
            slot.is_done = true;
        }
        self.tell(&state);
        self.changed.notify_all(); // new tasks, a new head, or the end
    }

    fn tell(&self, state: &State) {
        if state.order.first_key_value().is_none_or(|(_, head)| !head.blocks.is_empty()) {
            self.ready.notify_one();
        }
    }

    fn take(&self) -> Taken {
        let mut state = self.lock();
        let mut taken = Block::default();
        while taken.bytes.len() < BLOCK
            && let Some(mut head) = state.order.first_entry()
        {
            while taken.bytes.len() < BLOCK
                && let Some(block) = head.get_mut().blocks.pop_front()
            {
                taken.append(&block);
            }
            if !head.get().blocks.is_empty() || !head.get().is_done {
                break;
            }
            head.remove();
        }
        state.buffered -= taken.bytes.len();
        if state.failed {
            Taken::Failed
        } else if !taken.bytes.is_empty() {
            self.changed.notify_all();
            Taken::Block(taken)
        } else if state.order.is_empty() {
            Taken::End
        } else {
            Taken::Later
        }
    }
}

/// Takes the results of one task.
pub(super) struct Out<'a> {
    shared: &'a Shared,
    place: &'a Place,
    block: Block,
}

impl Out<'_> {
    /// Adds one entry, which `encode` writes. False when no more are wanted.
    pub(super) fn entry(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        encode(&mut self.block.bytes);
        self.block.ends.push(self.block.bytes.len());
        self.block.bytes.len() < BLOCK || self.flush()
    }

    /// Passes on what there is. False when no more is wanted.
    pub(super) fn flush(&mut self) -> bool {
        if self.block.bytes.is_empty() {
            return !self.shared.is_stopped();
        }
        self.shared.push(self.place, std::mem::take(&mut self.block))
    }
}

/// Says so when a thread panics: the others would wait for it.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(true);
        }
    }
}

/// What each thread does.
fn work<V: Visitor>(shared: &Shared, visitor: &V) {
    let _alarm = Alarm(shared);
    let mut scratch = visitor.scratch();
    let mut listing = Vec::with_capacity(LISTING);
    while let Some((place, task)) = shared.claim() {
        let mut out = Out { shared, place: &place, block: Block::default() };
        let tasks = match task {
            Task::Root(root, ignored) => begin(root, ignored, visitor, &mut scratch, &mut out),
            Task::List(directory) => list(&directory, visitor, listing.spare_capacity_mut()),
            Task::Visit { directory, names, range } => {
                for name in &names.list[range] {
                    let name = names.text(name);
                    let (directory, parent) = (&directory.path[..], &directory.prefix[..]);
                    let entry = Entry { directory, is_root: false, parent, name, base: name };
                    visitor.visit(&entry, &mut scratch, &mut out);
                    if shared.is_stopped() {
                        break;
                    }
                }
                Vec::new()
            }
        };
        out.flush();
        shared.finish(&place, tasks);
    }
}

fn begin<V: Visitor>(
    root: Root,
    ignored: Option<Arc<Ignored>>,
    visitor: &V,
    scratch: &mut V::Scratch,
    out: &mut Out<'_>,
) -> Vec<Task> {
    let Root { path, given, prefix } = root;
    let Ok(stat) = rustix::fs::statat(CWD, &path[..], AtFlags::SYMLINK_NOFOLLOW) else { return Vec::new() };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if visitor.wants(kind) {
        let base = base_name(&given);
        visitor.visit(
            &Entry { directory: &path, is_root: true, parent: b"", name: &given, base },
            scratch,
            out,
        );
    }
    if kind == FileType::Directory {
        vec![Task::List(Arc::new(Directory { path, prefix, ignored }))]
    } else {
        Vec::new()
    }
}

/// The last name of a path; `/` of `/`.
fn base_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    if end == 0 {
        return b"/";
    }
    path[..end].rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// The names in a directory, close together: there may be millions.
#[derive(Debug, Default)]
struct Names {
    text: Vec<u8>,
    list: Vec<Name>,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    start: u32,
    length: u16,
    kind: FileType,
}

impl Names {
    fn push(&mut self, name: &[u8], kind: FileType) {
        // A name has 255 bytes at most; four billion bytes of names in one directory do not occur, and are left out.
        let (Ok(start), Ok(length)) = (u32::try_from(self.text.len()), u16::try_from(name.len())) else {
            return;
        };
        self.text.extend_from_slice(name);
        self.list.push(Name { start, length, kind });
    }

    fn text(&self, name: &Name) -> &[u8] {
        &self.text[name.start as usize..][..usize::from(name.length)]
    }
}

/// What is in a directory, as tasks in order: entries to visit in batches, each sub-directory after its own name.
fn list<V: Visitor>(directory: &Arc<Directory>, visitor: &V, buffer: &mut [MaybeUninit<u8>]) -> Vec<Task> {
    let names = Arc::new(read(directory, visitor, buffer));
    let ignored = Ignored::below(directory.ignored.as_ref(), &directory.path, |name| {
        names.list.binary_search_by(|other| names.text(other).cmp(name)).is_ok()
    });
    let mut tasks = Vec::new();
    let mut from = 0;
    let visit = |tasks: &mut Vec<Task>, range: Range<usize>| {
        if !range.is_empty() {
            tasks.push(Task::Visit { directory: Arc::clone(directory), names: Arc::clone(&names), range });
        }
    };
    for (at, name) in names.list.iter().enumerate() {
        let is_directory = name.kind == FileType::Directory;
        let is_wanted = visitor.wants(name.kind);
        let text = names.text(name);
        let is_left_out = ignored
            .as_ref()
            .is_some_and(|ignored| ignored.leaves_out(&join(&directory.path, text), is_directory));
        if is_left_out || (is_directory && !is_wanted) {
            visit(&mut tasks, from..at);
            from = at + 1;
        } else if is_directory || at + 1 - from == V::BATCH {
            visit(&mut tasks, from..at + 1);
            from = at + 1;
        }
        if is_directory && !is_left_out {
            let prefix = [&directory.prefix[..], text, b"/"].concat();
            let path = join(&directory.path, text);
            tasks.push(Task::List(Arc::new(Directory { path, prefix, ignored: ignored.clone() })));
        }
    }
    visit(&mut tasks, from..names.list.len());
    tasks
}

/// Entries that are wanted, and directories, sorted. What cannot be read is empty.
fn read<V: Visitor>(directory: &Directory, visitor: &V, buffer: &mut [MaybeUninit<u8>]) -> Names {
    let mut names = Names::default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::open(&directory.path[..], flags, Mode::empty()) else { return names };
    let mut entries = RawDir::new(&opened, buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        let kind = match entry.file_type() {
            _ if name == b"." || name == b".." => continue,
            // Some file systems do not say.
            FileType::Unknown => {
                match rustix::fs::statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => continue,
                }
            }
            kind => kind,
        };
        if kind == FileType::Directory || visitor.wants(kind) {
            names.push(name, kind);
        }
    }
    let Names { text, list } = &mut names;
    list.sort_unstable_by(|a, b| {
        let text_of = |name: &Name| &text[name.start as usize..][..usize::from(name.length)];
        text_of(a).cmp(text_of(b))
    });
    names
}
