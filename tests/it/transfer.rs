//! Upload and download, single and in bulk.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use notify::EventKind;
use reqwest::multipart::{Form, Part};
use rustix::fs::{CWD, Mode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Call, Changes, Client, Daemon, bulk_form, file_form, names_in, within};

/// A body of `count` pieces of 64 KiB, sent in chunks without a length.
fn streamed(count: usize) -> reqwest::Body {
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    reqwest::Body::wrap_stream(stream::iter((0..count).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
}

fn pipe(path: &Path) {
    rustix::fs::mkfifoat(CWD, path, Mode::from_raw_mode(0o644)).unwrap();
}

/// Every way to write one file.
async fn upload_each_way(client: &Client, path: &str, content: &str) {
    client.upload(path, content.to_owned()).ok().await;
    for url in ["/files/upload", "/files/upload-v2"] {
        client.post(url).query("path", path).multipart(file_form(content.to_owned())).ok().await;
    }
    client.post("/files/bulk-upload").multipart(bulk_form(&[(path, content.as_bytes())])).ok().await;
}

#[tokio::test]
async fn uploads_create_directories_and_answer_as_documented() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    let call = client.post("/files/upload").query("path", "a/b/one");
    let reply = call
        .multipart(Form::new().text("other", "x").part("file", Part::text("1").file_name("f")))
        .ok()
        .await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    let reply = client.upload("up/x.txt", streamed(3)).ok().await;
    assert_eq!(reply.json(), json!({"name": "x.txt", "path": work.join("up/x.txt"), "type": "file"}));
    client.upload("empty", "").header("content-type", "application/x-www-form-urlencoded").ok().await;
    assert_eq!(std::fs::read_to_string(work.join("a/b/one")).unwrap(), "1");
    assert_eq!(std::fs::metadata(work.join("up/x.txt")).unwrap().len(), 3 * 64 * 1024);
    assert_eq!(std::fs::metadata(work.join("empty")).unwrap().len(), 0);
    let mode = |path: &str| std::fs::metadata(work.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/one"), mode("up/x.txt")), (0o755, 0o755, 0o644, 0o644));
}

#[tokio::test]
async fn uploads_keep_mode_owner_and_links_of_what_they_replace() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::write(work.join("file"), "old, and longer").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(work.join("file"), Some(12), Some(34)).unwrap();
    }
    std::fs::set_permissions(work.join("file"), PermissionsExt::from_mode(0o4751)).unwrap();
    symlink("file", work.join("link")).unwrap();
    let before = std::fs::metadata(work.join("file")).unwrap();
    upload_each_way(&client, "link", "new").await;
    let after = std::fs::metadata(work.join("file")).unwrap();
    assert!(work.join("link").is_symlink());
    assert_eq!(std::fs::read_to_string(work.join("file")).unwrap(), "new");
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    // A dangling link creates its target.
    symlink("target", work.join("dangling")).unwrap();
    upload_each_way(&client, "dangling", "there").await;
    assert!(work.join("dangling").is_symlink());
    assert_eq!(std::fs::read_to_string(work.join("target")).unwrap(), "there");
    // Several names stay names of one file.
    std::fs::hard_link(work.join("target"), work.join("same")).unwrap();
    upload_each_way(&client, "same", "both").await;
    assert_eq!(std::fs::read_to_string(work.join("target")).unwrap(), "both");
    assert_eq!(names_in(&work), ["dangling", "file", "link", "same", "target"]);
}

