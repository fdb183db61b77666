//! Search by name and by content.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Client, Daemon, Events, within};

fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

async fn names(client: &Client, path: &str, pattern: &str) -> Vec<String> {
    let reply = client.get("/files/search").query("path", path).query("pattern", pattern).ok().await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    let mut reply = reply.json();
    assert_eq!(reply.as_object().unwrap().len(), 1);
    serde_json::from_value(reply["files"].take()).unwrap()
}

async fn find(client: &Client, path: &str, pattern: &str) -> Value {
    client.get("/files/find").query("path", path).query("pattern", pattern).ok().await.json()
}

/// Files and line numbers, as `a.txt:1`.
fn places(found: &Value) -> Vec<String> {
    let place = |found: &Value| format!("{}:{}", found["file"].as_str().unwrap(), found["line"]);
    found.as_array().unwrap().iter().map(place).collect()
}

#[tokio::test]
async fn names_are_found_in_byte_wise_pre_order_with_the_root_and_hidden_entries() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    for file in
        ["a.txt", "B.txt", "a/inner.txt", "a-b/x.txt", ".git/config.txt", ".dot.txt", "sub/deep/z.txt"]
    {
        write(work.join("t").join(file), "");
    }
    symlink("sub", work.join("t/link.txt")).unwrap();
    let client = daemon.client();
    let found = ["t/.dot.txt", "t/.git/config.txt", "t/B.txt", "t/a/inner.txt", "t/a-b/x.txt", "t/a.txt"];
    let found: Vec<_> = found.into_iter().chain(["t/link.txt", "t/sub/deep/z.txt"]).collect();
    assert_eq!(names(&client, "t", "*.txt").await, found);
    assert_eq!(names(&client, "t", "t").await, ["t"]);
    assert_eq!(names(&client, ".", "?").await, [".", "t", "t/a"]);
    assert_eq!(names(&client, "./t/", "[^a-zA-Z.]*").await, [""; 0]);
    assert_eq!(names(&client, "./t/", "[ta]").await, ["./t/", "t/a"]);
    let absolute = work.join("t/sub").to_str().unwrap().to_owned();
    assert_eq!(names(&client, &absolute, "deep").await, [format!("{absolute}/deep")]);
    assert_eq!(names(&client, "t", "a/inner.txt").await, [""; 0]);
    assert_eq!(names(&client, "t", "{a,B}.txt").await, [""; 0]);
    assert_eq!(names(&client, "missing", "*").await, [""; 0]);
    assert_eq!(names(&client, "t/a.txt", "*").await, ["t/a.txt"]);
}

#[tokio::test]
async fn a_root_that_is_a_link_is_entered_only_with_a_slash() {
    let daemon = Daemon::start().await;
    write(daemon.work().join("real/a.txt"), "hello");
    symlink("real", daemon.work().join("link")).unwrap();
    let client = daemon.client();
    assert_eq!(names(&client, "link", "*").await, ["link"]);
    assert_eq!(names(&client, "link/", "*").await, ["link/", "link/a.txt"]);
    assert_eq!(find(&client, "link", "hello").await, json!([]));
    assert_eq!(places(&find(&client, "link/", "hello").await), ["link/a.txt:1"]);
}

#[tokio::test]
async fn names_that_are_not_text_are_shown_with_replacement_characters() {
    use std::os::unix::ffi::OsStrExt;
    let daemon = Daemon::start().await;
    write(daemon.work().join(std::ffi::OsStr::from_bytes(b"a\xe4\xb8\"\n")), "x");
    assert_eq!(names(&daemon.client(), ".", "a*").await, ["a\u{FFFD}\u{FFFD}\"\n"]);
}

