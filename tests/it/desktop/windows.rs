//! Windows of real programs under a window manager.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt, CreateWindowAux, PropMode, WindowClass};
use x11rb::wrapper::ConnectionExt as _;

use crate::support::{Client, Daemon, Display};

struct Stage {
    display: Display,
    _daemon: Daemon,
    client: Client,
    directory: TempDir,
}

/// A managed screen.
async fn stage() -> Stage {
    let mut display = Display::start("1024x768x24");
    let directory = tempfile::tempdir().unwrap();
    display.manage(directory.path()).await;
    let daemon = display.daemon().await;
    let client = daemon.client();
    Stage { display, _daemon: daemon, client, directory }
}

impl Stage {
    async fn terminal(&mut self, title: &str, geometry: &str) {
        let arguments = ["-T", title, "-geometry", geometry, "-e", "cat"];
        let directory = self.directory.path().to_owned();
        self.display.open("xterm", &arguments, &directory, title).await;
    }

    /// The window with a title, with all that is known of it.
    async fn window(&self, title: &str) -> Value {
        let windows = self.client.get("/computeruse/display/windows?detail=true").ok().await.json();
        let found = windows["windows"].as_array().unwrap().iter().find(|window| window["title"] == title);
        found.unwrap_or_else(|| panic!("{windows}")).clone()
    }

    async fn act(&self, window: &Value, action: &str) -> Value {
        let path = format!("/computeruse/display/windows/{}/{action}", window["id"]);
        self.client.post(&path).ok().await.json()
    }

    async fn place(&self, window: &Value, place: Value) -> Value {
        let path = format!("/computeruse/display/windows/{}?timeoutMs=20000", window["id"]);
        self.client.patch(&path).json(place).ok().await.json()
    }
}

