//! WebSocket habits that all endpoints share (RFC 6455, contract `process.md` 0.5): the handshake, frames in both
//! directions, a heartbeat, and an end that always has a code.
//!
//! ```text
//!              frames (bounded)                     messages (bounded)
//!   peer ---> reader ------------> Receiver   Sender ------------> writer ---> peer
//!               \ pongs, close        \        /                    / pings, close
//!                                      endpoint -> Close
//! ```
//!
//! Reader, writer and endpoint are parts of one task. The reader goes on while the writer waits for a slow peer, so
//! pings are answered and a peer that leaves is noticed. What is not here: replay, which is the endpoint's, and
//! compression, which is never negotiated.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug};
use tungstenite::error::ProtocolError;

use super::client::VERSION_SUBPROTOCOL;
use crate::error::{Error, Result};
use crate::platform::shutdown::Shutdown;
use crate::platform::timer::until;

pub use axum::extract::ws::Utf8Bytes;

/// Largest payload to put into one frame, in bytes: common clients give up on frames of a few megabytes.
pub const MAX_FRAME: usize = 64 * 1024;

/// Largest message taken from a peer, in bytes, unless an endpoint has its own limit.
const MAX_RECEIVED: usize = 16 * 1024 * 1024;
/// Messages that wait for the endpoint; the reader stops when there are more.
const RECEIVED: usize = 4;
/// Messages that wait for the writer.
const SENT: usize = 4;
/// Time between pings.
const PING: Duration = Duration::from_secs(30);
/// Pings that may go unanswered. Several: some clients answer only while their program asks for the next message.
const UNANSWERED: u32 = 3;
/// Longest wait for a peer that takes nothing of what is sent. Generous: it may be a person at a breakpoint.
const STALLED: Duration = Duration::from_secs(600);
/// Longest wait for the peer's half of the closing handshake.
const CLOSING: Duration = Duration::from_secs(5);
/// Longest close reason that fits into a control frame, in bytes.
const REASON_BYTES: usize = 123;

/// Offered by clients that want a terminal's exit as a message.
pub const EXIT_CONTROL_SUBPROTOCOL: &str = "X-Daytona-Pty-Exit-Control";
/// Carries a terminal's environment.
pub const ENVS_SUBPROTOCOL: &str = "X-Daytona-Pty-Envs~";

/// A request for a WebSocket, with a valid handshake. As an `Option` it is absent when the request is a plain one.
/// Everything that can fail with a status is checked before [`Upgrade::serve`].
#[derive(Debug)]
pub struct Upgrade {
    inner: WebSocketUpgrade,
    hold: Hold,
    greeting: Option<Utf8Bytes>,
    max_message: usize,
}

/// Keeps the reply to an upgrade back until the greeting that leaves with it. The server puts one into each request.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<AtomicBool>);

