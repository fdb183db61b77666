//! What every slice may need of the operating system and the runtime. Knows nothing of HTTP or of any slice.

pub mod blocking;
pub mod cgroup;
pub mod idempotency;
pub mod init;
pub mod metrics;
pub mod microvm;
pub mod passes;
pub mod paths;
pub mod replacement;
pub mod resident;
pub mod shared_memory;
pub mod shutdown;
pub mod sockets;
pub mod splice;
pub mod telemetry;
pub mod timer;
pub mod tls;
pub mod users;
