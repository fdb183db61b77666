//! Completions through the daemon, beside the same server spoken to directly.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, Row, exchange, millis, percentile, post};

/// Answers at once, so that what is measured is the way there and back.
const SCRIPTED: &str = include_str!("../../tests/it/support/language_server.py");
/// Where the tests install a real server.
const PYLSP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.venv/bin/pylsp");
const TEXT: &str = "import json\njson.\n";

pub(crate) fn lsp(directory: &Path) -> Vec<Row> {
    let script = directory.join("server.py");
    fs::write(&script, SCRIPTED).unwrap();
    let scripted = ["python3".to_owned(), script.display().to_string(), "/dev/null".to_owned()];
    let mut rows = vec![row("completion by a server that answers at once, p50", directory, &scripted, 500)];
    if Path::new(PYLSP).exists() {
        rows.push(row("completion by pylsp, p50", directory, &[PYLSP.to_owned()], 100));
    }
    rows
}

fn row(what: &'static str, directory: &Path, command: &[String], count: usize) -> Row {
    let file = directory.join("sample.py");
    fs::write(&file, TEXT).unwrap();
    let servers = directory.join("servers.json");
    fs::write(&servers, json!({"python": command}).to_string()).unwrap();
    let daemon = Daemon::start_with(directory, |command| {
        command.arg("--language-servers").arg(&servers);
    });
    let mut stream = daemon.connect();
    let project = json!({"languageId": "python", "pathToProject": directory});
    exchange(&mut stream, &post("/lsp/start", &project));
    let mut about = project;
    about["uri"] = json!(format!("file://{}", file.display()));
    exchange(&mut stream, &post("/lsp/did-open", &about));
    about["position"] = json!({"line": 1, "character": 5});
    let request = post("/lsp/completions", &about);
    let mut direct = Direct::start(command, directory, &file);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..count + 10 {
        let began = Instant::now();
        exchange(&mut stream, &request);
        let through = began.elapsed();
        let began = Instant::now();
        direct.complete();
        // The first are slow, each for reasons of its own.
        if round >= 10 {
            ours.push(through);
            theirs.push(began.elapsed());
        }
    }
    let (ours, theirs): (Duration, Duration) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
    let added = (ours.as_secs_f64() - theirs.as_secs_f64()) * 1e3;
    Row {
        what,
        ours: millis(ours),
        theirs: format!("directly {}", millis(theirs)),
        ratio: format!("{added:+.2} ms"),
        target: "≤ +1 ms",
    }
}

/// The same server without a daemon.
struct Direct {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    file: Value,
    asked: u64,
}

impl Direct {
    fn start(command: &[String], directory: &Path, file: &Path) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let file = json!({"uri": format!("file://{}", file.display())});
        let mut direct = Self { child, stdin, stdout, file, asked: 0 };
        let root = format!("file://{}", directory.display());
        direct.ask("initialize", &json!({"processId": null, "rootUri": root, "capabilities": {}}));
        direct.say(&json!({"jsonrpc": "2.0", "method": "initialized", "params": {}}));
        let mut document = direct.file.clone();
        document["languageId"] = json!("python");
        document["version"] = json!(1);
        document["text"] = json!(TEXT);
        let params = json!({"textDocument": document});
        direct.say(&json!({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": params}));
        direct
    }

    fn complete(&mut self) {
        let params = json!({"textDocument": self.file, "position": {"line": 1, "character": 5}});
        self.ask("textDocument/completion", &params);
    }

    fn ask(&mut self, method: &str, params: &Value) {
        self.asked += 1;
        self.say(&json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}));
        loop {
            let message = self.next();
            if message["id"] == self.asked && message.get("method").is_none() {
                return;
            }
        }
    }

    fn say(&mut self, message: &Value) {
        let body = message.to_string();
        let framed = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.stdin.write_all(framed.as_bytes()).unwrap();
    }

    fn next(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).unwrap();
            match line.trim().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.stdout.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
