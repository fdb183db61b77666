//! The X server, over one connection; the only place that names the X11 libraries.
//!
//! [`Server`] is the handle that everything has. It opens the connection when something is first asked of the display,
//! and again when the connection was lost. [`Connection::run`] takes a piece of work to a thread that may block: it
//! sends all its requests before it waits for the first reply, so that a piece costs one round trip. Events are read by
//! a task that the socket wakes; nothing polls.
//!
//! A server that does not answer within seconds counts as lost: its connection is cut, which ends every wait on it.

mod atoms;
pub(crate) mod capture;
mod changes;
pub(crate) mod client;
mod devices;
mod drawn;
pub(crate) mod keymap;
mod manager;
pub(crate) mod monitors;
mod pixels;
mod screen;
mod segment;
pub(crate) mod selection;
mod stream;
mod windows;

pub(crate) use changes::{DesktopChange, WindowChange};
pub(crate) use drawn::Damage;
pub(crate) use monitors::Area;
pub(crate) use windows::{Window, Wish};

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info};
use x11rb::connection::{Connection as _, RequestConnection};
use x11rb::cookie::VoidCookie;
use x11rb::errors::{ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::protocol::{Event, damage, randr, res, shm, xfixes, xkb, xproto, xtest};
use x11rb::reexports::x11rb_protocol::{parse_display, xauth};
use x11rb::rust_connection::{DefaultStream, RustConnection};

use crate::error::{Error, ErrorKind, Result};
use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;
use segment::Segment;
use stream::Limited;

/// Pieces of work on the connection at a time.
const JOBS: usize = 8;
/// Longest that the connection outlives the daemon's beginning to stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// Events kept for whoever follows them; a follower that is later than that is told so.
const EVENTS: usize = 4096;

/// What the server tells by itself, as it comes.
pub(crate) type Events = broadcast::Receiver<Arc<Event>>;

/// A display that may be there or not: gives connections to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    display: String,
    absent: Box<dyn Fn() -> Error + Send + Sync>,
    lane: Lane,
    shutdown: Shutdown,
    open: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("display", &self.shared.display).finish_non_exhaustive()
    }
}

impl Server {
    /// For a display by its name, as in `:0`. `absent` says why there is none, when there is none. Nothing is opened.
    pub(crate) fn new(
        display: impl Into<String>,
        absent: impl Fn() -> Error + Send + Sync + 'static,
        shutdown: Shutdown,
    ) -> Self {
        let shared = Shared {
            display: display.into(),
            absent: Box::new(absent),
            lane: Lane::new(JOBS),
            shutdown,
            open: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The display's name.
    pub(crate) fn display(&self) -> &str {
        &self.shared.display
    }

    /// The open connection, or a new one.
    ///
    /// # Errors
    /// What `absent` says when no server answers, or when it refuses us.
    pub(crate) async fn connection(&self) -> Result<Connection> {
        let mut open = self.shared.open.lock().await;
        if let Some(connection) = &*open
            && !connection.is_lost()
        {
            return Ok(connection.clone());
        }
        *open = None;
        let (display, lane) = (self.shared.display.clone(), self.shared.lane.clone());
        let wire = match self.shared.lane.run(move || Wire::open(&display)).await? {
            Ok(wire) => wire,
            Err(reason) => {
                debug!("display {} does not answer: {reason}", self.display());
                return Err((self.shared.absent)().with_source(reason));
            }
        };
        info!("connected to display {}", self.display());
        let (events, _) = broadcast::channel(EVENTS);
        let wire = Arc::new(wire);
        let connection = Connection { wire, lane, events, news: Arc::default(), kept: TaskTracker::new() };
        self.shared.shutdown.spawn(connection.clone().read_events(self.shared.shutdown.clone()));
        *open = Some(connection.clone());
        Ok(connection)
    }

    /// Ends the connection, as before the server is stopped. The next [`Server::connection`] opens another.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.shared.open.lock().await.take() {
            connection.wire.lose();
        }
    }
}

