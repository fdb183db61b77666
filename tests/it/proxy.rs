//! The reverse proxy to ports of the sandbox.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get, post};
use futures_util::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{Daemon, Upstream, Wire, sent_header, streamed, within};

const MIB: usize = 1024 * 1024;
/// Bytes moved in one body.
const LARGE: usize = 2048 * MIB;

/// The reply to a GET of a path that is sent as it is.
async fn get_raw(daemon: &Daemon, path: &str) -> String {
    raw(daemon, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
}

/// Sends a head, as it is, and gives all that comes back until the daemon closes.
async fn raw(daemon: &Daemon, head: &str) -> String {
    let mut wire = Wire::connect(daemon.address).await;
    wire.send(head).await;
    wire.rest().await.0
}

#[tokio::test]
async fn paths_and_queries_arrive_byte_for_byte() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    for (asked, expected) in [
        ("", "/"),
        ("/", "/"),
        ("?", "/?"),
        ("//", "//"),
        ("/a//b/../c/./", "/a//b/../c/./"),
        ("/%2F%2e%2E/(%40)/%e4%bd%a0", "/%2F%2e%2E/(%40)/%e4%bd%a0"),
        ("/x?a=%20+&&b=c?d/e", "/x?a=%20+&&b=c?d/e"),
        ("/files/", "/files/"),
        ("/toolbox/id/files", "/toolbox/id/files"),
        ("?DAYTONA_SANDBOX_AUTH_KEYS=1", "/?DAYTONA_SANDBOX_AUTH_KEYS=1"),
    ] {
        for prefix in ["", "/box", "/toolbox/box", "/api/toolbox/box/toolbox"] {
            let path = format!("{prefix}{}", app.path(asked));
            let reply = get_raw(&daemon, &path).await;
            let expected = format!("\"target\":\"{expected}\"");
            assert!(reply.starts_with("HTTP/1.1 200") && reply.contains(&expected), "{path}: {reply}");
        }
    }
}

#[tokio::test]
async fn a_port_is_plain_digits() {
    let daemon = Daemon::start().await;
    let own = daemon.address.port();
    for port in [
        format!("0{own}"),
        format!("+{own}"),
        format!("%20{own}"),
        format!("%3{own}"),
        format!("{own}."),
        format!("{own}%20"),
        format!("[::]:{own}"),
        format!("127.0.0.1:{own}"),
        format!("{own}@x"),
        "0".into(),
        "65536".into(),
        "-1".into(),
        "x".into(),
        String::new(),
    ] {
        for path in ["/", "/work-dir", "/proxy/1/"] {
            let reply = get_raw(&daemon, &format!("/proxy/{port}{path}")).await;
            assert!(reply.starts_with("HTTP/1.1 40"), "{port}: {reply}");
            assert!(reply.contains("BAD_REQUEST") || reply.contains("NOT_FOUND"), "{port}: {reply}");
        }
    }
    let message = daemon.client().get("/proxy/02280/").fails(400, "BAD_REQUEST").await;
    assert_eq!(message, "bad request: \"02280\" is not a port: plain digits from 1 to 65535 are");
}

#[tokio::test]
async fn the_daemon_is_reached_through_itself_once() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let (client, own) = (daemon.client(), daemon.address.port());
    let direct = client.get("/work-dir").ok().await.json();
    for path in ["/work-dir", "/work-dir/", "/toolbox/box/work-dir"] {
        assert_eq!(client.get(&format!("/proxy/{own}{path}")).ok().await.json(), direct);
    }
    let told = client.get(&format!("/proxy/{own}{}", app.path("/a%2Fb?c"))).ok().await.json();
    assert_eq!(told["target"], "/a%2Fb?c");
    let socket = client.socket(&format!("/proxy/{own}/port/watch")).await;
    drop(socket);
    let message = client.get(&format!("/proxy/{own}/proxy/{own}/work-dir")).fails(502, "BAD_GATEWAY").await;
    assert_eq!(message, format!("port {own} is toolboxd itself, which is reached through itself once only"));
}

