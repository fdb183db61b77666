//! Use of CPU, memory and disk, measured when somebody asks and at no other time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::platform::cgroup;

/// Shortest time that CPU use is averaged over: the kernel counts in ticks of up to 10 ms.
const WINDOW: Duration = Duration::from_millis(100);

/// One measurement; bytes where the name does not say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metrics {
    /// CPUs that may be used at a time.
    pub cpus: f64,
    /// Percentage of those used since the last sample.
    pub cpu_percent: f64,
    /// Memory that may be used.
    pub memory_total: u64,
    /// Memory used, without the page cache that goes first.
    pub memory_used: u64,
    /// Page cache.
    pub memory_cache: u64,
    /// Size of the file system of `/`.
    pub disk_total: u64,
    /// Used of it.
    pub disk_used: u64,
    /// Free of it for this user.
    pub disk_free: u64,
}

/// Remembers the last CPU sample, so that the next one has something to compare with.
#[derive(Debug, Default)]
pub struct Sampler {
    last: Mutex<Option<CpuSample>>,
}

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    at: Instant,
    used: Duration,
    percent: f64,
}

impl Sampler {
    /// Measures now. Blocks for a few file reads.
    pub fn sample(&self) -> Metrics {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let (cpus, used) = match cgroup::cpu() {
            Some(cpu) => (cpu.limit.min(cores), cpu.used),
            None => (cores, machine_cpu().unwrap_or_default()),
        };
        let machine = machine_memory().unwrap_or_default();
        let memory = match cgroup::memory().filter(|memory| memory.limit < machine.total) {
            Some(group) => MachineMemory {
                total: group.limit,
                used: group.current.saturating_sub(group.inactive_file),
                cache: group.file,
            },
            None => machine,
        };
        let disk = rustix::fs::statvfs("/").ok();
        let blocks =
            |count: fn(&rustix::fs::StatVfs) -> u64| disk.as_ref().map_or(0, |fs| count(fs) * fs.f_frsize);
        Metrics {
            cpus,
            cpu_percent: self.percent(Instant::now(), used, cpus),
            memory_total: memory.total,
            memory_used: memory.used,
            memory_cache: memory.cache,
            disk_total: blocks(|fs| fs.f_blocks),
            disk_used: blocks(|fs| fs.f_blocks.saturating_sub(fs.f_bfree)),
            disk_free: blocks(|fs| fs.f_bavail),
        }
    }

    fn percent(&self, at: Instant, used: Duration, cpus: f64) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let percent = match *last {
            None => 0.0,
            Some(before) if at.duration_since(before.at) < WINDOW => return before.percent,
            Some(before) => {
                let busy = used.saturating_sub(before.used).as_secs_f64();
                (busy / (at.duration_since(before.at).as_secs_f64() * cpus) * 100.0).clamp(0.0, 100.0)
            }
        };
        *last = Some(CpuSample { at, used, percent });
        percent
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MachineMemory {
    total: u64,
    used: u64,
    cache: u64,
}

fn machine_memory() -> Option<MachineMemory> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<MachineMemory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let total = bytes("MemTotal")?;
    Some(MachineMemory { total, used: total.saturating_sub(bytes("MemAvailable")?), cache: bytes("Cached")? })
}

/// CPU time that the machine was busy, from the first line of `/proc/stat` in ticks.
fn machine_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user time.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum();
    Some(Duration::from_secs_f64(busy as f64 / rustix::param::clock_ticks_per_second() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_zero_at_first_and_then_a_share_of_the_limit() {
        let sampler = Sampler::default();
        let start = Instant::now();
        assert_eq!(sampler.percent(start, Duration::from_secs(10), 2.0), 0.0);
        let second = start + Duration::from_secs(1);
        assert_eq!(sampler.percent(second, Duration::from_secs(11), 2.0), 50.0);
        // Too soon after the last one: its answer still stands.
        assert_eq!(sampler.percent(second + Duration::from_millis(10), Duration::from_secs(99), 2.0), 50.0);
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:     400 kB\nBuffers: 1 kB\nCached:   50 kB\n";
        let expected = MachineMemory { total: 1_024_000, used: 614_400, cache: 51_200 };
        assert_eq!(parse_meminfo(text), Some(expected));
    }
}
