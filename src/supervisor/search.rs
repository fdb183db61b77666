//! Finding the processes of a tree in `/proc`: by the number that they inherit, or as children of who has it, in case a
//! privileged program reset its limits.
//!
//! A process may be gone by the time it is looked at, and one that forks without end is another one at every look. So
//! the newest are looked at first, whoever is seen is taken hold of (and stopped) at once, and a look is followed by
//! another as long as it was not sure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::pidfd::PidFd;
use super::tree::{Root, Tag};

/// Most looks, one after the other, that find nobody new and are not sure.
const LOOKS: u32 = 32;

/// Whom to look for.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) root: Root,
    /// Not the root, and who was started since then, in ticks since boot.
    since: Option<u64>,
}

/// Processes that are stopped.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) members: Vec<Member>,
    /// Process groups in which others may have been stopped too.
    groups: HashSet<Pid>,
}

impl Search {
    /// For a process and its descendants.
    pub(super) fn all(root: &Root) -> Self {
        Self { root: root.clone(), since: None }
    }

    /// For the descendants of a process that were started after a moment.
    pub(super) fn below(root: &Root, since: tokio::time::Instant) -> Self {
        Self { since: Some(ticks(since.into_std())), ..Self::all(root) }
    }

    /// The live processes that one look finds: for signals that are there to be sent at once, and can be sent again.
    pub(super) fn glance(&self) -> Option<Vec<Member>> {
        Looks::new(self, false).next()
    }

    /// The live processes; none when there is no `/proc` to find them in.
    pub(super) fn look(&self) -> Option<Vec<Member>> {
        let mut looks = Looks::new(self, false);
        loop {
            let members = looks.next()?;
            if !members.is_empty() || looks.are_over() {
                return Some(members);
            }
        }
    }

    /// Stops them: a process that forks without end outruns a search, and one that is stopped does not. None when there
    /// is no `/proc`.
    pub(super) fn freeze(&self, deadline: Instant) -> Option<Frozen> {
        let mut looks = Looks::new(self, true);
        loop {
            let members = looks.next()?;
            if looks.are_over() || Instant::now() >= deadline {
                return Some(Frozen { members, groups: looks.groups });
            }
        }
    }

    fn is_for(&self, pid: i32, row: &Row) -> bool {
        pid != rustix::process::getpid().as_raw_nonzero().get()
            && self.since.is_none_or(|since| row.started >= since && Some(pid) != self.root.live_pid())
    }
}

impl Frozen {
    /// Lets those go on who were stopped for being in the same group as one of them.
    pub(super) fn thaw(&self) {
        for group in &self.groups {
            let _ = kill_process_group(*group, Signal::CONT);
        }
    }
}

/// Looks at all processes, one after the other.
struct Looks<'a> {
    search: &'a Search,
    /// Whoever is seen is sent SIGSTOP.
    is_freezing: bool,
    /// Who was seen, alive or as a zombie: pid and start.
    seen: HashSet<(i32, u64)>,
    /// Who was stopped as a group.
    groups: HashSet<Pid>,
    /// So many looks found nobody new.
    in_vain: u32,
    /// The last one may have passed someone over, who was gone already and may have started another.
    is_unsure: bool,
}

impl<'a> Looks<'a> {
    fn new(search: &'a Search, is_freezing: bool) -> Self {
        let (seen, groups) = (HashSet::new(), HashSet::new());
        Self { search, is_freezing, seen, groups, in_vain: 0, is_unsure: false }
    }

    /// Nobody new can be expected.
    fn are_over(&self) -> bool {
        self.in_vain > 0 && !self.is_unsure || self.in_vain >= LOOKS
    }

