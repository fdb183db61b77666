//! Remotes on the same file system.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::{check_clean, repo};
use crate::support::{Daemon, Origin, git};

#[tokio::test]
async fn paths_and_file_urls_are_cloned() {
    let upstream = Origin::new().await;
    upstream.git(&["tag", "-m", "x", "v1"]).await;
    upstream.git(&["push", "-q", "--tags"]).await;
    git(&upstream.bare(), &["gc", "-q"]).await;
    let tip = upstream.commit("dir/ünï", "x").await; // also outside of the pack
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let (bare, work) = (upstream.bare().display().to_string(), upstream.work().display().to_string());
    for (path, url) in [
        ("a", bare.clone()),
        ("b", format!("file://{bare}")),
        ("c", work),
        ("d", "a".to_owned()),
        ("e:f", "./a".into()),
    ] {
        client.git("/git/clone", path, json!({"url": url})).ok().await;
        let clone = daemon.work().join(path);
        assert_eq!(
            git(&clone, &["rev-parse", "HEAD", "origin/main"]).await,
            format!("{tip}\n{tip}"),
            "{path}"
        );
        assert_eq!(git(&clone, &["tag"]).await, "v1");
        check_clean(&clone).await;
        git(&clone, &["fetch", "-q"]).await;
    }
    // Its own directory, and what git adds to a name that it does not find.
    for (path, url) in [("h", upstream.work().join(".git")), ("i", upstream.root().join("repo"))] {
        client.git("/git/clone", path, json!({"url": url})).ok().await;
        check_clean(&daemon.work().join(path)).await;
        client.git("/git/pull", path, json!({})).ok().await;
    }
    // A colon does not make it a host.
    client.git("/git/clone", "g", json!({"url": daemon.work().join("e:f")})).ok().await;
    // Objects of a path are shared, as git does; those of a URL are not.
    let objects = |path: &str| {
        let object = format!("objects/{}/{}", &tip[..2], &tip[2..]);
        daemon.work().join(path).join(".git").join(object).metadata().unwrap()
    };
    assert!(objects("a").nlink() > 1);
    assert_eq!(objects("b").nlink(), 1);
}

#[tokio::test]
async fn what_cannot_be_copied_is_packed() {
    let upstream = Origin::new().await;
    for content in ["two", "three"] {
        upstream.commit("README", content).await;
    }
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let bare = upstream.bare().display().to_string();
    client.clone_repo(&bare, json!({"depth": 2})).ok().await;
    assert_eq!(git(&repo(&daemon), &["rev-list", "--count", "HEAD"]).await, "2");
    check_clean(&repo(&daemon)).await;
    // What is pulled later, and what is shared with a third repository.
    let tip = upstream.commit("README", "four").await;
    client.pull(json!({})).ok().await;
    assert_eq!(git(&repo(&daemon), &["rev-parse", "HEAD"]).await, tip);
    assert_eq!(git(&repo(&daemon), &["rev-list", "--count", "HEAD"]).await, "3");
    assert_eq!(git(&repo(&daemon), &["rev-parse", "--is-shallow-repository"]).await, "true");
    check_clean(&repo(&daemon)).await;
    git(upstream.root(), &["clone", "-q", "--bare", "--shared", "repo.git", "shared.git"]).await;
    let shared = upstream.root().join("shared.git");
    client.git("/git/clone", "third", json!({"url": shared})).ok().await;
    check_clean(&daemon.work().join("third")).await;
    // A clone of a shallow clone is shallow.
    client.git("/git/clone", "fourth", json!({"url": "repo"})).ok().await;
    check_clean(&daemon.work().join("fourth")).await;
}

#[tokio::test]
async fn pushes_go_where_nobody_works_and_nobody_guards() {
    let upstream = Origin::new().await;
    let daemon = Daemon::start().await;
    let (client, clone) = (daemon.client(), repo(&daemon));
    client.clone_repo(&upstream.bare().display().to_string(), json!({})).ok().await;
    let commit = async || {
        git(&clone, &["commit", "-q", "--allow-empty", "-m", "x"]).await;
        git(&clone, &["rev-parse", "HEAD"]).await
    };
    let tip = commit().await;
    client.push(json!({})).ok().await;
    assert_eq!(upstream.tip("main").await, tip);
    git(&upstream.bare(), &["fsck", "--strict"]).await;
    let theirs = {
        upstream.git(&["pull", "-q", "origin", "main"]).await;
        upstream.commit("README", "theirs").await
    };
    commit().await;
    client.push(json!({})).fails(409, "GIT_PUSH_REJECTED").await;
    assert_eq!(upstream.tip("main").await, theirs);
    git(&clone, &["reset", "-q", "--hard", "origin/main"]).await;
    client.pull(json!({})).ok().await;
    commit().await;
    // A hook cannot be asked, so it has not agreed.
    let hook = upstream.bare().join("hooks/pre-receive");
    let marker = upstream.root().join("marker");
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    let message = client.push(json!({})).fails(422, "GIT_REMOTE_REJECTED").await;
    assert!(message.contains("pre-receive") && !marker.exists(), "{message}");
    assert_eq!(upstream.tip("main").await, theirs);
    // Nor is a branch moved that is checked out; others are.
    git(&clone, &["remote", "add", "work", &upstream.work().display().to_string()]).await;
    let message = client.push(json!({"remote": "work"})).fails(422, "GIT_REMOTE_REJECTED").await;
    assert!(message.contains("checked out"), "{message}");
    git(&clone, &["switch", "-q", "-c", "topic"]).await;
    client.push(json!({"remote": "work", "set_upstream": true})).ok().await;
    assert_eq!(upstream.git(&["rev-parse", "topic"]).await, git(&clone, &["rev-parse", "HEAD"]).await);
    assert_eq!(git(&clone, &["rev-parse", "--abbrev-ref", "@{upstream}"]).await, "work/topic");
}
