//! Parts of a content and conditions on it (RFC 9110, sections 13 and 14).

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::body::{random_boundary, sure};
use crate::error::{Error, ErrorKind};

/// More ranges than this in one request are not worth answering one by one: the whole content is sent.
const RANGES: usize = 1024;

/// What tells one state of a content from another.
#[derive(Debug, Clone)]
pub struct Validators {
    /// A weak entity tag, `W/"…"`.
    pub etag: HeaderValue,
    /// When it was last changed; none before 1970.
    pub modified: Option<SystemTime>,
}

/// What of the content is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Whole,
    /// These ranges, none of them empty.
    Ranges(Vec<Range<u64>>),
    /// Nothing: the client has it already.
    NotModified,
}

/// Evaluates conditions and ranges of a request for a content of `size` bytes, in the order of RFC 9110, 13.2.2.
///
/// # Errors
/// The finished reply, 412 or 416.
pub fn select(
    method: &Method,
    headers: &HeaderMap,
    validators: &Validators,
    size: u64,
) -> Result<Selection, Box<Response>> {
    let date = |name: HeaderName| {
        let text = headers.get(name)?.to_str().ok()?;
        seconds(httpdate::parse_http_date(text).ok()?)
    };
    let modified = validators.modified.and_then(seconds);
    let holds = match headers.get(header::IF_MATCH) {
        // Our tag is weak, and a weak one is never the same by the strong comparison that counts here.
        Some(tags) => tags.as_bytes().trim_ascii() == b"*",
        None => match (date(header::IF_UNMODIFIED_SINCE), modified) {
            (Some(date), Some(modified)) => modified <= date,
            _ => true,
        },
    };
    if !holds {
        let error = Error::new(ErrorKind::PreconditionFailed, "the file is not in the state asked for");
        return Err(Box::new(error.into_response()));
    }
    let known = if headers.contains_key(header::IF_NONE_MATCH) {
        let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = opaque(validators.etag.to_str().unwrap_or_default());
        lines.flat_map(|line| line.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == own)
    } else {
        match (date(header::IF_MODIFIED_SINCE), modified) {
            (Some(date), Some(modified)) => modified <= date,
            _ => false,
        }
    };
    if known {
        return Ok(Selection::NotModified);
    }
    // Ranges are defined for GET alone. `If-Range` wants a strong validator: the exact date, never a weak tag.
    let wanted = headers.get(header::RANGE).filter(|_| method == Method::GET);
    let Some(wanted) = wanted.filter(|_| {
        !headers.contains_key(header::IF_RANGE) || (modified.is_some() && date(header::IF_RANGE) == modified)
    }) else {
        return Ok(Selection::Whole);
    };
    match parse(wanted.to_str().unwrap_or_default(), size) {
        Parsed::Ignored => Ok(Selection::Whole),
        Parsed::Ranges(ranges) => Ok(Selection::Ranges(ranges)),
        Parsed::Unsatisfiable => {
            let text = format!("the file has {size} bytes");
            let mut reply = Error::new(ErrorKind::RangeNotSatisfiable, text).into_response();
            reply.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
            Err(Box::new(reply))
        }
    }
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().as_ref().map(Duration::as_secs)
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Ignored,
    Ranges(Vec<Range<u64>>),
    Unsatisfiable,
}

fn parse(text: &str, size: u64) -> Parsed {
    let Some(list) = text.trim().strip_prefix("bytes=") else { return Parsed::Ignored };
    let mut ranges = Vec::new();
    for spec in list.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        let Some((first, last)) = spec.split_once('-') else { return Parsed::Unsatisfiable };
        let (first, last) = (first.trim(), last.trim());
        let range = match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
            (Some(first), None) if last.is_empty() => first..size,
            (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
            _ => return Parsed::Unsatisfiable,
        };
        if !range.is_empty() {
            ranges.push(range);
        }
    }
    let total = ranges.iter().try_fold(0_u64, |sum, range| sum.checked_add(range.end - range.start));
    if ranges.is_empty() {
        // Some clients put a range on everything.
        return if size == 0 { Parsed::Ignored } else { Parsed::Unsatisfiable };
    }
    if ranges.len() > RANGES || total.is_none_or(|total| total > size) {
        return Parsed::Ignored;
    }
    Parsed::Ranges(ranges)
}

/// A number that may be larger than any content; none when it is not a number.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().unwrap_or(u64::MAX))
}