#[tokio::test]
async fn requests_are_those_of_a_direct_client_but_for_the_connection() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let client = daemon.client();
    let call = client.request(Method::from_bytes(b"PROPFIND").unwrap(), &app.path("/dav"));
    let told = call
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("keep-alive", "1")
        .header("proxy-authorization", "Basic x")
        .header("authorization", "Basic y")
        .header("x-forwarded-for", "203.0.113.9")
        .header("cookie", "a=b")
        .body("body")
        .ok()
        .await
        .json();
    assert_eq!((&told["method"], &told["body"]), (&Value::from("PROPFIND"), &Value::from("body")));
    let sent = |name| sent_header(&told, name);
    for (name, expected) in [
        ("host", Some(&*format!("localhost:{}", app.port))),
        ("x-forwarded-for", Some("203.0.113.9, 127.0.0.1")),
        ("x-forwarded-host", Some(&*daemon.address.to_string())),
        ("x-forwarded-proto", Some("http")),
        ("authorization", Some("Basic y")),
        ("cookie", Some("a=b")),
        ("content-length", Some("4")),
        ("accept-encoding", None),
        ("connection", None),
        ("x-mine", None),
        ("keep-alive", None),
        ("proxy-authorization", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(sent(name), expected, "{name}");
    }
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        assert_eq!(
            client.request(method.clone(), &app.path("/")).ok().await.json()["method"],
            method.as_str()
        );
    }
    // A body of unknown length, also where there seldom is one.
    for method in ["GET", "POST"] {
        let head = format!(
            "{method} {} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
            app.path("/")
        );
        let reply = raw(&daemon, &format!("{head}3\r\nabc\r\n0\r\n\r\n")).await;
        assert!(
            reply.contains("\"body\":\"abc\"") && reply.contains("[\"transfer-encoding\",\"chunked\"]"),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn replies_come_back_as_they_are() {
    let daemon = Daemon::start().await;
    let app = Upstream::saying(
        "HTTP/1.1 404 Whatever\r\nSet-Cookie: a=1; Path=/\r\nX-Odd-CASE: 1\r\nset-cookie: b=2\r\n\
         Location: http://localhost/there\r\nX-Request-Id: theirs\r\nContent-Encoding: gzip\r\n\
         Keep-Alive: timeout=1\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\n\x1f\x00z",
    )
    .await;
    let reply = get_raw(&daemon, &app.path("/")).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    let expected = [
        "HTTP/1.1 404 Whatever",
        "Connection: close",
        "Content-Encoding: gzip",
        "Content-Length: 3",
        "Location: http://localhost/there",
        "Set-Cookie: a=1; Path=/",
        "X-Odd-CASE: 1",
        "X-Request-Id: theirs",
        "set-cookie: b=2",
    ];
    assert_eq!((&lines[..], body), (&expected[..], "\x1f\x00z"));
}

#[tokio::test]
async fn replies_without_a_body_keep_their_headers() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let app = Upstream::saying("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"x\"\r\n\r\n").await;
    let reply = client.request(Method::HEAD, &app.path("/")).ok().await;
    assert_eq!(
        (reply.header("content-length"), reply.header("etag"), reply.body.len()),
        ("12345", "\"x\"", 0)
    );
    for status in [204, 304] {
        let app = Upstream::saying(format!("HTTP/1.1 {status} X\r\nETag: \"x\"\r\n\r\n")).await;
        let reply = client.get(&app.path("/")).send().await;
        assert_eq!((reply.status.as_u16(), reply.header("etag"), reply.body.len()), (status, "\"x\"", 0));
    }
    // A reply that ends with its connection, as HTTP/1.0 has it, and old habits in headers.
    let app =
        Upstream::saying("HTTP/1.0 200 OK\r\nX-Folded: one\r\n two\r\nX-Space : 1\r\n\r\nto the end").await;
    let reply = client.get(&app.path("/")).ok().await;
    assert_eq!((reply.text(), reply.header("x-space")), ("to the end".to_owned(), "1"));
    assert_eq!(reply.header("x-folded").split_whitespace().collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test]
async fn heads_of_100_kib_pass_both_ways() {
    let daemon = Daemon::start().await;
    let long = "x".repeat(100 * 1024);
    let app =
        Router::new().fallback(any(async |headers: http::HeaderMap| [("x-back", headers["x-long"].clone())]));
    let app = Upstream::serving(app).await;
    let reply = daemon.client().get(&app.path("/")).header("x-long", &long).ok().await;
    assert_eq!(reply.header("x-back"), long);
}

#[tokio::test]
async fn servers_of_either_family_are_found() {
    let daemon = Daemon::start().await;
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let app = Upstream::scripted_at(address, |_, mut wire| async move {
            wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        })
        .await;
        assert_eq!(daemon.client().get(&app.path("/")).ok().await.text(), "ok", "{address}");
    }
}

#[tokio::test]
async fn what_goes_wrong_with_a_port_is_told() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let message = client.get(&format!("/proxy/{free}/")).fails(502, "BAD_GATEWAY").await;
    assert_eq!(message, format!("nothing listens on port {free}"));
    for (said, expected) in [
        ("", "closed the connection without an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "closed the connection without an answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "did not answer in HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "did not answer in HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "did not answer in HTTP"),
        ("HTTP/9.9 hello\r\n\r\n", "did not answer in HTTP"),
        (
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "switched protocols without being asked to",
        ),
    ] {
        let app = Upstream::saying(said).await;
        for method in [Method::GET, Method::POST] {
            let message = client.request(method, &app.path("/")).fails(502, "BAD_GATEWAY").await;
            let expected = format!("what listens on port {} {expected}", app.port);
            assert!(message.starts_with(&expected), "{said:?}: {message}");
        }
    }
    let endless =
        Upstream::saying(format!("HTTP/1.1 200 OK\r\n{}", "x-more: and more\r\n".repeat(100_000))).await;
    client.get(&endless.path("/")).fails(502, "BAD_GATEWAY").await;
    // The daemon has taken no harm.
    client.get("/work-dir").ok().await;
}

