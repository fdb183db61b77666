//! TCP sockets of this machine, from `/proc/net/tcp` and `/proc/net/tcp6` (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The user id that owns the socket whose own address is `own` and whose peer is `peer`; none when there is no such
/// socket on this machine, or no `/proc`.
pub fn owner(own: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let (own, peer) = (canonical(own), canonical(peer));
    // A client may use an IPv6 socket for an IPv4 address, so both tables count.
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table
            .lines()
            .skip(1)
            .filter_map(parse)
            .find(|row| row.own == own && row.peer == peer)
            .map(|row| row.uid)
    })
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    own: SocketAddr,
    peer: SocketAddr,
    uid: u32,
}

fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let own = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let uid = fields.nth(4)?.parse().ok()?;
    Some(Row { own, peer, uid })
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
    Some(canonical(SocketAddr::new(address, port)))
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
            uid: 1000,
        };
        assert_eq!(row, Some(expected));
        assert_eq!(address("0000000000000000FFFF00000100007F:08E8"), Some("127.0.0.1:2280".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0016"), Some("[::1]:22".parse().unwrap()));
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn the_owner_of_a_connection_is_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let uid = owner(client.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(uid, Some(rustix::process::geteuid().as_raw()));
    }
}
