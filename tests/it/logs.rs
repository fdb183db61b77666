//! Live logs: replay, follow, resume, for every generation of clients, with nothing lost and nothing twice.

use std::io::Write;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::support::{Daemon, make_fifo, program, within};

const VERSION: (&str, &str) = ("x-daytona-sdk-version", "0.226.1");

/// Starts a command in a session of its own; gives the path of its log.
async fn start(daemon: &Daemon, command: &str) -> String {
    let client = daemon.client();
    client.post("/process/session").json(json!({"sessionId": "s"})).send().await;
    let body = json!({"command": command, "runAsync": true});
    let reply = client.post("/process/session/s/exec").json(body).ok().await.json();
    format!("/process/session/s/command/{}/logs", reply["cmdId"].as_str().unwrap())
}

/// Lets a command go on that waits at a named pipe.
async fn go(daemon: &Daemon, name: &str) {
    let path = daemon.work().join(name);
    tokio::task::spawn_blocking(move || std::fs::write(path, "")).await.unwrap().unwrap();
}

/// Takes frames apart as the SDKs do; each must be whole units.
fn split(frames: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for frame in frames {
        assert!(frame.starts_with(&[1; 3]) || frame.starts_with(&[2; 3]), "a frame begins with a marker");
        let mut rest = &frame[..];
        while let Some(marker) = rest.first_chunk::<3>() {
            let stream = if *marker == [1; 3] { &mut out } else { &mut err };
            rest = &rest[3..];
            let end =
                rest.windows(3).position(|bytes| bytes == [1; 3] || bytes == [2; 3]).unwrap_or(rest.len());
            assert!(end > 0, "no unit is empty");
            stream.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
        assert!(rest.is_empty());
    }
    (out, err)
}

#[tokio::test]
async fn a_socket_replays_and_follows_and_closes_with_1000_after_the_last_byte() {
    let daemon = Daemon::start().await;
    make_fifo(&daemon.work().join("go"));
    let path = start(&daemon, "echo early; echo warn >&2; cat go; echo late; exit 3").await + "?follow=true";
    let early = daemon.client().upgrade(&path, &[VERSION]).await.unwrap();
    let second = daemon.client().upgrade(&path, &[VERSION]).await.unwrap();
    go(&daemon, "go").await;
    let (first, second) = tokio::join!(early.frames(), second.frames());
    let late = daemon.client().upgrade(&path, &[VERSION]).await.unwrap().frames().await;
    for (frames, code) in [first, second, late] {
        assert_eq!(split(&frames), (b"early\nlate\n".to_vec(), b"warn\n".to_vec()));
        assert_eq!(code, 1000);
    }
}

#[tokio::test]
async fn without_follow_a_socket_gets_what_is_there() {
    let daemon = Daemon::start().await;
    make_fifo(&daemon.work().join("go"));
    make_fifo(&daemon.work().join("ready"));
    let path = start(&daemon, "echo here; : > ready; cat go").await;
    go_read(&daemon, "ready").await;
    let (frames, code) = within(async {
        loop {
            let (frames, code) = daemon.client().upgrade(&path, &[VERSION]).await.unwrap().frames().await;
            if !frames.is_empty() {
                break (frames, code); // the bytes were written before `ready`, and may be on their way
            }
        }
    })
    .await;
    assert_eq!((split(&frames).0, code), (b"here\n".to_vec(), 1000));
    go(&daemon, "go").await;
}

async fn go_read(daemon: &Daemon, name: &str) {
    let path = daemon.work().join(name);
    tokio::task::spawn_blocking(move || std::fs::read(path)).await.unwrap().unwrap();
}

#[tokio::test]
async fn each_generation_of_clients_gets_its_frames() {
    let daemon = Daemon::start().await;
    let path = start(&daemon, "echo text").await + "?follow=true";
    for (headers, expected) in [
        (vec![VERSION], &b"\x01\x01\x01text\n"[..]),
        (vec![("sec-websocket-protocol", "X-Daytona-SDK-Version~0.205.0")], b"\x01\x01\x01text\n"),
        (vec![("x-daytona-sdk-version", "0.100.0")], b"\x01\x01\x01text\n"),
        (vec![("x-daytona-sdk-version", "0.26.0")], b"text\n"),
        (vec![("user-agent", "okhttp/4.12.0")], b"\x01\x01\x01text\n"),
        (vec![("x-daytona-split-output", "true")], b"\x01\x01\x01text\n"),
        (vec![], b"text\n"),
    ] {
        let (frames, code) = daemon.client().upgrade(&path, &headers).await.unwrap().frames().await;
        assert_eq!((frames.concat(), code), (expected.to_vec(), 1000), "{headers:?}");
    }
    let offer = [("sec-websocket-protocol", "X-Daytona-SDK-Version~0.205.0")];
    let socket = daemon.client().upgrade(&path, &offer).await.unwrap();
    assert_eq!(socket.protocol(), Some("X-Daytona-SDK-Version~0.205.0"));
}

#[tokio::test]
async fn characters_are_not_cut_between_frames() {
    let daemon = Daemon::start().await;
    make_fifo(&daemon.work().join("go"));
    let path = start(&daemon, r"printf 'a\344\270'; cat go; printf '\226b'").await + "?follow=true";
    let mut socket = daemon.client().upgrade(&path, &[VERSION]).await.unwrap();
    assert_eq!(socket.next().await, Ok(Message::binary("\u{1}\u{1}\u{1}a")));
    go(&daemon, "go").await;
    assert_eq!(socket.next().await, Ok(Message::binary("\u{1}\u{1}\u{1}世b")));
}

#[tokio::test]
async fn deleting_a_session_ends_its_streams() {
    let daemon = Daemon::start().await;
    let path = start(&daemon, "echo x; sleep 1000").await + "?follow=true";
    let mut socket = daemon.client().upgrade(&path, &[VERSION]).await.unwrap();
    assert_eq!(socket.next().await, Ok(Message::binary("\u{1}\u{1}\u{1}x\n")));
    daemon.client().delete("/process/session/s").ok().await;
    assert_eq!(socket.frames().await, (vec![], 1000));
}

#[tokio::test]
async fn a_stopping_daemon_ends_streams_with_a_close() {
    let mut daemon = Daemon::start().await;
    let path = start(&daemon, "echo x; sleep 1000").await + "?follow=true";
    let mut socket = daemon.client().upgrade(&path, &[VERSION]).await.unwrap();
    assert_eq!(socket.next().await, Ok(Message::binary("\u{1}\u{1}\u{1}x\n")));
    daemon.signal("TERM").await;
    let (_, code) = socket.frames().await;
    assert!(code == 1000 || code == 1001, "{code}");
    assert_eq!(daemon.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_stopped_reader_stalls_nobody_else() {
    let daemon = Daemon::start().await;
    let path = start(&daemon, "head -c 20000000 /dev/zero | tr '\\0' x").await + "?follow=true";
    let stalled = daemon.client().upgrade(&path, &[VERSION]).await.unwrap(); // reads nothing
    let (frames, code) = daemon.client().upgrade(&path, &[VERSION]).await.unwrap().frames().await;
    assert_eq!((split(&frames).0.len(), code), (20_000_000, 1000));
    assert_eq!(split(&stalled.frames().await.0).0.len(), 20_000_000);
}

/// What a client that can resume has got.
#[derive(Default)]
struct Resumed {
    out: Vec<u8>,
    err: Vec<u8>,
    offset: u64,
    exit: Option<Value>,
}

impl Resumed {
    /// Reads `messages` binary frames and the positions behind them, then drops the connection.
    async fn read(&mut self, daemon: &Daemon, path: &str, messages: usize) {
        let path = format!("{path}?follow=true&offset={}", self.offset);
        let mut socket = daemon.client().upgrade(&path, &[VERSION]).await.unwrap();
        assert_eq!(socket.headers["x-log-offset"].to_str().unwrap(), self.offset.to_string());
        let (mut frames, mut unconfirmed) = (0, Vec::new());
        while frames < messages {
            match socket.next().await {
                Ok(Message::Binary(bytes)) => unconfirmed.push(bytes.to_vec()),
                Ok(Message::Text(text)) => {
                    let control: Value = serde_json::from_str(&text).unwrap();
                    match control["type"].as_str().unwrap() {
                        "position" => {
                            let (out, err) = split(&std::mem::take(&mut unconfirmed));
                            self.out.extend(out);
                            self.err.extend(err);
                            self.offset = control["offset"].as_u64().unwrap();
                            frames += 1;
                        }
                        "exit" => self.exit = Some(control["exitCode"].clone()),
                        other => panic!("{other}"),
                    }
                }
                Err(code) => return assert_eq!(code, 1000),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a program that writes at the test's word has written.
struct Program {
    socket: UnixStream,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Program {
    /// Starts a command that copies to its two streams what it is told over a socket of the test's.
    async fn start(daemon: &Daemon) -> (Self, String) {
        let listener = std::os::unix::net::UnixListener::bind(daemon.work().join("socket")).unwrap();
        let script = "import socket, os\n\
            s = socket.socket(socket.AF_UNIX); s.connect('socket'); f = s.makefile('rb')\n\
            while True:\n    head = f.read(5)\n    if not head: break\n    data = f.read(int.from_bytes(head[1:], 'big'))\n    \
            while data: data = data[os.write(head[0], data):]\n    s.send(b'k')";
        std::fs::write(daemon.work().join("program.py"), script).unwrap();
        let path = start(daemon, "python3 program.py; (exit 7)").await;
        let socket = tokio::task::spawn_blocking(move || listener.accept().unwrap().0).await.unwrap();
        (Self { socket, out: Vec::new(), err: Vec::new() }, path)
    }

    fn write(&mut self, is_err: bool, bytes: &[u8]) {
        let mut told = vec![if is_err { 2 } else { 1 }];
        told.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        told.extend(bytes);
        self.socket.write_all(&told).unwrap();
        let mut done = [0];
        std::io::Read::read_exact(&mut self.socket, &mut done).unwrap();
        if is_err { self.err.extend(bytes) } else { self.out.extend(bytes) }
    }
}

/// The stream without its notices, and what those said was dropped.
fn without_notices(mut bytes: Vec<u8>) -> (Vec<u8>, usize) {
    let (begin, end) = (b"\n[toolboxd: ", b" bytes of output were dropped here]\n");
    let mut dropped = 0;
    while let Some(at) = bytes.windows(begin.len()).position(|window| window == begin) {
        let rest = &bytes[at + begin.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        dropped += std::str::from_utf8(&rest[..digits]).unwrap().parse::<usize>().unwrap();
        assert!(rest[digits..].starts_with(end));
        bytes.drain(at..at + begin.len() + digits + end.len());
    }
    (bytes, dropped)
}

/// `part` is `whole` with at most one piece missing from it.
fn is_whole_but_for_a_gap(part: &[u8], whole: &[u8]) -> bool {
    let head = part.iter().zip(whole).take_while(|(a, b)| a == b).count();
    whole.len() >= part.len() && whole.ends_with(&part[head..])
}

#[test]
fn clients_that_attach_detach_and_resume_at_random_lose_nothing_but_what_they_are_told() {
    let writes = prop::collection::vec((any::<bool>(), prop_oneof![1_usize..50, 1_usize..100_000]), 1..40);
    let clients = prop::collection::vec((0_usize..40, prop::collection::vec(1_usize..4, 0..4)), 1..4);
    let spills = prop_oneof![Just("1MiB"), Just("64MiB")];
    let mut runner = TestRunner::new(Config::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for round in 0..12 {
        let (writes, clients, spill) =
            (writes.clone(), clients.clone(), spills.clone()).new_tree(&mut runner).unwrap().current();
        println!("round {round}: {spill}, {writes:?}, {clients:?}");
        runtime.block_on(one_round(&writes, &clients, spill));
    }
}

/// `clients`: after which write each attaches, and how many frames it reads over each of its connections.
async fn one_round(writes: &[(bool, usize)], clients: &[(usize, Vec<usize>)], spill: &str) {
    let daemon = Daemon::start_with(|command| {
        command.args(["--max-output", spill]);
    })
    .await;
    let (mut program, path) = Program::start(&daemon).await;
    let mut readers: Vec<Resumed> = clients.iter().map(|_| Resumed::default()).collect();
    let mut state = 1_u64;
    for (index, (is_err, size)) in writes.iter().enumerate() {
        let bytes: Vec<u8> = (0..*size)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8 | 4 // never a marker
            })
            .collect();
        program.write(*is_err, &bytes);
        for (reader, (after, connections)) in readers.iter_mut().zip(clients) {
            // A connection in the middle, for a client that has something to read for certain.
            if index == *after && reader.offset == 0 {
                for frames in connections.iter().take(1) {
                    reader.read(&daemon, &path, (*frames).min(1)).await;
                }
            }
        }
    }
    program.socket.shutdown(std::net::Shutdown::Both).unwrap();
    let written = program.out.len() + program.err.len();
    for (reader, (_, connections)) in readers.iter_mut().zip(clients) {
        for frames in connections {
            reader.read(&daemon, &path, *frames).await;
        }
        reader.read(&daemon, &path, usize::MAX).await;
        assert_eq!(reader.exit, Some(json!(7)));
        assert_eq!(reader.offset, written as u64);
        let (out, dropped_out) = without_notices(std::mem::take(&mut reader.out));
        let (err, dropped_err) = without_notices(std::mem::take(&mut reader.err));
        assert_eq!(out.len() + err.len() + dropped_out + dropped_err, written);
        if dropped_out + dropped_err == 0 {
            assert!(out == program.out && err == program.err);
        }
        assert!(is_whole_but_for_a_gap(&out, &program.out) && is_whole_but_for_a_gap(&err, &program.err));
    }
}

#[tokio::test]
async fn the_entrypoint_is_a_session_with_a_log() {
    let daemon = Daemon::start_with(|command| {
        command.args(["sh", "-c", "echo out; echo err >&2; exit 4", "it's"]);
    })
    .await;
    let client = daemon.client();
    let path = "/process/session/entrypoint/logs?follow=true";
    let (frames, code) = daemon.client().upgrade(path, &[VERSION]).await.unwrap().frames().await;
    assert_eq!((split(&frames), code), ((b"out\n".to_vec(), b"err\n".to_vec()), 1000));
    // The stream ends with the last byte; the exit follows.
    let session = within(async {
        loop {
            let session = client.get("/process/session/entrypoint").ok().await.json();
            if session["commands"][0]["exitCode"].is_number() {
                break session;
            }
        }
    })
    .await;
    let command = json!({"id": "entrypoint_command", "exitCode": 4,
        "command": "'sh' '-c' 'echo out; echo err >&2; exit 4' 'it'\\''s'"});
    assert_eq!(session, json!({"sessionId": "entrypoint", "commands": [command]}));
    // Without a version it is text, and never stripped.
    let logs = client.get("/process/session/entrypoint/command/entrypoint_command/logs").ok().await.text();
    assert!(logs.contains("\u{1}\u{1}\u{1}out\n") && logs.contains("\u{2}\u{2}\u{2}err\n"), "{logs:?}");
    assert_eq!(client.get("/process/session").ok().await.json(), json!([]));
    let exec = client.post("/process/session/entrypoint/exec").json(json!({"command": "true"}));
    exec.fails(400, "BAD_REQUEST").await;
    client.delete("/process/session/entrypoint").fails(400, "BAD_REQUEST").await;
    let input = client.post("/process/session/entrypoint/command/entrypoint_command/input");
    input.json(json!({"data": "x"})).fails(400, "BAD_REQUEST").await;
}

#[tokio::test]
async fn without_arguments_the_entrypoint_is_idle() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let session = client.get("/process/session/entrypoint").ok().await.json();
    let command = json!({"id": "entrypoint_command", "command": "", "exitCode": 0});
    assert_eq!(session, json!({"sessionId": "entrypoint", "commands": [command]}));
    let logs = client.get("/process/session/entrypoint/logs").header(VERSION.0, VERSION.1).ok().await.json();
    assert_eq!(logs, json!({"output": "", "stdout": "", "stderr": ""}));
    let path = "/process/session/entrypoint/logs?follow=true";
    assert_eq!(daemon.client().upgrade(path, &[VERSION]).await.unwrap().frames().await, (vec![], 1000));
}

#[tokio::test]
async fn the_entrypoints_log_can_be_printed() {
    let daemon = Daemon::start_as_pid_1(|command| {
        command.args(["sh", "-c", "echo out; echo err >&2; exec sleep 0.2"]);
    })
    .await;
    let print = async |address: &str, more: &[&str]| {
        let mut command = tokio::process::Command::new(program());
        command.env("TOOLBOXD_LISTEN", address).args(more).args(["entrypoint", "logs"]);
        within(command.output()).await.unwrap()
    };
    let output = print(&daemon.address.to_string(), &[]).await;
    assert_eq!(
        (&output.stdout[..], &output.stderr[..], output.status.code()),
        (&b"out\n"[..], &b"err\n"[..], Some(0))
    );
    let output = print("127.0.0.1:1", &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("127.0.0.1:1"));
}

#[tokio::test]
async fn an_entrypoint_that_cannot_be_started_ends_the_daemon() {
    let command = &mut tokio::process::Command::new(program());
    let output =
        within(command.args(["--listen", "127.0.0.1:0", "/no/such/program"]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("/no/such/program: no such file or directory")
    );
}
