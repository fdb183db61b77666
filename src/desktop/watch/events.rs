//! Events of the desktop as they happen: windows, the clipboard, what is drawn, processes.
//!
//! Changes of windows are found by comparing lists: the server's own events say that something changed, and come in
//! bursts, while a list is one round trip.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{pending, select_all};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};

use super::wire::{DesktopEvent, Topics};
use crate::desktop::Desktop;
use crate::desktop::display::wire::WindowInfo;
use crate::desktop::parts::Kind;
use crate::desktop::unit::State;
use crate::desktop::x11::selection::Selection;
use crate::desktop::x11::{Area, Connection, DesktopChange, Events, Window};
use crate::error::Result;
use crate::http::socket::{Close, Left, Receiver, Sender};

/// Least time between two lists of windows.
const WINDOWS: Duration = Duration::from_millis(20);
/// Least time between two reports of what was drawn.
const DAMAGE: Duration = Duration::from_millis(100);
/// Most areas of one report; of more, the one around them all is told.
const AREAS: usize = 64;

/// Tells a client until it leaves.
pub(super) async fn stream(
    desktop: Desktop,
    topics: Topics,
    sender: Sender,
    mut receiver: Receiver,
) -> Close {
    let told = tell(&desktop, topics, &sender);
    let left = async { while receiver.recv().await.is_some() {} };
    tokio::select! {
        result = told => match result {
            Ok(()) | Err(Left) => Close::NORMAL,
        },
        () = left => Close::NORMAL,
    }
}

async fn tell(desktop: &Desktop, topics: Topics, sender: &Sender) -> Result<(), Left> {
    let mut processes = Processes::new(desktop);
    let mut screen = Screen::open(desktop, topics).await;
    let send = async |event: DesktopEvent| sender.text(event.json()).await;
    send(DesktopEvent::Ready { display: screen.is_some() }).await?;
    loop {
        let news = tokio::select! {
            (kind, state) = processes.changed() => News::Process(kind, state),
            news = next(&mut screen) => news,
        };
        match news {
            News::Process(kind, state) => {
                if topics.processes {
                    let reason = match &state {
                        State::Failed(reason) | State::Waiting(reason) => Some(reason.clone()),
                        _ => None,
                    };
                    let running = state.is_ready();
                    send(DesktopEvent::Process { process_name: kind.name(), running, reason }).await?;
                }
                if screen.is_none() && state.is_ready() {
                    screen = Screen::open(desktop, topics).await;
                    if screen.is_some() {
                        send(DesktopEvent::Ready { display: true }).await?;
                    }
                }
            }
            News::Lost => {
                screen = None;
                send(DesktopEvent::DisplayLost).await?;
            }
            News::Events(events) => {
                for event in events {
                    send(event).await?;
                }
            }
        }
    }
}

enum News {
    Process(Kind, State),
    Lost,
    Events(Vec<DesktopEvent>),
}

async fn next(screen: &mut Option<Screen>) -> News {
    match screen {
        Some(screen) => screen.next().await.map_or(News::Lost, News::Events),
        None => pending().await,
    }
}

/// The states of all processes.
struct Processes {
    states: Vec<(Kind, watch::Receiver<State>)>,
    /// What the client knows of them.
    told: HashMap<&'static str, (bool, bool)>,
}

impl Processes {
    fn new(desktop: &Desktop) -> Self {
        let mut states = Kind::ALL.map(|kind| (kind, desktop.processes().follow(kind)));
        let told = states.iter_mut().map(|(kind, state)| (kind.name(), told_of(&state.borrow_and_update())));
        let told = told.collect();
        Self { states: states.into(), told }
    }

    /// The next process that begins or ceases to be ready, or is given up. Cancel safe.
    async fn changed(&mut self) -> (Kind, State) {
        loop {
            let changes = self.states.iter_mut().map(|(_, state)| state.changed().boxed());
            let (changed, index, _) = select_all(changes).await;
            if changed.is_err() {
                return pending().await; // the desktop is gone, and so is the daemon
            }
            let (kind, state) = &mut self.states[index];
            let state = state.borrow_and_update().clone();
            let now = told_of(&state);
            if self.told.insert(kind.name(), now) != Some(now) {
                return (*kind, state);
            }
        }
    }
}

/// What is told of a state: whether it is ready, and whether it is given up.
fn told_of(state: &State) -> (bool, bool) {
    (state.is_ready(), matches!(state, State::Failed(_)))
}

/// What is followed of a screen.
struct Screen {
    connection: Connection,
    events: Events,
    topics: Topics,
    windows: Vec<Window>,
    /// When windows are to be listed again.
    list_at: Option<Instant>,
    listed: Instant,
    drawn: Option<broadcast::Receiver<Arc<[Area]>>>,
    areas: Vec<Area>,
    /// When what was drawn is to be told.
    damage_at: Option<Instant>,
}

