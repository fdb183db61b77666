//! Terminals: clients come and go, and nobody loses a byte, the exit, or the close.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Client, Daemon, EXIT_CONTROL, SHELLS, Tty, gone, make_fifo, pid_in, until_unlisted, within,
};

const MIB: usize = 1024 * 1024;

fn envs_token(envs: &Value) -> String {
    format!("X-Daytona-Pty-Envs~{}", BASE64_URL_SAFE_NO_PAD.encode(envs.to_string()))
}

/// Lets a program go on that waits at a named pipe.
async fn go(path: impl AsRef<Path>) {
    let path = path.as_ref().to_owned();
    within(tokio::task::spawn_blocking(move || std::fs::write(path, "").unwrap())).await.unwrap();
}

/// Waits until a program has written a line to a named pipe; gives it.
async fn told(path: impl AsRef<Path>) -> String {
    let path = path.as_ref().to_owned();
    within(tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap())).await.unwrap()
}

async fn until_gone(pid: u32) {
    within(async {
        while !gone(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn children(daemon: &Daemon) -> usize {
    let mut pgrep = tokio::process::Command::new("pgrep");
    let output =
        within(pgrep.args(["--count", "--parent", &daemon.pid().to_string()]).output()).await.unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

async fn ids(client: &Client) -> Vec<String> {
    let sessions = client.get("/process/pty").ok().await.json()["sessions"].take();
    let sessions = sessions.as_array().unwrap().iter();
    sessions.map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn terminals_are_created_listed_got_resized_and_deleted() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    assert_eq!(client.get("/process/pty").ok().await.json(), json!({"sessions": []}));
    std::fs::create_dir(daemon.work().join("sub")).unwrap();
    for (id, body) in [
        (
            "zwei",
            json!({"command": ["cat"], "cwd": "sub", "envs": {"A": "1", "TERM": "dumb"}, "cols": 100.0}),
        ),
        ("a b/ü?#%41", json!({"command": ["cat"], "cols": 1, "rows": 1000, "envs": {"TERM": ""}})),
        ("lazy", json!({"lazyStart": true})),
        ("create-connect", json!({"command": ["cat"]})),
    ] {
        let mut body = body;
        body["id"] = id.into();
        let reply = client.post("/process/pty").json(body).ok().await;
        assert_eq!((reply.status.as_u16(), reply.json()), (201, json!({"sessionId": id})));
    }
    let mut sessions = client.get("/process/pty").ok().await.json()["sessions"].take();
    for session in sessions.as_array_mut().unwrap() {
        let created = session.as_object_mut().unwrap().remove("createdAt").unwrap();
        created.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    let work = daemon.work().to_str().unwrap().to_owned();
    let info = |id: &str, cwd: &str, envs: Value, cols: u16, rows: u16, active: bool| {
        json!({"id": id, "cwd": cwd, "envs": envs, "cols": cols, "rows": rows, "active": active,
            "lazyStart": !active})
    };
    let term = json!({"TERM": "xterm-256color"});
    let expected = json!([
        info("zwei", &format!("{work}/sub"), json!({"A": "1", "TERM": "dumb"}), 100, 24, true),
        info("a b/ü?#%41", &work, term.clone(), 1, 1000, true),
        info("lazy", &work, term.clone(), 80, 24, false),
        info("create-connect", &work, term, 80, 24, true),
    ]);
    assert_eq!(sessions, expected);
    let odd = "/process/pty/a%20b%2F%C3%BC%3F%23%2541";
    let resize = client.post(&format!("{odd}/resize")).json(json!({"cols": 1000, "rows": 2}));
    let resized = resize.ok().await.json();
    assert_eq!((&resized["cols"], &resized["rows"]), (&json!(1000), &json!(2)));
    assert_eq!(client.get(odd).ok().await.json(), resized);
    for path in [odd, "/process/pty/lazy", "/process/pty/create-connect"] {
        let reply = client.delete(path).ok().await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"message": "PTY session deleted"})));
    }
    assert_eq!(ids(&client).await, ["zwei"]);
}

#[tokio::test]
async fn errors_are_envelopes_with_the_text_that_old_clients_read() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.create_pty("p1", &["cat"]).await;
    let create = |body: Value| client.post("/process/pty").json(body);
    let resize = |id: &str, body: Value| client.post(&format!("/process/pty/{id}/resize")).json(body);
    let cols = "invalid value for cols - must be";
    for (call, status, code, text) in [
        (create(json!({})), 400, "BAD_REQUEST", "session ID is required".to_owned()),
        (create(json!({"id": "x", "cols": 1001})), 400, "BAD_REQUEST", format!("{cols} less than 1000")),
        (create(json!({"id": "x", "cols": 0})), 400, "BAD_REQUEST", format!("{cols} at least 1")),
        (create(json!({"id": "x\n"})), 400, "BAD_REQUEST", "session ID must have at most".to_owned()),
        (
            create(json!({"id": "x", "envs": {"A=": ""}})),
            400,
            "BAD_REQUEST",
            "invalid environment".to_owned(),
        ),
        (create(json!({"id": "x", "command": []})), 400, "BAD_REQUEST", "command must begin".to_owned()),
        (
            create(json!({"id": "x", "user": "nobody-at-all"})),
            400,
            "BAD_REQUEST",
            "there is no user".to_owned(),
        ),
        (
            create(json!({"id": "x", "rows": 65536})),
            400,
            "INVALID_REQUEST_BODY",
            "a size is a whole".to_owned(),
        ),
        (create(json!({"id": "x", "rows": -1})), 400, "INVALID_REQUEST_BODY", "-1 is not a whole".to_owned()),
        (create(json!({"id": 1})), 400, "INVALID_REQUEST_BODY", "invalid type".to_owned()),
        (create(json!({"id": "p1"})), 409, "CONFLICT", "PTY session with ID 'p1' already exists".to_owned()),
        (
            create(json!({"id": "x", "cwd": "/no/such"})),
            500,
            "INTERNAL_SERVER_ERROR",
            "failed to start PTY session: chdir /no/such: no such file or directory".to_owned(),
        ),
        (
            create(json!({"id": "x", "command": ["/no/such"]})),
            500,
            "INTERNAL_SERVER_ERROR",
            "failed to start PTY session: fork/exec /no/such: no such file or directory".to_owned(),
        ),
        (client.get("/process/pty/x"), 404, "PROCESS_NOT_FOUND", "PTY session not found".to_owned()),
        (client.delete("/process/pty/x"), 404, "PROCESS_NOT_FOUND", "PTY session not found".to_owned()),
        (resize("x", json!({"cols": 1, "rows": 1})), 410, "GONE", "PTY session x not found".to_owned()),
        (resize("p1", json!({"cols": 1})), 400, "BAD_REQUEST", "rows is required".to_owned()),
        (
            resize("p1", json!({"cols": 0, "rows": 1})),
            400,
            "BAD_REQUEST",
            "cols must be at least 1".to_owned(),
        ),
        (
            resize("p1", json!({"cols": 1, "rows": 1001})),
            400,
            "BAD_REQUEST",
            "rows must be less than".to_owned(),
        ),
        (resize("p1", json!("80x24")), 400, "INVALID_REQUEST_BODY", "invalid type".to_owned()),
        (client.get("/process/pty/create-connect"), 400, "BAD_REQUEST", String::new()),
        (client.get("/process/pty/p1/connect"), 400, "BAD_REQUEST", String::new()),
    ] {
        let reply = call.send().await;
        let body = reply.json();
        let told = body["error"].as_str().unwrap_or_default();
        assert_eq!((reply.status.as_u16(), &body["code"]), (status, &json!(code)), "{body}");
        assert!(
            told.starts_with(&text) || code == "INVALID_REQUEST_BODY" && !told.is_empty(),
            "{body}: {text}"
        );
        assert!(body["message"].as_str().unwrap().ends_with(told), "{body}");
    }
    assert_eq!(ids(&client).await, ["p1"]);
}

#[tokio::test]
async fn the_101_and_connected_leave_in_one_write() {
    let daemon = Daemon::start().await;
    daemon.client().create_pty("p1", &["cat"]).await;
    for (path, status) in [
        ("/process/pty/p1/connect", "connected"),
        ("/process/pty/create-connect?id=new", "connected"),
        ("/process/pty/none/connect", "error"),
    ] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 2048];
        let count = within(stream.read(&mut first)).await.unwrap(); // one segment, so one read
        let first = String::from_utf8_lossy(&first[..count]).into_owned();
        let (head, frame) = first.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(frame.contains(&format!("{{\"type\":\"control\",\"status\":\"{status}\"")), "{first}");
    }
}

