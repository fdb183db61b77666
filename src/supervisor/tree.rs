//! Ending every descendant of a process, also those that left its group, called `setsid`, or lost their parent.
//!
//! Each process that the supervisor starts gets a random number that all its descendants inherit and that shows in no
//! program's environment: the soft limit of `RLIMIT_LOCKS`, which the kernel has not enforced since 2.4.25 and still
//! copies on fork (setrlimit(2)). The daemon finds a tree by looking through `/proc` for that number (`search.rs`). A
//! cgroup for each command would say the same, but in most containers cgroups cannot be written, so this way has to work
//! anyway.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;
use tracing::warn;

use super::Inner;
use super::pidfd::PidFd;
use super::search::{Member, Search, tag_of};

/// Time for processes to be gone after SIGKILL, before the daemon gives up on them: one may hang in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The number that a process's descendants inherit: the daemon's random part above the process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(pub(super) u64);

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
    pub(super) fn covers(self, other: Self) -> bool {
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

impl Root {
    /// Its pid, as long as that is no other process's.
    pub(super) fn live_pid(&self) -> Option<i32> {
        self.pid.filter(|_| !self.reaped.load(Ordering::Acquire)).map(|pid| pid.as_raw_nonzero().get())
    }

    /// Whether a process is one of the tree, by the number that it has inherited.
    pub(super) fn has_tagged(&self, pid: i32) -> bool {
        tag_of(pid).is_some_and(|tag| self.tag.covers(tag))
    }

    /// Signals the root alone, if it has not been reaped.
    fn signal(&self, signal: Signal) {
        let handle = self.live_pid().and_then(Pid::from_raw).and_then(|pid| PidFd::open(pid).ok());
        // Looked at again: what the handle was opened for is the root as long as nobody has reaped that.
        if let Some(handle) = handle.filter(|_| self.live_pid().is_some()) {
            handle.signal(signal);
        }
    }
}

/// Ends a tree: SIGTERM to every process of it, `grace` for them to end, then SIGKILL until none is left.
pub(super) async fn stop(supervisor: &Inner, root: &Root, grace: Duration) {
    let deadline = Instant::now() + grace;
    let mut told = HashSet::new();
    while let Some(alive) = look(supervisor, Search::all(root)).await {
        if alive.is_empty() {
            return;
        }
        for member in alive.iter().filter(|member| told.insert(member.pid())) {
            member.signal(Signal::TERM);
            member.signal(Signal::CONT); // a stopped process cannot end
        }
        if !ended(supervisor, alive, deadline).await || Instant::now() >= deadline {
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

async fn kill_those(supervisor: &Inner, search: Search) {
    let deadline = Instant::now() + KILL_LIMIT;
    while Instant::now() < deadline {
        let frozen = search.clone();
        let frozen = supervisor.files.run(move || frozen.freeze(deadline.into_std())).await;
        let Some(frozen) = frozen.ok().flatten() else { return };
        frozen.members.iter().for_each(|member| member.signal(Signal::KILL));
        frozen.thaw();
        if frozen.members.is_empty() {
            return;
        }
        if !ended(supervisor, frozen.members, deadline).await {
            break;
        }
    }
    warn!(pid = ?search.root.pid, "processes survive SIGKILL");
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
        for member in staying.iter().chain(&going).filter(|member| told.insert(member.pid())) {
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
    let members = Search::all(root).look().unwrap_or_default();
    let members = members.into_iter().filter(|member| Some(member.session()) == leader);
    members.partition(|member| ignores_hangups(member.pid()))
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
    let new = glance(supervisor, Search::below(root, since)).await;
    new.iter().for_each(|member| member.signal(signal));
    if new.is_empty() {
        root.signal(signal);
    }
}

/// Sends SIGINT to a process and to the descendants that were started after `since`.
pub(super) async fn interrupt(supervisor: &Inner, root: &Root, since: Instant) {
    let new = glance(supervisor, Search::below(root, since)).await;
    // The descendants first: their parent may be waiting for them.
    new.iter().for_each(|member| member.signal(Signal::INT));
    root.signal(Signal::INT);
}

async fn glance(supervisor: &Inner, search: Search) -> Vec<Member> {
    supervisor.files.run(move || search.glance()).await.ok().flatten().unwrap_or_default()
}

async fn look(supervisor: &Inner, search: Search) -> Option<Vec<Member>> {
    supervisor.files.run(move || search.look()).await.ok().flatten()
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
}
