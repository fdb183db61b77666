//! `toolboxd entrypoint logs`: prints the entrypoint's log of the daemon that runs here, each stream where it belongs.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::{Config, PORT};
use crate::error::os_text;

/// Prints the log, and with `follow` what is yet to come of it, until the command has ended.
///
/// # Errors
/// When no daemon answers, it refuses, or the output cannot be written.
pub async fn print(config: &Config, follow: bool) -> io::Result<()> {
    let address = address(config);
    let stream = TcpStream::connect(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("no daemon answers on {address}: {}", os_text(&error)))
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
    let answered = async {
        let mut request = Request::get(format!("/process/session/entrypoint/logs?follow={follow}"))
            .header(header::HOST, "localhost")
            .header("x-daytona-split-output", "true");
        if let Some(token) = &config.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let request = request.body(Empty::new()).map_err(io::Error::other)?;
        let mut reply = sender.send_request(request).await.map_err(io::Error::other)?;
        if reply.status() != StatusCode::OK {
            return Err(io::Error::other(format!("the daemon on {address} answers {}", reply.status())));
        }
        let (mut units, mut out, mut err) = (Units::default(), io::stdout().lock(), io::stderr().lock());
        while let Some(frame) = reply.frame().await {
            if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
                units.push(&bytes, &mut out, &mut err)?;
            }
        }
        units.finish(&mut out, &mut err)
    };
    tokio::select! {
        result = answered => result,
        Err(error) = connection => Err(io::Error::other(error)),
    }
}

/// Where the daemon listens that has the same settings as we have.
fn address(config: &Config) -> SocketAddr {
    let mut address = config.listen.unwrap_or_else(|| (IpAddr::V4(Ipv4Addr::LOCALHOST), PORT).into());
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Takes units apart; markers may be cut between two pieces.
#[derive(Debug, Default)]
struct Units {
    is_err: bool,
    held: Vec<u8>,
}

impl Units {
    fn push(&mut self, bytes: &[u8], out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        while let Some(at) = rest.windows(3).position(|three| three == [1; 3] || three == [2; 3]) {
            self.write(&rest[..at], out, err)?;
            self.is_err = rest[at] == 2;
            rest = &rest[at + 3..];
        }
        let last = rest.last().copied().filter(|byte| matches!(byte, 1 | 2));
        let begun = rest.iter().rev().take(2).take_while(|byte| Some(**byte) == last).count();
        let (whole, begun) = rest.split_at(rest.len() - begun);
        self.held.extend_from_slice(begun);
        self.write(whole, out, err)
    }

    fn finish(mut self, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        self.write(&held, out, err)
    }

    fn write(&self, bytes: &[u8], out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
        if self.is_err {
            err.write_all(bytes)?;
            return err.flush();
        }
        out.write_all(bytes)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cut_anywhere_are_taken_apart() {
        let bytes = b"\x01\x01\x01a\x01\x02\x02\x02\x02b\x02\x02\x01\x01\x01c\x01";
        for size in 1..=bytes.len() {
            let (mut units, mut out, mut err) = (Units::default(), Vec::new(), Vec::new());
            bytes.chunks(size).for_each(|piece| units.push(piece, &mut out, &mut err).unwrap());
            units.finish(&mut out, &mut err).unwrap();
            assert_eq!((&out[..], &err[..]), (&b"a\x01c\x01"[..], &b"\x02b\x02\x02"[..]), "{size}");
        }
    }
}
