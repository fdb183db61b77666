//! Requests for a port of the sandbox: by path, `/proxy/{port}/…` or `/absproxy/{port}/…`, or, stand-alone, by a host
//! name of the port's own, `{port}-{id}.localhost`, for apps whose pages name absolute paths. Browsers take every name
//! below `localhost` for this machine, so no name of the outside can lead here (RFC 6761 6.3).
//!
//! ```text
//!   GET /?DAYTONA_SANDBOX_AUTH_KEY=… ---> 303 /, with the cookie       a visit, in the address bar
//!   GET /app.js, with the cookie --------> the port, without it        all that follows
//! ```
//!
//! A cookie opens its port and nothing else, and none of what lets a request in is passed on to the port.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use percent_encoding::percent_decode_str;

use crate::platform::passes::Passes;
use crate::platform::sockets;

/// The query parameter that stands for the token where clients cannot set headers.
pub(super) const TOKEN_PARAMETER: &str = "DAYTONA_SANDBOX_AUTH_KEY";
/// The header that stands for the token.
pub(super) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-daytona-preview-token");

/// What host names and cookies are made of.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Of the sandbox, in lower case.
    id: String,
    pub(super) cookie: String,
    /// No platform is in front, whose own host names these would be.
    stand_alone: bool,
}

/// What paths that lead to a port begin with.
const ROOTS: [&str; 2] = ["/proxy/", "/absproxy/"];

/// Whether what is asked for is only passed on to a port of the sandbox: how it is spelt is not our business.
pub(super) fn is_passed_on(path: &str) -> bool {
    ROOTS.iter().any(|root| path.starts_with(root))
}

/// A request is for this port. Among the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Preview {
    pub(super) port: u16,
    /// Path that all of the port's URLs begin with, as the client sees it.
    base: String,
    /// What the client asked for.
    asked: Uri,
}

impl Names {
    pub(super) fn new(id: &str, stand_alone: bool) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let cookie = format!("daytona-sandbox-auth-{}", id.replace(|c| !is_plain(c), "-"));
        Self { id: id.to_ascii_lowercase(), cookie, stand_alone }
    }

    /// The port in a host name like `3000-box.localhost:2280`, of this sandbox.
    pub(super) fn port(&self, host: &str) -> Option<u16> {
        let host = super::auth::without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let (port, id) = host.strip_suffix(".localhost")?.split_once('-')?;
        sockets::port(port).filter(|_| self.stand_alone && id == self.id)
    }

    /// Finds the port that a request is for and makes the path say so, without a platform's prefix.
    pub(super) fn find(&self, uri: &Uri, headers: &HeaderMap, own: Option<&Uri>) -> Option<(Preview, Uri)> {
        let host = uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok());
        if let Some(port) = host.and_then(|host| self.port(host)) {
            let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
            let path = format!("/proxy/{port}{target}").parse().ok()?;
            return Some((Preview { port, base: "/".to_owned(), asked: uri.clone() }, path));
        }
        let path = own.unwrap_or(uri);
        let (root, rest) = ROOTS.iter().find_map(|root| Some((root, path.path().strip_prefix(root)?)))?;
        let (text, _) = segment(rest);
        let port = sockets::port(text)?;
        // The prefix is what the client's own path has more.
        let prefix = uri.path().len() - path.path().len();
        let base = uri.path()[..prefix + root.len() + text.len()].to_owned();
        Some((Preview { port, base, asked: uri.clone() }, path.clone()))
    }
}

