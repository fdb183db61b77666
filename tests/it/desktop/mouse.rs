//! The pointer: a window tells what it gets.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, Recorder, Seen, within};

const LEFT_DOWN: u16 = 1 << 8;
const SHIFT: u16 = 1;
const CONTROL: u16 = 1 << 2;
const SHIFT_L: u32 = 0xffe1;
const CONTROL_L: u32 = 0xffe3;

struct Stage {
    display: Display,
    daemon: Daemon,
    client: Client,
    window: Recorder,
}

/// A screen of 800 by 600 pixels with a window on all of it.
async fn stage() -> Stage {
    let display = Display::start("800x600x24");
    let daemon = display.daemon().await;
    let window = Recorder::show(&display, 0, 0, 800, 600).await;
    let client = daemon.client();
    Stage { display, daemon, client, window }
}

impl Stage {
    async fn post(&self, path: &str, body: Value) -> Value {
        self.client.post(&format!("/computeruse/mouse/{path}")).json(body).ok().await.json()
    }

    async fn position(&self) -> Value {
        self.client.get("/computeruse/mouse/position").ok().await.json()
    }
}

#[tokio::test]
async fn the_pointer_goes_where_it_is_told_and_stays_on_the_screen() {
    let stage = stage().await;
    assert_eq!(stage.post("move", json!({"x": 150, "y": 250})).await, json!({"x": 150, "y": 250}));
    assert_eq!(stage.position().await, json!({"x": 150, "y": 250}));
    for (sent, is) in [
        (json!({"x": 99999, "y": 99999}), json!({"x": 799, "y": 599})),
        (json!({"x": -1, "y": -99999}), json!({"x": 0, "y": 0})),
        (json!({"x": 2147483647, "y": 10.0}), json!({"x": 799, "y": 10})),
        (json!({"X": 5}), json!({"x": 5, "y": 0})),
        (json!({"x": null, "y": 7}), json!({"x": 0, "y": 7})),
    ] {
        assert_eq!(stage.post("move", sent).await, is);
    }
    stage.post("move", json!({"x": 100, "y": 100})).await;
    let moved = stage.post("move", json!({"x": -30, "y": 5, "relative": true})).await;
    assert_eq!(moved, json!({"x": 70, "y": 105}));
}

#[tokio::test]
async fn a_movement_that_takes_time_has_many_steps() {
    let mut stage = stage().await;
    stage.post("move", json!({"x": 100, "y": 100})).await;
    stage.window.so_far().await;
    let moved = stage.post("move", json!({"x": 300, "y": 200, "durationMs": 160})).await;
    assert_eq!(moved, json!({"x": 300, "y": 200}));
    let seen = stage.window.so_far().await;
    assert!(seen.len() >= 10, "{seen:?}");
    assert_eq!(seen.last(), Some(&Seen::Motion(300, 200, 0)));
}

#[tokio::test]
async fn clicks_land_on_the_pixel_with_the_button_asked_for() {
    let mut stage = stage().await;
    for (name, button) in [
        (json!("left"), 1),
        (json!(" Middle "), 2),
        (json!("RIGHT"), 3),
        (json!("back"), 8),
        (json!("forward"), 9),
        (json!(""), 1),
        (Value::Null, 1),
    ] {
        let at = stage.post("click", json!({"x": 123, "y": 45, "button": name, "double": false})).await;
        assert_eq!(at, json!({"x": 123, "y": 45}));
        let seen = stage.window.take(2).await;
        let state = if button > 5 { 0 } else { LEFT_DOWN << (button - 1) };
        assert_eq!(seen, [Seen::Press(button, 123, 45, 0), Seen::Release(button, 123, 45, state)]);
    }
    assert_eq!(stage.window.so_far().await, []);
}

#[tokio::test]
async fn clicks_are_counted() {
    let mut stage = stage().await;
    for (body, clicks) in [
        (json!({"double": true}), 2),
        (json!({"double": true, "clicks": 1}), 1),
        (json!({"clicks": 3}), 3),
        (json!({"clicks": null, "double": true}), 2),
        (json!({"clicks": 2, "holdMs": 5}), 2),
    ] {
        stage.post("click", body).await;
        let seen = stage.window.so_far().await;
        assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Press(1, 0, 0, 0))).count(), clicks);
        assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Release(1, 0, 0, _))).count(), clicks);
    }
}

