//! Mouse and keyboard (contract `computer-use.md` 3, 4).
//!
//! All input goes through one [`Hand`], which has the lock: two requests never mix their events. What an action
//! presses, locks or lends is written down before it is done, and undone when the action ends, however it ends: done,
//! failed, or left by its client. Only what `keyboard/down` and `mouse/down` hold stays, until it is released, the
//! desktop stops, or nothing has been asked of the input for a while.

mod hand;
mod keyboard;
mod keys;
mod mouse;
pub(super) mod routes;
mod wire;

pub(in crate::desktop) use hand::{Held, act, perform, release};
pub(in crate::desktop) use wire::{ActionRequest, OutcomeReply};

/// A place on the screen, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desktop) struct Point {
    /// To the right.
    pub(in crate::desktop) x: i32,
    /// Down.
    pub(in crate::desktop) y: i32,
}

/// One thing to do, checked as far as that goes without a screen.
#[derive(Debug)]
pub(in crate::desktop) enum Action {
    /// Move the pointer.
    Move(mouse::Move),
    /// Press and release a button, perhaps several times.
    Click(mouse::Click),
    /// Move while a button is held.
    Drag(mouse::Drag),
    /// Turn the wheel.
    Scroll(mouse::Scroll),
    /// Press or release a button.
    Button(mouse::Hold),
    /// Type text.
    Type(keyboard::Text),
    /// Press a key with modifiers, and release them.
    Key(keyboard::Chord),
    /// Press or release a key.
    Hold(keyboard::Hold),
}

/// What an action tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desktop) enum Outcome {
    /// Where the pointer is afterwards.
    At(Point),
    /// That the wheel was turned.
    Scrolled,
    /// Nothing.
    Done,
}
