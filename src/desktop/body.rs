//! Bodies of the desktop's requests, read as the original reads them (contract `computer-use.md` 1.1).

use axum::extract::{FromRequest, Request};
use serde::de::{self, DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::http::extract::{collect, json};

/// Largest body, in bytes: 100,000 characters, every one escaped.
const BYTES: usize = 2 * 1024 * 1024;

/// A JSON object. Names count without regard to case, `null` is as good as nothing, unknown members are ignored. What
/// does not fit is told by its name.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        read(&collect(request.into_body(), BYTES).await?).map(Self)
    }
}

/// Reads a body.
///
/// # Errors
/// [`ErrorKind::InvalidBody`].
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    from_members(json(bytes)?)
}

/// Reads a body's members, or those of an object in it.
///
/// # Errors
/// [`ErrorKind::InvalidBody`].
pub(super) fn from_members<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T> {
    // Lower case is what the requests' members have as their other name.
    let members = members.into_iter().filter(|(_, value)| !value.is_null());
    let members = members.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    serde_path_to_error::deserialize(Value::Object(members)).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        let message = if path == "." { error.to_string() } else { format!("{path}: {error}") };
        Error::new(ErrorKind::InvalidBody, message)
    })
}

/// A whole number, which may come as `100.0`: the platform's document has all of them as `number`.
///
/// # Errors
/// For anything else, and for what does not fit into 32 bits.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    let number = value.as_f64().filter(|number| number.fract() == 0.0);
    let fits = number.filter(|number| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(number));
    #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
    match fits {
        Some(number) => Ok(Some(number as i32)),
        None => Err(de::Error::custom(format!("{value} is not a whole number of 32 bits"))),
    }
}

/// What an operation without a result replies.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Empty {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Request {
        #[serde(default, deserialize_with = "whole", alias = "startx")]
        start_x: Option<i32>,
        button: Option<String>,
    }

    #[test]
    fn names_and_numbers_are_read_with_go_s_rules() {
        let request = read::<Request>(b"{\"StartX\": 100.0, \"button\": null, \"more\": 1}").unwrap();
        assert_eq!(request, Request { start_x: Some(100), button: None });
        assert_eq!(read::<Request>(b"{\"startX\":null}").unwrap().start_x, None);
        for bad in ["1.5", "\"1\"", "2147483648", "true", "[]"] {
            let error = read::<Request>(format!("{{\"startX\":{bad}}}").as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidBody);
            assert!(error.to_string().starts_with("startx: "), "{error}");
        }
        assert!(read::<Request>(b"[1]").is_err());
        assert!(read::<Request>(b"").is_err());
    }
}
