//! What servers say in words when they do not serve: the protocol has no codes for it.

use super::operation::transport;
use crate::error::{Error, ErrorKind};

/// Sorts what a server said instead of serving `location`. The words are those of git's own services and of the large
/// hosts.
pub(super) fn sorted(location: &str, words: &str) -> Error {
    let text = words.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    let told = format!("{location}: {words}");
    if says(&["not our ref", "unadvertised object", "couldn't find remote ref", "no such ref"]) {
        Error::new(ErrorKind::GitBranchNotFound, told)
    } else if says(&[
        "not appear to be a git repository",
        "not a git repository",
        "repository not found",
        "not exported",
        "no such file or directory",
        "no such repository",
        "does not exist",
        "could not be found",
        "project not found",
        "not found",
    ]) && !says(&["command not found"])
    {
        Error::new(ErrorKind::GitRepoNotFound, told)
    } else if says(&[
        "permission denied",
        "access denied",
        "denied to",
        "not allowed",
        "forbidden",
        "not authorized",
    ]) {
        Error::new(ErrorKind::Forbidden, told)
    } else {
        transport(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted() {
        for (words, kind) in [
            ("fatal: '/x' does not appear to be a git repository", ErrorKind::GitRepoNotFound),
            ("ERROR: Repository not found.", ErrorKind::GitRepoNotFound),
            ("access denied or repository not exported: /x", ErrorKind::GitRepoNotFound),
            ("ERROR: Permission to a/b.git denied to c.", ErrorKind::Forbidden),
            ("upload-pack: not our ref 0123", ErrorKind::GitBranchNotFound),
            ("bash: git-upload-pack: command not found", ErrorKind::GitTransportFailed),
            ("out of memory", ErrorKind::GitTransportFailed),
        ] {
            assert_eq!(sorted("ssh://h/x", words).kind(), kind, "{words}");
        }
    }
}
