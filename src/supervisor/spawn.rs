//! From the daemon to another program: what happens between clone and exec.
//!
//! The child uses our memory until it has become its program, and the thread that starts it stands still until then
//! (`CLONE_VM` and `CLONE_VFORK` of clone(2), as posix_spawn(3) does it). So nothing is copied, a start costs the same
//! however much memory the daemon has, and the child writes what went wrong where the thread can read it. `posix_spawn`
//! itself cannot set limits, users or terminals.
//!
//! For the same reason the child only makes plain system calls: it must not allocate, lock, or call what the C library
//! does for all threads of a process at once, such as `setuid`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::{Gid, Uid};

use super::command::Command;
use super::program;
use super::tree::Tag;
use crate::error::os_text;

/// Bytes of stack for what the child does before it is its program.
const STACK: usize = 64 * 1024;
/// What runs an executable file that is no binary and names no interpreter (execvp(3)).
const SHELL: &CStr = c"/bin/sh";
/// The largest signal number (signal(7)).
const LAST_SIGNAL: c_int = 64;

/// What becoming the program is called in errors.
const EXEC: &str = "fork/exec ";

/// A process that did not start.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {}", os_text(.source))]
pub struct StartError {
    /// What failed, and on what: `fork/exec /bin/bash`, `chdir /no/such`.
    pub(super) step: String,
    pub(super) source: io::Error,
}

impl StartError {
    /// Whether there is no such program, so that another one may be tried.
    pub fn is_missing_program(&self) -> bool {
        self.step.starts_with(EXEC) && self.source.kind() == io::ErrorKind::NotFound
    }
}

/// The standard descriptors of a child.
pub(super) struct Standard {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Whether standard input is the terminal of a session that the child leads; otherwise it leads a process group.
    pub(super) is_terminal: bool,
}

/// What every child of this daemon is given.
pub(super) struct Inherited<'a> {
    pub(super) environment: &'a BTreeMap<OsString, OsString>,
    /// Soft limit of descriptors.
    pub(super) descriptors: Option<u64>,
    pub(super) huge_pages: &'a HugePages,
}

/// Starts a program; by the time this returns it runs.
///
/// # Errors
/// When it cannot be started: the error says which step failed and why.
pub(super) fn spawn(
    command: &Command,
    standard: &Standard,
    inherited: &Inherited<'_>,
    tag: Tag,
) -> Result<Pid, StartError> {
    let mut child =
        Child::new(command, standard, inherited, tag).map_err(|source| Step::Exec.of(command, source))?;
    let _allowed = inherited.huge_pages.allow();
    let pid = child.start().map_err(|source| Step::Exec.of(command, source))?;
    match child.failure {
        None => Ok(pid),
        Some((step, errno)) => {
            let reap = || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let _ = rustix::io::retry_on_intr(reap);
            Err(step.of(command, errno.into()))
        }
    }
}

/// What a child can fail at.
#[derive(Debug, Clone, Copy)]
enum Step {
    Descriptors,
    Terminal,
    User,
    Directory,
    Exec,
}

impl Step {
    fn of(self, command: &Command, source: io::Error) -> StartError {
        let program = command.argv.first().map_or(Path::new(""), Path::new).display();
        let step = match (self, &command.cwd, &command.user) {
            (Self::Descriptors, ..) => format!("descriptors of {program}"),
            (Self::Terminal, ..) => format!("terminal of {program}"),
            (Self::User, _, Some(user)) => format!("become user {} for {program}", user.uid),
            (Self::Directory, Some(cwd), _) => format!("chdir {}", cwd.display()),
            (Self::User | Self::Directory | Self::Exec, ..) => format!("{EXEC}{program}"),
        };
        StartError { step, source }
    }
}

/// Everything the child needs, ready for system calls.
struct Child {
    /// The files to try, in this order.
    programs: Vec<CString>,
    argv: Strings,
    /// [`SHELL`], the program, and its arguments.
    script_argv: Vec<*const c_char>,
    environment: Strings,
    cwd: Option<CString>,
    standard: [RawFd; 3],
    is_terminal: bool,
    /// Number there, number here.
    descriptors: Vec<(RawFd, RawFd)>,
    user: Option<(Uid, Gid, Vec<Gid>)>,
    tag: Tag,
    descriptor_limit: Option<u64>,
    /// Written by the child when it cannot become its program.
    failure: Option<(Step, Errno)>,
}