#[tokio::test]
async fn the_first_client_sees_what_came_before_it_and_later_ones_what_comes_next() {
    let daemon = Daemon::start().await;
    make_fifo(&daemon.work().join("ready"));
    let client = daemon.client();
    client.create_pty("p1", &["sh", "-c", "echo early; stty -echo; echo > ready; exec cat"]).await;
    told(daemon.work().join("ready")).await;
    let mut first = client.tty("p1").await;
    assert_eq!(first.connected, json!({"type": "control", "status": "connected"}));
    assert_eq!(first.until("early\r\n").await, "");
    first.send("one\n").await;
    first.until("one\r\n").await;
    let mut second = client.tty("p1").await;
    second.send("two\n").await;
    assert_eq!(first.until("two\r\n").await, "");
    assert_eq!(second.until("two\r\n").await, "");
    drop((first, second));
    // All have left, and it lives on.
    let mut third = client.tty("p1").await;
    third.send("three\n").await;
    assert_eq!(third.until("three\r\n").await, "");
    let mut again = client.tty_at("/process/pty/p1/connect?offset=0").await;
    assert_eq!(again.connected["offset"], 0);
    assert_eq!(again.until("three\r\n").await, "early\r\none\r\ntwo\r\n");
    let mut middle = client.tty_at("/process/pty/p1/connect?offset=12").await;
    assert_eq!(middle.connected["offset"], 12);
    assert_eq!(middle.until("three\r\n").await, "two\r\n");
    let beyond = client.tty_at("/process/pty/p1/connect?offset=1000000").await;
    assert_eq!(beyond.connected["offset"], 24);
}