#[tokio::test]
async fn modifiers_are_down_during_the_click_alone() {
    let mut stage = stage().await;
    stage.post("click", json!({"x": 5, "y": 6, "modifiers": ["ctrl", "shift"]})).await;
    let both = SHIFT | CONTROL;
    assert_eq!(
        stage.window.take(6).await,
        [
            Seen::KeyDown(CONTROL_L),
            Seen::KeyDown(SHIFT_L),
            Seen::Press(1, 5, 6, both),
            Seen::Release(1, 5, 6, both | LEFT_DOWN),
            Seen::KeyUp(SHIFT_L),
            Seen::KeyUp(CONTROL_L),
        ]
    );
}

#[tokio::test]
async fn a_drag_moves_along_its_path_with_the_button_down() {
    let mut stage = stage().await;
    let body = json!({"startX": 50, "startY": 60, "endX": 350, "endY": 300, "path": [{"x": 350, "y": 60}]});
    assert_eq!(stage.post("drag", body).await, json!({"x": 350, "y": 300}));
    let seen = stage.window.so_far().await;
    let down = seen.iter().position(|seen| *seen == Seen::Press(1, 50, 60, 0)).expect("the button goes down");
    assert_eq!(seen.last(), Some(&Seen::Release(1, 350, 300, LEFT_DOWN)));
    let path = &seen[down + 1..seen.len() - 1];
    assert!(path.len() >= 10, "{path:?}");
    assert!(path.iter().all(|seen| matches!(seen, Seen::Motion(_, _, LEFT_DOWN))), "{path:?}");
    assert!(path.contains(&Seen::Motion(350, 60, LEFT_DOWN)), "it passes the corner");
    assert_eq!(seen[..down].iter().filter(|seen| !matches!(seen, Seen::Motion(..))).count(), 0);
}

#[tokio::test]
async fn a_drag_that_takes_no_time_has_motion_all_the_same() {
    let mut stage = stage().await;
    let body = json!({"startX": 10, "startY": 10, "endX": 22, "endY": 10, "button": "middle", "durationMs": 0, "holdMs": 0});
    stage.post("drag", body).await;
    let seen = stage.window.so_far().await;
    let beyond = seen.iter().filter(|seen| matches!(seen, Seen::Motion(x, 10, _) if *x > 18)).count();
    assert!(beyond >= 2, "{seen:?}");
    assert!(matches!(seen.last(), Some(Seen::Release(2, 22, 10, _))));
}

#[tokio::test]
async fn what_a_client_that_leaves_had_pressed_is_released() {
    let mut stage = stage().await;
    let body = json!({"startX": 10, "startY": 10, "endX": 700, "endY": 500, "durationMs": 60000,
                      "modifiers": ["alt"]});
    let drag = stage.client.post("/computeruse/mouse/drag").json(body).try_send();
    tokio::select! {
        reply = drag => panic!("the drag ended: {reply:?}"),
        () = async {
            while !matches!(stage.window.next().await, Seen::Motion(x, _, state) if x > 10 && state & LEFT_DOWN != 0) {}
        } => {}
    }
    let seen = stage.window.take(2).await;
    assert!(matches!(seen[0], Seen::Release(1, ..)), "{seen:?}");
    assert_eq!(seen[1], Seen::KeyUp(0xffe9));
    // The next one has its turn.
    stage.post("click", json!({"x": 1, "y": 1})).await;
    assert_eq!(stage.window.take(2).await[0], Seen::Press(1, 1, 1, 0));
}

#[tokio::test]
async fn the_wheel_turns_in_four_directions() {
    let mut stage = stage().await;
    for (direction, button) in [("up", 4), ("down", 5), ("left", 6), (" Right", 7)] {
        for (amount, notches) in [(json!(3), 3), (json!(0), 1), (Value::Null, 1)] {
            let body = json!({"x": 20, "y": 30, "direction": direction, "amount": amount});
            assert_eq!(stage.post("scroll", body).await, json!({"success": true}));
            let seen = stage.window.so_far().await;
            let presses = seen.iter().filter(|seen| **seen == Seen::Press(button, 20, 30, 0)).count();
            assert_eq!(presses, notches, "{direction}");
        }
    }
}