/// Strings as execve(2) takes them: pointers, the last of them null.
struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = Vec<u8>>) -> io::Result<Self> {
        let owned = strings.map(c_string).collect::<io::Result<Vec<_>>>()?;
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _owned: owned })
    }
}

fn c_string(bytes: Vec<u8>) -> io::Result<CString> {
    CString::new(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an argument or variable has a NUL byte"))
}

impl Child {
    fn new(command: &Command, standard: &Standard, inherited: &Inherited<'_>, tag: Tag) -> io::Result<Self> {
        let mut variables: BTreeMap<&OsStr, &OsStr> =
            inherited.environment.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        variables.extend(command.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())));
        let name = command.argv.first().map(OsString::as_os_str).unwrap_or_default();
        let programs = program::candidates(name, variables.get(OsStr::new("PATH")).copied());
        let argv = Strings::new(command.argv.iter().map(|argument| argument.as_bytes().to_vec()))?;
        let mut script_argv = vec![SHELL.as_ptr(), std::ptr::null()];
        script_argv.extend(argv.pointers.iter().skip(1));
        let environment = Strings::new(
            variables.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()),
        )?;
        let cwd =
            command.cwd.as_ref().map(|cwd| c_string(cwd.as_os_str().as_bytes().to_vec())).transpose()?;
        Ok(Self {
            programs: programs
                .into_iter()
                .map(|path| c_string(path.into_os_string().into_vec()))
                .collect::<io::Result<_>>()?,
            argv,
            script_argv,
            environment,
            cwd,
            standard: [&standard.stdin, &standard.stdout, &standard.stderr].map(AsRawFd::as_raw_fd),
            is_terminal: standard.is_terminal,
            descriptors: command.descriptors.iter().map(|(there, here)| (*there, here.as_raw_fd())).collect(),
            user: command.user.as_ref().map(|user| {
                let groups = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
                (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
            }),
            tag,
            descriptor_limit: inherited.descriptors,
            failure: None,
        })
    }

    #[expect(unsafe_code, reason = "clone(2) of a process that shares our memory")]
    fn start(&mut self) -> io::Result<Pid> {
        let mut stack = Box::<[u8]>::new_uninit_slice(STACK);
        let top = stack.as_mut_ptr_range().end;
        // The child must not run our signal handlers: what they do, they would do to us. It lets signals in when it has
        // none.
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the sets are places for the results. The child runs `run` on a stack of its own, with `self`, which
        // lives until it has become its program or ended, as this thread does not go on before that.
        let pid = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            // Stacks are aligned to 16 bytes in the calling conventions of all our processors.
            let top = top.map_addr(|address| address & !15).cast::<c_void>();
            let pid = libc::clone(run, top, flags, (&raw mut *self).cast());
            let failed = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
            if pid < 0 {
                return Err(failed);
            }
            pid
        };
        Ok(Pid::from_raw(pid).expect("a child has a pid"))
    }

    /// The child's part.
    fn become_program(&mut self) -> Result<Infallible, (Step, Errno)> {
        self.tag.mark_self();
        close_others_on_exec();
        self.take_descriptors().map_err(|errno| (Step::Descriptors, errno))?;
        if self.is_terminal {
            self.lead_session().map_err(|errno| (Step::Terminal, errno))?;
        } else {
            let _ = rustix::process::setpgid(None, None);
        }
        if let Some(current) = self.descriptor_limit {
            let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
            let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
        }
        self.become_user().map_err(|errno| (Step::User, errno))?;
        if let Some(cwd) = &self.cwd {
            rustix::process::chdir(cwd.as_c_str()).map_err(|errno| (Step::Directory, errno))?;
        }
        let_signals_in();
        Err((Step::Exec, self.execute()))
    }

    #[expect(unsafe_code, reason = "descriptors by number")]
    fn take_descriptors(&mut self) -> Result<(), Errno> {
        for (there, here) in (0..).zip(self.standard) {
            take(here, there)?;
        }
        // Out of the way first: one's number here may be another's there.
        let above = self.descriptors.iter().map(|(there, _)| there + 1).max().unwrap_or_default();
        for (_, here) in &mut self.descriptors {
            // SAFETY: the command holds the descriptor, and the child has a copy.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*here) };
            *here = rustix::io::fcntl_dupfd_cloexec(descriptor, above)?.into_raw_fd();
        }
        self.descriptors.iter().try_for_each(|(there, here)| take(*here, *there))
    }

    fn lead_session(&self) -> Result<(), Errno> {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
    }

    /// These calls change the calling thread alone, which is all that the child has.
    fn become_user(&self) -> Result<(), Errno> {
        let Some((uid, gid, groups)) = &self.user else { return Ok(()) };
        rustix::thread::set_thread_groups(groups)?;
        rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
        rustix::thread::set_thread_res_uid(*uid, *uid, *uid)
    }

    /// As execvp(3): the error is that of a file that may not be run, if there is one, else of the last one tried.
    #[expect(unsafe_code, reason = "execve(2)")]
    fn execute(&mut self) -> Errno {
        let mut denied = None;
        for program in &self.programs {
            // SAFETY: all strings end with NUL, and all lists with a null pointer.
            let errno = unsafe {
                libc::execve(
                    program.as_ptr(),
                    self.argv.pointers.as_ptr(),
                    self.environment.pointers.as_ptr(),
                );
                last_errno()
            };
            match errno {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => denied = Some(errno),
                Errno::NOEXEC => {
                    self.script_argv[1] = program.as_ptr();
                    // SAFETY: as above.
                    unsafe {
                        let environment = self.environment.pointers.as_ptr();
                        libc::execve(SHELL.as_ptr(), self.script_argv.as_ptr(), environment);
                    }
                    return errno;
                }
                other => return other,
            }
        }
        denied.unwrap_or(Errno::NOENT)
    }
}

