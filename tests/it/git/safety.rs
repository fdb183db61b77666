//! Repositories that somebody else has made: nothing in them runs, and nothing outside is touched.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Changes, Daemon, Repo};

#[tokio::test]
async fn nothing_in_a_repository_is_run() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.git(&["branch", "other"]);
    let marker = daemon.work().join("it ran");
    let script = format!("#!/bin/sh\ntouch '{}'\n", marker.display());
    repo.write("../evil", &script);
    let evil = daemon.work().join("evil");
    std::fs::set_permissions(&evil, PermissionsExt::from_mode(0o755)).unwrap();
    let hooks = "applypatch-msg commit-msg fsmonitor-watchman post-checkout post-commit post-index-change \
                 post-merge pre-commit prepare-commit-msg reference-transaction sendemail-validate";
    for hook in hooks.split_whitespace() {
        repo.write(&format!(".git/hooks/{hook}"), &script);
        let path = repo.root.join(".git/hooks").join(hook);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let evil = evil.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.editor",
        "core.pager",
        "core.askPass",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "merge.evil.driver",
        "gpg.program",
        "credential.helper",
    ] {
        repo.git(&["config", key, evil]);
    }
    repo.git(&["config", "commit.gpgSign", "true"]);
    repo.git(&["config", "filter.evil.required", "true"]);
    repo.write(
        "evil.inc",
        format!("[core]\n\thooksPath = {}\n\tfsmonitor = {evil}\n", daemon.work().display()),
    );
    repo.git(&["config", "include.path", "../evil.inc"]);
    repo.write(".gitattributes", "* filter=evil diff=evil merge=evil\n");
    repo.write("a.txt", "changed\n");
    let identity = json!({"message": "m", "author": "a", "email": "a@b"});
    repo.status(&daemon).await;
    repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
    repo.post(&daemon, "/git/commit", identity).ok().await;
    repo.get(&daemon, "/git/diff").query("from", "HEAD~1").ok().await;
    repo.get(&daemon, "/git/show").ok().await;
    repo.post(&daemon, "/git/branches", json!({"name": "third"})).ok().await;
    repo.post(&daemon, "/git/checkout", json!({"branch": "other"})).ok().await;
    repo.write("a.txt", "changed\n");
    repo.post(&daemon, "/git/stash", json!({})).ok().await;
    repo.post(&daemon, "/git/stash/pop", json!({})).ok().await;
    repo.post(&daemon, "/git/restore", json!({"files": ["a.txt"]})).ok().await;
    repo.post(&daemon, "/git/reset", json!({"mode": "hard", "target": "third"})).ok().await;
    repo.get(&daemon, "/git/history").ok().await;
    assert!(!marker.exists());
}

#[tokio::test]
async fn whom_a_repository_belongs_to_does_not_matter() {
    let daemon = Daemon::start().await;
    if !rustix::process::geteuid().is_root() {
        return; // only root can give files away
    }
    let repo = Repo::new(&daemon);
    repo.write("b", "b\n");
    let status = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(&repo.root).status();
    assert!(status.unwrap().success());
    assert_eq!(repo.status(&daemon).await["fileStatus"], repo.expected_status());
    repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
    let identity = json!({"message": "m", "author": "a", "email": "a@b"});
    repo.post(&daemon, "/git/commit", identity).ok().await;
}

#[tokio::test]
async fn a_work_tree_elsewhere_is_not_touched() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    let victim = daemon.work().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("a.txt"), "precious\n").unwrap();
    repo.git(&["config", "core.worktree", victim.to_str().unwrap()]);
    repo.post(&daemon, "/git/reset", json!({"mode": "hard"})).fails(404, "GIT_REPO_NOT_FOUND").await;
    repo.get(&daemon, "/git/status").fails(404, "GIT_REPO_NOT_FOUND").await;
    assert_eq!(std::fs::read_to_string(victim.join("a.txt")).unwrap(), "precious\n");
}

#[tokio::test]
async fn formats_that_are_not_known_are_told() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.git(&["config", "core.repositoryFormatVersion", "1"]);
    repo.git(&["config", "extensions.newfangled", "true"]);
    let message = repo.get(&daemon, "/git/status").fails(501, "NOT_IMPLEMENTED").await;
    assert!(message.contains("newfangled"), "{message}");
}

#[tokio::test]
async fn work_goes_on_when_the_client_leaves() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    // Long to compress, so that the client is gone before it is done.
    let mut random = 1_u64;
    let noise = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    });
    repo.write("big", noise.take(64 * 1024 * 1024).collect::<Vec<_>>());
    let mut changes = Changes::of(&repo.root.join(".git/objects"));
    let body = json!({"path": repo.root, "files": ["big"]}).to_string();
    let request =
        format!("POST /git/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut client = tokio::net::TcpStream::connect(daemon.address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    changes.of_new().await;
    drop(client);
    // Takes its turn behind the one that nobody waits for.
    repo.post(&daemon, "/git/add", json!({"files": []})).ok().await;
    assert_eq!(repo.porcelain(), "A  big");
}
