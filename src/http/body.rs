//! Bodies both ways: what is left of a request, multipart forms in, multipart and JSON arrays out.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, BodyDataStream};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// Most that is read of a form while the head of a part is awaited; the parser buffers it.
const PART_HEAD_BYTES: usize = 256 * 1024;
/// Most that the parser of forms is given at a time, in bytes.
const SIP: usize = 32 * 1024;
/// Kept in `filename*` as they are (RFC 8187, attr-char).
const LABEL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Reads the rest of a request before it is answered: proxies take an early reply to a large body for a broken
/// connection. Without, the rest is read beside the reply (`server/exchange.rs`). A client that waits for "100 Continue"
/// has sent nothing that is in the way.
pub async fn drain(body: &mut BodyDataStream, headers: &HeaderMap) {
    if headers.get(header::EXPECT).is_none() {
        while let Some(Ok(_)) = body.next().await {}
    }
}

/// The error for a body that is not whole.
pub fn ended_early(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidBody, "the body ended early").with_source(error)
}

/// Whether a request carries a multipart form.
pub fn is_form(headers: &HeaderMap) -> bool {
    boundary(headers).is_some()
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    multer::parse_boundary(headers.get(header::CONTENT_TYPE)?.to_str().ok()?).ok()
}

/// A multipart form (RFC 7578), read part by part with bounded memory.
#[derive(Debug)]
pub struct Form<'b> {
    parts: multer::Multipart<'b>,
    allowance: Arc<AtomicUsize>,
}

impl<'b> Form<'b> {
    /// Reads from `body`, which can still be drained when the form has failed.
    ///
    /// # Errors
    /// When the request carries something else.
    pub fn new(headers: &HeaderMap, body: &'b mut BodyDataStream) -> Result<Self> {
        let boundary = boundary(headers)
            .ok_or_else(|| Error::new(ErrorKind::InvalidBody, "the body is not a multipart form"))?;
        let allowance = Arc::new(AtomicUsize::new(PART_HEAD_BYTES));
        let pieces = Sips { body, piece: Bytes::new(), has_given: false, allowance: Arc::clone(&allowance) };
        Ok(Self { parts: multer::Multipart::new(pieces, boundary), allowance })
    }

    /// The next part; none after the closing boundary. The part before it must have been read to its end.
    ///
    /// # Errors
    /// When the form is malformed or ends early.
    pub async fn next(&mut self) -> Result<Option<Part<'b>>> {
        self.allowance.store(PART_HEAD_BYTES, Ordering::Relaxed);
        let field = self.parts.next_field().await.map_err(malformed)?;
        self.allowance.store(usize::MAX, Ordering::Relaxed);
        Ok(field.map(|field| Part { field }))
    }
}

/// A body in small pieces, one each time it is asked: the parser takes all it can get into one buffer, and large
/// buffers that move between threads pile up in the allocator.
struct Sips<'b> {
    body: &'b mut BodyDataStream,
    piece: Bytes,
    has_given: bool,
    /// Bytes that may still be read.
    allowance: Arc<AtomicUsize>,
}

impl Stream for Sips<'_> {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.has_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.piece.is_empty() {
            match ready!(self.body.poll_next_unpin(context)) {
                Some(Ok(piece)) => self.piece = piece,
                end => return Poll::Ready(end),
            }
        }
        let length = self.piece.len().min(SIP);
        let before = self.allowance.load(Ordering::Relaxed);
        if before < length {
            return Poll::Ready(Some(Err(axum::Error::new("the head of a part is too large"))));
        }
        if before != usize::MAX {
            self.allowance.store(before - length, Ordering::Relaxed);
        }
        self.has_given = true;
        Poll::Ready(Some(Ok(self.piece.split_to(length))))
    }
}

/// One part of a form: a stream of its content.
#[derive(Debug)]
pub struct Part<'b> {
    field: multer::Field<'b>,
}

impl Part<'_> {
    /// Its name; empty when it has none.
    pub fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// Its content as text; none when that has more than `limit` bytes or is not UTF-8. It is read to its end anyway.
    ///
    /// # Errors
    /// As [`Form::next`].
    pub async fn text(mut self, limit: usize) -> Result<Option<String>> {
        let mut bytes = Some(Vec::new());
        while let Some(piece) = self.next().await {
            let piece = piece?;
            bytes = bytes.filter(|bytes| bytes.len() + piece.len() <= limit);
            if let Some(bytes) = &mut bytes {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Reads over what is left of it.
    ///
    /// # Errors
    /// As [`Form::next`].
    pub async fn skip(mut self) -> Result<()> {
        while let Some(piece) = self.next().await {
            piece?;
        }
        Ok(())
    }
}

impl Stream for Part<'_> {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        self.field.poll_next_unpin(context).map_err(malformed)
    }
}

fn malformed(error: multer::Error) -> Error {
    let text = match &error {
        multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteStream => "unexpected EOF".to_owned(),
        multer::Error::StreamReadFailed(cause) => cause.to_string(),
        other => other.to_string(),
    };
    Error::new(ErrorKind::InvalidBody, text).with_source(error)
}

