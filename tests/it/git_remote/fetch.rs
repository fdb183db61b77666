//! A fetch brings refs and touches nothing else.

use serde_json::json;

use super::{check_clean, repo, state};
use crate::support::{Daemon, GitServer, Manner, Origin, git};

#[tokio::test]
async fn branches_come_and_go_and_the_work_tree_stays() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    let (client, clone) = (daemon.client(), repo(&daemon));
    client.clone_repo(&server.url(), json!({})).ok().await;
    std::fs::write(clone.join("README"), "mine").unwrap();
    let (before, old) = (state(&clone).await, upstream.tip("main").await);
    let new = upstream.commit("README", "theirs").await;
    upstream.git(&["switch", "-q", "-c", "dev"]).await;
    let dev = upstream.commit("dev", "x").await;
    let updates = client.fetch(json!({})).ok().await.json();
    let expected = json!([{"ref": "refs/remotes/origin/main", "old": old, "new": new}]);
    assert_eq!(updates["updates"], expected);
    // A clone knows its branch alone, until it is told of another.
    let updates = client.fetch(json!({"branch": "dev"})).ok().await.json();
    assert_eq!(updates["updates"], json!([{"ref": "refs/remotes/origin/dev", "new": dev}]));
    assert_eq!(git(&clone, &["rev-parse", "FETCH_HEAD"]).await, dev);
    git(&clone, &["config", "--replace-all", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"])
        .await;
    upstream.git(&["push", "-q", "origin", ":dev"]).await;
    assert_eq!(client.fetch(json!({})).ok().await.json()["updates"], json!([]));
    let updates = client.fetch(json!({"prune": true})).ok().await.json();
    assert_eq!(updates["updates"], json!([{"ref": "refs/remotes/origin/dev", "old": dev}]));
    assert_eq!(state(&clone).await, before);
    client.fetch(json!({"branch": "nosuch"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    client.fetch(json!({"remote": "nosuch"})).fails(404, "NOT_FOUND").await;
}

#[tokio::test]
async fn tags_come_with_what_they_point_into_or_all_of_them() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    let (client, clone) = (daemon.client(), repo(&daemon));
    client.clone_repo(&server.url(), json!({})).ok().await;
    upstream.commit("README", "two").await;
    upstream.git(&["tag", "-m", "inside", "inside"]).await;
    upstream.git(&["switch", "-q", "-c", "dev"]).await;
    upstream.commit("dev", "x").await;
    upstream.git(&["tag", "outside"]).await;
    upstream.git(&["push", "-q", "--tags"]).await;
    client.fetch(json!({})).ok().await;
    assert_eq!(git(&clone, &["tag"]).await, "inside");
    client.fetch(json!({"tags": true})).ok().await;
    assert_eq!(git(&clone, &["tag"]).await, "inside\noutside");
    check_clean(&clone).await;
}

#[tokio::test]
async fn a_shallow_clone_is_deepened() {
    let upstream = Origin::new().await;
    for content in ["two", "three", "four"] {
        upstream.commit("README", content).await;
    }
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    for (path, url) in [("http", server.url()), ("local", format!("file://{}", upstream.bare().display()))] {
        let client = daemon.client();
        let clone = daemon.work().join(path);
        let commits = async || git(&clone, &["rev-list", "--count", "HEAD"]).await;
        client.git("/git/clone", path, json!({"url": url, "depth": 1})).ok().await;
        client.git("/git/fetch", path, json!({"depth": 2})).ok().await;
        assert_eq!(commits().await, "2", "{path}");
        check_clean(&clone).await;
        client.git("/git/fetch", path, json!({"unshallow": true})).ok().await;
        assert_eq!(commits().await, "4", "{path}");
        assert_eq!(git(&clone, &["rev-parse", "--is-shallow-repository"]).await, "false");
        check_clean(&clone).await;
    }
}

#[tokio::test]
async fn a_remote_is_fetched_when_it_is_added_or_it_is_not_added() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    let (client, clone) = (daemon.client(), repo(&daemon));
    std::fs::create_dir(&clone).unwrap();
    git(&clone, &["init", "-q"]).await;
    let add = |body| client.git("/git/remotes", "repo", body);
    let (url, wrong) = (server.url(), server.url().replace("repo", "none"));
    add(json!({"name": "origin", "url": wrong, "fetch": true})).fails(404, "GIT_REPO_NOT_FOUND").await;
    add(json!({"name": "-x", "url": url, "fetch": true})).fails(400, "BAD_REQUEST").await;
    assert_eq!(git(&clone, &["remote"]).await, "");
    assert_eq!(add(json!({"name": "origin", "url": url, "fetch": true})).ok().await.status, 201);
    assert_eq!(git(&clone, &["rev-parse", "origin/main"]).await, upstream.tip("main").await);
    add(json!({"name": "origin", "url": url, "fetch": true})).fails(409, "CONFLICT").await;
    add(json!({"name": "origin", "url": wrong, "overwrite": true, "fetch": null})).ok().await;
    assert_eq!(git(&clone, &["config", "remote.origin.url"]).await, wrong);
}
