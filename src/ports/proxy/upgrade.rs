//! What follows a switch of protocols: bytes both ways, whatever they mean.

use hyper::client::conn::http1::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use crate::platform::shutdown::Shutdown;
use crate::platform::splice::Socket;

/// Bytes read at a time, in either direction.
const CHUNK: usize = 16 * 1024;

/// Connects the two ends, each direction until its end, in a task of its own; the daemon's end cuts both. Peers that
/// vanish are noticed by TCP's keep-alive.
pub(super) fn splice(
    shutdown: &Shutdown,
    client: OnUpgrade,
    server: Parts<TokioIo<Socket>>,
    place: OwnedSemaphorePermit,
) {
    let stop = shutdown.cancelled();
    shutdown.spawn(async move {
        let _place = place;
        let copied = async {
            let mut client = TokioIo::new(client.await.map_err(std::io::Error::other)?);
            let mut socket = server.io.into_inner();
            client.write_all(&server.read_buf).await?;
            client.flush().await?;
            copy_bidirectional_with_sizes(&mut client, &mut socket, CHUNK, CHUNK).await
        };
        tokio::select! {
            () = stop => {}
            ended = copied => {
                if let Err(error) = ended {
                    debug!(%error, "an upgraded connection ended");
                }
            }
        }
    });
}