#[tokio::test]
async fn a_reply_that_ends_early_is_no_whole_reply() {
    let daemon = Daemon::start().await;
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly some",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\nff\r\nonly",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\nnot hex\r\n",
    ] {
        let app = Upstream::saying(said).await;
        let reply = daemon.client().get(&app.path("/")).open().await;
        assert_eq!(reply.status(), 200);
        within(reply.bytes()).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let daemon = Daemon::start().await;
    let (noticed, mut notices) = mpsc::channel(1);
    // One that never answers, and one that answers for ever.
    for answer in ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"] {
        let noticed = noticed.clone();
        let app = Upstream::scripted(move |_, mut wire| {
            let noticed = noticed.clone();
            async move {
                let head = wire.head().await;
                wire.send(answer).await;
                noticed.send(head).await.unwrap();
                noticed.send(wire.rest().await.0).await.unwrap();
            }
        })
        .await;
        let mut wire = Wire::connect(daemon.address).await;
        wire.send(format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", app.path("/"))).await;
        assert!(within(notices.recv()).await.unwrap().starts_with("GET / HTTP/1.1"));
        if !answer.is_empty() {
            wire.until("\r\na\r\n").await.unwrap();
        }
        drop(wire);
        assert_eq!(within(notices.recv()).await.unwrap(), "");
    }
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let daemon = Daemon::start().await;
    let (say, said) = mpsc::channel(1);
    let said = Arc::new(std::sync::Mutex::new(Some(said)));
    let app = Router::new().route(
        "/",
        get(async move || {
            let events = streamed(said.lock().unwrap().take().unwrap());
            ([("content-type", "text/event-stream")], events)
        }),
    );
    let app = Upstream::serving(app).await;
    let mut reply = daemon.client().get(&app.path("/")).open().await;
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        say.send(event).await.unwrap();
        assert_eq!(within(reply.chunk()).await.unwrap().unwrap(), event);
    }
    // Such a stream does not hold the daemon up, and ends in order.
    daemon.signal("TERM").await;
    assert_eq!(within(reply.chunk()).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_is_answered_while_it_goes_on() {
    let daemon = Daemon::start().await;
    let app = Upstream::serving(Router::new().route("/", post(async |body: Body| body))).await;
    let mut wire = Wire::connect(daemon.address).await;
    let head = "HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    wire.send(format!("POST {} {head}", app.path("/"))).await;
    wire.send("3\r\none\r\n").await;
    assert!(wire.until("\r\none\r\n").await.unwrap().contains("200 OK"));
    for word in ["two", "six"] {
        wire.send(format!("3\r\n{word}\r\n")).await;
        wire.until(&format!("3\r\n{word}\r\n")).await.unwrap();
    }
    wire.send("0\r\n\r\n").await;
    wire.until("0\r\n\r\n").await.unwrap();
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_is_seen() {
    let daemon = Daemon::start().await;
    let app = Upstream::scripted(|_, mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        wire.until("the end").await;
    })
    .await;
    let mut wire = Wire::connect(daemon.address).await;
    wire.send(format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nsome",
        app.path("/")
    ))
    .await;
    assert!(wire.until("\r\n\r\nmuch").await.unwrap().starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn an_upload_that_makes_no_sense_is_the_clients_fault() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let reply = raw(&daemon, &format!("POST {} {head}not hex\r\n", app.path("/"))).await;
    assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("INVALID_REQUEST_BODY"), "{reply}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let mut wire = Wire::connect(daemon.address).await;
    let head = "HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    wire.send(format!("POST {} {head}", app.path("/"))).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 100"));
    wire.send("body").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    wire.until("\"body\":\"body\"").await.unwrap();
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let daemon = Daemon::start().await;
    let app = Upstream::scripted(|_, mut wire| async move {
        let head = wire.head().await;
        assert!(head.to_lowercase().contains("\r\nte: trailers\r\n"), "{head}");
        let body = wire.until("\r\n\r\n").await.unwrap();
        assert!(body.to_lowercase().contains("0\r\nx-sum: up\r\n\r\n"), "{body}");
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await;
        wire.send("1\r\na\r\n0\r\nX-Sum: down\r\n\r\n").await;
    })
    .await;
    let mut wire = Wire::connect(daemon.address).await;
    wire.send(format!("POST {} HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n", app.path("/"))).await;
    wire.send("transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\nb\r\n0\r\nx-sum: up\r\n\r\n").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Trailer: X-Sum"), "{head}");
    assert_eq!(wire.until("\r\n\r\n").await.unwrap().to_lowercase(), "1\r\na\r\n0\r\nx-sum: down\r\n\r\n");
}

