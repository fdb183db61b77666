//! What is typed is what programs have.

use std::io::Read;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Changes, Client, Daemon, Display, Recorder, make_fifo, within};

/// What the issue that asked for this has, and every character of ASCII.
fn sample() -> String {
    let ascii: String = (' '..='~').collect();
    format!("héllo 世界 🙂\t\n{ascii}\n")
}

/// A terminal whose program hands on every byte that it gets.
struct Terminal {
    display: Display,
    _daemon: Daemon,
    client: Client,
    pipe: Option<std::fs::File>,
    directory: TempDir,
}

impl Terminal {
    /// The layouts are in effect before the terminal starts.
    async fn open(layouts: Option<(&str, u8)>) -> Self {
        let mut display = Display::start("1024x768x24");
        if let Some((layouts, group)) = layouts {
            display.layout(layouts, group);
        }
        let daemon = display.daemon().await;
        let client = daemon.client();
        // Without a window manager the focus follows the pointer.
        client.post("/computeruse/mouse/move").json(json!({"x": 60, "y": 60})).ok().await;
        let directory = TempDir::new().unwrap();
        make_fifo(&directory.path().join("typed"));
        let script = "stty raw -echo; exec cat > typed";
        let arguments = ["-u8", "-geometry", "80x24+0+0", "-title", "typing", "-e", "sh", "-c", script];
        display.open("xterm", &arguments, directory.path(), "typing").await;
        let path = directory.path().join("typed");
        // Opening waits until the terminal takes every byte as it comes.
        let pipe =
            within(tokio::task::spawn_blocking(move || std::fs::File::open(path))).await.unwrap().unwrap();
        Self { display, _daemon: daemon, client, pipe: Some(pipe), directory }
    }

    async fn types(&mut self, text: &str) {
        let body = json!({"text": text, "tabs": true});
        self.client.post("/computeruse/keyboard/type").json(body).ok().await;
        let expected = text.replace('\n', "\r");
        let (mut pipe, length) = (self.pipe.take().unwrap(), expected.len());
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            pipe.read_exact(&mut bytes).unwrap();
            (pipe, bytes)
        });
        let (pipe, bytes) = within(read).await.unwrap();
        self.pipe = Some(pipe);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }
}

#[tokio::test]
async fn a_terminal_gets_every_character() {
    let mut terminal = Terminal::open(None).await;
    let before = terminal.display.keyboard();
    terminal.types(&sample()).await;
    let latin: String = ('\u{a1}'..='\u{17f}').collect();
    let cyrillic: String = ('а'..='я').collect();
    let chinese: String = (0x4e00..0x4e00 + 120).filter_map(char::from_u32).collect();
    terminal.types(&format!("{latin}{cyrillic}{chinese}👩‍👩‍👧e\u{301}\u{10fffd}\n")).await;
    terminal.types(&"The quick brown Fox. ".repeat(50)).await;
    assert_eq!(terminal.display.keyboard(), before);
    assert!(terminal.directory.path().exists());
}

#[tokio::test]
async fn any_layout_will_do() {
    for layouts in [("de", 0), ("fr", 0), ("ru", 0), ("us,ru", 1)] {
        let mut terminal = Terminal::open(Some(layouts)).await;
        let before = terminal.display.keyboard();
        terminal.types(&sample()).await;
        assert_eq!(terminal.display.keyboard(), before, "{layouts:?}");
    }
}

#[tokio::test]
async fn locks_and_held_keys_do_not_change_what_is_typed() {
    let mut terminal = Terminal::open(None).await;
    terminal.client.post("/computeruse/keyboard/key").json(json!({"key": "capslock"})).ok().await;
    terminal.client.post("/computeruse/keyboard/down").json(json!({"key": "shift"})).ok().await;
    let before = terminal.display.keyboard();
    terminal.types("abc ABC 123 !@# é\n").await;
    assert_eq!(terminal.display.keyboard(), before);
}

