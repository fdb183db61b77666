//! Servers that listen on a port of the sandbox: a well-behaved app, and ones that follow a script.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::{any, get};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::daemon::within;

/// A server; dropping it closes its port.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Handles each connection with `script`, which gets its number, from 0, and the connection.
    pub(crate) async fn scripted<F>(script: impl Fn(usize, Wire) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at("127.0.0.1:0", script).await
    }

    pub(crate) async fn scripted_at<F>(
        address: &str,
        script: impl Fn(usize, Wire) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(script(count.fetch_add(1, Ordering::SeqCst), Wire { stream, read: Vec::new() }));
            }
        });
        Self { port, accepted, task }
    }

    /// Sends `reply` to every request and closes.
    pub(crate) async fn saying(reply: impl Into<Vec<u8>>) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::scripted(move |_, mut wire| {
            let reply = Arc::clone(&reply);
            async move {
                wire.head().await;
                wire.send(&reply).await;
            }
        })
        .await
    }

    /// An app that tells what it was asked, at every path but `/ws`, where it echoes what WebSockets say.
    pub(crate) async fn app() -> Self {
        let app = Router::new()
            .route(
                "/ws",
                get(async |upgrade: WebSocketUpgrade| upgrade.protocols(["second"]).on_upgrade(echo)),
            )
            .fallback(any(told));
        Self::serving(app).await
    }

    /// Whatever axum makes of `app`.
    pub(crate) async fn serving(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, accepted: Arc::default(), task }
    }

    /// Connections so far, of a scripted one.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The path of something of it, at the daemon.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("/proxy/{}{path}", self.port)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn told(request: Request) -> axum::Json<Value> {
    let (head, body) = request.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect();
    let body = body.collect().await.unwrap().to_bytes();
    axum::Json(json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

async fn echo(mut socket: axum::extract::ws::WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A header that the app was sent.
pub(crate) fn sent_header<'a>(told: &'a Value, name: &str) -> Option<&'a str> {
    let lines = told["headers"].as_array().unwrap().iter();
    lines.filter(|line| line[0] == name).map(|line| line[1].as_str().unwrap()).next()
}

/// One end of a connection, byte by byte.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Up to and with `end`; what comes after is kept. None when the connection ends before.
    pub(crate) async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap());
            }
            match within(self.stream.read_buf(&mut self.read)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next `count` bytes, or fewer, when the connection ends before.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            match within(self.stream.read_buf(&mut self.read)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let rest = self.read.split_off(count.min(self.read.len()));
        std::mem::replace(&mut self.read, rest)
    }

    /// The head of a message; empty when the connection ended instead.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.unwrap_or_default()
    }

    /// Everything up to the end of the connection, and whether it ended in order.
    pub(crate) async fn rest(mut self) -> (String, bool) {
        let ended = within(self.stream.read_to_end(&mut self.read)).await;
        (String::from_utf8_lossy(&self.read).into_owned(), ended.is_ok())
    }

    /// The connection, when nothing of what was read is left.
    pub(crate) fn into_stream(self) -> TcpStream {
        assert!(self.read.is_empty());
        self.stream
    }
}

/// A body whose chunks are asked for one by one.
pub(crate) fn streamed(chunks: tokio::sync::mpsc::Receiver<&'static str>) -> Body {
    let chunks = futures_util::stream::unfold(chunks, async |mut chunks| {
        Some((Ok::<_, std::convert::Infallible>(chunks.recv().await?), chunks))
    });
    Body::from_stream(chunks)
}
