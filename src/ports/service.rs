//! What listens, and on which ports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::local;
use super::proxy::Proxy;
use super::watch::Table;
use crate::error::{Error, Result};
use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;
use crate::platform::sockets::{self, Holder, Listener, OwnPorts};

/// Time for a connection that only asks whether something listens.
const PROBE: Duration = Duration::from_millis(50);

/// The ports of this machine; a cheap handle.
#[derive(Debug, Clone)]
pub struct Ports {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    lane: Lane,
    own: OwnPorts,
    pub(super) proxy: Proxy,
    pub(super) shutdown: Shutdown,
    /// What those who watch share, while there are any.
    pub(super) watched: Mutex<Weak<watch::Sender<Table>>>,
}

/// Something that listens, and what is known of the process that it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub(super) listener: Listener,
    pub(super) holder: Option<Holder>,
}

impl Ports {
    /// Without the ports in `own`; the proxy has `connections` at a time.
    pub fn new(own: OwnPorts, connections: usize, shutdown: Shutdown) -> Self {
        Self {
            inner: Arc::new(Inner {
                lane: Lane::new(2),
                proxy: Proxy::new(own.clone(), connections, shutdown.clone()),
                own,
                shutdown,
                watched: Mutex::default(),
            }),
        }
    }

    /// Ports that are listened on with TCP, by number.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) async fn list(&self) -> Result<BTreeMap<u16, Vec<Listener>>> {
        let found = self.inner.lane.run(sockets::listeners).await?;
        let found = found.map_err(|error| {
            Error::internal("the system does not tell which ports are listened on").with_source(error)
        })?;
        let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for listener in found.into_iter().filter(|found| !self.inner.own.contains(found.address.port())) {
            ports.entry(listener.address.port()).or_default().push(listener);
        }
        Ok(ports)
    }

    /// Looks for the processes behind `listeners`.
    ///
    /// # Errors
    /// Only when looking panicked.
    pub(super) async fn describe(&self, listeners: Vec<Listener>) -> Result<Vec<Listening>> {
        let describe = move || {
            let inodes = listeners.iter().map(|listener| listener.inode).collect();
            let holders = sockets::holders(&inodes);
            let holder = |listener: &Listener| holders.get(&listener.inode).cloned();
            listeners.into_iter().map(|it| Listening { holder: holder(&it), listener: it }).collect()
        };
        self.inner.lane.run(describe).await
    }

    /// Whether something listens on `port`; where the table does not have it, as in a network namespace that is partly
    /// hidden, a connection decides.
    ///
    /// # Errors
    /// As [`Ports::list`].
    pub(super) async fn is_in_use(&self, port: u16) -> Result<bool> {
        Ok(self.list().await?.contains_key(&port) || local::connect(port, PROBE).await.is_ok())
    }
}
