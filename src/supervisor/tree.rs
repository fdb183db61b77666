//! Every descendant of a process, also those that left its group, called `setsid`, or lost their parent.
//!
//! Each process that the supervisor starts gets a random number that all its descendants inherit and that shows in no
//! program's environment: the soft limit of `RLIMIT_LOCKS`, which the kernel has not enforced since 2.4.25 and still
//! copies on fork (setrlimit(2)). The daemon finds a tree by looking through `/proc` for that number, and for children
//! of what it found (in case a privileged program reset its limits). A cgroup for each command would say the same, but
//! in most containers cgroups cannot be written, so this way has to work anyway.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;
use tracing::warn;

use super::Inner;
use super::pidfd::PidFd;

/// Time for processes to be gone after SIGKILL, before the daemon gives up on them: one may hang in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Most looks for someone who may be there and is gone each time.
const LOOKS: u32 = 64;

/// The number that a process's descendants inherit: the daemon's random part above the process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

/// Bits of a tag that count the daemon's processes.
const COUNTER_BITS: u32 = 32;

impl Tag {
    /// The daemon's part of all its tags: what no other daemon has, in a range that no administrator uses.
    pub(super) fn of_daemon() -> Self {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("the kernel has random bytes");
        Self((u64::from(u32::from_ne_bytes(bytes) >> 2) | 1 << 30) << COUNTER_BITS)
    }

    /// The tag of the daemon's `count`th process.
    pub(super) fn of_process(self, count: u32) -> Self {
        Self(self.0 | u64::from(count.max(1)))
    }

    /// Whether a process with tag `other` belongs to the process with this tag, or to the daemon with this one.
    fn covers(self, other: Self) -> bool {
        let is_daemon = self.0 & ((1 << COUNTER_BITS) - 1) == 0;
        if is_daemon { self.0 == other.0 >> COUNTER_BITS << COUNTER_BITS } else { self == other }
    }

    /// Marks the calling process; for use between fork and exec, so it allocates nothing. Fails silently where that is
    /// forbidden: then a tree is found by its parents only.
    pub(super) fn mark_self(self) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Locks).maximum;
        let _ = setrlimit(Resource::Locks, Rlimit { current: Some(self.0), maximum });
    }
}

/// Which tree.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) tag: Tag,
    /// None for everything that the daemon started.
    pub(super) pid: Option<Pid>,
    /// Set before the root is waited for: from then on its pid may be another process's.
    pub(super) reaped: Arc<AtomicBool>,
}

/// Ends a tree: SIGTERM to every process of it, `grace` for them to end, then SIGKILL until none is left.
pub(super) async fn stop(supervisor: &Inner, root: &Root, grace: Duration) {
    let deadline = Instant::now() + grace;
    let mut told = HashSet::new();
    while let Some(found) = search(supervisor, Search::all(root)).await {
        if found.is_nobody() {
            return;
        }
        for member in found.members.iter().filter(|member| told.insert(member.pid)) {
            member.signal(Signal::TERM);
            member.signal(Signal::CONT); // a stopped process cannot end
        }
        if !ended(supervisor, found.members, deadline).await || Instant::now() >= deadline {
            break;
        }
    }
    kill(supervisor, root).await;
}

/// Ends a tree at once.
pub(super) async fn kill(supervisor: &Inner, root: &Root) {
    kill_those(supervisor, Search::all(root)).await;
}

/// Ends the descendants of a process that were started after `since`, at once.
pub(super) async fn kill_descendants(supervisor: &Inner, root: &Root, since: Instant) {
    kill_those(supervisor, Search::below(root, since)).await;
}

async fn kill_those(supervisor: &Inner, search_for: Search) {
    let deadline = Instant::now() + KILL_LIMIT;
    let pid = search_for.root.pid;
    let search_for = Search { is_stopped: true, ..search_for };
    while Instant::now() < deadline {
        // A process that forks without end outruns a search; one that is stopped does not. So everyone is stopped
        // until a search finds nobody new.
        let mut stopped = HashSet::new();
        let alive = loop {
            let Some(found) = search(supervisor, search_for.clone()).await else { return };
            let new = found.members.iter().filter(|member| stopped.insert(member.pid)).count();
            if new == 0 && !found.has_missed || Instant::now() >= deadline {
                break found.members;
            }
        };
        if alive.is_empty() && Instant::now() < deadline {
            return;
        }
        alive.iter().for_each(|member| member.signal(Signal::KILL));
        if !ended(supervisor, alive, deadline).await {
            break;
        }
    }
    warn!(?pid, "processes survive SIGKILL");
}

