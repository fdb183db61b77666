//! One request and its reply, as libgit2 writes and reads them.

use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::client::{Client, Reply, accept, broken, target, unauthorized};
use super::lock;
use crate::error::{Error, Result};
use crate::git::remote::connection::{Open, Upload};
use crate::git::remote::location::HttpUrl;
use crate::git::remote::operation::{Operation, transport};

/// Largest request that is kept whole, in bytes, as git's `http.postBuffer`.
const WHOLE: usize = 1024 * 1024;
/// What is sent at a time of a larger one, in bytes.
const PIECE: usize = 64 * 1024;

impl Reply {
    pub(super) fn read_for(self, client: &Arc<Mutex<Client>>, operation: &Arc<Operation>) -> Reading {
        let Self { open, body, host } = self;
        let (client, operation) = (Arc::clone(client), Arc::clone(operation));
        Reading { open: Some(open), body, rest: Bytes::new(), host, client, operation }
    }
}

/// A reply's body, as libgit2 reads it.
pub(super) struct Reading {
    /// None when the body has been read and the connection was given back.
    open: Option<Open>,
    body: Incoming,
    rest: Bytes,
    host: String,
    client: Arc<Mutex<Client>>,
    operation: Arc<Operation>,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(open) = &mut self.open else { return Ok(0) };
            let body = &mut self.body;
            let frame = self.operation.wait(&self.host, async { Ok(open.drive(body.frame()).await) });
            match frame.map_err(|error| self.operation.fail_io(error))? {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.open = None;
                    let failed = broken(&self.host, &error).with_source(error);
                    return Err(self.operation.fail_io(failed));
                }
                None => lock(&self.client).open = self.open.take().filter(Open::is_alive),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Reading {
    /// Whether nothing of the body is missing; the last mark of one that came in chunks may not be read yet.
    fn is_read(&mut self) -> bool {
        let Some(open) = &mut self.open else { return false };
        let body = &mut self.body;
        let mut is_read = false;
        if self.rest.is_empty() && !self.operation.is_cancelled() {
            self.operation.part(async { is_read = open.drive(body.frame()).await.is_none() });
        }
        is_read
    }
}

impl Drop for Reading {
    /// libgit2 reads as far as it has to. The connection is of use again when that was all.
    fn drop(&mut self) {
        if self.is_read() {
            lock(&self.client).open = self.open.take().filter(Open::is_alive);
        }
    }
}

impl Write for Reading {
    /// Nothing is written where refs are only asked for.
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One request and its reply.
pub(super) struct Exchange {
    client: Arc<Mutex<Client>>,
    operation: Arc<Operation>,
    service: &'static str,
    state: State,
}

/// ```text
/// Collecting --read--------------------------> Reading
///     | more than fits                            ^
///     `------> Sending ---read, or reply comes----'
/// ```
enum State {
    Collecting(BytesMut),
    Sending(Box<Sending>),
    Reading(Box<Reading>),
    Failed,
}

struct Sending {
    open: Open,
    url: HttpUrl,
    pieces: mpsc::Sender<Bytes>,
    piece: BytesMut,
    reply: Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>,
}

impl Exchange {
    pub(super) fn new(
        client: &Arc<Mutex<Client>>,
        operation: &Arc<Operation>,
        service: &'static str,
    ) -> Self {
        let (client, operation) = (Arc::clone(client), Arc::clone(operation));
        Self { client, operation, service, state: State::Collecting(BytesMut::new()) }
    }

    fn url(&self) -> Result<HttpUrl> {
        lock(&self.client).url.clone().ok_or_else(|| Error::internal("a request came before the first one"))
    }

    fn request(&self, url: &HttpUrl) -> http::request::Builder {
        Request::builder()
            .method(Method::POST)
            .uri(target(url, &format!("/{}", self.service), None))
            .header(header::CONTENT_TYPE, format!("application/x-{}-request", self.service))
    }

    fn result_type(&self) -> String {
        format!("application/x-{}-result", self.service)
    }

