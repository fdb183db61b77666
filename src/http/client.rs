//! Who is calling: which SDK in which version. Some replies have another shape for older ones.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use semver::Version;

/// Version token that browser clients offer as a WebSocket subprotocol because they cannot set headers.
pub const VERSION_SUBPROTOCOL: &str = "X-Daytona-SDK-Version~";

/// What the client says of itself (contract `core.md` 4).
#[derive(Debug, Clone, Default)]
pub struct Client {
    source: String,
    version: String,
}

impl Client {
    /// Reads `X-Daytona-Source` and the version, from its header or else from the offered subprotocols.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let subprotocol = || {
            let offers = headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL).iter();
            let mut offers = offers.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
            offers.find_map(|offer| offer.trim().strip_prefix(VERSION_SUBPROTOCOL))
        };
        Self {
            source: text("x-daytona-source").unwrap_or_default().to_owned(),
            version: text("x-daytona-sdk-version").or_else(subprotocol).unwrap_or_default().to_owned(),
        }
    }

    /// Which SDK, as sent; empty when that was not.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The version as sent; empty when none was.
    pub fn version_text(&self) -> &str {
        &self.version
    }

    /// The version, when it is one: a leading `v` and Python's `1.2.3a1` are understood.
    pub fn version(&self) -> Option<Version> {
        let text = self.version.strip_prefix('v').unwrap_or(&self.version);
        let core = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (core, rest) = text.split_at(core);
        let rest = if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            format!("-{rest}")
        } else {
            rest.into()
        };
        Version::parse(&format!("{core}{rest}")).ok()
    }

    /// A Go client older than `version`, which refuses members that it does not know (contract `core.md` 4.3).
    pub fn is_strict_below(&self, version: &Version) -> bool {
        self.source == "sdk-go"
            && !self.version.trim_start_matches('v').starts_with("0.0.0")
            && self.version().is_some_and(|own| own < *version)
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, version: &str) -> Client {
        Client { source: source.into(), version: version.into() }
    }

    #[test]
    fn versions_of_every_sdk_are_read() {
        assert_eq!(client("", "0.226.1").version(), Some(Version::new(0, 226, 1)));
        assert_eq!(client("", "v0.205.1").version(), Some(Version::new(0, 205, 1)));
        assert_eq!(client("", "0.167.0a1").version(), Some(Version::parse("0.167.0-a1").unwrap()));
        assert_eq!(client("", "unknown").version(), None);
        assert_eq!(client("", "").version(), None);
    }

    #[test]
    fn only_old_go_clients_are_strict() {
        let limit = Version::new(0, 188, 0);
        assert!(client("sdk-go", "v0.187.3").is_strict_below(&limit));
        assert!(!client("sdk-go", "v0.188.0").is_strict_below(&limit));
        assert!(!client("sdk-go", "0.0.0-dev").is_strict_below(&limit));
        assert!(!client("sdk-go", "unknown").is_strict_below(&limit));
        assert!(!client("sdk-python", "0.100.0").is_strict_below(&limit));
    }

    #[test]
    fn a_subprotocol_carries_the_version_when_no_header_does() {
        let mut headers = HeaderMap::new();
        headers.append("sec-websocket-protocol", "other".parse().unwrap());
        headers.append("sec-websocket-protocol", "a, X-Daytona-SDK-Version~0.205.0".parse().unwrap());
        assert_eq!(Client::from_headers(&headers).version_text(), "0.205.0");
        headers.insert("x-daytona-sdk-version", "0.226.1".parse().unwrap());
        assert_eq!(Client::from_headers(&headers).version_text(), "0.226.1");
    }
}
