//! Where a repository is: what git takes for a URL, read once, with its secrets kept apart from what is shown.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Result};

/// What cannot stand in a request's target as it is; `%` may, because what is escaped already stays as it is.
const TARGET: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');
/// What cannot stand in a file URL's path.
const FILE: &AsciiSet = &TARGET.add(b'%').add(b'?').add(b'#');

/// The address of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// `http://` and `https://`.
    Http(HttpUrl),
    /// `ssh://`, its two older spellings, and `[user@]host:path`.
    Ssh(SshUrl),
    /// `git://`.
    Git(GitUrl),
    /// `file://`, or a path; absolute.
    Local(PathBuf),
}

/// A user name and password, or a token in place of either.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// A URL of HTTP, without user and password, which are beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpUrl {
    pub(super) is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, escaped; the path has no slash at its end.
    pub(super) path: String,
    pub(super) user: Option<String>,
    pub(super) login: Option<Login>,
}

/// A URL of SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SshUrl {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
}

/// A URL of git's own protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Location {
    /// Reads `text` as git does; paths are relative to `base`.
    ///
    /// # Errors
    /// When it is a URL that cannot be used, in words that do not repeat its password.
    pub(super) fn parse(text: &str, base: &Path) -> Result<Self> {
        if text.is_empty() || text.contains(['\0', '\n', '\r']) {
            return Err(Error::invalid("the url is empty or has a line break"));
        }
        if text.starts_with('-') {
            return Err(Error::invalid(format!("the url begins with a dash: {text}")));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" => HttpUrl::parse(false, rest).map(Self::Http),
                "https" => HttpUrl::parse(true, rest).map(Self::Http),
                "ssh" | "git+ssh" | "ssh+git" => SshUrl::parse(rest).map(Self::Ssh),
                "git" => GitUrl::parse(rest).map(Self::Git),
                "file" => file(rest).map(Self::Local),
                other => Err(Error::invalid(format!("unsupported url scheme: {}", shortened(other)))),
            };
        }
        // A helper's own transport, as ext::sh -c …, which would run a command.
        if let Some((helper, _)) = text.split_once("::")
            && !helper.contains(['/', '[', '@'])
        {
            return Err(Error::invalid(format!("unsupported url scheme: {}", shortened(helper))));
        }
        match SshUrl::parse_short(text)? {
            Some(url) if !base.join(text).exists() => Ok(Self::Ssh(url)),
            _ => Ok(Self::Local(base.join(text))),
        }
    }

    /// What the engine takes in its place: a path with a colon is not a host to it then.
    pub(super) fn engine_url(&self, text: &str) -> String {
        match self {
            Self::Local(path) => {
                format!("file://{}", utf8_percent_encode(&path.to_string_lossy(), FILE))
            }
            Self::Http(_) | Self::Ssh(_) | Self::Git(_) => text.to_owned(),
        }
    }
}

impl fmt::Display for Location {
    /// Without password, and without the user of HTTP, which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Ssh(url) => {
                f.write_str("ssh://")?;
                if let Some(user) = &url.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&bracketed(&url.host))?;
                if let Some(port) = url.port {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{}", url.path.trim_start_matches('/'))
            }
            Self::Git(url) => write!(f, "git://{}:{}{}", bracketed(&url.host), url.port, url.path),
            Self::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A URL for messages and logs, without what it may hold of secrets.
pub(super) fn shown(url: &str) -> String {
    match Location::parse(url, Path::new("/")) {
        Ok(location @ (Location::Http(_) | Location::Ssh(_) | Location::Git(_))) => location.to_string(),
        Ok(Location::Local(_)) => url.to_owned(),
        Err(_) => "a url that makes no sense".to_owned(),
    }
}

