//! A health check from outside the process, for images that have no other HTTP client.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::os_text;

/// Longest that connecting, asking and answering may take, each.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the daemon that listens at one of `addresses` for its version.
///
/// # Errors
/// When none answers: what the first said.
pub fn check(addresses: &[SocketAddr]) -> io::Result<()> {
    let mut failure = None;
    for address in addresses {
        match ask(reachable(*address)) {
            Ok(()) => return Ok(()),
            Err(error) => {
                failure =
                    failure.or(Some(io::Error::new(error.kind(), format!("{address}: {}", os_text(&error)))))
            }
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("no address to ask at")))
}

/// All interfaces are reached by way of loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(
        format!("GET /version HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut reply = String::new();
    stream.take(64 * 1024).read_to_string(&mut reply)?;
    let status = reply.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("it answered {status:?}")));
    }
    Ok(())
}