/// Ends the terminal session (credentials(7)) that a process led, now that it has ended: SIGHUP and SIGCONT to everyone
/// in it, and after `grace` SIGKILL. Who ignores SIGHUP, as after nohup(1), was meant to outlive the terminal and does; so
/// does who has left the session, as daemons do.
pub(super) async fn hang_up(supervisor: &Inner, root: &Root, grace: Duration) {
    let deadline = Instant::now() + grace;
    let mut told = HashSet::new();
    loop {
        let (root, now) = (root.clone(), Instant::now());
        let found = supervisor.files.run(move || session(&root)).await;
        let (staying, going) = found.unwrap_or_default();
        for member in staying.iter().chain(&going).filter(|member| told.insert(member.pid)) {
            member.signal(Signal::HUP);
            member.signal(Signal::CONT);
        }
        if going.is_empty() {
            return;
        }
        if now >= deadline + KILL_LIMIT {
            warn!("processes of an ended terminal survive SIGKILL");
            return;
        }
        if now >= deadline {
            going.iter().for_each(|member| member.signal(Signal::KILL));
        }
        ended(supervisor, going, if now < deadline { deadline } else { deadline + KILL_LIMIT }).await;
    }
}

/// Those in the session that a process led: who ignores hangups, and the others.
fn session(root: &Root) -> (Vec<Member>, Vec<Member>) {
    let leader = root.pid.map(|pid| pid.as_raw_nonzero().get());
    let found = find(&Search::all(root)).unwrap_or_default();
    let members = found.members.into_iter().filter(|member| Some(member.row.session) == leader);
    members.partition(|member| ignores_hangups(member.pid))
}

/// Whether a process has chosen to ignore SIGHUP (proc_pid_status(5)).
fn ignores_hangups(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (libc::SIGHUP - 1) != 0)
}

/// Sends a signal to the descendants of a process that were started after `since`; to itself when there are none.
pub(super) async fn signal(supervisor: &Inner, root: &Root, signal: Signal, since: Instant) {
    let new = search(supervisor, Search::below(root, since)).await.unwrap_or_default().members;
    new.iter().for_each(|member| member.signal(signal));
    if new.is_empty() {
        root.signal(signal);
    }
}

/// Sends SIGINT to a process and to the descendants that were started after `since`.
pub(super) async fn interrupt(supervisor: &Inner, root: &Root, since: Instant) {
    let new = search(supervisor, Search::below(root, since)).await.unwrap_or_default().members;
    // The descendants first: their parent may be waiting for them.
    new.iter().for_each(|member| member.signal(Signal::INT));
    root.signal(Signal::INT);
}

/// A moment as `/proc` tells when processes were started: in ticks since boot.
fn ticks(moment: Instant) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
    let since_boot = now.saturating_sub(moment.elapsed()).as_secs_f64();
    (since_boot * rustix::param::clock_ticks_per_second() as f64) as u64
}

/// Whether all of `members` ended before `deadline`.
async fn ended(supervisor: &Inner, members: Vec<Member>, deadline: Instant) -> bool {
    let all = async {
        for member in members {
            member.ended(supervisor.check_interval).await;
        }
    };
    tokio::time::timeout_at(deadline, all).await.is_ok()
}

/// Whom to look for.
#[derive(Debug, Clone)]
struct Search {
    root: Root,
    /// Not the root, and who was started before that moment, in ticks since boot.
    since: Option<u64>,
    /// Whoever is found is sent SIGSTOP at once.
    is_stopped: bool,
    /// Zombies that were seen: each was listed alive perhaps, and may have started another.
    dead: Arc<Mutex<HashSet<(i32, u64)>>>,
}

impl Search {
    /// For a process and its descendants.
    fn all(root: &Root) -> Self {
        Self { root: root.clone(), since: None, is_stopped: false, dead: Arc::default() }
    }

