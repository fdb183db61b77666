//! The window manager, as EWMH (Extended Window Manager Hints 1.5) has it known.

use tokio::sync::broadcast::error::RecvError;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, Window};

use super::{Connection, Events, Failure, Wire};
use crate::error::Result;

impl Connection {
    /// Waits until a window manager is there, or the server has gone.
    ///
    /// # Errors
    /// When the server has gone.
    pub(crate) async fn manager_came(&self) -> Result<()> {
        let mut events = self.events();
        self.run(Wire::follow_windows).await?;
        loop {
            if self.run(|wire| wire.manager()).await?.is_some() {
                return Ok(());
            }
            self.root_changed(&mut events).await;
        }
    }

    /// Resolves when the window manager that is there now is there no more, or the server has gone.
    pub(crate) async fn manager_left(&self) {
        let mut events = self.events();
        while let Ok(Some(_)) = self.run(|wire| wire.manager()).await {
            self.root_changed(&mut events).await;
        }
    }

    /// Resolves at the next event that may mean something for the window manager, and when the server has gone.
    async fn root_changed(&self, events: &mut Events) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.lost() => return,
            };
            match event.as_deref() {
                Ok(Event::PropertyNotify(_) | Event::DestroyNotify(_)) => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    }
}

impl Wire {
    /// Has the server tell of changes of the root's properties, and of windows that come, go and move.
    pub(crate) fn follow_windows(&self) -> Result<(), Failure> {
        let mask = EventMask::PROPERTY_CHANGE | EventMask::SUBSTRUCTURE_NOTIFY | EventMask::STRUCTURE_NOTIFY;
        let change = ChangeWindowAttributesAux::new().event_mask(mask);
        Ok(self.check(self.x.change_window_attributes(self.root, &change)?)?)
    }

    /// The window that says that a window manager runs, and its name. A leftover of one that was killed does not
    /// count: the window has to say the same of itself.
    pub(crate) fn manager(&self) -> Result<Option<Manager>, Failure> {
        let atoms = self.atoms()?;
        let (check, name) = (atoms._NET_SUPPORTING_WM_CHECK, atoms._NET_WM_NAME);
        let window = |of: Window| -> Result<Option<Window>, Failure> {
            let reply = self.x.get_property(false, of, check, AtomEnum::WINDOW, 0, 1)?.reply();
            Ok(reply.ok().and_then(|reply| reply.value32()?.next()))
        };
        let Some(claimed) = window(self.root)? else { return Ok(None) };
        if window(claimed)? != Some(claimed) {
            return Ok(None);
        }
        let name = self.x.get_property(false, claimed, name, AtomEnum::ANY, 0, 64)?.reply();
        let name = name.map(|reply| String::from_utf8_lossy(&reply.value).into_owned()).unwrap_or_default();
        Ok(Some(Manager { name }))
    }
}

/// A window manager that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    /// As it calls itself; empty when it does not.
    pub(crate) name: String,
}