/// Where execution begins in the child.
#[expect(unsafe_code, reason = "called by clone(2) with what it was given")]
extern "C" fn run(child: *mut c_void) -> c_int {
    // SAFETY: `Child::start` passes a pointer to itself and waits.
    let child = unsafe { &mut *child.cast::<Child>() };
    let Err(failure) = child.become_program();
    child.failure = Some(failure);
    // SAFETY: ends the child, with nothing of ours run at exit.
    unsafe { libc::_exit(127) }
}

/// Descriptors that the daemon itself was given by whoever started it are not for its children. Kernels before 5.11
/// refuse; our own are closed on exec anyway.
#[expect(unsafe_code, reason = "close_range(2)")]
fn close_others_on_exec() {
    // SAFETY: closes nothing now.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

#[expect(unsafe_code, reason = "descriptors by number")]
fn take(here: RawFd, there: RawFd) -> Result<(), Errno> {
    // SAFETY: the numbers are the child's own: it has a copy of our table of descriptors.
    if unsafe { libc::dup2(here, there) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Whoever started the daemon may have had it ignore signals, as shells do for what they run with `&`.
#[expect(
    unsafe_code,
    reason = "rt_sigaction(2) and rt_sigprocmask(2), past the C library, which has locks for them"
)]
fn let_signals_in() {
    /// SIG_DFL, no flags, no mask, however the processor's ABI orders them.
    const DEFAULT: [u64; 4] = [0; 4];
    const NONE: [u64; 1] = [0];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: a valid action; SIGKILL and SIGSTOP are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), 0, size_of::<u64>()) };
    }
    // SAFETY: a valid set of signals.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, NONE.as_ptr(), 0, size_of::<u64>()) };
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Our allocator switches huge pages off for our process, and programs inherit that (prctl(2)): they are on while any
/// program starts.
#[derive(Debug, Default)]
pub(super) struct HugePages {
    starts: Mutex<usize>,
}

impl HugePages {
    fn allow(&self) -> impl Drop {
        self.count(|starts| *starts += 1);
        Allowed(self)
    }

    fn count(&self, change: impl FnOnce(&mut usize)) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *starts;
        change(&mut starts);
        if (before == 0) != (*starts == 0) {
            switch_huge_pages(*starts > 0);
        }
    }
}

struct Allowed<'a>(&'a HugePages);

impl Drop for Allowed<'_> {
    fn drop(&mut self) {
        self.0.count(|starts| *starts -= 1);
    }
}

#[expect(unsafe_code, reason = "prctl(2) of our own process")]
fn switch_huge_pages(on: bool) {
    // SAFETY: has no memory arguments.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(!on), 0, 0, 0) };
}
