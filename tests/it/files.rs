//! List, info, delete, folders, move, permissions.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use serde_json::json;

use crate::support::{Daemon, names_in};

fn write(path: impl AsRef<Path>, content: &str) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn pipe(path: &Path) {
    rustix::fs::mkfifoat(CWD, path, Mode::from_raw_mode(0o644)).unwrap();
}

#[tokio::test]
async fn info_has_every_field_in_its_exact_form() {
    let daemon = Daemon::start().await;
    let file = daemon.work().join("a.txt");
    write(&file, "hello\n");
    chmod(&file, 0o644);
    touch(&file, 1_709_618_828, 123_456_789);
    let owner = std::fs::metadata(&file).unwrap();
    let expected = json!({
        "name": "a.txt", "size": 6, "mode": "-rw-r--r--",
        "modTime": "2024-03-05 06:07:08.123456789 +0000 UTC", "modifiedAt": "2024-03-05T06:07:08.123456Z",
        "isDir": false, "owner": owner.uid().to_string(), "group": owner.gid().to_string(),
        "permissions": "0644", "path": file,
    });
    for path in ["a.txt", "./x/..//a.txt", file.to_str().unwrap()] {
        std::fs::create_dir_all(daemon.work().join("x")).unwrap();
        assert_eq!(daemon.client().info(path).ok().await.json(), expected);
    }
}

#[tokio::test]
async fn info_names_the_path_as_it_was_requested_and_follows_links() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    std::fs::create_dir(daemon.work().join("d")).unwrap();
    chmod(daemon.work().join("d"), 0o1777);
    symlink("d", daemon.work().join("link")).unwrap();
    symlink("nothing", daemon.work().join("dangling")).unwrap();
    for (path, name) in [("/", "/"), (".", "."), ("d/", "d"), ("link", "link")] {
        let info = client.info(path).ok().await.json();
        assert_eq!((info["name"].as_str(), info["isDir"].as_bool()), (Some(name), Some(true)), "{info}");
    }
    let info = client.info("link").ok().await.json();
    assert_eq!(info["mode"], "dtrwxrwxrwx");
    assert_eq!(info["permissions"], "0777");
    assert_eq!(info["path"], json!(daemon.work().join("link")));
    client.info("dangling").fails(404, "FILE_NOT_FOUND").await;
}

#[tokio::test]
async fn the_zone_of_mod_time_is_the_daemons() {
    let daemon = Daemon::start_with(|command| {
        command.env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3");
    })
    .await;
    let file = daemon.work().join("a");
    write(&file, "");
    touch(&file, 1_709_618_828, 0);
    let info = daemon.client().info("a").ok().await.json();
    assert_eq!(info["modTime"], "2024-03-05 07:07:08 +0100 CET");
    assert_eq!(info["modifiedAt"], "2024-03-05T07:07:08+01:00");
}

#[tokio::test]
async fn lookups_that_fail_say_why() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    write(daemon.work().join("file"), "");
    let message = client.info("t/nope").fails(404, "FILE_NOT_FOUND").await;
    assert_eq!(message, "file not found: t/nope");
    assert_eq!(client.get("/files/info").fails(400, "BAD_REQUEST").await, "bad request: path is required");
    for path in ["file/below".to_owned(), "x".repeat(300), "nul\0byte".to_owned()] {
        let message = client.info(&path).fails(400, "INVALID_FILE_PATH").await;
        assert!(message.starts_with("invalid file path: "), "{message}");
    }
    symlink("loop", daemon.work().join("loop")).unwrap();
    client.info("loop").fails(400, "INVALID_FILE_PATH").await;
}

#[tokio::test]
async fn old_go_clients_get_the_fields_that_they_know() {
    let daemon = Daemon::start().await;
    write(daemon.work().join("a"), "");
    for (version, has_modified_at, has_path) in [
        ("v0.183.0", false, false),
        ("0.187.9", true, false),
        ("0.188.0", true, true),
        ("0.0.0-dev", true, true),
    ] {
        let call = daemon.client().info("a").header("x-daytona-source", "sdk-go");
        let info = call.header("x-daytona-sdk-version", version).ok().await.json();
        let call = daemon.client().list(".").header("x-daytona-source", "sdk-go");
        let list = call.header("x-daytona-sdk-version", version).ok().await.json();
        for info in [&info, &list[0]] {
            let has = |name| info.get(name).is_some();
            assert_eq!((has("modifiedAt"), has("path")), (has_modified_at, has_path), "{version}");
        }
    }
}

