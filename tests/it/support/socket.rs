//! A WebSocket client that says what it expects.

use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::client::Client;
use super::daemon::within;

/// An open socket.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Of the reply to the handshake.
    pub(crate) headers: HeaderMap,
    /// Of the close, once it has come.
    pub(crate) reason: String,
}

impl Client {
    /// Upgrades with these headers beside those of the handshake.
    ///
    /// # Errors
    /// The status and body of the reply when it is no upgrade.
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, (u16, String)> {
        let mut request = self.url(path).replacen("http", "ws", 1).into_client_request().unwrap();
        if headers.iter().any(|(name, _)| *name == "host") {
            request.headers_mut().remove("host");
        }
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match within(connect_async(request)).await {
            Ok((inner, reply)) => {
                Ok(Socket { inner, headers: reply.headers().clone(), reason: String::new() })
            }
            Err(Error::Http(reply)) => {
                let body = reply.body().as_deref().unwrap_or_default();
                Err((reply.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Upgrades, and wants success.
    pub(crate) async fn socket(&self, path: &str) -> Socket {
        self.upgrade(path, &[]).await.unwrap()
    }
}

impl Socket {
    /// The subprotocol that the daemon chose.
    pub(crate) fn protocol(&self) -> Option<&str> {
        self.headers.get("sec-websocket-protocol").map(|value| value.to_str().unwrap())
    }

    /// Sends a text frame with JSON.
    pub(crate) async fn send_json(&mut self, value: &Value) {
        self.say(&value.to_string()).await;
    }

    /// The next frame with data; the code of the close, when it comes instead.
    pub(crate) async fn next(&mut self) -> Result<Message, u16> {
        loop {
            match within(self.inner.next()).await.expect("a socket ends with a close").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => {
                    // Completes the handshake.
                    while within(self.inner.next()).await.is_some() {}
                    let frame = frame.expect("a close has a code");
                    self.reason = frame.reason.to_string();
                    return Err(frame.code.into());
                }
                message => return Ok(message),
            }
        }
    }

    /// Sends a text frame.
    pub(crate) async fn say(&mut self, text: &str) {
        within(self.inner.send(Message::text(text))).await.unwrap();
    }

    /// Closes it and waits for the other end's close.
    pub(crate) async fn close(mut self) {
        within(self.inner.close(None)).await.unwrap();
        while within(self.inner.next()).await.is_some() {}
    }

    /// The next text frame as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let message = self.next().await.unwrap_or_else(|code| panic!("closed with {code}"));
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// Wants a close and gives its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        match self.next().await {
            Ok(message) => panic!("not closed: {message:?}"),
            Err(code) => code,
        }
    }

    /// All binary frames up to the close, and its code.
    pub(crate) async fn frames(mut self) -> (Vec<Vec<u8>>, u16) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Ok(Message::Binary(bytes)) => frames.push(bytes.to_vec()),
                Ok(other) => panic!("{other:?}"),
                Err(code) => return (frames, code),
            }
        }
    }

    /// Sends a frame; waits while the daemon takes nothing.
    pub(crate) async fn send(&mut self, message: Message) {
        within(self.inner.send(message)).await.unwrap();
    }

    /// Ends the connection without a word.
    pub(crate) fn vanish(self) {
        drop(self.inner);
    }

    /// Sends a ping and waits for its pong.
    pub(crate) async fn ping(&mut self) {
        self.inner.send(Message::Ping("are you there".into())).await.unwrap();
        loop {
            match within(self.inner.next()).await.unwrap().unwrap() {
                Message::Pong(data) if data == "are you there" => return,
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }
}
