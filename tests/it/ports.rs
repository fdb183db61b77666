//! What listens, asked for and watched.

use std::net::TcpListener;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Client, Daemon, within};

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// A listener on a port that can be asked about by its number.
fn askable() -> TcpListener {
    (3000..=9999).rev().find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).unwrap()
}

#[tokio::test]
async fn listeners_of_both_families_are_listed_without_the_daemon() {
    let daemon = Daemon::start().await;
    let (four, six) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::]:0").unwrap());
    let twice = TcpListener::bind(("127.0.0.2", port(&four))).unwrap();
    let _connected = std::net::TcpStream::connect(four.local_addr().unwrap()).unwrap();
    let reply = daemon.client().get("/port").ok().await.json();
    let ports: Vec<u16> = serde_json::from_value(reply["ports"].clone()).unwrap();
    assert!(ports.is_sorted_by(|one, next| one < next), "{ports:?}");
    for listener in [&four, &six, &twice] {
        assert!(ports.contains(&port(listener)), "{ports:?}");
    }
    assert!(!ports.contains(&daemon.address.port()), "{ports:?}");
    assert_eq!(reply.as_object().unwrap().len(), 1);
    let closed = port(&six);
    drop(six);
    let reply = daemon.client().get("/port/").ok().await.json();
    assert!(!reply["ports"].as_array().unwrap().contains(&json!(closed)));
}

#[tokio::test]
async fn details_are_told_when_asked_for() {
    let daemon = Daemon::start().await;
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let reply = daemon.client().get("/port?detail=true").ok().await.json();
    let found =
        reply["listeners"].as_array().unwrap().iter().find(|it| it["port"] == port(&listener)).unwrap();
    assert_eq!(
        (&found["address"], &found["uid"]),
        (&json!("::1"), &json!(rustix::process::geteuid().as_raw()))
    );
    assert_eq!(found["process"]["pid"], std::process::id());
    let own = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(found["process"]["name"], own.trim_end());
    let program = std::env::args().next().unwrap();
    assert!(found["process"]["command"].as_str().unwrap().starts_with(&program), "{found}");
}

#[tokio::test]
async fn a_port_is_in_use_while_something_listens() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let listener = askable();
    let path = format!("/port/{}/in-use", port(&listener));
    assert_eq!(client.get(&path).ok().await.json(), json!({"isInUse": true}));
    drop(listener);
    assert_eq!(client.get(&path).ok().await.json(), json!({"isInUse": false}));
    for bad in ["2999", "10000", "x", "03000", "+3000", "3000.", "%33000x", "99999", "-1"] {
        let message = client.get(&format!("/port/{bad}/in-use")).fails(400, "BAD_REQUEST").await;
        assert_eq!(message, "bad request: the port must be a number from 3000 to 9999", "{bad}");
    }
}

/// Events of a watch, as JSON.
struct Watch {
    stream: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    text: String,
}

impl Watch {
    async fn start(client: &Client, query: &str) -> Self {
        let reply = client.get(&format!("/port/watch{query}")).open().await;
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        Self { stream: Box::pin(reply.bytes_stream()), text: String::new() }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let json = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
                self.text = rest.to_owned();
                return json;
            }
            let bytes = within(self.stream.next()).await.unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next event of this port; others come and go.
    async fn of(&mut self, port: u16) -> Value {
        loop {
            let event = self.next().await;
            if event["port"] == port {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn openings_and_closings_are_told_after_a_snapshot() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let already = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut watch = Watch::start(&client, "").await;
    let first = watch.next().await;
    assert_eq!(first["type"], "snapshot");
    assert!(first["ports"].as_array().unwrap().contains(&json!(port(&already))));
    assert!(first.get("listeners").is_none());

    let opened = TcpListener::bind("[::1]:0").unwrap();
    let number = port(&opened);
    assert_eq!(watch.of(number).await, json!({"type": "open", "port": number}));
    drop(opened);
    assert_eq!(watch.of(number).await, json!({"type": "close", "port": number}));
    let number = port(&already);
    drop(already);
    assert_eq!(watch.of(number).await, json!({"type": "close", "port": number}));
}

#[tokio::test]
async fn watches_over_sockets_have_the_same_events_and_end_with_the_daemon() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let mut socket = client.socket("/port/watch?detail=true").await;
    let mut second = Watch::start(&client, "").await;
    assert_eq!(socket.json().await["type"], "snapshot");
    assert_eq!(second.next().await["type"], "snapshot");
    let opened = TcpListener::bind("127.0.0.1:0").unwrap();
    let event = loop {
        let event = socket.json().await;
        if event["port"] == port(&opened) {
            break event;
        }
    };
    assert_eq!((&event["type"], &event["listeners"][0]["address"]), (&json!("open"), &json!("127.0.0.1")));
    assert_eq!(event["listeners"][0]["process"]["pid"], std::process::id());
    assert_eq!(second.of(port(&opened)).await["type"], "open");
    daemon.signal("TERM").await;
    let code = loop {
        if let Err(code) = socket.next().await {
            break code;
        }
    };
    assert_eq!(code, 1001);
    // The stream of the other ends in order.
    while let Some(chunk) = within(second.stream.next()).await {
        chunk.unwrap();
    }
}