impl HttpUrl {
    /// Reads what follows `://`.
    fn parse(is_tls: bool, rest: &str) -> Result<Self> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let (host, port) = host_and_port(address)?;
        let (user, login) = match userinfo.map(|info| info.split_once(':').ok_or(info)) {
            None => (None, None),
            Some(Err(user)) => (Some(decoded(user)?).filter(|user| !user.is_empty()), None),
            Some(Ok((user, password))) => {
                let login = Login { user: decoded(user)?, password: decoded(password)? };
                (Some(login.user.clone()).filter(|user| !user.is_empty()), Some(login))
            }
        };
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut path = utf8_percent_encode(path.trim_end_matches('/'), TARGET).to_string();
        if let Some(query) = query {
            path = format!("{path}?{}", utf8_percent_encode(query, TARGET));
        }
        Ok(Self { is_tls, host, port: port.unwrap_or(default_port(is_tls)), path, user, login })
    }

    /// Reads an absolute URL.
    pub(super) fn parse_absolute(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => Self::parse(false, rest).ok(),
            "https" => Self::parse(true, rest).ok(),
            _ => None,
        }
    }

    /// Where a reply to a request for `target` sends us: absolute, or relative to it.
    pub(super) fn redirected(&self, target: &str, location: &str) -> Option<Self> {
        if location.contains("://") {
            return Self::parse_absolute(location);
        }
        let scheme = if self.is_tls { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse_absolute(&format!("{scheme}://{rest}"));
        }
        let here = target.split('?').next().unwrap_or_default();
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => format!("{}/{location}", here.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        Self::parse_absolute(&format!("{scheme}://{}{path}", self.authority()))
    }

    /// Host and port as a `Host` header has them.
    pub(super) fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.port == default_port(self.is_tls) { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether what was meant for `self` may be told to `other` too: the same server, or the same host by its usual
    /// ports and over TLS now.
    pub(super) fn may_share_login_with(&self, other: &Self) -> bool {
        let is_same = self.is_tls == other.is_tls && self.port == other.port;
        let is_safer = !self.is_tls && self.port == 80 && other.is_tls && other.port == 443;
        self.host.eq_ignore_ascii_case(&other.host) && (is_same || is_safer)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        // A query may hold a token.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

impl SshUrl {
    /// Reads what follows `ssh://`. `/~user` names a home directory to the server.
    fn parse(rest: &str) -> Result<Self> {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let (host, port) = host_and_port(address)?;
        let user = userinfo.map(|info| decoded(info.split(':').next().unwrap_or_default())).transpose()?;
        let path = decoded(path)?;
        let path = path.strip_prefix('/').filter(|path| path.starts_with('~')).unwrap_or(&path).to_owned();
        Self { user, host, port, path }.checked()
    }

    /// `[user@]host:path`: a colon before the first slash, as git has it.
    fn parse_short(text: &str) -> Result<Option<Self>> {
        let slash = text.find('/').unwrap_or(text.len());
        let (start, has_brackets) = match text.find('[') {
            Some(open) if open < slash => (text.find(']').map_or(slash, |close| close + 1), true),
            _ => (0, false),
        };
        let Some(colon) = text[start..slash.max(start)].find(':').map(|colon| start + colon) else {
            return Ok(None);
        };
        let (authority, path) = (&text[..colon], &text[colon + 1..]);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user.to_owned()), address),
            None => (None, authority),
        };
        let (host, port) = if has_brackets {
            // Brackets may hold a port too: [host:2222]:path.
            let inner = address.trim_start_matches('[').trim_end_matches(']');
            if inner.matches(':').count() == 1 { host_and_port(inner)? } else { (inner.to_owned(), None) }
        } else {
            (address.to_owned(), None)
        };
        Self { user, host, port, path: path.to_owned() }.checked().map(Some)
    }

    /// None of its parts may be taken for an option by anybody.
    fn checked(self) -> Result<Self> {
        let parts = [self.user.as_deref(), Some(self.host.as_str()), Some(self.path.as_str())];
        if parts.iter().flatten().any(|part| part.starts_with('-')) {
            return Err(Error::invalid("user, host and path of an ssh url must not begin with a dash"));
        }
        if self.host.is_empty() || self.path.is_empty() || self.user.as_deref() == Some("") {
            return Err(Error::invalid("an ssh url needs a host and a path"));
        }
        Ok(self)
    }
}

impl GitUrl {
    fn parse(rest: &str) -> Result<Self> {
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = host_and_port(address)?;
        if path.is_empty() {
            return Err(Error::invalid("a git url needs a path"));
        }
        Ok(Self { host, port: port.unwrap_or(9418), path: decoded(path)? })
    }
}

