//! The reverse proxy beside the same server without it: with ends that do nothing but move bytes, as fast as they can and
//! as fast as a network, and with ordinary ones. And beside a relay that has the kernel move the bytes (splice(2)) and
//! knows nothing: what one more process on the way costs at least.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};

use crate::support::{Daemon, MIB, Row, exchange, head, memory_row, percentile, rate, ratio};

/// Bytes of a body.
const BODY: usize = 1024 * MIB;
/// Bodies each way, in turns; the median counts.
const ROUNDS: usize = 7;
/// Bytes a second of a network of 10 Gbit/s.
const NETWORK: f64 = 1.25e9;
/// Small requests that are timed, one after the other.
const REQUESTS: usize = 5000;

/// A server that does nothing but move bytes: a thread for each connection.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; MIB]);
    loop {
        let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n").map(|end| end + 4) else {
            match stream.read(&mut buffer[..4096]) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut left = length.map_or(0, |length| length.parse::<usize>().unwrap()) - (bytes.len() - end);
        bytes.clear();
        while left > 0 {
            let most = left.min(buffer.len());
            left -= stream.read(&mut buffer[..most]).unwrap();
        }
        let is_paced = head.starts_with("get /paced");
        let count = if is_paced || head.starts_with("get /large") { BODY } else { 0 };
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {count}\r\n\r\n").as_bytes()).unwrap();
        send(&mut stream, count, is_paced);
    }
}

/// At the pace of a network, or as fast as it can be.
fn send(stream: &mut TcpStream, count: usize, is_paced: bool) {
    let (began, zeros) = (Instant::now(), vec![0; MIB]);
    for sent in (0..count).step_by(MIB) {
        let due = Duration::from_secs_f64(sent as f64 / NETWORK);
        if is_paced {
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        stream.write_all(&zeros).unwrap();
    }
}

/// Leads bytes to and from `port`, a thread for each direction.
fn relay(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), connect(port));
            let ends = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
            for (from, to) in ends {
                thread::spawn(move || lead(&from, &to));
            }
        }
    });
    own
}

