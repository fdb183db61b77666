//! Each cause of contract `git.md` 1.2 that a network has.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{assert_nowhere, repo};
use crate::support::{Daemon, GitServer, Manner, Origin, git, names_in};

/// Clones, which must fail in this way and leave nothing behind.
async fn fails(daemon: &Daemon, url: &str, more: Value, status: u16, code: &str) -> String {
    let message = daemon.client().clone_repo(url, more).fails(status, code).await;
    assert!(names_in(&daemon.work()).is_empty(), "something is left behind");
    message
}

#[tokio::test]
async fn credentials_are_asked_for_checked_and_kept_nowhere() {
    let upstream = Origin::new().await;
    let mut server = GitServer::start(upstream.root(), Manner::Private("me", "s3cr3t/pass")).await;
    let (daemon, url) = (Daemon::start().await, server.url());
    let message = fails(&daemon, &url, json!({}), 401, "GIT_AUTH_FAILED").await;
    assert!(message.contains("authentication required"), "{message}");
    assert_eq!(server.next().await.authorization(), None);
    let wrong = json!({"username": "me", "password": "wr0ng-pass"});
    let message = fails(&daemon, &url, wrong, 401, "GIT_AUTH_FAILED").await;
    assert!(message.contains("does not take the credentials") && !message.contains("wr0ng"), "{message}");
    // Both count, or none.
    fails(&daemon, &url, json!({"password": "s3cr3t/pass"}), 401, "GIT_AUTH_FAILED").await;
    let login = json!({"username": "me", "password": "s3cr3t/pass"});
    daemon.client().clone_repo(&url, login.clone()).ok().await;
    upstream.commit("README", "two").await;
    daemon.client().pull(json!({})).fails(401, "GIT_AUTH_FAILED").await;
    daemon.client().pull(login).ok().await;
    assert_nowhere(&daemon.work(), "s3cr3t");
    assert_nowhere(&daemon.home(), "s3cr3t");
    for secret in ["s3cr3t", "wr0ng-pass", "bWU6"] {
        assert!(!daemon.log().contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn credentials_in_a_url_work_and_stay_where_they_were_put() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Private("me", "s3cr3t@pass")).await;
    let daemon = Daemon::start().await;
    let url = server.url().replace("http://", "http://me:s3cr3t%40pass@");
    daemon.client().clone_repo(&url, json!({})).ok().await;
    assert_eq!(git(&repo(&daemon), &["config", "remote.origin.url"]).await, url);
    upstream.commit("README", "two").await;
    daemon.client().pull(json!({})).ok().await;
    assert!(!daemon.log().contains("s3cr3t"), "a secret is in the log");
    for file in ["logs/HEAD", "logs/refs/heads/main", "logs/refs/remotes/origin/main"] {
        let text = std::fs::read_to_string(repo(&daemon).join(".git").join(file)).unwrap();
        assert!(!text.contains("s3cr3t"), "{file}: {text}");
    }
    let wrong = server.url().replace("http://", "http://me:wr0ng@");
    let message =
        daemon.client().git("/git/clone", "other", json!({"url": wrong})).fails(401, "GIT_AUTH_FAILED").await;
    assert!(!message.contains("wr0ng"), "{message}");
}

#[tokio::test]
async fn every_answer_of_a_server_has_its_error() {
    let upstream = Origin::new().await;
    let daemon = Daemon::start().await;
    for (manner, status, code, words) in [
        (Manner::Answers(403, "text/plain", "no entry\n"), 403, "FORBIDDEN", "no entry"),
        (Manner::Answers(404, "text/html", "<p>"), 404, "GIT_REPO_NOT_FOUND", "repository not found"),
        (Manner::Answers(410, "text/html", "<p>"), 404, "GIT_REPO_NOT_FOUND", "repository not found"),
        (Manner::Answers(500, "text/plain", "oops"), 502, "GIT_TRANSPORT_FAILED", "500"),
        (Manner::Answers(503, "text/html", ""), 502, "GIT_TRANSPORT_FAILED", "503"),
        (Manner::Answers(429, "text/html", ""), 502, "GIT_TRANSPORT_FAILED", "429"),
        (Manner::Answers(200, "text/html", "<p>hello"), 404, "GIT_REPO_NOT_FOUND", "not a git repository"),
        (Manner::Redirects("ftp://x".to_owned()), 502, "GIT_TRANSPORT_FAILED", "redirects"),
        (Manner::Cuts, 502, "GIT_TRANSPORT_FAILED", ""),
    ] {
        let server = GitServer::start(upstream.root(), manner.clone()).await;
        let message = fails(&daemon, &server.url(), json!({}), status, code).await;
        assert!(message.contains(words), "{manner:?}: {message}");
    }
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    fails(&daemon, &server.url().replace("repo", "none"), json!({}), 404, "GIT_REPO_NOT_FOUND").await;
}

#[tokio::test]
async fn an_empty_repository_is_not_cloned() {
    let upstream = Origin::new().await;
    git(upstream.root(), &["init", "-q", "--bare", "empty.git"]).await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    let message =
        fails(&daemon, &server.url().replace("repo", "empty"), json!({}), 404, "GIT_REPO_NOT_FOUND").await;
    assert!(message.contains("remote repository is empty"), "{message}");
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let daemon = Daemon::start_with(|command| _ = command.env("TOOLBOXD_GIT_STALL_TIMEOUT", "1s")).await;
    let upstream = Origin::new().await;
    let hanging = GitServer::start(upstream.root(), Manner::Hangs).await;
    let message = fails(&daemon, &hanging.url(), json!({}), 502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("nothing was received for 1s"), "{message}");
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["http", "https", "git", "ssh"] {
        let url = format!("{scheme}://{address}/repo.git");
        let message = fails(&daemon, &url, json!({}), 502, "GIT_TRANSPORT_FAILED").await;
        assert!(message.contains("connection refused"), "{message}");
    }
    let message = fails(&daemon, "http://host.invalid/x", json!({}), 502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("host.invalid"), "{message}");
}

#[tokio::test]
async fn urls_that_cannot_be_used_are_refused() {
    let daemon = Daemon::start().await;
    let marker = daemon.home().join("marker");
    let command = format!("ext::sh -c touch% {}", marker.display());
    for url in [&command, "ftp://host/x", "-oProxyCommand=x", "ssh://-oProxyCommand=x/y", "https:///x"] {
        fails(&daemon, url, json!({}), 400, "BAD_REQUEST").await;
    }
    assert!(!marker.exists());
    for path in ["/nonexistent/repo", "file:///nonexistent/repo", "relative"] {
        fails(&daemon, path, json!({}), 404, "GIT_REPO_NOT_FOUND").await;
    }
}

#[tokio::test]
async fn a_redirect_takes_credentials_to_the_same_server_only() {
    let upstream = Origin::new().await;
    let mut target = GitServer::start(upstream.root(), Manner::Serves).await;
    let mut source =
        GitServer::start(upstream.root(), Manner::Redirects(format!("http://{}", target.address))).await;
    let daemon = Daemon::start().await;
    let login = json!({"username": "me", "password": "s3cr3t"});
    daemon.client().clone_repo(&source.url(), login.clone()).ok().await;
    assert!(source.next().await.authorization().is_some());
    for _ in 0..2 {
        assert_eq!(target.next().await.authorization(), None);
    }
    // What is private there stays so, also for a URL that has the credentials itself.
    let private = GitServer::start(upstream.root(), Manner::Private("me", "s3cr3t")).await;
    let source =
        GitServer::start(upstream.root(), Manner::Redirects(format!("http://{}", private.address))).await;
    for (url, login) in [(source.url(), login), (source.url().replace("//", "//me:s3cr3t@"), json!({}))] {
        let body = super::merged(json!({"url": url}), login);
        daemon.client().git("/git/clone", "other", body).fails(401, "GIT_AUTH_FAILED").await;
    }
}

#[tokio::test]
async fn a_redirect_without_end_ends() {
    let upstream = Origin::new().await;
    let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = one.local_addr().unwrap();
    drop(one);
    let server = GitServer::start(upstream.root(), Manner::Redirects(format!("http://{address}/loop"))).await;
    let daemon = Daemon::start().await;
    // To itself, by a path that grows.
    let own = GitServer::start(upstream.root(), Manner::Redirects(String::new())).await;
    let message = fails(&daemon, &own.url(), json!({}), 502, "GIT_TRANSPORT_FAILED").await;
    assert!(message.contains("too often"), "{message}");
    fails(&daemon, &server.url(), json!({}), 502, "GIT_TRANSPORT_FAILED").await;
}

#[tokio::test]
async fn no_secret_of_a_url_is_told() {
    let upstream = Origin::new().await;
    let server = GitServer::start(
        upstream.root(),
        Manner::Answers(403, "text/plain", "you are s3cr3t-t0ken-0123456789"),
    )
    .await;
    let daemon = Daemon::start().await;
    let host = server.address.to_string();
    for url in [
        format!("http://s3cr3t-t0ken-0123456789@{host}/x"),
        format!("http://me:s3cr3t-t0ken-0123456789@{host}/x?token=s3cr3t-t0ken-0123456789"),
        format!("http://me:s3cr3t-t0ken-0123456789@{host}:port/x"),
        "ftp://me:s3cr3t-t0ken-0123456789@host/x".to_owned(),
        "ssh://me:s3cr3t-t0ken-0123456789@127.0.0.1:1/x".to_owned(),
    ] {
        let reply = daemon.client().clone_repo(&url, json!({})).send().await;
        assert!(!reply.status.is_success() && !reply.text().contains("s3cr3t"), "{}", reply.text());
    }
    assert!(!daemon.log().contains("s3cr3t"), "a secret is in the log");
}
