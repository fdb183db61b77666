//! Git over HTTP and HTTPS (gitprotocol-http(5), "smart" only).
//!
//! Each action is a request of its own over one connection that is kept. Where a redirect of the first request leads,
//! the others go too; credentials go along only to the server that they were given for. A request's body is sent whole
//! when it is small, so that it can be repeated with credentials, and in pieces while it is made when it is not.

use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::connection::{Open, Upload, basic};
use super::credentials::Stored;
use super::location::{HttpUrl, Location, Login};
use super::operation::{Operation, transport};
use crate::error::{Error, ErrorKind, Result};

/// Redirects followed one after the other.
const REDIRECTS: usize = 10;
/// Largest request that is kept whole, in bytes, as git's `http.postBuffer`.
const WHOLE: usize = 1024 * 1024;
/// What is sent at a time of a larger one, in bytes.
const PIECE: usize = 64 * 1024;
/// Most that is read of a refusal, for its words.
const REFUSAL: usize = 4 * 1024;
/// Some servers give git's own answers only to what begins with git's own name.
const USER_AGENT: &str = concat!("git/2.0 (toolboxd ", env!("CARGO_PKG_VERSION"), ")");

/// The transport: one for each connection of a remote.
pub(super) struct Http {
    client: Arc<Mutex<Client>>,
    operation: Arc<Operation>,
}

impl Http {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        let client =
            Client { operation: Arc::clone(&operation), url: None, open: None, access: Access::default() };
        Self { client: Arc::new(Mutex::new(client)), operation }
    }
}

impl SmartSubtransport for Http {
    fn action(&self, url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let exchange = |service| -> Box<dyn SmartSubtransportStream> {
            Box::new(Exchange {
                client: Arc::clone(&self.client),
                operation: Arc::clone(&self.operation),
                service,
                state: State::Collecting(BytesMut::new()),
            })
        };
        match service {
            Service::UploadPackLs | Service::ReceivePackLs => {
                let reply = lock(&self.client).discover(url, name(service));
                let reply = reply.map_err(|error| self.operation.fail(error))?;
                Ok(Box::new(reply.read_for(&self.client, &self.operation)))
            }
            Service::UploadPack | Service::ReceivePack => Ok(exchange(name(service))),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        lock(&self.client).open = None;
        Ok(())
    }
}

fn name(service: Service) -> &'static str {
    match service {
        Service::UploadPackLs | Service::UploadPack => "git-upload-pack",
        Service::ReceivePackLs | Service::ReceivePack => "git-receive-pack",
    }
}

fn lock(client: &Mutex<Client>) -> std::sync::MutexGuard<'_, Client> {
    client.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What says who we are, and what may be tried next when it is not taken.
#[derive(Default)]
struct Access {
    value: Option<HeaderValue>,
    /// Best last.
    untried: Vec<Candidate>,
    has_failed: bool,
}

enum Candidate {
    /// What the user keeps in `.git-credentials`.
    Stored { user: Option<String> },
    /// A token that stands in the user's place.
    UserAlone(String),
}

impl Access {
    /// For a URL as the request or the configuration has it.
    fn of(url: &HttpUrl, operation: &Operation) -> Result<Self> {
        let known = operation.login.as_ref().or(url.login.as_ref());
        if let Some(login) = known {
            operation.conceal(login);
            return Ok(Self { value: Some(basic(login)?), ..Self::default() });
        }
        let mut untried: Vec<_> = url.user.clone().map(Candidate::UserAlone).into_iter().collect();
        untried.push(Candidate::Stored { user: url.user.clone() });
        Ok(Self { untried, ..Self::default() })
    }

    /// For a server that we were sent to.
    fn elsewhere() -> Self {
        Self { untried: vec![Candidate::Stored { user: None }], ..Self::default() }
    }