/// The reply with what was selected of a content of `size` bytes, which `read` gives range by range. Headers of the
/// content as a whole are the caller's.
pub fn reply<S>(selection: Selection, size: u64, read: impl Fn(Range<u64>) -> S) -> Response
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let content_range = |range: &Range<u64>| format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let (status, kind, length, body, range) = match selection {
        Selection::NotModified => return StatusCode::NOT_MODIFIED.into_response(),
        Selection::Whole => (StatusCode::OK, octets(), size, Body::from_stream(read(0..size)), None),
        Selection::Ranges(ranges) => match ranges.as_slice() {
            [range] => {
                let (length, body) = (range.end - range.start, Body::from_stream(read(range.clone())));
                (StatusCode::PARTIAL_CONTENT, octets(), length, body, Some(value(&content_range(range))))
            }
            ranges => {
                let boundary = random_boundary();
                let kind = value(&format!("multipart/byteranges; boundary={boundary}"));
                let end = format!("\r\n--{boundary}--\r\n");
                let mut length = end.len() as u64;
                let mut parts = Vec::new();
                for (index, range) in ranges.iter().enumerate() {
                    let head = format!(
                        "{}--{boundary}\r\nContent-Range: {}\r\nContent-Type: application/octet-stream\r\n\r\n",
                        if index == 0 { "" } else { "\r\n" },
                        content_range(range),
                    );
                    length += head.len() as u64 + (range.end - range.start);
                    parts.push(sure([head.into()]).chain(read(range.clone())));
                }
                let body = Body::from_stream(stream::iter(parts).flatten().chain(sure([end.into()])));
                (StatusCode::PARTIAL_CONTENT, kind, length, body, None)
            }
        },
    };
    let mut reply = (status, body).into_response();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(range) = range {
        headers.insert(header::CONTENT_RANGE, range);
    }
    reply
}

fn octets() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("plain ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_clipped_to_the_content() {
        let one = |range| Parsed::Ranges(Vec::from([range]));
        assert_eq!(parse("bytes=0-0", 10), one(0..1));
        assert_eq!(parse("bytes=3-", 10), one(3..10));
        assert_eq!(parse("bytes=-3", 10), one(7..10));
        assert_eq!(parse("bytes=-30", 10), one(0..10));
        assert_eq!(parse("bytes=8-99999999999999999999999", 10), one(8..10));
        assert_eq!(parse("bytes= 0-1 , 4-5,20-", 10), Parsed::Ranges(vec![0..2, 4..6]));
    }

    #[test]
    fn what_cannot_be_sent_is_told_from_what_is_ignored() {
        for text in ["bytes=10-", "bytes=-0", "bytes=5-4", "bytes=x", "bytes=", "bytes=a-b"] {
            assert_eq!(parse(text, 10), Parsed::Unsatisfiable, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), Parsed::Ignored);
        assert_eq!(parse("lines=1-2", 10), Parsed::Ignored);
        assert_eq!(parse("bytes=0-9,0-9", 10), Parsed::Ignored);
    }

    proptest! {
        #[test]
        fn ranges_never_leave_the_content(text in "bytes=[0-9, -]{0,40}", size in 0_u64..1000) {
            if let Parsed::Ranges(ranges) = parse(&text, size) {
                prop_assert!(!ranges.is_empty());
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size));
            }
        }
    }

    fn selected(headers: &[(HeaderName, &str)]) -> Result<Selection, u16> {
        let validators = Validators {
            etag: HeaderValue::from_static("W/\"1-2\""),
            modified: Some(UNIX_EPOCH + Duration::from_millis(784_111_777_500)),
        };
        let headers = headers.iter().map(|(name, text)| (name.clone(), text.parse().unwrap())).collect();
        select(&Method::GET, &headers, &validators, 10).map_err(|reply| reply.status().as_u16())
    }

    #[test]
    fn conditions_are_evaluated_in_order() {
        use header::*;
        const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        assert_eq!(selected(&[(IF_NONE_MATCH, "\"x\", \"1-2\"")]), Ok(Selection::NotModified));
        assert_eq!(selected(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, SAME)]), Ok(Selection::Whole));
        assert_eq!(selected(&[(IF_MODIFIED_SINCE, SAME)]), Ok(Selection::NotModified));
        assert_eq!(selected(&[(IF_MODIFIED_SINCE, BEFORE)]), Ok(Selection::Whole));
        assert_eq!(selected(&[(IF_UNMODIFIED_SINCE, BEFORE)]), Err(412));
        assert_eq!(selected(&[(IF_UNMODIFIED_SINCE, SAME)]), Ok(Selection::Whole));
        assert_eq!(selected(&[(IF_MATCH, "W/\"1-2\"")]), Err(412));
        assert_eq!(selected(&[(IF_MATCH, "*")]), Ok(Selection::Whole));
        let (range, first) = ((RANGE, "bytes=1-2"), 1..3);
        assert_eq!(selected(&[range.clone(), (IF_RANGE, SAME)]), Ok(Selection::Ranges(vec![first])));
        assert_eq!(selected(&[range.clone(), (IF_RANGE, BEFORE)]), Ok(Selection::Whole));
        assert_eq!(selected(&[range, (IF_RANGE, "W/\"1-2\"")]), Ok(Selection::Whole));
        assert_eq!(selected(&[(RANGE, "bytes=10-")]), Err(416));
    }
}
