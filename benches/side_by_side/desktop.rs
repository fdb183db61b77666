//! Pictures, input and typing on a display of 2 sizes, beside the programs that are usually called for them.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, Row, exchange, memory_row, millis, percentile, post, ratio};

/// An X server with some terminals full of text on it.
struct Screen {
    server: Child,
    programs: Vec<Child>,
    name: String,
}

impl Screen {
    fn start(size: &str) -> Self {
        let (mut number, writer) = std::io::pipe().unwrap();
        let script =
            "exec Xvfb -displayfd 3 -screen 0 \"$1\" -noreset -nolisten tcp 3>&0 0</dev/null 2>/dev/null";
        let server = Command::new("sh")
            .args(["-c", script, "sh", size])
            .stdin(Stdio::from(writer.as_fd().try_clone_to_owned().unwrap()))
            .spawn()
            .unwrap();
        drop(writer);
        let mut text = String::new();
        number.read_to_string(&mut text).unwrap();
        let name = format!(":{}", text.trim());
        let mut screen = Self { server, programs: Vec::new(), name };
        screen.fill();
        screen
    }

    /// Opens terminals with text in colours, and waits until the last one has drawn it.
    fn fill(&mut self) {
        let script = "ls -l --color=always /usr/bin | head -200; touch \"$1\"; exec cat";
        for (index, at) in ["90x40+0+0", "90x40+600+100", "120x30+100+400"].iter().enumerate() {
            let done = std::env::temp_dir().join(format!("toolboxd-bench-{}-{index}", std::process::id()));
            let _ = std::fs::remove_file(&done);
            let child = Command::new("xterm")
                .args(["-geometry", at, "-e", "sh", "-c", script, "sh"])
                .arg(&done)
                .env("DISPLAY", &self.name)
                .spawn()
                .unwrap();
            self.programs.push(child);
            while !done.exists() {
                std::thread::yield_now();
            }
            std::fs::remove_file(done).unwrap();
        }
    }

    fn daemon(&self, directory: &Path) -> Daemon {
        Daemon::start_with(directory, |command| {
            command.env("DISPLAY", &self.name);
        })
    }