impl Hold {
    /// What is written is kept from now on.
    pub fn on(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// The next write takes along what was kept.
    pub fn off(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether to keep what is written.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Upgrade {
    /// The first message, which leaves in the same write as the reply to the handshake.
    #[must_use]
    pub fn greeting(self, text: impl Into<Utf8Bytes>) -> Self {
        Self { greeting: Some(text.into()), ..self }
    }

    /// Largest message taken from the peer, in bytes; a larger one closes the socket with 1009.
    #[must_use]
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes, ..self }
    }

    /// Answers with the upgrade and runs `endpoint` on the socket; what it returns is sent as the close.
    ///
    /// The endpoint ends when [`Receiver::recv`] gives none or a send of [`Sender`] fails: the peer has left then, and
    /// what it sent before still comes out of the receiver. The endpoint is dropped when the daemon stops, which closes
    /// with [`Close::AWAY`], and when the peer breaks the protocol; the daemon waits for the closing.
    pub fn serve<E, F>(self, shutdown: &Shutdown, endpoint: E) -> Response
    where
        E: FnOnce(Sender, Receiver) -> F + Send + 'static,
        F: Future<Output = Close> + Send + 'static,
    {
        let Self { inner, hold, greeting, max_message } = self;
        if greeting.is_some() {
            hold.on();
        }
        let (give, take) = oneshot::channel::<WebSocket>();
        let stop = shutdown.cancelled();
        // Tracked from now on: between the reply and the upgrade nothing else may hold the daemon up.
        let served = shutdown.track(
            async move {
                if let Ok(socket) = take.await {
                    hold.off();
                    let greeting = greeting.map(Message::Text);
                    drive(socket, greeting, max_message, stop, endpoint).await;
                }
            }
            .in_current_span(),
        );
        inner
            .max_message_size(max_message)
            .max_frame_size(max_message)
            .read_buffer_size(MAX_FRAME)
            .write_buffer_size(MAX_FRAME)
            .on_failed_upgrade(|error| debug!(%error, "a connection was not upgraded"))
            .on_upgrade(move |socket| {
                let _ = give.send(socket); // fails only when `served` is gone, and it is not
                served
            })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        if is_upgrade(&parts.headers) {
            // axum compares the whole header; it may list other protocols too.
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        let mut inner = <WebSocketUpgrade as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Error::invalid(format!("no WebSocket handshake: {rejection}")))?;
        if let Some(protocol) = subprotocol(&parts.headers) {
            inner.set_selected_protocol(protocol);
        }
        let hold = parts.extensions.get::<Hold>().cloned().unwrap_or_default();
        Ok(Self { inner, hold, greeting: None, max_message: MAX_RECEIVED })
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Upgrade {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>> {
        if !is_upgrade(&parts.headers) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// Whether the `Upgrade` header asks for a WebSocket, among others perhaps, in any case.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    listed(headers, header::UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
}

/// The subprotocols that the client offers, in its order.
pub fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    listed(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

fn listed(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// The one offered subprotocol to echo: clients abort when one was offered and none, or another one, comes back.
fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let rank = |token: &&str| {
        let preferred = [
            token.starts_with(VERSION_SUBPROTOCOL),
            *token == EXIT_CONTROL_SUBPROTOCOL,
            token.starts_with(ENVS_SUBPROTOCOL),
        ];
        preferred.iter().position(|is_it| *is_it).unwrap_or(preferred.len())
    };
    let chosen = offered(headers).min_by_key(rank)?; // the first of equals
    Some(HeaderValue::from_str(chosen).expect("a part of a header is one"))
}

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON, by our convention.
    Text(Utf8Bytes),
    /// Bytes as they are.
    Binary(Bytes),
}

/// How a socket ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    code: u16,
    reason: String,
}

impl Close {
    /// Everything was sent.
    pub const NORMAL: Self = Self { code: 1000, reason: String::new() };
    /// The daemon stops.
    pub const AWAY: Self = Self { code: 1001, reason: String::new() };

    /// A close with a code of RFC 6455 7.4 or of an endpoint's own; `reason` is cut to what a control frame holds.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        let fits = (0..=reason.len().min(REASON_BYTES)).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(fits.unwrap_or_default());
        Self { code, reason }
    }

    /// The peer sent what has no place here (1008).
    pub fn out_of_order(reason: impl Into<String>) -> Self {
        Self::new(1008, reason)
    }

    /// The peer sent too much at once (1009).
    pub fn too_big(reason: impl Into<String>) -> Self {
        Self::new(1009, reason)
    }

    /// Our fault, or the machine's (1011).
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::new(1011, reason)
    }
}

impl From<Close> for Message {
    fn from(close: Close) -> Self {
        Self::Close(Some(CloseFrame { code: close.code, reason: close.reason.into() }))
    }
}

/// The peer has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer has left")]
pub struct Left;

/// Sends to the peer; clones share one queue.
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::Sender<Message>,
}

impl Sender {
    /// Waits while the peer is slow. Cancel safe: a message is sent whole or not at all.
    ///
    /// # Errors
    /// When the peer has left.
    pub async fn text(&self, text: impl Into<Utf8Bytes>) -> Result<(), Left> {
        self.queue.send(Message::Text(text.into())).await.map_err(|_| Left)
    }

    /// As [`Sender::text`], for bytes; [`MAX_FRAME`] of them at most.
    ///
    /// # Errors
    /// When the peer has left.
    pub async fn binary(&self, bytes: Bytes) -> Result<(), Left> {
        debug_assert!(bytes.len() <= MAX_FRAME, "{} bytes are too much for one frame", bytes.len());
        self.queue.send(Message::Binary(bytes)).await.map_err(|_| Left)
    }

    /// Resolves when the peer has left.
    pub async fn left(&self) {
        self.queue.closed().await;
    }
}

/// Gives what the peer sent.
#[derive(Debug)]
pub struct Receiver {
    queue: mpsc::Receiver<Frame>,
}

