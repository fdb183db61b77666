//! The monitors that the screen is made of (RandR 1.5).

use x11rb::protocol::randr;

use super::{Failure, Wire};

/// A rectangle of the screen, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    /// Left edge.
    pub(crate) x: i32,
    /// Upper edge.
    pub(crate) y: i32,
    /// Pixels across.
    pub(crate) width: u32,
    /// Pixels down.
    pub(crate) height: u32,
}

impl Wire {
    /// Every active monitor, the primary one first; the whole screen when the server tells of none.
    pub(crate) fn monitors(&self) -> Result<Vec<Area>, Failure> {
        if self.has.randr {
            let mut monitors = randr::get_monitors(&self.x, self.root, true)?.reply()?.monitors;
            monitors.sort_by_key(|monitor| !monitor.primary); // stable: the rest stay in the server's order
            if !monitors.is_empty() {
                return Ok(monitors
                    .iter()
                    .map(|monitor| Area {
                        x: monitor.x.into(),
                        y: monitor.y.into(),
                        width: monitor.width.into(),
                        height: monitor.height.into(),
                    })
                    .collect());
            }
        }
        Ok(vec![self.whole()?])
    }

    /// The whole screen.
    pub(crate) fn whole(&self) -> Result<Area, Failure> {
        let (width, height) = self.size()?;
        Ok(Area { x: 0, y: 0, width: width.into(), height: height.into() })
    }
}