/// A boundary that no content can guess.
pub fn random_boundary() -> String {
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `Content-Disposition` of `kind`, which may have parameters, with `label` as its file name: first in Latin-1, then
/// in full (RFC 6266; order and escapes as contract `files.md` 6.2 fixes them).
pub fn disposition(kind: &str, label: &str) -> HeaderValue {
    let mut value = format!("{kind}; filename=\"").into_bytes();
    for character in label.chars() {
        match (character, u8::try_from(u32::from(character))) {
            ('\\' | '"', _) => value.extend([b'\\', character as u8]),
            ('\r' | '\n' | '\0', _) => {}
            (_, Ok(byte)) if byte >= 0x20 && byte != 0x7f => value.push(byte),
            _ => value.push(b'_'),
        }
    }
    value.extend_from_slice(format!("\"; filename*=utf-8''{}", utf8_percent_encode(label, LABEL)).as_bytes());
    HeaderValue::from_bytes(&value).expect("control bytes were left out")
}

/// A JSON array whose elements come in batches. A single batch is answered whole, with its length.
///
/// # Errors
/// What the first batch fails with; a later failure breaks the connection.
pub async fn json_array<T, S>(batches: S) -> Result<Body>
where
    T: Serialize + Send + 'static,
    S: Stream<Item = Result<Vec<T>>> + Send + 'static,
{
    let mut batches =
        Box::pin(batches.filter(|batch| std::future::ready(!batch.as_ref().is_ok_and(Vec::is_empty))));
    let mut text = vec![b'['];
    append(&mut text, batches.next().await.transpose()?.unwrap_or_default());
    let second = batches.next().await;
    if second.is_none() {
        text.push(b']');
        return Ok(Body::from(text));
    }
    let rest = stream::iter(second).chain(batches).map(|batch| {
        let mut text = vec![b','];
        append(&mut text, batch?);
        Ok::<_, Error>(Bytes::from(text))
    });
    let first = stream::iter([Ok(Bytes::from(text))]);
    Ok(Body::from_stream(first.chain(rest).chain(stream::iter([Ok(Bytes::from_static(b"]"))]))))
}

fn append<T: Serialize>(text: &mut Vec<u8>, elements: Vec<T>) {
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut *text, element).expect("wire types are plain JSON");
    }
}

/// The reply with a JSON document.
pub fn json_of(document: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], document).into_response()
}

/// A stream that cannot fail, as one that can.
pub fn sure(pieces: impl IntoIterator<Item = Bytes>) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::iter(pieces.into_iter().map(Ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_in_latin_1_and_in_full() {
        let value = disposition("form-data; name=\"file\"", "a/é\"\\\n\t世.txt");
        let expected = b"form-data; name=\"file\"; filename=\"a/\xe9\\\"\\\\__.txt\"; \
            filename*=utf-8''a%2F%C3%A9%22%5C%0A%09%E4%B8%96.txt";
        assert_eq!(value.as_bytes(), expected);
        let value = disposition("attachment", "!#$&+-.^_`|~ '()*,");
        assert!(value.to_str().unwrap().ends_with("''!#$&+-.^_`|~%20%27%28%29%2A%2C"));
    }

    #[tokio::test]
    async fn arrays_are_whole_or_in_pieces() {
        async fn text(batches: Vec<Vec<u8>>) -> Bytes {
            let body = json_array(stream::iter(batches.into_iter().map(Ok))).await.unwrap();
            axum::body::to_bytes(body, usize::MAX).await.unwrap()
        }
        assert_eq!(text(vec![]).await, "[]");
        assert_eq!(text(vec![vec![]]).await, "[]");
        assert_eq!(text(vec![vec![1, 2]]).await, "[1,2]");
        assert_eq!(text(vec![vec![1, 2], vec![], vec![3], vec![4], vec![]]).await, "[1,2,3,4]");
    }

    async fn parts(body: &'static str, header: &'static str) -> Result<Vec<(String, Option<String>)>> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(header))]);
        let mut body = Body::from(body).into_data_stream();
        let mut form = Form::new(&headers, &mut body)?;
        let mut parts = Vec::new();
        while let Some(part) = form.next().await? {
            parts.push((part.name().to_owned(), part.text(4).await?));
        }
        Ok(parts)
    }

    #[tokio::test]
    async fn forms_are_read_part_by_part() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"files[0].path\"\r\n\r\na/b\r\n--b\r\n\
            Content-Disposition: form-data; name=\"long\"; filename=\"x\"\r\n\r\n12345\r\n--b--\r\n";
        let read = parts(body, "multipart/form-data; boundary=b").await.unwrap();
        assert_eq!(read, [("files[0].path".to_owned(), Some("a/b".to_owned())), ("long".to_owned(), None)]);
        let cut = parts(&body[..body.len() - 12], "multipart/form-data; boundary=b").await.unwrap_err();
        assert_eq!(cut.to_string(), "unexpected EOF");
        assert!(parts(body, "text/plain").await.is_err());
    }

    #[tokio::test]
    async fn the_head_of_a_part_is_bounded() {
        let headers = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static("multipart/form-data; boundary=b"),
        )]);
        let head = stream::iter([Bytes::from("--b\r\nX: ")])
            .chain(stream::repeat(Bytes::from(vec![b'x'; 128 * 1024])).take(64))
            .map(Ok::<_, std::convert::Infallible>);
        let mut body = Body::from_stream(head).into_data_stream();
        let error = Form::new(&headers, &mut body).unwrap().next().await.unwrap_err();
        assert_eq!(error.to_string(), "the head of a part is too large");
        assert!(body.next().await.is_some());
    }
}