#[tokio::test]
async fn what_is_no_file_is_refused_at_once() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::create_dir(work.join("dir")).unwrap();
    pipe(&work.join("pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(work.join("socket")).unwrap();
    std::fs::write(work.join("file"), "").unwrap();
    for path in ["dir", "dir/", "pipe", "socket", "file/below", "new/", "dir/.."] {
        client.upload(path, streamed(100)).fails(400, "INVALID_FILE_PATH").await;
        let call = client.post("/files/upload").query("path", path).multipart(file_form(streamed(100)));
        call.fails(400, "INVALID_FILE_PATH").await;
    }
    for path in ["dir", "pipe", "socket", "/dev/zero", "file/below"] {
        client.download(path).fails(400, "INVALID_FILE_PATH").await;
    }
    assert_eq!(
        client.download("dir").fails(400, "INVALID_FILE_PATH").await,
        "invalid file path: path points to a directory: dir"
    );
    client.upload("/dev/null", "gone").ok().await;
    client.post("/files/upload-v2").body("x").fails(400, "BAD_REQUEST").await;
    let form = Form::new().text("other", "x");
    client.post("/files/upload").query("path", "x").multipart(form).fails(400, "BAD_REQUEST").await;
    let form = Form::new().text("other", "x");
    client.post("/files/upload-v2").query("path", "x").multipart(form).fails(400, "BAD_REQUEST").await;
    client.post("/files/upload").query("path", "x").body("raw").fails(400, "INVALID_REQUEST_BODY").await;
    assert_eq!(names_in(&work), ["dir", "file", "pipe", "socket"]);
}

/// Begins an upload on a connection of its own and waits until its temporary file is there.
async fn half_an_upload(daemon: &Daemon, changes: &mut Changes, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let half = vec![b'n'; 2 << 20];
    within(stream.write_all(head.as_bytes())).await.unwrap();
    within(stream.write_all(&half)).await.unwrap();
    changes
        .of_temporary(|event| matches!(event.kind, EventKind::Modify(notify::event::ModifyKind::Data(_))))
        .await;
    stream
}

#[tokio::test]
async fn an_aborted_upload_leaves_the_old_file_and_no_temporary_one() {
    let daemon = Daemon::start().await;
    let work = daemon.work();
    std::fs::write(work.join("file"), "old").unwrap();
    let form = "Content-Type: multipart/form-data; boundary=b\r\n";
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    let bulk = "--b\r\nContent-Disposition: form-data; name=\"files[0].path\"\r\n\r\nfile\r\n\
        --b\r\nContent-Disposition: form-data; name=\"files[0].file\"; filename=\"f\"\r\n\r\n";
    for (url, kind, start) in [
        ("/files/upload-v2?path=file", "", ""),
        ("/files/upload-v2?path=file", form, part),
        ("/files/upload?path=file", form, part),
        ("/files/bulk-upload", form, bulk),
    ] {
        let mut changes = Changes::of(&work);
        let head =
            format!("POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n{kind}\r\n{start}");
        let stream = half_an_upload(&daemon, &mut changes, &head).await;
        assert_eq!(std::fs::read_to_string(work.join("file")).unwrap(), "old");
        drop(stream);
        changes.of_temporary(|event| matches!(event.kind, EventKind::Remove(_))).await;
        assert_eq!(std::fs::read_to_string(work.join("file")).unwrap(), "old");
        assert_eq!(names_in(&work), ["file"]);
    }
}

#[tokio::test]
async fn bulk_uploads_take_both_layouts_and_echo_paths_as_they_came() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    let reply =
        client.post("/files/bulk-upload").multipart(bulk_form(&[("./bu//one", b"1"), ("b\"u/世", b"22")]));
    let reply = reply.ok().await.json();
    assert_eq!(reply, json!({"files": [{"path": "./bu//one", "bytes": 1}, {"path": "b\"u/世", "bytes": 2}]}));
    let file = |text: &'static str| {
        Part::bytes(text.as_bytes()).file_name("%2Fetc%2Fx").mime_str("text/html").unwrap()
    };
    let form = Form::new()
        .part("files[0].path", Part::text(" all/first\n").mime_str("text/plain; charset=utf-8").unwrap())
        .text("files[7].path", "all/second")
        .text("something else", "skipped")
        .part("files[0].file", file("one"))
        .part("files[7].file", file("two"));
    let reply = client.post("/files/bulk-upload").multipart(form).ok().await.json();
    assert_eq!(
        reply,
        json!({"files": [{"path": "all/first", "bytes": 3}, {"path": "all/second", "bytes": 3}]})
    );
    assert_eq!(std::fs::read_to_string(work.join("all/second")).unwrap(), "two");
    // Of several with one destination the last counts.
    client
        .post("/files/bulk-upload")
        .multipart(bulk_form(&[("same", b"first"), ("same", b"last")]))
        .ok()
        .await;
    assert_eq!(std::fs::read_to_string(work.join("same")).unwrap(), "last");
    let form = Form::new().text("nothing", "here");
    let reply = client.post("/files/bulk-upload").multipart(form).ok().await.json();
    assert_eq!(reply, json!({"files": []}));
}

