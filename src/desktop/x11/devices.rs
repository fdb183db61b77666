//! Pointer and keyboard as devices: what the XTEST extension lets us do in their place.

use x11rb::NONE;
use x11rb::protocol::{xproto, xtest};

use super::{Failure, Wire};

impl Wire {
    /// Moves the pointer to a point of the screen. What lies outside is moved to the nearest edge by the server.
    pub(crate) fn motion(&self, x: i32, y: i32) -> Result<(), Failure> {
        let within = |at: i32| at.clamp(0, i32::from(i16::MAX)) as i16;
        self.fake(xproto::MOTION_NOTIFY_EVENT, 0, within(x), within(y))
    }

    /// Presses or releases a button by its number: 1 left, 2 middle, 3 right, 4 to 7 the wheel, 8 back, 9 forward.
    pub(crate) fn button(&self, button: u8, press: bool) -> Result<(), Failure> {
        let kind = if press { xproto::BUTTON_PRESS_EVENT } else { xproto::BUTTON_RELEASE_EVENT };
        self.fake(kind, button, 0, 0)
    }

    /// Presses or releases a key by its code.
    pub(crate) fn key(&self, code: u8, press: bool) -> Result<(), Failure> {
        let kind = if press { xproto::KEY_PRESS_EVENT } else { xproto::KEY_RELEASE_EVENT };
        self.fake(kind, code, 0, 0)
    }

    /// Where the pointer is, once all input that was sent has been processed.
    pub(crate) fn pointer(&self) -> Result<(i32, i32), Failure> {
        let pointer = xproto::query_pointer(&self.x, self.root)?.reply()?;
        Ok((pointer.root_x.into(), pointer.root_y.into()))
    }

    fn fake(&self, kind: u8, detail: u8, x: i16, y: i16) -> Result<(), Failure> {
        if !self.has.xtest {
            return Err(Failure::Refused("the XTEST extension is missing".into()));
        }
        xtest::fake_input(&self.x, kind, detail, x11rb::CURRENT_TIME, NONE, x, y, 0)?;
        Ok(())
    }
}