#[tokio::test]
async fn names_of_every_kind_round_trip() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for name in
        ["sp ace", "plus+", "per%20cent", "qu\"ote'", "back\\slash", "new\nline", "semi;&=#?", "世界é", "~"]
    {
        client.upload(name, name.to_owned()).ok().await;
        assert_eq!(std::fs::read_to_string(daemon.work().join(name)).unwrap(), name);
        assert_eq!(client.info(name).ok().await.json()["name"], name);
    }
    assert_eq!(client.list(".").ok().await.column("name").len(), 9);
    // Form encoding and percent encoding mean the same.
    client.get("/files/info?path=sp+ace").ok().await;
    client.get("/files/info?path=sp%20ace&path=other&expires=1&signature=x").ok().await;
    client.get("/files/info?path=plus%2B").ok().await;
}

#[tokio::test]
async fn a_directory_is_listed_byte_by_byte_with_hidden_entries_and_without_dangling_links() {
    let daemon = Daemon::start().await;
    for name in ["b", "B", "a", ".hidden", "é", "a.txt"] {
        write(daemon.work().join("d").join(name), "");
    }
    std::fs::create_dir(daemon.work().join("d/sub")).unwrap();
    symlink("nothing", daemon.work().join("d/dangling")).unwrap();
    symlink("sub", daemon.work().join("d/link")).unwrap();
    let bad = daemon.work().join("d").join(std::ffi::OsStr::from_bytes(b"bad\xff\xfe"));
    std::fs::write(bad, "").unwrap();
    let client = daemon.client();
    let list = client.list("d").ok().await;
    let expected = [".hidden", "B", "a", "a.txt", "b", "bad\u{FFFD}\u{FFFD}", "link", "sub", "é"];
    assert_eq!(list.column("name"), expected);
    assert_eq!(list.json()[6]["isDir"], true);
    assert_eq!(list.column("path")[2], daemon.work().join("d/a").to_str().unwrap());
    assert!(!list.header("content-length").is_empty());
    assert_eq!(client.get("/files").ok().await.column("name"), ["d"]);
    assert_eq!(client.get("/files/?path=").ok().await.column("name"), ["d"]);
    assert_eq!(client.list("d/sub").ok().await.json(), json!([]));
}

#[tokio::test]
async fn depth_lists_each_directory_before_its_entries_and_enters_no_link() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for file in ["t/a/x/deep", "t/a/y", "t/b"] {
        write(daemon.work().join(file), "");
    }
    symlink("a", daemon.work().join("t/link")).unwrap();
    let names = async |depth: &str| client.list("t").query("depth", depth).ok().await.column("name");
    assert_eq!(names("1").await, ["a", "b", "link"]);
    assert_eq!(names("2").await, ["a", "x", "y", "b", "link"]);
    assert_eq!(names("3").await, ["a", "x", "deep", "y", "b", "link"]);
    assert_eq!(names("99").await, names("3").await);
    for depth in ["0", "-1", "two", "1.5"] {
        client.list("t").query("depth", depth).fails(400, "BAD_REQUEST").await;
    }
}

#[tokio::test]
async fn what_is_no_directory_cannot_be_listed() {
    let daemon = Daemon::start().await;
    write(daemon.work().join("file"), "");
    pipe(&daemon.work().join("pipe"));
    daemon.client().list("file").fails(400, "INVALID_FILE_PATH").await;
    daemon.client().list("pipe").fails(400, "INVALID_FILE_PATH").await;
    daemon.client().list("nope").fails(404, "FILE_NOT_FOUND").await;
}

