//! Commands, and shell sessions with their output.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, MIB, Row, exchange, millis, percentile, post, rate, ratio};

pub(crate) fn execute(directory: &Path) -> Vec<Row> {
    const ROUNDS: usize = 1000;
    let daemon = Daemon::start(directory);
    let mut stream = daemon.connect();
    let request = |command: &str| post("/process/execute", &json!({"command": command}));
    let reply = exchange(&mut stream, &request("printf %s $0"));
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    let shell = reply["result"].as_str().unwrap().to_owned();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // In turns, so that what else the machine does hits both alike.
        let began = Instant::now();
        exchange(&mut stream, &request("true"));
        ours.push(began.elapsed());
        let began = Instant::now();
        let output = Command::new(&shell)
            .args(["-c", "eval \"shift; $1\"", &shell, "true"])
            .stdin(Stdio::null())
            .output();
        assert!(output.unwrap().status.success());
        theirs.push(began.elapsed());
    }
    [(50, "one command, p50", "≤ 1 ms more"), (99, "one command, p99", "≤ 3 ms")]
        .map(|(percent, what, target)| {
            let (ours, theirs) = (percentile(&mut ours, percent), percentile(&mut theirs, percent));
            Row {
                what,
                ours: millis(ours),
                theirs: format!("posix_spawn {}", millis(theirs)),
                ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
                target,
            }
        })
        .into()
}

/// The shell that the daemon uses, with a session in it.
fn create_session(stream: &mut TcpStream) -> String {
    exchange(stream, &post("/process/session", &json!({"sessionId": "s"})));
    let reply = exchange(stream, &post("/process/session/s/exec", &json!({"command": "printf %s $0"})));
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    reply["output"].as_str().unwrap().to_owned()
}

pub(crate) fn session(directory: &Path) -> Vec<Row> {
    const ROUNDS: usize = 2000;
    let daemon = Daemon::start(directory);
    let mut stream = daemon.connect();
    let shell = create_session(&mut stream);
    let mut child = Command::new(&shell).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut rows, commands) = (Vec::new(), [("true", "built-in"), ("/bin/true", "/bin/true")]);
    for (command, what) in commands {
        let request = post("/process/session/s/exec", &json!({"command": command}));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            exchange(&mut stream, &request);
            ours.push(began.elapsed());
            let began = Instant::now();
            writeln!(input, "{command} >/dev/null 2>/dev/null; echo $?").unwrap();
            output.read_exact(&mut [0; 2]).unwrap();
            theirs.push(began.elapsed());
        }
        let (ours, theirs) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
        rows.push(Row {
            what: if what == "built-in" {
                "built-in in a warm session, p50"
            } else {
                "/bin/true in a warm session, p50"
            },
            ours: millis(ours),
            theirs: format!("the shell over pipes {}", millis(theirs)),
            ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
            target: "≤ 1 ms",
        });
    }
    drop(input);
    child.wait().unwrap();
    rows
}

type Socket = tungstenite::WebSocket<TcpStream>;

/// Starts a command in the session and follows its log over a WebSocket.
fn follow(daemon: &Daemon, stream: &mut TcpStream, command: &str) -> Socket {
    let reply =
        exchange(stream, &post("/process/session/s/exec", &json!({"command": command, "runAsync": true})));
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    let path = format!("/process/session/s/command/{}/logs?follow=true", reply["cmdId"].as_str().unwrap());
    let request = format!("ws://{}{path}", daemon.address);
    tungstenite::client(request, daemon.connect()).unwrap().0
}

/// Reads payload up to the close; gives its size.
fn read_all(socket: &mut Socket) -> usize {
    let mut read = 0;
    loop {
        match socket.read().unwrap() {
            tungstenite::Message::Binary(bytes) => read += bytes.len(),
            tungstenite::Message::Close(_) => return read,
            _ => {}
        }
    }
}

pub(crate) fn stream(directory: &Path) -> Vec<Row> {
    const BULK: usize = 1024 * MIB;
    let daemon = Daemon::start(directory);
    let mut stream = daemon.connect();
    create_session(&mut stream);
    let mut rows = Vec::new();
    let line = "x".repeat(79);
    let lines = format!("yes {line} | head -c {BULK}");
    let bulk = format!("head -c {BULK} /dev/zero");
    for (what, command) in [("bulk output to a WebSocket", bulk), ("lines of 80 bytes to a WebSocket", lines)]
    {
        // What a reader of a bare pipe gets of the same command.
        let began = Instant::now();
        let mut child = Command::new("sh").args(["-c", &command]).stdout(Stdio::piped()).spawn().unwrap();
        let (mut pipe, mut buffer, mut read) = (child.stdout.take().unwrap(), vec![0; 64 * 1024], 0);
        while let count @ 1.. = pipe.read(&mut buffer).unwrap() {
            read += count;
        }
        child.wait().unwrap();
        assert_eq!(read, BULK);
        let theirs = began.elapsed();
        let began = Instant::now();
        let read = read_all(&mut follow(&daemon, &mut stream, &command));
        let ours = began.elapsed();
        assert!(read <= BULK + 4096);
        rows.push(Row {
            what,
            ours: format!(
                "{:.0} MiB/s ({:.0} % read before it was dropped)",
                rate(BULK, ours),
                read as f64 / BULK as f64 * 100.0
            ),
            theirs: format!("bare pipe {:.0} MiB/s", rate(BULK, theirs)),
            ratio: ratio(rate(BULK, ours), rate(BULK, theirs)),
            target: "≥ 500 MiB/s",
        });
    }
    let fifo = directory.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut socket = follow(&daemon, &mut stream, "cat fifo");
    let mut writer = File::options().write(true).open(&fifo).unwrap();
    let mut ours: Vec<Duration> = (0..2000)
        .map(|_| {
            let began = Instant::now();
            writer.write_all(b"x").unwrap();
            while !matches!(socket.read().unwrap(), tungstenite::Message::Binary(_)) {}
            began.elapsed()
        })
        .collect();
    let began = Instant::now();
    drop(writer);
    read_all(&mut socket);
    let end = began.elapsed();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut theirs: Vec<Duration> = (0..2000)
        .map(|_| {
            let began = Instant::now();
            input.write_all(b"x").unwrap();
            output.read_exact(&mut [0]).unwrap();
            began.elapsed()
        })
        .collect();
    let began = Instant::now();
    drop(input);
    child.wait().unwrap();
    let bare_end = began.elapsed();
    for (what, percent, target) in [
        ("byte written to client has it, p50", 50, "≤ 1 ms"),
        ("byte written to client has it, p99", 99, "≤ 5 ms"),
    ] {
        let (ours, theirs) = (percentile(&mut ours, percent), percentile(&mut theirs, percent));
        rows.push(Row {
            what,
            ours: millis(ours),
            theirs: format!("cat {}", millis(theirs)),
            ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
            target,
        });
    }
    rows.push(Row {
        what: "end of the input to end of the stream",
        ours: millis(end),
        theirs: format!("cat {}", millis(bare_end)),
        ratio: ratio(end.as_secs_f64(), bare_end.as_secs_f64()),
        target: "≤ 5 ms after the exit",
    });
    rows
}