    /// Takes the next that there is; false when there is none.
    fn advance(&mut self, url: &HttpUrl, operation: &Operation) -> Result<bool> {
        self.has_failed |= self.value.take().is_some();
        while let Some(candidate) = self.untried.pop() {
            let login = match candidate {
                Candidate::Stored { user } => Stored::of(operation).find(url, user.as_deref()),
                Candidate::UserAlone(user) => Some(Login { user, password: String::new() }),
            };
            if let Some(login) = login {
                operation.conceal(&login);
                self.value = Some(basic(&login)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Sends requests, one at a time.
struct Client {
    operation: Arc<Operation>,
    /// The repository, where the last redirect left it.
    url: Option<HttpUrl>,
    open: Option<Open>,
    access: Access,
}

/// The head of a reply that was what we asked for, and the connection that brings its body.
struct Reply {
    open: Open,
    body: Incoming,
    host: String,
}

impl Client {
    /// The first request: what refs there are. Follows redirects and finds out which credentials are taken.
    fn discover(&mut self, url: &str, service: &str) -> Result<Reply> {
        let Location::Http(mut url) = Location::parse(url, "/".as_ref())? else {
            return Err(Error::invalid("this is no http url"));
        };
        self.access = Access::of(&url, &self.operation)?;
        for _ in 0..=REDIRECTS {
            let target = target(&url, "/info/refs", Some(&format!("service={service}")));
            let request = || Ok(Request::get(&target).header(header::PRAGMA, "no-cache"));
            let (open, reply) = self.ask(&url, true, request, || Upload::Whole(None))?;
            if reply.status().is_redirection() {
                let next = next(&url, &target, &reply)?;
                if !url.may_share_login_with(&next) {
                    self.access = Access::elsewhere();
                }
                url = next;
                continue;
            }
            let wanted = format!("application/x-{service}-advertisement");
            let (open, body) = self.accepted(open, reply, &url, &wanted)?;
            let host = url.authority();
            self.url = Some(url);
            return Ok(Reply { open, body, host });
        }
        Err(transport(format!("{url} redirects too often")))
    }

    /// A request that may be repeated, with other credentials when those we have are not taken.
    fn ask(
        &mut self,
        url: &HttpUrl,
        may_reuse: bool,
        request: impl Fn() -> Result<http::request::Builder>,
        body: impl Fn() -> Upload,
    ) -> Result<(Open, Response<Incoming>)> {
        loop {
            let (mut open, is_used) = self.connection(url, may_reuse)?;
            let ready = self.complete(request()?, url, &open, body())?;
            let doing = url.authority();
            let sent = self.operation.wait(&doing, async { Ok(open.send(ready).await) })?;
            let reply = match sent {
                Ok(reply) => reply,
                // The server has closed it since it was used last: that was not about this request.
                Err(_) if is_used => continue,
                Err(error) => return Err(broken(&doing, &error).with_source(error)),
            };
            if reply.status() == StatusCode::UNAUTHORIZED {
                if self.access.advance(url, &self.operation)? {
                    continue;
                }
                return Err(unauthorized(url, &reply, self.access.has_failed));
            }
            return Ok((open, reply));
        }
    }

    /// The connection that is kept, or a new one; and whether it was used before. The server may have closed one that
    /// is kept, and then it is not known whether it has done what it was asked.
    fn connection(&mut self, url: &HttpUrl, may_reuse: bool) -> Result<(Open, bool)> {
        let is_same = may_reuse
            && self.url.as_ref().is_some_and(|last| {
                (last.is_tls, &last.host, last.port) == (url.is_tls, &url.host, url.port)
            });
        if let Some(open) = self.open.take().filter(|open| is_same && open.is_alive()) {
            return Ok((open, true));
        }
        let operation = Arc::clone(&self.operation);
        let open = operation.wait(&url.authority(), Open::to(url, &operation))?;
        Ok((open, false))
    }

    fn complete(
        &self,
        request: http::request::Builder,
        url: &HttpUrl,
        open: &Open,
        body: Upload,
    ) -> Result<Request<Upload>> {
        let mut request = request
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "*/*")
            .body(body)
            .map_err(|error| transport(format!("{}: {error}", url.authority())))?;
        if !open.prefix.is_empty() {
            let absolute = format!("{}{}", open.prefix, request.uri());
            *request.uri_mut() =
                absolute.parse().map_err(|_| transport("the proxy cannot be asked for this url"))?;
        }
        if let Some(value) = &open.proxy_authorization {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, value.clone());
        }
        if let Some(value) = &self.access.value {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        Ok(request)
    }

    /// A reply that is success and of the type that git's own servers send.
    fn accepted(
        &self,
        open: Open,
        reply: Response<Incoming>,
        url: &HttpUrl,
        wanted: &str,
    ) -> Result<(Open, Incoming)> {
        accept(&self.operation, open, reply, url, wanted)
    }
}

fn accept(
    operation: &Operation,
    mut open: Open,
    reply: Response<Incoming>,
    url: &HttpUrl,
    wanted: &str,
) -> Result<(Open, Incoming)> {
    let status = reply.status();
    let media = reply.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
    if status != StatusCode::OK {
        let mut body = reply.into_body();
        if media == "text/plain" {
            let words = Limited::new(&mut body, REFUSAL).collect();
            let words = operation.wait(&url.authority(), async { Ok(open.drive(words).await.ok()) })?;
            if let Some(words) = words {
                operation.remark(&words.to_bytes());
            }
        }
        return Err(refused(operation, url, status));
    }
    if media != wanted {
        let text = format!("{url} is not a git repository: it answers with {media:?} instead of {wanted}");
        return Err(Error::new(ErrorKind::GitRepoNotFound, text));
    }
    Ok((open, reply.into_body()))
}

/// The path of a request below the repository's.
fn target(url: &HttpUrl, below: &str, query: Option<&str>) -> String {
    let (path, own) =
        url.path.split_once('?').map_or((url.path.as_str(), None), |(path, own)| (path, Some(own)));
    let queries: Vec<&str> = query.into_iter().chain(own).collect();
    let mark = if queries.is_empty() { "" } else { "?" };
    format!("{path}{below}{mark}{}", queries.join("&"))
}

/// The repository that a redirect leads to.
fn next(url: &HttpUrl, target: &str, reply: &Response<Incoming>) -> Result<HttpUrl> {
    let location = reply.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(next) = location.and_then(|location| url.redirected(target, location)) else {
        return Err(transport(format!("{url} redirects to what is no http url")));
    };
    if url.is_tls && !next.is_tls {
        return Err(transport(format!("{url} redirects from https to http, which is not followed")));
    }
    let (path, query) = next.path.split_once('?').unwrap_or((&next.path, ""));
    let Some(path) = path.strip_suffix("/info/refs") else {
        let text = format!("{url} redirects to {next}, which is not a git repository");
        return Err(Error::new(ErrorKind::GitRepoNotFound, text));
    };
    let own: Vec<&str> =
        query.split('&').filter(|part| !part.is_empty() && !part.starts_with("service=")).collect();
    let path = if own.is_empty() { path.to_owned() } else { format!("{path}?{}", own.join("&")) };
    Ok(HttpUrl { path, user: None, login: None, ..next })
}

fn unauthorized(url: &HttpUrl, reply: &Response<Incoming>, has_failed: bool) -> Error {
    let offers =
        reply.headers().get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let schemes: Vec<&str> = offers.filter_map(|offer| offer.split_whitespace().next()).collect();
    let text = if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        format!("{url} wants {} authentication, and only basic is supported", schemes.join(" or "))
    } else if has_failed {
        format!("authentication failed: {url} does not take the credentials")
    } else {
        format!("authentication required: {url}")
    };
    Error::new(ErrorKind::GitAuthFailed, text)
}

fn refused(operation: &Operation, url: &HttpUrl, status: StatusCode) -> Error {
    let remarks = operation.remarks();
    let words = if remarks.is_empty() { String::new() } else { format!(": {remarks}") };
    let (kind, text) = match status {
        StatusCode::FORBIDDEN => (ErrorKind::Forbidden, format!("authorization failed: {url}{words}")),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            (ErrorKind::GitRepoNotFound, format!("repository not found: {url}{words}"))
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            (ErrorKind::GitTransportFailed, format!("the proxy for {url} wants other credentials"))
        }
        other => (ErrorKind::GitTransportFailed, format!("{url} answers {other}{words}")),
    };
    Error::new(kind, text)
}

fn broken(host: &str, error: &hyper::Error) -> Error {
    let text = match error {
        error if error.is_incomplete_message() => "the connection was cut".to_owned(),
        error => std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string),
    };
    transport(format!("{host}: {text}"))
}

impl Reply {
    fn read_for(self, client: &Arc<Mutex<Client>>, operation: &Arc<Operation>) -> Reading {
        let Self { open, body, host } = self;
        let (client, operation) = (Arc::clone(client), Arc::clone(operation));
        Reading { open: Some(open), body, rest: Bytes::new(), host, client, operation }
    }
}

/// A reply's body, as libgit2 reads it.
struct Reading {
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
struct Exchange {
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
