//! Who may use the API (design.md, the three ways it runs).
//!
//! With a token, every request carries it. Without one, a daemon that a platform runs is open, as that platform's
//! proxy expects; a stand-alone one is for the user who started it: it serves loopback connections whose other end
//! belongs to that user or to root, and refuses names and origins that are not this machine's own, so that no web
//! page can reach it by DNS rebinding or from another site.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::preview::{self, Names, Preview, TOKEN_HEADER};
use crate::config::{Config, ControlFrom, Token};
use crate::error::{Error, ErrorKind, Result};
use crate::http::extract;
use crate::platform::blocking::Lane;
use crate::platform::passes::Passes;
use crate::platform::sockets;

/// Always open: platforms poll it to learn that the daemon is up.
const OPEN: &str = "/version";
/// What changes the daemon itself.
const CONTROL: &[&str] = &["/init", "/env"];

/// Checks the token that comes in its first message: clients cannot send a header with it.
const EVENTS: &str = "/api/socket.io";

/// What the settings say about who may use the API.
#[derive(Debug)]
pub struct Access {
    passes: Passes,
    /// No platform is in front that checks what it signed.
    stand_alone: bool,
    /// Only this machine's own user and names, when there is no token.
    same_user: bool,
    control_from: ControlFrom,
    lookups: Lane,
    pub(super) names: Names,
}

/// How a request was let in.
enum Admitted {
    /// In whatever way, there is nothing more to do.
    Fully,
    /// By this pass in the query: what else a page is made of comes without it.
    ByQuery(String),
}

impl Access {
    /// The rules for a daemon that listens on `address`. A stand-alone one that others can reach gets a token, made
    /// here when none is set: the caller tells the user.
    pub fn new(config: &Config, address: SocketAddr, passes: Passes) -> (Self, Option<Token>) {
        let stand_alone = config.is_stand_alone();
        let made = (stand_alone && !address.ip().is_loopback() && config.token.is_none()).then(Token::random);
        let token = config.token.clone().or_else(|| made.clone());
        let same_user = stand_alone && token.is_none();
        if let Some(token) = token {
            passes.require(token);
        }
        let control_from = config.control_from;
        let names = Names::new(&config.identity(), stand_alone);
        (Self { passes, stand_alone, same_user, control_from, lookups: Lane::new(4), names }, made)
    }

    fn check(
        &self,
        peer: Peer,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        preview: Option<&Preview>,
    ) -> Result<Admitted> {
        let path = uri.path();
        if path == OPEN {
            return Ok(Admitted::Fully);
        }
        if self.same_user {
            self.check_this_machine(peer, uri, headers)?;
        }
        let port = preview.map(|preview| preview.port);
        let is_pass = |shown: &str| self.passes.admits_to(port, shown);
        let cookie =
            preview.and_then(|_| preview::cookies(headers, &self.names.cookie).find(|shown| is_pass(shown)));
        let is_admitted = self.is_signed(method, uri)?
            || self.passes.admits_everyone()
            || (self.stand_alone && path == EVENTS)
            || presented(headers).any(is_pass)
            || cookie.is_some();
        let in_query = || preview::tokens_in(uri.query().unwrap_or_default()).find(|shown| is_pass(shown));
        let admitted = match is_admitted {
            true => Admitted::Fully,
            false => Admitted::ByQuery(
                in_query()
                    .ok_or_else(|| Error::new(ErrorKind::Unauthorized, "the token is missing or wrong"))?,
            ),
        };
        if self.control_from == ControlFrom::Outside && peer.is_inside && CONTROL.contains(&path) {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("{path} is closed to callers inside the sandbox"),
            ));
        }
        Ok(admitted)
    }

    fn check_this_machine(&self, peer: Peer, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::Forbidden, message));
        if !peer.is_same_user {
            return refused("only the user who runs toolboxd may use it without a token".to_owned());
        }
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        // HTTP/1.0 clients may leave the name out; browsers never do.
        let host = uri.host().map(Into::into).or_else(|| text(header::HOST));
        if let Some(host) = host.filter(|host| !is_own_name(without_port(host))) {
            return refused(format!("the host name {host} is not this machine's"));
        }
        if let Some(origin) = text(header::ORIGIN) {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            // The pages of a preview are whatever the sandbox serves: they reach previews, not what runs commands.
            let is_theirs = preview::is_passed_on(uri.path()) || self.names.port(host).is_none();
            if !is_own_name(without_port(host)) || !is_theirs {
                return refused(format!("requests from pages of {origin} are refused"));
            }
        }
        Ok(())
    }

    /// Whether this is a file URL with a valid signature, which then stands for the token.
    ///
    /// # Errors
    /// When it has a signature that is not valid: whatever else it shows, it is not what its maker wanted.
    fn is_signed(&self, method: &Method, uri: &Uri) -> Result<bool> {
        let signed_method = match (method, uri.path()) {
            (&Method::GET | &Method::HEAD, "/files/download") if self.stand_alone => "GET",
            (&Method::POST, "/files/upload-v2") if self.stand_alone => "POST",
            _ => return Ok(false),
        };
        // Read as the endpoint reads it, so that what is checked is what is used.
        let query: SignedQuery = extract::query(uri.query().unwrap_or_default())?;
        let Some(signature) = query.signature else { return Ok(false) };
        self.passes.check_file(signed_method, &query.path, query.expires.as_deref(), &signature)?;
        Ok(true)
    }
}