#[tokio::test]
async fn a_button_stays_down_until_it_is_told_to_go_up() {
    let mut stage = stage().await;
    stage.post("up", json!({"button": "left"})).await;
    assert_eq!(stage.post("down", json!({"x": 40, "y": 50})).await, json!({"x": 40, "y": 50}));
    stage.post("down", json!({"button": "left"})).await;
    stage.post("move", json!({"x": 60, "y": 50})).await;
    stage.post("up", json!({"x": 70, "y": 50, "button": "left"})).await;
    stage.post("up", json!({})).await;
    let seen = stage.window.so_far().await;
    assert_eq!(
        seen.into_iter().skip_while(|seen| !matches!(seen, Seen::Press(..))).collect::<Vec<_>>(),
        [
            Seen::Press(1, 40, 50, 0),
            Seen::Motion(60, 50, LEFT_DOWN),
            Seen::Motion(70, 50, LEFT_DOWN),
            Seen::Release(1, 70, 50, LEFT_DOWN),
        ]
    );
}

#[tokio::test]
async fn the_daemon_releases_what_is_down_when_it_stops() {
    let mut stage = stage().await;
    stage.post("down", json!({"x": 40, "y": 50})).await;
    stage.client.post("/computeruse/keyboard/down").json(json!({"key": "shift"})).ok().await;
    stage.window.take(2).await;
    stage.daemon.signal("TERM").await;
    let mut seen = stage.window.take(2).await;
    seen.sort_by_key(|seen| matches!(seen, Seen::KeyUp(_)));
    assert!(matches!(seen[0], Seen::Release(1, 40, 50, _)), "{seen:?}");
    assert_eq!(seen[1], Seen::KeyUp(SHIFT_L));
}

#[tokio::test]
async fn coordinates_of_a_smaller_picture_are_converted() {
    let mut stage = stage().await;
    let space = json!({"width": 400, "height": 300});
    let at = stage.post("click", json!({"x": 100, "y": 299, "coordinateSpace": space})).await;
    assert_eq!(at, json!({"x": 100, "y": 299}));
    assert_eq!(stage.position().await, json!({"x": 201, "y": 599}));
    assert!(matches!(stage.window.take(1).await[0], Seen::Press(1, 201, 599, 0)));
}

#[tokio::test]
async fn requests_do_not_mix_their_events() {
    let mut stage = stage().await;
    let clicks = (0..40).map(|index| {
        let body = json!({"x": index * 3, "y": 9, "clicks": 1, "modifiers": ["shift"]});
        stage.client.post("/computeruse/mouse/click").json(body).ok()
    });
    within(futures_util::future::join_all(clicks)).await;
    let seen = stage.window.take(160).await;
    for group in seen.chunks(4) {
        assert_eq!(group[0], Seen::KeyDown(SHIFT_L));
        let Seen::Press(1, x, 9, SHIFT) = group[1] else { panic!("{group:?}") };
        assert_eq!(group[2], Seen::Release(1, x, 9, SHIFT | LEFT_DOWN));
        assert_eq!(group[3], Seen::KeyUp(SHIFT_L));
    }
}

#[tokio::test]
async fn bad_requests_are_told_apart() {
    let mut stage = stage().await;
    for (path, body, code, names) in [
        ("move", json!({"x": 1.5}), "INVALID_REQUEST_BODY", "x"),
        ("move", json!({"y": "1"}), "INVALID_REQUEST_BODY", "y"),
        ("click", json!({"clicks": 0}), "BAD_REQUEST", "clicks"),
        ("click", json!({"button": "center"}), "BAD_REQUEST", "center"),
        ("click", json!({"modifiers": ["hyper"]}), "BAD_REQUEST", "hyper"),
        ("drag", json!({"startX": 3_000_000_000_u32}), "INVALID_REQUEST_BODY", "startx"),
        ("scroll", json!({"direction": ""}), "BAD_REQUEST", "direction"),
        ("scroll", json!({"direction": "up", "amount": 1001}), "BAD_REQUEST", "amount"),
        ("down", json!({"x": 1}), "BAD_REQUEST", "x and y"),
    ] {
        let call = stage.client.post(&format!("/computeruse/mouse/{path}")).json(body);
        let message = call.fails(400, code).await;
        assert!(message.contains(names), "{message}");
    }
    stage.client.post("/computeruse/mouse/click").body("{").fails(400, "INVALID_REQUEST_BODY").await;
    assert_eq!(stage.window.so_far().await, []);
}