    /// Time of a program from its start to its end.
    fn time(&self, program: &str, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let status = Command::new(program)
            .args(arguments)
            .env("DISPLAY", &self.name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap_or_else(|error| panic!("{program} is needed: {error}")).success());
        began.elapsed()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for child in self.programs.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub(crate) fn screenshot(directory: &Path) -> Vec<Row> {
    const ROUNDS: usize = 40;
    let mut rows = Vec::new();
    for (size, whats) in [
        (
            "1280x800x24",
            [
                "screenshot 1280×800 PNG, p50",
                "screenshot 1280×800 WebP, p50",
                "screenshot 1280×800 JPEG, p50",
                "region 200×200 of 1280×800 PNG, p50",
            ],
        ),
        (
            "1920x1080x24",
            [
                "screenshot 1920×1080 PNG, p50",
                "screenshot 1920×1080 WebP, p50",
                "screenshot 1920×1080 JPEG, p50",
                "region 200×200 of 1920×1080 PNG, p50",
            ],
        ),
    ] {
        let screen = Screen::start(size);
        let daemon = screen.daemon(directory);
        let mut stream = daemon.connect();
        let path = "/computeruse/screenshot";
        let shots = [
            (format!("{path}?showCursor=false"), "png:-", "≤ 10 ms at 1920×1080"),
            (format!("{path}/compressed?format=webp"), "webp:-", "-"),
            (format!("{path}/compressed?format=jpeg&quality=85"), "jpeg:-", "-"),
            (format!("{path}/region?x=100&y=100&width=200&height=200"), "png:-", "-"),
        ];
        for ((path, kind, target), what) in shots.iter().zip(whats) {
            let (mut ours, mut raw, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
            let crop: &[&str] = if path.contains("region") { &["-crop", "200x200+100+100"] } else { &[] };
            let import = [&["-silent", "-window", "root"], crop, &[kind]].concat();
            for _ in 0..ROUNDS {
                let began = Instant::now();
                exchange(&mut stream, &get(path));
                ours.push(began.elapsed());
                raw.push(screen.time("xwd", &["-root", "-silent"]));
            }
            for _ in 0..5 {
                theirs.push(screen.time("import", &import));
            }
            let [ours, raw, theirs] = [ours, raw, theirs].map(|mut times| percentile(&mut times, 50));
            rows.push(Row {
                what,
                ours: millis(ours),
                theirs: format!("import {}, xwd (raw) {}", millis(theirs), millis(raw)),
                ratio: ratio(ours.as_secs_f64(), theirs.as_secs_f64()),
                target,
            });
        }
        if size.starts_with("1920") {
            let before = daemon.memory("VmRSS");
            for _ in 0..200 {
                exchange(&mut stream, &get(path));
            }
            rows.push(memory_row(
                "memory after 200 more screenshots",
                daemon.memory("VmRSS").saturating_sub(before),
            ));
        }
    }
    rows
}

pub(crate) fn input(directory: &Path) -> Vec<Row> {
    const ROUNDS: usize = 500;
    let screen = Screen::start("1280x800x24");
    let daemon = screen.daemon(directory);
    let mut stream = daemon.connect();
    let mut rows = Vec::new();
    for (what, path, theirs) in [
        (
            "move of the pointer, p50",
            "/computeruse/mouse/move",
            &["mousemove", "300", "200", "getmouselocation"][..],
        ),
        ("click, p50", "/computeruse/mouse/click", &["mousemove", "300", "200", "click", "1"]),
        ("key, p50", "/computeruse/keyboard/key", &["key", "--delay", "0", "Shift_L"]),
    ] {
        let body = if path.ends_with("key") { json!({"key": "shift"}) } else { json!({"x": 300, "y": 200}) };
        let request = post(path, &body);
        let mut ours = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            exchange(&mut stream, &request);
            ours.push(began.elapsed());
        }
        let mut other: Vec<_> = (0..50).map(|_| screen.time("xdotool", theirs)).collect();
        let (ours, other) = (percentile(&mut ours, 50), percentile(&mut other, 50));
        rows.push(Row {
            what,
            ours: millis(ours),
            theirs: format!("xdotool {}", millis(other)),
            ratio: ratio(ours.as_secs_f64(), other.as_secs_f64()),
            target: "≤ 0.5 ms",
        });
    }
    rows
}

pub(crate) fn typing(directory: &Path) -> Vec<Row> {
    let screen = Screen::start("1280x800x24");
    let daemon = screen.daemon(directory);
    let mut stream = daemon.connect();
    exchange(&mut stream, &post("/computeruse/mouse/move", &json!({"x": 300, "y": 200})));
    let ascii = "The quick brown Fox jumps over the lazy Dog. ".repeat(45)[..2000].to_owned();
    let chinese: String = (0x4e00..0x4e00 + 300).filter_map(char::from_u32).collect();
    [
        ("typing 2000 ASCII characters", ascii, "≥ 5,000 /s"),
        ("typing 300 different CJK characters", chinese, "≥ 300 /s"),
    ]
    .map(|(what, text, target)| {
        let count = text.chars().count() as f64;
        let began = Instant::now();
        exchange(&mut stream, &post("/computeruse/keyboard/type", &json!({"text": text})));
        let ours = count / began.elapsed().as_secs_f64();
        // At its own pace: without a delay it loses characters.
        let theirs = count / screen.time("xdotool", &["type", &text]).as_secs_f64();
        Row {
            what,
            ours: format!("{ours:.0} /s"),
            theirs: format!("xdotool {theirs:.0} /s"),
            ratio: ratio(ours, theirs),
            target,
        }
    })
    .into()
}
