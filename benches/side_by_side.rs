//! Side-by-side measurements: each row is toolboxd and the thing it is compared with, in the same run on the same
//! machine. Ratios count; absolute numbers only show the order.
//!
//! Names of rows as arguments choose rows; without any, all are measured.

#![expect(clippy::unwrap_used, reason = "a measurement that fails panics")]
#![expect(clippy::disallowed_methods, reason = "starts the programs that are compared")]
#![expect(clippy::print_stdout, reason = "prints a table")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

const MIB: usize = 1024 * 1024;
/// Size of the file that is moved.
const FILE: usize = 2048 * MIB;
/// Files of the tree that is searched.
const FILES: usize = 40_000;
const PROGRAM: &str = env!("CARGO_BIN_EXE_toolboxd");

/// A row of the table.
struct Row {
    what: &'static str,
    ours: String,
    theirs: String,
    ratio: String,
    target: &'static str,
}

/// Measures in a directory of its own.
type Measure = fn(&Path) -> Vec<Row>;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let rows: &[(&str, Measure)] = &[
        ("start", start),
        ("execute", execute),
        ("session", session),
        ("stream", stream),
        ("upload", upload),
        ("download", download),
        ("find", find),
    ];
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("side_by_side");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    println!("| what | toolboxd | compared with | ratio | target |\n|---|---|---|---|---|");
    for (name, measure) in
        rows.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|row| row == name))
    {
        let directory = directory.join(name);
        fs::create_dir(&directory).unwrap();
        for Row { what, ours, theirs, ratio, target } in measure(&directory) {
            println!("| {what} | {ours} | {theirs} | {ratio} | {target} |");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}

/// A daemon in a directory of its own.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["--listen", "127.0.0.1:0", "--log-level", "error"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdout, mut text) = (child.stdout.take().unwrap(), Vec::new());
        let address = loop {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            text.extend(byte);
            let line = String::from_utf8_lossy(&text);
            if let Some((_, address)) = line.split_once("ready on http://").filter(|_| byte == *b"\n") {
                break address.trim().to_owned();
            }
        };
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A number of `/proc/<pid>/status`, in bytes.
    fn memory(&self, field: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a reply's head; gives it with what came of the body.
fn head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).unwrap(), body);
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&bytes));
        bytes.extend(&buffer[..count]);
    }
}

/// One request and its whole reply, which has a length.
fn exchange(stream: &mut TcpStream, request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).unwrap();
    let (head, mut body) = head(stream);
    let length: usize =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let begun = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[begun..]).unwrap();
    assert!(head.starts_with("HTTP/1.1 2"), "{head}{}", String::from_utf8_lossy(&body));
    body
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * percent / 100]
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

fn rate(bytes: usize, duration: Duration) -> f64 {
    bytes as f64 / MIB as f64 / duration.as_secs_f64()
}

fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}", ours / theirs)
}

