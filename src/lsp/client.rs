//! JSON-RPC 2.0 with a language server over any two streams: requests are matched with responses, and what the server
//! asks or tells goes to a [`Handler`].
//!
//! ```text
//!   request, notify ---> frames (bounded, waits) ---.
//!                                                    >--- writer ---> server
//!   answers, cancellations ---> answers (bounded) --'                   |
//!        ^                                                              |
//!        '-------- Handler <---- reader <-------------------------------'
//! ```
//!
//! The reader never waits for the writer: a server that writes while nobody reads, and is asked meanwhile, would lock
//! up with us. Hence answers have a queue of their own that is never waited for; a server that fills it is given up.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span};

use super::framing::{Codec, framed};
use crate::platform::shutdown::Shutdown;

/// Messages that wait to be written.
const FRAMES: usize = 8;
/// Answers and cancellations that wait to be written.
const ANSWERS: usize = 1024;
/// Requests under way at a time; more wait.
const REQUESTS: usize = 128;
/// JSON-RPC 2.0: there is no such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// LSP 3.17: the client gave up on the request.
pub const REQUEST_CANCELLED: i64 = -32800;

/// Takes what the server says of itself. Called in order, by one task, which must not be held up.
pub trait Handler: Send + Sync + 'static {
    /// A request: its whole message, method and parameters (`null` without any). None when it is answered later, with
    /// [`Client::answer`].
    fn request(&self, message: &Bytes, method: &str, params: &str) -> Option<Result<Value, ResponseError>>;

    /// A notification, as [`Handler::request`].
    fn notification(&self, message: &Bytes, method: &str, params: &str);
}

/// What a peer answers instead of a result (JSON-RPC 2.0, 5.1).
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ResponseError {
    /// Which kind of error.
    #[serde(default)]
    pub code: i64,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// Whatever the peer adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl ResponseError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

/// Why there is no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The server says so.
    #[error("{0}")]
    Response(ResponseError),
    /// The conversation is over.
    #[error("{0}")]
    Ended(Ending),
    /// No answer came in time; the server was told that nobody waits any more.
    #[error("no answer to {method} within {}", humantime::format_duration(*.limit))]
    Late {
        /// What was asked.
        method: String,
        /// How long was waited.
        limit: Duration,
    },
}

/// Why a conversation is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The server's output ended, or nobody reads its input any more: most often it has ended.
    #[error("the server closed its pipes")]
    Closed,
    /// It broke the protocol, or cannot be written to.
    #[error("{0}")]
    Broken(String),
}

/// One conversation; a cheap handle. It ends when the server's output does.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    frames: mpsc::Sender<Frame>,
    answers: mpsc::Sender<Bytes>,
    /// None when the conversation is over.
    pending: Mutex<Option<HashMap<i64, Waiting>>>,
    next: AtomicI64,
    places: Arc<Semaphore>,
    ending: OnceLock<Ending>,
    over: CancellationToken,
}

/// A message that waits to be written.
#[derive(Debug)]
struct Frame {
    /// Of a request.
    id: Option<i64>,
    bytes: Bytes,
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<Bytes, ResponseError>>,
    /// The server may know of it.
    is_written: bool,
    /// Given back with the answer, whether or not the caller has looked at that: one who asks for several things at a
    /// time may be waiting for a place himself.
    _place: OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct Outgoing<'a, P: ?Sized> {
    jsonrpc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a P>,
}

fn outgoing<P: Serialize + ?Sized>(id: Option<i64>, method: &str, params: Option<&P>) -> Bytes {
    let message = Outgoing { jsonrpc: "2.0", id, method, params };
    framed(&serde_json::to_vec(&message).expect("parameters are plain JSON"))
}

/// A response, from either side.
#[derive(Serialize)]
pub struct Response<'a> {
    jsonrpc: &'a str,
    id: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ResponseError>,
}