#[tokio::test]
async fn one_failure_in_a_bulk_upload_does_not_stop_the_others() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::create_dir(work.join("dir")).unwrap();
    std::fs::write(work.join("file"), "").unwrap();
    let form = bulk_form(&[("dir", b"x"), ("ok", b"fine"), ("file/below/x", b"x"), (" ", b"x")])
        .part("files[9].file", Part::text("x").file_name("f"))
        .text("files[10].path", "x".repeat(65 * 1024));
    let reply = client.post("/files/bulk-upload").multipart(form).send().await;
    assert_eq!(reply.status.as_u16(), 400);
    let body = reply.json();
    let errors = [
        "dir: create: is a directory".to_owned(),
        format!("file/below/x: mkdir {}: not a directory", work.join("file/below").display()),
        "path[3]: empty path".to_owned(),
        "file[3]: missing .path metadata".to_owned(),
        "file[9]: missing .path metadata".to_owned(),
        "path[10]: too long, or not UTF-8".to_owned(),
    ];
    assert_eq!(body["errors"], json!(errors));
    assert_eq!(body["files"], json!([{"path": "ok", "bytes": 4}]));
    assert_eq!((&body["code"], &body["source"]), (&json!("BAD_REQUEST"), &json!("DAYTONA_DAEMON")));
    assert_eq!(std::fs::read_to_string(work.join("ok")).unwrap(), "fine");
    let reply = client.post("/files/bulk-upload").body("raw").send().await;
    let body = reply.json();
    assert_eq!((&body["errors"], &body["files"]), (&json!(["invalid multipart form"]), &json!([])));
    assert_eq!(reply.status.as_u16(), 400);
}

#[tokio::test]
async fn a_form_that_ends_early_is_an_error_and_its_last_file_is_not_written() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::write(work.join("cut"), "old").unwrap();
    let whole = "--b\r\nContent-Disposition: form-data; name=\"files[0].path\"\r\n\r\nwhole\r\n\
        --b\r\nContent-Disposition: form-data; name=\"files[0].file\"\r\n\r\ncontent\r\n\
        --b\r\nContent-Disposition: form-data; name=\"files[1].path\"\r\n\r\ncut\r\n\
        --b\r\nContent-Disposition: form-data; name=\"files[1].file\"\r\n\r\nhalf";
    let call = client
        .post("/files/bulk-upload")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(whole);
    let body = call.send().await.json();
    assert_eq!(body["errors"], json!(["cut: write: unexpected EOF", "reading part: unexpected EOF"]));
    assert_eq!(body["files"], json!([{"path": "whole", "bytes": 7}]));
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nhalf";
    let call = client.upload("cut", part).header("content-type", "multipart/form-data; boundary=b");
    call.fails(400, "INVALID_REQUEST_BODY").await;
    assert_eq!(std::fs::read_to_string(work.join("cut")).unwrap(), "old");
    assert_eq!(names_in(&work), ["cut", "whole"]);
}

