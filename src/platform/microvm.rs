//! What an init system does in a machine that has no other: the kernel of a microVM starts the daemon as pid 1, and
//! nothing but the root file system is there.
//!
//! ```text
//!   kernel -> mount what is missing, loopback up -> init.rs -> the daemon ended: sync, reboot(2)
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Access, access, stat, sync};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

/// A file system that programs take for granted.
struct Mount {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    options: &'static str,
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In an order in which each is there before what is below it.
const MOUNTS: &[Mount] = &[
    Mount { target: "/proc", kind: "proc", flags: SAFE.union(MountFlags::NOEXEC), options: "" },
    Mount { target: "/sys", kind: "sysfs", flags: SAFE.union(MountFlags::NOEXEC), options: "" },
    Mount { target: "/sys/fs/cgroup", kind: "cgroup2", flags: SAFE, options: "" },
    Mount { target: "/dev", kind: "devtmpfs", flags: MountFlags::NOSUID, options: "mode=755" },
    Mount { target: "/dev/pts", kind: "devpts", flags: MountFlags::NOSUID, options: "mode=620,ptmxmode=666" },
    Mount { target: "/dev/shm", kind: "tmpfs", flags: SAFE, options: "mode=1777" },
    Mount { target: "/run", kind: "tmpfs", flags: SAFE, options: "mode=755" },
];

/// Makes the machine one that programs can run in; says on standard error what could not be had and goes on.
pub fn set_up() {
    for wanted in MOUNTS {
        if !is_mounted(Path::new(wanted.target)) {
            tell(wanted.target, mount_at(wanted));
        }
    }
    // On a root that can be written, `/tmp` is the image's own.
    if access("/tmp", Access::WRITE_OK).is_err() {
        let temporary = Mount { target: "/tmp", kind: "tmpfs", flags: SAFE, options: "mode=1777" };
        tell(temporary.target, mount_at(&temporary));
    }
    tell("lo", loopback_up());
}

/// Whether another file system begins there.
fn is_mounted(target: &Path) -> bool {
    let device = |path: &Path| stat(path).map(|stat| stat.st_dev);
    let parent = target.parent().unwrap_or(target);
    matches!((device(target), device(parent)), (Ok(target), Ok(parent)) if target != parent)
}

fn mount_at(wanted: &Mount) -> io::Result<()> {
    // On a read-only root the directory has to be there.
    let _ = std::fs::create_dir(Path::new(wanted.target));
    let options = std::ffi::CString::new(wanted.options)?;
    Ok(mount(wanted.kind, wanted.target, wanted.kind, wanted.flags, options.as_c_str())?)
}

/// Programs expect 127.0.0.1 to work; the kernel leaves the interface down (netdevice(7)).
#[expect(unsafe_code, reason = "ioctl(2) of a network interface")]
fn loopback_up() -> io::Result<()> {
    // Any socket will do, and one that is bound to nothing needs no interface.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zeros is a valid request.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
    // SAFETY: both requests take an `ifreq` that outlives the call; reading flags fills in the field that is changed.
    let done = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) == 0 && {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) == 0
        }
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(clippy::print_stderr, reason = "before the log")]
fn tell(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("toolboxd: {what} is not there and cannot be had: {error}");
    }
}

/// Ends the machine; returns only where that is not allowed. A restart is what ends a Firecracker microVM; its kernels
/// know no power to switch off.
pub fn end() {
    sync();
    let _ = reboot(RebootCommand::Restart);
}
