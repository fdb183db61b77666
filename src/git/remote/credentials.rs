//! What the user keeps in `.git-credentials` (git-credential-store(1)): one URL with user and password a line.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustix::fs::{FlockOperation, flock};

use super::location::{HttpUrl, Login};
use super::operation::Operation;
use crate::error::{Error, Result};

/// What stays as it is in a user or a password (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Largest file that is read, in bytes.
const FILE: u64 = 1024 * 1024;

/// The files that git looks into, in its order.
pub(super) struct Stored {
    files: [PathBuf; 2],
}

impl Stored {
    pub(super) fn of(operation: &Operation) -> Self {
        let home = operation.home();
        let settings =
            operation.variable("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        Self { files: [home.join(".git-credentials"), settings.join("git/credentials")] }
    }

    /// The first that fits the server, and the user if the URL names one.
    pub(super) fn find(&self, url: &HttpUrl, user: Option<&str>) -> Option<Login> {
        let files = self.files.iter().filter(|path| path.metadata().is_ok_and(|found| found.len() <= FILE));
        let texts = files.filter_map(|path| std::fs::read_to_string(path).ok());
        texts.flat_map(|text| text.lines().filter_map(Entry::parse).collect::<Vec<_>>()).find_map(|entry| {
            let path = url.path.split('?').next().unwrap_or_default();
            let is_path = entry.path.is_empty() || path.trim_matches('/') == entry.path;
            let fits = entry.is_at(url) && is_path && user.is_none_or(|user| user == entry.login.user);
            fits.then_some(entry.login)
        })
    }
}

struct Entry {
    protocol: String,
    /// With its port, if it has one.
    host: String,
    path: String,
    login: Login,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let (protocol, rest) = line.trim_end().split_once("://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, host) = authority.rsplit_once('@')?;
        let (user, password) = userinfo.split_once(':')?;
        let text = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let login = Login { user: text(user)?, password: text(password)? };
        let (host, path) = (text(host)?.to_ascii_lowercase(), text(path)?);
        Some(Self {
            protocol: protocol.to_ascii_lowercase(),
            host,
            path: path.trim_matches('/').to_owned(),
            login,
        })
    }

    fn is_at(&self, url: &HttpUrl) -> bool {
        let protocol = if url.is_tls { "https" } else { "http" };
        let host = url.authority().to_ascii_lowercase();
        let usual = if url.is_tls { ":443" } else { ":80" };
        self.protocol == protocol && self.host.strip_suffix(usual).unwrap_or(&self.host) == host
    }
}

/// Whom to keep a login for.
#[derive(Debug)]
pub(super) struct Server {
    protocol: String,
    host: String,
}

impl Server {
    /// # Errors
    /// When they are not what a URL can have.
    pub(super) fn new(protocol: &str, host: &str) -> Result<Self> {
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "http" | "https") {
            return Err(Error::invalid(format!("protocol must be https or http, not {protocol:?}")));
        }
        let url = HttpUrl::parse_absolute(&format!("{protocol}://{host}"));
        match url {
            Some(url)
                if url.path.is_empty()
                    && url.user.is_none()
                    && url.login.is_none()
                    && !host.contains('/') =>
            {
                Ok(Self { protocol, host: host.to_ascii_lowercase() })
            }
            _ => Err(Error::invalid(format!(
                "host must be a name or address, and a port if there is one, not {host:?}"
            ))),
        }
    }
}

/// Keeps a login in `.git-credentials` in `home`, in place of what was there for the same server. The file is the
/// user's alone. git locks it in the same way, by a file beside it.
///
/// # Errors
/// When user or password cannot be on a line, when another program does not let go of the lock, and what the operating
/// system says. The file is as it was then.
pub(super) fn keep(home: &Path, server: &Server, login: &Login) -> Result<()> {
    if [&login.user, &login.password].iter().any(|text| text.contains(['\n', '\r', '\0'])) {
        return Err(Error::invalid("username and password must not have line breaks"));
    }
    // A link is followed, so that it stays one.
    let path = home.join(".git-credentials");
    let path = path.canonicalize().unwrap_or(path);
    replace(&path, server, login).map_err(|error| Error::io("write", &path, error))
}

fn replace(path: &Path, server: &Server, login: &Login) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    // Ours wait for each other at the directory; git does not know of that, and sees our file.
    let directory = std::fs::File::open(path.parent().unwrap_or(path))?;
    flock(&directory, FlockOperation::LockExclusive)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock);
    let mut file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::Error::other(format!("another program holds {}", lock.display())),
        _ => error,
    })?;
    let written = (|| {
        let old = match std::fs::read(path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let kept = old.split(|byte| *byte == b'\n').filter(|line| {
            let entry = std::str::from_utf8(line).ok().and_then(Entry::parse);
            let is_same = entry.is_some_and(|entry| {
                entry.protocol == server.protocol && entry.host == server.host && entry.path.is_empty()
            });
            !line.is_empty() && !is_same
        });
        let encoded = |text| utf8_percent_encode(text, ENCODED);
        let (user, password) = (encoded(&login.user), encoded(&login.password));
        let mut text = format!("{}://{user}:{password}@{}\n", server.protocol, server.host).into_bytes();
        for line in kept {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        file.set_permissions(PermissionsExt::from_mode(0o600))?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&lock, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&lock); // the error is told
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Login {
        Login { user: user.into(), password: password.into() }
    }

    fn find(home: &Path, url: &str, user: Option<&str>) -> Option<Login> {
        let stored = Stored { files: [home.join(".git-credentials"), home.join("none")] };
        stored.find(&HttpUrl::parse_absolute(url).unwrap(), user)
    }

    #[test]
    fn a_login_is_kept_and_replaced_and_others_stay() {
        let home = tempfile::TempDir::new().unwrap();
        let home = home.path();
        let file = home.join(".git-credentials");
        std::fs::write(&file, "https://a:b@other.example\n# not a url\nhttps://x:y@host.example").unwrap();
        let server = Server::new("https", "Host.example").unwrap();
        keep(home, &server, &login("us:er", "p@ss/ü")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let first = "https://us%3Aer:p%40ss%2F%C3%BC@host.example";
        assert_eq!(text, format!("{first}\nhttps://a:b@other.example\n# not a url\n"));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(find(home, "https://host.example:443/x", None), Some(login("us:er", "p@ss/ü")));
        assert_eq!(find(home, "https://host.example/x", Some("somebody")), None);
        assert_eq!(find(home, "http://host.example/x", None), None);
        assert_eq!(find(home, "https://host.example:444/x", None), None);
        assert!(keep(home, &server, &login("a\nb", "c")).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn servers_are_hosts() {
        assert!(Server::new("HTTPS", "[::1]:8080").is_ok());
        for (protocol, host) in
            [("ssh", "h"), ("https", "h/x"), ("https", "u@h"), ("https", "h\nh"), ("https", "")]
        {
            assert!(Server::new(protocol, host).is_err(), "{protocol} {host}");
        }
    }
}