#[tokio::test]
async fn an_error_is_answered_after_the_whole_body_was_read() {
    let daemon = Daemon::start().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let head = "POST /files/upload-v2?path=. HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\
        Connection: close\r\n\r\n";
    within(stream.write_all(head.as_bytes())).await.unwrap();
    within(stream.write_all(&vec![0; 10_000_000])).await.unwrap();
    let mut reply = String::new();
    within(stream.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
}

#[tokio::test]
async fn uploads_work_where_only_the_file_itself_can_be_written() {
    let Some(daemon) = Daemon::start_as_nobody().await else { return };
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::create_dir(work.join("roots")).unwrap();
    std::fs::set_permissions(work.join("roots"), PermissionsExt::from_mode(0o755)).unwrap();
    for (name, mode) in [("open", 0o666), ("closed", 0o644)] {
        std::fs::write(work.join("roots").join(name), "old, and longer").unwrap();
        std::fs::set_permissions(work.join("roots").join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    upload_each_way(&client, "roots/open", "new").await;
    client.upload("roots/closed", "new").fails(403, "FILE_ACCESS_DENIED").await;
    assert_eq!(std::fs::read_to_string(work.join("roots/open")).unwrap(), "new");
    assert_eq!(std::fs::metadata(work.join("roots/open")).unwrap().uid(), 0);
    // Another's file in a directory of ours: it stays theirs.
    std::fs::write(work.join("theirs"), "old, and longer").unwrap();
    std::fs::set_permissions(work.join("theirs"), PermissionsExt::from_mode(0o666)).unwrap();
    upload_each_way(&client, "theirs", "new").await;
    assert_eq!(std::fs::read_to_string(work.join("theirs")).unwrap(), "new");
    assert_eq!(std::fs::metadata(work.join("theirs")).unwrap().uid(), 0);
    assert_eq!(names_in(&work), ["roots", "theirs"]);
}

#[tokio::test]
async fn new_files_get_the_owner_of_their_directory_when_that_is_set() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let daemon = Daemon::start_with(|command| {
        command.env("TOOLBOXD_INHERIT_OWNER", "true");
    })
    .await;
    let (client, work) = (daemon.client(), daemon.work());
    std::os::unix::fs::chown(&work, Some(12), Some(34)).unwrap();
    upload_each_way(&client, "a/b/file", "x").await;
    client.create_folder("c/d", "700").ok().await;
    for path in ["a", "a/b", "a/b/file", "c", "c/d"] {
        let entry = std::fs::metadata(work.join(path)).unwrap();
        assert_eq!((entry.uid(), entry.gid()), (12, 34), "{path}");
    }
}

#[tokio::test]
async fn downloads_have_the_headers_that_clients_know() {
    let daemon = Daemon::start().await;
    std::fs::write(daemon.work().join("ten.html"), "0123456789").unwrap();
    let reply = daemon.client().download("./ten.html").ok().await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "0123456789"));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename=\"ten.html\"; filename*=utf-8''ten.html"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("content-description", "File Transfer"),
        ("content-transfer-encoding", "binary"),
        ("expires", "0"),
        ("cache-control", "must-revalidate"),
        ("pragma", "public"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    assert!(reply.header("etag").starts_with("W/\""));
    assert!(httpdate::parse_http_date(reply.header("last-modified")).is_ok());
    let head = daemon.client().request(http::Method::HEAD, "/files/download?path=ten.html").ok().await;
    assert_eq!((head.header("content-length"), head.body.len()), ("10", 0));
    daemon.client().download("nope").fails(404, "FILE_NOT_FOUND").await;
    daemon.client().get("/files/download").fails(400, "BAD_REQUEST").await;
}

#[tokio::test]
async fn ranges_and_conditions_are_honoured() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    // Large enough not to be read at once.
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(daemon.work().join("file"), &content).unwrap();
    let range = async |range: &str| client.download("file").header("range", range).send().await;
    for (text, expected, part) in [
        ("bytes=0-0", "bytes 0-0/300000", 0..1),
        ("bytes=1000-200000", "bytes 1000-200000/300000", 1000..200_001),
        ("bytes=299990-", "bytes 299990-299999/300000", 299_990..300_000),
        ("bytes=-5", "bytes 299995-299999/300000", 299_995..300_000),
    ] {
        let reply = range(text).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-range")), (206, expected));
        assert_eq!(reply.header("content-length"), part.len().to_string());
        assert_eq!(reply.body, content[part]);
    }
    let reply = range("bytes=0-1,100000-200000,-1").await;
    assert_eq!(reply.status.as_u16(), 206);
    assert!(reply.header("content-type").starts_with("multipart/byteranges; boundary="));
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    let parts = reply.parts();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[1].header("Content-Range").as_deref(), Some("bytes 100000-200000/300000"));
    assert_eq!(parts[1].header("Content-Type").as_deref(), Some("application/octet-stream"));
    assert_eq!(parts[1].body, content[100_000..200_001]);
    let reply = client.download("file").header("range", "bytes=300000-").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("content-range")), (416, "bytes */300000"));
    client.download("file").header("range", "bytes=5-4").fails(416, "RANGE_NOT_SATISFIABLE").await;

    let whole = client.download("file").ok().await;
    let (etag, date) = (whole.header("etag"), whole.header("last-modified"));
    for (name, value) in [("if-none-match", etag), ("if-modified-since", date)] {
        let reply = client.download("file").header(name, value).send().await;
        assert_eq!((reply.status.as_u16(), reply.body.len(), reply.header("etag")), (304, 0, etag));
        assert_eq!(reply.header("content-disposition"), "");
    }
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    client.download("file").header("if-unmodified-since", old).fails(412, "PRECONDITION_FAILED").await;
    for (validator, status) in [(date, 206), (old, 200), (etag, 200)] {
        let call = client.download("file").header("range", "bytes=0-9").header("if-range", validator);
        assert_eq!(call.send().await.status.as_u16(), status, "{validator}");
    }
}

