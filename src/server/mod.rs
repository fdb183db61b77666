//! Bind, serve, drain.
//!
//! hyper is driven by hand instead of through `axum::serve`, for what that cannot do: time-outs that tell a slow head
//! from an idle connection, large heads, and facts about the peer that are looked up once a connection.

mod auth;
mod connection;
mod docs;
mod exchange;
pub mod health;
mod held;
mod layers;
mod preview;
pub mod router;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{info, warn};

pub use auth::Access;
use router::Api;

use crate::error::os_text;
use crate::platform::shutdown::Shutdown;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Binds the first of `addresses` that works.
///
/// # Errors
/// What the system says of the first one.
pub fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut failure = None;
    for address in addresses {
        match listen(*address) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                failure =
                    failure.or(Some(io::Error::new(error.kind(), format!("{address}: {}", os_text(&error)))))
            }
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("no address to listen on")))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?; // a restarted daemon may bind while old connections linger
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `shutdown`, then drains: no new connections, requests under way get `grace` to end.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    access: Arc<Access>,
    connections: usize,
    shutdown: Shutdown,
    grace: Duration,
) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let connection =
                    connection::serve(stream, peer, api.clone(), Arc::clone(&access), shutdown.clone());
                shutdown.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: existing connections have to end first.
                warn!(%error, "cannot accept connections at the moment");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let late = shutdown.wait(grace).await;
    if late > 0 {
        warn!("{late} tasks did not end within the grace period");
    }
    info!("stopped");
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // A peer that vanished without a word is noticed after two minutes, also on streams that only ever send.
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok((stream, peer, place))
}

/// The peer gave up before it was served: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected
    )
}