impl Receiver {
    /// The next frame; none when the peer has left and everything it sent before was given. Cancel safe.
    pub async fn recv(&mut self) -> Option<Frame> {
        self.queue.recv().await
    }
}

/// Runs an endpoint on a socket until one of endpoint, peer and daemon ends it.
async fn drive<W, E, F>(
    socket: W,
    greeting: Option<Message>,
    max_message: usize,
    stop: impl Future<Output = ()>,
    endpoint: E,
) where
    W: Stream<Item = Result<Message, axum::Error>> + Sink<Message>,
    E: FnOnce(Sender, Receiver) -> F,
    F: Future<Output = Close>,
{
    let (mut sink, stream) = socket.split();
    if let Some(greeting) = greeting {
        // Before anything else is written. One that fails is noticed below.
        let _ = timeout(CLOSING, sink.send(greeting)).await;
    }
    let (frames, received) = mpsc::channel(RECEIVED);
    let (messages, queue) = mpsc::channel(SENT);
    let (unanswered, left) = (AtomicU32::new(0), CancellationToken::new());
    let mut reader = pin!(read(stream, frames, max_message, &unanswered, &left));
    let mut writer = pin!(write(sink, queue, &unanswered, &left));
    let (mut is_reading, mut is_writing, mut read_until) = (true, true, None);
    let close = {
        let mut endpoint = pin!(endpoint(Sender { queue: messages.clone() }, Receiver { queue: received }));
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                close = &mut endpoint => break close,
                () = &mut stop => break Close::AWAY,
                fault = &mut reader, if is_reading => {
                    is_reading = false;
                    match fault {
                        Some(close) => break close,
                        None => left.cancel(),
                    }
                }
                end = &mut writer, if is_writing => {
                    is_writing = false;
                    match end {
                        // What the peer sent before it left may not be read yet.
                        WriteEnd::Broken if is_reading => read_until = Some(Instant::now() + CLOSING),
                        WriteEnd::Broken | WriteEnd::Done => left.cancel(),
                    }
                }
                () = until(read_until), if is_reading => left.cancel(),
            }
        }
    };
    let closing = async {
        if is_writing {
            tokio::select! {
                _ = messages.send(close.into()) => drop(writer.await),
                _ = &mut writer => {}
            }
        }
        if is_reading {
            reader.await;
        }
    };
    if timeout(CLOSING, closing).await.is_err() {
        debug!("a peer did not finish the closing handshake");
    }
}

/// Passes frames on until the peer has left; gives the close that a fault of the peer's asks for.
async fn read(
    mut stream: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    frames: mpsc::Sender<Frame>,
    max_message: usize,
    unanswered: &AtomicU32,
    left: &CancellationToken,
) -> Option<Close> {
    loop {
        let message = tokio::select! {
            message = stream.next() => message?,
            () = left.cancelled() => return None,
        };
        unanswered.store(0, Ordering::Relaxed);
        let frame = match message {
            Ok(Message::Text(text)) => Frame::Text(text),
            Ok(Message::Binary(bytes)) => Frame::Binary(bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => continue, // answered by the protocol's own layer
            Ok(Message::Close(_)) => return None,
            Err(error) => return fault(error, max_message),
        };
        let _ = frames.send(frame).await; // an endpoint that has ended wants no more: read on for the close
    }
}

fn fault(error: axum::Error, max_message: usize) -> Option<Close> {
    debug!(%error, "a socket failed");
    match *error.into_inner().downcast::<tungstenite::Error>().ok()? {
        tungstenite::Error::Capacity(_) => {
            Some(Close::too_big(format!("messages may have {max_message} bytes")))
        }
        tungstenite::Error::Utf8(_) => Some(Close::new(1007, "text is UTF-8")),
        // It has left without a word: nobody is there to be told.
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        tungstenite::Error::Protocol(error) => Some(Close::new(1002, error.to_string())),
        _ => None, // nothing can be sent any more
    }
}

/// Why nothing more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteEnd {
    /// A close was sent, nobody wants to send any more, or the peer has gone silent.
    Done,
    /// The connection takes nothing any more.
    Broken,
}

/// Sends what is queued, and pings, until a close was sent or the peer has left.
async fn write(
    mut sink: impl Sink<Message> + Unpin,
    mut queue: mpsc::Receiver<Message>,
    unanswered: &AtomicU32,
    left: &CancellationToken,
) -> WriteEnd {
    let end = tokio::select! {
        end = pump(&mut sink, &mut queue, unanswered) => end,
        () = left.cancelled() => WriteEnd::Done,
    };
    drop(queue); // whoever sends learns now that nobody listens
    if end == WriteEnd::Done {
        let _ = timeout(CLOSING, sink.flush()).await; // the answer to a peer's close may be waiting
    }
    end
}

