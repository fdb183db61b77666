//! Paths to `file:` URIs and back (RFC 8089, RFC 3986).
//!
//! SDKs make a URI by writing `file://` before whatever path their user gave: relative ones are below the working
//! directory, and nothing is escaped. Servers get absolute, escaped URIs, and so do users: whichever way a server
//! escapes, one path is always the same URI, and clients may send it back in either form.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::error::{Error, Result};

const SCHEME: &str = "file://";
/// All but the unreserved characters of RFC 3986 and the slash, as VS Code has it.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a client's URI may mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The text as it is.
    pub(super) literal: PathBuf,
    /// The text with its escapes undone, when it has any.
    pub(super) unescaped: Option<PathBuf>,
}

/// Takes a client's URI, or a bare path, apart; relative paths are below `base`.
///
/// # Errors
/// When it is a URI of something else than a file.
pub(super) fn given(uri: &str, base: &Path) -> Result<Given> {
    let text = match uri.split_once("://") {
        Some(("file", text)) => text,
        Some((scheme, _)) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            return Err(Error::invalid(format!("uri names no file: {uri}")));
        }
        _ => uri,
    };
    if text.is_empty() || text.contains('\0') {
        return Err(Error::invalid(format!("uri names no file: {uri:?}")));
    }
    let unescaped: Vec<u8> = percent_decode(text.as_bytes()).collect();
    let has_escapes = unescaped != text.as_bytes() && !unescaped.contains(&0);
    Ok(Given {
        literal: base.join(text),
        unescaped: has_escapes.then(|| base.join(OsString::from_vec(unescaped))),
    })
}

/// The URI of an absolute path.
pub(super) fn of_path(path: &Path) -> String {
    format!("{SCHEME}{}", percent_encode(path.as_os_str().as_bytes(), ESCAPED))
}

/// The path of a server's URI; none when it names no file.
pub(super) fn to_path(uri: &str) -> Option<PathBuf> {
    let rest = uri
        .strip_prefix(SCHEME)
        .or_else(|| uri.strip_prefix("file:").filter(|rest| rest.starts_with('/')))?;
    let path = &rest[rest.find('/')?..]; // a host may stand before it
    let path: Vec<u8> = percent_decode(path.as_bytes()).collect();
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// A server's URI as we write it.
pub(super) fn canonical(uri: &str) -> String {
    to_path(uri).map_or_else(|| uri.to_owned(), |path| of_path(&path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(uri: &str) -> (String, Option<String>) {
        let given = given(uri, Path::new("/base")).unwrap();
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        (text(given.literal), given.unescaped.map(text))
    }

    #[test]
    fn clients_may_escape_or_not_and_give_relative_paths() {
        assert_eq!(paths("file://p/sample.py"), ("/base/p/sample.py".to_owned(), None));
        assert_eq!(paths("file:///p/a b#1?.py"), ("/p/a b#1?.py".to_owned(), None));
        assert_eq!(paths("/p/x.py"), ("/p/x.py".to_owned(), None));
        assert_eq!(paths("file:///p/a%20b"), ("/p/a%20b".to_owned(), Some("/p/a b".to_owned())));
        assert_eq!(paths("file:///p/100%"), ("/p/100%".to_owned(), None));
        for bad in ["untitled://1", "http://x/y", "file://", ""] {
            assert!(given(bad, Path::new("/")).is_err(), "{bad}");
        }
    }

    #[test]
    fn whichever_way_a_server_escapes_a_path_has_one_uri() {
        for uri in [
            "file:///p/a%20b%23c%28d",
            "file:///p/a b#c(d",
            "file://localhost/p/a%20b%23c(d",
            "file:/p/a b#c(d",
        ] {
            assert_eq!(canonical(uri), "file:///p/a%20b%23c%28d", "{uri}");
        }
        assert_eq!(canonical("jdt://contents/x.class"), "jdt://contents/x.class");
    }

    proptest! {
        #[test]
        fn every_path_survives(bytes in prop::collection::vec(1_u8.., 0..40)) {
            let path = PathBuf::from(OsString::from_vec([b"/", &bytes[..]].concat()));
            let uri = of_path(&path);
            prop_assert!(uri.is_ascii());
            prop_assert_eq!(to_path(&uri).unwrap(), path);
        }
    }
}