#[tokio::test]
async fn clients_that_come_and_go_with_offsets_miss_nothing_and_get_nothing_twice() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("go"));
    let expected: String = (1..=250_000).map(|number| format!("{number}\r\n")).collect();
    assert!(expected.len() < 2 * MIB, "all of it is kept");
    client.create_pty("p1", &["sh", "-c", "cat go; seq 1 250000"]).await;
    let hold = client.tty("p1").await;
    let followers = (1..=4).map(|bites| {
        let (client, expected) = (client.clone(), expected.as_bytes());
        async move {
            let mut seen = Vec::new();
            loop {
                let mut tty = client.tty_at(&format!("/process/pty/p1/connect?offset={}", seen.len())).await;
                assert_eq!(tty.connected["offset"], seen.len());
                let more = tty.take((bites * 50_000).min(expected.len() - seen.len())).await;
                seen.extend(more);
                if seen.len() == expected.len() {
                    assert!(seen == expected, "the bytes differ");
                    return tty.ended().await.with_code(0);
                }
            }
        }
    });
    let followers = join_all(followers);
    let (rest, (), whole) = tokio::join!(followers, go(daemon.work().join("go")), hold.ended());
    assert_eq!(rest, vec![Vec::<u8>::new(); 4]);
    assert!(whole.with_code(0) == expected.as_bytes());
}

#[tokio::test]
async fn the_exit_is_told_to_those_who_ask_then_comes_the_close_and_the_id_is_free() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("go"));
    for (end, code, reason) in [
        ("exit 0", 0, None),
        ("exit 3", 3, Some("non-zero exit")),
        ("exit 130", 130, Some("Ctrl+C")),
        ("kill -TERM $$", 143, Some("SIGTERM")),
        ("kill -KILL $$", 137, Some("SIGKILL")),
        ("kill -SEGV $$", 139, Some("signal 11")),
    ] {
        client.create_pty("p1", &["sh", "-c", &format!("cat go; echo last; {end}")]).await;
        let tty = client.tty("p1").await;
        // An old client.
        let mut old = client.socket("/process/pty/p1/connect").await;
        assert_eq!(old.protocol(), None);
        assert_eq!(old.json().await["status"], "connected");
        go(daemon.work().join("go")).await;
        assert_eq!(old.next().await, Ok(Message::Binary("last\r\n".into())));
        assert_eq!(old.closed().await, if code == 0 { 1000 } else { 1011 });
        let mut expected = json!({"exitCode": code});
        if let Some(reason) = reason {
            expected["exitReason"] = reason.into();
        }
        assert_eq!(serde_json::from_str::<Value>(&old.reason).unwrap(), expected);
        assert_eq!(ids(&client).await, Vec::<String>::new());
        let resize = client.post("/process/pty/p1/resize").json(json!({"cols": 1, "rows": 1}));
        assert!(resize.fails(410, "SESSION_ENDED").await.contains("PTY session 'p1' has terminated"));
        let ended = tty.ended().await;
        assert_eq!(ended.exited.as_ref().unwrap().get("exitReason"), expected.get("exitReason"));
        assert_eq!(ended.with_code(code), b"last\r\n");
    }
}

#[tokio::test]
async fn an_ended_terminal_can_be_asked_for_what_a_client_missed() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.create_pty("unseen", &["sh", "-c", "echo hello; exit 3"]).await;
    until_unlisted(&client, "unseen").await;
    assert_eq!(client.tty("unseen").await.ended().await.with_code(3), b"hello\r\n");
    let again = client.tty_at("/process/pty/unseen/connect?offset=5").await;
    assert_eq!(again.connected["offset"], 5);
    assert_eq!(again.ended().await.with_code(3), b"\r\n");
    // Seen, and without an offset: there is nothing to come.
    let mut late = client.upgrade("/process/pty/unseen/connect", &[EXIT_CONTROL]).await.unwrap();
    let text = "PTY session 'unseen' has terminated and is no longer available";
    let error = format!("Failed to connect to PTY session: {text}");
    assert_eq!(late.json().await, json!({"type": "control", "status": "error", "error": error}));
    assert_eq!((late.closed().await, late.reason), (1011, json!({"error": text}).to_string()));
    // The id belongs to the next.
    client.create_pty("unseen", &["sh", "-c", "echo other"]).await;
    assert_eq!(client.tty("unseen").await.ended().await.with_code(0), b"other\r\n");
}

