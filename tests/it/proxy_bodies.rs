//! Large bodies through the reverse proxy, which pass by pipe: every byte, and nothing else, whatever happens.

use std::sync::LazyLock;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::support::{Daemon, Upstream, Wire, within};

const MIB: usize = 1024 * 1024;

/// Bytes that are recognised at their place, up to 128 MiB.
fn body(length: usize) -> &'static [u8] {
    static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut whole = vec![0; 128 * MIB];
        let places = (0_u64..).map(u64::to_be_bytes);
        whole.chunks_exact_mut(8).zip(places).for_each(|(bytes, place)| bytes.copy_from_slice(&place));
        whole
    });
    &WHOLE[..length]
}

/// What a head says of the body's length.
fn length(head: &str) -> usize {
    let head = head.to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    value.map_or(0, |value| value.parse().unwrap())
}

/// A server that answers any number of requests on a connection: one to `/{count}` with so many bytes, after it has
/// found those of the request to be right.
async fn server() -> Upstream {
    Upstream::scripted(|_, mut wire| async move {
        loop {
            let head = wire.head().await;
            let Some(path) = head.split(' ').nth(1) else { return };
            let count = path[1..].parse().unwrap();
            let sent = length(&head);
            let is_right = wire.bytes(sent).await == body(sent);
            let status = if is_right { "200 OK" } else { "500 Wrong" };
            wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: {count}\r\n\r\n")).await;
            wire.send(body(count)).await;
        }
    })
    .await
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
}

/// A request with a body of `up` bytes, and a reply with one of `down` bytes.
async fn exchange(wire: &mut Wire, server: &Upstream, up: usize, down: usize) {
    let method = if up == 0 { "GET" } else { "POST" };
    wire.send(head(method, &server.path(&format!("/{down}")), up)).await;
    wire.send(body(up)).await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(length(&head), down);
    assert!(wire.bytes(down).await == body(down), "{up} up, {down} down");
}

const SIZES: [usize; 9] =
    [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB / 2 + 4097, 2 * MIB + 12345, 5 * MIB - 1, 16 * MIB + 7];

#[tokio::test]
async fn bodies_of_every_size_pass_on_kept_connections() {
    let (daemon, server) = (Daemon::start().await, server().await);
    let mut wire = Wire::connect(daemon.address).await;
    exchange(&mut wire, &server, 1, 1).await;
    let before = daemon.descriptors();
    for size in SIZES {
        exchange(&mut wire, &server, size, 3).await;
        exchange(&mut wire, &server, 3, size).await;
        exchange(&mut wire, &server, size, size).await;
    }
    daemon.closes_down_to(before).await;
    // Without a body, a request takes the connection that there is, however long it has waited.
    let accepted = server.accepted();
    for size in SIZES {
        exchange(&mut wire, &server, 0, size).await;
    }
    assert_eq!(server.accepted(), accepted);
}

#[tokio::test]
async fn many_bodies_pass_both_ways_at_a_time() {
    const AT_A_TIME: usize = 6;
    let (daemon, server) = (Daemon::start().await, server().await);
    daemon.client().get("/version").ok().await;
    let before = daemon.descriptors();
    let exchanges = (0..AT_A_TIME).map(async |number| {
        let mut wire = Wire::connect(daemon.address).await;
        for (place, size) in SIZES.iter().enumerate() {
            exchange(&mut wire, &server, *size, SIZES[(place + number) % SIZES.len()]).await;
        }
    });
    join_all(exchanges).await;
    daemon.closes_down_to(before + AT_A_TIME).await; // the connections that are kept
}

#[tokio::test]
async fn replies_to_requests_that_came_together_stay_apart() {
    let (daemon, server) = (Daemon::start().await, server().await);
    let mut wire = Wire::connect(daemon.address).await;
    let sizes = [2 * MIB + 1, 5, 3 * MIB, MIB, 0, 2 * MIB];
    let heads: String = sizes.iter().map(|size| head("GET", &server.path(&format!("/{size}")), 0)).collect();
    wire.send(heads).await;
    for size in sizes {
        assert_eq!(length(&wire.head().await), size);
        assert!(wire.bytes(size).await == body(size));
    }
}