#[tokio::test]
async fn only_what_is_harmless_is_sent_twice() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let (asked, mut requests) = mpsc::channel(16);
    // Answers once on each connection, and closes it when it is asked a second time.
    let app = Upstream::scripted(move |number, mut wire| {
        let asked = asked.clone();
        async move {
            let head = wire.head().await;
            asked.send((number, head[..4].to_owned())).await.unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            let head = wire.head().await;
            if !head.is_empty() {
                asked.send((number, head[..4].to_owned())).await.unwrap();
            }
        }
    })
    .await;
    client.get(&app.path("/")).ok().await;
    client.get(&app.path("/")).ok().await;
    let message = client.post(&app.path("/")).fails(502, "BAD_GATEWAY").await;
    assert_eq!(message, format!("what listens on port {} closed the connection without an answer", app.port));
    drop(client);
    let mut seen = Vec::new();
    while let Ok(request) = requests.try_recv() {
        seen.push((request.0, request.1));
    }
    let expected =
        [(0, "GET "), (0, "GET "), (1, "GET "), (1, "POST")].map(|(number, word)| (number, word.to_owned()));
    assert_eq!(seen, expected);
    assert_eq!(app.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_used() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let before = daemon.descriptors();
    let app = Upstream::saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    for _ in 0..20 {
        client.post(&app.path("/")).body("x").ok().await;
    }
    assert_eq!(app.accepted(), 20);
    // Its own connection, and one that may wait for the sweep.
    assert!(daemon.descriptors() <= before + 2);
}

#[tokio::test]
async fn subprotocols_and_other_protocols_pass() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let client = daemon.client();
    let headers = [("sec-websocket-protocol", "first, second"), ("origin", "http://localhost:1")];
    let mut socket = client.upgrade(&app.path("/ws"), &headers).await.unwrap();
    assert_eq!(socket.protocol(), Some("second"));
    socket.say("hello").await;
    assert_eq!(socket.next().await.unwrap().to_text().unwrap(), "hello");
    socket.close().await;
    // Refused by the app: its own answer.
    let (status, _) = client.upgrade(&app.path("/no-socket"), &[]).await.unwrap_err();
    assert_eq!(status, 200);

    let app = Upstream::scripted(|_, mut wire| async move {
        let head = wire.head().await.to_lowercase();
        assert!(
            head.contains("\r\nupgrade: chat/2\r\n") && head.contains("\r\nconnection: upgrade\r\n"),
            "{head}"
        );
        // What follows at once belongs to the new protocol.
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n\r\nwelcome\n",
        )
        .await;
        while let Some(line) = wire.until("\n").await {
            wire.send(format!("you said {line}")).await;
        }
        wire.send("bye\n").await;
    })
    .await;
    let mut wire = Wire::connect(daemon.address).await;
    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\nupgrade: chat/2\r\n\r\n";
    wire.send(format!("GET {} {head}", app.path("/"))).await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 101") && head.to_lowercase().contains("upgrade: chat/2"), "{head}");
    assert_eq!(wire.until("\n").await.unwrap(), "welcome\n");
    wire.send("\0\x01\n").await;
    assert_eq!(wire.until("\n").await.unwrap(), "you said \0\x01\n");
    // Each direction ends by itself.
    let mut stream = wire.into_stream();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "bye\n");
}