/// Text in which every place is different.
fn blob(bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> = Vec::with_capacity(bytes + 10);
    for number in 0.. {
        text.extend(format!("{number:08x}\n").as_bytes());
        if text.len() >= bytes {
            text.truncate(bytes);
            return text;
        }
    }
    unreachable!()
}

/// `PTY_ROUNDS` in the environment makes it more thorough.
#[tokio::test]
async fn every_client_gets_every_byte_of_programs_that_end_at_once() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let printed = blob(MIB);
    std::fs::write(daemon.work().join("blob"), &printed).unwrap();
    let shown = String::from_utf8(printed).unwrap().replace('\n', "\r\n").into_bytes();
    let round = |index: usize| {
        let (client, shown) = (client.clone(), &shown);
        async move {
            let (id, code) = (format!("p{index}"), i32::try_from(index % 3).unwrap());
            let path = format!("/process/pty/{id}/connect?offset=0");
            client.create_pty(&id, &["sh", "-c", &format!("cat blob; exit {code}")]).await;
            let mut ended = Vec::new();
            match index % 4 {
                // At once.
                0 => ended.push(client.tty(&id).await.ended().await),
                // Several, one of them in the middle.
                1 => {
                    let (mut first, second) = (client.tty(&id).await, client.tty_at(&path).await);
                    first.take(100_000 * (index % 7)).await;
                    let (third, rest) = tokio::join!(client.tty_at(&path), second.ended());
                    drop(first);
                    ended.extend([rest, third.ended().await]);
                }
                // One that reads nothing until all is over.
                2 => {
                    let slow = client.tty(&id).await;
                    until_unlisted(&client, &id).await;
                    ended.push(slow.ended().await);
                }
                // Late.
                _ => {
                    until_unlisted(&client, &id).await;
                    ended.push(client.tty(&id).await.ended().await);
                }
            }
            for ended in ended {
                assert!(ended.with_code(code) == *shown, "round {index}: the bytes differ");
            }
        }
    };
    let rounds: usize = std::env::var("PTY_ROUNDS").map_or(100, |rounds| rounds.parse().unwrap());
    stream::iter(0..rounds).map(round).buffer_unordered(8).collect::<Vec<()>>().await;
    assert_eq!(ids(&client).await, Vec::<String>::new());
}

#[tokio::test]
async fn of_many_with_one_id_one_wins_and_one_program_runs() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let create = |index: usize| {
        let client = client.clone();
        async move {
            if index.is_multiple_of(2) {
                let body = json!({"id": "p1", "command": ["sh", "-c", "echo $$ >> pids; exec cat"]});
                client.post("/process/pty").json(body).send().await.status.as_u16()
            } else {
                let path = "/process/pty/create-connect?id=p1";
                let headers = [EXIT_CONTROL, ("sec-websocket-protocol", &*envs_token(&json!({"A": "b"})))];
                match client.upgrade(path, &headers).await {
                    Ok(mut socket) => {
                        assert_eq!(socket.json().await["status"], "connected");
                        201
                    }
                    Err((status, body)) => {
                        assert!(body.contains("PTY session with ID 'p1' already exists"), "{body}");
                        status
                    }
                }
            }
        }
    };
    let statuses = join_all((0..200).map(create)).await;
    let counts = statuses.iter().fold(BTreeMap::new(), |mut counts, status| {
        *counts.entry(*status).or_insert(0) += 1;
        counts
    });
    assert_eq!(counts, BTreeMap::from([(201, 1), (409, 199)]));
    assert_eq!(ids(&client).await, ["p1"]);
    assert_eq!(children(&daemon).await, 1);
}

#[tokio::test]
async fn create_connect_starts_a_login_shell_and_attaches() {
    let daemon = Daemon::with_shell("/bin/bash").await;
    let client = daemon.client();
    std::fs::create_dir(daemon.work().join("a b")).unwrap();
    let envs = json!({"GREETING": "ünï 日本", "my.dotted": "yes"});
    let offers = format!("{}, X-Daytona-Pty-Exit-Control", envs_token(&envs));
    let path = "/process/pty/create-connect?id=p1&cols=100&rows=30&cwd=a%20b&DAYTONA_SANDBOX_AUTH_KEY=x";
    let socket = client.upgrade(path, &[("sec-websocket-protocol", &offers)]).await.unwrap();
    assert_eq!(socket.protocol(), Some("X-Daytona-Pty-Exit-Control"));
    let mut tty = Tty::new(socket).await;
    let info = client.get("/process/pty/p1").ok().await.json();
    let cwd = daemon.work().join("a b").to_str().unwrap().to_owned();
    assert_eq!((&info["cwd"], &info["cols"], &info["rows"]), (&json!(cwd), &json!(100), &json!(30)));
    assert_eq!((&info["lazyStart"], &info["active"]), (&json!(false), &json!(true)));
    assert_eq!(info["envs"]["GREETING"], "ünï 日本");
    tty.send("stty size; echo \"[$GREETING $TERM $PWD $-]\"; shopt -q login_shell && echo log''in\n").await;
    tty.until("30 100\r\n").await;
    tty.until(&format!("[ünï 日本 xterm-256color {cwd} ")).await;
    assert!(tty.until("]\r\n").await.contains('i'), "it is interactive");
    tty.until("login\r\n").await;
    tty.send("env | grep my.dotted; ps -o sid=,tty= $$; echo $$; tty\n").await;
    tty.until("my.dotted=yes\r\n").await;
    tty.until("/dev/pts/").await;
    // Text frames are input too, and JSON is nothing special.
    tty.socket.send(Message::Text("{\"type\":\"resize\"}\n".into())).await;
    tty.until("not found").await;
    tty.send("exit 3\n").await;
    tty.ended().await.with_code(3);
}

