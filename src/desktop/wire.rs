//! JSON of the life cycle (contract `computer-use.md` 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::parts::Kind;
use super::processes::{Overall, Processes};
use super::unit::State;
use crate::http::extract::exactly_true;

/// What became of a start or a stop.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ComputerUseStartResponse)]
pub(super) struct Changed {
    message: &'static str,
    /// By the names of the processes.
    status: BTreeMap<&'static str, ProcessStatus>,
}

impl Changed {
    pub(super) fn new(message: &'static str, processes: &Processes) -> Self {
        let status = |kind: Kind| (kind.name(), ProcessStatus::new(kind, &processes.state(kind)));
        Self { message, status: Kind::ALL.into_iter().map(status).collect() }
    }
}

/// How one process is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProcessStatus)]
pub(super) struct ProcessStatus {
    /// Alive and ready.
    running: bool,
    /// The lower, the earlier it is started.
    priority: u16,
    /// Started again when it ends.
    auto_restart: bool,
    /// Absent when it does not run or is not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

impl ProcessStatus {
    fn new(kind: Kind, state: &State) -> Self {
        let pid = if let State::Ready { pid } = state { *pid } else { None };
        Self { running: state.is_ready(), priority: kind.priority(), auto_restart: true, pid }
    }
}

/// How the desktop is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ComputerUseStatusResponse)]
pub(super) struct Status {
    /// `active`, `partial` or `inactive`.
    #[schema(example = "active")]
    status: &'static str,
    /// Only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<StatusDetail>,
}

/// What is known of the desktop beyond the contract.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusDetail {
    /// Name of the display.
    pub(super) display: String,
    /// Name of the window manager, as it calls itself; absent when none runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) window_manager: Option<String>,
    /// Whether the X server was started by this daemon.
    pub(super) owns_display: bool,
    /// Keys that requests hold down; null while a request uses mouse and keyboard.
    pub(super) held: Option<Vec<String>>,
    /// Why processes do not run, by their names.
    pub(super) reasons: BTreeMap<&'static str, String>,
}

impl Status {
    pub(super) fn new(overall: Overall, detail: Option<StatusDetail>) -> Self {
        let status = match overall {
            Overall::Active => "active",
            Overall::Partial => "partial",
            Overall::Inactive => "inactive",
        };
        Self { status, detail }
    }
}

/// Query of a status.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct StatusQuery {
    /// Adds what is known beyond the contract, as `detail`.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    pub(super) detail: bool,
}

/// Whether a process runs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProcessStatusResponse)]
pub(super) struct Running {
    pub(super) process_name: String,
    /// Alive and ready.
    pub(super) running: bool,
}

/// A process was started anew.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProcessRestartResponse)]
pub(super) struct Restarted {
    pub(super) message: String,
    pub(super) process_name: String,
}

/// Query of a log.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct LogQuery {
    /// Bytes from the end, 1 MiB by default; the reply begins with a whole line.
    #[serde(default)]
    #[param(required = false)]
    pub(super) tail: Option<u64>,
}

/// What a process printed on standard output.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProcessLogsResponse)]
pub(super) struct Logs {
    pub(super) process_name: String,
    pub(super) logs: String,
}

/// What a process printed on standard error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProcessErrorsResponse)]
pub(super) struct Errors {
    pub(super) process_name: String,
    pub(super) errors: String,
}
