//! Programs, and runs of the interpreter.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{Daemon, MIB, Row, exchange, millis, percentile, post, rate, ratio};

/// A trivial program, and the interpreter itself on the same.
pub(crate) fn code_run(directory: &Path) -> Vec<Row> {
    const ROUNDS: usize = 100;
    let daemon = Daemon::start(directory);
    let mut stream = daemon.connect();
    let mut rows = Vec::new();
    for (language, code, theirs, what) in [
        ("python", "pass", ["python3", "-c", "pass"], "code-run python, p50"),
        ("javascript", "0", ["node", "-e", "0"], "code-run javascript, p50"),
    ] {
        let request = post("/process/code-run", &json!({"language": language, "code": code}));
        exchange(&mut stream, &request); // a version may be asked for once
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            // In turns, so that what else the machine does hits both alike.
            let began = Instant::now();
            exchange(&mut stream, &request);
            ours.push(began.elapsed());
            let began = Instant::now();
            let output = Command::new(theirs[0]).args(&theirs[1..]).stdin(Stdio::null()).output();
            assert!(output.unwrap().status.success());
            bare.push(began.elapsed());
        }
        let (ours, bare) = (percentile(&mut ours, 50), percentile(&mut bare, 50));
        rows.push(Row {
            what,
            ours: millis(ours),
            theirs: format!("{} {} {}", theirs[0], theirs[1], millis(bare)),
            ratio: ratio(ours.as_secs_f64(), bare.as_secs_f64()),
            target: "≤ 1.3",
        });
    }
    rows
}

/// One run from connecting to its last frame; how many bytes it printed.
fn run(daemon: &Daemon, code: &str) -> usize {
    let request = format!("ws://{}/process/interpreter/execute", daemon.address);
    let (mut socket, _) = tungstenite::client(request, daemon.connect()).unwrap();
    socket.send(Message::text(json!({"code": code}).to_string())).unwrap();
    let mut bytes = 0;
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str().unwrap() {
                    "control" => return bytes,
                    "error" => panic!("{frame}"),
                    _ => bytes += frame["text"].as_str().unwrap().len(),
                }
            }
            Message::Close(close) => panic!("{close:?}"),
            _ => {}
        }
    }
}

/// Runs in a context whose process is there.
pub(crate) fn interpreter(directory: &Path) -> Vec<Row> {
    const ROUNDS: usize = 1000;
    const LINES: usize = 2000;
    /// With its line break.
    const LINE: usize = 64 * 1024;
    let daemon = Daemon::start(directory);
    let began = Instant::now();
    run(&daemon, "pass");
    let first = began.elapsed();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            run(&daemon, "1 + 1");
            began.elapsed()
        })
        .collect();
    let print = format!("line = 'x' * {}\nfor _ in range({LINES}): print(line)", LINE - 1);
    let began = Instant::now();
    assert_eq!(run(&daemon, &print), LINES * LINE);
    let ours = rate(LINES * LINE, began.elapsed());
    let began = Instant::now();
    let mut child = Command::new("python3").args(["-c", &print]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut buffer, mut output) = (vec![0; MIB], child.stdout.take().unwrap());
    let mut read = 0;
    loop {
        match output.read(&mut buffer).unwrap() {
            0 => break,
            count => read += count,
        }
    }
    assert!(child.wait().unwrap().success() && read == LINES * LINE);
    let theirs = rate(read, began.elapsed());
    let row =
        |what, time, target| Row { what, ours: millis(time), theirs: "-".into(), ratio: "-".into(), target };
    vec![
        row("first run in the default context", first, "-"),
        row("trivial run in a warm context, p50", percentile(&mut times, 50), "≤ 3 ms"),
        row("trivial run in a warm context, p99", percentile(&mut times, 99), "-"),
        Row {
            what: "output of the interpreter",
            ours: format!("{ours:.0} MiB/s"),
            theirs: format!("python3 into a pipe {theirs:.0} MiB/s"),
            ratio: ratio(ours, theirs),
            target: "-",
        },
    ]
}