    /// For the descendants of a process that were started after a moment.
    fn below(root: &Root, since: Instant) -> Self {
        Self { since: Some(ticks(since)), ..Self::all(root) }
    }

    fn is_for(&self, pid: i32, row: &Row) -> bool {
        !row.is_dead
            && pid != rustix::process::getpid().as_raw_nonzero().get()
            && self.since.is_none_or(|since| row.started >= since && Some(pid) != self.root.live_pid())
    }

    /// Whether it is a zombie that was none yet.
    fn has_just_ended(&self, pid: i32, row: &Row) -> bool {
        row.is_dead && self.dead.lock().unwrap_or_else(PoisonError::into_inner).insert((pid, row.started))
    }

    /// Takes hold of who was seen.
    fn take(&self, pid: i32, row: Row, found: &mut Found) {
        match Member::open(pid, row) {
            Some(member) => {
                if self.is_stopped {
                    member.signal(Signal::STOP);
                }
                found.members.push(member);
            }
            None => self.miss(row, found),
        }
    }

    fn miss(&self, row: Row, found: &mut Found) {
        found.has_missed = true;
        if self.is_stopped {
            self.stop_group(row.group);
        }
    }

    /// Stops whoever has taken the place of a process that is gone already: a signal to a group also reaches those who
    /// are just being forked. Groups of a tree are its own, as its root began one.
    fn stop_group(&self, group: i32) {
        let is_roots =
            self.since.is_some() && Some(group) == self.root.pid.map(|pid| pid.as_raw_nonzero().get());
        let own = rustix::process::getpgrp();
        if let Some(group) =
            Pid::from_raw(group).filter(|group| !is_roots && *group != own && !group.is_init())
        {
            let _ = rustix::process::kill_process_group(group, Signal::STOP);
        }
    }
}

/// What a search found.
#[derive(Debug, Default)]
struct Found {
    /// Who is alive, each held in a way that no other process can be taken for it.
    members: Vec<Member>,
    /// Someone belonged to them who was gone a moment later, perhaps after starting another.
    has_missed: bool,
    /// Someone was gone before it was known whom he belonged to.
    has_lost: bool,
}

impl Found {
    fn is_nobody(&self) -> bool {
        self.members.is_empty() && !self.has_missed
    }
}

/// The live processes of a tree; none when there is no `/proc` to find them in.
async fn search(supervisor: &Inner, search: Search) -> Option<Found> {
    supervisor.files.run(move || look(&search)).await.ok().flatten()
}

/// Looks again while nobody is found and someone was lost: it may be the one who forks without end.
fn look(search: &Search) -> Option<Found> {
    let mut found = find(search)?;
    for _ in 1..LOOKS {
        if !found.is_nobody() || !found.has_lost {
            break;
        }
        found = find(search)?;
    }
    Some(found)
}

fn find(search: &Search) -> Option<Found> {
    let root = &search.root;
    let mut found = Found::default();
    let mut rows = HashMap::new();
    for pid in pids()? {
        let Some(row) = Row::read(pid) else {
            found.has_lost = true;
            continue;
        };
        let is_known = root.has_tagged(pid) || Some(pid) == root.live_pid();
        if is_known && search.is_for(pid, &row) {
            search.take(pid, row, &mut found); // at once, as it may be another one a moment later
        } else if is_known && search.has_just_ended(pid, &row) {
            search.miss(row, &mut found);
        }
        rows.insert(pid, (row, is_known));
    }
    // Who reset its limits is known by its parents. Bounded by the number of processes: pids may have been reused
    // while we read.
    let has_known_parent = |row: &Row| {
        let mut next = row.parent;
        (0..rows.len()).any(|_| {
            rows.get(&next).is_some_and(|(row, is_known)| {
                next = row.parent;
                *is_known
            })
        })
    };
    for (pid, (row, is_known)) in &rows {
        if !is_known && search.is_for(*pid, row) && has_known_parent(row) {
            search.take(*pid, *row, &mut found);
        }
    }
    if root.live_pid().is_none() {
        // Perhaps since a moment ago: then its pid and what hangs on it prove nothing any more.
        found.members.retain(|member| root.has_tagged(member.pid));
    }
    Some(found)
}