#[tokio::test]
async fn a_huge_directory_is_streamed_in_order() {
    let daemon = Daemon::start().await;
    std::fs::create_dir(daemon.work().join("huge")).unwrap();
    for index in 0..5000 {
        std::fs::write(daemon.work().join(format!("huge/{index:05}")), "").unwrap();
    }
    let list = daemon.client().list("huge").ok().await;
    assert_eq!(list.header("content-length"), "");
    let expected: Vec<String> = (0..5000).map(|index| format!("{index:05}")).collect();
    assert_eq!(list.column("name"), expected);
}

#[tokio::test]
async fn files_links_and_trees_are_deleted() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    write(work.join("t/sub/file"), "");
    write(work.join("file"), "");
    symlink("t", work.join("link")).unwrap();
    symlink("nothing", work.join("dangling")).unwrap();
    let reply = client.remove("file", true).ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0));
    for path in ["t", "t/sub", "link"] {
        let message = client.remove(path, false).fails(400, "BAD_REQUEST").await;
        assert_eq!(message, "bad request: cannot delete directory without recursive flag");
    }
    for recursive in ["True", "1", "yes"] {
        client
            .delete("/files/")
            .query("path", "t")
            .query("recursive", recursive)
            .fails(400, "BAD_REQUEST")
            .await;
    }
    client.remove("link", true).ok().await;
    assert_eq!(names_in(&work), ["dangling", "t"]);
    client.remove("t", true).ok().await;
    client.remove("t", true).fails(404, "FILE_NOT_FOUND").await;
    client.remove("dangling", true).fails(404, "FILE_NOT_FOUND").await;
    client.delete("/files").fails(400, "BAD_REQUEST").await;
}

#[tokio::test]
async fn the_root_the_working_directory_and_mount_points_cannot_be_deleted() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    write(work.join("sub/kept"), "");
    for path in [
        "/",
        ".",
        "..",
        "sub/..",
        "/proc/..",
        work.to_str().unwrap(),
        work.parent().unwrap().to_str().unwrap(),
    ] {
        daemon.client().remove(path, true).fails(400, "BAD_REQUEST").await;
    }
    daemon.client().remove("/proc", true).fails(400, "INVALID_FILE_PATH").await;
    assert!(work.join("sub/kept").exists());
    daemon.client().remove("sub/.", true).ok().await;
}

#[tokio::test]
async fn folders_get_exactly_their_mode_and_their_ancestors_0755() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    let reply = client.create_folder("a/b/c", "400").ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (201, 0));
    assert_eq!(
        (mode(work.join("a")), mode(work.join("a/b")), mode(work.join("a/b/c"))),
        (0o755, 0o755, 0o400)
    );
    for (path, text, expected) in [("e", "0777", 0o777), ("f", "1777", 0o1777), ("g", "2770", 0o2770)] {
        client.create_folder(path, text).ok().await;
        assert_eq!(mode(work.join(path)), expected);
    }
    client.post("/files/folder").query("path", "h").ok().await;
    assert_eq!(mode(work.join("h")), 0o755);
    // One that exists is left alone.
    client.create_folder("e/", "700").ok().await;
    assert_eq!(mode(work.join("e")), 0o777);
    for text in ["0o755", "u+x", "999", "17777"] {
        client.create_folder("never", text).fails(400, "BAD_REQUEST").await;
    }
    write(work.join("file"), "");
    client.create_folder("file", "755").fails(400, "INVALID_FILE_PATH").await;
    client.create_folder("file/below", "755").fails(400, "INVALID_FILE_PATH").await;
    client.post("/files/folder").fails(400, "BAD_REQUEST").await;
    assert!(!work.join("never").exists());
}