/// What a signed file URL carries.
#[derive(Deserialize)]
struct SignedQuery {
    #[serde(default)]
    path: String,
    expires: Option<String>,
    signature: Option<String>,
}

/// The other end of a connection; looked up once, when it is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// It belongs to the user that the daemon runs as, or to root.
    is_same_user: bool,
    /// It is a process of this machine, talking over loopback.
    is_inside: bool,
    /// Where it talks from.
    pub(super) address: SocketAddr,
}

impl Peer {
    pub(super) async fn of(peer: SocketAddr, own: SocketAddr, access: &Access) -> Self {
        let is_inside = peer.ip().to_canonical().is_loopback();
        let is_same_user = access.same_user && is_inside && {
            let owner = access.lookups.run(move || sockets::owner(peer, own)).await.ok().flatten();
            owner.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
        };
        Self { is_same_user, is_inside, address: peer }
    }
}

/// Refuses who may not use the API. Runs inside the request's span, before anything else looks at the request.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let peer = *request.extensions().get::<Peer>().expect("every connection knows its peer");
    let preview = request.extensions().get::<Preview>().cloned();
    let (uri, headers) = (request.uri(), request.headers());
    let admitted = access.check(peer, request.method(), uri, headers, preview.as_ref())?;
    let Some(preview) = preview else { return Ok(next.run(request).await) };
    let cookie = match admitted {
        Admitted::ByQuery(pass) => {
            let secret = access.passes.for_cookie(preview.port, &pass);
            preview.cookie(&access.names, &secret, headers)
        }
        Admitted::Fully => None,
    };
    let elsewhere = preview.elsewhere(&request, cookie.is_some()).filter(|_| access.stand_alone);
    let mut reply = match elsewhere {
        Some(location) => visit(location),
        None => {
            preview::forget_secrets(&mut request, &access.names, &access.passes, preview.port);
            next.run(request).await
        }
    };
    if let Some(cookie) = cookie {
        reply.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(reply)
}

fn visit(location: HeaderValue) -> Response {
    let uncached = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location), uncached]).into_response()
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_own_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    address.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        || host == "localhost"
        || host.ends_with(".localhost")
}

/// Every token that the request shows in its headers.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let bearer = lines(header::AUTHORIZATION).filter_map(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.chain(lines(TOKEN_HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_loopback_names() {
        for host in [
            "localhost",
            "LOCALHOST:2280",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:2280",
            "3000-x.localhost:2280",
        ] {
            assert!(is_own_name(without_port(host)), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1:2280", "[::2]", "", "evil-localhost"] {
            assert!(!is_own_name(without_port(host)), "{host}");
        }
    }

    #[test]
    fn tokens_are_found_wherever_clients_put_them() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "bearer one".parse().unwrap());
        headers.insert("x-daytona-preview-token", "two".parse().unwrap());
        assert_eq!(presented(&headers).collect::<Vec<_>>(), ["one", "two"]);
        let query = "path=a&DAYTONA_SANDBOX_AUTH_KEY=th%20ree&DAYTONA_SANDBOX_AUTH_KEYS=x";
        assert_eq!(preview::tokens_in(query).collect::<Vec<_>>(), ["th ree"]);
    }
}
