//! Pseudo-terminals (pty(7)) and the programs on them.
//!
//! ```text
//!   clients ---Input---> writer ---> master | slave <---> shell and its jobs
//!   clients <---Viewer--- log <--- pump <---|
//! ```
//!
//! The daemon keeps a slave open for as long as the program runs, so that the master never tells an end while the
//! program has closed its own and may open them again. The pump owns the master: after the program's end it reads what
//! is left, then closes the master, which hangs up whoever still has the terminal open.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::audience::{Audience, Viewer};
use super::command::Command;
use super::output::{OutputLog, Stream};
use super::process::{Process, Reader};
use super::spawn::{Standard, StartError};
use super::{Inner, Supervisor};

/// Bytes of input that one client may have waiting, at most; a program may not read, and a paste may be long.
const INPUT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes read from a terminal before they go to the log: small enough for a frame.
const READ: usize = 64 * 1024;
/// Late output is awaited for as long as no pause is longer than this…
const PAUSE: Duration = Duration::from_millis(50);
/// …and for this long at most.
const LIMIT: Duration = Duration::from_secs(1);
/// More than the kernel keeps of what a program has printed: it may have been printed before the program's end.
const KEPT_BY_KERNEL: u64 = 256 * 1024;

type Master = AsyncFd<OwnedFd>;

/// Columns and rows of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl From<Size> for Winsize {
    fn from(size: Size) -> Self {
        Self { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// The daemon's side of a terminal; a cheap handle.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// Gone when the program has ended and everything was read.
    master: Weak<Master>,
    log: OutputLog,
    audience: Arc<Audience>,
    input: mpsc::UnboundedSender<Waiting>,
}

/// Input that has its place in the budget until it is written.
#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

/// One client's way to type.
#[derive(Debug)]
pub struct Input {
    queue: mpsc::UnboundedSender<Waiting>,
    budget: Arc<Semaphore>,
}

/// The terminal has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the terminal has ended")]
pub struct Ended;

impl Terminal {
    /// Changes the size; the job in the foreground gets SIGWINCH.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub fn resize(&self, size: Size) -> Result<(), Ended> {
        let master = self.master.upgrade().ok_or(Ended)?;
        rustix::termios::tcsetwinsize(&*master, size.into()).map_err(|_| Ended)
    }

    /// Reads what is printed from `offset` on, or, with none, from now on. Programs wait for viewers, within limits.
    pub fn attach(&self, offset: Option<u64>) -> Viewer {
        self.audience.admit(&self.log, offset)
    }

    /// A way to type for one client. What several of them type is taken in the order in which it comes.
    pub fn input(&self) -> Input {
        Input { queue: self.input.clone(), budget: Arc::new(Semaphore::new(INPUT_BYTES)) }
    }
}

impl Input {
    /// Queues bytes, 1 MiB of them at most; waits while much that was sent before is not read. Cancel safe: all of them
    /// or none.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Ended> {
        let places = u32::try_from(bytes.len().clamp(1, INPUT_BYTES)).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.budget).acquire_many_owned(places);
        let place = tokio::select! {
            place = place => place.map_err(|_| Ended)?,
            () = self.queue.closed() => return Err(Ended),
        };
        self.queue.send(Waiting { bytes, _place: place }).map_err(|_| Ended)
    }
}

impl Supervisor {
    /// Starts a process that leads a session of its own on a new terminal.
    ///
    /// # Errors
    /// When there is no terminal, or the process cannot be started: the error says which step failed and why.
    pub async fn start_in_terminal(
        &self,
        command: Command,
        size: Size,
    ) -> Result<(Process, Terminal), StartError> {
        let output = self.scrollback();
        let log = output.clone();
        let prepare = move |_: &Inner, command: &Command| {
            let opened = Opened::new(size, command.user.as_ref().map(|user| user.uid))?;
            let standard = opened.standard()?;
            let (pump, writer, terminal) = opened.split(log);
            Ok((standard, Reader::Terminal(pump), (writer, terminal)))
        };
        let (process, (writer, terminal)) = self.launch_with(command, output, "terminal", prepare).await?;
        self.inner.shutdown.spawn(writer.run());
        Ok((process, terminal))
    }
}

/// A terminal that nobody uses yet.
struct Opened {
    master: Arc<Master>,
    slave: OwnedFd,
}

