//! Single keys and chords: a window tells what it gets.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, Recorder, Seen};

const SHIFT_L: u32 = 0xffe1;
const CONTROL_L: u32 = 0xffe3;

struct Stage {
    display: Display,
    _daemon: Daemon,
    client: Client,
    window: Recorder,
}

async fn stage() -> Stage {
    let display = Display::start("640x480x24");
    let daemon = display.daemon().await;
    let window = Recorder::show(&display, 0, 0, 640, 480).await;
    let client = daemon.client();
    Stage { display, _daemon: daemon, client, window }
}

impl Stage {
    async fn post(&self, path: &str, body: Value) {
        let reply = self.client.post(&format!("/computeruse/keyboard/{path}")).json(body).ok().await;
        assert_eq!(reply.json(), json!({}));
        assert_eq!(reply.header("content-type"), "application/json");
    }

    async fn refused(&self, path: &str, body: Value) -> String {
        self.client.post(&format!("/computeruse/keyboard/{path}")).json(body).fails(400, "BAD_REQUEST").await
    }

    fn keyboard(&self) -> String {
        self.display.keyboard()
    }
}

#[tokio::test]
async fn every_name_presses_its_key() {
    let mut stage = stage().await;
    let before = stage.keyboard();
    let mut names: Vec<(String, u32)> = Vec::new();
    names.extend(('a'..='z').map(|letter| (letter.to_string(), letter.into())));
    names.extend(('0'..='9').map(|digit| (digit.to_string(), digit.into())));
    names.extend("`-=[]\\;',./".chars().map(|mark| (mark.to_string(), mark.into())));
    names.extend((1..=24).map(|number| (format!("f{number}"), 0xffbd + number)));
    names.extend((0..=9).map(|digit| (format!("num{digit}"), 0xffb0 + digit)));
    for (name, symbol) in [
        ("A", 0x61),
        ("enter", 0xff0d),
        ("Return", 0xff0d),
        ("tab", 0xff09),
        ("escape", 0xff1b),
        ("esc", 0xff1b),
        ("backspace", 0xff08),
        ("delete", 0xffff),
        ("del", 0xffff),
        ("space", 0x20),
        ("spacebar", 0x20),
        ("insert", 0xff63),
        ("home", 0xff50),
        ("end", 0xff57),
        ("pageup", 0xff55),
        ("Page-Down", 0xff56),
        ("up", 0xff52),
        ("down", 0xff54),
        ("left", 0xff51),
        ("right", 0xff53),
        ("menu", 0xff67),
        ("num_plus", 0xffab),
        ("num_minus", 0xffad),
        ("num_asterisk", 0xffaa),
        ("num_slash", 0xffaf),
        ("num_decimal", 0xffae),
        ("num_enter", 0xff8d),
        ("num_equal", 0xffbd),
        ("ctrl", CONTROL_L),
        ("control", CONTROL_L),
        ("option", 0xffe9),
        ("shift", SHIFT_L),
        ("windows", 0xffeb),
        ("rctrl", 0xffe4),
        ("right_shift", 0xffe2),
        ("lcmd", 0xffeb),
        ("rcmd", 0xffec),
        ("XF86AudioMute", 0x1008_ff12),
        ("Print", 0xff61),
        ("eacute", 0xe9),
    ] {
        names.push((name.into(), symbol));
    }
    for (name, symbol) in names {
        stage.post("key", json!({"key": name, "modifiers": []})).await;
        assert_eq!(stage.window.take(2).await, [Seen::KeyDown(symbol), Seen::KeyUp(symbol)], "{name}");
    }
    // Locks are real: twice each.
    for (name, symbol) in [("capslock", 0xffe5), ("num_lock", 0xff7f)].repeat(2) {
        stage.post("key", json!({"key": name})).await;
        assert_eq!(stage.window.take(2).await, [Seen::KeyDown(symbol), Seen::KeyUp(symbol)], "{name}");
    }
    assert_eq!(stage.keyboard(), before);
}

#[tokio::test]
async fn a_chord_goes_down_in_order_and_up_in_reverse() {
    let mut stage = stage().await;
    let expected = [
        Seen::KeyDown(CONTROL_L),
        Seen::KeyDown(SHIFT_L),
        Seen::KeyDown(0x74),
        Seen::KeyUp(0x74),
        Seen::KeyUp(SHIFT_L),
        Seen::KeyUp(CONTROL_L),
    ];
    stage.post("hotkey", json!({"keys": "ctrl+shift+t"})).await;
    assert_eq!(stage.window.take(6).await, expected);
    stage.post("key", json!({"key": "T", "modifiers": ["Control", "shift"], "holdMs": 5})).await;
    assert_eq!(stage.window.take(6).await, expected);
    stage.post("hotkey", json!({"keys": " F5 "})).await;
    assert_eq!(stage.window.take(2).await, [Seen::KeyDown(0xffc2), Seen::KeyUp(0xffc2)]);
    assert_eq!(stage.window.so_far().await, []);
}