#[tokio::test]
async fn create_connect_refuses_before_the_upgrade_what_it_can() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.create_pty("p1", &["cat"]).await;
    let bad = envs_token(&json!({"A": 1}));
    for (query, offer, status, text) in [
        ("", "x", 400, "session id required"),
        ("id=", "x", 400, "session id required"),
        ("id=x&cols=many", "x", 400, "cols must be an integer between 0 and 65535"),
        ("id=x&rows=65536", "x", 400, "rows must be an integer between 0 and 65535"),
        ("id=x&rows=-1", "x", 400, "rows must be an integer between 0 and 65535"),
        ("id=x&cols=1001", "x", 400, "cols and rows must be less than 1000"),
        ("id=x", &bad, 400, "invalid envs subprotocol: invalid type"),
        ("id=x", "X-Daytona-Pty-Envs~!", 400, "invalid envs subprotocol: "),
        ("id=p1", "x", 409, "PTY session with ID 'p1' already exists"),
    ] {
        let path = format!("/process/pty/create-connect?{query}");
        let (found, body) = client.upgrade(&path, &[("sec-websocket-protocol", offer)]).await.unwrap_err();
        let error = serde_json::from_str::<Value>(&body).unwrap()["error"].take();
        assert!(found == status && error.as_str().unwrap().starts_with(text), "{query}: {found} {body}");
    }
    // What can only be known by trying is told in a way that every SDK shows.
    let mut socket = client.socket("/process/pty/create-connect?id=x&cwd=/no/such").await;
    let text = "ailed to start PTY session: chdir /no/such: no such file or directory";
    assert_eq!(
        socket.json().await,
        json!({"type": "control", "status": "error", "error": format!("F{text}")})
    );
    assert_eq!(
        (socket.closed().await, socket.reason),
        (1011, json!({"error": format!("f{text}")}).to_string())
    );
    assert_eq!(ids(&client).await, ["p1"]);
    // 0 is the default there; a large environment fits into the handshake.
    let envs = json!({"BIG": "x".repeat(48_000)});
    let token = envs_token(&envs);
    let mut socket = client
        .upgrade("/process/pty/create-connect?id=x&cols=0", &[("sec-websocket-protocol", &token)])
        .await
        .unwrap();
    assert_eq!(socket.protocol(), Some(&*token));
    assert_eq!(socket.json().await["status"], "connected");
    let info = client.get("/process/pty/x").ok().await.json();
    assert_eq!((&info["cols"], &info["envs"]["BIG"]), (&json!(80), &envs["BIG"]));
}

#[tokio::test]
async fn connecting_to_nothing_is_told_by_message_and_close() {
    let daemon = Daemon::start().await;
    let mut socket = daemon.client().upgrade("/process/pty/p1/connect", &[EXIT_CONTROL]).await.unwrap();
    let text = "PTY session p1 not found";
    let error = format!("Failed to connect to PTY session: {text}");
    assert_eq!(socket.json().await, json!({"type": "control", "status": "error", "error": error}));
    assert_eq!((socket.closed().await, socket.reason), (1011, json!({"error": text}).to_string()));
}

#[tokio::test]
async fn a_lazy_terminal_starts_once_with_the_first_of_many_clients() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let script = "echo $$ >> pids; stty size; exec cat";
    let body = json!({"id": "p1", "lazyStart": true, "command": ["sh", "-c", script]});
    client.post("/process/pty").json(body).ok().await;
    let resized = client.post("/process/pty/p1/resize").json(json!({"cols": 90, "rows": 20})).ok().await;
    assert_eq!(resized.json()["active"], false);
    let mut ttys = join_all((0..20).map(|_| client.tty_at("/process/pty/p1/connect?offset=0"))).await;
    for tty in &mut ttys {
        assert_eq!(tty.until("20 90\r\n").await, "");
    }
    assert_eq!(std::fs::read_to_string(daemon.work().join("pids")).unwrap().lines().count(), 1);
    assert_eq!(client.get("/process/pty/p1").ok().await.json()["active"], true);
    // One that cannot start says so, and is still there.
    let body = json!({"id": "p2", "lazyStart": true, "cwd": "later"});
    client.post("/process/pty").json(body).ok().await;
    let mut socket = client.socket("/process/pty/p2/connect").await;
    let error = socket.json().await["error"].as_str().unwrap().to_owned();
    assert!(
        error.starts_with("Failed to connect to PTY session: failed to start PTY session: chdir "),
        "{error}"
    );
    assert_eq!(socket.closed().await, 1011);
    std::fs::create_dir(daemon.work().join("later")).unwrap();
    client.tty("p2").await;
}