#[tokio::test]
async fn windows_have_their_real_places_and_the_one_on_top_comes_last() {
    let mut stage = stage().await;
    stage.terminal("first", "40x10+100+200").await;
    stage.terminal("second", "40x10+300+50").await;
    let second = stage.window("second").await;
    assert_eq!(stage.act(&second, "focus").await["done"], true);

    let reply = stage.client.get("/computeruse/display/windows").ok().await.json();
    let windows = reply["windows"].as_array().unwrap();
    assert_eq!(reply["count"], 2);
    let names: Vec<_> = windows.iter().map(|window| window["title"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!((&windows[0]["isActive"], &windows[1]["isActive"]), (&json!(false), &json!(true)));
    let members: Vec<_> = windows[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["height", "id", "isActive", "title", "width", "x", "y"]);

    let x = stage.display.connect();
    let root = x.setup().roots[0].root;
    for window in windows {
        let id = u32::try_from(window["id"].as_u64().unwrap()).unwrap();
        let geometry = x.get_geometry(id).unwrap().reply().unwrap();
        let origin = x.translate_coordinates(id, root, 0, 0).unwrap().reply().unwrap();
        let place = json!([origin.dst_x, origin.dst_y, geometry.width, geometry.height]);
        assert_eq!(json!([window["x"], window["y"], window["width"], window["height"]]), place);
    }
    let detail = stage.window("first").await;
    assert_eq!((&detail["appName"], &detail["type"]), (&json!("XTerm"), &json!("normal")));
    assert_eq!((&detail["minimized"], &detail["maximized"]), (&json!(false), &json!(false)));
    let pid = detail["pid"].as_u64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}/exe")).read_link().unwrap().ends_with("xterm"));
    assert!(detail["frame"]["height"].as_u64() > detail["height"].as_u64(), "{detail}");
}

#[tokio::test]
async fn without_a_window_manager_visible_windows_are_listed() {
    let mut display = Display::start("800x600x24");
    let directory = tempfile::tempdir().unwrap();
    display.open("xterm", &["-T", "alone", "-e", "cat"], directory.path(), "alone").await;
    let daemon = display.daemon().await;
    let client = daemon.client();
    let reply = client.get("/computeruse/display/windows").ok().await.json();
    assert_eq!((&reply["count"], &reply["windows"][0]["title"]), (&json!(1), &json!("alone")));
    let window = format!("/computeruse/display/windows/{}", reply["windows"][0]["id"]);
    let placed = client.patch(&window).json(json!({"x": 30, "y": 40})).ok().await.json();
    // Its own border is outside of it.
    assert_eq!(placed["done"], true, "{placed}");
    client.post(&format!("{window}/raise")).ok().await;
    assert_eq!(client.post(&format!("{window}/focus")).ok().await.json()["window"]["isActive"], true);
    let message = client.post(&format!("{window}/maximize")).fails(409, "CONFLICT").await;
    assert!(message.contains("no window manager runs"), "{message}");
    assert_eq!(
        client.post(&format!("{window}/close")).ok().await.json(),
        json!({"done": true, "window": null})
    );
}

#[tokio::test]
async fn a_screen_without_windows_has_an_empty_list() {
    let display = Display::start("800x600x24");
    let daemon = display.daemon().await;
    let reply = daemon.client().get("/computeruse/display/windows").ok().await.json();
    assert_eq!(reply, json!({"windows": [], "count": 0}));
}

#[tokio::test]
async fn windows_are_managed_and_the_reply_has_what_became_of_them() {
    let mut stage = stage().await;
    stage.terminal("below", "40x10+0+0").await;
    stage.terminal("above", "40x10+50+50").await;
    let (below, above) = (stage.window("below").await, stage.window("above").await);
    for (action, member, value) in [
        ("minimize", "minimized", true),
        ("restore", "minimized", false),
        ("maximize", "maximized", true),
        ("restore", "maximized", false),
        ("focus", "isActive", true),
    ] {
        let reply = stage.act(&below, action).await;
        assert_eq!(
            (&reply["done"], &reply["window"][member]),
            (&json!(true), &json!(value)),
            "{action}: {reply}"
        );
        assert_eq!(reply["window"]["id"], below["id"]);
        if (action, member) == ("maximize", "maximized") {
            assert_eq!(reply["window"]["frame"]["width"], 1024, "{reply}");
        }
    }
    assert_eq!(stage.act(&above, "raise").await["done"], true);
    let windows = stage.client.get("/computeruse/display/windows").ok().await.json();
    assert_eq!(windows["windows"][1]["title"], "above");
    // Raising gives no focus.
    assert_eq!(windows["windows"][0]["isActive"], true);
    assert_eq!(stage.act(&above, "close").await, json!({"done": true, "window": null}));
    let left = stage.client.get("/computeruse/display/windows").ok().await.json();
    assert_eq!(left["count"], 1);
}

#[tokio::test]
async fn a_window_goes_where_it_is_put_and_keeps_its_own_ideas_of_size() {
    let mut stage = stage().await;
    stage.terminal("terminal", "40x10+10+10").await;
    let window = stage.window("terminal").await;
    let placed = stage.place(&window, json!({"x": 200, "y": 150})).await;
    assert_eq!(placed["done"], true, "{placed}");
    assert_eq!((&placed["window"]["x"], &placed["window"]["y"]), (&json!(200), &json!(150)));
    assert_eq!(placed["window"]["width"], window["width"]);
    // Whole columns and lines only.
    let placed = stage.place(&window, json!({"width": 333, "height": 222})).await;
    let (width, height) =
        (placed["window"]["width"].as_u64().unwrap(), placed["window"]["height"].as_u64().unwrap());
    assert_eq!(placed["done"], width == 333 && height == 222);
    assert!((310..=333).contains(&width) && (200..=222).contains(&height), "{placed}");
    assert_eq!((&placed["window"]["x"], &placed["window"]["y"]), (&json!(200), &json!(150)));
    stage.act(&window, "maximize").await;
    let placed = stage.place(&window, json!({"x": 20.0, "y": 40})).await;
    assert_eq!((&placed["done"], &placed["window"]["maximized"]), (&json!(true), &json!(false)), "{placed}");
}

#[tokio::test]
async fn what_cannot_be_done_with_a_window_is_said() {
    let mut stage = stage().await;
    stage.terminal("terminal", "40x10+10+10").await;
    let window = format!("/computeruse/display/windows/{}", stage.window("terminal").await["id"]);
    let client = &stage.client;
    for path in ["/computeruse/display/windows/99/focus", "/computeruse/display/windows/4294967295/close"] {
        assert!(client.post(path).fails(404, "NOT_FOUND").await.contains("there is no window"));
    }
    client.patch("/computeruse/display/windows/99").json(json!({"x": 1})).fails(404, "NOT_FOUND").await;
    client.post("/computeruse/display/windows/first/focus").fails(400, "BAD_REQUEST").await;
    let message = client.post(&format!("{window}/explode")).fails(400, "BAD_REQUEST").await;
    assert!(message.contains("explode") && message.contains("minimize"), "{message}");
    let patch = |body: Value| client.patch(&window).json(body);
    assert!(patch(json!({})).fails(400, "BAD_REQUEST").await.contains("width"));
    assert!(patch(json!({"width": 0})).fails(400, "BAD_REQUEST").await.contains("width must be from 1"));
    assert!(patch(json!({"x": "left"})).fails(400, "INVALID_REQUEST_BODY").await.contains("x: "));
    // Of a window that is not there any more nothing is left.
    let message = client.patch("/computeruse/display").json(json!({"width": 2000, "height": 700}));
    assert!(message.fails(409, "CONFLICT").await.contains("1024x768"));
}

#[tokio::test]
async fn a_window_is_there_from_when_its_manager_shows_it_to_when_it_is_withdrawn() {
    let display = Display::start("640x480x24");
    let daemon = display.daemon().await;
    let listed = async || {
        let reply = daemon.client().get("/computeruse/display/windows").ok().await.json();
        reply["windows"].as_array().unwrap().len()
    };
    // This test is the window manager.
    let x = display.connect();
    let root = x.setup().roots[0].root;
    let atom = |name: &str| x.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
    let window = |title: &str| {
        let id = x.generate_id().unwrap();
        x.create_window(0, id, root, 0, 0, 9, 9, 0, WindowClass::INPUT_OUTPUT, 0, &CreateWindowAux::new())
            .unwrap();
        x.change_property8(PropMode::REPLACE, id, AtomEnum::WM_NAME, AtomEnum::STRING, title.as_bytes())
            .unwrap();
        id
    };
    let (check, managed) = (window("check"), window("managed"));
    for (name, value) in [("_NET_SUPPORTING_WM_CHECK", check), ("_NET_CLIENT_LIST_STACKING", managed)] {
        x.change_property32(PropMode::REPLACE, root, atom(name), AtomEnum::WINDOW, &[value]).unwrap();
    }
    let state = |state: u32| {
        let name = atom("WM_STATE");
        x.change_property32(PropMode::REPLACE, managed, name, name, &[state, 0]).unwrap().check().unwrap();
    };
    x.sync().unwrap();
    assert_eq!(listed().await, 0, "it is not placed yet");
    state(1);
    assert_eq!(listed().await, 1);
    state(0);
    assert_eq!(listed().await, 0);
}

#[tokio::test]
async fn many_windows_leave_nothing_behind() {
    let mut stage = stage().await;
    stage.terminal("terminal", "40x10+10+10").await;
    let x = stage.display.connect();
    let screen = &x.setup().roots[0];
    let utf8 = x.intern_atom(false, b"UTF8_STRING").unwrap().reply().unwrap().atom;
    let name = x.intern_atom(false, b"_NET_WM_NAME").unwrap().reply().unwrap().atom;
    for index in 0..50 {
        let id = x.generate_id().unwrap();
        let look = CreateWindowAux::new();
        let class = WindowClass::INPUT_OUTPUT;
        x.create_window(0, id, screen.root, 0, 0, 100, 100, 0, class, 0, &look).unwrap();
        let title = format!("window ☃ {index}");
        x.change_property8(PropMode::REPLACE, id, name, utf8, title.as_bytes()).unwrap();
        x.map_window(id).unwrap();
    }
    x.sync().unwrap();
    let list = async || stage.client.get("/computeruse/display/windows").ok().await.json();
    while list().await["count"] != 51 {}
    stage.window("window ☃ 49").await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", stage.display.pid())).unwrap().count();
    let before = descriptors();
    for _ in 0..300 {
        assert_eq!(list().await["count"], 51);
    }
    assert_eq!(descriptors(), before);
}
