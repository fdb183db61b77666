//! Which keys SSH servers are known by (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): the user's list and the system's. A
//! server that is in neither is taken at its word the first time, and remembered; one that has another key than it had
//! is refused.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use sha1::Sha1;

/// The system's list.
const SYSTEM: &str = "/etc/ssh/ssh_known_hosts";
/// Largest list that is read, in bytes.
const LIST: u64 = 16 * 1024 * 1024;

/// What is known of one server.
#[derive(Debug)]
pub(super) struct KnownHost {
    /// As lists have it: `host`, or `[host]:port` when the port is not the usual one.
    name: String,
    list: PathBuf,
    keys: Vec<Known>,
    revoked: Vec<PublicKey>,
}

#[derive(Debug)]
struct Known {
    key: PublicKey,
    list: PathBuf,
    line: usize,
}

/// What to make of a server's key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the one that it always was.
    Known,
    /// Nothing is known of this server.
    New,
    /// It must not be trusted; says why.
    Refused(String),
}

impl KnownHost {
    /// Reads the lists. Lines that make no sense are skipped, as OpenSSH does.
    pub(super) fn find(home: &Path, host: &str, port: u16) -> Self {
        Self::find_in(&[home.join(".ssh/known_hosts"), SYSTEM.into()], host, port)
    }

    fn find_in(lists: &[PathBuf], host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let name = if port == 22 { host } else { format!("[{host}]:{port}") };
        let mut found = Self { name, list: lists[0].clone(), keys: Vec::new(), revoked: Vec::new() };
        for list in lists {
            let Ok(file) = std::fs::File::open(list) else { continue };
            let mut text = Vec::new();
            if file.take(LIST).read_to_end(&mut text).is_err() {
                continue;
            }
            for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
                found.take(line, list, index + 1);
            }
        }
        found
    }

    fn take(&mut self, line: &str, list: &Path, number: usize) {
        // Fields may have any white space between them; the parser knows one space.
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let Ok(entry) = line.parse::<Entry>() else { return };
        if !matches(entry.host_patterns(), &self.name) {
            return;
        }
        let key = entry.public_key().clone();
        match entry.marker() {
            Some(Marker::Revoked) => self.revoked.push(key),
            Some(Marker::CertAuthority) => {} // servers are not asked for certificates
            None => self.keys.push(Known { key, list: list.to_owned(), line: number }),
        }
    }

    /// Kinds of keys to ask the server for, best first: those that it is known by come before the others.
    pub(super) fn preferred(&self, usual: &[Algorithm]) -> Vec<Algorithm> {
        let is_known = |algorithm: &Algorithm| {
            self.keys.iter().any(|known| match (known.key.algorithm(), algorithm) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (known, algorithm) => known == *algorithm,
            })
        };
        let mut algorithms = usual.to_vec();
        algorithms.sort_by_key(|algorithm| !is_known(algorithm));
        algorithms
    }

    /// What to make of `key`.
    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        let is = |other: &PublicKey| other.key_data() == key.key_data();
        if self.revoked.iter().any(is) {
            return Verdict::Refused(format!("the host key of {} is revoked", self.name));
        }
        if self.keys.iter().any(|known| is(&known.key)) {
            return Verdict::Known;
        }
        let Some(Known { key: old, list, line }) = self.keys.first() else { return Verdict::New };
        let print = |key: &PublicKey| key.fingerprint(HashAlg::Sha256).to_string();
        Verdict::Refused(format!(
            "the host key of {} has changed: it is {} now and was {} ({} line {line}); somebody may be in between, or the \
             server was set up anew: then remove that line",
            self.name,
            print(key),
            print(old),
            list.display()
        ))
    }

    /// Adds the key of a server that was not known to the user's list.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub(super) fn remember(&self, key: &PublicKey) -> io::Result<()> {
        if let Some(directory) = self.list.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.list);
        let mut file = options?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last)?;
        }
        let mut key = key.clone();
        key.set_comment("");
        let key = key.to_openssh().map_err(io::Error::other)?;
        let start = if last == *b"\n" { "" } else { "\n" };
        file.write_all(format!("{start}{} {}\n", self.name, key.trim_end()).as_bytes()) // one write: lines stay whole
    }
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => Hmac::<Sha1>::new_from_slice(salt)
            .is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok()),
        HostPatterns::Patterns(patterns) => {
            let (refusing, naming): (Vec<&String>, Vec<&String>) =
                patterns.iter().partition(|pattern| pattern.starts_with('!'));
            naming.iter().any(|pattern| is_like(pattern.as_bytes(), name.as_bytes()))
                && !refusing.iter().any(|pattern| is_like(&pattern.as_bytes()[1..], name.as_bytes()))
        }
    }
}