/// An open connection, perhaps lost since. Cheap to clone; what it keeps on the server ends with the connection.
#[derive(Clone)]
pub(crate) struct Connection {
    wire: Arc<Wire>,
    lane: Lane,
    events: broadcast::Sender<Arc<Event>>,
    /// Told after each piece of work: it may have read events that the socket will not tell of again.
    news: Arc<Notify>,
    /// Those who have something to do when the daemon stops.
    kept: TaskTracker,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Does a piece of work on a thread that may block, to its end even when the caller leaves.
    ///
    /// # Errors
    /// Those of the work; [`ErrorKind::Unavailable`] when the connection is lost.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Wire) -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        self.run_in(&self.lane, work).await
    }

    /// As [`Connection::run`], within the limit of another kind of work.
    ///
    /// # Errors
    /// As of [`Connection::run`].
    pub(crate) async fn run_in<T, F>(&self, lane: &Lane, work: F) -> Result<T>
    where
        F: FnOnce(&Wire) -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let (wire, news) = (Arc::clone(&self.wire), Arc::clone(&self.news));
        let done = lane.run(move || {
            let done = work(&wire);
            if matches!(done, Err(Failure::Lost(_))) {
                wire.lose();
            }
            news.notify_one(); // here, as nobody may wait for us any more
            done
        });
        Ok(done.await??)
    }

    /// Whether the server has gone; another connection may have been opened since.
    pub(crate) fn is_lost(&self) -> bool {
        self.wire.lost.is_cancelled()
    }

    /// The root window.
    pub(crate) fn root(&self) -> u32 {
        self.wire.root
    }

    /// Resolves when the server has gone.
    pub(crate) async fn lost(&self) {
        self.wire.lost.cancelled().await;
    }

    /// Keeps the connection for a moment when the daemon stops, for as long as the value lives: what is held down is
    /// still to be released then.
    pub(crate) fn keep(&self) -> TaskTrackerToken {
        self.kept.token()
    }

    /// Whether two handles are of the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wire, &other.wire)
    }

    /// Every event that the server sends from now on; ends when the connection does.
    pub(crate) fn events(&self) -> Events {
        self.events.subscribe()
    }

    /// Hands events out until the connection is lost or the daemon stops.
    #[expect(unsafe_code, reason = "tokio cannot see that the descriptor stays open")]
    async fn read_events(self, shutdown: Shutdown) {
        let Self { wire, events, news, kept, .. } = self;
        // SAFETY: the descriptor is open, and the same, for as long as the `Wire` that `Readiness` holds.
        let readable =
            unsafe { AsyncFd::register_with_interest(Readiness(Arc::clone(&wire)), Interest::READABLE) };
        let Ok(readable) = readable else { return wire.lose() };
        while !wire.lost.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    kept.close();
                    let _ = tokio::time::timeout(FAREWELL, kept.wait()).await;
                    wire.lose();
                }
                () = news.notified() => {}
                ready = readable.readable() => match ready {
                    // Before reading: what arrives from now on wakes us again.
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => wire.lose(),
                },
            }
            loop {
                // Reads what is there and never waits; that it sends nothing is why it may stand here.
                match wire.x.poll_for_event() {
                    Ok(Some(event)) => drop(events.send(Arc::new(event))),
                    Ok(None) => break,
                    Err(error) => {
                        if !wire.lost.is_cancelled() {
                            info!("the connection to the X server is lost: {error}");
                        }
                        wire.lose();
                        break;
                    }
                }
            }
        }
    }
}

/// The socket, for the runtime to watch.
struct Readiness(Arc<Wire>);

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.0.x.stream().as_raw_fd()
    }
}