fn start(directory: &Path) -> Vec<Row> {
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            // On a port that is known before, so that nothing but the daemon's own readiness is waited for.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let began = Instant::now();
            let mut child = Command::new(PROGRAM)
                .args(["--listen", &address.to_string(), "--log-level", "error"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut stream = loop {
                if let Ok(stream) = TcpStream::connect(address) {
                    break stream;
                }
            };
            exchange(&mut stream, "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let time = began.elapsed();
            child.kill().unwrap();
            child.wait().unwrap();
            time
        })
        .collect();
    let mut bare: Vec<Duration> = (0..20)
        .map(|_| {
            let began = Instant::now();
            Command::new("/bin/true").status().unwrap();
            began.elapsed()
        })
        .collect();
    let daemon = Daemon::start(directory);
    let idle = daemon.memory("VmRSS");
    let row = |what, ours, target| Row { what, ours, theirs: "-".into(), ratio: "-".into(), target };
    vec![
        Row {
            what: "start to first answer, p50",
            ours: millis(percentile(&mut times, 50)),
            theirs: format!("/bin/true {}", millis(percentile(&mut bare, 50))),
            ratio: "-".into(),
            target: "≤ 5 ms",
        },
        row("idle memory", format!("{:.1} MiB", idle as f64 / MIB as f64), "≤ 6 MiB"),
        row("binary", format!("{:.1} MB", fs::metadata(PROGRAM).unwrap().len() as f64 / 1e6), "≤ 15 MB"),
    ]
}

fn execute(directory: &Path) -> Vec<Row> {
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

/// A request with a JSON body.
fn post(path: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The shell that the daemon uses, with a session in it.
fn create_session(stream: &mut TcpStream) -> String {
    exchange(stream, &post("/process/session", &json!({"sessionId": "s"})));
    let reply = exchange(stream, &post("/process/session/s/exec", &json!({"command": "printf %s $0"})));
    let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    reply["output"].as_str().unwrap().to_owned()
}

fn session(directory: &Path) -> Vec<Row> {
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

fn stream(directory: &Path) -> Vec<Row> {
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

/// Moves `FILE` bytes through a bare loopback connection.
fn loopback(write: impl Fn(&mut TcpStream) + Send + 'static) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let began = Instant::now();
    let writer = std::thread::spawn(move || write(&mut TcpStream::connect(address).unwrap()));
    let (mut stream, mut buffer, mut read) = (listener.accept().unwrap().0, vec![0; MIB], 0);
    while let count @ 1.. = stream.read(&mut buffer).unwrap() {
        read += count;
    }
    writer.join().unwrap();
    assert_eq!(read, FILE);
    began.elapsed()
}

fn write_zeros(stream: &mut impl Write) {
    let zeros = vec![0; MIB];
    (0..FILE / MIB).for_each(|_| stream.write_all(&zeros).unwrap());
}

fn upload(directory: &Path) -> Vec<Row> {
    let daemon = Daemon::start(directory);
    let idle = daemon.memory("VmHWM");
    // As durable as an upload: what was written is on the disk when the time is taken.
    let plain = |path: PathBuf| {
        let began = Instant::now();
        let mut file = File::create(&path).unwrap();
        write_zeros(&mut file);
        file.sync_all().unwrap();
        let time = began.elapsed();
        fs::remove_file(path).unwrap();
        time
    };
    let ours = || {
        let began = Instant::now();
        let mut stream = daemon.connect();
        let head = format!(
            "POST /files/upload-v2?path=up HTTP/1.1\r\nHost: localhost\r\nContent-Length: {FILE}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        write_zeros(&mut stream);
        let (head, _) = self::head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let time = began.elapsed();
        fs::remove_file(directory.join("up")).unwrap();
        time
    };
    let mut pairs: Vec<(Duration, Duration)> =
        (0..3).map(|_| (plain(directory.join("plain")), ours())).collect();
    pairs.sort_unstable_by_key(|(theirs, ours)| ours.as_nanos() * 1000 / theirs.as_nanos());
    let (theirs, ours) = pairs[1];
    vec![
        Row {
            what: "upload of 2 GiB, synced",
            ours: format!("{:.0} MiB/s", rate(FILE, ours)),
            theirs: format!("write and fsync {:.0} MiB/s", rate(FILE, theirs)),
            ratio: ratio(rate(FILE, ours), rate(FILE, theirs)),
            target: "≥ 0.80",
        },
        memory_row("memory above idle while uploading", daemon.memory("VmHWM") - idle),
    ]
}

fn memory_row(what: &'static str, grown: usize) -> Row {
    let ours = format!("{:.1} MiB", grown as f64 / MIB as f64);
    Row { what, ours, theirs: "-".into(), ratio: "-".into(), target: "≤ 16 MiB" }
}

fn download(directory: &Path) -> Vec<Row> {
    let daemon = Daemon::start(directory);
    let idle = daemon.memory("VmHWM");
    let path = directory.join("down");
    write_zeros(&mut File::create(&path).unwrap());
    let ours = || {
        let began = Instant::now();
        let mut stream = daemon.connect();
        stream.write_all(b"GET /files/download?path=down HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let (_, begun) = head(&mut stream);
        let (mut read, mut buffer) = (begun.len(), vec![0; MIB]);
        while read < FILE {
            read += stream.read(&mut buffer).unwrap();
        }
        began.elapsed()
    };
    let theirs = || {
        let path = path.clone();
        loopback(move |stream| {
            let (mut file, mut buffer) = (File::open(&path).unwrap(), vec![0; MIB]);
            while let count @ 1.. = file.read(&mut buffer).unwrap() {
                stream.write_all(&buffer[..count]).unwrap();
            }
        })
    };
    let mut pairs: Vec<(Duration, Duration)> = (0..5).map(|_| (theirs(), ours())).collect();
    pairs.sort_unstable_by_key(|(theirs, ours)| ours.as_nanos() * 1000 / theirs.as_nanos());
    let (theirs, ours) = pairs[2];
    vec![
        Row {
            what: "download of 2 GiB",
            ours: format!("{:.0} MiB/s", rate(FILE, ours)),
            theirs: format!("read and loopback {:.0} MiB/s", rate(FILE, theirs)),
            ratio: ratio(rate(FILE, ours), rate(FILE, theirs)),
            target: "≥ 800 MiB/s",
        },
        memory_row("memory above idle while downloading", daemon.memory("VmHWM") - idle),
    ]
}

/// Words of no meaning, the same in every run.
fn text(seed: usize, lines: usize) -> String {
    let mut state = seed as u64 * 2_654_435_761 + 1;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:x} ", state >> 40)
    };
    (0..lines).map(|_| (0..8).map(|_| word()).collect::<String>() + "\n").collect()
}

fn find(directory: &Path) -> Vec<Row> {
    let tree = directory.join("tree");
    for index in 0..FILES {
        let folder = tree.join(format!("d{}/e{}", index % 40, index / 40 % 25));
        fs::create_dir_all(&folder).unwrap();
        let mut content = text(index, 120);
        if index % 97 == 0 {
            content.insert_str(content.len() / 2, "the needle is here\n");
        }
        fs::write(folder.join(format!("f{index}.txt")), content).unwrap();
    }
    let daemon = Daemon::start(directory);
    let ours = || {
        let began = Instant::now();
        let mut stream = daemon.connect();
        stream
            .write_all(b"GET /files/find?path=tree&pattern=needle HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        (reply.matches("\"line\":").count(), began.elapsed())
    };
    let theirs = || {
        let began = Instant::now();
        let arguments = ["-F", "--no-ignore", "--hidden", "-j2", "-n", "needle"];
        let output = Command::new("rg").args(arguments).arg(&tree).output();
        let output = output.expect("ripgrep is needed for this row");
        (output.stdout.iter().filter(|byte| **byte == b'\n').count(), began.elapsed())
    };
    assert_eq!(ours().0, theirs().0, "both find the same"); // and the cache is warm now
    let mut pairs: Vec<(Duration, Duration)> = (0..7).map(|_| (theirs().1, ours().1)).collect();
    pairs.sort_unstable_by_key(|(theirs, ours)| ours.as_nanos() * 1000 / theirs.as_nanos());
    let (theirs, ours) = pairs[3];
    vec![Row {
        what: "find in 40,000 files",
        ours: millis(ours),
        theirs: format!("rg -F -j2 {}", millis(theirs)),
        ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
        target: "≤ 1.20",
    }]
}
