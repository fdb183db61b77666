//! JSON of the core endpoints (contract `core.md` 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::platform::metrics::Metrics;

/// A directory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Directory {
    /// Absolute path.
    pub(super) dir: String,
}

/// What serves this API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    /// Version of toolboxd.
    #[schema(example = "v0.1.0")]
    pub(super) version: String,
}

/// A sentence that says what was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    pub(super) message: &'static str,
}

/// What the platform tells the daemon after its start.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Init {
    /// Token of the sandbox, sent with exported telemetry.
    #[serde(default)]
    pub(super) token: Option<String>,
}

/// Changes to the environment that later processes inherit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateEnv {
    /// Names removed first.
    #[serde(default)]
    pub(super) unset: Option<Vec<String>>,
    /// Then every variable whose value starts with this is removed, unless `set` has its name. Empty does nothing.
    #[serde(default)]
    pub(super) unset_value_prefix: Option<String>,
    /// Applied last.
    #[serde(default)]
    pub(super) set: Option<BTreeMap<String, String>>,
}

/// Use of the sandbox's resources at this moment, against the limits of its cgroup, else the machine.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SystemMetrics {
    /// CPUs that may be used; a fraction is rounded up.
    cpu_count: u64,
    /// Percentage of the CPU limit used since the sample before this one; 0 while there is none.
    cpu_used_pct: f64,
    /// Bytes of memory that may be used.
    mem_total: u64,
    /// Bytes of memory in use, without the page cache that the kernel can take back.
    mem_used: u64,
    /// Bytes of page cache.
    mem_cache: u64,
    /// Bytes of the file system of `/`.
    disk_total: u64,
    /// Bytes used of it.
    disk_used: u64,
    /// Bytes free of it for this user.
    disk_free: u64,
    /// When this was measured, RFC 3339.
    timestamp: String,
    /// The same in seconds since 1970.
    timestamp_unix: i64,
}

impl From<Metrics> for SystemMetrics {
    fn from(metrics: Metrics) -> Self {
        let now = jiff::Timestamp::now();
        Self {
            cpu_count: metrics.cpus.ceil().max(1.0) as u64,
            cpu_used_pct: metrics.cpu_percent,
            mem_total: metrics.memory_total,
            mem_used: metrics.memory_used,
            mem_cache: metrics.memory_cache,
            disk_total: metrics.disk_total,
            disk_used: metrics.disk_used,
            disk_free: metrics.disk_free,
            timestamp: format!("{now:.3}"),
            timestamp_unix: now.as_second(),
        }
    }
}
