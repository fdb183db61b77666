//! Terminals beside a bare pseudo-terminal of the kernel's.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::pty::OpenptFlags;
use serde_json::json;
use tungstenite::{Message, WebSocket};

use crate::support::{Daemon, MIB, Row, exchange, millis, percentile, post, rate, ratio};

/// Bytes that are shown.
const SHOWN: usize = 256 * MIB;
/// Keys that are pressed.
const KEYS: usize = 2000;
/// Terminals that nobody uses.
const IDLE: usize = 100;

/// A terminal without a daemon, with a program that runs `script`.
fn bare(directory: &Path, script: &str) -> (File, Child) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    let slave = || OwnedFd::try_clone(&slave).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(directory);
    let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    (File::from(master), child)
}

/// The same with one.
fn served(daemon: &Daemon, id: &str, script: &str) -> WebSocket<TcpStream> {
    let body = json!({"id": id, "command": ["sh", "-c", script]});
    exchange(&mut daemon.connect(), &post("/process/pty", &body));
    let url = format!("ws://{}/process/pty/{id}/connect", daemon.address);
    let mut socket = tungstenite::client(url, daemon.connect()).unwrap().0;
    assert!(matches!(socket.read().unwrap(), Message::Text(_)));
    socket
}

pub(crate) fn pty(directory: &Path) -> Vec<Row> {
    let daemon = Daemon::start(directory);
    let mut rows = vec![throughput(directory, &daemon)];
    rows.extend(echo(directory, &daemon));
    drop(daemon);
    rows.push(memory(directory));
    rows
}

fn throughput(directory: &Path, daemon: &Daemon) -> Row {
    fs::write(directory.join("shown"), vec![b'x'; SHOWN]).unwrap();
    // Both wait until their readers are there; several rounds, as the kernel's part varies.
    let script = "stty -opost -echo; echo; read go; cat shown; read end";
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for round in 0..3 {
        let (mut master, mut child) = bare(directory, script);
        let mut buffer = vec![0; 64 * 1024];
        assert_eq!(master.read(&mut buffer).unwrap(), 1);
        let began = Instant::now();
        master.write_all(b"\n").unwrap();
        let mut left = SHOWN;
        while left > 0 {
            left -= master.read(&mut buffer).unwrap();
        }
        theirs = theirs.min(began.elapsed());
        master.write_all(b"\n").unwrap();
        child.wait().unwrap();

        let mut socket = served(daemon, &format!("round {round}").replace(' ', "-"), script);
        assert_eq!(socket.read().unwrap().into_data().len(), 1);
        let began = Instant::now();
        socket.send(Message::Binary("\n".into())).unwrap();
        let mut left = SHOWN;
        while left > 0 {
            left -= socket.read().unwrap().into_data().len();
        }
        ours = ours.min(began.elapsed());
        socket.send(Message::Binary("\n".into())).unwrap();
    }
    Row {
        what: "terminal to WebSocket",
        ours: format!("{:.0} MiB/s", rate(SHOWN, ours)),
        theirs: format!("bare pty {:.0} MiB/s", rate(SHOWN, theirs)),
        ratio: ratio(rate(SHOWN, ours), rate(SHOWN, theirs)),
        target: "≥ 0.85",
    }
}

fn echo(directory: &Path, daemon: &Daemon) -> [Row; 2] {
    let script = "stty -icanon; exec cat > /dev/null";
    let (mut master, mut child) = bare(directory, script);
    let mut socket = served(daemon, "echo", script);
    let mut ours: Vec<Duration> = (0..KEYS)
        .map(|_| {
            let began = Instant::now();
            socket.send(Message::Binary("x".into())).unwrap();
            while !matches!(socket.read().unwrap(), Message::Binary(_)) {}
            began.elapsed()
        })
        .collect();
    let mut theirs: Vec<Duration> = (0..KEYS)
        .map(|_| {
            let began = Instant::now();
            master.write_all(b"x").unwrap();
            master.read_exact(&mut [0]).unwrap();
            began.elapsed()
        })
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut row = |what, percent, target| {
        let (ours, theirs) = (percentile(&mut ours, percent), percentile(&mut theirs, percent));
        let ratio = "-".into();
        Row { what, ours: millis(ours), theirs: format!("bare pty {}", millis(theirs)), ratio, target }
    };
    [row("key pressed to echo shown, p50", 50, "≤ 1 ms"), row("key pressed to echo shown, p99", 99, "≤ 5 ms")]
}

fn memory(directory: &Path) -> Row {
    let daemon = Daemon::start(directory);
    served(&daemon, "first", "exec cat"); // what is allocated once
    let before = daemon.memory("VmRSS");
    let sockets: Vec<_> =
        (0..IDLE).map(|index| served(&daemon, &format!("idle-{index}"), "exec cat")).collect();
    let grown = daemon.memory("VmRSS").saturating_sub(before);
    drop(sockets);
    Row {
        what: "memory of 100 idle terminals, each with a client",
        ours: format!("{:.1} MiB", grown as f64 / MIB as f64),
        theirs: "-".into(),
        ratio: "-".into(),
        target: "≤ 16 MiB",
    }
}
