//! A WebSocket client that says what it expects.

use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::daemon::{Daemon, within};

/// A connected socket.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Of the reply to the handshake.
    pub(crate) headers: HeaderMap,
}

impl Socket {
    pub(crate) async fn connect(daemon: &Daemon, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{}{path}", daemon.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(daemon.address).await.unwrap();
        let (stream, reply) = within(client_async(request, stream)).await.unwrap();
        Self { stream, headers: reply.headers().clone() }
    }

    /// The next message that is no ping.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let message = within(self.stream.next()).await.expect("a close frame comes first").unwrap();
            if !message.is_ping() {
                return message;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        within(self.stream.send(message)).await.unwrap();
    }

    /// All binary frames up to the close, and its code.
    pub(crate) async fn frames(mut self) -> (Vec<Vec<u8>>, u16) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Message::Binary(bytes) => frames.push(bytes.to_vec()),
                Message::Close(close) => return (frames, close.map_or(1005, |close| close.code.into())),
                other => panic!("{other:?}"),
            }
        }
    }
}
