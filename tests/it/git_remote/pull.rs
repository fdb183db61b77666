//! A pull moves forward or changes nothing.

use serde_json::json;

use super::{check_clean, repo, state};
use crate::support::{Daemon, GitServer, Manner, Origin, git};

/// A clone, and what it is of.
async fn start() -> (Origin, GitServer, Daemon) {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    daemon.client().clone_repo(&server.url(), json!({})).ok().await;
    (upstream, server, daemon)
}

async fn head(daemon: &Daemon) -> String {
    git(&repo(daemon), &["rev-parse", "HEAD"]).await
}

#[tokio::test]
async fn a_pull_fast_forwards_and_is_done_again_for_nothing() {
    let (upstream, _server, daemon) = start().await;
    upstream.git(&["mv", "README", "moved"]).await;
    let tip = upstream.commit("dir/new", "x").await;
    for _ in 0..2 {
        let reply = daemon.client().pull(json!({"branch": null, "remote": null})).ok().await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
        assert_eq!(git(&repo(&daemon), &["rev-parse", "HEAD", "origin/main"]).await, format!("{tip}\n{tip}"));
        check_clean(&repo(&daemon)).await;
    }
    assert!(!repo(&daemon).join("README").exists() && repo(&daemon).join("moved").exists());
    assert!(git(&repo(&daemon), &["reflog", "-1", "main"]).await.contains("pull: Fast-forward"));
}

