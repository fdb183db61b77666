//! sock_diag(7): the kernel's own answers about TCP sockets, over netlink(7).
//!
//! Written out by hand: it is one message of fixed length each way, and the crates for it bring a framework for all of
//! netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};
use tokio::io::unix::AsyncFd;

use super::{Listener, canonical};

/// `SOCK_DIAG_BY_FAMILY`: both the question and the answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, and `NLM_F_DUMP` for all sockets that match instead of one.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The set of states that has `TCP_LISTEN` alone, and the one that has all.
const LISTENS: u32 = 1 << 10;
const ANY: u32 = u32::MAX;
/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`, as a mask of groups.
const DESTROYED: u32 = 1 | 1 << 2;
/// Header of every message (`struct nlmsghdr`), and of an answer what is read of it (`struct inet_diag_msg`).
const HEADER: usize = 16;
const SOCKET: usize = 72;
/// Larger than any message of the kernel's (`NLMSG_GOODSIZE`, and what a dump fills).
const BUFFER: usize = 32 * 1024;
/// The kernel answers at once; a sandbox that only looks like one may not answer at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// The user id of the one socket between these addresses, which are canonical.
pub(super) fn owner(own: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
    let mut owner = None;
    ask(&question(REQUEST, ANY, own, peer), |socket| {
        // The kernel falls back to a listener.
        if canonical(socket.own) == own && canonical(socket.peer) == peer {
            owner = Some(socket.uid);
        }
    })?;
    Ok(owner)
}

pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
        let any = SocketAddr::new(any, 0);
        ask(&question(REQUEST | DUMP, LISTENS, any, any), |Socket { own, uid, inode, .. }| {
            found.push(Listener { address: own, inode, uid });
        })?;
    }
    Ok(found)
}

/// Tells when sockets that listened have been closed: the kernel says so to who asks (since Linux 4.5, no privilege).
#[derive(Debug)]
pub struct Closings {
    socket: AsyncFd<OwnedFd>,
}

impl Closings {
    /// Those from now on, in this network namespace.
    ///
    /// # Errors
    /// Where the kernel cannot tell.
    pub fn new() -> io::Result<Self> {
        let socket = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrNetlink::new(0, DESTROYED))?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, for descriptors that nobody owns; this one is owned"
        )]
        Ok(Self { socket: AsyncFd::new(socket)? })
    }

    /// Waits until at least one has been closed. Cancel safe.
    ///
    /// # Errors
    /// When the kernel cannot tell any longer.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut is_one = false;
            loop {
                let mut buffer = [0; 4096];
                match recv(self.socket.get_ref(), &mut buffer, RecvFlags::empty()) {
                    // Every socket of every connection is told, and only those that listened have no peer.
                    Ok((_, count)) => each(&buffer[..count], |kind, body| {
                        is_one |= kind == BY_FAMILY && parse(body).is_some_and(|it| it.peer.port() == 0);
                    }),
                    Err(Errno::AGAIN) => break,
                    // More than the queue holds: there may have been one.
                    Err(Errno::NOBUFS) => is_one = true,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if is_one {
                return Ok(());
            }
        }
    }
}

fn open(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?)
}

/// Asks and gives each socket of the answer to `found`.
fn ask(question: &[u8], mut found: impl FnMut(Socket)) -> io::Result<()> {
    let socket = open(SocketFlags::CLOEXEC)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    sendto(&socket, question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let is_dump = question[6..8] != REQUEST.to_ne_bytes();
    let mut buffer = vec![0; BUFFER];
    loop {
        let (_, count) = match recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            received => received?,
        };
        let (mut is_last, mut failure) = (!is_dump, None);
        each(&buffer[..count], |kind, body| match kind {
            DONE => is_last = true,
            ERROR => failure = Some(error_of(body)),
            BY_FAMILY => parse(body).into_iter().for_each(&mut found),
            _ => {}
        });
        match failure {
            Some(error) => return Err(error),
            None if is_last || count == 0 => return Ok(()),
            None => {}
        }
    }
}

/// A negated errno comes first.
fn error_of(body: &[u8]) -> io::Error {
    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(code.wrapping_neg())
}

/// Kind and content of each message in what was received at once.
fn each(mut bytes: &[u8], mut message: impl FnMut(u16, &[u8])) {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = bytes.get(HEADER..length) else { return };
        message(u16::from_ne_bytes([header[4], header[5]]), body);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// `struct nlmsghdr` with a `struct inet_diag_req_v2`.
fn question(flags: u16, states: u32, own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if own.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let mut body = vec![u8::try_from(family.as_raw()).unwrap_or_default(), 6, 0, 0]; // IPPROTO_TCP
    body.extend(states.to_ne_bytes());
    body.extend(own.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(octets(own.ip()));
    body.extend(octets(peer.ip()));
    body.extend([0; 4]); // any interface
    body.extend([0xFF; 8]); // no cookie
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut question = length.to_ne_bytes().to_vec();
    question.extend(BY_FAMILY.to_ne_bytes());
    question.extend(flags.to_ne_bytes());
    question.extend([0; 8]); // sequence number and sender: there is one question a socket
    question.extend(body);
    question
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
    }
}

struct Socket {
    own: SocketAddr,
    peer: SocketAddr,
    uid: u32,
    inode: u64,
}

/// Reads a `struct inet_diag_msg`: family at 0; ports and addresses from 4; uid and inode at the end.
fn parse(bytes: &[u8]) -> Option<Socket> {
    let bytes = bytes.first_chunk::<SOCKET>()?;
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let address = |port: usize, at: usize| {
        let octets = <[u8; 16]>::try_from(&bytes[at..at + 16]).ok()?;
        let ip = match AddressFamily::from_raw(bytes[0].into()) {
            AddressFamily::INET => IpAddr::from(*octets.first_chunk::<4>()?),
            AddressFamily::INET6 => IpAddr::from(octets),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes([bytes[port], bytes[port + 1]])))
    };
    Some(Socket { own: address(4, 8)?, peer: address(6, 24)?, uid: word(64), inode: word(68).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_closing_of_a_listener_is_told() {
        let mut closings = Closings::new().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            drop(std::net::TcpListener::bind(address).unwrap());
            closings.next().await.unwrap();
        }
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let whole = question(REQUEST, ANY, "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert_eq!(whole.len(), HEADER + 56);
        let count = |bytes: &[u8]| {
            let mut count = 0;
            each(bytes, |_, _| count += 1);
            count
        };
        assert_eq!(
            (count(&whole), count(&whole[..whole.len() - 1]), count(&whole[..3]), count(&[0; 64])),
            (1, 0, 0, 0)
        );
        assert!(parse(&[2; SOCKET - 1]).is_none() && parse(&[99; SOCKET]).is_none());
    }
}
