//! Memory that the X server writes pictures to (MIT-SHM).
//!
//! The descriptor of a memory file goes over the socket (MIT-SHM 1.2); a server that does not take one gets a System V
//! segment. One segment is kept for a connection, as large as the largest picture so far: attaching costs more than the
//! picture.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use x11rb::connection::Connection as _;
use x11rb::protocol::{shm, xproto};

use super::{Failure, Wire};

/// Memory shared with the server of one connection.
#[derive(Debug)]
pub(super) struct Segment {
    id: shm::Seg,
    memory: NonNull<u8>,
    size: NonZeroUsize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    SystemV,
}

#[expect(unsafe_code, reason = "memory that belongs to one value may move between threads with it")]
// SAFETY: the mapping is this value's alone, and is valid in every thread of the process.
unsafe impl Send for Segment {}

impl Segment {
    /// Memory of `size` bytes or more, attached on the server.
    pub(super) fn attach(wire: &Wire, size: usize) -> Result<Self, Failure> {
        // Whole megabytes, so that a picture that is a little larger needs no other segment.
        let size = NonZeroUsize::new(size.next_multiple_of(1 << 20)).unwrap_or(NonZeroUsize::MIN);
        match Self::of_file(wire, size) {
            Err(Failure::Refused(_)) => Self::of_system_v(wire, size),
            done => done,
        }
    }

    #[expect(unsafe_code, reason = "maps memory")]
    fn of_file(wire: &Wire, size: NonZeroUsize) -> Result<Self, Failure> {
        let refused = |error: rustix::io::Errno| Failure::Refused(format!("shared memory: {error}"));
        let file = memfd_create("toolboxd-screen", MemfdFlags::CLOEXEC).map_err(refused)?;
        ftruncate(&file, size.get() as u64).map_err(refused)?;
        // SAFETY: the kernel chooses a free address, and the file is as long as the mapping and stays so.
        let memory = unsafe {
            mmap(null_mut(), size.get(), ProtFlags::READ, MapFlags::SHARED, file.as_fd(), 0)
                .map_err(refused)?
        };
        let memory = NonNull::new(memory.cast()).ok_or_else(|| refused(rustix::io::Errno::NOMEM))?;
        let id = wire.x.generate_id()?;
        let segment = Self { id, memory, size, kind: Kind::File };
        wire.check(shm::attach_fd(&wire.x, id, file, false)?)?;
        Ok(segment)
    }

    #[expect(unsafe_code, reason = "maps memory; no library has System V segments")]
    fn of_system_v(wire: &Wire, size: NonZeroUsize) -> Result<Self, Failure> {
        let refused = || Failure::Refused(format!("shared memory: {}", std::io::Error::last_os_error()));
        // SAFETY: makes a new segment; no memory of ours is involved.
        let handle = unsafe { libc::shmget(libc::IPC_PRIVATE, size.get(), libc::IPC_CREAT | 0o600) };
        if handle < 0 {
            return Err(refused());
        }
        // SAFETY: the kernel chooses a free address.
        let memory = unsafe { libc::shmat(handle, std::ptr::null(), 0) };
        let attached = if memory.addr() == usize::MAX { Err(refused()) } else { Ok(memory) };
        let attached = attached.and_then(|memory| {
            let memory = NonNull::new(memory.cast()).ok_or_else(refused)?;
            let id = wire.x.generate_id()?;
            let segment = Self { id, memory, size, kind: Kind::SystemV };
            wire.check(shm::attach(&wire.x, id, u32::try_from(handle).unwrap_or(0), false)?)?;
            Ok(segment)
        });
        // SAFETY: marks the segment, so that it goes with the last process that has it attached.
        unsafe { libc::shmctl(handle, libc::IPC_RMID, null_mut()) };
        attached
    }

    pub(super) fn size(&self) -> usize {
        self.size.get()
    }

    /// Has the server write a part of a window, and gives its `length` bytes. The part lies inside of the window, and
    /// its bytes fit.
    #[expect(unsafe_code, reason = "reads memory that another process has written")]
    pub(super) fn picture(
        &mut self,
        wire: &Wire,
        (x, y, width, height): (i16, i16, u16, u16),
        length: usize,
    ) -> Result<&[u8], Failure> {
        assert!(length <= self.size());
        let format = xproto::ImageFormat::Z_PIXMAP.into();
        shm::get_image(&wire.x, wire.root, x, y, width, height, !0, format, self.id, 0)?.reply()?;
        // SAFETY: the memory is mapped for as long as we are borrowed, and is at least `length` long. The server writes
        // it only while it answers a request like the one above; whoever makes one has to borrow us mutably.
        Ok(unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), length) })
    }

    /// Gives the server's side up; ours goes with the value.
    pub(super) fn detach(self, wire: &Wire) -> Result<(), Failure> {
        shm::detach(&wire.x, self.id)?;
        Ok(())
    }
}

impl Drop for Segment {
    #[expect(unsafe_code, reason = "unmaps memory")]
    fn drop(&mut self) {
        match self.kind {
            // SAFETY: the mapping was made with this size, and nothing borrows it any more.
            Kind::File => drop(unsafe { munmap(self.memory.as_ptr().cast(), self.size.get()) }),
            // SAFETY: the address is that of an attached segment, and nothing borrows it any more.
            Kind::SystemV => drop(unsafe { libc::shmdt(self.memory.as_ptr().cast()) }),
        }
    }
}
