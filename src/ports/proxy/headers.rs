//! Headers on their way: what belongs to one connection stays there (RFC 9110 7.6.1), and the port learns who asks.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Of one connection, beside those that `Connection` names. `Trailer` and `TE: trailers` are kept: trailers pass.
const OF_A_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What `Connection` has no say in: without them the message would be another one.
const OF_THE_MESSAGE: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::TRAILER];

/// The protocol that the message asks, or agrees, to switch to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = listed(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    asks.then(|| headers.get(header::UPGRADE).cloned())?
}

/// Makes a request's headers those for `localhost:{port}`, on behalf of `peer`.
pub(super) fn forward(headers: &mut HeaderMap, port: u16, peer: IpAddr, has_body: bool) {
    let upgrade = upgrade(headers);
    let wants_trailers = listed(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    strip(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    } else if wants_trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if is_chunked && has_body {
        headers.remove(header::CONTENT_LENGTH); // RFC 9112 6.3: chunks count
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let local = HeaderValue::try_from(format!("localhost:{port}")).expect("a port is plain ASCII");
    if let Some(host) = headers.insert(header::HOST, local) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    let so_far = headers.get_all(&FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let peer = peer.to_canonical().to_string();
    let chain = so_far.chain([peer.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
    headers.insert(FORWARDED_FOR, HeaderValue::from_bytes(&chain).expect("made of header values"));
}

/// Makes a reply's headers those for the client.
pub(super) fn back(headers: &mut HeaderMap) {
    strip(headers);
}

/// As [`back`], of a reply that switches protocols.
pub(super) fn switched(headers: &mut HeaderMap) {
    let protocol = headers.get(header::UPGRADE).cloned();
    strip(headers);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        listed(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().filter(|name| !OF_THE_MESSAGE.contains(name)).chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
}

fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(line).collect()
    }

    fn forwarded(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = map(lines);
        forward(&mut headers, 3000, [127, 0, 0, 1].into(), true);
        headers
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        let headers = forwarded(&[
            ("host", "3000-box.localhost:2280"),
            ("connection", "keep-alive, X-Mine, content-length, x-forwarded-for"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer x"),
            ("x-mine", "1"),
            ("content-length", "3"),
            ("x-forwarded-for", "203.0.113.9"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
        ]);
        let expected = map(&[
            ("host", "localhost:3000"),
            ("authorization", "Bearer x"),
            ("content-length", "3"),
            ("x-forwarded-host", "3000-box.localhost:2280"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-for", "127.0.0.1"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_a_proxy_in_front_has_set_is_kept_and_added_to() {
        let headers = forwarded(&[
            ("host", "10.0.0.2:2280"),
            ("x-forwarded-host", "3000-box.proxy.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "10.0.0.1, 10.0.0.2"),
        ]);
        assert_eq!(headers["x-forwarded-host"], "3000-box.proxy.example");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.1, 10.0.0.2, 127.0.0.1");
    }

    #[test]
    fn upgrades_and_trailers_are_passed_on() {
        let headers = forwarded(&[
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-protocol", "a, b"),
        ]);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"Upgrade".parse().unwrap(), &"WebSocket".parse().unwrap())
        );
        assert_eq!(headers["sec-websocket-protocol"], "a, b");
        let headers =
            forwarded(&[("te", "trailers, deflate"), ("trailer", "x-sum"), ("transfer-encoding", "chunked")]);
        let expected = [("te", "trailers"), ("trailer", "x-sum"), ("transfer-encoding", "chunked")];
        assert!(expected.iter().all(|(name, value)| headers[*name] == value), "{headers:?}");
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "x"), ("keep-alive", "timeout=5")]);
        switched(&mut headers);
        assert_eq!(headers, map(&[("connection", "Upgrade"), ("upgrade", "x")]));
    }
}