#[tokio::test]
async fn a_viewer_that_reads_nothing_holds_up_nobody_and_is_dropped_when_it_wakes() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("go"));
    let bytes = 48 * MIB;
    let script = format!("stty -opost; cat go; head -c {bytes} /dev/zero | tr '\\0' x; exit 5");
    client.create_pty("p1", &["sh", "-c", &script]).await;
    let (reader, stopped) = (client.tty("p1").await, client.tty("p1").await);
    let counting = client.tty_at("/process/pty/p1/connect?offset=0").await;
    let (whole, ()) = tokio::join!(reader.ended(), go(daemon.work().join("go")));
    assert_eq!(whole.with_code(5).len(), bytes);
    let dropped = stopped.ended().await;
    assert_eq!((dropped.code, &*dropped.reason, dropped.exited), (1008, "slow consumer", None));
    assert!(dropped.shown.len() < bytes);
    // Who counts is told what it missed, and stays to the end.
    let mut counted = counting.ended().await;
    assert_eq!(counted.code, 1011);
    let skipped = std::mem::take(&mut counted.skipped);
    assert!(!skipped.is_empty() && counted.shown.len() < bytes, "{skipped:?}");
    assert!(counted.with_code(5).iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn nobody_watching_holds_up_nobody() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let script = "stty -opost; head -c 8388608 /dev/zero | tr '\\0' x; echo done; exec cat";
    client.create_pty("p1", &["sh", "-c", script]).await;
    // What is kept is the end of it.
    let mut tty = within(async {
        loop {
            let tty = client.tty_at("/process/pty/p1/connect?offset=8388608").await;
            if tty.connected["offset"] == 8_388_608 {
                break tty;
            }
        }
    })
    .await;
    assert_eq!(tty.until("done\n").await, "");
    let mut whole = client.tty_at("/process/pty/p1/connect?offset=0").await;
    let oldest = whole.connected["offset"].as_u64().unwrap();
    let kept = whole.until("done\n").await.len() as u64;
    assert_eq!(oldest + kept, 8_388_608);
    assert!((2 * MIB as u64..3 * MIB as u64).contains(&kept), "{kept}");
    assert!(daemon.peak_memory() < 64 * MIB as u64, "{}", daemon.peak_memory());
}

#[tokio::test]
async fn input_of_any_size_arrives_whole_and_pings_are_answered_while_it_waits() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("go"));
    let script =
        "stty raw -echo; echo ready; cat go; head -c 3145729 | tr -d x | sha256sum; stty cooked echo";
    client.create_pty("p1", &["sh", "-c", script]).await;
    let mut tty = client.tty("p1").await;
    tty.until("ready").await;
    let mut input = blob(3 * MIB);
    input.iter_mut().filter(|byte| **byte == b'x').for_each(|byte| *byte = b'y');
    for frame in input.chunks(MIB) {
        tty.send(frame).await;
    }
    tty.socket.ping().await; // the program has not read a byte
    // Another client's comes before, between or after these frames.
    let mut other = client.tty("p1").await;
    other.send("x").await;
    other.socket.ping().await;
    go(daemon.work().join("go")).await;
    let digest: String = Sha256::digest(&input).iter().map(|byte| format!("{byte:02x}")).collect();
    tty.until(&digest).await;
    tty.ended().await.with_code(0);
}

#[tokio::test]
async fn a_frame_that_is_too_large_closes_with_1009_and_the_terminal_lives_on() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.create_pty("p1", &["cat"]).await;
    let mut tty = client.tty("p1").await;
    tty.send(vec![b'x'; MIB + 1]).await;
    assert_eq!(tty.socket.closed().await, 1009);
    let mut next = client.tty("p1").await;
    next.send("still\n").await;
    next.until("still\r\n").await;
}

#[tokio::test]
async fn what_a_client_typed_before_it_vanished_is_typed() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("told"));
    client.create_pty("p1", &["sh", "-c", "stty -echo; read a; read b; echo \"$a$b\" > told"]).await;
    let mut tty = client.tty("p1").await;
    tty.send("last ").await;
    tty.send("words\n").await;
    tty.send("here\n").await;
    tty.socket.vanish();
    assert_eq!(told(daemon.work().join("told")).await, "last wordshere\n");
}

