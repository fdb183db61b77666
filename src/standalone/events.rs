//! State changes over Socket.IO, as the platform's notification gateway sends them (Engine.IO protocol 4, Socket.IO
//! protocol 5, WebSocket transport only).
//!
//! Every SDK connects here when it is made. Without an answer the Python one tries again at every call, and the
//! TypeScript one keeps its program from ending for three minutes.
//!
//! ```text
//! server: 0{sid, pingInterval, …}     open
//! client: 40{"token": "…"}            connect to the namespace
//! server: 40{sid}                     welcome, or 44{message} for a wrong token
//! server: 42["sandbox.state.updated", {"sandbox": {"id": …, "state": …}}]
//! server: 2   client: 3               ping, pong
//! ```

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval_at, sleep_until};
use uuid::Uuid;

use super::service::{Standalone, State};
use crate::http::socket::{Close, Frame, Left, Receiver, Sender};

/// Time between pings; the client gives up when it hears none for this long and [`PING_TIMEOUT`] more.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// Time for a pong.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time to connect to the namespace, with a token.
const CONNECT: Duration = Duration::from_secs(10);
/// Largest message, in bytes, that we say we take.
const MAX_PAYLOAD: usize = 64 * 1024;

/// Serves one client until it leaves or falls silent.
pub(super) async fn serve(standalone: Standalone, sender: Sender, receiver: Receiver) -> Close {
    match follow(&standalone, &sender, receiver).await {
        Ok(close) => close,
        Err(Left) => Close::NORMAL,
    }
}

async fn follow(standalone: &Standalone, sender: &Sender, mut receiver: Receiver) -> Result<Close, Left> {
    let open = json!({
        "sid": Uuid::new_v4().to_string(),
        "upgrades": [],
        "pingInterval": PING_INTERVAL.as_secs() * 1000,
        "pingTimeout": PING_TIMEOUT.as_secs() * 1000,
        "maxPayload": MAX_PAYLOAD,
    });
    sender.text(format!("0{open}")).await?;

    let mut states = standalone.follow();
    let mut connected = false;
    let mut silent_at = Instant::now() + CONNECT;
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    loop {
        tokio::select! {
            frame = receiver.recv() => {
                let Some(Frame::Text(text)) = frame else { return Ok(Close::NORMAL) };
                match text.as_bytes() {
                    [b'4', b'0', auth @ ..] => {
                        if !admits(standalone, auth) {
                            sender.text(format!("44{}", json!({"message": "the token is missing or wrong"}))).await?;
                            return Ok(Close::NORMAL);
                        }
                        sender.text(format!("40{}", json!({"sid": Uuid::new_v4().to_string()}))).await?;
                        connected = true;
                    }
                    [b'4', b'1'] | [b'1'] => return Ok(Close::NORMAL),
                    [b'2', rest @ ..] => sender.text(format!("3{}", String::from_utf8_lossy(rest))).await?,
                    _ => {}
                }
                if connected {
                    silent_at = Instant::now() + PING_INTERVAL + PING_TIMEOUT;
                }
            }
            // The channel lives as long as the service, which we hold.
            Ok(()) = states.changed() => {
                let state = *states.borrow_and_update();
                if connected {
                    sender.text(changed(standalone.id(), state)).await?;
                }
            }
            _ = pings.tick() => sender.text("2").await?,
            () = sleep_until(silent_at) => return Ok(Close::NORMAL),
        }
    }
}

/// Whether what comes with the connect may be here: browsers and SDKs cannot send a header with it.
fn admits(standalone: &Standalone, auth: &[u8]) -> bool {
    let auth: serde_json::Value = serde_json::from_slice(auth).unwrap_or_default();
    let passes = standalone.passes();
    passes.admits_everyone() || passes.admits(auth["token"].as_str().unwrap_or_default())
}

fn changed(id: &str, state: State) -> String {
    let sandbox = json!({"id": id, "state": state.word()});
    format!("42{}", json!(["sandbox.state.updated", {"sandbox": sandbox, "newState": state.word()}]))
}
