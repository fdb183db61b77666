//! Watches for changes.

use std::collections::BTreeMap;
use std::fs;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Client, Daemon, Socket, within};

async fn watch(client: &Client, query: &str) -> Socket {
    let mut socket = client.socket(&format!("/files/watch?{query}")).await;
    assert_eq!(socket.json().await, json!({"type": "ready"}));
    socket
}

/// Events up to the creation of the file `end`, which the caller has made last.
async fn events(socket: &mut Socket, end: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = socket.json().await;
        if event["type"] == "create" && event["path"] == end {
            return events;
        }
        events.push(event);
    }
}

fn create(path: &str, is_dir: bool) -> Value {
    json!({"type": "create", "path": path, "isDir": is_dir})
}

fn modify(path: &str) -> Value {
    json!({"type": "modify", "path": path, "isDir": false})
}

fn delete(path: &str, is_dir: bool) -> Value {
    json!({"type": "delete", "path": path, "isDir": is_dir})
}

fn rename(from: &str, to: &str, is_dir: bool) -> Value {
    json!({"type": "rename", "from": from, "to": to, "isDir": is_dir})
}

#[tokio::test]
async fn a_missing_path_is_404_on_both_ways() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let message = client.get("/files/watch?path=nowhere").fails(404, "FILE_NOT_FOUND").await;
    assert_eq!(message, "file not found: nowhere");
    client.get("/files/watch").fails(400, "BAD_REQUEST").await;
    let (status, _) = client.upgrade("/files/watch?path=nowhere", &[]).await.err().unwrap();
    assert_eq!(status, 404);
    let no_key =
        client.get("/files/watch?path=.").header("upgrade", "websocket").header("connection", "upgrade");
    no_key.fails(400, "BAD_REQUEST").await;
}

#[tokio::test]
async fn one_offered_subprotocol_is_echoed() {
    let daemon = Daemon::start().await;
    let offered = "chat, X-Daytona-Pty-Exit-Control, X-Daytona-SDK-Version~0.226.1";
    let socket =
        daemon.client().upgrade("/files/watch?path=.", &[("sec-websocket-protocol", offered)]).await.unwrap();
    assert_eq!(socket.protocol(), Some("X-Daytona-SDK-Version~0.226.1"));
    assert_eq!(daemon.client().socket("/files/watch?path=.").await.protocol(), None);
}

#[tokio::test]
async fn changes_come_as_server_sent_events() {
    let daemon = Daemon::start().await;
    let reply = daemon.client().get("/files/watch?path=./").open().await;
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let mut body = reply.bytes_stream();
    let mut text = String::new();
    let mut until = async |end: &str| {
        while !text.contains(end) {
            text.push_str(std::str::from_utf8(&within(body.next()).await.unwrap().unwrap()).unwrap());
        }
        std::mem::take(&mut text)
    };
    assert_eq!(until("\n\n").await, "data: {\"type\":\"ready\"}\n\n");
    fs::create_dir(daemon.work().join("a")).unwrap();
    assert_eq!(until("\n\n").await, "data: {\"type\":\"create\",\"path\":\"a\",\"isDir\":true}\n\n");
    fs::remove_dir_all(daemon.work()).unwrap();
    until("{\"type\":\"delete\",\"path\":\"./\",\"isDir\":true}\n\n").await;
    assert!(within(body.next()).await.is_none());
}

#[tokio::test]
async fn without_recursive_only_the_directory_itself_is_watched() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    fs::create_dir_all(work.join("t/old")).unwrap();
    let mut socket = watch(&daemon.client(), "path=t").await;
    fs::create_dir(work.join("t/new")).unwrap();
    fs::write(work.join("t/new/unseen"), "x").unwrap();
    fs::write(work.join("t/old/unseen"), "x").unwrap();
    fs::write(work.join("t/seen"), "x").unwrap();
    fs::remove_file(work.join("t/seen")).unwrap();
    fs::write(work.join("t/end"), "").unwrap();
    let expected =
        [create("t/new", true), create("t/seen", false), modify("t/seen"), delete("t/seen", false)];
    assert_eq!(events(&mut socket, "t/end").await, expected);
    socket.ping().await;
}

