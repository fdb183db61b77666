//! What the measurements stand on: a daemon, plain HTTP, times.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_toolboxd");

/// A row of the table.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) ratio: String,
    pub(crate) target: &'static str,
}

/// A daemon in a directory of its own.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Daemon {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, |_| {})
    }

    /// As [`Daemon::start`], after `change` has had its way with the command.
    pub(crate) fn start_with(directory: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .args(["--listen", "127.0.0.1:0", "--log-level", "error"])
            .current_dir(directory)
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
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

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A number of `/proc/<pid>/status`, in bytes.
    pub(crate) fn memory(&self, field: &str) -> usize {
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

/// A directory in memory, where the machine has that, else below `directory`. A disk's file system has long to look for
/// room where many files were deleted just before (ext4), whoever comes next.
pub(crate) fn in_memory(directory: &Path) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(if memory.is_dir() { memory } else { directory }).unwrap()
}

/// Reads a reply's head; gives it with what came of the body.
pub(crate) fn head(stream: &mut TcpStream) -> (String, Vec<u8>) {
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
pub(crate) fn exchange(stream: &mut TcpStream, request: &str) -> Vec<u8> {
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

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * percent / 100]
}

pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

pub(crate) fn rate(bytes: usize, duration: Duration) -> f64 {
    bytes as f64 / MIB as f64 / duration.as_secs_f64()
}

pub(crate) fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}", ours / theirs)
}

/// A request with a JSON body.
pub(crate) fn post(path: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(crate) fn memory_row(what: &'static str, grown: usize) -> Row {
    let ours = format!("{:.1} MiB", grown as f64 / MIB as f64);
    Row { what, ours, theirs: "-".into(), ratio: "-".into(), target: "≤ 16 MiB" }
}