#[tokio::test]
async fn lines_are_found_literally_once_each_with_three_members() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    write(work.join("t/a.txt"), "x\n\n  hello hello\r\nHELLO\nhe.*o\n");
    write(work.join("t/.dot"), "hello");
    write(work.join("t/.git/HEAD"), "hello\n");
    write(work.join("t/bad.txt"), b"hello \xff\xfe\n");
    write(work.join("t/binary"), b"hello\0");
    write(work.join("t/late-nul"), [&b"x".repeat(512)[..], b"\0\nhello"].concat());
    write(work.join("t/empty"), "");
    symlink("a.txt", work.join("t/link")).unwrap();
    symlink("nowhere", work.join("t/dangling")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(work.join("t/pipe")).status().unwrap();
    assert!(pipe.success());
    let client = daemon.client();
    assert_eq!(
        find(&client, "t", "hello").await,
        json!([
            {"file": "t/.dot", "line": 1, "content": "hello"},
            {"file": "t/.git/HEAD", "line": 1, "content": "hello"},
            {"file": "t/a.txt", "line": 3, "content": "  hello hello"},
            {"file": "t/bad.txt", "line": 1, "content": "hello \u{FFFD}\u{FFFD}"},
            {"file": "t/late-nul", "line": 2, "content": "hello"},
        ])
    );
    assert_eq!(places(&find(&client, "t", "e.*o").await), ["t/a.txt:5"]);
    assert_eq!(places(&find(&client, "./t/a.txt", "HELLO").await), ["./t/a.txt:4"]);
    assert_eq!(find(&client, "t", "no such text").await, json!([]));
    assert_eq!(find(&client, "missing", "hello").await, json!([]));
    assert_eq!(find(&client, "t/pipe", "hello").await, json!([]));
}

#[tokio::test]
async fn long_lines_are_cut_and_do_not_end_the_search() {
    let daemon = Daemon::start().await;
    let line = format!("{}needle{}", "é".repeat(200_000), "é".repeat(200_000));
    write(daemon.work().join("long"), format!("{line}\nneedle\n"));
    let found = find(&daemon.client(), "long", "needle").await;
    assert_eq!(places(&found), ["long:1", "long:2"]);
    let content = found[0]["content"].as_str().unwrap();
    assert!(content.contains("énéedleé".replace("née", "nee").as_str()) && !content.contains('\u{FFFD}'));
    assert!((4000..=4096).contains(&content.len()), "{}", content.len());
    let whole = "é".repeat(30_000);
    write(daemon.work().join("whole"), &whole);
    assert_eq!(find(&daemon.client(), "whole", "éé").await[0]["content"], whole);
}