#[tokio::test]
async fn a_move_never_replaces_anything() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    write(work.join("file"), "content");
    write(work.join("other"), "kept");
    std::fs::create_dir(work.join("dir")).unwrap();
    symlink("nothing", work.join("dangling")).unwrap();
    for destination in ["other", "dir", "dir/", "dangling", "file", "/", ".."] {
        client.rename("file", destination).fails(409, "CONFLICT").await;
    }
    assert_eq!(std::fs::read_to_string(work.join("other")).unwrap(), "kept");
    client.rename("nope", "x").fails(404, "FILE_NOT_FOUND").await;
    client.rename("dangling", "x").fails(404, "FILE_NOT_FOUND").await;
    client.rename("file", "no/such/parent").fails(404, "FILE_NOT_FOUND").await;
    client.rename("file", "other/below").fails(400, "INVALID_FILE_PATH").await;
    client.post("/files/move").query("source", "file").fails(400, "BAD_REQUEST").await;
    let reply = client.rename("file", "dir/moved").ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    symlink("dir", work.join("link")).unwrap();
    client.rename("link", "link2").ok().await;
    client.rename("dir/", "dir2").ok().await;
    assert_eq!(names_in(&work), ["dangling", "dir2", "link2", "other"]);
    assert!(work.join("link2").is_symlink());
}

#[tokio::test]
async fn a_directory_cannot_be_moved_into_itself() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    write(work.join("dir/sub/file"), "");
    daemon.client().rename("dir", "dir/sub/dir").fails(400, "INVALID_FILE_PATH").await;
    assert_eq!(names_in(&work.join("dir/sub")), ["file"]);
}

#[tokio::test]
async fn a_move_across_file_systems_keeps_everything() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    let Ok(elsewhere) = tempfile::TempDir::new_in("/dev/shm") else { return };
    if std::fs::metadata(elsewhere.path()).unwrap().dev() == std::fs::metadata(&work).unwrap().dev() {
        return;
    }
    let tree = work.join("tree");
    write(tree.join("dir/file"), "content");
    chmod(tree.join("dir/file"), 0o4751);
    std::fs::hard_link(tree.join("dir/file"), tree.join("same")).unwrap();
    symlink("dir/file", tree.join("link")).unwrap();
    symlink("nothing", tree.join("dangling")).unwrap();
    pipe(&tree.join("pipe"));
    let holes = std::fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"middle", 32 << 20).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(tree.join("holes"), Some(12), Some(34)).unwrap();
        std::os::unix::fs::lchown(tree.join("link"), Some(12), Some(34)).unwrap();
    }
    touch(&tree.join("link"), 1_000_000_000, 5);
    touch(&tree.join("dir/file"), 1_000_000_001, 6);
    touch(&tree.join("dir"), 1_000_000_002, 7);
    chmod(tree.join("dir"), 0o500);
    let facts = |root: &Path| -> Vec<_> {
        ["", "dir", "dir/file", "same", "link", "dangling", "pipe", "holes"]
            .iter()
            .map(|name| {
                let entry = std::fs::symlink_metadata(root.join(name)).unwrap();
                let size = if entry.is_dir() { 0 } else { entry.size() };
                (*name, entry.mode(), entry.uid(), entry.gid(), size, entry.mtime(), entry.mtime_nsec())
            })
            .collect()
    };
    let before = facts(&tree);
    let to = elsewhere.path().join("moved");
    assert_eq!(client.rename("tree", to.to_str().unwrap()).ok().await.body.len(), 0);
    assert_eq!(facts(&to), before);
    assert_eq!(names_in(&work), Vec::<String>::new());
    assert_eq!(names_in(elsewhere.path()), ["moved"]);
    let inode = |name: &str| std::fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("same"), inode("dir/file"));
    assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("dir/file"));
    assert!(std::fs::metadata(to.join("holes")).unwrap().blocks() * 512 < 1 << 20);
    let content = std::fs::read(to.join("holes")).unwrap();
    assert_eq!((content.len(), &content[32 << 20..(32 << 20) + 6]), (64 << 20, b"middle".as_slice()));
    // And never over something.
    write(work.join("again"), "");
    client.rename("again", to.to_str().unwrap()).fails(409, "CONFLICT").await;
    assert_eq!(names_in(elsewhere.path()), ["moved"]);
}

