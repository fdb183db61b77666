//! JSON of ports (contract `core.md` 2).

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::service::Listening;
use crate::http::extract::exactly_true;

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct PortsQuery {
    /// Adds `listeners`: address, user and process of each.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    pub(super) detail: bool,
}

/// What is listened on with TCP, over IPv4 or IPv6, without the daemon's own ports.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PortList {
    /// Sorted, each once.
    #[schema(example = json!([3000, 8080]))]
    pub(super) ports: Vec<u16>,
    /// With `detail=true`, sorted by port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listeners: Option<Vec<ListenerDto>>,
}

/// A socket that listens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Listener)]
pub(super) struct ListenerDto {
    port: u16,
    /// The address that it listens on; `0.0.0.0` and `::` are all.
    #[schema(example = "127.0.0.1")]
    address: String,
    /// User id of the socket.
    uid: u32,
    /// The process that holds it; null when it is another user's and the daemon is not root.
    process: Option<ProcessDto>,
}

/// A process that listens; of several, the one with the lowest id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListenerProcess)]
pub(super) struct ProcessDto {
    pid: u32,
    /// As `ps` shows it.
    #[schema(example = "node")]
    name: String,
    /// Its arguments with spaces between.
    #[schema(example = "node server.js")]
    command: String,
}

impl From<Listening> for ListenerDto {
    fn from(Listening { listener, holder }: Listening) -> Self {
        Self {
            port: listener.address.port(),
            address: listener.address.ip().to_string(),
            uid: listener.uid,
            process: holder.map(|it| ProcessDto { pid: it.pid, name: it.name, command: it.command }),
        }
    }
}

/// Whether something listens on the port.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InUse {
    pub(super) is_in_use: bool,
}

/// What is new.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum PortEvent {
    /// The first event: what is listened on already. From now on each change is told.
    Snapshot(PortList),
    /// Something listens on a port that nothing listened on.
    Open {
        port: u16,
        /// With `detail=true`.
        #[serde(skip_serializing_if = "Option::is_none")]
        listeners: Option<Vec<ListenerDto>>,
    },
    /// Nothing listens on the port any more.
    Close { port: u16 },
}

impl PortEvent {
    /// The event as one line of JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("an event is plain JSON")
    }
}