    /// Who is alive now.
    fn next(&mut self) -> Option<Vec<Member>> {
        let root = &self.search.root;
        let before = self.seen.len();
        self.is_unsure = false;
        let mut members = Vec::new();
        let mut rows = HashMap::new();
        for pid in pids()? {
            let (Some(row), Some(tag)) = (Row::read(pid), tag_of(pid)) else {
                self.is_unsure = true;
                continue;
            };
            let is_known = root.tag.covers(tag) || Some(pid) == root.live_pid();
            if is_known {
                members.extend(self.take(pid, row)); // at once: it may be another one a moment later
            }
            rows.insert(pid, (row, is_known));
        }
        // Bounded by the number of processes: pids may have been reused while we read.
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
            if !is_known && has_known_parent(row) {
                members.extend(self.take(*pid, *row));
            }
        }
        if root.live_pid().is_none() {
            // Perhaps since a moment ago: then its pid and what hangs on it prove nothing any more.
            members.retain(|member| root.has_tagged(member.pid));
        }
        self.in_vain = if self.seen.len() > before { 0 } else { self.in_vain + 1 };
        Some(members)
    }

    /// Takes hold of a process of the tree, if it is one that is looked for.
    fn take(&mut self, pid: i32, row: Row) -> Option<Member> {
        if !self.search.is_for(pid, &row) {
            return None;
        }
        let is_new = self.seen.insert((pid, row.started));
        let member = Member::open(pid, row); // none for a zombie
        match &member {
            Some(member) if self.is_freezing => member.signal(Signal::STOP),
            None if is_new => {
                self.is_unsure = true;
                self.stop_group(row.group);
            }
            _ => {}
        }
        member
    }

    /// Stops whoever has taken the place of a process that is gone already: a signal to a group also reaches those who
    /// are just being forked. Groups of a tree are its own, as its root began one.
    fn stop_group(&mut self, group: i32) {
        let search = self.search;
        // Who was there before is not meant.
        let is_older = || {
            Row::read(group).is_some_and(|leader| search.since.is_some_and(|since| leader.started < since))
        };
        let own = rustix::process::getpgrp();
        if let Some(group) = Pid::from_raw(group).filter(|group| *group != own && !group.is_init())
            && self.is_freezing
            && !is_older()
            && kill_process_group(group, Signal::STOP).is_ok()
        {
            self.groups.insert(group);
        }
    }
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

/// The number that a process has inherited, or that of no tree when it is another user's; none when it is gone.
#[expect(unsafe_code, reason = "prlimit(2) of another process, which rustix only sets")]
pub(super) fn tag_of(pid: i32) -> Option<Tag> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result, and no new limit is given.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit) };
    let is_gone =
        result != 0 && std::io::Error::last_os_error().raw_os_error() == Some(Errno::SRCH.raw_os_error());
    (!is_gone).then_some(Tag(limit.rlim_cur))
}

/// A moment as `/proc` tells when processes were started: in ticks since boot.
fn ticks(moment: Instant) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
    let since_boot = now.saturating_sub(moment.elapsed()).as_secs_f64();
    (since_boot * rustix::param::clock_ticks_per_second() as f64) as u64
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

/// One process of a tree, held in a way that no other process can be taken for it.
#[derive(Debug)]
pub(super) struct Member {
    pid: i32,
    row: Row,
    /// None on kernels before 5.3.
    handle: Option<PidFd>,
}

impl Member {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// The pid of who began its session.
    pub(super) fn session(&self) -> i32 {
        self.row.session
    }

    fn open(pid: i32, row: Row) -> Option<Self> {
        let handle = match PidFd::open(Pid::from_raw(pid)?) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => return None,
            Err(_unsupported) => None,
        };
        // Looked at again after it was opened: the pid may have passed to another process in between.
        let member = Self { pid, row, handle };
        member.is_alive().then_some(member)
    }

    fn is_alive(&self) -> bool {
        Row::read(self.pid).is_some_and(|row| !row.is_dead && row.started == self.row.started)
    }

    pub(super) fn signal(&self, signal: Signal) {
        match (&self.handle, Pid::from_raw(self.pid)) {
            (Some(handle), _) => handle.signal(signal),
            (None, Some(pid)) if self.is_alive() => drop(rustix::process::kill_process(pid, signal)),
            _ => {}
        }
    }

    pub(super) async fn ended(mut self, check_interval: Duration) {
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
    fn stat_lines_with_any_name_are_read() {
        let line = b"4242 (a) b) (c) Z 17 4242 4240 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 0 0";
        assert_eq!(
            Row::parse(line),
            Some(Row { parent: 17, group: 4242, session: 4240, is_dead: true, started: 987_654 })
        );
        assert_eq!(Row::parse(b""), None);
    }
}