#[tokio::test]
async fn what_is_missing_or_malformed_is_refused() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for url in ["/files/search", "/files/find"] {
        let message = client.get(url).query("path", ".").fails(400, "BAD_REQUEST").await;
        assert_eq!(message, "bad request: pattern is required");
        client.get(url).query("path", "").query("pattern", "x").fails(400, "BAD_REQUEST").await;
        client.get(url).query("path", "a\0b").query("pattern", "x").fails(400, "INVALID_FILE_PATH").await;
    }
    client.get("/files/search?path=.&pattern=[a").fails(400, "BAD_REQUEST").await;
    client.get("/files/find?path=.&pattern=(&regex=true").fails(400, "BAD_REQUEST").await;
    client.get("/files/find?path=.&pattern=x&glob={a").fails(400, "BAD_REQUEST").await;
    client.get("/files/find?path=.&pattern=x&limit=0").fails(400, "BAD_REQUEST").await;
    client.get("/files/find?path=.&pattern=x&context=101").fails(400, "BAD_REQUEST").await;
    assert_eq!(find(&client, ".", "(").await, json!([]));
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped_alone() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    for file in ["a", "denied", "shut/inner", "z"] {
        write(work.join("t").join(file), "hello");
    }
    for path in ["t/denied", "t/shut"] {
        std::fs::set_permissions(work.join(path), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    let client = daemon.client();
    let (lines, all) = (find(&client, "t", "hello").await, names(&client, "t", "*").await);
    let is_privileged = std::fs::File::open(work.join("t/denied")).is_ok(); // modes mean nothing to root
    std::fs::set_permissions(work.join("t/shut"), std::fs::Permissions::from_mode(0o700)).unwrap();
    if is_privileged {
        assert_eq!(places(&lines), ["t/a:1", "t/denied:1", "t/shut/inner:1", "t/z:1"]);
    } else {
        assert_eq!(places(&lines), ["t/a:1", "t/z:1"]);
        assert_eq!(all, ["t", "t/a", "t/denied", "t/shut", "t/z"]);
    }
}

#[tokio::test]
async fn find_takes_more_when_it_is_asked_for() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    write(work.join("t/src/a.rs"), "one\ntwo\nThree\nfour\n");
    write(work.join("t/src/b.txt"), "three\n");
    write(work.join("t/target/out.rs"), "three\n");
    write(work.join("t/.git/x.rs"), "three\n");
    write(work.join("t/.gitignore"), "target/\n*.log\n");
    write(work.join("t/src/.gitignore"), "!keep.log\n");
    write(work.join("t/src/keep.log"), "three\n");
    write(work.join("t/src/drop.log"), "three\n");
    let client = daemon.client();
    let places = async |query: &str| {
        places(&client.get(&format!("/files/find?path=t&{query}")).ok().await.json()).join(" ")
    };
    assert_eq!(places("pattern=^.hree$&regex=true&glob=*.rs&gitignore=true").await, "t/src/a.rs:3");
    assert_eq!(
        places("pattern=THREE&ignoreCase=true&gitignore=true").await,
        "t/src/a.rs:3 t/src/b.txt:1 t/src/keep.log:1"
    );
    assert_eq!(places("pattern=three&glob=!*.{rs,log}").await, "t/src/b.txt:1");
    assert_eq!(places("pattern=three&glob=src/**").await, "t/src/b.txt:1 t/src/drop.log:1 t/src/keep.log:1");
    assert_eq!(places("pattern=T&ignoreCase=True&glob=a.rs").await, "t/src/a.rs:3");
    // Rules from above the root count too, when the root is in a repository.
    let found = client.get("/files/find?path=t/src&pattern=three&gitignore=true").ok().await.json();
    assert_eq!(self::places(&found), ["t/src/b.txt:1", "t/src/keep.log:1"]);

    let found = client.get("/files/find?path=t/src/a.rs&pattern=t&before=1&after=2").ok().await.json();
    assert_eq!(
        found,
        json!([{"file": "t/src/a.rs", "line": 2, "content": "two", "before": ["one"], "after": ["Three", "four"]}])
    );
    let found = client.get("/files/find?path=t/src/a.rs&pattern=one&context=0").ok().await.json();
    assert_eq!(
        found,
        json!([{"file": "t/src/a.rs", "line": 1, "content": "one", "before": [], "after": []}])
    );
}

#[tokio::test]
async fn a_limit_says_whether_there_is_more() {
    let daemon = Daemon::start().await;
    for file in ["a", "b", "c"] {
        write(daemon.work().join("t").join(file), "x\nx\n");
    }
    let client = daemon.client();
    for (limit, truncated, expected) in [
        (1, "true", "t/a:1"),
        (3, "true", "t/a:1 t/a:2 t/b:1"),
        (6, "false", "t/a:1 t/a:2 t/b:1 t/b:2 t/c:1 t/c:2"),
    ] {
        let reply = client.get(&format!("/files/find?path=t&pattern=x&limit={limit}")).ok().await;
        assert_eq!(reply.header("x-toolbox-truncated"), truncated);
        assert_eq!(places(&reply.json()).join(" "), expected);
    }
    let reply = client.get("/files/find?path=t&pattern=y&limit=1").ok().await;
    assert_eq!((reply.header("x-toolbox-truncated"), reply.json()), ("false", json!([])));
    assert_eq!(client.get("/files/find?path=t&pattern=x").ok().await.header("x-toolbox-truncated"), "");
}

