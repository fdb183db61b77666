//! Displays and windows (contract `computer-use.md` 6, and 12 items 14 to 16).

pub(super) mod routes;
pub(super) mod wire;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Desktop;
use super::x11::{Area, Connection, Window, WindowChange, Wish};
use crate::error::{Error, ErrorKind, Result};

/// How long a size that is not quite the wanted one has to stay before it is taken for the window's own wish: terminals
/// have whole lines, dialogs their least size.
const SETTLED: Duration = Duration::from_millis(100);
/// Time without a change after which a window is taken to have its new size.
const QUIET: Duration = Duration::from_millis(30);
/// Smallest side of a screen, in pixels.
const LEAST_SIDE: u16 = 64;

/// What a window can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowAction {
    Focus,
    Raise,
    Minimize,
    Maximize,
    Restore,
    Close,
}

impl WindowAction {
    fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "focus" => Self::Focus,
            "raise" => Self::Raise,
            "minimize" => Self::Minimize,
            "maximize" => Self::Maximize,
            "restore" => Self::Restore,
            "close" => Self::Close,
            _ => {
                let actions = "focus, raise, minimize, maximize, restore, close";
                return Err(Error::invalid(format!("unknown window action {name:?}: one of {actions}")));
            }
        })
    }

    /// What to ask for, one after the other.
    fn wishes(self, window: &Window) -> Vec<Wish> {
        match self {
            Self::Focus => vec![Wish::Focus],
            Self::Raise => vec![Wish::Raise],
            Self::Minimize => vec![Wish::Minimize],
            Self::Maximize if window.is_minimized => vec![Wish::Focus, Wish::Maximize],
            Self::Maximize => vec![Wish::Maximize],
            // As from a task bar: first back onto the screen, then back to its size.
            Self::Restore if window.is_minimized => vec![Wish::Focus],
            Self::Restore => vec![Wish::Unmaximize],
            Self::Close => vec![Wish::Close],
        }
    }

    /// Whether it is done, as the list of all windows shows.
    fn is_done(self, id: u32, windows: &[Window]) -> bool {
        let Some(at) = windows.iter().position(|window| window.id == id) else { return self == Self::Close };
        let window = &windows[at];
        match self {
            Self::Focus => window.is_active && !window.is_minimized,
            // Nothing but what always stays on top may be above it.
            Self::Raise => {
                windows[at + 1..].iter().all(|above| above.kind != window.kind || above.is_minimized)
            }
            Self::Minimize => window.is_minimized,
            Self::Maximize => window.is_maximized && !window.is_minimized,
            Self::Restore => !window.is_maximized && !window.is_minimized && !window.is_fullscreen,
            Self::Close => false,
        }
    }
}

/// Where a window is to be; what is none stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    x: Option<i32>,
    y: Option<i32>,
    width: Option<u32>,
    height: Option<u32>,
}

impl Place {
    fn is_at(self, area: Area) -> bool {
        self.x.is_none_or(|x| x == area.x)
            && self.y.is_none_or(|y| y == area.y)
            && self.width.is_none_or(|width| width == area.width)
            && self.height.is_none_or(|height| height == area.height)
    }
}

impl Place {
    /// What to ask for again when a window came to `area` instead: window managers count a border that a window had of
    /// its own. None when it is where it is to be.
    fn corrected(self, area: Area) -> Option<Wish> {
        let x = self.x.map(|x| x.saturating_mul(2).saturating_sub(area.x));
        let y = self.y.map(|y| y.saturating_mul(2).saturating_sub(area.y));
        let is_off = self.x.is_some_and(|x| x != area.x) || self.y.is_some_and(|y| y != area.y);
        is_off.then_some(Wish::Place { x, y, width: None, height: None })
    }
}

/// What became of a wish.
#[derive(Debug)]
pub(super) struct Granted {
    /// Whether the window manager has done it within the time.
    pub(super) is_done: bool,
    /// The window as it is now; none when it has gone.
    pub(super) window: Option<Window>,
}

/// A screen of a new size.
#[derive(Debug)]
pub(super) struct Resized {
    pub(super) size: (u16, u16),
    /// Everything that ran on it was ended for that.
    pub(super) is_restarted: bool,
}

impl Desktop {
    /// All windows, bottom to top.
    async fn windows(&self) -> Result<Vec<Window>> {
        self.x11().await?.run(|wire| wire.windows()).await
    }