#[tokio::test]
async fn a_thousand_sockets_leave_nothing_behind() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let client = daemon.client();
    client.get("/version").ok().await;
    let before = daemon.descriptors();
    client.socket(&app.path("/ws")).await.close().await;
    daemon.closes_down_to(before).await;
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut socket = client.socket(&app.path("/ws")).await;
        socket.say(&number.to_string()).await;
        sockets.push(socket);
    }
    assert!(daemon.descriptors() >= before + 2000);
    for (number, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.next().await.unwrap().to_text().unwrap(), number.to_string());
    }
    // Half of them in order, the others without a word.
    for (number, socket) in sockets.into_iter().enumerate() {
        if number % 2 == 0 {
            socket.close().await;
        }
    }
    daemon.closes_down_to(before).await;
}

#[tokio::test]
async fn ten_thousand_requests_leave_nothing_behind() {
    const AT_A_TIME: usize = 8;
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let client = daemon.client();
    let path = app.path("/x");
    let round = async |count: usize| {
        let tasks = (0..AT_A_TIME).map(async |_| {
            for number in 0..count {
                match number % 4 {
                    0 => client.post(&path).body("body").ok().await,
                    _ => client.get(&path).ok().await,
                };
            }
        });
        futures_util::future::join_all(tasks).await;
    };
    round(50).await;
    let (descriptors, threads) = (daemon.descriptors(), daemon.threads());
    let memory = daemon.peak_memory();
    round(10_000 / AT_A_TIME).await;
    assert!(daemon.descriptors() <= descriptors + 2 * AT_A_TIME, "{} {descriptors}", daemon.descriptors());
    assert!(daemon.threads() <= threads + 2);
    assert!(daemon.peak_memory() < memory + 16 * MIB as u64);
}

/// A part of the body that is recognised at its place.
fn part(number: usize) -> Vec<u8> {
    let mut part = vec![u8::try_from(number % 251).unwrap(); MIB];
    part[..8].copy_from_slice(&number.to_le_bytes());
    part
}

fn parts() -> Body {
    let parts = futures_util::stream::iter(0..LARGE / MIB);
    Body::from_stream(parts.map(|number| Ok::<_, std::convert::Infallible>(part(number))))
}

/// Wants the parts in order, all of them.
struct Check {
    buffer: Vec<u8>,
    next: usize,
}

impl Check {
    fn new() -> Self {
        Self { buffer: Vec::new(), next: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= MIB {
            assert!(self.buffer[..MIB] == part(self.next), "part {}", self.next);
            self.buffer.drain(..MIB);
            self.next += 1;
        }
    }

    fn is_whole(&self) -> bool {
        self.buffer.is_empty() && self.next == LARGE / MIB
    }
}

#[tokio::test]
async fn two_gibibytes_pass_each_way_in_little_memory() {
    let daemon = Daemon::start().await;
    let app =
        Router::new().route("/down", get(async || ([("content-length", LARGE.to_string())], parts()))).route(
            "/up",
            post(async |mut body: Body| {
                let mut check = Check::new();
                while let Some(frame) = body.frame().await {
                    check.take(frame.unwrap().data_ref().unwrap());
                }
                check.is_whole().to_string()
            }),
        );
    let app = Upstream::serving(app).await;
    let client = daemon.client();
    client.get("/work-dir").ok().await;
    let before = daemon.peak_memory();

    let mut reply = client.get(&app.path("/down")).open().await;
    assert_eq!(reply.content_length(), Some(LARGE as u64));
    let mut check = Check::new();
    while let Some(chunk) = within(reply.chunk()).await.unwrap() {
        check.take(&chunk);
    }
    assert!(check.is_whole());

    // Within more than the usual limit: the whole upload is one step of the test.
    let mut wire = Wire::connect(daemon.address).await;
    let head = format!("HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LARGE}\r\n\r\n");
    wire.send(format!("POST {} {head}", app.path("/up"))).await;
    for number in 0..LARGE / MIB {
        wire.send(part(number)).await;
    }
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    wire.until("true").await.unwrap();
    let grown = daemon.peak_memory() - before;
    assert!(grown < 32 * MIB as u64, "{grown} bytes more");
}