/// Of all processes, the newest first: those that may be gone soonest.
fn pids() -> Option<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    // proc_loadavg(5): its last word is the pid that was given last. They are given upwards, and then from the beginning.
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last: i32 = loads.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or(i32::MAX);
    pids.sort_unstable_by_key(|pid| last.wrapping_sub(*pid).cast_unsigned());
    Some(pids)
}

impl Root {
    fn live_pid(&self) -> Option<i32> {
        self.pid.filter(|_| !self.reaped.load(Ordering::Acquire)).map(|pid| pid.as_raw_nonzero().get())
    }

    /// Signals the root alone, if it has not been reaped.
    fn signal(&self, signal: Signal) {
        let handle = self.live_pid().and_then(Pid::from_raw).and_then(|pid| PidFd::open(pid).ok());
        // Looked at again: what the handle was opened for is the root as long as nobody has reaped that.
        if let Some(handle) = handle.filter(|_| self.live_pid().is_some()) {
            handle.signal(signal);
        }
    }

    pub(super) fn has_tagged(&self, pid: i32) -> bool {
        tag_of(pid).is_some_and(|tag| self.tag.covers(tag))
    }
}

/// What `/proc/<pid>/stat` says (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    parent: i32,
    /// The pid of who began its process group.
    group: i32,
    /// The pid of who began its session.
    session: i32,
    /// A zombie: it has ended and waits for its parent to ask.
    is_dead: bool,
    /// When it started, in ticks since boot: with the pid, this is one process and no other.
    started: u64,
}

impl Row {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let fields: Vec<&str> =
            std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace().collect();
        Some(Self {
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[expect(unsafe_code, reason = "prlimit(2) of another process, which rustix only sets")]
fn tag_of(pid: i32) -> Option<Tag> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result, and no new limit is given.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit) };
    (result == 0).then_some(Tag(limit.rlim_cur))
}

/// One process of a tree, held in a way that no other process can be taken for it.
#[derive(Debug)]
struct Member {
    pid: i32,
    row: Row,
    /// None on kernels before 5.3.
    handle: Option<PidFd>,
}

impl Member {
    fn open(pid: i32, row: Row) -> Option<Self> {
        let handle = match PidFd::open(Pid::from_raw(pid)?) {
            Ok(handle) => Some(handle),
            Err(rustix::io::Errno::SRCH) => return None,
            Err(_unsupported) => None,
        };
        // Looked at again after it was opened: the pid may have passed to another process in between.
        let member = Self { pid, row, handle };
        member.is_alive().then_some(member)
    }

    fn is_alive(&self) -> bool {
        Row::read(self.pid).is_some_and(|row| !row.is_dead && row.started == self.row.started)
    }

    fn signal(&self, signal: Signal) {
        match (&self.handle, Pid::from_raw(self.pid)) {
            (Some(handle), _) => handle.signal(signal),
            (None, Some(pid)) if self.is_alive() => drop(rustix::process::kill_process(pid, signal)),
            _ => {}
        }
    }

    async fn ended(mut self, check_interval: Duration) {
        if let Some(handle) = self.handle.take() {
            return handle.ended().await;
        }
        while self.is_alive() {
            tokio::time::sleep(check_interval).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemons_tag_covers_those_of_its_processes_and_no_others() {
        let daemon = Tag(0x4000_0001 << COUNTER_BITS);
        let (first, second) = (daemon.of_process(1), daemon.of_process(2));
        assert!(daemon.covers(first) && daemon.covers(second) && first.covers(first));
        assert!(!first.covers(second) && !first.covers(daemon));
        assert!(
            !daemon.covers(Tag(0x4000_0002 << COUNTER_BITS).of_process(1)) && !daemon.covers(Tag(u64::MAX))
        );
    }

    #[test]
    fn stat_lines_with_any_name_are_read() {
        let line = b"4242 (a) b) (c) Z 17 4242 4240 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 0 0";
        assert_eq!(
            Row::parse(line),
            Some(Row { parent: 17, group: 4242, session: 4240, is_dead: true, started: 987_654 })
        );
        assert_eq!(Row::parse(b""), None);
    }
}