#[tokio::test]
async fn delete_kills_everything_and_tells_137() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("ready"));
    let script = "trap '' HUP TERM; : > pids; sh -c 'echo $$ >> pids; exec sleep 1000' &
        setsid sh -c 'echo $$ >> pids; exec sleep 1000' &
        (setsid sh -c 'echo $$ >> pids; exec sleep 1000' &)
        while [ $(wc -l < pids) -lt 3 ]; do :; done; echo last; echo > ready; exec sleep 1000";
    client.create_pty("p1", &["sh", "-c", script]).await;
    let (tty, mut old) = (client.tty("p1").await, client.socket("/process/pty/p1/connect?offset=0").await);
    old.json().await;
    told(daemon.work().join("ready")).await;
    client.delete("/process/pty/p1").ok().await;
    for pid in std::fs::read_to_string(daemon.work().join("pids")).unwrap().lines() {
        assert!(gone(pid.parse().unwrap()), "{pid}");
    }
    assert_eq!(ids(&client).await, Vec::<String>::new());
    let ended = tty.ended().await;
    assert_eq!(ended.exited.as_ref().unwrap()["exitReason"], "SIGKILL");
    assert_eq!(ended.with_code(137), b"last\r\n");
    old.next().await.unwrap();
    assert_eq!((old.closed().await, &*old.reason), (1011, r#"{"exitCode":137,"exitReason":"SIGKILL"}"#));
    // It is not kept.
    let mut late = client.socket("/process/pty/p1/connect?offset=0").await;
    assert_eq!(late.json().await["status"], "error");
}

#[tokio::test]
async fn an_exit_hangs_up_the_session_and_spares_who_asked_to_be_spared() {
    let daemon = Daemon::start_with(|command| {
        command.args(["--termination-grace-period", "1s"]);
    })
    .await;
    let client = daemon.client();
    let script = "sh -c 'echo $$ > plain; exec sleep 1000' &
        sh -c 'trap \"echo bye\" HUP; echo $$ > stubborn; while :; do sleep 1000; done' &
        nohup sh -c 'echo $$ > nohup; exec sleep 1000' > /dev/null 2>&1 &
        setsid sh -c 'echo $$ > daemon; exec sleep 1000' > /dev/null 2>&1 < /dev/null &
        for file in plain stubborn nohup daemon; do until [ -s $file ]; do :; done; done 2> /dev/null
        echo last; exit 4";
    client.create_pty("p1", &["bash", "-c", script]).await;
    let shown = client.tty("p1").await.ended().await.with_code(4);
    assert!(shown.starts_with(b"last\r\n"), "{}", String::from_utf8_lossy(&shown));
    let pid = |name: &str| pid_in(&std::fs::read_to_string(daemon.work().join(name)).unwrap());
    until_gone(pid("plain")).await;
    until_gone(pid("stubborn")).await; // it was told, and did not go
    assert!(!gone(pid("nohup")) && !gone(pid("daemon")));
}

#[tokio::test]
async fn the_daemons_end_is_the_terminals_end() {
    let mut daemon = Daemon::with_shell("/bin/bash").await;
    let client = daemon.client();
    let mut tty = Tty::new(client.socket("/process/pty/create-connect?id=p1").await).await;
    tty.send("sleep 1000 & echo $! $$ > pids; echo rea''dy\n").await;
    tty.until("ready\r\n").await;
    let pids = std::fs::read_to_string(daemon.work().join("pids")).unwrap();
    daemon.signal("TERM").await;
    let code = loop {
        if let Err(code) = tty.socket.next().await {
            break code;
        }
    };
    assert_eq!(code, 1001);
    assert!(daemon.exited().await.success());
    assert!(pids.split_whitespace().all(|pid| gone(pid.parse().unwrap())), "{pids}");
}

#[tokio::test]
async fn keys_act_on_the_job_in_the_foreground() {
    let daemon = Daemon::with_shell("/bin/bash").await;
    let client = daemon.client();
    let mut tty =
        Tty::new(client.upgrade("/process/pty/create-connect?id=p1", &[EXIT_CONTROL]).await.unwrap()).await;
    tty.send("PS1='> '; unset PROMPT_COMMAND; echo rea''dy\n").await;
    tty.until("ready\r\n").await;
    tty.until("> ").await;
    tty.send("sh -c 'echo on; exec sleep 1000'\n").await;
    tty.until("on\r\n").await;
    tty.send("\x03").await;
    tty.until("^C").await;
    tty.until("> ").await;
    tty.send("echo \"[$?]\"\n").await;
    tty.until("[130]\r\n").await;
    tty.send("sh -c 'echo on; read word; echo got $word; exec sleep 1000'\n").await;
    tty.until("on\r\n").await;
    tty.send("\x1a").await;
    tty.until("Stopped").await;
    tty.send("jobs; fg\n").await;
    tty.until("Stopped").await;
    tty.until("sleep 1000'\r\n").await; // of `jobs`
    tty.until("sleep 1000'\r\n").await; // of `fg`, before it
    tty.send("it\n").await;
    tty.until("got it\r\n").await;
    tty.send("\x1c").await; // SIGQUIT
    tty.until("Quit").await;
    // The size reaches programs, with a signal.
    tty.send("trap 'echo \"[$(stty size)]\"' WINCH; echo o''n\n").await;
    tty.until("on\r\n").await;
    client.post("/process/pty/p1/resize").json(json!({"cols": 123, "rows": 45})).ok().await;
    tty.send("\n").await; // bash runs traps between commands
    tty.until("[45 123]\r\n").await;
    tty.send("\x04").await;
    tty.ended().await.with_code(0);
}

#[tokio::test]
async fn every_shell_is_interactive_on_its_terminal() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        std::fs::write(daemon.home().join(".zshrc"), "").unwrap(); // else it asks new users what they want
        let client = daemon.client();
        let mut tty =
            Tty::new(client.upgrade("/process/pty/create-connect?id=p1", &[EXIT_CONTROL]).await.unwrap())
                .await;
        tty.until_prompt().await;
        tty.send(
            "case $- in *i*) echo inter''active;; esac; [ -t 0 ] && [ -t 2 ] && echo term''inal; exit 7\r",
        )
        .await;
        tty.until("interactive\r\n").await;
        tty.until("terminal\r\n").await;
        tty.ended().await.with_code(7);
    }
}