impl Screen {
    /// None when there is no screen.
    async fn open(desktop: &Desktop, topics: Topics) -> Option<Self> {
        let connection = desktop.x11().await.ok()?;
        let events = connection.events();
        let drawn = if topics.damage { desktop.drawings().await.ok() } else { None };
        if topics.clipboard {
            connection.run(|wire| wire.follow_selections()).await.ok()?;
        }
        let windows = if topics.windows { followed(&connection).await.ok()? } else { Vec::new() };
        let (list_at, listed) = (None, Instant::now());
        Some(Self {
            connection,
            events,
            topics,
            windows,
            list_at,
            listed,
            drawn,
            areas: Vec::new(),
            damage_at: None,
        })
    }

    /// What happened; none when the server has gone. Cancel safe.
    async fn next(&mut self) -> Option<Vec<DesktopEvent>> {
        loop {
            tokio::select! {
                change = self.connection.change(&mut self.events) => match change? {
                    DesktopChange::Windows if self.topics.windows => {
                        self.list_at.get_or_insert((self.listed + WINDOWS).max(Instant::now()));
                    }
                    DesktopChange::Windows => {}
                    DesktopChange::Selection(selection) if self.topics.clipboard => {
                        let selection = match selection {
                            Selection::Clipboard => "clipboard",
                            Selection::Primary => "primary",
                        };
                        return Some(vec![DesktopEvent::Clipboard { selection }]);
                    }
                    DesktopChange::Selection(_) => {}
                    DesktopChange::Missed => {
                        self.list_at = Some(Instant::now());
                        return Some(vec![DesktopEvent::Skipped]);
                    }
                },
                () = at(self.list_at) => {
                    let windows = followed(&self.connection).await.ok()?;
                    (self.list_at, self.listed) = (None, Instant::now());
                    let events = differences(&self.windows, &windows);
                    self.windows = windows;
                    if !events.is_empty() {
                        return Some(events);
                    }
                }
                drawn = drawn(&mut self.drawn) => match drawn {
                    Ok(areas) => {
                        self.areas.extend_from_slice(&areas);
                        if self.areas.len() > AREAS {
                            self.areas = vec![around(&self.areas)];
                        }
                        self.damage_at.get_or_insert(Instant::now() + DAMAGE);
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => self.drawn = None,
                },
                () = at(self.damage_at) => {
                    self.damage_at = None;
                    let areas = self.areas.drain(..).map(Into::into).collect();
                    return Some(vec![DesktopEvent::Damage { areas }]);
                }
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn drawn(drawn: &mut Option<broadcast::Receiver<Arc<[Area]>>>) -> Result<Arc<[Area]>, RecvError> {
    match drawn {
        Some(drawn) => drawn.recv().await,
        None => pending().await,
    }
}

/// The windows, each of which the server tells of from now on.
async fn followed(connection: &Connection) -> Result<Vec<Window>> {
    connection
        .run(|wire| {
            wire.follow_windows()?;
            let windows = wire.windows()?;
            for window in &windows {
                wire.follow(window.id)?;
            }
            Ok(windows)
        })
        .await
}

fn differences(before: &[Window], now: &[Window]) -> Vec<DesktopEvent> {
    let of = |windows: &[Window]| -> HashMap<u32, Window> {
        windows.iter().map(|window| (window.id, window.clone())).collect()
    };
    let (old, new) = (of(before), of(now));
    let mut events = Vec::new();
    for window in before.iter().filter(|window| !new.contains_key(&window.id)) {
        events.push(DesktopEvent::WindowClosed { id: window.id });
    }
    for window in now {
        let Some(was) = old.get(&window.id) else {
            events.push(DesktopEvent::WindowOpened { window: WindowInfo::new(window.clone(), true) });
            continue;
        };
        if was.title != window.title {
            let title = window.title.clone();
            events.push(DesktopEvent::WindowRetitled { id: window.id, title });
        }
        if was.area != window.area {
            events.push(DesktopEvent::WindowMoved { window: WindowInfo::new(window.clone(), true) });
        }
    }
    let active = |windows: &[Window]| windows.iter().find(|window| window.is_active).map(|window| window.id);
    if active(before) != active(now) {
        events.push(DesktopEvent::WindowFocused { id: active(now) });
    }
    events
}

/// The smallest area that has all of `areas` in it.
fn around(areas: &[Area]) -> Area {
    let left = areas.iter().map(|area| area.x).min().unwrap_or_default();
    let top = areas.iter().map(|area| area.y).min().unwrap_or_default();
    let right = areas.iter().map(|area| area.x.saturating_add_unsigned(area.width)).max().unwrap_or_default();
    let bottom =
        areas.iter().map(|area| area.y.saturating_add_unsigned(area.height)).max().unwrap_or_default();
    Area { x: left, y: top, width: right.abs_diff(left), height: bottom.abs_diff(top) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_areas_become_the_one_around_them() {
        let area = |x, y, width, height| Area { x, y, width, height };
        assert_eq!(around(&[area(5, 6, 1, 1), area(-1, 8, 2, 4)]), area(-1, 6, 7, 6));
    }
}