#[tokio::test]
async fn line_ends_are_enter_and_a_delay_is_kept() {
    let mut terminal = Terminal::open(None).await;
    let began = std::time::Instant::now();
    let body = json!({"text": "a\r\nb\rc\n", "delay": 20});
    terminal.client.post("/computeruse/keyboard/type").json(body).ok().await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(6 * 20));
    let mut pipe = terminal.pipe.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 6];
        pipe.read_exact(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(&within(read).await.unwrap(), b"a\rb\rc\r");
}

#[tokio::test]
async fn the_map_is_restored_when_the_client_leaves() {
    let terminal = Terminal::open(None).await;
    let before = terminal.display.keyboard();
    let text: String = (0x4e00..0x4e00 + 2000).filter_map(char::from_u32).collect();
    let typing = terminal.client.post("/computeruse/keyboard/type").json(json!({"text": text})).try_send();
    let display = &terminal.display;
    tokio::select! {
        reply = typing => panic!("all was typed: {reply:?}"),
        () = async { while display.keyboard() == before { tokio::task::yield_now().await } } => {}
    }
    // The next request has its turn when the one before has tidied up.
    terminal.client.post("/computeruse/keyboard/up").json(json!({"key": "shift"})).ok().await;
    assert_eq!(terminal.display.keyboard(), before);
}

#[tokio::test]
async fn an_editor_gets_every_character() {
    let directory = TempDir::new().unwrap();
    let mut display = Display::start("1024x768x24");
    let daemon = display.daemon().await;
    let client = daemon.client();
    display.manage(directory.path()).await;
    std::fs::write(directory.path().join("note.txt"), "").unwrap();
    display.open("mousepad", &["--disable-server", "note.txt"], directory.path(), "note.txt").await;
    let text = sample();
    let mut changes = Changes::of(directory.path());
    client.post("/computeruse/keyboard/type").json(json!({"text": text, "tabs": true})).ok().await;
    client.post("/computeruse/keyboard/hotkey").json(json!({"keys": "ctrl+s"})).ok().await;
    saved(&mut changes, &directory.path().join("note.txt"), &text).await;
}

#[tokio::test]
async fn text_is_pasted_on_request_and_the_clipboard_put_back() {
    let directory = TempDir::new().unwrap();
    let mut display = Display::start("1024x768x24");
    let daemon = display.daemon().await;
    let client = daemon.client();
    display.manage(directory.path()).await;
    std::fs::write(directory.path().join("note.txt"), "").unwrap();
    display.open("mousepad", &["--disable-server", "note.txt"], directory.path(), "note.txt").await;
    client.put("/computeruse/clipboard").json(json!({"text": "mine"})).ok().await;
    let keyboard = display.keyboard();
    let many: String = (0x4e00..0x4e00 + 3000).filter_map(char::from_u32).collect();
    let mut changes = Changes::of(directory.path());
    for (method, text) in [("paste", "héllo 世界 🙂\n"), ("auto", many.as_str()), ("auto", "é typed\n")]
    {
        client.post("/computeruse/keyboard/type").json(json!({"text": text, "method": method})).ok().await;
    }
    assert_eq!(client.get("/computeruse/clipboard").ok().await.json()["text"], "mine");
    assert_eq!(display.keyboard(), keyboard);
    client.post("/computeruse/keyboard/hotkey").json(json!({"keys": "ctrl+s"})).ok().await;
    let text = format!("héllo 世界 🙂\n{many}é typed\n");
    saved(&mut changes, &directory.path().join("note.txt"), &text).await;
    // A window that takes nothing.
    let _window = Recorder::show(&display, 0, 0, 1024, 768).await;
    let body = json!({"text": "lost", "method": "paste", "pasteKeys": "f9"});
    let call = client.post("/computeruse/keyboard/type").json(body);
    call.fails(422, "UNPROCESSABLE_ENTITY").await;
    assert_eq!(client.get("/computeruse/clipboard").ok().await.json()["text"], "mine");
}

async fn saved(changes: &mut Changes, path: &Path, text: &str) {
    loop {
        let content = std::fs::read_to_string(path).unwrap_or_default();
        if content == text {
            return;
        }
        assert!(content.is_empty(), "{content}");
        changes.next().await;
    }
}
