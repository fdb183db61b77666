//! The desktop: start, windows, and what it costs while nobody uses it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Daemon, MIB, Row, exchange, millis, percentile, post, ratio};

/// Time that the daemon's CPU use is counted for while nothing is asked of it.
const IDLE: Duration = Duration::from_secs(5);
/// Windows of the list that is measured.
const WINDOWS: usize = 10;

pub(crate) fn desktop(directory: &Path) -> Vec<Row> {
    let display = format!(":{}", 60_000 - std::process::id() % 5000);
    let port = |number: u32| (20_000 + std::process::id() % 20_000 + number).to_string();
    let settings = [
        ("DISPLAY", display.as_str()),
        ("VNC_RESOLUTION", "1280x800"),
        ("VNC_PORT", &port(0)),
        ("NO_VNC_PORT", &port(1)),
        ("HOME", directory.to_str().unwrap()),
    ];
    let daemon = Daemon::start_with(directory, |command| {
        command.envs(settings);
    });
    let mut stream = daemon.connect();
    let get = |path: &str| format!("GET /computeruse/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let none = serde_json::json!({});
    let before = daemon.memory("VmRSS");
    let mut starts: Vec<Duration> = (0..5)
        .map(|_| {
            let began = Instant::now();
            exchange(&mut stream, &post("/computeruse/start", &none));
            let time = began.elapsed();
            exchange(&mut stream, &post("/computeruse/stop", &none));
            time
        })
        .collect();
    exchange(&mut stream, &post("/computeruse/start", &none));
    let mut again: Vec<Duration> =
        (0..50).map(|_| timed(|| drop(exchange(&mut stream, &post("/computeruse/start", &none))))).collect();

    let _terminals: Vec<Terminal> = (0..WINDOWS).map(|_| Terminal::open(&display)).collect();
    let list = get("display/windows");
    let listed = |body: &[u8]| body.windows(5).filter(|bytes| *bytes == b"\"id\":").count();
    while listed(&exchange(&mut stream, &list)) < WINDOWS {}
    let mut ours: Vec<Duration> = (0..200).map(|_| timed(|| drop(exchange(&mut stream, &list)))).collect();
    let tree = || {
        Command::new("xwininfo")
            .args(["-display", &display, "-root", "-tree"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
    };
    let mut theirs: Vec<Duration> = (0..50).map(|_| timed(tree)).collect();

    let cpu = daemon.cpu();
    let until = Instant::now() + IDLE;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    let used = daemon.cpu() - cpu;
    let grown = daemon.memory("VmRSS").saturating_sub(before);
    exchange(&mut stream, &post("/computeruse/stop", &none));

    let (ours, theirs) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
    let row = |what, ours: String, target| Row { what, ours, theirs: "-".into(), ratio: "-".into(), target };
    vec![
        row("desktop, start to active, p50", millis(percentile(&mut starts, 50)), "≤ 1500 ms"),
        row("desktop, start when active, p50", millis(percentile(&mut again, 50)), "≤ 10 ms"),
        Row {
            what: "list of 10 windows, p50",
            ours: millis(ours),
            theirs: format!("xwininfo -tree {}", millis(theirs)),
            ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
            target: "≤ 2 ms for 50",
        },
        row("CPU of the daemon in 5 s of an idle desktop", millis(used), "0"),
        row("memory of the daemon for a desktop", format!("{:.1} MiB", grown as f64 / MIB as f64), "-"),
    ]
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// A program with a window; ended when it is dropped.
struct Terminal(Child);

impl Terminal {
    fn open(display: &str) -> Self {
        let command = ["-T", "measured", "-e", "cat"];
        let terminal =
            Command::new("xterm").args(command).env("DISPLAY", display).stdin(Stdio::null()).spawn();
        Self(terminal.unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// CPU time that it has used so far, its children's not included.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}
