//! Over SSH, with a server of the test's own.

use std::path::PathBuf;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{check_clean, repo};
use crate::support::{Daemon, Origin, SshServer, git, new_key, new_key_with, whoami, within};

/// A key of the daemon's user, which the server lets in.
async fn key(daemon: &Daemon, server: &SshServer) -> PathBuf {
    let directory = daemon.home().join(".ssh");
    std::fs::create_dir_all(&directory).unwrap();
    let key = directory.join("id_ed25519");
    new_key(&key).await;
    server.authorize(&key);
    key
}

#[tokio::test]
async fn a_repository_is_cloned_pulled_and_pushed_with_a_key() {
    let (upstream, server, daemon) = (Origin::new().await, SshServer::start().await, Daemon::start().await);
    key(&daemon, &server).await;
    let client = daemon.client();
    client.clone_repo(&server.url(&upstream.bare()), json!({})).ok().await;
    check_clean(&repo(&daemon)).await;
    let mut noise = vec![0_u8; 5 << 20];
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(upstream.work().join("large"), &noise).unwrap();
    upstream.commit("new", "x").await;
    client.pull(json!({})).ok().await;
    assert!(std::fs::read(repo(&daemon).join("large")).unwrap() == noise);
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(repo(&daemon).join("large"), &noise).unwrap();
    git(&repo(&daemon), &["commit", "-q", "-a", "-m", "x"]).await;
    client.push(json!({})).ok().await;
    assert_eq!(upstream.tip("main").await, git(&repo(&daemon), &["rev-parse", "HEAD"]).await);
    git(&upstream.bare(), &["fsck", "--strict"]).await;
    // The short form, with the port in brackets; and a path that a shell would take apart.
    let odd = upstream.root().join("it's $(odd) !.git");
    git(upstream.root(), &["clone", "-q", "--bare", "repo.git", odd.to_str().unwrap()]).await;
    let url = format!("{}@[127.0.0.1:{}]:{}", whoami(), server.address.port(), odd.display());
    client.git("/git/clone", "odd", json!({"url": url, "depth": 1})).ok().await;
    check_clean(&daemon.work().join("odd")).await;
}

#[tokio::test]
async fn a_new_server_is_remembered_and_another_key_refused() {
    let (upstream, server, daemon) = (Origin::new().await, SshServer::start().await, Daemon::start().await);
    key(&daemon, &server).await;
    let (client, url) = (daemon.client(), server.url(&upstream.bare()));
    let list = daemon.home().join(".ssh/known_hosts");
    client.clone_repo(&url, json!({})).ok().await;
    assert_eq!(std::fs::read_to_string(&list).unwrap(), server.known_hosts());
    client.pull(json!({})).ok().await;
    assert_eq!(std::fs::read_to_string(&list).unwrap(), server.known_hosts());
    let old = server.known_hosts();
    server.change_key().await;
    let message = client.pull(json!({})).fails(502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("host key") && message.contains("known_hosts line 1"), "{message}");
    assert_eq!(std::fs::read_to_string(&list).unwrap(), old);
    std::fs::write(&list, server.known_hosts()).unwrap();
    client.pull(json!({})).ok().await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_what_was_tried() {
    let (upstream, server, daemon) = (Origin::new().await, SshServer::start().await, Daemon::start().await);
    let (client, url) = (daemon.client(), server.url(&upstream.bare()));
    let clone = || client.clone_repo(&url, json!({}));
    let message = clone().fails(401, "GIT_AUTH_FAILED").await;
    assert!(message.contains("no key"), "{message}");
    let key = key(&daemon, &server).await;
    std::fs::remove_file(&key).unwrap();
    std::fs::remove_file(key.with_extension("pub")).unwrap();
    new_key(&key).await;
    new_key_with(&key.with_file_name("id_ecdsa"), "passphrase").await;
    let message = clone().fails(401, "GIT_AUTH_FAILED").await;
    assert!(
        message.contains("id_ed25519 was refused") && message.contains("id_ecdsa has a passphrase"),
        "{message}"
    );
    assert!(!repo(&daemon).exists());
    server.authorize(&key);
    let url = server.url(&upstream.root().join("none.git"));
    let message = client.clone_repo(&url, json!({})).fails(404, "GIT_REPO_NOT_FOUND").await;
    assert!(message.contains("does not appear to be a git repository"), "{message}");
}

#[tokio::test]
async fn an_agent_signs() {
    let (upstream, server, daemon) = (Origin::new().await, SshServer::start().await, Daemon::start().await);
    let key = upstream.root().join("key");
    new_key_with(&key, "").await;
    server.authorize(&key);
    let socket = upstream.root().join("agent");
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut agent = agent.spawn().unwrap();
    // It says where it is when it is there.
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    within(lines.next_line()).await.unwrap().unwrap();
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().await.unwrap().success());
    let (client, url) = (daemon.client(), server.url(&upstream.bare()));
    client.clone_repo(&url, json!({})).fails(401, "GIT_AUTH_FAILED").await;
    client.post("/env").json(json!({"set": {"SSH_AUTH_SOCK": socket}})).ok().await;
    client.clone_repo(&url, json!({})).ok().await;
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn the_repositorys_own_ssh_command_is_not_run() {
    let (upstream, server, daemon) = (Origin::new().await, SshServer::start().await, Daemon::start().await);
    key(&daemon, &server).await;
    daemon.client().clone_repo(&server.url(&upstream.bare()), json!({})).ok().await;
    let marker = daemon.home().join("marker");
    for (name, value) in
        [("core.sshCommand", "touch"), ("core.fsmonitor", "touch"), ("core.askPass", "touch")]
    {
        let command = format!("{value} {}; false", marker.display());
        git(&repo(&daemon), &["config", name, &command]).await;
    }
    upstream.commit("README", "two").await;
    daemon.client().pull(json!({})).ok().await;
    assert!(!marker.exists());
}