#[tokio::test]
async fn everything_in_trees_that_are_made_at_once_is_told_exactly_once() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    fs::create_dir_all(work.join("t/there/already")).unwrap();
    let mut socket = watch(&daemon.client(), "path=t&recursive=true").await;
    let mut expected = BTreeMap::new();
    let makers: Vec<_> = (0..4)
        .map(|maker| {
            let work = work.clone();
            std::thread::spawn(move || {
                let mut made = Vec::new();
                for tree in 0..100 {
                    let mut path = if tree % 2 == 0 { "t".to_owned() } else { "t/there/already".to_owned() };
                    for name in [format!("m{maker}-{tree}"), "a".into(), "b".into(), "c".into(), "d".into()] {
                        path = format!("{path}/{name}");
                        made.push(path.clone());
                    }
                    fs::create_dir_all(work.join(&path)).unwrap();
                    made.push(format!("{path}/file"));
                    fs::write(work.join(format!("{path}/file")), "content").unwrap();
                }
                made
            })
        })
        .collect();
    for maker in makers {
        expected.extend(maker.join().unwrap().into_iter().map(|path| (path, 1)));
    }
    fs::write(work.join("t/end"), "").unwrap();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut has_ended = false;
    while !has_ended || seen.len() < expected.len() {
        let event = socket.json().await;
        match event["type"].as_str().unwrap() {
            "create" if event["path"] == "t/end" => has_ended = true,
            "create" => *seen.entry(event["path"].as_str().unwrap().to_owned()).or_default() += 1,
            "modify" => {}
            _ => panic!("{event}"),
        }
    }
    assert_eq!(seen, expected);
    // Each of the new directories is watched.
    fs::write(work.join("t/m3-98/a/b/c/d/later"), "").unwrap();
    while socket.json().await != create("t/m3-98/a/b/c/d/later", false) {}
}

#[tokio::test]
async fn renames_have_both_names_when_both_are_in_the_tree() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    fs::create_dir_all(work.join("t/a/deep")).unwrap();
    fs::create_dir_all(work.join("t/b")).unwrap();
    fs::create_dir_all(work.join("outside/in")).unwrap();
    fs::write(work.join("t/file"), "").unwrap();
    fs::write(work.join("outside/in/file"), "").unwrap();
    let mut socket = watch(&daemon.client(), "path=t&recursive=true").await;
    let go = |from: &str, to: &str| fs::rename(work.join(from), work.join(to)).unwrap();
    go("t/file", "t/b/moved");
    go("t/a", "t/b/a2");
    fs::write(work.join("t/b/a2/deep/one"), "").unwrap();
    go("t/b/moved", "outside/moved");
    go("t/b/a2/deep", "outside/deep");
    go("outside/in", "t/in");
    fs::write(work.join("t/end"), "").unwrap();
    assert_eq!(
        events(&mut socket, "t/end").await,
        [
            rename("t/file", "t/b/moved", false),
            rename("t/a", "t/b/a2", true),
            create("t/b/a2/deep/one", false),
            delete("t/b/moved", false),
            delete("t/b/a2/deep", true),
            create("t/in", true),
            create("t/in/file", false),
        ]
    );
    // What has left the tree is not watched any more; what came is.
    fs::write(work.join("outside/deep/unseen"), "").unwrap();
    fs::write(work.join("t/in/two"), "").unwrap();
    fs::rename(work.join("t/b"), work.join("outside/b")).unwrap();
    assert_eq!(socket.json().await, create("t/in/two", false));
    assert_eq!(socket.json().await, delete("t/b", true));
}