#[tokio::test]
async fn permissions_have_twelve_bits_and_change_all_or_nothing() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    let file = work.join("file");
    write(&file, "");
    chmod(&file, 0o600);
    let reply = client.set_permissions("file").query("mode", "4755").ok().await;
    assert_eq!((mode(&file), reply.body.len()), (0o4755, 0));
    client.set_permissions("file").ok().await;
    for text in ["999", "10000", "37777777777", "rwx"] {
        client.set_permissions("file").query("mode", text).fails(400, "BAD_REQUEST").await;
    }
    let call = client.set_permissions("file").query("mode", "0777").query("group", "no-such-group");
    assert_eq!(call.fails(400, "BAD_REQUEST").await, "bad request: group not found: no-such-group");
    client.set_permissions("file").query("owner", "no-such-user").fails(400, "BAD_REQUEST").await;
    assert_eq!(mode(&file), 0o4755);
    client.set_permissions("nope").query("mode", "755").fails(404, "FILE_NOT_FOUND").await;
    client.post("/files/permissions").query("mode", "755").fails(400, "BAD_REQUEST").await;
    symlink("file", work.join("link")).unwrap();
    client.set_permissions("link").query("mode", "0640").ok().await;
    assert_eq!(mode(&file), 0o640);
    if rustix::process::geteuid().is_root() {
        let call = client.set_permissions("file").query("owner", "12").query("group", "34");
        call.query("mode", "6711").ok().await;
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!((after.uid(), after.gid(), mode(&file)), (12, 34, 0o6711));
        client.set_permissions("file").query("owner", "root").query("group", "root").ok().await;
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0);
    }
}

#[tokio::test]
async fn who_may_not_is_told_so_and_nothing_changes() {
    let Some(daemon) = Daemon::start_as_nobody().await else { return };
    let (client, work) = (daemon.client(), daemon.work());
    // Ours, in a directory of root's; and root's own.
    write(work.join("roots/file"), "content");
    chmod(work.join("roots"), 0o755);
    std::fs::create_dir(work.join("roots/secret")).unwrap();
    chmod(work.join("roots/secret"), 0o700);
    client.list("roots/secret").fails(403, "FILE_ACCESS_DENIED").await;
    client.info("roots/secret/x").fails(403, "FILE_ACCESS_DENIED").await;
    let message = client.remove("roots/file", false).fails(403, "FILE_ACCESS_DENIED").await;
    assert_eq!(message, "permission denied: roots/file");
    client.create_folder("roots/new", "755").fails(403, "FILE_ACCESS_DENIED").await;
    client.rename("roots/file", "mine").fails(403, "FILE_ACCESS_DENIED").await;
    client.set_permissions("roots/file").query("mode", "777").fails(403, "FILE_ACCESS_DENIED").await;
    client.set_permissions("roots/file").query("owner", "0").fails(403, "FILE_ACCESS_DENIED").await;
    client.upload("roots/file", "x").fails(403, "FILE_ACCESS_DENIED").await;
    client.upload("roots/new/file", "x").fails(403, "FILE_ACCESS_DENIED").await;
    chmod(work.join("roots/file"), 0o600);
    client.download("roots/file").fails(403, "FILE_ACCESS_DENIED").await;
    // A sub-directory that cannot be read is listed without its entries.
    write(work.join("roots/secret/inside"), "");
    let list = client.list(".").query("depth", "5").ok().await;
    assert_eq!(list.column("name"), ["roots", "file", "secret"]);
    assert_eq!(std::fs::read_to_string(work.join("roots/file")).unwrap(), "content");
}

#[tokio::test]
async fn special_files_are_listed_with_their_kind() {
    let daemon = Daemon::start().await;
    pipe(&daemon.work().join("pipe"));
    chmod(daemon.work().join("pipe"), 0o644);
    assert_eq!(daemon.client().info("pipe").ok().await.json()["mode"], "prw-r--r--");
    let null = daemon.client().info("/dev/null").ok().await.json();
    assert_eq!(null["mode"], "Dcrw-rw-rw-");
    if rustix::process::geteuid().is_root() {
        let device = rustix::fs::makedev(1, 3);
        let place = daemon.work().join("socket");
        rustix::fs::mknodat(CWD, &place, FileType::Socket, Mode::from_raw_mode(0o600), device).unwrap();
        assert_eq!(daemon.client().info("socket").ok().await.json()["mode"], "Srw-------");
    }
}