#[tokio::test]
async fn files_of_the_kernel_are_read_before_they_are_announced() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let reply = client.download("/proc/self/status").ok().await;
    assert!(reply.text().starts_with("Name:\ttoolboxd\n"));
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    // Those in /sys say that they have a page.
    let reply = client.download("/sys/kernel/mm/transparent_hugepage/enabled").send().await;
    assert!(reply.status == 404 || reply.body.ends_with(b"\n"), "{}", reply.text());
    // And they are written in place.
    client.upload("/proc/self/coredump_filter", "0x33").ok().await;
    let parts = client.bulk_download(&["/proc/self/status"]).ok().await.parts();
    assert_eq!(parts[0].header("Content-Length"), Some(parts[0].body.len().to_string()));
    assert!(!parts[0].body.is_empty());
}

/// Sends a file of 64 MiB, changes its size to `size` bytes when its content has begun to come, and reads the rest.
async fn changed_while_sent(size: u64, request: impl FnOnce(&Client) -> Call) -> (bool, u64) {
    let daemon = Daemon::start().await;
    let file = std::fs::File::create(daemon.work().join("file")).unwrap();
    file.set_len(64 << 20).unwrap();
    let mut reply = request(&daemon.client()).open().await;
    let mut length = 0;
    loop {
        match within(reply.chunk()).await {
            Ok(Some(piece)) => {
                length += piece.len() as u64;
                file.set_len(size).unwrap();
            }
            Ok(None) => return (true, length),
            Err(_) => return (false, length),
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_has_the_announced_length_or_a_broken_end() {
    let (is_whole, length) = changed_while_sent(128 << 20, |client| client.download("file")).await;
    assert_eq!((is_whole, length), (true, 64 << 20));
    let (is_whole, _) = changed_while_sent(0, |client| client.download("file")).await;
    assert!(!is_whole);
    let (is_whole, _) = changed_while_sent(0, |client| client.bulk_download(&["file", "file"])).await;
    assert!(!is_whole);
}

#[tokio::test]
async fn bulk_downloads_answer_every_path_in_order_with_its_label() {
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    std::fs::create_dir_all(work.join("t/dir")).unwrap();
    std::fs::write(work.join("t/a b.txt"), "hello\n").unwrap();
    std::fs::write(work.join("é\"世"), "").unwrap();
    pipe(&work.join("pipe"));
    let long = "x".repeat(300);
    let paths =
        ["t/a b.txt", "t/nope", "./é\"世", "t/dir", "pipe", &long, "nul\0", "t/a b.txt/x", "", "t/a b.txt"];
    let reply = client.bulk_download(&paths).ok().await;
    assert!(reply.header("content-type").starts_with("multipart/form-data; boundary="));
    assert!(reply.boundary().len() >= 32);
    assert_ne!(reply.boundary(), client.bulk_download(&paths).ok().await.boundary());
    let parts = reply.parts();
    assert_eq!(parts.len(), paths.len());
    let disposition = |index: usize| {
        parts[index]
            .header("\r\nContent-Disposition")
            .or_else(|| parts[index].header("Content-Disposition"))
            .unwrap()
    };
    assert_eq!(
        disposition(0),
        "form-data; name=\"file\"; filename=\"t/a b.txt\"; filename*=utf-8''t%2Fa%20b.txt"
    );
    assert_eq!(parts[0].header("Content-Type").as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(
        (parts[0].header("Content-Length").as_deref(), parts[0].body.as_slice()),
        (Some("6"), b"hello\n".as_slice())
    );
    assert!(
        memchr::memmem::find(
            &parts[2].head,
            b"filename=\"./\xe9\\\"_\"; filename*=utf-8''.%2F%C3%A9%22%E4%B8%96\r\n"
        )
        .is_some()
    );
    assert_eq!(parts[2].header("Content-Length").as_deref(), Some("0"));
    assert_eq!(parts[9].body, parts[0].body);
    for (index, status, code, message) in [
        (1, 404, "FILE_NOT_FOUND", "file not found: t/nope"),
        (3, 400, "INVALID_FILE_PATH", "invalid file path: path points to a directory: t/dir"),
        (4, 400, "INVALID_FILE_PATH", "invalid file path: not a regular file: pipe"),
        (5, 400, "INVALID_FILE_PATH", &format!("invalid file path: file name too long: {long}")),
        (6, 400, "INVALID_FILE_PATH", "invalid file path: invalid argument: nul\0"),
        (7, 400, "INVALID_FILE_PATH", "invalid file path: not a directory: t/a b.txt/x"),
        (8, 400, "INVALID_FILE_PATH", "invalid file path: path is empty"),
    ] {
        let error = parts[index].json();
        assert!(disposition(index).starts_with("form-data; name=\"error\"; filename=\""));
        assert_eq!(parts[index].header("Content-Type").as_deref(), Some("application/json; charset=utf-8"));
        assert_eq!(parts[index].header("Content-Length"), None);
        let shown = json!([
            error["statusCode"],
            error["code"],
            error["message"],
            error["path"],
            error["method"],
            error["source"]
        ]);
        assert_eq!(shown, json!([status, code, message, paths[index], "POST", "DAYTONA_DAEMON"]));
    }
}

#[tokio::test]
async fn bulk_downloads_of_nothing_are_refused_with_an_envelope() {
    let daemon = Daemon::start().await;
    for body in ["{\"paths\":[]}", "{}", "{", "", "{\"paths\":null}"] {
        let call = daemon.client().post("/files/bulk-download").body(body);
        call.fails(400, "INVALID_REQUEST_BODY").await;
    }
}

#[tokio::test]
async fn large_files_go_through_in_bounded_memory() {
    const PIECES: usize = 1600; // 100 MiB
    let daemon = Daemon::start().await;
    let (client, work) = (daemon.client(), daemon.work());
    upload_each_way(&client, "warm", "x").await;
    client.bulk_download(&["warm"]).ok().await;
    let idle = daemon.peak_memory();
    client.upload("raw", streamed(PIECES)).ok().await;
    client.post("/files/upload").query("path", "form").multipart(file_form(streamed(PIECES))).ok().await;
    let form = Form::new()
        .text("files[0].path", "bulk")
        .part("files[0].file", Part::stream(streamed(PIECES)).file_name("f"));
    client.post("/files/bulk-upload").multipart(form).ok().await;
    for name in ["raw", "form", "bulk"] {
        let content = std::fs::read(work.join(name)).unwrap();
        assert!(content.len() == PIECES * 64 * 1024 && content.iter().all(|byte| *byte == b'x'), "{name}");
    }
    for reply in [client.download("raw").ok().await, client.bulk_download(&["form"]).ok().await] {
        assert!(reply.body.len() >= PIECES * 64 * 1024);
    }
    let used = daemon.peak_memory() - idle;
    assert!(used <= 16 << 20, "{} KiB", used >> 10);
}
