//! What arrives at a remote, and what is refused there.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{check_clean, repo};
use crate::support::{Client, Daemon, GitServer, Manner, Origin, git, git_command};

/// A clone, and what it is of.
async fn start() -> (Origin, GitServer, Daemon) {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    daemon.client().clone_repo(&server.url(), json!({})).ok().await;
    (upstream, server, daemon)
}

/// Commits a file in the clone.
async fn commit(daemon: &Daemon, file: &str, content: &[u8]) -> String {
    let clone = repo(daemon);
    std::fs::write(clone.join(file), content).unwrap();
    git(&clone, &["add", file]).await;
    git(&clone, &["commit", "-q", "-m", file]).await;
    git(&clone, &["rev-parse", "HEAD"]).await
}

async fn published(client: &Client) -> (bool, u64) {
    let status = client.get("/git/status").query("path", "repo").ok().await.json();
    (status["branchPublished"].as_bool().unwrap(), status["ahead"].as_u64().unwrap())
}

fn hook(upstream: &Origin, name: &str, script: &str) {
    let path = upstream.bare().join("hooks").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_branch_is_pushed_to_its_own_name() {
    let (upstream, _server, daemon) = start().await;
    let client = daemon.client();
    let tip = commit(&daemon, "new", b"x").await;
    assert_eq!(published(&client).await, (true, 1));
    for _ in 0..2 {
        let reply = client.push(json!({"branch": null, "set_upstream": null})).ok().await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
        assert_eq!(upstream.tip("main").await, tip);
        assert_eq!(published(&client).await, (true, 0));
    }
    git(&upstream.bare(), &["fsck", "--strict"]).await;
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn a_new_branch_follows_when_that_is_asked_for() {
    let (upstream, _server, daemon) = start().await;
    let (client, clone) = (daemon.client(), repo(&daemon));
    git(&clone, &["switch", "-q", "-c", "topic/a"]).await;
    let tip = commit(&daemon, "new", b"x").await;
    client.push(json!({})).ok().await;
    assert_eq!(upstream.tip("topic/a").await, tip);
    assert_eq!(git(&clone, &["rev-parse", "origin/topic/a"]).await, tip);
    assert_eq!(published(&client).await, (false, 0));
    client.push(json!({"set_upstream": true})).ok().await;
    assert_eq!(published(&client).await, (true, 0));
    assert_eq!(git(&clone, &["rev-parse", "--abbrev-ref", "@{upstream}"]).await, "origin/topic/a");
    // By its name, from elsewhere.
    git(&clone, &["switch", "-q", "--detach", "main"]).await;
    client.push(json!({})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    client.push(json!({"branch": "topic/a", "remote": "origin"})).ok().await;
    client.push(json!({"branch": "nosuch"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    client.push(json!({"branch": "a..b"})).fails(400, "BAD_REQUEST").await;
    client.push(json!({"branch": "main", "remote": "nosuch"})).fails(404, "NOT_FOUND").await;
    client.git("/git/push", "nosuch", json!({})).fails(404, "GIT_REPO_NOT_FOUND").await;
    // The program finds everything in order.
    git(&clone, &["fetch", "-q", "origin"]).await;
}

#[tokio::test]
async fn what_would_be_lost_there_is_not_overwritten() {
    let (upstream, _server, daemon) = start().await;
    let client = daemon.client();
    let theirs = upstream.commit("README", "theirs").await;
    commit(&daemon, "new", b"x").await;
    let message = client.push(json!({})).fails(409, "GIT_PUSH_REJECTED").await;
    assert!(message.contains("pull first"), "{message}");
    // Also when we know what it is.
    git(&repo(&daemon), &["fetch", "-q"]).await;
    client.push(json!({})).fails(409, "GIT_PUSH_REJECTED").await;
    assert_eq!(upstream.tip("main").await, theirs);
}

#[tokio::test]
async fn hooks_have_their_say_and_their_words_arrive() {
    let (upstream, _server, daemon) = start().await;
    let client = daemon.client();
    let before = upstream.tip("main").await;
    commit(&daemon, "new", b"x").await;
    hook(&upstream, "pre-receive", "echo 'branch is protected' >&2; exit 1");
    let message = client.push(json!({})).fails(422, "GIT_REMOTE_REJECTED").await;
    assert!(message.contains("hook declined") && message.contains("branch is protected"), "{message}");
    assert_eq!(upstream.tip("main").await, before);
    assert_eq!(git(&repo(&daemon), &["rev-parse", "origin/main"]).await, before);
    hook(&upstream, "pre-receive", "exit 0");
    client.push(json!({})).ok().await;
}

#[tokio::test]
async fn a_large_push_is_sent_in_pieces() {
    let (upstream, server, daemon) = start().await;
    let mut noise = vec![0_u8; 6 << 20];
    getrandom::fill(&mut noise).unwrap();
    let tip = commit(&daemon, "large", &noise).await;
    daemon.client().push(json!({})).ok().await;
    assert_eq!(upstream.tip("main").await, tip);
    let mut command = git_command(&upstream.bare());
    let output = command.args(["cat-file", "blob", "main:large"]).output().await.unwrap();
    assert!(output.stdout == noise);
    // And fetched as such.
    daemon.client().git("/git/clone", "again", json!({"url": server.url()})).ok().await;
    assert!(std::fs::read(daemon.work().join("again/large")).unwrap() == noise);
}

#[tokio::test]
async fn a_push_has_credentials_when_it_needs_them() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Private("me", "s3cr3t")).await;
    let daemon = Daemon::start().await;
    let (client, login) = (daemon.client(), json!({"username": "me", "password": "s3cr3t"}));
    client.clone_repo(&server.url(), login.clone()).ok().await;
    let mut noise = vec![0_u8; 2 << 20];
    getrandom::fill(&mut noise).unwrap();
    let tip = commit(&daemon, "large", &noise).await;
    client.push(json!({})).fails(401, "GIT_AUTH_FAILED").await;
    client.push(json!({"username": "me", "password": "wrong"})).fails(401, "GIT_AUTH_FAILED").await;
    client.push(login).ok().await;
    assert_eq!(upstream.tip("main").await, tip);
}

#[tokio::test]
async fn a_server_that_takes_nothing_says_so() {
    let (upstream, _server, daemon) = start().await;
    commit(&daemon, "new", b"x").await;
    for (manner, status, code) in [
        (Manner::Answers(403, "text/plain", "no"), 403, "FORBIDDEN"),
        (Manner::Answers(500, "text/plain", "no"), 502, "GIT_TRANSPORT_FAILED"),
        (Manner::Cuts, 502, "GIT_TRANSPORT_FAILED"),
    ] {
        let server = GitServer::start(upstream.root(), manner).await;
        git(&repo(&daemon), &["config", "remote.origin.pushurl", &server.url()]).await;
        daemon.client().push(json!({})).fails(status, code).await;
    }
}
