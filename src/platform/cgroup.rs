//! Limits and use of the cgroup that the daemon is in: version 2 and version 1 (kernel: cgroup-v2.rst,
//! cgroup-v1/memory.rst).
//!
//! Limits may sit on any cgroup between ours and the root, as in Kubernetes, so the tightest one counts, with the use
//! of the cgroup that it is set on. Everything is optional: hosts without cgroups give nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// Memory of the cgroup with the tightest limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What may be used.
    pub limit: u64,
    /// What is used, page cache included.
    pub current: u64,
    /// All page cache.
    pub file: u64,
    /// The page cache that goes first when memory is needed.
    pub inactive_file: u64,
}

/// CPU of the cgroup with the tightest quota.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// CPUs that may be used at a time.
    pub limit: f64,
    /// CPU time used so far.
    pub used: Duration,
}

/// Memory limit and use; none without a limit.
pub fn memory() -> Option<Memory> {
    let two = levels("", "").filter_map(|group| {
        let limit = number(&group, "memory.max")?;
        let stat = text(&group, "memory.stat")?;
        Some(Memory {
            limit,
            current: number(&group, "memory.current")?,
            file: field(&stat, "file")?,
            inactive_file: field(&stat, "inactive_file")?,
        })
    });
    let one = levels("memory", "memory").filter_map(|group| {
        // "No limit" is the largest multiple of the page size that fits.
        let limit = number(&group, "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62)?;
        let stat = text(&group, "memory.stat")?;
        Some(Memory {
            limit,
            current: number(&group, "memory.usage_in_bytes")?,
            file: field(&stat, "total_cache")?,
            inactive_file: field(&stat, "total_inactive_file")?,
        })
    });
    two.chain(one).min_by_key(|memory| memory.limit)
}

/// CPU quota and use; none without a quota.
pub fn cpu() -> Option<Cpu> {
    let two = levels("", "").filter_map(|group| {
        let text_of_max = text(&group, "cpu.max")?;
        let (quota, period) = text_of_max.trim().split_once(' ')?;
        let used = field(&text(&group, "cpu.stat")?, "usage_usec")?;
        Some(Cpu {
            limit: ratio(quota.parse().ok()?, period.parse().ok()?)?,
            used: Duration::from_micros(used),
        })
    });
    let one = levels("cpu", "cpu").filter_map(|group| {
        // -1, which is not an unsigned number, is "no quota".
        let quota = number(&group, "cpu.cfs_quota_us")?;
        let period = number(&group, "cpu.cfs_period_us")?;
        let accounting = levels("cpuacct", "cpuacct").next()?;
        let used = number(&group, "cpuacct.usage").or_else(|| number(&accounting, "cpuacct.usage"))?;
        Some(Cpu { limit: ratio(quota, period)?, used: Duration::from_nanos(used) })
    });
    two.chain(one).min_by(|a, b| a.limit.total_cmp(&b.limit))
}

/// How many processes of our cgroup, and of those below and above it, the kernel has killed for want of memory.
pub fn memory_kills() -> u64 {
    let two = levels("", "").filter_map(|group| field(&text(&group, "memory.events")?, "oom_kill"));
    let one = levels("memory", "memory")
        .filter_map(|group| field(&text(&group, "memory.oom_control")?, "oom_kill"));
    two.chain(one).sum()
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// Our cgroup and those above it. `controller` is empty for version 2; `folder` is its directory below the mount.
fn levels(controller: &str, folder: &str) -> impl Iterator<Item = PathBuf> {
    let mut mount = Path::new(MOUNT).join(folder);
    if controller.is_empty() && !mount.join("cgroup.controllers").exists() {
        mount.push("unified"); // both versions side by side
    }
    let own =
        std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|lines| own_group(&lines, controller));
    let mut next = Some(mount.join(own.unwrap_or_default().trim_start_matches('/')));
    // In a container without a cgroup namespace the path is the host's, which is not mounted here.
    if next.as_ref().is_some_and(|group| !group.is_dir()) {
        next = Some(mount.clone());
    }
    std::iter::from_fn(move || {
        let group = next.take()?;
        next = group.parent().filter(|parent| parent.starts_with(&mount)).map(Path::to_owned);
        Some(group)
    })
}

/// The path in the line of `/proc/self/cgroup` that is about `controller`: `4:memory:/docker/ab12`, `0::/a`.
fn own_group(lines: &str, controller: &str) -> Option<String> {
    lines.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
    })
}

fn text(group: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(group.join(file)).ok()
}

/// A file that holds one number; `max` is none.
fn number(group: &Path, file: &str) -> Option<u64> {
    text(group, file)?.trim().parse().ok()
}

/// The number behind `name` in lines of names and numbers.
fn field(lines: &str, name: &str) -> Option<u64> {
    lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_name_our_group() {
        let lines = "12:cpu,cpuacct:/docker/ab\n4:memory:/docker/cd\n0::/docker/ef\n";
        assert_eq!(own_group(lines, "cpuacct").as_deref(), Some("/docker/ab"));
        assert_eq!(own_group(lines, "memory").as_deref(), Some("/docker/cd"));
        assert_eq!(own_group(lines, "").as_deref(), Some("/docker/ef"));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field("inactive_file 3\nfile 7\n", "file"), Some(7));
        assert_eq!(field("oom 1\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(field("file_mapped 3\n", "file"), None);
    }
}