impl Preview {
    /// What a request for the daemon's own port asks it for.
    pub(super) fn of_ourselves(path: &Uri) -> Option<Uri> {
        let (_, rest) = segment(path.path().strip_prefix("/proxy/")?);
        let rest = if rest.is_empty() { "/" } else { rest };
        path.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}")).parse().ok()
    }

    /// Where a browser is sent that was let in by what its address bar shows, which is `in_query`: the same without it.
    /// And with a slash after the port, without which relative URLs of the page would miss it. None for what is not a
    /// visit, and when there is nothing to change.
    pub(super) fn elsewhere<B>(&self, request: &Request<B>, in_query: bool) -> Option<HeaderValue> {
        let is = |name: &str, word: &str| request.headers().get(name).is_some_and(|value| value == word);
        let is_visit = request.method() == Method::GET
            && is("sec-fetch-mode", "navigate")
            && is("sec-fetch-dest", "document");
        let lacks_slash = self.asked.path() == self.base && self.base != "/";
        if !is_visit || !(in_query || lacks_slash) {
            return None;
        }
        // Two slashes in front would be another host.
        let path = self.asked.path().trim_start_matches('/');
        let slash = if lacks_slash { "/" } else { "" };
        let query = self.asked.query().unwrap_or_default();
        let query = if in_query { without_token(query, |_| true) } else { query.to_owned() };
        let question = if query.is_empty() { "" } else { "?" };
        HeaderValue::try_from(format!("/{path}{slash}{question}{query}")).ok()
    }

    /// The cookie that lets the next requests in. It is gone with the browser, or when what it stands for ends.
    pub(super) fn cookie(&self, names: &Names, secret: &str, headers: &HeaderMap) -> Option<HeaderValue> {
        let is_secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let secure = if is_secure { "; Secure" } else { "" };
        let (name, base) = (&names.cookie, &self.base);
        HeaderValue::try_from(format!("{name}={secret}; Path={base}; HttpOnly; SameSite=Lax{secure}")).ok()
    }
}

/// Takes from a request what let it in, or would have; the rest stays as it is, byte for byte.
pub(super) fn forget_secrets<B>(request: &mut Request<B>, names: &Names, passes: &Passes, port: u16) {
    let is_ours = |shown: &str| passes.admits_to(Some(port), shown);
    let headers = request.headers_mut();
    if texts_of(headers, &TOKEN_HEADER).any(is_ours) {
        headers.remove(&TOKEN_HEADER);
    }
    let bears_ours = |value: &str| value.split_once(' ').is_some_and(|(_, token)| is_ours(token.trim()));
    if texts_of(headers, &header::AUTHORIZATION).any(bears_ours) {
        headers.remove(header::AUTHORIZATION);
    }
    let is_kept = |pair: &str| pair.trim().split_once('=').is_none_or(|(name, _)| name != names.cookie);
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if lines.iter().filter_map(|line| line.to_str().ok()).any(|line| !line.split(';').all(is_kept)) {
        headers.remove(header::COOKIE);
        for line in lines {
            let Ok(text) = line.to_str() else {
                headers.append(header::COOKIE, line);
                continue;
            };
            let kept: Vec<&str> = text.split(';').filter(|pair| is_kept(pair)).collect();
            if let Some(kept) = HeaderValue::from_str(kept.join(";").trim()).ok().filter(|it| !it.is_empty())
            {
                headers.append(header::COOKIE, kept);
            }
        }
    }
    let query = request.uri().query().filter(|query| query.contains(TOKEN_PARAMETER));
    if let Some(rest) = query.map(|query| without_token(query, is_ours)) {
        let path = request.uri().path();
        let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
        if let Ok(uri) = target.parse() {
            *request.uri_mut() = uri;
        }
    }
}

/// The tokens that a request shows in its query.
pub(super) fn tokens_in(query: &str) -> impl Iterator<Item = String> + '_ {
    query.split('&').filter_map(token)
}

/// The values of the cookie of this name.
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(found, _)| *found == name).map(|(_, value)| value)
}

fn without_token(query: &str, is_ours: impl Fn(&str) -> bool) -> String {
    let kept = query.split('&').filter(|pair| token(pair).is_none_or(|token| !is_ours(&token)));
    kept.collect::<Vec<_>>().join("&")
}

fn token(pair: &str) -> Option<String> {
    let value = pair.strip_prefix(TOKEN_PARAMETER)?.strip_prefix('=')?;
    percent_decode_str(value).decode_utf8().ok().map(Into::into)
}

