//! URLs of search by name and by content.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, header};

use super::Found;
use super::walk::Failed;
use super::wire::{FindQuery, FoundFiles, FoundLine, SearchQuery, encode_line, encode_name};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::files::Files;
use crate::http::extract::Query;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

/// Says whether there are more entries than the `limit` that was asked for.
const TRUNCATED: HeaderName = HeaderName::from_static("x-toolbox-truncated");

pub(in crate::files) fn router() -> Routes<Files> {
    Routes::new().routes(endpoints!(search)).routes(endpoints!(find))
}

/// Finds files, directories and whatever else there is by name
///
/// The whole tree is walked, hidden entries and `.git` included; links are not followed. What cannot be read is
/// skipped. A `path` that is not there has no entries. The reply is streamed.
#[utoipa::path(get, path = "/files/search", tag = "files", params(SearchQuery),
    responses((status = 200, body = FoundFiles), (status = 400, body = ErrorBody)))]
async fn search(State(files): State<Files>, Query(query): Query<SearchQuery>) -> Result<Response> {
    let found = files.search(&query.path, &query.pattern, encode_name).await?;
    Ok(json(streamed("{\"files\":[", found, "]}")).into_response())
}

/// Finds lines of files
///
/// `pattern` is a literal that is looked for with case, unless asked otherwise. The tree is walked as for
/// `/files/search`; files with a NUL byte in their first 512 bytes count as binary and are skipped. Entries come in the
/// order of the walk, one for each matching line. The reply is streamed.
#[utoipa::path(get, path = "/files/find", tag = "files", params(FindQuery),
    responses((status = 200, body = [FoundLine], headers(("X-Toolbox-Truncated" = bool,
        description = "With `limit`: whether there are more entries"))), (status = 400, body = ErrorBody)))]
async fn find(State(files): State<Files>, Query(query): Query<FindQuery>) -> Result<Response> {
    let limit = query.limit;
    let found = files.find(query.into_find()?, encode_line).await?;
    let Some(limit) = limit else { return Ok(json(streamed("[", found, "]")).into_response()) };
    let (entries, is_truncated) = found
        .first(limit as usize)
        .await
        .map_err(|failed| Error::new(ErrorKind::FileReadFailed, failed.to_string()))?;
    let body = [b"[", entries.get(1..).unwrap_or_default(), b"]"].concat();
    Ok(([(TRUNCATED, is_truncated.to_string())], json(Body::from(body))).into_response())
}

fn json(body: Body) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body)
}

/// What comes next of a streamed array.
enum Next {
    Head(&'static str),
    First,
    More,
    End,
}

/// An array that is written while its entries are found. It breaks off when the search fails: a client must not take
/// a part for the whole.
fn streamed(head: &'static str, found: Found, tail: &'static str) -> Body {
    Body::from_stream(stream::unfold((Next::Head(head), found), async move |(next, found)| {
        let skip = match next {
            Next::Head(head) => return Some((Ok(Bytes::from_static(head.as_bytes())), (Next::First, found))),
            Next::First => 1, // the comma before the first entry
            Next::More => 0,
            Next::End => return None,
        };
        Some(match found.next().await {
            Ok(Some(block)) => (Ok::<_, Failed>(Bytes::from(block.bytes).slice(skip..)), (Next::More, found)),
            Ok(None) => (Ok(Bytes::from_static(tail.as_bytes())), (Next::End, found)),
            Err(failed) => (Err(failed), (Next::End, found)),
        })
    }))
}
