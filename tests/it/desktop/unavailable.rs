//! Every endpoint of the desktop where there is none.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Daemon, free_display};

/// Every endpoint that needs a screen, with a request that makes sense.
fn requests() -> Vec<(&'static str, &'static str, Option<Value>)> {
    vec![
        ("GET", "mouse/position", None),
        ("POST", "mouse/move", Some(json!({"x": 1, "y": 1}))),
        ("POST", "mouse/click", Some(json!({"x": 1, "y": 1}))),
        ("POST", "mouse/drag", Some(json!({"startX": 1, "startY": 1, "endX": 2, "endY": 2}))),
        ("POST", "mouse/scroll", Some(json!({"x": 1, "y": 1, "direction": "up"}))),
        ("POST", "mouse/down", Some(json!({}))),
        ("POST", "mouse/up", Some(json!({}))),
        ("POST", "keyboard/type", Some(json!({"text": "a"}))),
        ("POST", "keyboard/key", Some(json!({"key": "a"}))),
        ("POST", "keyboard/hotkey", Some(json!({"keys": "ctrl+a"}))),
        ("POST", "keyboard/down", Some(json!({"key": "a"}))),
        ("POST", "keyboard/up", Some(json!({"key": "a"}))),
        ("GET", "screenshot", None),
        ("GET", "screenshot/region?x=0&y=0&width=1&height=1", None),
        ("GET", "screenshot/compressed", None),
        ("GET", "screenshot/region/compressed?x=0&y=0&width=1&height=1", None),
        ("GET", "display/info", None),
        ("GET", "display/windows", None),
        ("PATCH", "display", Some(json!({"width": 640, "height": 480}))),
        ("PATCH", "display/windows/1", Some(json!({"x": 1}))),
        ("POST", "display/windows/1/focus", None),
        ("GET", "clipboard", None),
        ("PUT", "clipboard", Some(json!({"text": "a"}))),
        ("GET", "wait", None),
        ("POST", "batch", Some(json!({"actions": [{"type": "move", "x": 1, "y": 1}]}))),
        ("POST", "launch", Some(json!({"command": "true"}))),
    ]
}

/// Those of the life cycle, which tell how things are where a desktop could be started.
const LIFE: &[(&str, &str)] = &[
    ("POST", "start"),
    ("POST", "stop"),
    ("GET", "status"),
    ("GET", "process-status"),
    ("GET", "process/xvfb/status"),
    ("POST", "process/xvfb/restart"),
    ("GET", "process/xvfb/logs"),
    ("GET", "process/xvfb/errors"),
];

async fn refused(client: &Client, method: &str, path: &str, body: Option<Value>) -> Value {
    let path = format!("/computeruse/{path}");
    let call = client.request(method.parse().unwrap(), &path);
    let reply = match body {
        Some(body) => call.json(body),
        None => call,
    };
    let reply = reply.send().await;
    assert_eq!(reply.status, 503, "{method} {path}: {}", reply.text());
    assert_eq!(reply.json()["code"], "SERVICE_UNAVAILABLE", "{method} {path}");
    reply.json()
}

#[tokio::test]
async fn an_image_without_a_desktop_says_so_everywhere_in_the_words_that_the_platform_knows() {
    let empty = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(|command| {
        command.env("PATH", empty.path()).env("DISPLAY", free_display());
    })
    .await;
    let client = daemon.client();
    let life = LIFE.iter().map(|(method, path)| (*method, *path, None));
    let (mut count, began) = (0, Instant::now());
    for (method, path, body) in requests().into_iter().chain(life) {
        let reply = refused(&client, method, path, body).await;
        assert_eq!(reply["message"], "Computer-use functionality is not available", "{method} {path}");
        for program in ["Xvfb", "x11vnc", "window manager"] {
            assert!(reply["details"].as_str().unwrap().contains(program), "{reply}");
        }
        assert!(reply["solution"].as_str().unwrap().contains("xvfb"), "{reply}");
        count += 1;
    }
    assert!(began.elapsed() < Duration::from_secs(1) * count, "a second each at most");
    let (status, body) = client.upgrade("/computeruse/events", &[]).await.unwrap_err();
    assert_eq!(status, 503, "{body}");
}

#[tokio::test]
async fn a_desktop_that_is_not_started_says_how_to_start_it() {
    let display = free_display();
    let daemon = Daemon::start_with(|command| {
        command.env("DISPLAY", &display);
    })
    .await;
    let client = daemon.client();
    for (method, path, body) in requests() {
        let reply = refused(&client, method, path, body).await;
        let message = reply["message"].as_str().unwrap();
        assert_eq!(message, format!("computer use is not running on display {display}: call start first"));
    }
    assert_eq!(client.get("/computeruse/status").ok().await.json(), json!({"status": "inactive"}));
    client.post("/computeruse/stop").ok().await;
}

#[tokio::test]
async fn every_endpoint_of_the_desktop_is_among_those() {
    let daemon = Daemon::start().await;
    let document = daemon.client().get("/openapi.json").ok().await.json();
    let paths =
        document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/computeruse/"));
    let known: Vec<String> = requests()
        .iter()
        .map(|(method, path, _)| (*method, *path))
        .chain(LIFE.iter().copied())
        .map(|(method, path)| format!("{method} {}", path.split('?').next().unwrap()))
        .collect();
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            let path = path.trim_start_matches("/computeruse/");
            let path =
                path.replace("{processName}", "xvfb").replace("{id}", "1").replace("{action}", "focus");
            let request = format!("{} {path}", method.to_uppercase());
            let elsewhere = ["events", "recordings", "a11y"].iter().any(|part| path.starts_with(part));
            assert!(elsewhere || known.contains(&request), "{request}");
        }
    }
}
