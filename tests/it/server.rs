//! Routing, envelopes, authentication, time-outs, shutdown.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Daemon, program, within};

/// Sends bytes as they are and returns all that comes back.
async fn raw(daemon: &Daemon, request: &str) -> String {
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    within(stream.read_to_end(&mut reply)).await.unwrap();
    String::from_utf8(reply).unwrap()
}

#[tokio::test]
async fn every_prefix_and_both_slash_forms_reach_the_same_route() {
    let daemon = Daemon::start().await;
    for path in
        ["/version", "/version/", "/box/version", "/toolbox/box/version", "/api/toolbox/box/toolbox/version"]
    {
        assert_eq!(
            daemon.client().get(path).ok().await.json()["version"],
            concat!("v", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_get_an_envelope_with_404() {
    let daemon = Daemon::start().await;
    let message = daemon.client().get("/process/unknown").fails(404, "NOT_FOUND").await;
    assert_eq!(message, "not found: there is no GET /process/unknown");
    daemon.client().delete("/version").fails(404, "NOT_FOUND").await;
}

#[tokio::test]
async fn heads_up_to_128_kib_are_read() {
    let daemon = Daemon::start().await;
    let value = "x".repeat(120 * 1024);
    daemon.client().get("/version").header("x-large", &value).ok().await;
}

#[tokio::test]
async fn a_token_is_wanted_wherever_it_can_be_given_and_shows_nowhere() {
    let daemon = Daemon::start_with(|command| {
        command.env("TOOLBOXD_TOKEN", "s3cret-token");
    })
    .await;
    let client = daemon.client();
    client.get("/version").ok().await;
    client.get("/work-dir").fails(401, "UNAUTHORIZED").await;
    client.get("/work-dir").header("authorization", "Bearer wrong").fails(401, "UNAUTHORIZED").await;
    client.get("/work-dir").header("authorization", "Bearer s3cret-token").ok().await;
    client.get("/work-dir").header("x-daytona-preview-token", "s3cret-token").ok().await;
    client.get("/work-dir?DAYTONA_SANDBOX_AUTH_KEY=s3cret-token").ok().await;
    let process = format!("/proc/{}", daemon.pid());
    for file in ["environ", "cmdline"] {
        let shown = std::fs::read(format!("{process}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&shown).contains("s3cret-token"), "{file}");
    }
    assert!(!daemon.log().contains("s3cret-token"));
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_on_loopback() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.get("/work-dir").header("host", "localhost:2280").ok().await;
    client.get("/work-dir").header("host", "3000-box.localhost:2280").ok().await;
    client.get("/work-dir").header("host", "evil.example").fails(403, "FORBIDDEN").await;
    client.get("/work-dir").header("origin", "https://evil.example").fails(403, "FORBIDDEN").await;
    client.get("/work-dir").header("origin", "null").fails(403, "FORBIDDEN").await;
    client.get("/work-dir").header("origin", "http://localhost:5173").ok().await;
    client.get("/version").header("host", "evil.example").ok().await;
}

#[tokio::test]
async fn a_platform_is_served_from_anywhere_without_a_token() {
    let daemon = Daemon::start_with(|command| {
        command.env("DAYTONA_SANDBOX_ID", "box");
    })
    .await;
    daemon
        .client()
        .get("/work-dir")
        .header("host", "proxy.example")
        .header("origin", "https://a.example")
        .ok()
        .await;
}

#[tokio::test]
async fn a_token_is_made_and_printed_when_others_can_connect() {
    let mut daemon = Daemon::start_with(|command| {
        command.args(["--listen", "0.0.0.0:0"]);
    })
    .await;
    daemon.address.set_ip([127, 0, 0, 1].into());
    let line = daemon.next_line().await.unwrap();
    let token = line.strip_prefix("token (none was set): ").unwrap();
    assert!(token.len() >= 32);
    daemon.client().get("/work-dir").fails(401, "UNAUTHORIZED").await;
    daemon.client().get("/work-dir").header("authorization", &format!("Bearer {token}")).ok().await;
}

#[tokio::test]
async fn control_endpoints_can_be_closed_to_the_inside() {
    let daemon = Daemon::start_with(|command| {
        command.args(["--control-from", "outside"]);
    })
    .await;
    let body = serde_json::json!({"set": {"A": "1"}});
    daemon.client().post("/env").json(body).fails(403, "FORBIDDEN").await;
    daemon.client().get("/work-dir").ok().await;
}

#[tokio::test]
async fn a_request_has_an_id_and_one_log_line_and_version_has_none() {
    let daemon = Daemon::start().await;
    daemon.client().get("/version").ok().await;
    let reply = daemon.client().get("/work-dir").header("x-request-id", "my-request").ok().await;
    assert_eq!(reply.header("x-request-id"), "my-request");
    let reply = daemon.client().get("/nothing?secret=1").send().await;
    let id = reply.header("x-request-id").to_owned();
    assert_eq!(id.len(), 36);
    let log = daemon.log();
    assert_eq!(log.matches("my-request").count(), 1, "{log}");
    assert_eq!(log.matches(&id).count(), 1, "{log}");
    assert!(!log.contains("/version") && !log.contains("secret"), "{log}");
}

#[tokio::test]
async fn a_bad_setting_ends_the_program_with_2_and_its_name() {
    let output = tokio::process::Command::new(program())
        .env("DAYTONA_TERMINATION_GRACE_PERIOD", "10ms")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--termination-grace-period"), "{text}");
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let daemon = Daemon::start().await;
    let output = tokio::process::Command::new(program())
        .args(["--listen", &daemon.address.to_string()])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("{}: address already in use", daemon.address)), "{text}");
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut daemon = Daemon::start().await;
        // A keep-alive connection that is idle does not hold the daemon up.
        let client = daemon.client();
        client.get("/version").ok().await;
        daemon.signal(signal).await;
        assert_eq!(daemon.exited().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_does_not_cost_the_connection() {
    let daemon = Daemon::start().await;
    for head in ["POST /nothing", "POST /port", "POST /files/folder?path=x&mode=bad"] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        let head = format!("{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The client writes its body after the reply has left, and all of it before it looks.
        let mut buffer = [0; 1];
        within(stream.peek(&mut buffer)).await.unwrap();
        within(stream.write_all(&vec![b'x'; 300_000])).await.unwrap();
        stream
            .write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut reply = String::new();
        within(stream.read_to_string(&mut reply)).await.unwrap();
        let (first, second) = reply.split_once("HTTP/1.1 200 OK").unwrap_or_else(|| panic!("{reply}"));
        assert!(first.starts_with("HTTP/1.1 4") && !first.contains("close"), "{first}");
        assert!(second.contains("version"), "{second}");
    }
}

#[tokio::test]
async fn a_body_that_was_not_asked_for_is_not_awaited() {
    let daemon = Daemon::start().await;
    let head =
        "POST /nothing HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let reply = raw(&daemon, head).await;
    assert!(reply.starts_with("HTTP/1.1 404") && reply.contains("connection: close"), "{reply}");
}

#[tokio::test]
async fn a_request_without_a_host_name_is_answered() {
    let daemon = Daemon::start().await;
    let reply = raw(&daemon, "GET /work-dir HTTP/1.0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.0 200"), "{reply}");
}

#[tokio::test]
async fn the_program_checks_the_health_of_a_daemon() {
    let mut daemon = Daemon::start().await;
    let check = |address: String| async move {
        let mut command = tokio::process::Command::new(program());
        let output =
            command.arg("--health").env_clear().env("TOOLBOXD_LISTEN", address).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let address = daemon.address.to_string();
    assert_eq!(check(address.clone()).await, (Some(0), String::new()));
    // All interfaces are asked on loopback.
    assert_eq!(check(format!("0.0.0.0:{}", daemon.address.port())).await, (Some(0), String::new()));
    daemon.signal("TERM").await;
    daemon.exited().await;
    let (code, text) = check(address.clone()).await;
    assert_eq!(code, Some(1));
    assert!(text.starts_with(&format!("toolboxd: {address}: ")), "{text}");
}
