//! Everything that speaks to remotes: clone, fetch, pull, push (contract `git.md` 2, 9, 10, 15).
//!
//! ```text
//!   routes -> service -> clone, fetch, push        what the operations do, by libgit2
//!                           |        ^
//!                        libgit2     | failure, remarks
//!                           v        |
//!             http, ssh, plain <-> operation       transports: bytes, credentials, waiting, stopping
//! ```
//!
//! libgit2 is built without TLS and SSH of its own. Its transports are ours: they trust whom the rest of the daemon
//! trusts, know proxies, wait for the next byte and not for the whole, and end when the daemon does. Repositories on
//! the same file system are read by libgit2 itself, after [`local`] has copied what it can.

mod clone;
mod configured;
mod connection;
mod credentials;
mod fetch;
mod http;
mod known_hosts;
mod link;
mod local;
mod location;
mod operation;
mod plain;
mod proxy;
mod pull;
mod push;
mod remarks;
pub(crate) mod routes;
mod service;
mod ssh;
mod wire;

use std::sync::Once;

use git2::transport::{Transport, register};

pub use service::Remotes;

use http::Http;
use operation::Operation;
use plain::Plain;
use ssh::Ssh;

/// Tells libgit2 whom to ask for connections; once, before any is made.
#[expect(unsafe_code, reason = "libgit2 keeps its transports in a global list")]
fn register_transports() {
    static DONE: Once = Once::new();
    let current =
        || Operation::current().ok_or_else(|| git2::Error::from_str("there is no operation for this"));
    DONE.call_once(|| {
        for scheme in ["http", "https"] {
            // SAFETY: registered here alone, once, before any operation that uses transports.
            let done = unsafe {
                register(scheme, move |remote| Transport::smart(remote, true, Http::new(current()?)))
            };
            done.expect("the list has room");
        }
        for scheme in ["ssh", "git+ssh", "ssh+git"] {
            // SAFETY: as above.
            let done = unsafe {
                register(scheme, move |remote| Transport::smart(remote, false, Ssh::new(current()?)))
            };
            done.expect("the list has room");
        }
        // SAFETY: as above.
        let done =
            unsafe { register("git", move |remote| Transport::smart(remote, false, Plain::new(current()?))) };
        done.expect("the list has room");
    });
}
