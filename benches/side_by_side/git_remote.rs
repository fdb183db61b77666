//! Clones of a large repository beside the `git` program: from a path, a file URL, and over HTTP from git's own server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::json;

use crate::support::{Daemon, MIB, Row, exchange, in_memory, millis, percentile, post, ratio};

/// Of the repository.
const FILES: usize = 50_000;
const COMMITS: usize = 2_000;
/// Clones of each kind.
const ROUNDS: usize = 5;
const TARGET: &str = "≤ 1.5";

pub(crate) fn clone(directory: &Path) -> Vec<Row> {
    let directory = in_memory(directory);
    let directory = directory.path();
    let source = generate(directory);
    let address = serve(directory.to_owned());
    let daemon = Daemon::start(directory);
    let idle = daemon.memory("VmRSS");
    let mut rows = Vec::new();
    for (what, url) in [
        ("clone of 50,000 files, HTTP", format!("http://{address}/source.git")),
        ("clone of 50,000 files, file URL", format!("file://{}", source.display())),
        ("clone of 50,000 files, path", source.display().to_string()),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(timed(directory, |target| {
                let body = json!({"url": url, "path": target});
                exchange(&mut daemon.connect(), &post("/git/clone", &body));
            }));
            theirs.push(timed(directory, |target| {
                let arguments = ["clone", "--quiet", "--single-branch", &url, target];
                assert!(git(directory).args(arguments).status().unwrap().success());
            }));
        }
        let (ours, theirs) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
        rows.push(Row {
            what,
            ours: millis(ours),
            theirs: format!("git {}", millis(theirs)),
            ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
            target: TARGET,
        });
    }
    let grown = daemon.memory("VmHWM").saturating_sub(idle);
    rows.push(Row {
        what: "memory of the clones",
        ours: format!("{:.1} MiB", grown as f64 / MIB as f64),
        theirs: "-".into(),
        ratio: "-".into(),
        target: "bounded",
    });
    rows
}

/// Time to make a directory, which is removed again.
fn timed(directory: &Path, make: impl FnOnce(&str)) -> Duration {
    let target = directory.join("target");
    let began = Instant::now();
    make(target.to_str().unwrap());
    let time = began.elapsed();
    assert!(target.join("d0/f0").exists());
    fs::remove_dir_all(target).unwrap();
    time
}

fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    command.args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"]);
    command
}

/// A bare repository, packed: all files in the first commit, ten of them changed in each of the others.
pub(crate) fn generate(directory: &Path) -> PathBuf {
    let source = directory.join("source.git");
    let arguments = ["init", "--quiet", "--bare", "--initial-branch=main", "source.git"];
    assert!(git(directory).args(arguments).status().unwrap().success());
    let mut import = git(&source).args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stream = std::io::BufWriter::new(import.stdin.take().unwrap());
    for commit in 0..COMMITS {
        let time = 1_700_000_000 + commit;
        write!(stream, "commit refs/heads/main\ncommitter A <a@example.com> {time} +0000\ndata 1\nx\n")
            .unwrap();
        let changed: Vec<usize> = match commit {
            0 => (0..FILES).collect(),
            _ => (0..10).map(|index| (commit * 7919 + index * 4999) % FILES).collect(),
        };
        for file in changed {
            let content = format!("{file} {commit}\n").repeat(file % 200 + 1);
            let directory = file % 500;
            write!(stream, "M 100644 inline d{directory}/f{file}\ndata {}\n{content}\n", content.len())
                .unwrap();
        }
    }
    drop(stream);
    assert!(import.wait().unwrap().success());
    assert!(git(&source).args(["repack", "-adq"]).status().unwrap().success());
    source
}

/// `git http-backend` on a free port, until the program ends.
fn serve(root: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let root = root.clone();
            thread::spawn(move || answer(stream.unwrap(), &root));
        }
    });
    address
}

/// One request with a length, or without a body; the connection ends with the reply.
fn answer(stream: TcpStream, root: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let Some(first) = lines.first() else { return };
    let header = |name: &str| {
        let find = |line: &String| {
            line.split_once(": ")
                .filter(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        lines.iter().find_map(find).unwrap_or_default()
    };
    let words: Vec<&str> = first.split(' ').collect();
    let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let mut child = git(root)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", words[0])
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", header("content-length"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n").unwrap();
    let _ = std::io::copy(&mut output, &mut stream); // a client may leave
    child.wait().unwrap();
}
