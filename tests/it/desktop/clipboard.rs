//! The clipboard, between the daemon and programs that know nothing of it.

use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use x11rb::protocol::xproto::ConnectionExt;

use crate::support::{Client, Daemon, Display, within};

async fn stage() -> (Display, Daemon, Client) {
    let display = Display::start("640x480x24");
    let daemon = display.daemon().await;
    let client = daemon.client();
    (display, daemon, client)
}

fn xclip(display: &Display, arguments: &[&str]) -> Command {
    let mut command = Command::new("xclip");
    command.args(["-display", &display.name]).args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a program that pastes gets.
async fn pasted(display: &Display, selection: &str, target: &str) -> Vec<u8> {
    let output = xclip(display, &["-o", "-selection", selection, "-t", target]).output();
    let output = within(output).await.expect("xclip is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A program copies, and has the selection then.
async fn copy(display: &Display, selection: &str, target: &str, bytes: &[u8]) {
    let x = display.connect();
    let atom = x.intern_atom(false, selection.to_uppercase().as_bytes()).unwrap().reply().unwrap().atom;
    let owner = || x.get_selection_owner(atom).unwrap().reply().unwrap().owner;
    let before = owner();
    let mut command = xclip(display, &["-i", "-selection", selection, "-t", target]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(bytes).await.unwrap();
    drop(stdin);
    assert!(within(child.wait()).await.unwrap().success());
    // It goes on in the background, where it takes the selection.
    let taken = async {
        while owner() == before {
            tokio::task::yield_now().await;
        }
    };
    within(taken).await;
}

/// A PNG file as far as its beginning tells.
fn png(size: usize) -> Vec<u8> {
    let noise = (0..size).map(|index| (index * index / 7 % 251) as u8);
    b"\x89PNG\r\n\x1a\n".iter().copied().chain(noise).collect()
}

#[tokio::test]
async fn what_is_put_there_is_pasted_by_other_programs() {
    let (display, _daemon, client) = stage().await;
    let text = "héllo 世界 🙂\t\n";
    let put = |body: Value| client.put("/computeruse/clipboard").json(body);
    assert_eq!(put(json!({"text": text})).ok().await.json(), json!({}));
    assert_eq!(pasted(&display, "clipboard", "UTF8_STRING").await, text.as_bytes());
    assert_eq!(pasted(&display, "clipboard", "text/plain;charset=utf-8").await, text.as_bytes());
    assert_eq!(pasted(&display, "clipboard", "STRING").await, b"h\xe9llo ?? ?\t\n");
    let targets = String::from_utf8(pasted(&display, "clipboard", "TARGETS").await).unwrap();
    assert!(targets.contains("TIMESTAMP") && targets.contains("UTF8_STRING"), "{targets}");
    put(json!({"text": "marked", "selection": "primary"})).ok().await;
    assert_eq!(pasted(&display, "primary", "UTF8_STRING").await, b"marked");
    assert_eq!(pasted(&display, "clipboard", "UTF8_STRING").await, text.as_bytes());
    put(json!({"text": "the second"})).ok().await;
    assert_eq!(pasted(&display, "clipboard", "UTF8_STRING").await, b"the second");
    let picture = png(100);
    put(json!({"image": STANDARD.encode(&picture)})).ok().await;
    assert_eq!(pasted(&display, "clipboard", "image/png").await, picture);
}

#[tokio::test]
async fn what_other_programs_copy_is_read() {
    let (display, _daemon, client) = stage().await;
    let get = async |query: &str| client.get(&format!("/computeruse/clipboard{query}")).ok().await.json();
    assert_eq!(get("").await, json!({"text": null, "image": null}));
    copy(&display, "clipboard", "UTF8_STRING", "héllo 世界".as_bytes()).await;
    assert_eq!(get("").await, json!({"text": "héllo 世界", "image": null}));
    assert_eq!(get("?selection=primary").await, json!({"text": null, "image": null}));
    copy(&display, "primary", "UTF8_STRING", b"marked").await;
    assert_eq!(get("?selection=primary").await["text"], "marked");
    let picture = png(5000);
    copy(&display, "clipboard", "image/png", &picture).await;
    assert_eq!(get("").await, json!({"text": null, "image": STANDARD.encode(&picture)}));
    // What was ours before is not any more.
    client.put("/computeruse/clipboard").json(json!({"text": "ours"})).ok().await;
    assert_eq!(get("").await["text"], "ours");
    copy(&display, "clipboard", "UTF8_STRING", b"theirs").await;
    assert_eq!(get("").await["text"], "theirs");
}

#[tokio::test]
async fn large_content_goes_both_ways_in_parts() {
    let (display, _daemon, client) = stage().await;
    let text: String = (0..400_000).map(|index| char::from_u32(0x4e00 + index % 20_000).unwrap()).collect();
    client.put("/computeruse/clipboard").json(json!({"text": text})).ok().await;
    assert!(pasted(&display, "clipboard", "UTF8_STRING").await == text.as_bytes());
    let other = display.daemon().await;
    let there = other.client().get("/computeruse/clipboard").ok().await.json();
    assert!(there["text"] == text);
    let picture = png(2_000_000);
    copy(&display, "clipboard", "image/png", &picture).await;
    let here = client.get("/computeruse/clipboard?prefer=png").ok().await.json();
    assert!(here["image"] == STANDARD.encode(&picture));
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let (display, _daemon, client) = stage().await;
    let put = |body: Value| client.put("/computeruse/clipboard").json(body);
    put(json!({"text": "kept"})).ok().await;
    for (body, word) in [
        (json!({}), "one of text and image"),
        (json!({"text": "a", "image": ""}), "one of text and image"),
        (json!({"image": "???"}), "base64"),
        (json!({"image": STANDARD.encode("GIF89a")}), "PNG"),
        (json!({"text": "a", "selection": "secondary"}), "secondary"),
    ] {
        let message = put(body).fails(400, "BAD_REQUEST").await;
        assert!(message.contains(word), "{message}");
    }
    put(json!({"text": 5})).fails(400, "INVALID_REQUEST_BODY").await;
    client.get("/computeruse/clipboard?selection=x").fails(400, "BAD_REQUEST").await;
    assert_eq!(pasted(&display, "clipboard", "UTF8_STRING").await, b"kept");
}
