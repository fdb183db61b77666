//! Start, memory, size.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Daemon, MIB, PROGRAM, Row, exchange, millis, percentile};

pub(crate) fn start(directory: &Path) -> Vec<Row> {
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
