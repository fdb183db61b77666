//! URL of watches.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::header;
use tokio::time::timeout;

use super::Watch;
use super::wire::{WatchEvent, WatchQuery};
use crate::endpoints;
use crate::error::Result;
use crate::files::Files;
use crate::http::extract::Query;
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::{Close, Receiver, Sender, Upgrade};

/// A comment is sent after so much silence, so that nothing on the way takes the stream for dead.
const SILENCE: Duration = Duration::from_secs(30);

pub(in crate::files) fn router() -> Routes<Files> {
    Routes::new().routes(endpoints!(watch))
}

/// Streams changes of a file or directory
///
/// As server-sent events, or, when asked to upgrade, as text frames of a WebSocket; each is one JSON object. The first
/// is `ready`. The stream ends after the `delete` of `path` itself (close code 1000), and when the daemon stops (1001).
/// Changes that come faster than the client takes them end in `overflow`.
#[utoipa::path(get, path = "/files/watch", tag = "files", params(WatchQuery),
    responses((status = 200, body = WatchEvent, content_type = "text/event-stream"),
        (status = 101, description = "A WebSocket with the same events"), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn watch(
    State(files): State<Files>,
    Query(query): Query<WatchQuery>,
    upgrade: Option<Upgrade>,
) -> Result<Response> {
    let watch = files.watch(&query.path, query.recursive).await?;
    Ok(match upgrade {
        Some(upgrade) => {
            upgrade.serve(&files.shutdown, move |sender, receiver| frames(watch, sender, receiver))
        }
        None => server_sent(watch, files.shutdown.cancelled()),
    })
}

async fn frames(mut watch: Watch, sender: Sender, mut receiver: Receiver) -> Close {
    loop {
        tokio::select! {
            change = watch.next() => {
                let Some(change) = change else { return Close::NORMAL };
                if sender.text(WatchEvent::from(change).json()).await.is_err() {
                    return Close::NORMAL;
                }
            }
            frame = receiver.recv() => {
                if frame.is_none() {
                    return Close::NORMAL;
                }
            }
        }
    }
}

fn server_sent(watch: Watch, stop: impl Future<Output = ()> + Send + 'static) -> Response {
    let events = stream::unfold(watch, async |mut watch| {
        let text = match timeout(SILENCE, watch.next()).await {
            Ok(change) => format!("data: {}\n\n", WatchEvent::from(change?).json()),
            Err(_) => ":\n\n".to_owned(),
        };
        Some((Ok::<_, Infallible>(text), watch))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events.take_until(Box::pin(stop)))).into_response()
}
