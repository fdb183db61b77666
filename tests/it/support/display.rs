//! A screen of a test's own, and a window on it that tells what it gets.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use x11rb::COPY_DEPTH_FROM_PARENT;
use x11rb::connection::{Connection as _, RequestConnection};
use x11rb::protocol::Event;
use x11rb::protocol::randr::{self, ConnectionExt as _};
use x11rb::protocol::xkb::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, CreateWindowAux, EventMask, ImageFormat,
    InputFocus, Window as WindowId, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use super::daemon::{Daemon, within};

const CORE_KEYBOARD: u16 = 0x100;

/// A number that no display has and no other test asks for.
pub(crate) fn free_display() -> String {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = 100 + (std::process::id() % 5000) * 10 + ASKED.fetch_add(1, Ordering::Relaxed);
        if !Path::new(&format!("/tmp/.X11-unix/X{number}")).exists() {
            return format!(":{number}");
        }
    }
}

/// A port on loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An X server, on a number that was free. Dropping it ends it, and with it every program on it.
pub(crate) struct Display {
    server: Child,
    programs: Vec<Child>,
    /// As in `:7`.
    pub(crate) name: String,
}

impl Display {
    /// With a screen of that size and depth, as `1280x800x24`.
    pub(crate) fn start(screen: &str) -> Self {
        let (mut number, writer) = std::io::pipe().unwrap();
        // The shell gives the descriptor the number that the server is told.
        let script =
            "exec Xvfb -displayfd 3 -screen 0 \"$1\" -noreset -nolisten tcp 3>&0 0</dev/null 2>/dev/null";
        let server = Command::new("sh")
            .args(["-c", script, "sh", screen])
            .stdin(Stdio::from(writer.as_fd().try_clone_to_owned().unwrap()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        drop(writer);
        let mut text = String::new();
        number.read_to_string(&mut text).unwrap();
        let name = format!(":{}", text.trim());
        assert!(text.trim().parse::<u32>().is_ok(), "Xvfb did not start");
        Self { server, programs: Vec::new(), name }
    }

    /// Kills the server and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Another server of the same name, after [`Display::kill`].
    pub(crate) fn start_again(&mut self, screen: &str) {
        let (mut ready, writer) = std::io::pipe().unwrap();
        let script = "exec Xvfb \"$2\" -displayfd 3 -screen 0 \"$1\" -noreset -nolisten tcp 3>&0 0</dev/null 2>/dev/null";
        self.server = Command::new("sh")
            .args(["-c", script, "sh", screen, &self.name])
            .stdin(Stdio::from(writer.as_fd().try_clone_to_owned().unwrap()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        drop(writer);
        let mut text = String::new();
        ready.read_to_string(&mut text).unwrap();
        assert_eq!(format!(":{}", text.trim()), self.name);
    }

    /// A daemon that uses it.
    pub(crate) async fn daemon(&self) -> Daemon {
        self.daemon_with(|_| {}).await
    }

    /// As [`Display::daemon`], after `change` has had its way with the command.
    pub(crate) async fn daemon_with(&self, change: impl FnOnce(&mut tokio::process::Command)) -> Daemon {
        Daemon::start_with(|command| {
            command.env("DISPLAY", &self.name);
            change(command);
        })
        .await
    }

    /// Process id of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> RustConnection {
        RustConnection::connect(Some(&self.name)).unwrap().0
    }

    /// Starts a program on it.
    pub(crate) fn spawn(&mut self, program: &str, arguments: &[&str], directory: &Path) {
        let child = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .envs([("DISPLAY", self.name.as_str()), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")])
            .env("HOME", directory)
            .env("XDG_RUNTIME_DIR", directory)
            .env("NO_AT_BRIDGE", "1")
            .env("GSETTINGS_BACKEND", "memory")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.programs
            .push(child.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}")));
    }

    /// Starts a program, and waits until a window of it whose title contains `title` is shown.
    pub(crate) async fn open(&mut self, program: &str, arguments: &[&str], directory: &Path, title: &str) {
        let x = self.connect();
        let root = x.setup().roots[0].root;
        let mask = EventMask::SUBSTRUCTURE_NOTIFY | EventMask::PROPERTY_CHANGE;
        x.change_window_attributes(root, &ChangeWindowAttributesAux::new().event_mask(mask)).unwrap();
        x.sync().unwrap();
        self.spawn(program, arguments, directory);
        let title = title.to_owned();
        let shown = move || {
            loop {
                let Event::MapNotify(event) = x.wait_for_event().unwrap() else { continue };
                if titles(&x, event.window).iter().any(|name| name.contains(&title)) {
                    return;
                }
            }
        };
        within(tokio::task::spawn_blocking(shown)).await.unwrap();
    }

    /// Starts a window manager and waits until it is there.
    pub(crate) async fn manage(&mut self, directory: &Path) {
        let x = self.connect();
        let root = x.setup().roots[0].root;
        let check = x.intern_atom(false, b"_NET_SUPPORTING_WM_CHECK").unwrap().reply().unwrap().atom;
        let mask = EventMask::PROPERTY_CHANGE;
        x.change_window_attributes(root, &ChangeWindowAttributesAux::new().event_mask(mask)).unwrap();
        x.sync().unwrap();
        self.spawn("openbox", &[], directory);
        let there = move || {
            while !matches!(x.wait_for_event().unwrap(), Event::PropertyNotify(event) if event.atom == check)
            {
            }
        };
        within(tokio::task::spawn_blocking(there)).await.unwrap();
    }

    /// Sets the keyboard's layouts, as `us,ru`, and locks one of them.
    pub(crate) fn layout(&self, layouts: &str, group: u8) {
        let status = Command::new("setxkbmap")
            .args(["-display", &self.name, "-layout", layouts])
            .status()
            .expect("setxkbmap is needed for this test");
        assert!(status.success());
        let x = self.connect();
        x.xkb_use_extension(1, 0).unwrap().reply().unwrap();
        let none = 0_u16.into();
        x.xkb_latch_lock_state(CORE_KEYBOARD, none, none, true, xkb::Group::from(group), none, false, 0)
            .unwrap()
            .check()
            .unwrap();
    }

    /// Everything about the keyboard that typing could change: symbols, types, and what is locked.
    pub(crate) fn keyboard(&self) -> String {
        let x = self.connect();
        x.xkb_use_extension(1, 0).unwrap().reply().unwrap();
        let parts = xkb::MapPart::KEY_TYPES
            | xkb::MapPart::KEY_SYMS
            | xkb::MapPart::MODIFIER_MAP
            | xkb::MapPart::KEY_ACTIONS;
        let none = xkb::MapPart::from(0_u16);
        let map = x
            .xkb_get_map(
                CORE_KEYBOARD,
                parts,
                none,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                xkb::VMod::from(0_u16),
                0,
                0,
                0,
                0,
                0,
                0,
            )
            .unwrap()
            .reply()
            .unwrap();
        let state = x.xkb_get_state(CORE_KEYBOARD).unwrap().reply().unwrap();
        let symbols = map.map.syms_rtrn.unwrap();
        let symbols: Vec<_> =
            symbols.iter().map(|key| (key.kt_index, key.group_info, key.width, &key.syms)).collect();
        format!("{symbols:?} {:?} {:?} {:?}", state.locked_group, state.locked_mods, state.mods)
    }

    /// Makes two monitors of the screen, side by side.
    pub(crate) fn split(&self, width: u16, height: u16) {
        let x = self.connect();
        let root = x.setup().roots[0].root;
        let output = x.randr_get_screen_resources(root).unwrap().reply().unwrap().outputs[0];
        for (name, x_offset, outputs) in [("left", 0, vec![output]), ("right", width / 2, vec![])] {
            let name = x.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
            let monitor = randr::MonitorInfo {
                name,
                primary: x_offset == 0,
                automatic: false,
                x: x_offset as i16,
                y: 0,
                width: width / 2,
                height,
                width_in_millimeters: 100,
                height_in_millimeters: 100,
                outputs,
            };
            x.randr_set_monitor(root, monitor).unwrap().check().unwrap();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        for child in self.programs.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Titles of a window and of what is in it: a window manager puts a frame around.
fn titles(x: &RustConnection, window: WindowId) -> Vec<String> {
    let mut found = Vec::new();
    let mut windows = vec![window];
    while let Some(window) = windows.pop() {
        let utf8 = x.intern_atom(false, b"_NET_WM_NAME").unwrap().reply().unwrap().atom;
        for name in [utf8, AtomEnum::WM_NAME.into()] {
            // The window may have gone.
            if let Ok(reply) = x.get_property(false, window, name, AtomEnum::ANY, 0, 256).unwrap().reply() {
                found.push(String::from_utf8_lossy(&reply.value).into_owned());
            }
        }
        if let Ok(tree) = x.query_tree(window).unwrap().reply() {
            windows.extend(tree.children);
        }
    }
    found
}

/// What a window was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Button, place on the screen, modifiers and buttons that were down before.
    Press(u8, i16, i16, u16),
    Release(u8, i16, i16, u16),
    Motion(i16, i16, u16),
    /// The symbol that the key has alone.
    KeyDown(u32),
    KeyUp(u32),
}

/// A window that tells every event it gets.
pub(crate) struct Recorder {
    x: Arc<RustConnection>,
    id: WindowId,
    depth: u8,
    seen: UnboundedReceiver<Seen>,
}

impl Recorder {
    /// Over a part of the screen, with the keyboard's focus.
    pub(crate) async fn show(display: &Display, x: i16, y: i16, width: u16, height: u16) -> Self {
        let connection = Arc::new(display.connect());
        let screen = &connection.setup().roots[0];
        let (root, depth) = (screen.root, screen.root_depth);
        let id = connection.generate_id().unwrap();
        let mask = EventMask::BUTTON_PRESS
            | EventMask::BUTTON_RELEASE
            | EventMask::POINTER_MOTION
            | EventMask::KEY_PRESS
            | EventMask::KEY_RELEASE
            | EventMask::STRUCTURE_NOTIFY;
        let look =
            CreateWindowAux::new().override_redirect(1).event_mask(mask).background_pixel(screen.white_pixel);
        let class = WindowClass::INPUT_OUTPUT;
        connection
            .create_window(COPY_DEPTH_FROM_PARENT, id, root, x, y, width, height, 0, class, 0, &look)
            .unwrap()
            .check()
            .unwrap();
        connection.map_window(id).unwrap().check().unwrap();
        connection
            .set_input_focus(InputFocus::POINTER_ROOT, id, x11rb::CURRENT_TIME)
            .unwrap()
            .check()
            .unwrap();
        let (sender, seen) = unbounded_channel();
        let reader = Arc::clone(&connection);
        // Ends with the server.
        std::thread::spawn(move || {
            // As Xlib has it: the map is read when the first key comes after it has changed, and kept.
            let mut map = None;
            while let Ok(event) = reader.wait_for_event() {
                let mut symbol = |code: u8| {
                    let (first, last) = (reader.setup().min_keycode, reader.setup().max_keycode);
                    if map.is_none() {
                        map = Some(reader.get_keyboard_mapping(first, last - first + 1).ok()?.reply().ok()?);
                    }
                    let map = map.as_ref()?;
                    let place = usize::from(code.checked_sub(first)?);
                    map.keysyms.get(place * usize::from(map.keysyms_per_keycode)).copied()
                };
                let seen = match event {
                    Event::ButtonPress(e) => Some(Seen::Press(e.detail, e.root_x, e.root_y, e.state.into())),
                    Event::ButtonRelease(e) => {
                        Some(Seen::Release(e.detail, e.root_x, e.root_y, e.state.into()))
                    }
                    Event::MotionNotify(e) => Some(Seen::Motion(e.root_x, e.root_y, e.state.into())),
                    Event::KeyPress(e) => symbol(e.detail).map(Seen::KeyDown),
                    Event::KeyRelease(e) => symbol(e.detail).map(Seen::KeyUp),
                    Event::MappingNotify(_) => {
                        map = None;
                        None
                    }
                    _ => None,
                };
                if seen.is_some_and(|seen| sender.send(seen).is_err()) {
                    return;
                }
            }
        });
        Self { x: connection, id, depth, seen }
    }

    /// The next thing it was told.
    pub(crate) async fn next(&mut self) -> Seen {
        within(self.seen.recv()).await.expect("the display has gone")
    }

    /// The next that is no motion.
    pub(crate) async fn next_still(&mut self) -> Seen {
        loop {
            match self.next().await {
                Seen::Motion(..) => {}
                seen => return seen,
            }
        }
    }

    /// The next `count` that are no motion.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.push(self.next_still().await);
        }
        seen
    }

    /// Everything up to an event that the test makes itself: what did not come before it does not come.
    pub(crate) async fn so_far(&mut self) -> Vec<Seen> {
        use x11rb::protocol::xproto::{BUTTON_PRESS_EVENT, ButtonPressEvent};
        const MARK: u8 = 250;
        let mark = ButtonPressEvent {
            response_type: BUTTON_PRESS_EVENT,
            detail: MARK,
            event: self.id,
            root: self.x.setup().roots[0].root,
            ..Default::default()
        };
        self.x.send_event(false, self.id, EventMask::BUTTON_PRESS, mark).unwrap().check().unwrap();
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Seen::Press(MARK, ..) => return seen,
                other => seen.push(other),
            }
        }
    }

    /// Paints it with pixels of the screen's format, row by row.
    pub(crate) fn paint(&self, width: u16, height: u16, pixels: &[u8]) {
        let context = self.x.generate_id().unwrap();
        self.x.create_gc(context, self.id, &Default::default()).unwrap();
        let row = pixels.len() / usize::from(height);
        let most = self.x.maximum_request_bytes() - 64;
        for (index, rows) in pixels.chunks(most / row * row).enumerate() {
            let (y, height) = (index * (most / row), rows.len() / row);
            self.x
                .put_image(
                    ImageFormat::Z_PIXMAP,
                    self.id,
                    context,
                    width,
                    height as u16,
                    0,
                    y as i16,
                    0,
                    self.depth,
                    rows,
                )
                .unwrap()
                .check()
                .unwrap();
        }
        self.x.free_gc(context).unwrap();
        self.x.sync().unwrap();
    }
}