#[tokio::test]
async fn what_the_branch_follows_is_pulled() {
    let (upstream, _server, daemon) = start().await;
    upstream.git(&["switch", "-q", "-c", "dev"]).await;
    let dev = upstream.commit("dev", "x").await;
    upstream.git(&["switch", "-q", "main"]).await;
    upstream.commit("README", "not this").await;
    let clone = repo(&daemon);
    // Not the remote's default branch: the one of the same name, then the upstream, then the one that is named.
    git(&clone, &["switch", "-q", "-c", "dev"]).await;
    daemon.client().pull(json!({})).ok().await;
    assert_eq!(head(&daemon).await, dev);
    git(&clone, &["switch", "-q", "-c", "mine", "origin/main"]).await;
    git(&clone, &["config", "branch.mine.remote", "origin"]).await;
    git(&clone, &["config", "branch.mine.merge", "refs/heads/dev"]).await;
    daemon.client().pull(json!({})).ok().await;
    assert_eq!(head(&daemon).await, dev);
    git(&clone, &["switch", "-q", "-c", "other", "HEAD~1"]).await;
    let before = state(&clone).await;
    daemon.client().pull(json!({})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    daemon.client().pull(json!({"branch": "nosuch"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    daemon.client().pull(json!({"remote": "nosuch"})).fails(404, "NOT_FOUND").await;
    assert_eq!(state(&clone).await, before);
    daemon.client().pull(json!({"branch": "dev", "remote": "origin"})).ok().await;
    assert_eq!(head(&daemon).await, dev);
}

#[tokio::test]
async fn what_has_diverged_stays_as_it_was() {
    let (upstream, _server, daemon) = start().await;
    upstream.commit("README", "theirs").await;
    let clone = repo(&daemon);
    std::fs::write(clone.join("README"), "ours").unwrap();
    git(&clone, &["commit", "-q", "-a", "-m", "ours"]).await;
    let before = state(&clone).await;
    let message = daemon.client().pull(json!({})).fails(409, "GIT_MERGE_CONFLICT").await;
    assert!(message.contains("non-fast-forward"), "{message}");
    assert_eq!(state(&clone).await, before);
    // Only ahead is not behind.
    let upstream_tip = git(&clone, &["rev-parse", "HEAD~1"]).await;
    git(&upstream.bare(), &["update-ref", "refs/heads/main", &upstream_tip]).await;
    daemon.client().pull(json!({})).ok().await;
    assert_eq!(state(&clone).await, before);
}

#[tokio::test]
async fn uncommitted_work_is_never_lost() {
    let (upstream, _server, daemon) = start().await;
    std::fs::write(upstream.work().join("README"), "theirs").unwrap();
    let tip = upstream.commit("new", "theirs").await;
    let (clone, client) = (repo(&daemon), daemon.client());
    let refuses = async |what: &str| {
        let before = state(&clone).await;
        let message = client.pull(json!({})).fails(409, "GIT_DIRTY_WORKTREE").await;
        assert!(message.contains(what), "{message}");
        assert_eq!(state(&clone).await, before, "{what}");
    };
    std::fs::write(clone.join("README"), "mine").unwrap();
    refuses("README").await;
    git(&clone, &["add", "README"]).await;
    refuses("README").await;
    git(&clone, &["reset", "-q", "--hard"]).await;
    std::fs::write(clone.join("staged"), "mine").unwrap();
    git(&clone, &["add", "staged"]).await;
    refuses("staged").await;
    git(&clone, &["reset", "-q"]).await;
    // An untracked file counts only where something would come.
    std::fs::write(clone.join("new"), "mine").unwrap();
    refuses("new").await;
    std::fs::write(clone.join(".git/info/exclude"), "new\n").unwrap();
    refuses("new").await;
    std::fs::remove_file(clone.join("new")).unwrap();
    client.pull(json!({})).ok().await;
    assert_eq!(head(&daemon).await, tip);
    assert_eq!(std::fs::read_to_string(clone.join("staged")).unwrap(), "mine");
}

#[tokio::test]
async fn changes_that_are_not_in_the_way_may_be_kept() {
    let (upstream, _server, daemon) = start().await;
    upstream.commit("new", "theirs").await;
    let (clone, client) = (repo(&daemon), daemon.client());
    std::fs::write(clone.join("README"), "mine").unwrap();
    client.pull(json!({})).fails(409, "GIT_DIRTY_WORKTREE").await;
    client.pull(json!({"allow_dirty": true})).ok().await;
    assert_eq!(git(&clone, &["status", "--porcelain"]).await, " M README");
    assert_eq!(std::fs::read_to_string(clone.join("README")).unwrap(), "mine");
    upstream.commit("README", "theirs").await;
    let before = state(&clone).await;
    client.pull(json!({"allow_dirty": true})).fails(409, "GIT_DIRTY_WORKTREE").await;
    assert_eq!(state(&clone).await, before);
}

#[tokio::test]
async fn without_a_branch_one_has_to_be_named() {
    let (upstream, _server, daemon) = start().await;
    let (clone, client) = (repo(&daemon), daemon.client());
    git(&clone, &["switch", "-q", "--detach"]).await;
    let tip = upstream.commit("README", "two").await;
    let before = state(&clone).await;
    client.pull(json!({})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    assert_eq!(state(&clone).await, before);
    client.pull(json!({"branch": "main"})).ok().await;
    assert_eq!(head(&daemon).await, tip);
    assert_eq!(std::fs::read_to_string(clone.join(".git/HEAD")).unwrap().trim(), tip);
    check_clean(&clone).await;
}

#[tokio::test]
async fn a_repository_without_commits_gets_its_first() {
    let (upstream, server, daemon) = start().await;
    let clone = daemon.work().join("new");
    std::fs::create_dir(&clone).unwrap();
    git(&clone, &["init", "-q", "--initial-branch=main"]).await;
    let client = daemon.client();
    client.git("/git/pull", "new", json!({})).fails(404, "NOT_FOUND").await;
    git(&clone, &["remote", "add", "origin", &server.url()]).await;
    std::fs::write(clone.join("README"), "mine").unwrap();
    client.git("/git/pull", "new", json!({})).fails(409, "GIT_DIRTY_WORKTREE").await;
    assert_eq!(std::fs::read_to_string(clone.join("README")).unwrap(), "mine");
    std::fs::remove_file(clone.join("README")).unwrap();
    client.git("/git/pull", "new", json!({})).ok().await;
    assert_eq!(git(&clone, &["rev-parse", "main"]).await, upstream.tip("main").await);
    check_clean(&clone).await;
    git(&daemon.work(), &["init", "-q", "--bare", "bare"]).await;
    client.git("/git/pull", "bare", json!({})).fails(400, "BAD_REQUEST").await;
    client.git("/git/pull", "nosuch", json!({})).fails(404, "GIT_REPO_NOT_FOUND").await;
}

#[tokio::test]
async fn a_shallow_clone_is_pulled_into() {
    let upstream = Origin::new().await;
    upstream.commit("README", "two").await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    daemon.client().clone_repo(&server.url(), json!({"depth": 1})).ok().await;
    upstream.commit("README", "three").await;
    let tip = upstream.commit("README", "four").await;
    daemon.client().pull(json!({"remote": "origin", "branch": "main"})).ok().await;
    assert_eq!(head(&daemon).await, tip);
    assert_eq!(git(&repo(&daemon), &["rev-list", "--count", "HEAD"]).await, "3");
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn a_pull_that_is_cut_changes_nothing() {
    let (upstream, server, daemon) = start().await;
    upstream.commit("README", "two").await;
    let cutting = GitServer::start(upstream.root(), Manner::Cuts).await;
    let clone = repo(&daemon);
    git(&clone, &["config", "remote.origin.url", &cutting.url()]).await;
    let before = state(&clone).await;
    daemon.client().pull(json!({})).fails(502, "GIT_TRANSPORT_FAILED").await;
    assert_eq!(state(&clone).await, before);
    let left = std::fs::read_dir(clone.join(".git/objects/pack")).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().contains("tmp")));
    git(&clone, &["config", "remote.origin.url", &server.url()]).await;
    daemon.client().pull(json!({})).ok().await;
    check_clean(&clone).await;
}
