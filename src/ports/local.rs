//! Connecting to a port of this machine.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A connection that is not refused and not made either, as when the queue of what listens is full, holds up the other
/// family for so long.
const HEAD_START: Duration = Duration::from_millis(100);

/// Connects to 127.0.0.1 or, when nothing listens there, to ::1: programs that listen on `localhost` choose either.
///
/// # Errors
/// What the system says of 127.0.0.1, and [`io::ErrorKind::TimedOut`] after `limit`.
pub(super) async fn connect(port: u16, limit: Duration) -> io::Result<TcpStream> {
    let both = async {
        let mut first = std::pin::pin!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        let second = async { TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await };
        let early = tokio::select! {
            early = &mut first => Some(early),
            () = sleep(HEAD_START) => None,
        };
        match early {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => second.await.map_err(|_| error),
            None => {
                let mut second = std::pin::pin!(second);
                tokio::select! {
                    Ok(stream) = &mut first => Ok(stream),
                    Ok(stream) = &mut second => Ok(stream),
                    else => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            }
        }
    };
    let stream = timeout(limit, both).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
