//! Watching the desktop: waiting until the screen is still, and events as they happen (contract `computer-use.md` 12,
//! items 22 and 26).

mod events;
pub(super) mod routes;
mod settle;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, broadcast};
use tokio::time::sleep;

use super::Desktop;
use super::x11::{Area, Connection, Damage};
use crate::error::Result;

pub(in crate::desktop) use settle::Wait;
pub(in crate::desktop) use wire::{SettleReply, SettleRequest, WaitQuery};

/// Least time between two questions what was drawn: while something always moves, it is told this often.
const PACE: Duration = Duration::from_millis(8);
/// What was drawn that waits for a slow listener, in questions.
const WAITING: usize = 64;

/// Tells everyone who wants to know what is drawn. One watch of the server's is shared by all; when nobody listens any
/// more, it ends at the next thing drawn.
#[derive(Debug, Default)]
pub(super) struct Drawings {
    current: Mutex<Option<Following>>,
    frame: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Following {
    connection: Connection,
    drawn: broadcast::Sender<Arc<[Area]>>,
}

impl Drawings {
    /// How many times it was seen that something was drawn.
    pub(super) fn frame(&self) -> u64 {
        self.frame.load(Ordering::Relaxed)
    }
}

impl Desktop {
    /// What is drawn from now on; closed when the X server has gone.
    ///
    /// # Errors
    /// Without a screen, or when its server cannot tell.
    pub(super) async fn drawings(&self) -> Result<broadcast::Receiver<Arc<[Area]>>> {
        let connection = self.x11().await?;
        let mut current = self.inner.drawings.current.lock().await;
        if let Some(following) = current.as_ref()
            && following.connection.is(&connection)
            && !connection.is_lost()
        {
            return Ok(following.drawn.subscribe());
        }
        let damage = connection.follow_damage().await?;
        let (drawn, receiver) = broadcast::channel(WAITING);
        *current = Some(Following { connection, drawn: drawn.clone() });
        let desktop = self.clone();
        self.inner.shutdown.spawn(async move { desktop.tell(damage, drawn).await });
        Ok(receiver)
    }

    async fn tell(self, mut damage: Damage, drawn: broadcast::Sender<Arc<[Area]>>) {
        let drawings = &self.inner.drawings;
        loop {
            let areas = tokio::select! {
                areas = damage.next() => areas,
                () = self.inner.shutdown.cancelled() => break,
            };
            let Ok(areas) = areas else { break };
            drawings.frame.fetch_add(1, Ordering::Relaxed);
            if drawn.send(areas.into()).is_err() {
                // Nobody listens; looked at again under the lock that a new listener needs.
                let mut current = drawings.current.lock().await;
                if drawn.receiver_count() == 0 {
                    *current = None;
                    drop(current);
                    return damage.end().await;
                }
            }
            sleep(PACE).await;
        }
        // Listeners learn that it is over when the last sender is gone.
        drawings.current.lock().await.take_if(|following| following.drawn.same_channel(&drawn));
        damage.end().await;
    }
}
