//! TLS, proxies, git's own protocol, and what is kept for later.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{check_clean, repo};
use crate::support::{
    Daemon, GitServer, Manner, Origin, Proxy, certificate, git, git_command, git_daemon, within,
};

#[tokio::test]
async fn certificates_are_checked_unless_that_is_switched_off() {
    let upstream = Origin::new().await;
    let (tls, roots) = certificate(upstream.root());
    let server = GitServer::start_with(upstream.root(), Manner::Serves, Some(tls)).await;
    let url = format!("https://localhost:{}/repo.git", server.address.port());
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let message = client.clone_repo(&url, json!({})).fails(502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("certificate of localhost"), "{message}");
    client.clone_repo(&url, json!({"insecure_skip_tls": true})).ok().await;
    check_clean(&repo(&daemon)).await;
    // For that clone alone.
    client.pull(json!({"insecure_skip_tls": true})).fails(502, "GIT_TRANSPORT_FAILED").await;
    let trusting = Daemon::start_with(|command| _ = command.env("SSL_CERT_FILE", &roots)).await;
    trusting.client().clone_repo(&url, json!({})).ok().await;
    check_clean(&repo(&trusting)).await;
    // The name counts too.
    let url = url.replace("localhost", "127.0.0.1");
    let call = trusting.client().git("/git/clone", "other", json!({"url": url}));
    let message = call.fails(502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("another host"), "{message}");
}

#[tokio::test]
async fn proxies_are_used_for_what_is_not_excluded() {
    let upstream = Origin::new().await;
    let (tls, roots) = certificate(upstream.root());
    let secure = GitServer::start_with(upstream.root(), Manner::Serves, Some(tls)).await;
    let open = GitServer::start(upstream.root(), Manner::Serves).await;
    let mut proxy = Proxy::start().await;
    let daemon = Daemon::start_with(|command| {
        command
            .env("SSL_CERT_FILE", &roots)
            .env("http_proxy", format!("http://user:pr0xy@{}", proxy.address))
            .env("HTTPS_PROXY", proxy.address.to_string())
            .env("no_proxy", "example.com, 127.0.0.2");
    })
    .await;
    let client = daemon.client();
    client.clone_repo(&open.url(), json!({})).ok().await;
    let head = proxy.next().await;
    let first = format!("GET {}/info/refs?service=git-upload-pack HTTP/1.1", open.url());
    assert!(head.starts_with(&first), "{head}");
    assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic"), "{head}");
    let url = format!("https://localhost:{}/repo.git", secure.address.port());
    client.git("/git/clone", "secure", json!({"url": url})).ok().await;
    let head = proxy.next().await;
    assert!(head.starts_with(&format!("CONNECT localhost:{}", secure.address.port())), "{head}");
    check_clean(&daemon.work().join("secure")).await;
    // Variables can be changed while the daemon runs.
    client.post("/env").json(json!({"set": {"no_proxy": "127.0.0.1"}})).ok().await;
    while !proxy.is_idle() {}
    client.git("/git/clone", "direct", json!({"url": open.url()})).ok().await;
    assert!(proxy.is_idle());
    assert!(!daemon.log().contains("pr0xy"));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let daemon = Daemon::start_with(|command| _ = command.env("all_proxy", "http://host.invalid:1")).await;
    let call = daemon.client().clone_repo("http://localhost/x", json!({}));
    let message = call.fails(502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("proxy") && message.contains("host.invalid"), "{message}");
}

#[tokio::test]
async fn gits_own_protocol_is_spoken() {
    let upstream = Origin::new().await;
    let address = git_daemon(upstream.root()).await;
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.clone_repo(&format!("git://{address}/repo.git"), json!({})).ok().await;
    check_clean(&repo(&daemon)).await;
    let tip = upstream.commit("README", "two").await;
    client.pull(json!({})).ok().await;
    assert_eq!(git(&repo(&daemon), &["rev-parse", "HEAD"]).await, tip);
    let url = format!("git://{address}/none.git");
    client.git("/git/clone", "none", json!({"url": url})).fails(404, "GIT_REPO_NOT_FOUND").await;
    git(&repo(&daemon), &["commit", "-q", "--allow-empty", "-m", "x"]).await;
    client.push(json!({})).fails(404, "GIT_REPO_NOT_FOUND").await; // it only serves, in git's own words
}

#[tokio::test]
async fn a_shallow_clone_can_be_made_over_gits_own_protocol() {
    let upstream = Origin::new().await;
    upstream.commit("README", "two").await;
    let address = git_daemon(upstream.root()).await;
    let daemon = Daemon::start().await;
    daemon.client().clone_repo(&format!("git://{address}/repo.git"), json!({"depth": 1})).ok().await;
    assert_eq!(git(&repo(&daemon), &["rev-list", "--count", "HEAD"]).await, "1");
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn kept_credentials_serve_us_and_the_git_program() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Private("me", "p@ss wörd")).await;
    let daemon = Daemon::start().await;
    let (client, host) = (daemon.client(), server.address.to_string());
    let keep = |body| client.post("/git/credentials").json(body);
    keep(json!({"username": "x", "password": "old", "host": host, "protocol": "http"})).ok().await;
    keep(json!({"username": "tok", "password": "en"})).ok().await;
    keep(json!({"username": "me", "password": "p@ss wörd", "host": host, "protocol": "http"})).ok().await;
    let file = daemon.home().join(".git-credentials");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("http://me:p%40ss%20w%C3%B6rd@{host}\nhttps://tok:en@github.com\n"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    client.clone_repo(&server.url(), json!({})).ok().await;
    check_clean(&repo(&daemon)).await;
    // The git program finds them too.
    let mut command = git_command(&daemon.work());
    command
        .env("HOME", daemon.home())
        .args(["credential", "fill"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let asked = format!("protocol=http\nhost={host}\n\n");
    child.stdin.take().unwrap().write_all(asked.as_bytes()).await.unwrap();
    let answer = String::from_utf8(within(child.wait_with_output()).await.unwrap().stdout).unwrap();
    assert!(answer.contains("username=me\npassword=p@ss wörd\n"), "{answer}");
    assert!(!daemon.log().contains("p@ss"));
    for (body, code) in [
        (json!({"username": "a", "password": "b", "protocol": "ssh"}), "BAD_REQUEST"),
        (json!({"username": "a", "password": "b", "host": "h/x"}), "BAD_REQUEST"),
        (json!({"username": "a\nb", "password": "b"}), "BAD_REQUEST"),
        (json!({"username": "a"}), "INVALID_REQUEST_BODY"),
    ] {
        keep(body).fails(400, code).await;
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn other_helpers_for_credentials_stay() {
    let daemon = Daemon::start().await;
    let settings = daemon.home().join(".gitconfig");
    let helpers = async || {
        let path = settings.display().to_string();
        git(&daemon.work(), &["config", "--file", &path, "--get-all", "credential.helper"]).await
    };
    let keep = async || {
        daemon.client().post("/git/credentials").json(json!({"username": "a", "password": "b"})).ok().await
    };
    std::fs::write(&settings, "[credential]\n\thelper = cache\n").unwrap();
    keep().await;
    assert_eq!(helpers().await, "store");
    std::fs::write(&settings, "[credential]\n\thelper = cache\n\thelper = other\n").unwrap();
    keep().await;
    keep().await;
    assert_eq!(helpers().await, "cache\nother\nstore");
}
