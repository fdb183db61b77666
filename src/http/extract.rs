//! Json, Query and Path whose rejections are our [`Error`], with the rules that SDKs rely on (contract `files.md`
//! 1.1, `process.md` 0.3, 0.8).

use std::fmt;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::HeaderMap;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::error::{Error, ErrorKind, Result};
use crate::platform::idempotency::Key;

/// Largest JSON body taken, in bytes. Endpoints that take more read their body themselves.
const JSON_BYTES: usize = 8 * 1024 * 1024;

/// A JSON body. The content type is not looked at, unknown members and anything after the value are ignored.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        json(&collect(request.into_body(), JSON_BYTES).await?).map(Json)
    }
}

/// Reads a JSON value that is followed by nothing of interest.
///
/// # Errors
/// [`ErrorKind::InvalidBody`], with the parser's own words.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(bytes)).map_err(|error| not_json(bytes, &error))
}

fn not_json(bytes: &[u8], error: &serde_json::Error) -> Error {
    let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
    let message = if is_empty { "the body is empty".to_owned() } else { error.to_string() };
    Error::new(ErrorKind::InvalidBody, message)
}

/// Reads a whole body of `limit` bytes at most.
///
/// # Errors
/// [`ErrorKind::TooLarge`] past the limit, [`ErrorKind::InvalidBody`] when the client leaves midway.
pub async fn collect(body: Body, limit: usize) -> Result<bytes::Bytes> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Error::new(ErrorKind::TooLarge, format!("the body is larger than {limit} bytes")))
        }
        Err(error) => Err(Error::new(ErrorKind::InvalidBody, "the body ended early").with_source(error)),
    }
}

/// An integer that may come as an integral float: clients generated from the platform's document send `5.0`.
///
/// # Errors
/// When the value is not a whole number that fits.
pub fn integral<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
        return Ok(Some(number as u32));
    }
    Err(de::Error::custom(format!("{number} is not a whole number from 0 to {}", u32::MAX)))
}

/// The query. `+` is a space, the first of repeated parameters counts, an empty value counts as missing, unknown
/// parameters are ignored.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        query(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

/// Reads the text of a query.
///
/// # Errors
/// Names the parameter that is missing or makes no sense.
pub fn query<T: DeserializeOwned>(text: &str) -> Result<T> {
    T::deserialize(MapDeserializer::new(parameters(text)?.into_iter()))
        .map_err(|error: QueryError| Error::invalid(error.0))
}

fn parameters(text: &str) -> Result<Vec<(String, Parameter)>> {
    let mut pairs: Vec<(String, Parameter)> = Vec::new();
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = decoded(name) else { continue };
        if value.is_empty() || pairs.iter().any(|(seen, _)| *seen == name) {
            continue;
        }
        let value = decoded(value).ok_or_else(|| Error::invalid(format!("{name} is not valid UTF-8")))?;
        pairs.push((name.clone(), Parameter { name, value }));
    }
    Ok(pairs)
}

/// Every value of a parameter that may be repeated.
pub fn repeated(text: &str, name: &str) -> Vec<String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(found, _)| *found == name).filter_map(|(_, value)| decoded(value)).collect()
}

/// Form decoding that refuses what is not UTF-8 instead of changing it.
fn decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The key that makes repeating a request safe, from its `Idempotency-Key` header and its body; none without the header.
///
/// # Errors
/// As [`Key::new`].
pub fn idempotency_key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Key>> {
    let name = headers.get("idempotency-key").map(|name| String::from_utf8_lossy(name.as_bytes()));
    name.map(|name| Key::new(&name, body)).transpose()
}

/// True for the exact text `true`, false for every other, as the original daemon reads flags.
///
/// # Errors
/// Never: the signature is serde's.
pub fn exactly_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)? == "true")
}

/// One value of the query, which knows its name so that a bad value can be told by it.
#[derive(Debug, Clone)]
struct Parameter {
    name: String,
    value: String,
}

impl Parameter {
    fn parsed<T: FromStr>(&self, wanted: &str) -> Result<T, QueryError> {
        self.value
            .parse()
            .map_err(|_| QueryError(format!("{} must be {wanted}, not {:?}", self.name, self.value)))
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $wanted:literal,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
            visitor.$visit(self.parsed($wanted)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = QueryError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_string(self.value)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, QueryError> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, QueryError> {
        visitor.visit_enum(self.value.into_deserializer())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, QueryError> {
        visitor.visit_newtype_struct(self)
    }

    parsed! {
        deserialize_bool visit_bool "true or false",
        deserialize_u8 visit_u8 "a whole number",
        deserialize_u16 visit_u16 "a whole number",
        deserialize_u32 visit_u32 "a whole number",
        deserialize_u64 visit_u64 "a whole number",
        deserialize_i8 visit_i8 "a whole number",
        deserialize_i16 visit_i16 "a whole number",
        deserialize_i32 visit_i32 "a whole number",
        deserialize_i64 visit_i64 "a whole number",
        deserialize_f32 visit_f32 "a number",
        deserialize_f64 visit_f64 "a number",
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, QueryError> for Parameter {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Why a query was refused, in words for the client.
#[derive(Debug)]
struct QueryError(String);

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QueryError {}

impl de::Error for QueryError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("{field} is required"))
    }
}

/// Parts of the path, percent-decoded.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| Error::invalid(rejection.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct List {
        path: String,
        depth: Option<u32>,
        #[serde(default, deserialize_with = "exactly_true")]
        recursive: bool,
    }

    fn list(path: &str, depth: Option<u32>, recursive: bool) -> List {
        List { path: path.into(), depth, recursive }
    }

    #[test]
    fn both_encodings_decode_the_same() {
        assert_eq!(query::<List>("path=a%20b/c%2Bd").unwrap(), list("a b/c+d", None, false));
        assert_eq!(query::<List>("path=a+b%2Fc%2Bd&depth=2").unwrap(), list("a b/c+d", Some(2), false));
    }

    #[test]
    fn the_first_value_counts_and_empty_is_missing() {
        assert_eq!(query::<List>("path=&path=x&path=y&other=1").unwrap(), list("x", None, false));
        assert_eq!(query::<List>("path=").unwrap_err().to_string(), "path is required");
    }

    #[test]
    fn bad_values_are_told_by_name() {
        let error = query::<List>("path=x&depth=two").unwrap_err();
        assert_eq!(error.to_string(), "depth must be a whole number, not \"two\"");
        assert_eq!(query::<List>("path=%ff").unwrap_err().to_string(), "path is not valid UTF-8");
    }

    #[test]
    fn flags_are_on_for_the_exact_text_only() {
        assert!(query::<List>("path=x&recursive=true").unwrap().recursive);
        assert!(!query::<List>("path=x&recursive=True").unwrap().recursive);
        assert!(!query::<List>("path=x&recursive=1").unwrap().recursive);
    }

    #[test]
    fn json_ignores_what_follows_and_names_what_is_missing() {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default, deserialize_with = "integral")]
            timeout: Option<u32>,
        }
        assert_eq!(json::<Body>(b"{\"timeout\":5.0} trailing").unwrap().timeout, Some(5));
        assert!(json::<Body>(b"{\"timeout\":5.5}").is_err());
        assert!(json::<Body>(b"{\"timeout\":-1}").is_err());
        assert_eq!(json::<Body>(b"").map(|_| ()).unwrap_err().kind(), ErrorKind::InvalidBody);
    }
}