    /// Has the window manager do something with a window, and waits until it has, `limit` at most.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such window.
    async fn act_on_window(&self, id: u32, action: WindowAction, limit: Duration) -> Result<Granted> {
        let connection = self.x11().await?;
        let deadline = Instant::now() + limit;
        let mut events = connection.events();
        let window = watched(&connection, id).await?;
        let wishes = action.wishes(&window);
        connection.run(move |wire| wishes.into_iter().try_for_each(|wish| wire.wish(id, wish))).await?;
        let done = async {
            loop {
                let windows = connection.run(|wire| wire.windows()).await?;
                if action.is_done(id, &windows) {
                    return Ok::<(), Error>(());
                }
                next_of(&connection, &mut events, id).await?;
            }
        };
        let is_done = match timeout_at(deadline, done).await {
            Ok(done) => done.map(|()| true)?,
            Err(_) => false,
        };
        if is_done && matches!(action, WindowAction::Maximize | WindowAction::Restore) {
            // The state is told before the size: the reply is to have both.
            let mut changed = async || {
                let until = deadline.min(Instant::now() + QUIET);
                matches!(timeout_at(until, next_of(&connection, &mut events, id)).await, Ok(Ok(())))
            };
            while changed().await {}
        }
        let window = connection.run(move |wire| wire.window(id)).await?;
        Ok(Granted { is_done, window })
    }

    /// Moves and resizes a window without its frame, and waits until it is there or has decided otherwise, `limit` at
    /// most.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such window.
    async fn place_window(&self, id: u32, place: Place, limit: Duration) -> Result<Granted> {
        let connection = self.x11().await?;
        let deadline = Instant::now() + limit;
        let mut events = connection.events();
        let window = watched(&connection, id).await?;
        if window.is_maximized || window.is_fullscreen {
            connection.run(move |wire| wire.wish(id, Wish::Unmaximize)).await?;
        }
        let Place { x, y, width, height } = place;
        connection.run(move |wire| wire.wish(id, Wish::Place { x, y, width, height })).await?;
        let (before, mut moved, mut corrected) = (window.area, None, false);
        loop {
            let Some(window) = connection.run(move |wire| wire.window(id)).await? else {
                return Err(no_window(id));
            };
            let (area, is_there) = (window.area, place.is_at(window.area));
            if area != before {
                // Once it has moved at all, it has a moment to go on; before, all of the time.
                moved.get_or_insert_with(Instant::now);
            }
            let until = moved.map_or(deadline, |moved| deadline.min(moved + SETTLED));
            if !is_there && let Ok(changed) = timeout_at(until, next_of(&connection, &mut events, id)).await {
                changed?;
                continue;
            }
            if !is_there
                && moved.is_some()
                && !corrected
                && let Some(again) = place.corrected(area)
            {
                (moved, corrected) = (None, true);
                connection.run(move |wire| wire.wish(id, again)).await?;
                continue;
            }
            return Ok(Granted { is_done: is_there, window: Some(window) });
        }
    }

    /// Changes the size of the screen while everything on it goes on. A larger one than the X server was started with
    /// needs another X server, which is started only with `may_restart`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it needs a restart that may not be, or is not ours to restart.
    async fn resize(&self, width: u16, height: u16, may_restart: bool) -> Result<Resized> {
        if width < LEAST_SIDE || height < LEAST_SIDE {
            return Err(Error::invalid(format!("the screen is {LEAST_SIDE}x{LEAST_SIDE} pixels at least")));
        }
        let connection = self.x11().await?;
        let (largest, owned) =
            (connection.run(|wire| wire.largest_size()).await?, self.processes().owns_screen());
        if width <= largest.0 && height <= largest.1 || !owned {
            connection.run(move |wire| wire.set_size(width, height)).await?;
            self.processes().keep_size((width, height));
            return Ok(Resized { size: (width, height), is_restarted: false });
        }
        if !may_restart {
            let message = format!(
                "the screen cannot be {width}x{height} pixels: its X server goes up to {}x{}, and a larger one needs a \
                 restart that ends every program on it: ask with restart",
                largest.0, largest.1
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.processes().keep_size((width, height));
        self.restart(super::parts::Kind::Screen).await?;
        Ok(Resized { size: (width, height), is_restarted: true })
    }
}

fn no_window(id: u32) -> Error {
    Error::not_found(format!("there is no window {id}"))
}

/// A window whose changes the server tells from now on.
async fn watched(connection: &Connection, id: u32) -> Result<Window> {
    let window = connection.run(move |wire| {
        wire.follow_windows()?;
        Ok(if wire.follow(id)? { wire.window(id)? } else { None })
    });
    window.await?.ok_or_else(|| no_window(id))
}

/// The next change of a window or of the list.
async fn next_of(connection: &Connection, events: &mut super::x11::Events, id: u32) -> Result<()> {
    loop {
        match connection.window_change(events).await {
            Some(WindowChange::Window(other)) if other != id => {}
            Some(_) => return Ok(()),
            None => return Err(Error::new(ErrorKind::Unavailable, "the X server has gone, call start")),
        }
    }
}
