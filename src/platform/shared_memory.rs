//! System V shared memory (shmget(2)), which outlives its maker: a machine has room for 4096 segments, and those that
//! nobody removed are there for ever.

use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

/// The segments that a process makes.
#[derive(Debug, Clone, Copy)]
pub struct SharedMemory {
    maker: u32,
    /// In seconds since 1970. Another process had the maker's pid before, and what that one made is not meant.
    since: u64,
}

impl SharedMemory {
    /// Of process `pid`, which was started at that time or after.
    pub fn of(pid: u32, since: SystemTime) -> Self {
        Self { maker: pid, since: since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() }
    }

    /// Has what is in use now removed when nobody uses it any more, however that comes. For whoever uses it nothing
    /// changes. Blocks.
    ///
    /// # Errors
    /// When the kernel does not list segments, as without `/proc`.
    pub fn remove_after_use(self) -> io::Result<()> {
        self.remove(|segment| segment.users > 0)
    }

    /// Removes what is left, now that the process has ended. Blocks.
    ///
    /// # Errors
    /// When the kernel does not list segments, as without `/proc`.
    pub fn remove_left(self) -> io::Result<()> {
        self.remove(|_| true)
    }

    fn remove(self, which: impl Fn(&Segment) -> bool) -> io::Result<()> {
        let table = fs::read_to_string("/proc/sysvipc/shm")?;
        let segments = table.lines().filter_map(Segment::parse);
        segments.filter(|segment| self.covers(segment) && which(segment)).for_each(|segment| {
            #[expect(unsafe_code, reason = "shmctl(2)")]
            // SAFETY: this command reads and writes no memory of ours. It fails for what others have removed meanwhile.
            unsafe {
                libc::shmctl(segment.id, libc::IPC_RMID, std::ptr::null_mut());
            }
        });
        Ok(())
    }

    fn covers(self, segment: &Segment) -> bool {
        segment.maker == self.maker && segment.made >= self.since
    }
}

/// A line of the kernel's table (proc_sysvipc_shm(5)).
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    id: i32,
    /// Process that made it.
    maker: u32,
    /// How often it is attached.
    users: u64,
    /// When it was made, in seconds since 1970.
    made: u64,
}

impl Segment {
    /// None for the heading.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let id = fields.next()?.parse().ok()?;
        let maker = fields.nth(2)?.parse().ok()?;
        let users = fields.nth(1)?.parse().ok()?;
        let made = fields.nth(6)?.parse().ok()?;
        Some(Self { id, maker, users, made })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      \
                     atime      dtime      ctime                   rss                  swap\n         0     \
                     496955   600                163840  8567  8560      1     0     0     0     0 1795702394 \
                     1795702395 1795702390                163840                     0\n";
        let segments: Vec<_> = table.lines().filter_map(Segment::parse).collect();
        let made = 1_795_702_390;
        assert_eq!(segments, [Segment { id: 496_955, maker: 8567, users: 1, made }]);
        let memory = |pid, seconds| SharedMemory::of(pid, UNIX_EPOCH + Duration::from_secs(seconds));
        assert!(memory(8567, made).covers(&segments[0]));
        assert!(!memory(8568, made).covers(&segments[0]));
        assert!(!memory(8567, made + 1).covers(&segments[0]), "the pid was another process's then");
    }
}
