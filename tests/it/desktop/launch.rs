//! Programs that are started on the desktop.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, gone, within};

async fn stage() -> (Display, Daemon, Client) {
    let mut display = Display::start("1024x768x24");
    let directory = tempfile::tempdir().unwrap();
    display.manage(directory.path()).await;
    let daemon = display
        .daemon_with(|command| {
            command.env("NO_AT_BRIDGE", "1").env("GSETTINGS_BACKEND", "memory");
        })
        .await;
    let client = daemon.client();
    (display, daemon, client)
}

async fn launch(client: &Client, body: Value) -> Value {
    client.post("/computeruse/launch").json(body).ok().await.json()
}

#[tokio::test]
async fn the_window_of_a_program_is_waited_for() {
    let (_display, daemon, client) = stage().await;
    let command = "xterm -T 'two words' -e sh -c 'echo \"$GREETING\" > said; pwd >> said; exec cat'";
    let body =
        json!({"command": command, "wait": true, "timeoutMs": 60000, "env": {"GREETING": "hello $HOME"}});
    let launched = launch(&client, body).await;
    let pid = u32::try_from(launched["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(launched["window"]["title"], "two words");
    assert_eq!(launched["window"]["pid"], pid);
    assert_eq!(launched["windowId"], launched["window"]["id"]);
    let windows = client.get("/computeruse/display/windows").ok().await.json();
    assert_eq!(windows["windows"][0]["id"], launched["windowId"]);
    // The window is there before what runs in it has begun.
    let said = format!("hello $HOME\n{}\n", daemon.home().display());
    let begun = async {
        while std::fs::read_to_string(daemon.home().join("said")).unwrap_or_default() != said {
            tokio::task::yield_now().await;
        }
    };
    within(begun).await;
    let id = &launched["windowId"];
    // Asked again until it has gone: a window that has only just come may not be listening yet.
    let close = format!("/computeruse/display/windows/{id}/close");
    while client.post(&close).send().await.status != 404 {}
    let ended = async {
        while !gone(pid) {
            tokio::task::yield_now().await;
        }
    };
    within(ended).await;
}

#[tokio::test]
async fn a_window_that_another_process_of_the_program_opens_is_its_window() {
    let (_display, _daemon, client) = stage().await;
    let command = ["sh", "-c", "setsid sh -c 'xterm -T deep -e cat; true' & wait"];
    let launched = launch(&client, json!({"command": command, "wait": true, "timeoutMs": 60000})).await;
    assert_eq!(launched["window"]["title"], "deep");
    assert_ne!(launched["window"]["pid"], launched["pid"]);
}

#[tokio::test]
async fn an_application_is_found_by_its_id_and_opens_a_file() {
    let (_display, daemon, client) = stage().await;
    let file = daemon.home().join("notes.txt");
    std::fs::write(&file, "text").unwrap();
    let body =
        json!({"desktopId": "org.xfce.mousepad", "uri": file.to_str(), "wait": true, "timeoutMs": 60000});
    let launched = launch(&client, body).await;
    assert!(launched["window"]["title"].as_str().unwrap().contains("Mousepad"), "{launched}");
    let entry = daemon.home().join(".local/share/applications/own.desktop");
    std::fs::create_dir_all(entry.parent().unwrap()).unwrap();
    std::fs::write(&entry, "[Desktop Entry]\nName=Own\nExec=xterm -T %c -e cat\n").unwrap();
    let launched =
        launch(&client, json!({"desktopId": "own.desktop", "wait": true, "timeoutMs": 60000})).await;
    assert_eq!(launched["window"]["title"], "Own");
    for id in ["none", "../own", ""] {
        let reply = client.post("/computeruse/launch").json(json!({"desktopId": id})).send().await;
        assert!(matches!(reply.status.as_u16(), 400 | 404), "{}", reply.text());
        assert!(reply.text().contains(id), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_program_that_opens_no_window_is_not_waited_for_when_it_has_ended() {
    let (_display, _daemon, client) = stage().await;
    let body =
        json!({"command": ["sh", "-c", "echo cannot do it >&2; exit 3"], "wait": true, "timeoutMs": 600000});
    let launched = launch(&client, body).await;
    assert_eq!((&launched["windowId"], &launched["exitCode"]), (&Value::Null, &json!(3)), "{launched}");
    assert_eq!(launched["lastLine"], "cannot do it");
    let launched = launch(&client, json!({"command": "cat", "wait": true, "timeoutMs": 1})).await;
    assert_eq!(launched["windowId"], Value::Null);
    let launched = launch(&client, json!({"command": "true"})).await;
    assert!(launched["pid"].is_u64() && launched["windowId"].is_null());
    for (body, word) in [
        (json!({"command": "no-such-program --flag"}), "no-such-program"),
        (json!({"command": ""}), "empty"),
        (json!({"command": []}), "empty"),
        (json!({"command": "xterm 'open"}), "words"),
        (json!({}), "required"),
        (json!({"uri": "--version"}), "required"),
        (json!({"command": "true", "uri": "x"}), "required"),
        (json!({"command": "true", "env": {"A=B": ""}}), "A=B"),
        (json!({"command": "true", "timeoutMs": 600_001}), "timeoutMs"),
    ] {
        let message = client.post("/computeruse/launch").json(body.clone()).fails(400, "BAD_REQUEST").await;
        assert!(message.contains(word), "{body}: {message}");
    }
}

#[tokio::test]
async fn browsers_are_told_to_describe_their_pages_when_that_is_asked_for() {
    let (_display, daemon, client) = stage().await;
    let arguments = daemon.home().join("arguments");
    let script = daemon.home().join("browser");
    std::fs::write(&script, "#!/bin/sh\nprintf '%s\\n' \"$@\" > arguments; exec xterm -T done -e cat\n")
        .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let body = json!({"command": [script, "page"], "accessibility": true, "wait": true, "timeoutMs": 60000});
    assert_eq!(launch(&client, body).await["window"]["title"], "done");
    let told = std::fs::read_to_string(arguments).unwrap();
    assert_eq!(told, "--force-renderer-accessibility\npage\n");
}