#[tokio::test]
async fn the_end_of_what_is_watched_ends_the_stream() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    let client = daemon.client();
    fs::create_dir_all(work.join("t/sub")).unwrap();
    let mut socket = watch(&client, "path=./t/&recursive=true").await;
    fs::remove_dir_all(work.join("t")).unwrap();
    assert_eq!(socket.json().await, delete("t/sub", true));
    assert_eq!(socket.json().await, delete("./t/", true));
    assert_eq!(socket.closed().await, 1000);

    fs::create_dir(work.join("t")).unwrap();
    let mut socket = watch(&client, "path=t").await;
    fs::rename(work.join("t"), work.join("u")).unwrap();
    assert_eq!(socket.json().await, delete("t", true));
    assert_eq!(socket.closed().await, 1000);
}

#[tokio::test]
async fn a_file_is_followed_when_another_takes_its_place() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    fs::write(work.join("file"), "1").unwrap();
    let mut socket = watch(&daemon.client(), "path=./file&recursive=true").await;
    fs::write(work.join("other"), "2").unwrap();
    fs::rename(work.join("other"), work.join("file")).unwrap();
    assert_eq!(socket.json().await, modify("./file"));
    fs::remove_file(work.join("file")).unwrap();
    assert_eq!(socket.json().await, delete("./file", false));
    assert_eq!(socket.closed().await, 1000);
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_told_and_then_misses_nothing() {
    let daemon = Daemon::start().await;
    let root = daemon.work().join("t");
    fs::create_dir(&root).unwrap();
    let mut socket = watch(&daemon.client(), "path=t&recursive=true").await;
    let before = daemon.peak_memory();
    // More than all buffers on the way hold.
    let name = "x".repeat(240);
    for number in 0..40_000 {
        let path = root.join(format!("{name}{number:06}"));
        fs::write(&path, "").unwrap();
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(root.join("kept")).unwrap();
    while socket.json().await != json!({"type": "overflow"}) {}
    fs::write(root.join("kept/file"), "").unwrap();
    while socket.json().await != create("t/kept/file", false) {}
    let grown = daemon.peak_memory() - before;
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes more");
}

#[tokio::test]
async fn the_limit_on_watches_is_told() {
    let script = "echo 5 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let daemon =
        Daemon::start_under(&["unshare", "--user", "--map-root-user", "sh", "-c", script], |_| {}).await;
    let work = daemon.work();
    fs::create_dir_all(work.join("t/a/b")).unwrap();
    let client = daemon.client();
    let mut socket = watch(&client, "path=t&recursive=true").await;
    fs::create_dir_all(work.join("t/c")).unwrap();
    assert_eq!(socket.json().await, create("t/c", true));
    fs::create_dir_all(work.join("t/d")).unwrap();
    assert_eq!(socket.json().await, create("t/d", true));
    assert_eq!(socket.json().await, json!({"type": "limit", "path": "t/d"}));
    fs::write(work.join("t/c/file"), "").unwrap();
    assert_eq!(socket.json().await, create("t/c/file", false));
    let message = client.get("/files/watch?path=t").fails(503, "SERVICE_UNAVAILABLE").await;
    assert!(message.contains("max_user_watches"), "{message}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_watch() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let watches = || {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().contains("inotify")).count()
    };
    let socket = watch(&client, "path=.").await;
    let mut events = client.get("/files/watch?path=.").open().await;
    assert!(within(events.chunk()).await.unwrap().is_some());
    assert_eq!(watches(), 2);
    drop((socket, events));
    let gone = async {
        while watches() > 0 {
            client.get("/version").ok().await;
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn the_end_of_the_daemon_closes_with_1001() {
    let mut daemon = Daemon::start().await;
    let mut socket = watch(&daemon.client(), "path=.").await;
    let mut events = daemon.client().get("/files/watch?path=.").open().await;
    assert!(within(events.chunk()).await.unwrap().is_some());
    daemon.signal("TERM").await;
    assert_eq!(socket.closed().await, 1001);
    assert!(within(events.chunk()).await.unwrap().is_none());
    assert_eq!(daemon.exited().await.code(), Some(0));
}
