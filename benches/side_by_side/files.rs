//! Uploads, downloads, search.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Daemon, MIB, Row, head, memory_row, millis, rate, ratio};

/// Size of the file that is moved.
const FILE: usize = 2048 * MIB;
/// Files of the tree that is searched.
const FILES: usize = 40_000;

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

pub(crate) fn upload(directory: &Path) -> Vec<Row> {
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
        memory_row("memory above idle while uploading", daemon.memory("VmHWM").saturating_sub(idle)),
    ]
}

pub(crate) fn download(directory: &Path) -> Vec<Row> {
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
        memory_row("memory above idle while downloading", daemon.memory("VmHWM").saturating_sub(idle)),
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

pub(crate) fn find(directory: &Path) -> Vec<Row> {
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