#[tokio::test]
async fn a_program_can_be_another_users() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let script =
        "id -un; id -u; echo \"$HOME $USER $LOGNAME\"; stat -c %U $(tty); pwd; : > /dev/tty && echo open";
    let body = json!({"id": "p1", "user": "nobody", "command": ["sh", "-c", script], "cwd": "/"});
    client.post("/process/pty").json(body).ok().await;
    let shown = client.tty("p1").await.ended().await.with_code(0);
    let shown = String::from_utf8(shown).unwrap();
    assert_eq!(shown, "nobody\r\n65534\r\n/nonexistent nobody nobody\r\nnobody\r\n/\r\nopen\r\n");
    let body = json!({"id": "p2", "user": "4242", "command": ["id", "-u"]});
    client.post("/process/pty").json(body).ok().await;
    assert_eq!(client.tty("p2").await.ended().await.with_code(0), b"4242\r\n");
    // Only root can choose.
    let daemon = Daemon::start_as_nobody().await.expect("the tests run as root");
    let body = json!({"id": "p1", "user": "root"});
    daemon.client().post("/process/pty").json(body).fails(403, "FORBIDDEN").await;
    let body = json!({"id": "p1", "user": "nobody", "command": ["id", "-un"], "cwd": "/"});
    daemon.client().post("/process/pty").json(body).ok().await;
    assert_eq!(daemon.client().tty("p1").await.ended().await.with_code(0), b"nobody\r\n");
}

#[tokio::test]
async fn a_retry_with_the_same_key_gets_the_first_answer() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let create = |key: &str| {
        client
            .post("/process/pty")
            .header("Idempotency-Key", key)
            .json(json!({"id": "p1", "command": ["cat"]}))
    };
    let first = create("k").ok().await;
    assert_eq!(create("k").ok().await.body, first.body);
    create("other").fails(409, "CONFLICT").await;
    assert_eq!(ids(&client).await, ["p1"]);
}

#[tokio::test]
async fn a_program_that_closes_its_terminal_can_open_it_again() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("closed"));
    make_fifo(&daemon.work().join("go"));
    let script = "exec < /dev/null > /dev/null 2>&1; echo > closed; cat go; echo back > /dev/tty; exit 6";
    client.create_pty("p1", &["sh", "-c", script]).await;
    let tty = client.tty("p1").await;
    told(daemon.work().join("closed")).await;
    go(daemon.work().join("go")).await;
    assert_eq!(tty.ended().await.with_code(6), b"back\r\n");
}

#[tokio::test]
async fn nothing_is_left_of_many_terminals_and_clients() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).unwrap().count();
    let round = |index: usize| {
        let client = client.clone();
        async move {
            let id = format!("p{index}");
            client.create_pty(&id, &["cat"]).await;
            let ttys = join_all((0..4).map(|_| client.tty(&id))).await;
            for (index, tty) in ttys.into_iter().enumerate() {
                if index % 2 == 0 { tty.socket.vanish() } else { drop(tty) }
            }
            client.delete(&format!("/process/pty/{id}")).ok().await;
        }
    };
    stream::iter(0..8).map(round).buffer_unordered(8).collect::<Vec<()>>().await;
    let before = count("fd");
    stream::iter(8..100).map(round).buffer_unordered(8).collect::<Vec<()>>().await;
    within(async {
        // Connections that clients have left are noticed in a moment; pools of clients may hold some.
        while count("fd") > before + 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(children(&daemon).await, 0);
}
