//! Pid 1: a separate, tiny process that reaps every orphan, forwards signals and runs the daemon as its child.
//!
//! The daemon itself never waits for processes that it did not start, so a wait-any loop can never steal the exit
//! status of one that it did. The split is made before any thread exists.
//!
//! ```text
//!   kernel -> init (pid 1) --fork--> daemon --> everything else
//!               | SIGCHLD: reap all; the daemon crashed: start it again
//!               | other signals: pass them on to the daemon
//!               | the daemon ended: exit with its status
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};

/// A daemon that crashes sooner than this after its start is not started again: it would only crash again.
const CRASH_LOOP: Duration = Duration::from_secs(1);

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Role {
    /// Pid 1, whose work is done: the program ends with this code.
    Init(ExitCode),
    /// The daemon, or the only process when it is not pid 1.
    Daemon,
}

/// As pid 1, becomes init and runs the daemon as a child; does nothing otherwise. Call before any thread exists.
pub fn split() -> Role {
    if getpid() != Pid::from_raw(1) {
        return Role::Daemon;
    }
    // Blocked, so that none is lost between two waits; the daemon gets the mask that we were started with.
    let all = SigSet::all();
    let mut before = SigSet::empty();
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before)).is_err() {
        return Role::Daemon;
    }
    loop {
        let started = Instant::now();
        let daemon = match fork_daemon() {
            Ok(ForkResult::Child) => {
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
                return Role::Daemon;
            }
            Ok(ForkResult::Parent { child }) => child,
            Err(error) => {
                report(&format!("cannot start the daemon: {error}"));
                return Role::Init(ExitCode::FAILURE);
            }
        };
        match attend(daemon, &all) {
            End::Exited(code) => return Role::Init(ExitCode::from(code)),
            End::Crashed(signal) if started.elapsed() < CRASH_LOOP => {
                report(&format!("the daemon crashed at its start ({signal})"));
                return Role::Init(ExitCode::from(128_u8.saturating_add(signal as u8)));
            }
            End::Crashed(signal) => report(&format!("the daemon crashed ({signal}); starting it again")),
        }
    }
}

#[expect(unsafe_code, reason = "fork")]
fn fork_daemon() -> nix::Result<ForkResult> {
    // SAFETY: no other thread exists yet, so the child may do anything that the parent could.
    unsafe { fork() }
}

enum End {
    Exited(u8),
    Crashed(Signal),
}

/// Reaps and forwards until the daemon has ended.
fn attend(daemon: Pid, signals: &SigSet) -> End {
    loop {
        let Ok(signal) = signals.wait() else { continue };
        if signal != Signal::SIGCHLD {
            let _ = kill(daemon, signal);
            continue;
        }
        let mut end = None;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == daemon => {
                    end = Some(End::Exited(u8::try_from(code).unwrap_or(u8::MAX)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == daemon => end = Some(End::Crashed(signal)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(end) = end {
            return end;
        }
    }
}

#[expect(clippy::print_stderr, reason = "init has no log: it must stay tiny")]
fn report(text: &str) {
    eprintln!("toolboxd init: {text}");
}

/// Wipes a variable's value from the memory that `/proc/<pid>/environ` and `ps e` show. Call before any thread exists
/// and after the value was read.
#[expect(unsafe_code, reason = "the kernel's copy of the environment can be changed in place only")]
pub fn hide_variable(name: &str) {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    let prefix = format!("{name}=");
    // SAFETY: no other thread exists, so nobody else reads or changes the environment. `environ` is null or an array
    // of pointers to C strings that ends with a null pointer; only bytes before a string's own end are written.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = libc::strlen(*entry);
            let bytes = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if let Some(value) = bytes.strip_prefix(prefix.as_bytes()).map(<[u8]>::len) {
                bytes[length - value..].fill(0);
            }
            entry = entry.add(1);
        }
    }
}