#[tokio::test]
async fn a_large_reply_that_ends_early_is_cut_where_it_ends() {
    let daemon = Daemon::start().await;
    daemon.client().get("/version").ok().await;
    let before = daemon.descriptors();
    for sent in [0, MIB, 5 * MIB + 3, 8 * MIB - 1] {
        let mut said = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 8 * MIB).into_bytes();
        said.extend_from_slice(body(sent));
        let app = Upstream::saying(said).await;
        let mut wire = Wire::connect(daemon.address).await;
        wire.send(head("GET", &app.path("/"), 0)).await;
        assert_eq!(length(&wire.head().await), 8 * MIB);
        let came = wire.bytes(9 * MIB).await; // to the end of the connection
        assert!(came.len() <= sent && came == body(came.len()), "{} of {sent}", came.len());
    }
    daemon.closes_down_to(before).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_up_itself_alone() {
    const LARGE: usize = 128 * MIB;
    let (daemon, server) = (Daemon::start().await, server().await);
    let mut other = Wire::connect(daemon.address).await;
    other.send(head("GET", "/version", 0)).await;
    let version = length(&other.head().await);
    other.bytes(version).await;
    let before = daemon.descriptors();
    exchange(&mut other, &server, 2 * MIB, 2 * MIB).await;
    let memory = daemon.peak_memory();
    let mut slow = Wire::connect(daemon.address).await;
    slow.send(head("GET", &server.path(&format!("/{LARGE}")), 0)).await;
    slow.head().await;
    let mut came = slow.bytes(2 * MIB).await;
    for _ in 0..8 {
        exchange(&mut other, &server, 2 * MIB, 2 * MIB).await;
    }
    // Both connections to the port, that of the slow client, and the ends of its pipe.
    assert!(daemon.descriptors() >= before + 5);
    came.extend(slow.bytes(LARGE - came.len()).await);
    assert!(came == body(LARGE));
    assert!(daemon.peak_memory() < memory + 16 * MIB as u64);
}

#[tokio::test]
async fn a_client_that_leaves_amid_a_large_body_leaves_nothing_behind() {
    const LARGE: usize = 64 * MIB;
    let daemon = Daemon::start().await;
    daemon.client().get("/version").ok().await;
    let before = daemon.descriptors();
    let (notice, mut notices) = mpsc::channel(1);
    let app = Upstream::scripted(move |_, mut wire| {
        let notice = notice.clone();
        async move {
            let head = wire.head().await;
            let came = wire.bytes(length(&head)).await;
            let mut is_sent = false;
            if head.starts_with("GET") {
                wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
                is_sent = within(wire.into_stream().write_all(body(LARGE))).await.is_ok();
            }
            notice.send((came, is_sent)).await.unwrap();
        }
    })
    .await;
    let mut wire = Wire::connect(daemon.address).await;
    wire.send(head("GET", &app.path("/"), 0)).await;
    wire.head().await;
    assert!(wire.bytes(3 * MIB).await == body(3 * MIB));
    drop(wire);
    assert!(!within(notices.recv()).await.unwrap().1, "nobody was there to take the whole");

    let mut wire = Wire::connect(daemon.address).await;
    wire.send(head("PUT", &app.path("/"), LARGE)).await;
    let part = body(LARGE / 2 + 1);
    wire.send(part).await;
    drop(wire);
    let came = within(notices.recv()).await.unwrap().0;
    assert!(came.len() <= part.len() && came == part[..came.len()], "{} bytes", came.len());
    daemon.closes_down_to(before).await;
}

#[tokio::test]
async fn a_large_upload_that_is_answered_early_goes_on() {
    let daemon = Daemon::start().await;
    let app = Upstream::scripted(|_, mut wire| async move {
        loop {
            let head = wire.head().await;
            if head.is_empty() {
                return;
            }
            let begun = wire.bytes(length(&head).min(MIB / 2)).await.len();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
            let rest = wire.bytes(length(&head) - begun).await;
            assert!(rest == body(length(&head))[begun..]);
        }
    })
    .await;
    let mut wire = Wire::connect(daemon.address).await;
    for size in [8 * MIB + 3, 0, 5 * MIB] {
        let body = body(size);
        let (first, rest) = body.split_at(size / 4);
        wire.send(head("POST", &app.path("/"), size)).await;
        wire.send(first).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(wire.bytes(5).await, b"early");
        wire.send(rest).await;
    }
    exchange(&mut wire, &server().await, 2 * MIB, 2 * MIB).await;
}

#[tokio::test]
async fn the_rest_of_an_upload_that_nobody_took_is_no_request() {
    let daemon = Daemon::start().await;
    daemon.client().get("/version").ok().await;
    let before = daemon.descriptors();
    let request = "GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let count = 16 * MIB / request.len();
    for taken in [0, MIB / 2, 3 * MIB + 1] {
        let app = Upstream::scripted(move |_, mut wire| async move {
            wire.head().await;
            wire.bytes(taken).await;
        })
        .await;
        let mut wire = Wire::connect(daemon.address).await;
        wire.send(head("POST", &app.path("/"), count * request.len())).await;
        let mut stream = wire.into_stream();
        // The daemon may close while this is sent.
        let _ = within(stream.write_all(request.repeat(count).as_bytes())).await;
        let _ = stream.shutdown().await;
        let mut told = Vec::new();
        let _ = within(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut told)).await;
        let told = String::from_utf8_lossy(&told);
        assert_eq!(told.matches("HTTP/1.1 200").count(), 0, "{told}");
        assert!(told.matches("HTTP/1.1").count() <= 1, "{told}");
    }
    daemon.closes_down_to(before).await;
}