fn file(rest: &str) -> Result<PathBuf> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(Error::invalid("a file url needs an absolute path"));
    }
    decoded(path).map(PathBuf::from)
}

/// Port that a scheme has when none is given.
fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

fn host_and_port(address: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if host.is_empty() || !host.chars().all(is_host) || host.starts_with('-') {
        return Err(Error::invalid("the url has no valid host"));
    }
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => Some(port.parse().map_err(|_| Error::invalid("the url has no valid port"))?),
        None => None,
    };
    Ok((host.to_owned(), port))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Error::invalid("the url is not valid UTF-8"))?;
    if decoded.contains(['\0', '\n', '\r']) {
        return Err(Error::invalid("the url has a line break"));
    }
    Ok(decoded.into_owned())
}

/// What is only quoted; a scheme that is not one may be anything.
fn shortened(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Location {
        Location::parse(text, Path::new("/base")).unwrap()
    }

    fn ssh(user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Location {
        Location::Ssh(SshUrl { user: user.map(Into::into), host: host.into(), port, path: path.into() })
    }

    #[test]
    fn http_urls_lose_their_secrets() {
        let Location::Http(url) = parse("https://us%40er:p%3Ass@host.example:8443/a b/repo.git/") else {
            panic!("http")
        };
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("host.example", 8443, "/a%20b/repo.git")
        );
        assert_eq!(url.login, Some(Login { user: "us@er".into(), password: "p:ss".into() }));
        assert_eq!(url.to_string(), "https://host.example:8443/a%20b/repo.git");
        assert!(!format!("{url:?}").contains("p:ss"));
        assert_eq!(shown("http://token@[::1]:80/x?private_token=1"), "http://[::1]/x");
    }

    #[test]
    fn ssh_comes_in_two_forms() {
        assert_eq!(parse("ssh://git@host:2222/a/b.git"), ssh(Some("git"), "host", Some(2222), "/a/b.git"));
        assert_eq!(parse("ssh://host/~me/b"), ssh(None, "host", None, "~me/b"));
        assert_eq!(parse("git@host:a/b.git"), ssh(Some("git"), "host", None, "a/b.git"));
        assert_eq!(parse("[host:2222]:a"), ssh(None, "host", Some(2222), "a"));
        assert_eq!(parse("me@[::1]:/a"), ssh(Some("me"), "::1", None, "/a"));
    }

    #[test]
    fn paths_are_what_is_nothing_else() {
        assert_eq!(parse("../x"), Location::Local("/base/../x".into()));
        assert_eq!(parse("./a:b"), Location::Local("/base/./a:b".into()));
        assert_eq!(parse("file:///a%20b"), Location::Local("/a b".into()));
        assert_eq!(parse("/a:b").engine_url("/a:b"), "file:///a:b");
    }

    #[test]
    fn what_could_run_a_command_is_refused() {
        for text in [
            "ext::sh -c x",
            "-oProxyCommand=x",
            "ssh://-oProxyCommand=x/a",
            "x@-h:a",
            "h:-a",
            "ftp://h/a",
            "",
        ] {
            assert!(Location::parse(text, Path::new("/")).is_err(), "{text}");
        }
    }

    #[test]
    fn redirects_are_resolved_and_share_a_login_with_the_same_server_only() {
        let url = HttpUrl::parse_absolute("http://host/a").unwrap();
        let to = |location| url.redirected("/a/info/refs?service=x", location).unwrap();
        assert_eq!(to("/b/info/refs?service=x").path, "/b/info/refs?service=x");
        assert_eq!(to("other").path, "/a/info/other");
        assert_eq!(to("//else:81/x").to_string(), "http://else:81/x");
        for (other, may) in [
            ("http://HOST/b", true),
            ("https://host/b", true),
            ("http://host:81/b", false),
            ("https://host:444/b", false),
            ("http://host.evil/b", false),
        ] {
            assert_eq!(url.may_share_login_with(&to(other)), may, "{other}");
        }
        assert!(!to("https://host/").may_share_login_with(&url));
    }
}