/// Whether `name` is like a pattern in which `*` is any text and `?` any character.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last star was, and how much of the name it stands for: going back there is enough.
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&name[read]) => {
                (at, read) = (at + 1, read + 1)
            }
            _ => match star {
                Some((position, taken)) => {
                    star = Some((position, taken + 1));
                    (at, read) = (position + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(text: &str, host: &str, port: u16) -> KnownHost {
        let directory = tempfile::TempDir::new().unwrap();
        let list = directory.path().join("known_hosts");
        std::fs::write(&list, text).unwrap();
        KnownHost::find_in(&[list], host, port)
    }

    #[test]
    fn servers_are_known_by_name_pattern_and_hash() {
        // The hash is of example.com.
        let hashed = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak= ssh-ed25519 \
                      AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
        let text = format!(
            "# comment\nnonsense\nhost,10.0.0.1 {KEY} a comment\n[host]:2222\t{OTHER}\n*.example.org,!bad.* {KEY}\n{hashed}\n"
        );
        for (host, port, expected) in [
            ("HOST", 22, Some(KEY)),
            ("10.0.0.1", 22, Some(KEY)),
            ("host", 2222, Some(OTHER)),
            ("a.example.org", 22, Some(KEY)),
            ("bad.example.org", 22, None),
            ("example.com", 22, hashed.split_once(' ').map(|(_, key)| key)),
            ("else", 22, None),
        ] {
            let verdict = known(&text, host, port).judge(&key(expected.unwrap_or(KEY)));
            assert_eq!(verdict, if expected.is_some() { Verdict::Known } else { Verdict::New }, "{host}");
        }
    }

    #[test]
    fn another_key_and_a_revoked_one_are_refused() {
        let Verdict::Refused(text) = known(&format!("host {KEY}\n"), "host", 22).judge(&key(OTHER)) else {
            panic!("taken")
        };
        assert!(text.contains("known_hosts line 1") && text.contains("SHA256:"), "{text}");
        let revoked = known(&format!("host {KEY}\n@revoked * {KEY}\n"), "host", 22);
        assert!(matches!(revoked.judge(&key(KEY)), Verdict::Refused(_)));
    }

    #[test]
    fn a_new_server_is_remembered_on_a_line_of_its_own() {
        let directory = tempfile::TempDir::new().unwrap();
        let list = directory.path().join(".ssh/known_hosts");
        let find = || KnownHost::find_in(std::slice::from_ref(&list), "Host", 2222);
        find().remember(&key(KEY)).unwrap();
        std::fs::write(&list, std::fs::read_to_string(&list).unwrap().trim_end()).unwrap();
        find().remember(&key(OTHER)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&list).unwrap(),
            format!("[host]:2222 {KEY}\n[host]:2222 {OTHER}\n")
        );
        assert_eq!(find().judge(&key(KEY)), Verdict::Known);
        let algorithms = [Algorithm::Rsa { hash: None }, Algorithm::Ed25519];
        assert_eq!(find().preferred(&algorithms)[0], Algorithm::Ed25519);
    }
}
