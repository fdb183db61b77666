//! `/proc/net/tcp` and `/proc/net/tcp6` (proc(5)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Listener, canonical};

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// `TCP_LISTEN`, as the tables have it.
const LISTENS: u8 = 0x0A;

pub(super) fn owner(own: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
    // A client may use an IPv6 socket for an IPv4 address, so both tables count.
    let row = rows()?.into_iter().find(|row| canonical(row.own) == own && canonical(row.peer) == peer);
    Ok(row.map(|row| row.uid))
}

pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let rows = rows()?.into_iter().filter(|row| row.state == LISTENS);
    Ok(rows.map(|Row { own, inode, uid, .. }| Listener { address: own, inode, uid }).collect())
}

/// The rows of both tables; a kernel without IPv6 has one.
fn rows() -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut failure = None;
    for table in TABLES {
        match std::fs::read_to_string(table) {
            Ok(table) => rows.extend(table.lines().skip(1).filter_map(parse)),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if rows.is_empty() => Err(error),
        _ => Ok(rows),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    own: SocketAddr,
    peer: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let own = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Row { own, peer, state, uid, inode })
}

/// `0100007F:08E8`: words of 32 bits in the machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in 0..address.len() / 8 {
        let word = u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_both_tables_are_read() {
        let row = parse(
            "   0: 0100007F:A1B2 0100007F:08E8 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0",
        );
        let expected = Row {
            own: "127.0.0.1:41394".parse().unwrap(),
            peer: "127.0.0.1:2280".parse().unwrap(),
            state: 1,
            uid: 1000,
            inode: 12345,
        };
        assert_eq!(row, Some(expected));
        let mapped = address("0000000000000000FFFF00000100007F:08E8").map(canonical);
        assert_eq!(mapped, Some("127.0.0.1:2280".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0016"), Some("[::1]:22".parse().unwrap()));
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue"), None);
    }
}
