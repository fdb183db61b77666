//! Which proxy a URL is reached through, by the variables that most programs read: `http_proxy`, `https_proxy`,
//! `all_proxy`, `no_proxy`, and all but the first also in capitals (a CGI script's `HTTP_PROXY` is its client's header).

use std::net::IpAddr;

use super::location::HttpUrl;
use super::operation::{Operation, transport};
use crate::error::Result;

/// The proxy for `url`; none when it is reached directly.
///
/// # Errors
/// When the variable's value is no URL of an HTTP proxy.
pub(super) fn proxy_for(operation: &Operation, url: &HttpUrl) -> Result<Option<HttpUrl>> {
    let either = |names: &[&'static str]| {
        names.iter().find_map(|name| operation.variable(name).map(|value| (*name, value.to_owned())))
    };
    let own: &[&str] = if url.is_tls { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
    let Some((name, value)) = either(own).or_else(|| either(&["all_proxy", "ALL_PROXY"])) else {
        return Ok(None);
    };
    let excluded = either(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
    if is_excluded(&excluded, &url.host, url.port) {
        return Ok(None);
    }
    let text = if value.contains("://") { value } else { format!("http://{value}") };
    let Some(proxy) = HttpUrl::parse_absolute(&text) else {
        return Err(transport(format!(
            "{name} is no http or https url, so {} cannot be reached",
            url.authority()
        )));
    };
    Ok(Some(proxy))
}

/// Whether a list such as `localhost,.example.com,10.0.0.0/8,host:8080` has the host.
fn is_excluded(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some(address), Some((network, bits))) = (address, entry.split_once('/')) {
            return is_within(address, network, bits);
        }
        let (name, only) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
            _ => (entry, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let name = name.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
        let is_host = host == name || host.strip_suffix(name).is_some_and(|start| start.ends_with('.'));
        is_host && !name.is_empty() && only.is_none_or(|only: u16| only == port)
    })
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_hosts_are_understood() {
        for (list, host, is_in) in [
            ("*", "any", true),
            ("", "any", false),
            ("a.example, b.example", "b.example", true),
            ("example.com", "sub.example.com", true),
            (".example.com", "example.com", true),
            ("*.example.com", "sub.EXAMPLE.com.", true),
            ("example.com", "badexample.com", false),
            ("host:80", "host", true),
            ("host:81", "host", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("fd00::/8", "fd12::1", true),
            ("[::1]:80", "::1", true),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(is_excluded(list, host, 80), is_in, "{list} {host}");
        }
    }
}