async fn pump(
    sink: &mut (impl Sink<Message> + Unpin),
    queue: &mut mpsc::Receiver<Message>,
    unanswered: &AtomicU32,
) -> WriteEnd {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = queue.recv() => message,
            _ = pings.tick() => {
                if unanswered.fetch_add(1, Ordering::Relaxed) >= UNANSWERED {
                    debug!("a peer has gone silent");
                    return WriteEnd::Done;
                }
                Some(Message::Ping(Bytes::new()))
            }
        };
        if message.is_none() {
            return WriteEnd::Done;
        }
        let (mut next, mut is_last) = (message, false);
        // One flush for all that is there: small messages share a packet.
        while let Some(message) = next {
            is_last |= matches!(message, Message::Close(_));
            if let Some(end) = failed(timeout(STALLED, sink.feed(message)).await) {
                return end;
            }
            next = queue.try_recv().ok();
        }
        if let Some(end) = failed(timeout(STALLED, sink.flush()).await) {
            return end;
        }
        if is_last {
            return WriteEnd::Done;
        }
    }
}

fn failed<E>(sent: Result<Result<(), E>, Elapsed>) -> Option<WriteEnd> {
    match sent {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(WriteEnd::Broken),
        Err(_) => {
            debug!("a peer takes nothing");
            Some(WriteEnd::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio_util::sync::PollSender;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (header::SEC_WEBSOCKET_PROTOCOL, line.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn exactly_one_offered_subprotocol_is_echoed() {
        let chosen = |lines: &[&str]| {
            subprotocol(&headers(lines)).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        assert_eq!(chosen(&[]), "");
        assert_eq!(chosen(&["chat, superchat"]), "chat");
        assert_eq!(chosen(&["chat,X-Daytona-Pty-Envs~e30"]), "X-Daytona-Pty-Envs~e30");
        assert_eq!(
            chosen(&["X-Daytona-Pty-Envs~e30", "X-Daytona-Pty-Exit-Control"]),
            "X-Daytona-Pty-Exit-Control"
        );
        assert_eq!(
            chosen(&["X-Daytona-Pty-Exit-Control", "chat , X-Daytona-SDK-Version~"]),
            "X-Daytona-SDK-Version~"
        );
    }

    #[test]
    fn an_upgrade_is_a_token_in_any_case() {
        let asks = |value: &str| {
            is_upgrade(&[(header::UPGRADE, value.parse().unwrap())].into_iter().collect::<HeaderMap>())
        };
        assert!(asks("WebSocket") && asks("h2c, websocket"));
        assert!(!asks("h2c") && !asks("websockets") && !is_upgrade(&HeaderMap::new()));
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let Close { reason, .. } = Close::failed("é".repeat(100));
        assert_eq!(reason, "é".repeat(61));
    }

    /// A socket whose peer is the test: what it says comes in, what it is told goes out, one message at a time.
    struct Fake {
        incoming: mpsc::UnboundedReceiver<Result<Message, axum::Error>>,
        outgoing: PollSender<Message>,
    }

    struct Peer {
        say: mpsc::UnboundedSender<Result<Message, axum::Error>>,
        told: mpsc::Receiver<Message>,
    }

    fn socket() -> (Fake, Peer) {
        let (say, incoming) = mpsc::unbounded_channel();
        let (outgoing, told) = mpsc::channel(1);
        (Fake { incoming, outgoing: PollSender::new(outgoing) }, Peer { say, told })
    }

    impl Stream for Fake {
        type Item = Result<Message, axum::Error>;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.incoming.poll_recv(context)
        }
    }

    impl Sink<Message> for Fake {
        type Error = ();

        fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
            self.outgoing.poll_ready_unpin(context).map_err(|_| ())
        }

        fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), ()> {
            self.outgoing.start_send_unpin(message).map_err(|_| ())
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
            self.outgoing.poll_flush_unpin(context).map_err(|_| ())
        }

        fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
            self.poll_flush(context)
        }
    }

    fn text(text: &str) -> Message {
        Message::Text(text.into())
    }

    async fn echo(sender: Sender, mut receiver: Receiver) -> Close {
        while let Some(frame) = receiver.recv().await {
            let sent = match frame {
                Frame::Text(text) if text.as_str() == "bye" => return Close::new(4000, "bye"),
                Frame::Text(text) => sender.text(text).await,
                Frame::Binary(bytes) => sender.binary(bytes).await,
            };
            if sent.is_err() {
                break;
            }
        }
        Close::NORMAL
    }

    #[tokio::test]
    async fn frames_go_both_ways_and_the_endpoint_has_the_last_word() {
        let (fake, mut peer) = socket();
        let messages = [text("a"), Message::Binary(Bytes::from_static(b"\xff")), text("bye")];
        messages.iter().for_each(|message| peer.say.send(Ok(message.clone())).unwrap());
        let told = async {
            let mut told = Vec::new();
            while let Some(message) = peer.told.recv().await {
                if matches!(message, Message::Close(_)) {
                    peer.say.send(Ok(message.clone())).unwrap();
                }
                told.push(message);
            }
            told
        };
        let ((), told) = tokio::join!(drive(fake, None, 9, std::future::pending(), echo), told);
        assert_eq!(told[..2], messages[..2]);
        assert_eq!(told[2..], [Message::from(Close::new(4000, "bye"))]);
    }

    #[tokio::test]
    async fn the_greeting_comes_first() {
        let (fake, mut peer) = socket();
        peer.say.send(Ok(text("bye"))).unwrap();
        let told = async {
            let told = (peer.told.recv().await, peer.told.recv().await);
            drop(peer.say);
            told
        };
        let greeting = Some(text("welcome"));
        let (told, ()) = tokio::join!(told, drive(fake, greeting, 9, std::future::pending(), echo));
        assert_eq!(told, (Some(text("welcome")), Some(Message::from(Close::new(4000, "bye")))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_daemon_is_told_and_not_held_up_by_the_peer() {
        let (fake, mut peer) = socket();
        let began = Instant::now();
        let (take_message, _) =
            tokio::join!(peer.told.recv(), drive(fake, None, 9, std::future::ready(()), echo));
        assert_eq!(take_message, Some(Close::AWAY.into()));
        assert_eq!(began.elapsed(), CLOSING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_and_then_dropped() {
        let (fake, mut peer) = socket();
        let (began, mut pings) = (Instant::now(), 0);
        let peer = async {
            while let Some(message) = peer.told.recv().await {
                assert_eq!(message, Message::Ping(Bytes::new()));
                pings += 1;
                if pings == 1 {
                    peer.say.send(Ok(Message::Pong(Bytes::new()))).unwrap();
                }
            }
        };
        tokio::join!(drive(fake, None, 9, std::future::pending(), echo), peer);
        assert_eq!(pings, 1 + UNANSWERED);
        assert_eq!(began.elapsed(), PING * (2 + UNANSWERED));
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_noticed_while_sending_is_blocked() {
        let (fake, peer) = socket();
        let endpoint = async |sender: Sender, mut receiver: Receiver| {
            while sender.text("more").await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert_eq!(receiver.recv().await, Some(Frame::Text("last".into())));
            assert_eq!(receiver.recv().await, None);
            sender.left().await;
            Close::NORMAL
        };
        peer.say.send(Ok(text("last"))).unwrap();
        peer.say.send(Ok(Message::Close(None))).unwrap();
        drive(fake, None, 9, std::future::pending(), endpoint).await; // `peer.told` is never read
    }

    /// As tungstenite tells a connection that ended without a close.
    fn reset() -> axum::Error {
        axum::Error::new(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
    }

    #[tokio::test]
    async fn what_a_peer_sent_before_it_vanished_is_received() {
        let (fake, peer) = socket();
        let told = std::sync::Mutex::new(Vec::new());
        let endpoint = async |_: Sender, mut receiver: Receiver| {
            tokio::task::yield_now().await; // the end may be known before the first frame is asked for
            while let Some(frame) = receiver.recv().await {
                told.lock().unwrap().push(frame);
                tokio::task::yield_now().await;
            }
            Close::NORMAL
        };
        for word in ["one", "two", "three"] {
            peer.say.send(Ok(text(word))).unwrap();
        }
        peer.say.send(Err(reset())).unwrap();
        drop(peer.told); // nothing can be sent any more
        drive(fake, Some(text("welcome")), 9, std::future::pending(), endpoint).await;
        let words = ["one", "two", "three"].map(|word| Frame::Text(word.into()));
        assert_eq!(*told.lock().unwrap(), words);
    }
}
