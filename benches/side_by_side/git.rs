//! Status, add and commit beside the `git` program, on a repository of 50,000 files and 2,000 commits.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Daemon, MIB, Row, exchange, in_memory, millis, percentile, post, ratio};

/// Files of the repository.
const FILES: usize = 50_000;
/// Its commits.
const COMMITS: usize = 2_000;
/// Times that each thing is done.
const TIMES: usize = 15;
/// Files that change before each `add`.
const CHANGED: usize = 200;

/// A repository, and the programs that work on it.
struct Bench {
    root: PathBuf,
    stream: TcpStream,
}

impl Bench {
    fn git(&self, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let status = command(&self.root, arguments).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{arguments:?}");
        began.elapsed()
    }

    fn ours(&mut self, request: &str) -> Duration {
        let began = Instant::now();
        exchange(&mut self.stream, request);
        began.elapsed()
    }

    fn change(&self, round: usize) {
        for number in 0..CHANGED {
            let path = self.root.join(path_of((round * CHANGED + number) % FILES));
            fs::write(path, format!("changed in round {round}\n")).unwrap();
        }
    }
}

pub(crate) fn git(directory: &Path) -> Vec<Row> {
    let directory = in_memory(directory);
    let root = directory.path().join("repo");
    generate(&root);
    let daemon = Daemon::start(directory.path());
    let mut bench = Bench { root, stream: daemon.connect() };
    let idle = daemon.memory("VmHWM");
    let status = {
        let request = "GET /git/status?path=repo HTTP/1.1\r\nHost: localhost\r\n\r\n";
        compare(
            "git status, 50,000 files",
            |bench, _, is_ours| {
                if is_ours { bench.ours(request) } else { bench.git(&["status", "--porcelain"]) }
            },
            &mut bench,
        )
    };
    let add = compare(
        "git add of 200 changed files",
        |bench, round, is_ours| {
            bench.change(round);
            let request = post("/git/add", &serde_json::json!({"path": "repo", "files": ["."]}));
            let time = if is_ours { bench.ours(&request) } else { bench.git(&["add", "."]) };
            bench.git(&["commit", "--quiet", "-m", "round"]);
            time
        },
        &mut bench,
    );
    let commit = compare(
        "git commit",
        |bench, round, is_ours| {
            bench.change(2 * TIMES + round); // what no round before has written
            bench.git(&["add", "."]);
            let order =
                serde_json::json!({"path": "repo", "message": "round", "author": "A", "email": "a@b"});
            let request = post("/git/commit", &order);
            if is_ours { bench.ours(&request) } else { bench.git(&["commit", "--quiet", "-m", "round"]) }
        },
        &mut bench,
    );
    let grown = format!("{:.1} MiB", daemon.memory("VmHWM").saturating_sub(idle) as f64 / MIB as f64);
    let memory = Row {
        what: "memory above idle while working on it",
        ours: grown,
        theirs: "-".into(),
        ratio: "-".into(),
        target: "bounded",
    };
    vec![status, add, commit, memory]
}

/// Does both in turn, so that a busy machine is busy for both.
fn compare(
    what: &'static str,
    mut once: impl FnMut(&mut Bench, usize, bool) -> Duration,
    bench: &mut Bench,
) -> Row {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..TIMES {
        ours.push(once(bench, 2 * round, true));
        theirs.push(once(bench, 2 * round + 1, false));
    }
    let (ours, theirs) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
    Row {
        what,
        ours: millis(ours),
        theirs: format!("git {}", millis(theirs)),
        ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
        target: "≤ 1.20",
    }
}

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=A", "-c", "user.email=a@b", "-c", "gc.auto=0"]).args(arguments);
    command.current_dir(root).env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn path_of(number: usize) -> String {
    format!("d{}/s{}/f{number}.txt", number % 40, number / 40 % 50)
}

/// Each commit adds its part of the files and changes a few of those before.
fn generate(root: &Path) {
    fs::create_dir(root).unwrap();
    assert!(command(root, &["init", "--quiet", "-b", "main"]).status().unwrap().success());
    let mut import = command(root, &["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut script = std::io::BufWriter::new(import.stdin.take().unwrap());
    let part = FILES / COMMITS;
    for commit in 0..COMMITS {
        let when = 1_500_000_000 + commit * 60;
        write!(script, "commit refs/heads/main\ncommitter A <a@b> {when} +0000\ndata 1\nx\n").unwrap();
        let new = commit * part..(commit + 1) * part;
        let old = (0..5).map(|number| (commit * 7919 + number * 104_729) % (commit * part).max(1));
        for number in new.chain(old.filter(|_| commit > 0)) {
            let content = format!("{number} {commit}\n").repeat(10 + number % 50);
            writeln!(script, "M 100644 inline {}\ndata {}\n{content}", path_of(number), content.len())
                .unwrap();
        }
    }
    drop(script.into_inner().unwrap());
    assert!(import.wait().unwrap().success());
    assert!(command(root, &["checkout", "--quiet", "main"]).status().unwrap().success());
}
