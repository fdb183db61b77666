//! A client of a terminal that says what it expects.

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::client::Client;
use super::daemon::{LIMIT, within};
use super::socket::Socket;

/// What SDKs offer.
pub(crate) const EXIT_CONTROL: (&str, &str) = ("sec-websocket-protocol", "X-Daytona-Pty-Exit-Control");

/// A socket to a terminal.
#[derive(Debug)]
pub(crate) struct Tty {
    pub(crate) socket: Socket,
    /// The first message.
    pub(crate) connected: Value,
    /// What was shown and not looked for yet.
    shown: Vec<u8>,
    skipped: Vec<u64>,
}

/// What came until the close.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) shown: Vec<u8>,
    /// The message before the close, if there was one.
    pub(crate) exited: Option<Value>,
    pub(crate) code: u16,
    pub(crate) reason: String,
    /// Offsets after gaps.
    pub(crate) skipped: Vec<u64>,
}

impl Client {
    /// Creates a terminal with a program on it.
    pub(crate) async fn create_pty(&self, id: &str, argv: &[&str]) {
        let body = json!({"id": id, "command": argv});
        let reply = self.post("/process/pty").json(body).ok().await;
        assert_eq!((reply.status.as_u16(), reply.json()), (201, json!({"sessionId": id})));
    }

    /// Attaches to a terminal.
    pub(crate) async fn tty(&self, id: &str) -> Tty {
        self.tty_at(&format!("/process/pty/{id}/connect")).await
    }

    /// Attaches, with a query perhaps.
    pub(crate) async fn tty_at(&self, path: &str) -> Tty {
        Tty::new(self.upgrade(path, &[EXIT_CONTROL]).await.unwrap()).await
    }
}

impl Tty {
    /// Wants `connected` first.
    pub(crate) async fn new(mut socket: Socket) -> Self {
        let connected = socket.json().await;
        assert_eq!((&connected["type"], &connected["status"]), (&json!("control"), &json!("connected")));
        Self { socket, connected, shown: Vec::new(), skipped: Vec::new() }
    }

    /// Types.
    pub(crate) async fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        self.socket.send(Message::Binary(bytes.into().into())).await;
    }

    /// Waits until `text` is shown; gives what came before it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let found = self.shown.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let rest = self.shown.split_off(at + text.len());
                let before = std::mem::replace(&mut self.shown, rest);
                return String::from_utf8_lossy(&before[..at]).into_owned();
            }
            match timeout_at(end, self.socket.next()).await {
                Ok(Ok(Message::Binary(bytes))) => self.shown.extend(bytes),
                other => panic!("{other:?} instead of {text:?}, after {:?}", self.shown_text()),
            }
        }
    }

    /// Waits until a shell has shown its prompt: what is typed before is not always for the shell.
    pub(crate) async fn until_prompt(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            let text = self.shown_text();
            if ["# ", "$ ", "% "].iter().any(|prompt| text.contains(prompt)) {
                self.shown.clear();
                return;
            }
            match timeout_at(end, self.socket.next()).await {
                Ok(Ok(Message::Binary(bytes))) => self.shown.extend(bytes),
                other => panic!("{other:?} instead of a prompt, after {text:?}"),
            }
        }
    }

    fn shown_text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Takes frames until so many more bytes were shown.
    pub(crate) async fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.shown.len() < bytes {
            match self.socket.next().await {
                Ok(Message::Binary(more)) => self.shown.extend(more),
                other => panic!("{other:?} after {} bytes", self.shown.len()),
            }
        }
        std::mem::take(&mut self.shown)
    }

    /// Everything up to the close.
    pub(crate) async fn ended(mut self) -> Ended {
        let mut exited = None;
        let code = loop {
            match self.socket.next().await {
                Err(code) => break code,
                Ok(message) => {
                    assert_eq!(exited, None, "nothing comes between the exit and the close");
                    match message {
                        Message::Binary(bytes) => self.shown.extend(bytes),
                        text => {
                            let control: Value = serde_json::from_str(text.to_text().unwrap()).unwrap();
                            match control["status"].as_str().unwrap() {
                                "exited" => exited = Some(control),
                                "skipped" => self.skipped.push(control["offset"].as_u64().unwrap()),
                                other => panic!("{other}"),
                            }
                        }
                    }
                }
            }
        };
        Ended { shown: self.shown, exited, code, reason: self.socket.reason, skipped: self.skipped }
    }
}

impl Ended {
    /// Wants this exit code, told in every way.
    pub(crate) fn with_code(self, code: i32) -> Vec<u8> {
        let exited = self.exited.expect("the exit is told before the close");
        assert_eq!(exited["exitCode"], code);
        let reason: Value = serde_json::from_str(&self.reason).unwrap();
        assert_eq!(
            (&reason["exitCode"], &reason["exitReason"]),
            (&exited["exitCode"], &exited["exitReason"])
        );
        assert_eq!(self.code, if code == 0 { 1000 } else { 1011 });
        assert_eq!(self.skipped, Vec::<u64>::new());
        self.shown
    }
}

/// Waits until a terminal is not listed any more.
pub(crate) async fn until_unlisted(client: &Client, id: &str) {
    let unlisted = async {
        while client.get(&format!("/process/pty/{id}")).send().await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    within(unlisted).await;
}
