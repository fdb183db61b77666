//! What is drawn, as it is drawn (DAMAGE 1.1, XFIXES 5).
//!
//! The server tells once that something was drawn and then keeps silent until it is asked what that was: however much
//! is drawn, nobody is told more often than they ask.

use tokio::sync::broadcast::error::RecvError;
use x11rb::NONE;
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::damage::{ConnectionExt as _, ReportLevel};
use x11rb::protocol::xfixes::ConnectionExt as _;
use x11rb::protocol::xproto::Rectangle;

use super::{Area, Connection, Events, Failure};
use crate::error::{Error, ErrorKind, Result};

/// Changes of the whole screen.
pub(crate) struct Damage {
    connection: Connection,
    events: Events,
    damage: u32,
    /// Where the server puts what was drawn, for us to read.
    region: u32,
}

impl Connection {
    /// Follows what is drawn from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the server cannot tell.
    pub(crate) async fn follow_damage(&self) -> Result<Damage> {
        let events = self.events();
        let made = self.run(|wire| {
            if !wire.has.damage || !wire.has.xfixes {
                let message = "the X server cannot tell what is drawn: it has no DAMAGE extension";
                return Err(Error::new(ErrorKind::Unsupported, message).into());
            }
            let (damage, region) = (wire.x.generate_id()?, wire.x.generate_id()?);
            wire.x.xfixes_create_region(region, &[])?;
            wire.check(wire.x.damage_create(damage, wire.root, ReportLevel::NON_EMPTY)?)?;
            // A new one begins with the whole window as damaged on some servers.
            wire.x.damage_subtract(damage, NONE, NONE)?;
            wire.sync()?;
            Ok((damage, region))
        });
        let (damage, region) = made.await?;
        Ok(Damage { connection: self.clone(), events, damage, region })
    }
}

impl Damage {
    /// Waits until something is drawn, and tells what was since the last time. Cancel safe.
    ///
    /// # Errors
    /// When the server has gone.
    pub(crate) async fn next(&mut self) -> Result<Vec<Area>> {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.connection.lost() => Err(RecvError::Closed),
            };
            match event.as_deref() {
                Ok(Event::DamageNotify(event)) if event.damage == self.damage => {}
                // Ours may be among those that were missed.
                Err(RecvError::Lagged(_)) => {}
                Ok(_) => continue,
                Err(RecvError::Closed) => {
                    return Err(Error::new(ErrorKind::Unavailable, "the X server has gone, call start"));
                }
            }
            let (damage, region) = (self.damage, self.region);
            let drawn = self.connection.run(move |wire| {
                wire.x.damage_subtract(damage, NONE, region)?;
                Ok(wire.x.xfixes_fetch_region(region)?.reply()?.rectangles)
            });
            let drawn = drawn.await?;
            if !drawn.is_empty() {
                return Ok(drawn.into_iter().map(Area::from).collect());
            }
        }
    }

    /// Has the server tell no more.
    pub(crate) async fn end(self) {
        let (damage, region) = (self.damage, self.region);
        let ended = self.connection.run(move |wire| {
            wire.x.damage_destroy(damage)?.ignore_error();
            wire.x.xfixes_destroy_region(region)?.ignore_error();
            Ok::<_, Failure>(wire.x.flush()?)
        });
        let _ = ended.await; // a server that has gone tells nothing either
    }
}

impl From<Rectangle> for Area {
    fn from(Rectangle { x, y, width, height }: Rectangle) -> Self {
        Self { x: x.into(), y: y.into(), width: width.into(), height: height.into() }
    }
}