fn texts_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// The first segment, and the rest with its slash.
fn segment(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Token;

    fn found(names: &Names, uri: &str, host: &str, own: Option<&str>) -> Option<(u16, String, String)> {
        let headers = [(header::HOST, host.parse().unwrap())].into_iter().collect();
        let own = own.map(|own| own.parse().unwrap());
        let (preview, path) = names.find(&uri.parse().unwrap(), &headers, own.as_ref())?;
        Some((preview.port, preview.base, path.to_string()))
    }

    #[test]
    fn a_port_is_found_in_the_host_name_or_the_path() {
        let names = Names::new("Box.example", true);
        let by_host = |host| found(&names, "/a%2Fb//c?d", host, None);
        let there = Some((3000, "/".to_owned(), "/proxy/3000/a%2Fb//c?d".to_owned()));
        for host in
            ["3000-box.example.localhost:2280", "3000-BOX.example.LOCALHOST", "3000-box.example.localhost."]
        {
            assert_eq!(by_host(host), there, "{host}");
        }
        for host in [
            "03000-box.example.localhost",
            "+3000-box.example.localhost",
            "99999-box.example.localhost",
            "3000-other.localhost",
            "3000-box.example.localhost.evil.example",
            "3000-box.example.evil",
            "a.3000-box.example.localhost",
            "localhost:2280",
        ] {
            assert_eq!(by_host(host), None, "{host}");
        }
        let by_path = |uri, own| found(&names, uri, "localhost", own).map(|(port, base, _)| (port, base));
        assert_eq!(by_path("/proxy/80", None), Some((80, "/proxy/80".to_owned())));
        let prefixed = by_path("/toolbox/x/proxy/80/a?b", Some("/proxy/80/a?b"));
        assert_eq!(prefixed, Some((80, "/toolbox/x/proxy/80".to_owned())));
        assert_eq!(by_path("/absproxy/80/a", None), Some((80, "/absproxy/80".to_owned())));
        assert_eq!(by_path("/proxy/+80/", None), None);
        assert_eq!(by_path("/files", None), None);
        let with_platform = Names::new("box.example", false);
        assert_eq!(found(&with_platform, "/a", "3000-box.example.localhost", None), None);
    }

    #[test]
    fn secrets_are_taken_out_and_nothing_else() {
        let (names, passes) = (Names::new("box", true), Passes::new());
        passes.require(Token::new("t0ken").unwrap());
        let mut request = Request::new(());
        *request.uri_mut() = "/proxy/80/?a=%20&DAYTONA_SANDBOX_AUTH_KEY=t0%6Ben&&b".parse().unwrap();
        for (name, value) in [
            ("authorization", "Bearer t0ken"),
            ("x-daytona-preview-token", "theirs"),
            ("cookie", "a=1; daytona-sandbox-auth-box=x;b=\"2\""),
            ("cookie", "daytona-sandbox-auth-box=x"),
        ] {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        forget_secrets(&mut request, &names, &passes, 80);
        assert_eq!(request.uri(), "/proxy/80/?a=%20&&b");
        let left: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("x-daytona-preview-token", "theirs"), ("cookie", "a=1;b=\"2\"")]);
    }

    #[test]
    fn only_a_visit_is_sent_elsewhere_and_never_to_another_host() {
        let preview =
            |asked: &str, base: &str| Preview { port: 80, base: base.into(), asked: asked.parse().unwrap() };
        let mut request = Request::new(());
        let asked = preview("//evil.example/?x=1&DAYTONA_SANDBOX_AUTH_KEY=a&y", "/");
        assert_eq!(asked.elsewhere(&request, true), None);
        for (name, value) in [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(asked.elsewhere(&request, true).unwrap(), "/evil.example/?x=1&y");
        assert_eq!(asked.elsewhere(&request, false), None);
        let asked = preview("/id/proxy/80?DAYTONA_SANDBOX_AUTH_KEY=a", "/id/proxy/80");
        assert_eq!(asked.elsewhere(&request, true).unwrap(), "/id/proxy/80/");
        assert_eq!(preview("/proxy/80?b", "/proxy/80").elsewhere(&request, false).unwrap(), "/proxy/80/?b");
        assert_eq!(preview("/proxy/80/?b", "/proxy/80").elsewhere(&request, false), None);
    }
}
