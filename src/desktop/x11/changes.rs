//! What the server's events mean for whoever watches the desktop.

use tokio::sync::broadcast::error::RecvError;
use x11rb::protocol::Event;
use x11rb::protocol::xfixes::{ConnectionExt as _, SelectionEventMask};
use x11rb::protocol::xproto::AtomEnum;

use super::selection::Selection;
use super::{Connection, Events, Failure, Wire};

/// Something that may be of interest to whoever watches windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowChange {
    /// The list, the order, or the focus.
    List,
    /// One window: its place, a property, its end.
    Window(u32),
    /// Perhaps everything: some changes were missed.
    Missed,
}

/// Something that may be of interest to whoever watches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DesktopChange {
    /// A window, or their list.
    Windows,
    /// A selection has another owner, or other content.
    Selection(Selection),
    /// Perhaps everything: some changes were missed.
    Missed,
}

impl Connection {
    /// The next change of windows that the server was asked to tell of; none when it has gone. Cancel safe.
    pub(crate) async fn window_change(&self, events: &mut Events) -> Option<WindowChange> {
        loop {
            match self.next_event(events).await? {
                Ok(event) => {
                    if let Some(id) = window_of(&event) {
                        let is_root = id == self.root();
                        return Some(if is_root { WindowChange::List } else { WindowChange::Window(id) });
                    }
                }
                Err(Missed) => return Some(WindowChange::Missed),
            }
        }
    }

    /// The next change that the server was asked to tell of; none when it has gone. Cancel safe.
    pub(crate) async fn change(&self, events: &mut Events) -> Option<DesktopChange> {
        loop {
            match self.next_event(events).await? {
                Ok(event) => match &*event {
                    Event::XfixesSelectionNotify(event) => {
                        let is_primary = event.selection == u32::from(AtomEnum::PRIMARY);
                        let selection = if is_primary { Selection::Primary } else { Selection::Clipboard };
                        return Some(DesktopChange::Selection(selection));
                    }
                    event if window_of(event).is_some() => return Some(DesktopChange::Windows),
                    _ => {}
                },
                Err(Missed) => return Some(DesktopChange::Missed),
            }
        }
    }

    async fn next_event(&self, events: &mut Events) -> Option<Result<std::sync::Arc<Event>, Missed>> {
        let event = tokio::select! {
            event = events.recv() => event,
            () = self.lost() => return None,
        };
        match event {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(_)) => Some(Err(Missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Some events came faster than they were taken.
struct Missed;

/// The window that an event about windows is about.
fn window_of(event: &Event) -> Option<u32> {
    match event {
        Event::PropertyNotify(event) => Some(event.window),
        Event::ConfigureNotify(event) => Some(event.window),
        Event::MapNotify(event) => Some(event.window),
        Event::UnmapNotify(event) => Some(event.window),
        Event::DestroyNotify(event) => Some(event.window),
        Event::ReparentNotify(event) => Some(event.window),
        Event::CreateNotify(event) => Some(event.window),
        _ => None,
    }
}

impl Wire {
    /// Has the server tell of new owners of the selections.
    pub(crate) fn follow_selections(&self) -> Result<(), Failure> {
        if self.has.xfixes {
            for selection in [self.atoms()?.CLIPBOARD, AtomEnum::PRIMARY.into()] {
                let mask = SelectionEventMask::SET_SELECTION_OWNER;
                self.x.xfixes_select_selection_input(self.root, selection, mask)?;
            }
            self.sync()?;
        }
        Ok(())
    }
}
