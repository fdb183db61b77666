//! Ports as they open and close (beyond the contract).
//!
//! The kernel tells when a socket that listened is closed, and does not tell when one begins to listen: for that, the
//! table is read again a few times a second. One task does so for all who watch, and only while somebody does. Who
//! watches compares the newest table with what was told last, so a slow client gets fewer events, never a queue of
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::service::Ports;
use crate::error::Result;
use crate::platform::sockets::{Closings, Listener};

/// Time between two readings of the table: what a person does not notice. A reading takes some 50 µs.
const INTERVAL: Duration = Duration::from_millis(200);

/// What listens, by port, and when it was begun to be read.
#[derive(Debug, Clone)]
pub(super) struct Table {
    began: Instant,
    ports: BTreeMap<u16, Vec<Listener>>,
}

/// What is new for who watches.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The first one: what listens already.
    Snapshot(Vec<Listener>),
    /// A port that nothing listened on, with what listens now.
    Opened(u16, Vec<Listener>),
    /// Nothing listens there any more.
    Closed(u16),
}

/// Changes as they happen. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Watch {
    tables: watch::Receiver<Table>,
    told: BTreeMap<u16, Vec<Listener>>,
    waiting: VecDeque<Change>,
}

impl Ports {
    /// Watches all ports.
    ///
    /// # Errors
    /// When the system does not tell what listens.
    pub(super) async fn watch(&self) -> Result<Watch> {
        let mut tables = self.tables(self.read().await?);
        let told = tables.borrow_and_update().ports.clone();
        let all = told.values().flatten().cloned().collect();
        Ok(Watch { tables, told, waiting: [Change::Snapshot(all)].into() })
    }

    async fn read(&self) -> Result<Table> {
        Ok(Table { began: Instant::now(), ports: self.list().await? })
    }

    /// What the one task reads, which is started when there is none; `read` or a newer one comes first.
    fn tables(&self, read: Table) -> watch::Receiver<Table> {
        let mut watched = self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.upgrade() {
            publish(&sender, read);
            return sender.subscribe();
        }
        let (sender, tables) = watch::channel(read);
        let sender = Arc::new(sender);
        *watched = Arc::downgrade(&sender);
        let ports = self.clone();
        let stop = self.inner.shutdown.cancelled();
        self.inner.shutdown.spawn(async move {
            tokio::select! {
                () = stop => {}
                () = keep_reading(&ports, &sender) => {}
            }
        });
        tables
    }

    /// Whether nobody watches; then the next one starts a new task.
    fn nobody_watches(&self, sender: &watch::Sender<Table>) -> bool {
        let mut watched = self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_so = sender.receiver_count() == 0;
        if is_so {
            *watched = std::sync::Weak::new();
        }
        is_so
    }
}

async fn keep_reading(ports: &Ports, sender: &watch::Sender<Table>) {
    let mut closings = Closings::new().ok();
    loop {
        let closed = async {
            match &mut closings {
                Some(closings) => closings.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = sender.closed() => {}
            closed = closed => {
                if closed.is_err() {
                    closings = None; // the interval has to do
                }
            }
        }
        if ports.nobody_watches(sender) {
            return;
        }
        match ports.read().await {
            Ok(table) => publish(sender, table),
            Err(error) => warn!("{error}"),
        }
    }
}

/// Tables may be read at the same time: one that was begun earlier says nothing new.
fn publish(sender: &watch::Sender<Table>, table: Table) {
    sender.send_if_modified(|last| {
        let is_new = table.began >= last.began && table.ports != last.ports;
        if table.began >= last.began {
            *last = table;
        }
        is_new
    });
}

impl Watch {
    /// The next change; none when the daemon stops. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Some(change);
            }
            self.tables.changed().await.ok()?;
            let ports = self.tables.borrow_and_update().ports.clone();
            self.waiting.extend(changes(&self.told, &ports));
            self.told = ports;
        }
    }
}

/// In order of ports. A port whose listeners are all others than before was closed and opened between two readings.
fn changes<'a>(
    before: &'a BTreeMap<u16, Vec<Listener>>,
    after: &'a BTreeMap<u16, Vec<Listener>>,
) -> impl Iterator<Item = Change> + 'a {
    let goes_on = |port: &u16| {
        let (Some(before), Some(after)) = (before.get(port), after.get(port)) else { return false };
        after.iter().any(|listener| before.contains(listener))
    };
    let closed = before.keys().filter(move |port| !goes_on(port)).map(|port| Change::Closed(*port));
    let opened = after.iter().filter(move |(port, _)| !goes_on(port));
    closed.chain(opened.map(|(port, listeners)| Change::Opened(*port, listeners.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(listeners: &[(u16, u64)]) -> BTreeMap<u16, Vec<Listener>> {
        let mut ports: BTreeMap<u16, Vec<Listener>> = BTreeMap::new();
        for &(port, inode) in listeners {
            let address = ([127, 0, 0, 1], port).into();
            ports.entry(port).or_default().push(Listener { address, inode, uid: 0 });
        }
        ports
    }

    #[test]
    fn what_is_another_socket_was_closed_and_opened() {
        let told = |before: &[(u16, u64)], after: &[(u16, u64)]| {
            let (before, after) = (table(before), table(after));
            let word = |change| match change {
                Change::Opened(port, _) => format!("+{port}"),
                Change::Closed(port) => format!("-{port}"),
                Change::Snapshot(_) => unreachable!(),
            };
            changes(&before, &after).map(word).collect::<Vec<_>>()
        };
        assert_eq!(told(&[(1, 1), (2, 2)], &[(2, 2), (3, 3)]), ["-1", "+3"]);
        assert_eq!(told(&[(1, 1)], &[(1, 2)]), ["-1", "+1"]);
        assert_eq!(told(&[(1, 1)], &[(1, 1), (1, 2)]), [""; 0]);
        assert_eq!(told(&[(1, 1), (1, 2)], &[(1, 2)]), [""; 0]);
    }
}