impl Opened {
    /// A new terminal of this size, in cooked mode, which belongs to `owner` or else to the daemon's own user. For a
    /// thread that may block and knows the runtime.
    ///
    /// # Errors
    /// What the operating system says.
    fn new(size: Size, owner: Option<u32>) -> io::Result<Self> {
        let master = open_master()?;
        rustix::pty::unlockpt(&master)?;
        let slave = open_slave(&master)?;
        rustix::termios::tcsetwinsize(&master, size.into())?;
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(uid) = owner {
            // As login(1) does, so that programs of that user can open it by its name. Only root can.
            let _ = rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None);
            let _ = rustix::fs::fchmod(&slave, Mode::RUSR | Mode::WUSR | Mode::WGRP);
        }
        Ok(Self { master: Arc::new(register(master)?), slave })
    }

    /// What a child gets.
    fn standard(&self) -> io::Result<Standard> {
        let slave = || self.slave.try_clone();
        Ok(Standard { stdin: slave()?, stdout: slave()?, stderr: slave()?, is_terminal: true })
    }

    /// What reads it into `log`, what writes it, and the handle.
    fn split(self, log: OutputLog) -> (TerminalPump, Writer, Terminal) {
        let (input, queue) = mpsc::unbounded_channel(); // bounded by the budget of each client
        let (audience, closed) = (Arc::<Audience>::default(), CancellationToken::new());
        let terminal = Terminal {
            master: Arc::downgrade(&self.master),
            log: log.clone(),
            audience: Arc::clone(&audience),
            input,
        };
        let writer = Writer { master: Arc::downgrade(&self.master), queue, closed: closed.clone() };
        let slave = Some(self.slave);
        let pump = TerminalPump { master: self.master, slave, log, audience, _closed: closed.drop_guard() };
        (pump, writer, terminal)
    }
}

#[expect(unsafe_code, reason = "tokio cannot see that the descriptor stays open")]
fn register(master: OwnedFd) -> io::Result<Master> {
    // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same until it is dropped.
    Ok(unsafe { AsyncFd::register(master) }?)
}

/// `/dev/ptmx`, or in an image without it what a mounted devpts has.
fn open_master() -> Result<OwnedFd, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::openpt(flags).or_else(|error| {
        let instead =
            rustix::fs::open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        instead.map_err(|_| error)
    })
}

/// Without the help of a mounted devpts, where the kernel can (4.13).
fn open_slave(master: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).or_else(|_| {
        let name = rustix::pty::ptsname(master, Vec::new())?;
        rustix::fs::open(
            Path::new(&*name.to_string_lossy()),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    })
}

/// Types what clients send, in order, every byte.
struct Writer {
    master: Weak<Master>,
    queue: mpsc::UnboundedReceiver<Waiting>,
    closed: CancellationToken,
}

impl Writer {
    /// Until the terminal has ended.
    async fn run(mut self) {
        let closed = self.closed.clone();
        let write = async {
            while let Some(waiting) = self.queue.recv().await {
                let Some(master) = self.master.upgrade() else { return };
                if let Err(error) = write_all(&master, &waiting.bytes).await {
                    debug!(%error, "writing to a terminal failed");
                    return;
                }
            }
        };
        tokio::select! {
            () = write => {}
            () = closed.cancelled() => {}
        }
    }
}

async fn write_all(master: &Master, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = master.writable().await?;
        match rustix::io::write(guard.get_inner(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads what is printed into the log. It is told when to stop, not dropped: what was read and not yet appended would
/// be lost. Dropping it closes the master.
pub(super) struct TerminalPump {
    master: Arc<Master>,
    /// Keeps the master from telling an end.
    slave: Option<OwnedFd>,
    log: OutputLog,
    audience: Arc<Audience>,
    _closed: DropGuard,
}

impl TerminalPump {
    /// Reads until `stop`.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let ready = async {
                self.audience.pace(self.log.end()).await;
                self.master.readable().await
            };
            let ready = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ready = ready => ready,
            };
            let Ok(guard) = ready else { return };
            let (bytes, is_open) = read(guard);
            self.log.append(Stream::Out, &bytes).await;
            if !is_open {
                return;
            }
        }
    }

    /// Reads what may still come when the program has ended: all that it printed, and the last words of others that
    /// have the terminal open, who may keep it for ever.
    pub(super) async fn linger(&mut self) {
        self.slave = None;
        let (limit, own) = (Instant::now() + LIMIT, self.log.end() + KEPT_BY_KERNEL);
        let mut is_open = true;
        while is_open && (self.log.end() < own || Instant::now() < limit) {
            if self.log.end() >= own && timeout_at(limit, self.audience.pace(self.log.end())).await.is_err() {
                return;
            }
            let Ok(Ok(guard)) = timeout(PAUSE, self.master.readable()).await else { return };
            let bytes;
            (bytes, is_open) = read(guard);
            self.log.append(Stream::Out, &bytes).await;
        }
    }
}

/// Reads what is there; whether more may come. The kernel gives 4 KiB at a time.
fn read(mut guard: AsyncFdReadyGuard<'_, OwnedFd>) -> (Vec<u8>, bool) {
    let mut bytes = Vec::with_capacity(READ); // not kept: most terminals are quiet, and there may be hundreds
    while bytes.len() < READ {
        match rustix::io::read(guard.get_inner(), spare_capacity(&mut bytes)) {
            Ok(0) => return (bytes, false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                guard.clear_ready();
                break;
            }
            Err(_hung_up) => return (bytes, false), // EIO: nobody has the slave open any more
        }
    }
    (bytes, true)
}
