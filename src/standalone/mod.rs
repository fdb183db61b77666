//! Stand-alone: the few platform calls that an SDK makes, answered at `/api` with one sandbox, this daemon.
//!
//! So an unmodified SDK works with nothing but this binary. Only there when no platform is around the daemon; with
//! one, `/api` does not exist.
//!
//! ```text
//!              stop               delete
//!    Started ------> Stopped ---------------> (none)
//!       ^  <------           delete              |
//!       |    start   ------------------------->  |
//!       |                   create               |
//!       +----------------------------------------+
//! ```
//!
//! - The sandbox is there when the daemon starts, under the host's name. Its state is a word kept in memory: stopping
//!   and deleting end no process, lock nobody out and remove no file. The daemon has one machine for all its clients,
//!   and a program that tidies up after itself must not end what another one runs.
//! - `create` describes the one sandbox anew: name, labels, intervals, public flag. Its variables join the environment
//!   of later processes; `delete` takes the environment back to what the daemon was started with.
//! - What `create` cannot honour (image, snapshot, resources, volumes, network limits) is named in the log, and it goes
//!   on. Intervals are kept and told, and nothing acts on them, but for an auto-delete interval of 0: stopping then
//!   deletes, as SDKs expect of an ephemeral sandbox.
//! - What has no meaning here (snapshots, volumes, organisations, resizing, forking and so on) is refused with 501.
//! - Every state is reached before the call that asks for it answers, so an SDK that waits for one has it at once.
//!   Other clients learn of it through `events.rs`.

mod events;
pub(crate) mod routes;
mod service;
mod wire;

pub use service::Standalone;