#[tokio::test]
async fn keys_that_the_map_lacks_are_lent_one() {
    let mut stage = stage().await;
    stage.display.layout("ru", 0);
    let before = stage.keyboard();
    stage.post("hotkey", json!({"keys": "ctrl+c"})).await;
    assert_eq!(
        stage.window.take(4).await,
        [Seen::KeyDown(CONTROL_L), Seen::KeyDown(0x63), Seen::KeyUp(0x63), Seen::KeyUp(CONTROL_L)]
    );
    stage.post("down", json!({"key": "f13"})).await;
    assert_ne!(stage.keyboard(), before);
    stage.post("up", json!({"key": "F13"})).await;
    assert_eq!(stage.window.take(2).await, [Seen::KeyDown(0xffca), Seen::KeyUp(0xffca)]);
    assert_eq!(stage.keyboard(), before);
}

#[tokio::test]
async fn a_key_stays_down_until_it_is_told_to_go_up() {
    let mut stage = stage().await;
    stage.post("up", json!({"key": "shift"})).await;
    stage.post("down", json!({"key": "shift"})).await;
    stage.post("down", json!({"key": "lshift"})).await;
    // Modifiers that are down already stay down.
    stage.post("key", json!({"key": "a", "modifiers": ["shift"]})).await;
    stage.post("up", json!({"key": "shift"})).await;
    stage.post("up", json!({"key": "shift"})).await;
    assert_eq!(
        stage.window.so_far().await,
        [Seen::KeyDown(SHIFT_L), Seen::KeyDown(0x61), Seen::KeyUp(0x61), Seen::KeyUp(SHIFT_L)]
    );
    assert!(stage.refused("down", json!({})).await.contains("empty key token"));
}

#[tokio::test]
async fn a_held_key_is_released_when_nothing_happens() {
    let display = Display::start("640x480x24");
    let daemon = display
        .daemon_with(|command| {
            command.env("TOOLBOXD_HELD_KEY_TIMEOUT", "150ms");
        })
        .await;
    let mut window = Recorder::show(&display, 0, 0, 640, 480).await;
    daemon.client().post("/computeruse/keyboard/down").json(json!({"key": "alt"})).ok().await;
    assert_eq!(window.take(2).await, [Seen::KeyDown(0xffe9), Seen::KeyUp(0xffe9)]);
}

#[tokio::test]
async fn the_key_of_a_client_that_leaves_is_released() {
    let mut stage = stage().await;
    let body = json!({"key": "a", "modifiers": ["ctrl"], "holdMs": 60000});
    let press = stage.client.post("/computeruse/keyboard/key").json(body).try_send();
    let mut seen = Vec::new();
    tokio::select! {
        reply = press => panic!("the press ended: {reply:?}"),
        () = async { seen = stage.window.take(2).await } => {}
    }
    assert_eq!(seen, [Seen::KeyDown(CONTROL_L), Seen::KeyDown(0x61)]);
    // It may have repeated itself, and the modifier goes up last.
    while stage.window.next_still().await != Seen::KeyUp(CONTROL_L) {}
    assert_eq!(stage.window.so_far().await, []);
}

#[tokio::test]
async fn refusals_name_the_token_and_press_nothing() {
    let mut stage = stage().await;
    for (path, body, names) in [
        ("key", json!({"key": ""}), "empty key token"),
        ("key", json!({"key": " "}), "space"),
        ("key", json!({"key": "!"}), "'1'"),
        ("key", json!({"key": "é"}), "use type"),
        ("key", json!({"key": "FooBar"}), "FooBar"),
        ("key", json!({"key": "num+"}), "num_plus"),
        ("key", json!({"key": "a", "modifiers": ["lshift"]}), "lshift"),
        ("key", json!({"key": "a", "modifiers": ["cmd", "meta"]}), "twice"),
        ("key", json!({"key": "shift", "modifiers": ["shift"]}), "itself"),
        ("hotkey", json!({"keys": "ctrl++c"}), "invalid hotkey \"ctrl++c\": "),
        ("hotkey", json!({"keys": "a+b"}), "invalid hotkey \"a+b\": "),
        ("hotkey", json!({"keys": "  "}), "invalid hotkey \"  \": "),
        ("type", json!({"text": "abc\u{7}"}), "U+0007"),
        ("type", json!({"text": "abc\tdef"}), "U+0009"),
        ("type", json!({"text": "abc\u{2028}"}), "U+2028"),
        ("type", json!({"text": "abcdef", "delay": 100_000}), "300 seconds"),
    ] {
        let message = stage.refused(path, body).await;
        assert!(message.contains(names), "{message}");
    }
    assert_eq!(stage.window.so_far().await, []);
}
