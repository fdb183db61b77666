//! Waiting for the screen, and events of the desktop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, Recorder, Socket, within};

async fn stage() -> (Display, Daemon, Client, Recorder) {
    let display = Display::start("640x480x24");
    let daemon = display.daemon().await;
    let window = Recorder::show(&display, 100, 100, 100, 100).await;
    let client = daemon.client();
    (display, daemon, client, window)
}

/// Draws on a window until told to stop, or for a time.
fn animate(window: Recorder, time: Option<Duration>) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Recorder>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let painting = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let mut colour = 0_u8;
        while !stopping.load(Ordering::Relaxed) && time.is_none_or(|time| began.elapsed() < time) {
            colour = colour.wrapping_add(1);
            window.paint(100, 100, &[colour; 100 * 100 * 4]);
        }
        window
    });
    (stop, painting)
}

async fn wait(client: &Client, query: &str) -> Value {
    client.get(&format!("/computeruse/wait?{query}")).ok().await.json()
}

#[tokio::test]
async fn a_screen_that_becomes_still_is_waited_for() {
    let (_display, _daemon, client, window) = stage().await;
    let still = wait(&client, "stableMs=50").await;
    assert_eq!((&still["settled"], &still["changed"]), (&json!(true), &json!(false)), "{still}");
    let (_, painting) = animate(window, Some(Duration::from_millis(700)));
    let settled = wait(&client, "stableMs=400&timeoutMs=60000").await;
    assert_eq!((&settled["settled"], &settled["changed"]), (&json!(true), &json!(true)), "{settled}");
    assert!(painting.is_finished(), "{settled}");
    assert!(settled["elapsedMs"].as_u64().unwrap() >= 400);
    assert!(settled["frame"].as_u64() > still["frame"].as_u64());
}

