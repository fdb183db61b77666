//! System V shared memory (shmget(2)), which outlives its maker: a machine has room for 4096 segments, and those that
//! nobody removed are there for ever.

use std::fs;
use std::io;

/// Has the segments that process `pid` made, and that somebody still uses, removed when nobody does any more, however
/// that comes. For whoever uses them nothing changes. Blocks.
///
/// # Errors
/// When the kernel does not list them, as without `/proc`.
pub fn remove_after_use(pid: u32) -> io::Result<()> {
    remove(pid, |segment| segment.users > 0)
}

/// Removes what process `pid` made and left, now that it has ended. Blocks.
///
/// # Errors
/// When the kernel does not list them, as without `/proc`.
pub fn remove_left_by(pid: u32) -> io::Result<()> {
    remove(pid, |_| true)
}

fn remove(pid: u32, which: impl Fn(&Segment) -> bool) -> io::Result<()> {
    let table = fs::read_to_string("/proc/sysvipc/shm")?;
    let segments = table.lines().filter_map(Segment::parse);
    segments.filter(|segment| segment.maker == pid && which(segment)).for_each(|segment| {
        #[expect(unsafe_code, reason = "shmctl(2)")]
        // SAFETY: this command reads and writes no memory of ours. It fails for what others may have removed meanwhile.
        unsafe {
            libc::shmctl(segment.id, libc::IPC_RMID, std::ptr::null_mut());
        }
    });
    Ok(())
}

/// A line of the kernel's table (proc_sysvipc_shm(5)).
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    id: i32,
    /// Process that made it.
    maker: u32,
    /// How often it is attached.
    users: u64,
}

impl Segment {
    /// None for the heading.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let id = fields.next()?.parse().ok()?;
        let maker = fields.nth(2)?.parse().ok()?;
        let users = fields.nth(1)?.parse().ok()?;
        Some(Self { id, maker, users })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      \
                     atime      dtime      ctime                   rss                  swap\n         0     \
                     496955   600                163840  8567  8560      1     0     0     0     0 1795702394 \
                     1795702395 1795702394                163840                     0\n";
        let segments: Vec<_> = table.lines().filter_map(Segment::parse).collect();
        assert_eq!(segments, [Segment { id: 496_955, maker: 8567, users: 1 }]);
    }
}
