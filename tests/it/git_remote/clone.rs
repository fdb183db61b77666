//! What a clone is, and what is left of one that fails.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::Semaphore;

use super::{check_clean, repo};
use crate::support::{Daemon, GitServer, Manner, Origin, git, git_command, names_in, within};

#[tokio::test]
async fn a_clone_is_what_the_git_program_would_make() {
    let upstream = Origin::new().await;
    let work = upstream.work();
    std::fs::write(work.join("run.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(work.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("run.sh", work.join("link")).unwrap();
    std::fs::write(work.join(".gitattributes"), "*.crlf text eol=crlf\n").unwrap();
    std::fs::write(work.join("a.crlf"), "one\r\ntwo\r\n").unwrap();
    upstream.commit("dir/ünï·日本 file", "x").await;
    upstream.git(&["tag", "light"]).await;
    upstream.git(&["tag", "-m", "annotated", "v1"]).await;
    upstream.git(&["switch", "-q", "-c", "other"]).await;
    upstream.commit("other", "x").await;
    upstream.git(&["tag", "elsewhere"]).await;
    upstream.git(&["push", "-q", "--tags", "origin"]).await;
    upstream.git(&["switch", "-q", "main"]).await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    let reply = daemon.client().clone_repo(&server.url(), json!({"branch": null, "depth": null})).ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    let clone = repo(&daemon);
    check_clean(&clone).await;
    for word in ["begins", "done"] {
        let line = format!("clone {} into {}: {word}", server.url(), clone.display());
        assert!(daemon.log().contains(&line), "{line}");
    }
    let tip = upstream.tip("main").await;
    assert_eq!(
        git(&clone, &["rev-parse", "HEAD", "main", "origin/main", "origin/HEAD"]).await,
        [&*tip; 4].join("\n")
    );
    assert_eq!(git(&clone, &["tag"]).await, "light\nv1");
    assert_eq!(git(&clone, &["branch", "--all", "--format=%(refname)"]).await.lines().count(), 3);
    assert_eq!(git(&clone, &["config", "remote.origin.url"]).await, server.url());
    assert_eq!(git(&clone, &["rev-parse", "--abbrev-ref", "main@{upstream}"]).await, "origin/main");
    assert_eq!(std::fs::read_link(clone.join("link")).unwrap().to_str(), Some("run.sh"));
    assert!(clone.join("run.sh").metadata().unwrap().permissions().mode() & 0o100 != 0);
    assert_eq!(std::fs::read(clone.join("a.crlf")).unwrap(), b"one\r\ntwo\r\n");
    assert!(clone.join("dir/ünï·日本 file").is_file());
    let status = daemon.client().get("/git/status").query("path", "repo").ok().await.json();
    assert_eq!((&status["currentBranch"], &status["branchPublished"]), (&"main".into(), &true.into()));
    git(&clone, &["fetch", "-q", "origin"]).await;
}

/// Whoever says so: the repository, the user, or nobody.
#[tokio::test]
async fn files_are_written_as_git_would_write_them() {
    let upstream = Origin::new().await;
    let stored = "one\ntwo $Id$\n";
    upstream.commit("dir/a.txt", stored).await;
    upstream.commit("dir/b.crlf", "one\r\ntwo\r\n").await;
    for (file, content, changes) in [
        ("home/.gitconfig", "", false),
        ("work/.gitattributes", "* text=auto\n*.png filter=lfs -text\n", false),
        ("work/dir/.gitattributes", "*.txt text eol=crlf\n", true),
        ("work/dir/.gitattributes", "*.txt ident\n", true),
        ("work/dir/.gitattributes", "", false),
        ("home/.gitconfig", "[core]\n\tautocrlf = true\n", true),
        ("home/.gitconfig", "[core]\n\tautocrlf = input\n", false),
        ("home/.gitconfig", "[core]\n\tattributesFile = ~/mine\n", true),
        ("home/.config/git/attributes", "*.txt ident\n", true),
        ("home/.gitconfig", "[core]\n\teol = crlf\n", true), // what is text is told by the repository
    ] {
        let daemon = Daemon::start().await;
        let home = daemon.home();
        std::fs::create_dir_all(home.join(".config/git")).unwrap();
        std::fs::write(home.join("mine"), "*.txt eol=crlf\n").unwrap();
        match file.split_once('/').unwrap() {
            ("work", file) => drop(upstream.commit(file, content).await),
            (_, file) => std::fs::write(home.join(file), content).unwrap(),
        }
        let (bare, theirs) = (upstream.bare(), daemon.work().join("theirs"));
        let bare = bare.to_str().unwrap();
        daemon.client().clone_repo(bare, json!({})).ok().await;
        let mut clone = git_command(&daemon.work());
        clone.env("HOME", home).args(["clone", "-q", bare, "theirs"]);
        assert!(within(clone.status()).await.unwrap().success());
        for name in ["dir/a.txt", "dir/b.crlf"] {
            let read = |root: &Path| std::fs::read_to_string(root.join(name)).unwrap();
            assert_eq!(read(&repo(&daemon)), read(&theirs), "{file}: {content:?}");
        }
        let is_stored = std::fs::read_to_string(repo(&daemon).join("dir/a.txt")).unwrap() == stored;
        assert_eq!(is_stored, !changes, "{file}: {content:?}");
    }
}

#[tokio::test]
async fn another_branch_is_cloned_alone() {
    let upstream = Origin::new().await;
    upstream.git(&["switch", "-q", "-c", "feature/x"]).await;
    let tip = upstream.commit("x", "x").await;
    upstream.git(&["tag", "v1"]).await;
    upstream.git(&["push", "-q", "--tags", "origin"]).await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let (daemon, url) = (Daemon::start().await, server.url());
    let client = daemon.client();
    client.clone_repo(&url, json!({"branch": "feature/x"})).ok().await;
    assert_eq!(
        git(&repo(&daemon), &["rev-parse", "HEAD", "origin/feature/x"]).await,
        format!("{tip}\n{tip}")
    );
    assert_eq!(git(&repo(&daemon), &["for-each-ref", "refs/remotes"]).await.lines().count(), 1);
    check_clean(&repo(&daemon)).await;
    // A tag is no branch.
    for (branch, code, status) in [
        ("v1", "GIT_BRANCH_NOT_FOUND", 404),
        ("nosuch", "GIT_BRANCH_NOT_FOUND", 404),
        ("-x", "BAD_REQUEST", 400),
    ] {
        let body = json!({"url": url, "path": "a/b", "branch": branch});
        let message = client.post("/git/clone").json(body).fails(status, code).await;
        assert!(message.contains(branch), "{message}");
        assert_eq!(names_in(&daemon.work()), ["repo"]);
    }
}

#[tokio::test]
async fn a_commit_is_checked_out_wherever_it_is() {
    let upstream = Origin::new().await;
    let first = upstream.tip("main").await;
    upstream.commit("README", "second\n").await;
    upstream.git(&["switch", "-q", "-c", "other", &first]).await;
    let elsewhere = upstream.commit("other", "x").await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let (daemon, url) = (Daemon::start().await, server.url());
    let client = daemon.client();
    for (index, (commit, depth)) in [
        (&first[..], None),
        (&first[..7], None),
        (&first, Some(1)),
        (&elsewhere, None),
        (&elsewhere[..8], Some(1)),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("repo{index}");
        let body = json!({"url": url, "path": path, "branch": "main", "commit_id": commit, "depth": depth});
        client.post("/git/clone").json(body).ok().await;
        let clone = daemon.work().join(&path);
        assert!(git(&clone, &["rev-parse", "HEAD"]).await.starts_with(commit));
        let status = client.get("/git/status").query("path", &path).ok().await.json();
        assert_eq!((&status["currentBranch"], &status["detached"]), (&"HEAD".into(), &true.into()));
        assert_eq!(git(&clone, &["for-each-ref", "refs/toolboxd"]).await, "");
        check_clean(&clone).await;
    }
    for commit in ["zzz", "0123456789", "0123456789012345678901234567890123456789"] {
        let body = json!({"url": url, "path": "none", "commit_id": commit});
        let message = client.post("/git/clone").json(body).fails(404, "GIT_BRANCH_NOT_FOUND").await;
        assert!(message.contains(commit), "{message}");
        assert!(!daemon.work().join("none").exists());
    }
}

#[tokio::test]
async fn a_shallow_clone_has_as_many_commits_as_were_asked_for() {
    let upstream = Origin::new().await;
    for content in ["two", "three"] {
        upstream.commit("README", content).await;
    }
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    daemon.client().clone_repo(&server.url(), json!({"depth": 1.0})).ok().await;
    assert_eq!(git(&repo(&daemon), &["rev-list", "--count", "HEAD"]).await, "1");
    assert_eq!(git(&repo(&daemon), &["rev-parse", "--is-shallow-repository"]).await, "true");
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn only_an_empty_directory_is_cloned_into() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let (daemon, url) = (Daemon::start().await, server.url());
    let (client, work) = (daemon.client(), daemon.work());
    let clone = |path: &str| client.post("/git/clone").json(json!({"url": url, "path": path}));
    std::fs::create_dir(work.join("empty")).unwrap();
    clone("empty/").ok().await;
    check_clean(&work.join("empty")).await;
    let message = clone("empty").fails(409, "CONFLICT").await;
    assert!(message.contains("repository already exists"), "{message}");
    std::fs::create_dir(work.join("full")).unwrap();
    std::fs::write(work.join("full/mine"), "mine").unwrap();
    clone("full").fails(409, "CONFLICT").await;
    assert_eq!(names_in(&work.join("full")), ["mine"]);
    clone("full/mine").fails(409, "CONFLICT").await;
    client.post("/git/clone").json(json!({"url": url})).fails(400, "INVALID_REQUEST_BODY").await;
    client
        .post("/git/clone")
        .json(json!({"url": null, "path": "x"}))
        .fails(400, "INVALID_REQUEST_BODY")
        .await;
}

#[tokio::test]
async fn a_failed_clone_leaves_an_empty_directory_empty() {
    let upstream = Origin::new().await;
    let server = GitServer::start(upstream.root(), Manner::Cuts).await;
    let daemon = Daemon::start().await;
    std::fs::create_dir(repo(&daemon)).unwrap();
    daemon.client().clone_repo(&server.url(), json!({})).fails(502, "GIT_TRANSPORT_FAILED").await;
    assert!(names_in(&repo(&daemon)).is_empty());
    let body = json!({"url": server.url(), "path": "new/deep/repo"});
    daemon.client().post("/git/clone").json(body).fails(502, "GIT_TRANSPORT_FAILED").await;
    assert_eq!(names_in(&daemon.work()), ["repo"]);
}

#[tokio::test]
async fn submodules_are_left_alone() {
    let (upstream, module) = (Origin::new().await, Origin::new().await);
    let url = module.bare().display().to_string();
    upstream.git(&["submodule", "--quiet", "add", &url, "module"]).await;
    upstream.commit_all("module").await;
    let server = GitServer::start(upstream.root(), Manner::Serves).await;
    let daemon = Daemon::start().await;
    daemon.client().clone_repo(&server.url(), json!({})).ok().await;
    assert!(names_in(&repo(&daemon).join("module")).is_empty());
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn a_clone_goes_on_when_its_client_leaves() {
    let upstream = Origin::new().await;
    let permits = Arc::new(Semaphore::new(0));
    let mut server = GitServer::start(upstream.root(), Manner::Waits(Arc::clone(&permits))).await;
    let (daemon, url) = (Daemon::start().await, server.url());
    let client = daemon.client();
    let call = tokio::spawn(client.clone_repo(&url, json!({})).try_send());
    server.next_to("/git-upload-pack").await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    permits.add_permits(1);
    // Waits for its turn, and then the repository is there.
    client.clone_repo(&url, json!({})).fails(409, "CONFLICT").await;
    check_clean(&repo(&daemon)).await;
}

#[tokio::test]
async fn a_clone_stops_with_the_daemon_and_leaves_nothing_behind() {
    let upstream = Origin::new().await;
    let mut server = GitServer::start(upstream.root(), Manner::Waits(Arc::new(Semaphore::new(0)))).await;
    let mut daemon = Daemon::start().await;
    let call = tokio::spawn(daemon.client().clone_repo(&server.url(), json!({})).try_send());
    server.next_to("/git-upload-pack").await;
    assert!(repo(&daemon).join(".git").exists());
    daemon.signal("TERM").await;
    assert!(daemon.exited().await.success());
    assert!(names_in(&daemon.work()).is_empty());
    let _ = within(call).await.unwrap(); // an error, or nothing: the daemon is gone
}
