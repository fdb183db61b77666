//! URLs of pictures, below `/computeruse/screenshot`.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use semver::Version;

use super::encode::Format;
use super::service::{Options, take};
use super::wire::{Common, Compressed, Parameters, Region, Screenshot, Told, reply};
use crate::desktop::Desktop;
use crate::endpoints;
use crate::error::Result;
use crate::http::client::Client;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

pub(in crate::desktop) fn router() -> Routes<Desktop> {
    Routes::new()
        .routes(endpoints!(full))
        .routes(endpoints!(region))
        .routes(endpoints!(compressed))
        .routes(endpoints!(compressed_region))
}

/// A picture of the first display
///
/// JSON with the file in base64; the file itself when `Accept` names image types alone. With `If-None-Match` a file that
/// has not changed is not sent again.
#[utoipa::path(get, path = "/computeruse/screenshot", tag = "computer use", params(Common),
    responses((status = 200, content((Screenshot = "application/json"), (Vec<u8> = "image/png"))), (status = 304),
        (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn full(
    State(desktop): State<Desktop>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    send(
        &desktop,
        &headers,
        query,
        Wanted { is_region: false, is_compressed: false, is_swapped: false, told: Told::Screen },
    )
    .await
}

/// A picture of a part of the screen
#[utoipa::path(get, path = "/computeruse/screenshot/region", tag = "computer use", params(Region, Common),
    responses((status = 200, content((Screenshot = "application/json"), (Vec<u8> = "image/png"))), (status = 304),
        (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn region(
    State(desktop): State<Desktop>,
    client: Client,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let is_swapped = desktop.inner.settings.fix_swapped_regions && sends_swapped_regions(&client);
    send(
        &desktop,
        &headers,
        query,
        Wanted { is_region: true, is_compressed: false, is_swapped, told: Told::Screen },
    )
    .await
}

/// A picture of the first display, smaller, or in another format
#[utoipa::path(get, path = "/computeruse/screenshot/compressed", tag = "computer use", params(Compressed, Common),
    responses((status = 200, content((Screenshot = "application/json"), (Vec<u8> = "image/png"))), (status = 304),
        (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn compressed(
    State(desktop): State<Desktop>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    send(
        &desktop,
        &headers,
        query,
        Wanted { is_region: false, is_compressed: true, is_swapped: false, told: Told::Image },
    )
    .await
}

/// A picture of a part of the screen, smaller, or in another format
#[utoipa::path(get, path = "/computeruse/screenshot/region/compressed", tag = "computer use",
    params(Region, Compressed, Common),
    responses((status = 200, content((Screenshot = "application/json"), (Vec<u8> = "image/png"))), (status = 304),
        (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn compressed_region(
    State(desktop): State<Desktop>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    send(
        &desktop,
        &headers,
        query,
        Wanted { is_region: true, is_compressed: true, is_swapped: false, told: Told::Region },
    )
    .await
}

/// In what the four differ.
struct Wanted {
    is_region: bool,
    is_compressed: bool,
    /// The client sends width and height in each other's place.
    is_swapped: bool,
    told: Told,
}

async fn send(
    desktop: &Desktop,
    headers: &HeaderMap,
    query: Option<String>,
    wanted: Wanted,
) -> Result<Response> {
    let Wanted { is_region, is_compressed, is_swapped, told } = wanted;
    let (query, accepted) = (query.unwrap_or_default(), accepted(headers));
    let query = Parameters::new(&query);
    let options = query.options(is_region, is_compressed, accepted, is_swapped)?;
    let detail = query.detail();
    if accepted.is_none() {
        let body = take(desktop, options, move |shot| reply(&shot, &options, told, detail)).await?;
        return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
    }
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).and_then(tag_of);
    let shot = take(desktop, Options { known, ..options }, |shot| shot).await?;
    let tag = HeaderValue::try_from(format!("\"{:016x}\"", shot.version)).expect("digits are plain ASCII");
    let fixed = [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    Ok(match shot.file {
        None => (StatusCode::NOT_MODIFIED, fixed).into_response(),
        Some(file) => (fixed, [(header::CONTENT_TYPE, options.format.media_type())], file).into_response(),
    })
}

/// The first version of ours in a list of entity tags.
fn tag_of(tags: &str) -> Option<u64> {
    let tags = tags.split(',').map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'));
    tags.filter(|tag| tag.len() == 16).find_map(|tag| u64::from_str_radix(tag, 16).ok())
}

/// The format of a client that wants the file itself: it names image types, and nothing that JSON would do for.
fn accepted(headers: &HeaderMap) -> Option<Format> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let types = lines.flat_map(|line| line.split(','));
    let types: Vec<_> =
        types.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()).collect();
    if types.iter().any(|kind| matches!(kind.as_str(), "*/*" | "application/json" | "application/*")) {
        return None;
    }
    types.iter().find_map(|kind| match kind.strip_prefix("image/")? {
        "*" => Some(Format::Png),
        name => Format::named(name),
    })
}

/// SDKs that pass a region's numbers in the wrong order (contract `computer-use.md` 11.1).
fn sends_swapped_regions(client: &Client) -> bool {
    matches!(client.source(), "sdk-typescript" | "sdk-typescript-legacy" | "sdk-ruby")
        && client.version().is_some_and(|version| version < Version::new(0, 219, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        accepted(&headers)
    }

    #[test]
    fn the_file_is_for_those_who_want_nothing_else() {
        assert_eq!(accept("image/png"), Some(Format::Png));
        assert_eq!(accept("image/webp;q=0.9, image/png;q=0.5"), Some(Format::WebP));
        assert_eq!(accept("image/*"), Some(Format::Png));
        assert_eq!(accept("text/html, image/jpeg"), Some(Format::Jpeg));
        for json in
            ["application/json", "*/*", "image/png, */*;q=0.1", "application/json, image/png", "text/html"]
        {
            assert_eq!(accept(json), None, "{json}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn entity_tags_are_found_in_lists() {
        assert_eq!(tag_of("\"00000000000000ff\""), Some(255));
        assert_eq!(tag_of("\"other\", W/\"00000000000000ff\""), Some(255));
        assert_eq!(tag_of("*"), None);
    }

    #[test]
    fn sdks_that_swap_are_known_by_version() {
        let client = |source: &str, version: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-daytona-source", source.parse().unwrap());
            headers.insert("x-daytona-sdk-version", version.parse().unwrap());
            Client::from_headers(&headers)
        };
        assert!(sends_swapped_regions(&client("sdk-typescript", "0.218.0")));
        assert!(sends_swapped_regions(&client("sdk-ruby", "v0.205.1")));
        assert!(!sends_swapped_regions(&client("sdk-typescript", "0.219.0")));
        assert!(!sends_swapped_regions(&client("sdk-python", "0.218.0")));
    }
}
