//! Pictures that other requests ask for, by members that are the parameters of compressed pictures.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::service::{Options, take};
use super::wire::{Parameters, Told, reply};
use crate::desktop::Desktop;
use crate::error::{Error, Result};

/// A picture that is wanted: `true`, or how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::desktop) enum PictureRequest {
    /// Whether.
    Whether(bool),
    /// With the parameters of `/computeruse/screenshot/compressed`, and of a region when it has `width`.
    #[schema(value_type = Object)]
    Members(Map<String, Value>),
}

/// How a picture is to be taken.
#[derive(Debug)]
pub(in crate::desktop) struct Picture {
    options: Options,
    told: Told,
    detail: bool,
}

impl PictureRequest {
    /// None when no picture is wanted.
    ///
    /// # Errors
    /// Names the member that does not fit.
    pub(in crate::desktop) fn check(self) -> Result<Option<Picture>> {
        let members = match self {
            Self::Whether(false) => return Ok(None),
            Self::Whether(true) => Map::new(),
            Self::Members(members) => members,
        };
        let mut query = Vec::new();
        for (name, value) in &members {
            let text = match value {
                Value::Null | Value::Object(_) | Value::Array(_) => continue,
                Value::String(text) => text.clone(),
                // Numbers may come as 100.0.
                Value::Number(number) => match number.as_f64().filter(|number| number.fract() == 0.0) {
                    Some(whole) => format!("{whole:.0}"),
                    None => number.to_string(),
                },
                Value::Bool(flag) => flag.to_string(),
            };
            query.push(format!("{name}={}", utf8_percent_encode(&text, NON_ALPHANUMERIC)));
        }
        let query = query.join("&");
        let parameters = Parameters::new(&query);
        let has_region = members.contains_key("width");
        let options = parameters.options(has_region, true, None, false)?;
        let told = if has_region { Told::Region } else { Told::Image };
        Ok(Some(Picture { options, told, detail: parameters.detail() }))
    }
}

impl Picture {
    /// Takes it: the reply of its endpoint.
    ///
    /// # Errors
    /// Those of taking a picture.
    pub(in crate::desktop) async fn take(self, desktop: &Desktop) -> Result<Value> {
        let Self { options, told, detail } = self;
        let body =
            take(desktop, options, move |shot| serde_json::from_slice(&reply(&shot, &options, told, detail)));
        body.await?.map_err(|error| Error::internal("the picture's reply is broken").with_source(error))
    }
}
