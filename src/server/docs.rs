//! The API's description, for programs and for people.

use std::io::Read;

use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use flate2::read::GzDecoder;
use http::header;

use crate::error::{Error, Result};
use crate::platform::blocking::Lane;

/// The description, packed; a test keeps it equal to what the handlers say.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));

/// `/openapi.json`, and `/docs` that shows it.
pub(super) fn router() -> Router {
    let lane = Lane::new(1);
    Router::new()
        .route("/docs", get(|| async { Html(include_str!("../../assets/ui/docs.html")) }))
        .route("/openapi.json", get(async move || description(&lane).await))
}

async fn description(lane: &Lane) -> Result<Response> {
    let text = lane.run(unpacked).await??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The description.
pub(super) fn unpacked() -> Result<String> {
    let mut text = String::new();
    GzDecoder::new(PACKED)
        .read_to_string(&mut text)
        .map_err(|error| Error::internal("unpack the description of the API").with_source(error))?;
    Ok(text)
}