#[tokio::test]
async fn a_screen_that_is_never_still_ends_the_wait_at_its_limit_except_where_it_does_not_count() {
    let (_display, _daemon, client, window) = stage().await;
    let (stop, painting) = animate(window, None);
    let changed = wait(&client, "until=change&timeoutMs=60000").await;
    assert_eq!((&changed["settled"], &changed["changed"]), (&json!(true), &json!(true)));
    let moving = wait(&client, "stableMs=30000&timeoutMs=300").await;
    assert_eq!((&moving["settled"], &moving["changed"]), (&json!(false), &json!(true)));
    assert!(moving["elapsedMs"].as_u64().unwrap() >= 300);
    for elsewhere in
        ["ignore=100,100,100,100", "ignore=0,0,5,5;90,90,120,120", "x=0&y=0&width=100&height=480"]
    {
        let still = wait(&client, &format!("stableMs=200&timeoutMs=60000&{elsewhere}")).await;
        assert_eq!(
            (&still["settled"], &still["changed"]),
            (&json!(true), &json!(false)),
            "{elsewhere}: {still}"
        );
    }
    let there = wait(&client, "x=150&y=150&width=1&height=1&until=change&timeoutMs=60000").await;
    assert_eq!(there["changed"], true);
    stop.store(true, Ordering::Relaxed);
    within(painting).await.unwrap();
    let nothing = wait(&client, "until=change&timeoutMs=100&x=0&y=0&width=5&height=5").await;
    assert_eq!((&nothing["settled"], &nothing["changed"]), (&json!(false), &json!(false)));
    for (query, word) in [
        ("x=1", "come together"),
        ("stableMs=x", "stableMs"),
        ("timeoutMs=600001", "timeoutMs"),
        ("until=later", "later"),
        ("ignore=1,2,3", "ignore"),
    ] {
        let message = client.get(&format!("/computeruse/wait?{query}")).fails(400, "BAD_REQUEST").await;
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test]
async fn an_action_can_wait_for_its_effect_and_reply_with_a_picture() {
    let mut display = Display::start("640x480x24");
    let directory = tempfile::tempdir().unwrap();
    display.manage(directory.path()).await;
    display.open("xterm", &["-T", "terminal", "-e", "cat"], directory.path(), "terminal").await;
    let daemon = display.daemon().await;
    let client = daemon.client();
    let window = client.get("/computeruse/display/windows").ok().await.json()["windows"][0].clone();
    client.post(&format!("/computeruse/display/windows/{}/focus", window["id"])).ok().await;
    let body = json!({"text": "hello", "settle": {"stableMs": 50, "timeoutMs": 20000}, "screenshot": {"scale": 0.5, "detail": true}});
    let reply = client.post("/computeruse/keyboard/type").json(body).ok().await.json();
    assert_eq!(reply["settle"]["changed"], true, "{}", reply["settle"]);
    assert_eq!((&reply["screenshot"]["width"], &reply["screenshot"]["height"]), (&json!(320), &json!(240)));
    assert!(reply["screenshot"]["screenshot"].as_str().unwrap().starts_with("iVBOR"));
    let body = json!({"x": 3, "y": 4, "settle": true, "screenshot": true});
    let reply = client.post("/computeruse/mouse/move").json(body).ok().await.json();
    assert_eq!(
        (&reply["x"], &reply["y"], &reply["screenshot"]["cursorPosition"]["x"]),
        (&json!(3), &json!(4), &json!(3))
    );
    // Not asked for, not there.
    let reply = client.post("/computeruse/mouse/move").json(json!({"x": 5, "y": 6})).ok().await.json();
    assert_eq!(reply, json!({"x": 5, "y": 6}));
    let body = json!({"x": 3, "y": 4, "screenshot": {"scale": 5}});
    let message = client.post("/computeruse/mouse/move").json(body).fails(400, "BAD_REQUEST").await;
    assert!(message.contains("scale"), "{message}");
    assert_eq!(client.get("/computeruse/mouse/position").ok().await.json(), json!({"x": 5, "y": 6}));
}

/// The next event of a kind; others may come before.
async fn event(socket: &mut Socket, kind: &str) -> Value {
    let told = async {
        loop {
            let event = socket.json().await;
            if event["type"] == kind {
                return event;
            }
        }
    };
    within(told).await
}

#[tokio::test]
async fn windows_and_the_clipboard_are_followed() {
    let mut display = Display::start("640x480x24");
    let directory = tempfile::tempdir().unwrap();
    display.manage(directory.path()).await;
    let daemon = display.daemon().await;
    let client = daemon.client();
    let mut events = client.socket("/computeruse/events").await;
    assert_eq!(events.json().await, json!({"type": "ready", "display": true}));
    let script = "read line; printf '\\033]2;renamed\\007'; cat";
    display.open("xterm", &["-T", "fresh", "-e", "sh", "-c", script], directory.path(), "fresh").await;
    let opened = event(&mut events, "windowOpened").await;
    assert_eq!(opened["window"]["title"], "fresh");
    let id = &opened["window"]["id"];
    client.post(&format!("/computeruse/display/windows/{id}/focus")).ok().await;
    while event(&mut events, "windowFocused").await["id"] != *id {}
    client.post("/computeruse/keyboard/key").json(json!({"key": "enter"})).ok().await;
    let renamed = event(&mut events, "windowRetitled").await;
    assert_eq!((&renamed["id"], &renamed["title"]), (id, &json!("renamed")));
    client.patch(&format!("/computeruse/display/windows/{id}")).json(json!({"x": 60, "y": 70})).ok().await;
    while event(&mut events, "windowMoved").await["window"]["x"] != 60 {}
    client.put("/computeruse/clipboard").json(json!({"text": "a"})).ok().await;
    assert_eq!(event(&mut events, "clipboard").await["selection"], "clipboard");
    client.post(&format!("/computeruse/display/windows/{id}/close")).ok().await;
    assert_eq!(event(&mut events, "windowClosed").await["id"], *id);
    display.kill();
    event(&mut events, "displayLost").await;
}

#[tokio::test]
async fn what_is_drawn_is_told_to_who_wants_it() {
    let (_display, _daemon, client, window) = stage().await;
    let mut damage = client.socket("/computeruse/events?types=damage").await;
    assert_eq!(damage.json().await["type"], "ready");
    window.paint(100, 100, &[7; 100 * 100 * 4]);
    let drawn = damage.json().await;
    assert_eq!(
        drawn,
        json!({"type": "damage", "areas": [{"x": 100, "y": 100, "width": 100, "height": 100}]})
    );
    let (status, body) = client.upgrade("/computeruse/events?types=all", &[]).await.unwrap_err();
    assert!(status == 400 && body.contains("all"), "{body}");
}

#[tokio::test]
async fn waiting_leaves_nothing_behind_on_the_server() {
    let (display, daemon, client, window) = stage().await;
    wait(&client, "stableMs=1").await;
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = (descriptors(display.pid()), descriptors(daemon.pid()));
    let (_, painting) = animate(window, Some(Duration::from_millis(200)));
    for _ in 0..50 {
        wait(&client, "stableMs=1&timeoutMs=20").await;
    }
    within(painting).await.unwrap();
    assert_eq!((descriptors(display.pid()), descriptors(daemon.pid())), before);
}