    /// Sends a request that is small.
    fn send_whole(&self, body: &Bytes) -> Result<Reading> {
        let url = self.url()?;
        let mut client = lock(&self.client);
        let whole = || Upload::Whole(Some(body.clone()));
        let (open, reply) =
            client.ask(&url, self.service == "git-upload-pack", || Ok(self.request(&url)), whole)?;
        let (open, body) = client.accepted(open, reply, &url, &self.result_type())?;
        Ok(Reply { open, body, host: url.authority() }.read_for(&self.client, &self.operation))
    }

    /// Begins a request that is not.
    fn begin(&self, piece: BytesMut) -> Result<Box<Sending>> {
        let url = self.url()?;
        let mut client = lock(&self.client);
        // It cannot be repeated, so what would be tried next is tried now.
        if client.access.value.is_none() {
            client.access.advance(&url, &self.operation)?;
        }
        let (mut open, _) = client.connection(&url, false)?;
        let (pieces, receiver) = mpsc::channel(1);
        let request = client.complete(self.request(&url), &url, &open, Upload::Pieces(receiver))?;
        let host = url.authority();
        let is_ready = self.operation.wait(&host, async { Ok(open.ready().await) })?;
        is_ready.map_err(|error| broken(&host, &error).with_source(error))?;
        let reply = Box::pin(open.sender.send_request(request));
        Ok(Box::new(Sending { open, url, pieces, piece, reply }))
    }

    /// Sends what has come together; gives the reply if there is one already.
    fn push(&self, sending: &mut Sending) -> Result<Option<Response<Incoming>>> {
        let Sending { open, url, pieces, piece, reply } = sending;
        let bytes = piece.split().freeze();
        let host = url.authority();
        let early = self.operation.wait(&host, async {
            let sent = open.drive(async {
                tokio::select! {
                    biased;
                    reply = reply => Some(reply),
                    _taken = pieces.send(bytes) => None,
                }
            });
            Ok(sent.await)
        })?;
        early.transpose().map_err(|error| broken(&host, &error).with_source(error))
    }

    fn finish(&self, mut sending: Box<Sending>) -> Result<Reading> {
        let early = if sending.piece.is_empty() { None } else { self.push(&mut sending)? };
        let Sending { mut open, url, pieces, mut reply, .. } = *sending;
        drop(pieces); // the end of the body
        let host = url.authority();
        let reply = match early {
            Some(reply) => Ok(reply),
            None => self.operation.wait(&host, async { Ok(open.drive(&mut reply).await) })?,
        };
        let reply = reply.map_err(|error| broken(&host, &error).with_source(error))?;
        self.reading(open, reply, &url)
    }

    fn reading(&self, open: Open, reply: Response<Incoming>, url: &HttpUrl) -> Result<Reading> {
        if reply.status() == StatusCode::UNAUTHORIZED {
            return Err(unauthorized(url, &reply, lock(&self.client).access.value.is_some()));
        }
        let (open, body) = accept(&self.operation, open, reply, url, &self.result_type())?;
        Ok(Reply { open, body, host: url.authority() }.read_for(&self.client, &self.operation))
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Collecting(mut collected) => {
                collected.extend_from_slice(bytes);
                self.state = match collected.len() {
                    0..WHOLE => State::Collecting(collected),
                    _ => State::Sending(self.begin(collected)?),
                };
            }
            State::Sending(mut sending) => {
                sending.piece.extend_from_slice(bytes);
                let early = if sending.piece.len() < PIECE { None } else { self.push(&mut sending)? };
                self.state = match early {
                    None => State::Sending(sending),
                    Some(reply) => {
                        State::Reading(Box::new(self.reading(sending.open, reply, &sending.url)?))
                    }
                };
            }
            // The server has answered before it was told everything.
            State::Reading(reading) => self.state = State::Reading(reading),
            State::Failed => return Err(transport("the connection has failed before")),
        }
        Ok(())
    }

    fn try_read(&mut self) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Collecting(collected) => State::Reading(Box::new(self.send_whole(&collected.freeze())?)),
            State::Sending(sending) => State::Reading(Box::new(self.finish(sending)?)),
            State::Reading(reading) => State::Reading(reading),
            State::Failed => return Err(transport("the connection has failed before")),
        };
        Ok(())
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read().map_err(|error| self.operation.fail_io(error))?;
        match &mut self.state {
            State::Reading(reading) => reading.read(buffer),
            _ => Ok(0),
        }
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes).map_err(|error| self.operation.fail_io(error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