#[tokio::test]
async fn without_a_display_every_call_says_so() {
    let daemon = Daemon::start_with(|command| {
        command.env("DISPLAY", ":54321");
    })
    .await;
    let client = daemon.client();
    for path in [
        "mouse/position",
        "screenshot",
        "screenshot/compressed",
        "screenshot/region?x=0&y=0&width=1&height=1",
    ] {
        let message = client.get(&format!("/computeruse/{path}")).fails(503, "SERVICE_UNAVAILABLE").await;
        assert!(message.contains(":54321"), "{message}");
    }
    for (path, body) in [
        ("mouse/move", json!({})),
        ("mouse/click", json!({})),
        ("mouse/drag", json!({})),
        ("mouse/scroll", json!({"direction": "up"})),
        ("mouse/down", json!({})),
        ("mouse/up", json!({})),
        ("keyboard/type", json!({"text": "a"})),
        ("keyboard/key", json!({"key": "a"})),
        ("keyboard/hotkey", json!({"keys": "ctrl+a"})),
        ("keyboard/down", json!({"key": "a"})),
        ("keyboard/up", json!({"key": "a"})),
    ] {
        client.post(&format!("/computeruse/{path}")).json(body).fails(503, "SERVICE_UNAVAILABLE").await;
    }
}

#[tokio::test]
async fn a_display_that_comes_back_is_used_again() {
    let mut stage = stage().await;
    stage.post("down", json!({"x": 10, "y": 10})).await;
    stage.client.post("/computeruse/keyboard/down").json(json!({"key": "ctrl"})).ok().await;
    stage.display.kill();
    for path in ["mouse/position", "screenshot"] {
        stage.client.get(&format!("/computeruse/{path}")).fails(503, "SERVICE_UNAVAILABLE").await;
    }
    stage.display.start_again("640x480x24");
    let mut window = Recorder::show(&stage.display, 0, 0, 640, 480).await;
    assert_eq!(stage.post("click", json!({"x": 9999, "y": 8})).await, json!({"x": 639, "y": 8}));
    // Nothing of what was held is held on the new one.
    assert_eq!(window.take(2).await, [Seen::Press(1, 639, 8, 0), Seen::Release(1, 639, 8, LEFT_DOWN)]);
}

#[tokio::test]
async fn calls_that_a_dying_display_interrupts_end() {
    let mut stage = stage().await;
    let body = json!({"endX": 700, "durationMs": 60000});
    let drag = stage.client.post("/computeruse/mouse/drag").json(body).send();
    let (reply, ()) = tokio::join!(drag, async {
        while !matches!(stage.window.next().await, Seen::Press(1, ..)) {}
        stage.display.kill();
    });
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.json()["code"], "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn a_display_that_does_not_answer_is_given_up() {
    let stage = stage().await;
    stage.position().await;
    let server = stage.display.pid().to_string();
    let signal = async |name: &str| {
        assert!(tokio::process::Command::new("kill").args([name, &server]).status().await.unwrap().success());
    };
    signal("-STOP").await;
    let call = stage.client.get("/computeruse/mouse/position");
    let reply = within(call.send()).await;
    signal("-CONT").await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str().unwrap()), (503, "SERVICE_UNAVAILABLE"));
    stage.position().await;
}

#[tokio::test]
async fn many_events_and_pictures_leave_nothing_behind() {
    let stage = stage().await;
    let used = |stage: &Stage| {
        let count = |pid: u32, what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        (count(stage.daemon.pid(), "fd"), count(stage.display.pid(), "fd"))
    };
    let round = async |count: usize| {
        for index in 0..count {
            stage.post("click", json!({"x": index, "y": 3, "modifiers": ["ctrl"]})).await;
            stage.client.get("/computeruse/screenshot/region?x=0&y=0&width=64&height=64").ok().await;
        }
        stage.client.post("/computeruse/keyboard/type").json(json!({"text": "a世"})).ok().await;
    };
    round(5).await;
    let before = used(&stage);
    round(100).await;
    assert_eq!(used(&stage), before);
}