impl<'a> Response<'a> {
    /// Answers the request of that id; a result is JSON.
    pub fn new(id: &'a RawValue, outcome: Result<&'a RawValue, &'a ResponseError>) -> Self {
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { jsonrpc: "2.0", id, result, error }
    }

    /// As text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a response is plain JSON")
    }
}

/// A message of any kind, as far as it has to be understood.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// Number or text; absent in notifications.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// Absent in responses.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    /// Of a request or notification.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ResponseError>,
}

impl<'a> Message<'a> {
    /// Reads a message; none of what is no JSON object.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        // serde would take an array for a struct's members in order.
        bytes.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(bytes).ok())?
    }
}

impl Client {
    /// Begins to talk. Reader and writer are tasks of `shutdown`.
    pub fn new<R, W>(reader: R, writer: W, handler: Arc<dyn Handler>, shutdown: &Shutdown) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (frames, queue) = mpsc::channel(FRAMES);
        let (answers, first) = mpsc::channel(ANSWERS);
        let inner = Inner {
            frames,
            answers,
            pending: Mutex::new(Some(HashMap::new())),
            next: AtomicI64::new(1),
            places: Arc::new(Semaphore::new(REQUESTS)),
            ending: OnceLock::new(),
            over: CancellationToken::new(),
        };
        let client = Self { inner: Arc::new(inner) };
        let reading = client.clone();
        let span = debug_span!("lsp");
        shutdown.spawn(async move { reading.read(reader, handler).await }.instrument(span));
        let writing = client.clone();
        shutdown.spawn(async move {
            let over = writing.inner.over.clone();
            tokio::select! {
                result = writing.write(writer, queue, first) => {
                    match result {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => writing.end(Ending::Closed),
                        Err(error) => {
                            writing.end(Ending::Broken(format!("the server cannot be written to: {error}")));
                        }
                    }
                }
                () = over.cancelled() => {}
            }
        });
        client
    }

    /// Asks, and waits `limit` at most for the answer: the result as JSON. When the caller goes away first, or the
    /// limit is reached, the server is told.
    ///
    /// # Errors
    /// When the server refuses, is late, or has ended.
    pub async fn request<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: Option<&P>,
        limit: Duration,
    ) -> Result<Bytes, Failure> {
        let answer = async { self.begin(method, params).await?.answer().await };
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Late { method: method.to_owned(), limit }),
        }
    }

    /// Asks; by the time this returns the request has its place among all that is sent.
    ///
    /// # Errors
    /// When the server has ended.
    pub async fn begin<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: Option<&P>,
    ) -> Result<Pending, Failure> {
        let place = Arc::clone(&self.inner.places).acquire_owned().await.expect("never closed");
        let room = self.room().await?;
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        match &mut *self.pending() {
            Some(pending) => {
                drop(pending.insert(id, Waiting { answer: answered, is_written: false, _place: place }));
            }
            None => return Err(self.failure()),
        }
        room.place.send(Frame { id: Some(id), bytes: outgoing(Some(id), method, params) });
        Ok(Pending { client: self.clone(), id, answer })
    }

    /// Waits for room to tell the server something.
    ///
    /// # Errors
    /// When the server has ended.
    pub async fn room(&self) -> Result<Room<'_>, Failure> {
        tokio::select! {
            biased;
            () = self.inner.over.cancelled() => Err(self.failure()),
            place = self.inner.frames.reserve() => match place {
                Ok(place) => Ok(Room { place }),
                Err(_) => Err(self.failure()),
            },
        }
    }

    /// Sends the response to a request that the handler left open: a whole message.
    pub fn answer(&self, message: &[u8]) {
        if self.inner.answers.try_send(framed(message)).is_err() && !self.is_over() {
            self.end(Ending::Broken("the server asks and does not read the answers".to_owned()));
        }
    }

    /// Whether the conversation is over.
    pub fn is_over(&self) -> bool {
        self.inner.over.is_cancelled()
    }

    /// Waits for the end of the conversation, and says why.
    pub async fn over(&self) -> Ending {
        self.inner.over.cancelled().await;
        self.ending()
    }

    fn ending(&self) -> Ending {
        self.inner.ending.get().cloned().unwrap_or(Ending::Closed)
    }

    fn failure(&self) -> Failure {
        Failure::Ended(self.ending())
    }

    fn end(&self, ending: Ending) {
        let _ = self.inner.ending.set(ending); // the first reason counts
        *self.pending() = None; // whoever waits learns by that
        self.inner.over.cancel();
    }

    fn pending(&self) -> MutexGuard<'_, Option<HashMap<i64, Waiting>>> {
        self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, reader: impl AsyncRead + Unpin, handler: Arc<dyn Handler>) {
        let mut messages = FramedRead::new(reader, Codec::new());
        let ending = loop {
            tokio::select! {
                biased;
                () = self.inner.over.cancelled() => return,
                message = messages.next() => match message {
                    Some(Ok(message)) => self.take(&message, &*handler),
                    Some(Err(error)) => break Ending::Broken(error.to_string()),
                    None => break Ending::Closed,
                },
            }
        };
        self.end(ending);
    }

    async fn write(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut frames: mpsc::Receiver<Frame>,
        mut answers: mpsc::Receiver<Bytes>,
    ) -> std::io::Result<()> {
        loop {
            let bytes = tokio::select! {
                biased;
                Some(bytes) = answers.recv() => bytes,
                Some(Frame { id, bytes }) = frames.recv() => match id {
                    Some(id) if !self.is_wanted(id) => continue,
                    _ => bytes,
                },
                else => return Ok(()),
            };
            writer.write_all(&bytes).await?;
            writer.flush().await?;
        }
    }

    /// Whether somebody still waits for a request that is about to be written.
    fn is_wanted(&self, id: i64) -> bool {
        let mut pending = self.pending();
        let waiting = pending.as_mut().and_then(|pending| pending.get_mut(&id));
        waiting.map(|waiting| waiting.is_written = true).is_some()
    }

    fn take(&self, bytes: &Bytes, handler: &dyn Handler) {
        let Some(message) = Message::read(bytes) else { return debug!("a message that is none was skipped") };
        let params = message.params.map_or("null", RawValue::get);
        match (&message.method, message.id) {
            (Some(method), Some(id)) => {
                if let Some(outcome) = handler.request(bytes, method, params) {
                    let outcome = outcome.map(|result| serde_json::value::to_raw_value(&result));
                    let outcome = match &outcome {
                        Ok(Ok(result)) => Ok(&**result),
                        Ok(Err(_)) => Ok(RawValue::NULL),
                        Err(error) => Err(error),
                    };
                    self.answer(Response::new(id, outcome).to_json().as_bytes());
                }
            }
            (Some(method), None) => handler.notification(bytes, method, params),
            (None, id) => {
                // Some give the number back as text.
                let id = id.and_then(|id| id.get().trim_matches('"').parse::<i64>().ok());
                let waiting = id.and_then(|id| self.pending().as_mut()?.remove(&id));
                let Some(waiting) = waiting else { return debug!("an answer that nobody waits for") };
                let outcome = match (message.error, message.result) {
                    (Some(error), _) => Err(error),
                    (None, Some(result)) => Ok(bytes.slice_ref(result.get().as_bytes())),
                    (None, None) => Ok(Bytes::from_static(b"null")),
                };
                let _ = waiting.answer.send(outcome); // it may have given up just now
            }
        }
    }
}