fn lead(from: &TcpStream, to: &TcpStream) {
    let (outlet, inlet) = pipe().unwrap();
    fcntl_setpipe_size(&inlet, MIB).unwrap();
    while let Ok(mut held @ 1..) = splice(from, None, &inlet, None, MIB, SpliceFlags::MOVE) {
        while held > 0 {
            let Ok(count @ 1..) = splice(&outlet, None, to, None, held, SpliceFlags::MOVE) else { return };
            held -= count;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn download(mut stream: TcpStream, path: &str) -> Duration {
    let began = Instant::now();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let (head, begun) = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (mut buffer, mut left) = (vec![0; MIB], BODY - begun.len());
    while left > 0 {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{left} bytes are missing");
        left -= count;
    }
    began.elapsed()
}

fn upload(mut stream: TcpStream, path: &str, is_paced: bool) -> Duration {
    let began = Instant::now();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    send(&mut stream, BODY, is_paced);
    let (head, _) = self::head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    began.elapsed()
}

/// An app as people write them, and a client of it: `node -e APP` tells its port and serves; with a URL and `get` or
/// `put` it is the client, and tells the seconds of one body.
const APP: &str = r"
const http = require('node:http');
const [length, url, verb] = [Number(process.argv[1]), process.argv[2], process.argv[3]];
const chunk = Buffer.alloc(64 * 1024);
const send = (to) => {
    let left = length;
    const more = () => {
        while (left > 0) {
            left -= chunk.length;
            if (!to.write(chunk)) return to.once('drain', more);
        }
        to.end();
    };
    more();
};
if (!url) {
    const server = http.createServer((request, reply) => {
        if (request.method === 'PUT') return request.resume().on('end', () => reply.end('ok'));
        reply.setHeader('content-length', length);
        send(reply);
    });
    server.listen(0, '127.0.0.1', () => console.log(server.address().port));
} else {
    const began = process.hrtime.bigint();
    const options = verb === 'put' ? { method: 'PUT', headers: { 'content-length': length } } : {};
    const request = http.request(url, options, (reply) => {
        if (reply.statusCode !== 200) throw new Error(`${reply.statusCode}`);
        reply.resume().on('end', () => console.log(Number(process.hrtime.bigint() - began) / 1e9));
    });
    if (verb === 'put') send(request); else request.end();
}";

fn node(arguments: &[&str]) -> (Child, String) {
    let mut command = Command::new("node");
    command.args(["-e", APP, &BODY.to_string()]).args(arguments).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

fn ordinary(url: &str, verb: &str) -> Duration {
    let (mut child, line) = node(&[url, verb]);
    assert!(child.wait().unwrap().success());
    Duration::from_secs_f64(line.parse().unwrap())
}

/// The medians of what takes its turns.
fn medians(mut one: impl FnMut() -> Duration, mut other: impl FnMut() -> Duration) -> (Duration, Duration) {
    let (mut ones, mut others): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| (one(), other())).unzip();
    (percentile(&mut ones, 50), percentile(&mut others, 50))
}

pub(crate) fn proxy(directory: &Path) -> Vec<Row> {
    let (daemon, port) = (Daemon::start(directory), server());
    let path = format!("/proxy/{port}/");
    let idle = daemon.memory("VmHWM");

    let (mut direct, mut proxied) = (connect(port), daemon.connect());
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        for (stream, path, times) in [(&mut direct, "/", &mut without), (&mut proxied, &path, &mut with)] {
            let began = Instant::now();
            exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            times.push(began.elapsed());
        }
    }
    let times = |what, percent, target| {
        let (ours, theirs) =
            (percentile(&mut with.clone(), percent), percentile(&mut without.clone(), percent));
        let micros = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6);
        Row {
            what,
            ours: micros(ours),
            theirs: micros(theirs),
            ratio: format!("+{}", micros(ours - theirs)),
            target,
        }
    };
    let relay = relay(port);
    let rates = |what, (ours, theirs): (Duration, Duration)| {
        let (ours, theirs) = (rate(BODY, ours), rate(BODY, theirs));
        let mib = |rate: f64| format!("{rate:.0} MiB/s");
        Row { what, ours: mib(ours), theirs: mib(theirs), ratio: ratio(ours, theirs), target: "≥ 0.80" }
    };
    let (large, paced) = (format!("{path}large"), format!("{path}paced"));
    let down = || download(daemon.connect(), &large);
    let up = || upload(daemon.connect(), &path, false);
    let (mut app, app_port) = node(&[]);
    let direct = format!("http://127.0.0.1:{app_port}/");
    let proxied = format!("http://{}/proxy/{app_port}/", daemon.address);
    let rows = vec![
        times("proxied request, p50", 50, "+ ≤ 200 µs"),
        times("proxied request, p99", 99, "-"),
        rates("proxied download", medians(down, || download(connect(port), "/large"))),
        rates("proxied download, beside a relay", medians(down, || download(connect(relay), "/large"))),
        rates("proxied upload", medians(up, || upload(connect(port), "/", false))),
        rates("proxied upload, beside a relay", medians(up, || upload(connect(relay), "/", false))),
        rates(
            "proxied download at 10 Gbit/s",
            medians(|| download(daemon.connect(), &paced), || download(connect(port), "/paced")),
        ),
        rates(
            "proxied upload at 10 Gbit/s",
            medians(|| upload(daemon.connect(), &path, true), || upload(connect(port), "/", true)),
        ),
        rates(
            "proxied download, Node at both ends",
            medians(|| ordinary(&proxied, "get"), || ordinary(&direct, "get")),
        ),
        rates(
            "proxied upload, Node at both ends",
            medians(|| ordinary(&proxied, "put"), || ordinary(&direct, "put")),
        ),
        memory_row("memory, all", daemon.memory("VmHWM").saturating_sub(idle)),
    ];
    app.kill().unwrap();
    app.wait().unwrap();
    drop(daemon);
    rows
}