/// What a piece of work has in its hands.
pub(crate) struct Wire {
    /// The protocol.
    pub(crate) x: RustConnection<Limited>,
    /// The root window.
    pub(crate) root: xproto::Window,
    /// The screen as it was when we connected: its size may have changed.
    pub(crate) screen: xproto::Screen,
    /// What the server can do beyond the core protocol.
    pub(crate) has: Extensions,
    /// Memory for pictures, kept from one to the next; whoever takes a picture has it alone.
    segment: std::sync::Mutex<Option<Segment>>,
    atoms: OnceLock<atoms::Atoms>,
    lost: CancellationToken,
}

/// Extensions that the server has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extensions {
    /// Reports what was drawn.
    pub(crate) damage: bool,
    /// Monitors and modes.
    pub(crate) randr: bool,
    /// Which program a window is of.
    pub(crate) res: bool,
    /// Pictures through shared memory.
    pub(crate) shm: bool,
    /// The pointer's image; selections.
    pub(crate) xfixes: bool,
    /// Keyboard maps and groups.
    pub(crate) xkb: bool,
    /// Input as if from devices.
    pub(crate) xtest: bool,
}

impl Wire {
    /// Connects; blocks, for some seconds at most.
    fn open(display: &str) -> Result<Self, Failure> {
        let parsed =
            parse_display::parse_display(Some(display)).map_err(|error| Failure::lost(error.to_string()))?;
        let mut reason = Failure::lost("it has no address");
        for address in parsed.connect_instruction() {
            let (stream, (family, peer)) = match DefaultStream::connect(&address) {
                Ok(connected) => connected,
                Err(error) => {
                    reason = Failure::lost(error.to_string());
                    continue;
                }
            };
            // A file that cannot be read is as good as none: the server may well want no cookie.
            let (name, cookie) =
                xauth::get_auth(family, &peer, parsed.display).ok().flatten().unwrap_or_default();
            let number = usize::from(parsed.screen);
            let x = RustConnection::connect_to_stream_with_auth_info(Limited(stream), number, name, cookie)
                .map_err(|error| Failure::lost(error.to_string()))?;
            let screen = x.setup().roots.get(number).cloned();
            let screen = screen.ok_or_else(|| Failure::lost(format!("it has no screen {number}")))?;
            let mut has = Extensions::ask(&x)?;
            // A server elsewhere shares no memory with us.
            has.shm &= matches!(address, parse_display::ConnectAddress::Socket(_));
            return Ok(Self {
                x,
                root: screen.root,
                screen,
                has,
                segment: std::sync::Mutex::default(),
                atoms: OnceLock::new(),
                lost: CancellationToken::new(),
            });
        }
        Err(reason)
    }

    /// Marks the connection as lost and wakes everyone who waits on it.
    fn lose(&self) {
        self.lost.cancel();
        self.x.stream().cut();
    }

    /// Size of the root window at this moment.
    pub(crate) fn size(&self) -> Result<(u16, u16), Failure> {
        let geometry = xproto::get_geometry(&self.x, self.root)?.reply()?;
        Ok((geometry.width, geometry.height))
    }

    /// Waits until the server has done a request that has no reply.
    ///
    /// # Errors
    /// When the server refuses it.
    pub(crate) fn check(&self, request: VoidCookie<'_, RustConnection<Limited>>) -> Result<(), ReplyError> {
        // The library's own wait never ends when the thread that reads events has read, just before, one that this
        // request has caused: then it takes that for the sign of a reply that is still to come. Here one is.
        let _after = xproto::get_input_focus(&self.x)?;
        #[expect(clippy::disallowed_methods, reason = "the one place that may, as a reply follows")]
        request.check()
    }

    /// Waits until the server has done all that was sent.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        xproto::get_input_focus(&self.x)?.reply()?;
        Ok(())
    }

    /// The atoms that we use all the time.
    pub(crate) fn atoms(&self) -> Result<&atoms::Atoms, Failure> {
        if let Some(atoms) = self.atoms.get() {
            return Ok(atoms);
        }
        let asked = atoms::Atoms::new(&self.x)?.reply()?;
        Ok(self.atoms.get_or_init(|| asked))
    }
}