/// The same by the plainest means.
fn walk(path: &Path, shown: &str, names: &mut Vec<String>, lines: &mut Vec<String>) {
    names.push(shown.to_owned());
    if path.is_dir() {
        let mut entries: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        entries.sort();
        for entry in entries {
            walk(&path.join(&entry), &format!("{shown}/{}", entry.to_str().unwrap()), names, lines);
        }
    } else {
        let text = std::fs::read_to_string(path).unwrap();
        let matching = (1..).zip(text.lines()).filter(|(_, line)| line.contains("needle"));
        lines.extend(matching.map(|(number, _)| format!("{shown}:{number}")));
    }
}

#[tokio::test]
async fn order_is_that_of_a_plain_walk_however_many_threads_there_are() {
    let daemon = Daemon::start().await;
    let root = daemon.work().join("t");
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for number in 0..3000 {
        let mut path = root.clone();
        for _ in 0..next(6) {
            path.push(["a", "a-", "B", ".h", "zz"][usize::try_from(next(5)).unwrap()]);
        }
        let text: String = (0..next(80))
            .map(|_| ["needle\n", "hay\n", "hay needle hay\n", "\n"][usize::try_from(next(4)).unwrap()])
            .collect();
        write(path.join(format!("f{number}")), text);
    }
    let (mut all, mut lines) = (Vec::new(), Vec::new());
    walk(&root, "t", &mut all, &mut lines);
    let client = daemon.client();
    for _ in 0..5 {
        assert_eq!(names(&client, "t", "*").await, all);
        assert_eq!(places(&find(&client, "t", "needle").await), lines);
    }
}

#[tokio::test]
async fn memory_does_not_grow_with_the_number_of_matches_and_the_speed_of_the_client() {
    let daemon = Daemon::start().await;
    let line = format!("{} needle\n", "x".repeat(90));
    for file in ["a", "b", "c", "d", "e", "f"] {
        write(daemon.work().join("t").join(file), line.repeat(100_000));
    }
    let client = daemon.client();
    find(&client, "t", "no such text").await;
    let before = daemon.peak_memory();
    let reply = client.get("/files/find?path=t&pattern=needle").open().await;
    let mut body = reply.bytes_stream();
    // The beginning comes before the end is known; then the client takes its time.
    let (mut length, mut entries, mut last) = (0, 0, Vec::new());
    while let Some(chunk) = within(body.next()).await {
        let chunk = chunk.unwrap();
        length += chunk.len();
        entries += chunk.windows(7).filter(|window| window == b"\"file\":").count();
        last = [last, chunk.to_vec()].concat();
        last.drain(..last.len().saturating_sub(200));
        tokio::task::yield_now().await;
    }
    assert!(length > 60_000_000, "{length}");
    assert!((599_000..=600_000).contains(&entries), "{entries}"); // some are cut by the ends of chunks
    assert!(String::from_utf8(last).unwrap().contains("\"t/f\",\"line\":100000,"));
    let grown = daemon.peak_memory() - before;
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes more");
}

#[tokio::test]
async fn the_search_ends_when_the_client_leaves() {
    let daemon = Daemon::start().await;
    let file = daemon.work().join("endless");
    write(&file, format!("{}\n", "x".repeat(1000)));
    // Reading this takes minutes.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(4 << 40).unwrap();
    let mut events = Events::of(&file);
    let mut reply = daemon.client().get("/files/find?path=.&pattern=y").open().await;
    assert_eq!(within(reply.chunk()).await.unwrap().unwrap(), "[");
    within(events.next("OPEN")).await;
    drop(reply);
    within(events.next("CLOSE_NOWRITE")).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_results_wait_ends_the_search() {
    let daemon = Daemon::start().await;
    let file = daemon.work().join("t/many");
    write(&file, "needle\n".repeat(2_000_000));
    let mut events = Events::of(&file);
    let reply = daemon.client().get("/files/find?path=t&pattern=needle").open().await;
    within(events.next("OPEN")).await;
    drop(reply);
    within(events.next("CLOSE_NOWRITE")).await;
}
