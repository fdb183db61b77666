//! Requests and who sends them: credentials, redirects, and what replies mean.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::error::{Error, ErrorKind, Result};
use crate::git::remote::connection::{Open, Upload, basic};
use crate::git::remote::credentials::Stored;
use crate::git::remote::location::{HttpUrl, Location, Login};
use crate::git::remote::operation::{Operation, transport};

/// Redirects followed one after the other.
const REDIRECTS: usize = 10;
/// Most that is read of a refusal, for its words.
const REFUSAL: usize = 4 * 1024;
/// Some servers give git's own answers only to what begins with git's own name.
const USER_AGENT: &str = concat!("git/2.0 (toolboxd ", env!("CARGO_PKG_VERSION"), ")");

/// What says who we are, and what may be tried next when it is not taken.
#[derive(Default)]
pub(super) struct Access {
    pub(super) value: Option<HeaderValue>,
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
    pub(super) fn advance(&mut self, url: &HttpUrl, operation: &Operation) -> Result<bool> {
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
pub(super) struct Client {
    operation: Arc<Operation>,
    /// The repository, where the last redirect left it.
    pub(super) url: Option<HttpUrl>,
    /// Kept for the next request.
    pub(super) open: Option<Open>,
    pub(super) access: Access,
}

/// The head of a reply that was what we asked for, and the connection that brings its body.
pub(super) struct Reply {
    pub(super) open: Open,
    pub(super) body: Incoming,
    pub(super) host: String,
}

impl Client {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        Self { operation, url: None, open: None, access: Access::default() }
    }

    /// The first request: what refs there are. Follows redirects and finds out which credentials are taken.
    pub(super) fn discover(&mut self, url: &str, service: &str) -> Result<Reply> {
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
    pub(super) fn ask(
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
    pub(super) fn connection(&mut self, url: &HttpUrl, may_reuse: bool) -> Result<(Open, bool)> {
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

    pub(super) fn complete(
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
    pub(super) fn accepted(
        &self,
        open: Open,
        reply: Response<Incoming>,
        url: &HttpUrl,
        wanted: &str,
    ) -> Result<(Open, Incoming)> {
        accept(&self.operation, open, reply, url, wanted)
    }
}

pub(super) fn accept(
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
pub(super) fn target(url: &HttpUrl, below: &str, query: Option<&str>) -> String {
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

pub(super) fn unauthorized(url: &HttpUrl, reply: &Response<Incoming>, has_failed: bool) -> Error {
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

pub(super) fn broken(host: &str, error: &hyper::Error) -> Error {
    let text = match error {
        error if error.is_incomplete_message() => "the connection was cut".to_owned(),
        error => std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string),
    };
    transport(format!("{host}: {text}"))
}