/// Room for one message.
#[derive(Debug)]
pub struct Room<'a> {
    place: mpsc::Permit<'a, Frame>,
}

impl Room<'_> {
    /// Tells the server something.
    pub fn notify<P: Serialize + ?Sized>(self, method: &str, params: Option<&P>) {
        self.place.send(Frame { id: None, bytes: outgoing(None, method, params) });
    }

    /// Passes on a whole message of someone else's.
    pub fn pass_on(self, message: &[u8]) {
        self.place.send(Frame { id: None, bytes: framed(message) });
    }
}

/// A request under way; dropping it tells the server that nobody waits any more.
#[derive(Debug)]
pub struct Pending {
    client: Client,
    id: i64,
    answer: oneshot::Receiver<Result<Bytes, ResponseError>>,
}

impl Pending {
    /// Waits for the result, as JSON.
    ///
    /// # Errors
    /// When the server refuses or has ended.
    pub async fn answer(mut self) -> Result<Bytes, Failure> {
        match (&mut self.answer).await {
            Ok(outcome) => outcome.map_err(Failure::Response),
            Err(_) => Err(self.client.failure()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let unanswered = self.client.pending().as_mut().and_then(|all| all.remove(&self.id));
        if unanswered.is_some_and(|waiting| waiting.is_written) {
            let params = serde_json::json!({ "id": self.id });
            let message = outgoing(None, "$/cancelRequest", Some(&params));
            let _ = self.client.inner.answers.try_send(message); // a courtesy
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
    use tokio::time::Instant;

    use super::*;

    /// Longest answer of a test.
    const LIMIT: Duration = Duration::from_secs(30);

    /// Remembers what the server told; answers what it asks with what it asked.
    #[derive(Debug, Default)]
    struct Told {
        notifications: Mutex<Vec<String>>,
    }

    impl Handler for Told {
        fn request(&self, _: &Bytes, method: &str, params: &str) -> Option<Result<Value, ResponseError>> {
            match method {
                "later" => None,
                "echo" => Some(Ok(serde_json::from_str(params).unwrap())),
                _ => Some(Err(ResponseError::new(METHOD_NOT_FOUND, method))),
            }
        }

        fn notification(&self, _: &Bytes, method: &str, params: &str) {
            self.notifications.lock().unwrap().push(format!("{method} {params}"));
        }
    }

    /// The other end, played by the test.
    struct Server {
        messages: FramedRead<ReadHalf<DuplexStream>, Codec>,
        writer: WriteHalf<DuplexStream>,
    }

    impl Server {
        async fn next(&mut self) -> Value {
            serde_json::from_slice(&self.messages.next().await.unwrap().unwrap()).unwrap()
        }

        async fn say(&mut self, message: Value) {
            self.write(&framed(message.to_string().as_bytes())).await;
        }

        async fn write(&mut self, bytes: &[u8]) {
            self.writer.write_all(bytes).await.unwrap();
        }
    }

    fn talk(buffer: usize) -> (Client, Server, Arc<Told>) {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let (reader, writer) = tokio::io::split(ours);
        let told = Arc::new(Told::default());
        let client = Client::new(reader, writer, Arc::<Told>::clone(&told), &Shutdown::new());
        let (reader, writer) = tokio::io::split(theirs);
        (client, Server { messages: FramedRead::new(reader, Codec::new()), writer }, told)
    }

    async fn ask(client: &Client, method: &str) -> Result<String, Failure> {
        let answer = client.request::<()>(method, None, LIMIT).await?;
        Ok(String::from_utf8(answer.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn answers_find_their_requests_in_any_order() {
        let (client, mut server, _) = talk(1024);
        let serve = async {
            let (a, b, c) = (server.next().await, server.next().await, server.next().await);
            assert_eq!([&a["method"], &b["method"], &c["method"]], ["a", "b", "c"]);
            assert!(a.get("params").is_none());
            server.say(json!({"id": c["id"], "result": {"of": "c"}})).await;
            server.say(json!({"id": a["id"].to_string(), "result": null})).await; // some make it a text
            server.say(json!({"id": 999, "result": 1})).await; // nobody asked
            server.say(json!({"id": b["id"], "error": {"code": -5, "message": "no"}})).await;
        };
        let (a, b, c, ()) = tokio::join!(ask(&client, "a"), ask(&client, "b"), ask(&client, "c"), serve);
        assert_eq!((a.unwrap().as_str(), c.unwrap().as_str()), ("null", "{\"of\":\"c\"}"));
        match b {
            Err(Failure::Response(error)) => assert_eq!((error.code, error.message.as_str()), (-5, "no")),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_the_server_asks_is_answered_and_what_it_tells_is_passed_on() {
        let (client, mut server, told) = talk(1024);
        server.say(json!({"jsonrpc": "2.0", "id": "x", "method": "echo", "params": [1]})).await;
        server.say(json!({"jsonrpc": "2.0", "method": "news", "params": {"a": 1}})).await;
        server.say(json!({"jsonrpc": "2.0", "id": 7, "method": "made/up"})).await;
        server.say(json!({"jsonrpc": "2.0", "id": 8, "method": "later"})).await;
        assert_eq!(server.next().await, json!({"jsonrpc": "2.0", "id": "x", "result": [1]}));
        let refused = server.next().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(7), &json!(METHOD_NOT_FOUND)));
        client.answer(b"{\"id\":8,\"result\":null}");
        assert_eq!(server.next().await, json!({"id": 8, "result": null}));
        assert_eq!(*told.notifications.lock().unwrap(), ["news {\"a\":1}"]);
    }

    #[tokio::test]
    async fn messages_that_make_no_sense_are_skipped() {
        let (client, mut server, _) = talk(1024);
        let serve = async {
            let request = server.next().await;
            for bad in ["{", "null", "[1]", "{\"id\":{}}", "\"x\"", "\u{FFFD}", "{}"] {
                server.write(&framed(bad.as_bytes())).await;
            }
            server.write(&framed(b"\xff\xfe")).await;
            server.say(json!({"id": request["id"], "result": "fine"})).await;
        };
        assert_eq!(tokio::join!(ask(&client, "a"), serve).0.unwrap(), "\"fine\"");
    }

    #[tokio::test]
    async fn a_malformed_head_ends_the_conversation_and_says_why() {
        let (client, mut server, _) = talk(1024);
        let serve = async {
            server.next().await;
            server.write(b"Content-Length: many\r\n\r\n{}").await;
        };
        let (answer, ()) = tokio::join!(ask(&client, "a"), serve);
        let told = "malformed message: Content-Length is \"many\"";
        assert_eq!(answer.unwrap_err().to_string(), told);
        assert_eq!(ask(&client, "b").await.unwrap_err().to_string(), told, "and it stays over");
        assert_eq!(client.over().await, Ending::Broken(told.to_owned()));
    }

    #[tokio::test]
    async fn a_server_that_dies_in_the_middle_of_its_reply_fails_all_that_wait() {
        let (client, mut server, _) = talk(1024);
        let serve = async {
            server.next().await;
            server.next().await;
            server.write(b"Content-Length: 500\r\n\r\n{\"id\":1,\"result\":[").await;
            drop(server);
        };
        let (a, b, ()) = tokio::join!(ask(&client, "a"), ask(&client, "b"), serve);
        for answer in [a, b] {
            assert!(matches!(answer, Err(Failure::Ended(Ending::Closed))), "{answer:?}");
        }
        assert!(client.is_over());
    }

    #[tokio::test]
    async fn a_server_that_reads_no_more_has_ended() {
        let (output, _silent) = tokio::io::duplex(64);
        let (input, closed) = tokio::io::duplex(64);
        drop(closed);
        let client = Client::new(output, input, Arc::new(Told::default()), &Shutdown::new());
        let answer = ask(&client, "a").await;
        assert!(matches!(answer, Err(Failure::Ended(Ending::Closed))), "{answer:?}");
    }

    #[tokio::test]
    async fn huge_messages_arrive_whole_and_too_huge_ones_end_it() {
        let (client, mut server, _) = talk(64 * 1024);
        let text = "x".repeat(20 * 1024 * 1024);
        let serve = async {
            let request = server.next().await;
            server.say(json!({"id": request["id"], "result": text})).await;
            server.next().await;
            server.write(format!("Content-Length: {}\r\n\r\n", usize::MAX / 2).as_bytes()).await;
            server
        };
        let asked = async {
            assert_eq!(ask(&client, "a").await.unwrap().len(), text.len() + 2);
            ask(&client, "b").await.unwrap_err().to_string()
        };
        assert!(tokio::join!(asked, serve).0.contains("bytes announced"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_late_is_told_that_nobody_waits() {
        let (client, mut server, _) = talk(1024);
        let began = Instant::now();
        let serve = async {
            let request = server.next().await;
            let cancelled = server.next().await;
            assert_eq!(cancelled["method"], "$/cancelRequest");
            assert_eq!(cancelled["params"]["id"], request["id"]);
            server.say(json!({"id": request["id"], "result": "too late"})).await;
            let next = server.next().await;
            server.say(json!({"id": next["id"], "result": "in time"})).await;
        };
        let asked = async {
            let late = ask(&client, "a").await.unwrap_err().to_string();
            assert_eq!((late.as_str(), began.elapsed()), ("no answer to a within 30s", LIMIT));
            assert_eq!(ask(&client, "b").await.unwrap(), "\"in time\"");
        };
        tokio::join!(asked, serve);
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_any_more_is_not_sent() {
        let (client, mut server, _) = talk(1024);
        drop(client.begin::<()>("a", None).await.unwrap()); // the writer had no turn yet
        client.room().await.unwrap().notify::<()>("b", None);
        assert_eq!(server.next().await["method"], "b");
    }

    #[tokio::test]
    async fn a_caller_that_leaves_cancels_its_request() {
        let (client, mut server, _) = talk(1024);
        let pending = client.begin::<()>("a", None).await.unwrap();
        let request = server.next().await;
        drop(pending);
        let cancelled = server.next().await;
        assert_eq!(
            (&cancelled["method"], &cancelled["params"]["id"]),
            (&json!("$/cancelRequest"), &request["id"])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_reads_nothing_holds_up_only_those_who_ask_it() {
        let (client, mut server, told) = talk(64);
        let params = "x".repeat(1000);
        for _ in 0..3 {
            let late = client.request("a", Some(&params), LIMIT).await.unwrap_err();
            assert!(matches!(late, Failure::Late { .. }), "{late:?}");
        }
        server.say(json!({"method": "news"})).await;
        while told.notifications.lock().unwrap().is_empty() {
            tokio::task::yield_now().await; // it is still read
        }
    }

    #[tokio::test]
    async fn a_server_that_asks_without_reading_is_given_up() {
        let (client, mut server, _) = talk(64);
        let asks = async {
            let request =
                framed(json!({"id": 1, "method": "echo", "params": "x".repeat(100)}).to_string().as_bytes());
            while server.writer.write_all(&request).await.is_ok() && !client.is_over() {}
        };
        let (ending, ()) = tokio::join!(client.over(), asks);
        assert_eq!(ending, Ending::Broken("the server asks and does not read the answers".to_owned()));
    }

    #[tokio::test]
    async fn answers_that_nobody_has_looked_at_hold_up_no_one() {
        let (client, mut server, _) = talk(1024);
        let serve = async {
            for _ in 0..REQUESTS * 2 {
                let request = server.next().await;
                server.say(json!({"id": request["id"], "result": 1})).await;
            }
        };
        let asked = async {
            let mut pending = Vec::new();
            for _ in 0..REQUESTS * 2 {
                pending.push(client.begin::<()>("a", None).await.unwrap());
            }
            for pending in pending {
                assert_eq!(pending.answer().await.unwrap(), "1");
            }
        };
        tokio::join!(asked, serve);
    }

    #[tokio::test]
    async fn many_requests_at_a_time_are_all_answered() {
        let (client, mut server, _) = talk(256);
        let serve = async {
            for _ in 0..1000 {
                let request = server.next().await;
                server.say(json!({"id": request["id"], "result": request["method"]})).await;
            }
        };
        let asked = futures_util::future::join_all((0..1000).map(async |number| {
            let method = format!("m{number}");
            assert_eq!(ask(&client, &method).await.unwrap(), format!("\"{method}\""));
        }));
        tokio::join!(asked, serve);
    }
}