impl Extensions {
    /// Asks for all of them before it waits for the first answer, and tells each the version that we speak.
    fn ask(x: &RustConnection<Limited>) -> Result<Self, Failure> {
        let names = [
            damage::X11_EXTENSION_NAME,
            randr::X11_EXTENSION_NAME,
            res::X11_EXTENSION_NAME,
            shm::X11_EXTENSION_NAME,
            xfixes::X11_EXTENSION_NAME,
            xkb::X11_EXTENSION_NAME,
            xtest::X11_EXTENSION_NAME,
        ];
        for name in names {
            x.prefetch_extension_information(name)?;
        }
        let mut has = [false; 7];
        for (has, name) in has.iter_mut().zip(names) {
            *has = x.extension_information(name)?.is_some();
        }
        let [damage, randr, res, shm, xfixes, xkb, xtest] = has;
        let xfixes_version = xfixes.then(|| xfixes::query_version(x, 5, 0)).transpose()?;
        let damage_version = damage.then(|| damage::query_version(x, 1, 1)).transpose()?;
        let randr_version = randr.then(|| randr::query_version(x, 1, 5)).transpose()?;
        let res_version = res.then(|| res::query_version(x, 1, 2)).transpose()?;
        let xkb_version = xkb.then(|| xkb::use_extension(x, 1, 0)).transpose()?;
        Ok(Self {
            damage: damage_version.is_some_and(|cookie| cookie.reply().is_ok()),
            randr: randr_version
                .and_then(|cookie| cookie.reply().ok())
                .is_some_and(|version| (version.major_version, version.minor_version) >= (1, 5)),
            res: res_version
                .and_then(|cookie| cookie.reply().ok())
                .is_some_and(|version| (version.server_major, version.server_minor) >= (1, 2)),
            shm,
            xfixes: xfixes_version.is_some_and(|cookie| cookie.reply().is_ok()),
            xkb: xkb_version.and_then(|cookie| cookie.reply().ok()).is_some_and(|version| version.supported),
            xtest,
        })
    }
}

/// Why a piece of work did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server has gone, or does not answer.
    #[error("the connection to the X server is lost: {0}")]
    Lost(String),
    /// The server refused a request.
    #[error("the X server refused: {0}")]
    Refused(String),
    /// What the work itself found wrong.
    #[error(transparent)]
    Own(#[from] Error),
}

impl Failure {
    fn lost(reason: impl Into<String>) -> Self {
        Self::Lost(reason.into())
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::UnsupportedExtension => Self::Refused("an extension is missing".into()),
            ConnectionError::MaximumRequestLengthExceeded => Self::Refused("the request is too long".into()),
            error => Self::Lost(error.to_string()),
        }
    }
}

impl From<ReplyError> for Failure {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::ConnectionError(error) => error.into(),
            ReplyError::X11Error(error) => {
                let request = error.request_name.unwrap_or("a request");
                Self::Refused(format!("{request}: {:?} ({:#x})", error.error_kind, error.bad_value))
            }
        }
    }
}

impl From<ReplyOrIdError> for Failure {
    fn from(error: ReplyOrIdError) -> Self {
        match error {
            ReplyOrIdError::IdsExhausted => Self::Refused("all resource ids are in use".into()),
            ReplyOrIdError::ConnectionError(error) => error.into(),
            ReplyOrIdError::X11Error(error) => ReplyError::X11Error(error).into(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Own(error) => error,
            lost @ Failure::Lost(_) => Self::new(
                ErrorKind::Unavailable,
                "computer use is not running: the X server has gone, call start",
            )
            .with_source(lost),
            refused @ Failure::Refused(_) => Self::internal(refused.to_string()).with_source(refused),
        }
    }
}
