//! Replace in files.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use crate::support::{Daemon, names_in};

#[tokio::test]
async fn text_is_replaced_literally_and_everywhere() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::write(work.join("a"), b"x.y x.y xzy \xff$1").unwrap();
    std::fs::write(work.join("b"), "aaaa").unwrap();
    let reply = client.replace(&["a", "nope", "b", "a"], "x.y", "$1\u{e9}").ok().await;
    let expected = json!([
        {"file": "a", "success": true},
        {"file": "nope", "success": false, "error": "file not found: nope"},
        {"file": "b", "success": true},
        {"file": "a", "success": true},
    ]);
    assert_eq!(reply.json(), expected);
    assert_eq!(std::fs::read(work.join("a")).unwrap(), b"$1\xc3\xa9 $1\xc3\xa9 xzy \xff$1");
    client.replace(&["b"], "aa", "").ok().await;
    assert_eq!(std::fs::read(work.join("b")).unwrap(), b"");
    assert_eq!(client.replace(&[], "x", "y").ok().await.json(), json!([]));
}

#[tokio::test]
async fn a_file_without_a_match_is_not_touched_and_one_with_keeps_mode_and_links() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    let file = work.join("file");
    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4711)).unwrap();
    symlink("file", work.join("link")).unwrap();
    let before = std::fs::metadata(&file).unwrap();
    client.replace(&["link"], "other", "new").ok().await;
    let after = std::fs::metadata(&file).unwrap();
    assert_eq!((after.ino(), after.mtime_nsec()), (before.ino(), before.mtime_nsec()));
    client.replace(&["link"], "old", "new").ok().await;
    assert!(work.join("link").is_symlink());
    assert_eq!(std::fs::metadata(&file).unwrap().mode(), before.mode());
    std::fs::hard_link(&file, work.join("other")).unwrap();
    client.replace(&["file"], "new", "newest").ok().await;
    assert_eq!(std::fs::read_to_string(work.join("other")).unwrap(), "newest");
    assert_eq!(names_in(&work), ["file", "link", "other"]);
}

#[tokio::test]
async fn a_large_file_is_replaced_in_bounded_memory() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    client.replace(&["nope"], "x", "y").ok().await;
    let idle = daemon.peak_memory();
    let line = b"some words and a needle\n";
    std::fs::write(work.join("large"), line.repeat(1 << 20)).unwrap();
    client.replace(&["large"], "needle", "haystack").ok().await;
    let size = std::fs::metadata(work.join("large")).unwrap().len();
    assert_eq!(size, (line.len() as u64 + 2) << 20);
    let used = daemon.peak_memory() - idle;
    assert!(used <= 16 << 20, "{used}");
}

#[tokio::test]
async fn where_no_temporary_file_can_be_the_content_is_still_complete() {
    let Some(daemon) = Daemon::start_as_nobody().await else { return };
    let work = daemon.work();
    std::fs::create_dir(work.join("roots")).unwrap();
    std::fs::set_permissions(work.join("roots"), PermissionsExt::from_mode(0o755)).unwrap();
    let file = work.join("roots/file");
    std::fs::write(&file, "old ".repeat(100_000)).unwrap();
    std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
    let reply = daemon.client().replace(&["roots/file"], "old", "newer").ok().await;
    assert_eq!(reply.json(), json!([{"file": "roots/file", "success": true}]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "newer ".repeat(100_000));
}

#[tokio::test]
async fn special_files_and_bad_requests_are_refused() {
    let daemon = Daemon::start().await;
    let pipe = daemon.work().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    let results = daemon.client().replace(&["pipe", ".", "/dev/zero", ""], "a", "b").ok().await.json();
    assert!(results.as_array().unwrap().iter().all(|result| result["success"] == false), "{results}");
    for body in [
        json!({"files": [], "pattern": "", "newValue": ""}),
        json!({"files": [], "pattern": "x"}),
        json!({"files": [], "pattern": "x", "newValue": null}),
        json!({"pattern": "x", "newValue": "y"}),
    ] {
        daemon.client().post("/files/replace").json(body).fails(400, "INVALID_REQUEST_BODY").await;
    }
    daemon.client().post("/files/replace").body("{").fails(400, "INVALID_REQUEST_BODY").await;
}
