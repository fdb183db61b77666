//! TCP sockets of this machine: who owns a connection, what listens, and which ports are the daemon's own.
//!
//! The kernel is asked through sock_diag(7), which answers for one socket or for listeners alone; where that is not to
//! be had, as in gVisor, `/proc/net/tcp` is read.

mod diag;
mod holders;
mod table;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use diag::Closings;
pub use holders::{Holder, holders};

/// A TCP socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where it listens, as its program said: `::` takes IPv4 connections too, most of the time.
    pub address: SocketAddr,
    /// Number of the socket in the kernel's own file system: another socket has another one.
    pub inode: u64,
    /// User that made it.
    pub uid: u32,
}

/// The user id that owns the socket whose own address is `own` and whose peer is `peer`; none when there is no such
/// socket on this machine, or neither sock_diag nor `/proc`. Blocks for microseconds.
pub fn owner(own: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let (own, peer) = (canonical(own), canonical(peer));
    diag::owner(own, peer).or_else(|_| table::owner(own, peer)).ok()?
}

/// Every TCP socket that listens, IPv4 and IPv6, sorted by address. Blocks for microseconds.
///
/// # Errors
/// When neither sock_diag nor `/proc` is there.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = diag::listeners().or_else(|_| table::listeners())?;
    found.sort_by_key(|listener| (listener.address.port(), listener.address, listener.inode));
    Ok(found)
}

/// The port that `text` names: decimal digits without a leading zero, 1 to 65535, and nothing else. Every place that
/// takes a port from a URL reads it with this one function, so that what is checked is what is connected to.
pub fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_plain.then(|| text.parse().ok())?
}

/// Ports that the daemon itself listens on; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct OwnPorts {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    api: OnceLock<u16>,
    others: Mutex<BTreeSet<u16>>,
}

impl OwnPorts {
    /// The toolbox API is served on `port`, from now to the end.
    pub fn set_api(&self, port: u16) {
        let _ = self.inner.api.set(port); // there is one API
    }

    /// Another service of the daemon listens on `port`.
    pub fn add(&self, port: u16) {
        self.inner.others.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
    }

    /// Whether `port` is the toolbox API's.
    pub fn is_api(&self, port: u16) -> bool {
        self.inner.api.get() == Some(&port)
    }

    /// Whether `port` is any of the daemon's.
    pub fn contains(&self, port: u16) -> bool {
        self.is_api(port) || self.inner.others.lock().unwrap_or_else(PoisonError::into_inner).contains(&port)
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_plain_digits() {
        assert_eq!([port("1"), port("2280"), port("65535")], [Some(1), Some(2280), Some(65535)]);
        for text in [
            "", "0", "02280", "+2280", "-1", " 2280", "2280 ", "2280.", "2280.0", "%32280", "0x8e8", "65536",
            "[::]", "２",
        ] {
            assert_eq!(port(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_owner_of_a_connection_is_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(here).unwrap();
        let us = Some(rustix::process::geteuid().as_raw());
        let own = client.local_addr().unwrap();
        assert_eq!((owner(own, here), table::owner(own, here).unwrap()), (us, us));
        // The same port is no match: there is only a listener at it.
        assert_eq!(owner(here, own).and(owner(here, "127.0.0.1:9".parse().unwrap())), None);
    }

    #[test]
    fn both_sources_know_a_listener_of_either_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(address).unwrap();
            let here = listener.local_addr().unwrap();
            for found in [diag::listeners().unwrap(), table::listeners().unwrap()] {
                let found = found.iter().find(|found| found.address == here).unwrap();
                assert_eq!(found.uid, rustix::process::geteuid().as_raw());
                let holders = holders(&[found.inode].into());
                assert_eq!(holders[&found.inode].pid, std::process::id());
            }
        }
    }
}
