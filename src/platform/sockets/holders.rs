//! Which process holds a socket: its link among the descriptors in `/proc` (proc(5)).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// Longest command line that is told, in bytes.
const COMMAND_BYTES: usize = 4096;

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub name: String,
    /// Its arguments with spaces between.
    pub command: String,
}

/// The processes that hold the sockets with these inodes, the one with the lowest id for each: where several do, they
/// are its children. Those of other users are found by root only. Blocks: it looks at every descriptor of the machine.
pub fn holders(inodes: &HashSet<u64>) -> HashMap<u64, Holder> {
    let mut found: HashMap<u64, u32> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for inode in descriptors.filter_map(|descriptor| socket(&fs::read_link(descriptor.path()).ok()?)) {
            if inodes.contains(&inode) {
                found.entry(inode).and_modify(|lowest| *lowest = pid.min(*lowest)).or_insert(pid);
            }
        }
    }
    found.into_iter().filter_map(|(inode, pid)| Some((inode, describe(pid)?))).collect()
}

/// The inode in a link like `socket:[12345]`.
fn socket(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// None when it has ended since.
fn describe(pid: u32) -> Option<Holder> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let mut command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    command.truncate(COMMAND_BYTES);
    let command = command.strip_suffix(&[0]).unwrap_or(&command);
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Some(Holder { pid, name: String::from_utf8_lossy(&name).trim_end().to_owned(), command: words.join(" ") })
}
