//! History is that of `git log`.

use serde_json::{Value, json};

use crate::support::{Daemon, Repo};

/// What `git log` says of each commit, in the API's words.
fn expected(repo: &Repo, arguments: &[&str]) -> Value {
    let log = repo.git(&[&["log", "--format=%H%x01%an%x01%ae%x01%B%x01%aI%x02"], arguments].concat());
    let commits =
        log.split('\u{2}').map(|text| text.trim_start_matches('\n')).filter(|text| !text.is_empty());
    let commit = |text: &str| {
        let parts: Vec<&str> = text.split('\u{1}').collect();
        let time = parts[4].strip_suffix("+00:00").map_or(parts[4].to_owned(), |time| format!("{time}Z"));
        json!({"hash": parts[0], "author": parts[1], "email": parts[2], "message": parts[3], "timestamp": time})
    };
    commits.map(commit).collect()
}

#[tokio::test]
async fn commits_come_in_the_order_of_git_log() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    let commit = |day: u32, zone: &str, message: &str| {
        let date = format!("2020-01-{day:02}T00:00:00{zone}");
        let output = repo
            .command(&["commit", "--quiet", "--allow-empty", "-m", message])
            .envs([("GIT_AUTHOR_DATE", &date), ("GIT_COMMITTER_DATE", &date)])
            .output();
        assert!(output.unwrap().status.success());
    };
    commit(1, "+00:00", "first");
    commit(2, "+05:30", "second\n\nümlaut body\n\nTrailer: x");
    repo.git(&["checkout", "--quiet", "-b", "side"]);
    commit(3, "-03:30", "side");
    repo.git(&["checkout", "--quiet", "main"]);
    commit(4, "+00:00", "main");
    repo.git(&["merge", "--quiet", "--no-ff", "-m", "merge", "side"]);
    let whole = repo.get(&daemon, "/git/history").ok().await;
    assert_eq!(whole.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(whole.json(), expected(&repo, &[]));
    let part = repo.get(&daemon, "/git/history").query("skip", "1").query("limit", "2").ok().await.json();
    assert_eq!(part, expected(&repo, &["--skip=1", "-2"]));
    let side = repo.get(&daemon, "/git/history").query("revision", "side").ok().await.json();
    assert_eq!(side, expected(&repo, &["side"]));
    assert_eq!(repo.get(&daemon, "/git/history").query("skip", "99").ok().await.json(), json!([]));
    assert_eq!(repo.get(&daemon, "/git/history").query("limit", "0").ok().await.json(), json!([]));
}

#[tokio::test]
async fn a_long_history_is_whole() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    let mut script = String::new();
    for number in 1..=3000 {
        script += &format!("commit refs/heads/main\ncommitter A <a@b> {number} +0000\ndata 5\n{number:05}\n");
    }
    repo.write("script", script);
    let script = std::fs::File::open(repo.root.join("script")).unwrap();
    assert!(repo.command(&["fast-import", "--quiet"]).stdin(script).status().unwrap().success());
    let history = repo.get(&daemon, "/git/history").ok().await.json();
    let messages: Vec<u32> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|commit| commit["message"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(messages, (1..=3000).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_leaves_early_leaves_nothing_behind() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    for number in 0..40 {
        let reply = repo.get(&daemon, "/git/history").query("limit", (number % 2).to_string()).open().await;
        drop(reply);
    }
    assert_eq!(repo.get(&daemon, "/git/history").ok().await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_has_no_history_is_told() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.get(&daemon, "/git/history").fails(404, "GIT_BRANCH_NOT_FOUND").await;
    repo.commit("a", "a\n");
    repo.get(&daemon, "/git/history").query("revision", "nosuch").fails(404, "GIT_BRANCH_NOT_FOUND").await;
    repo.get(&daemon, "/git/history").query("limit", "x").fails(400, "BAD_REQUEST").await;
    daemon.client().get("/git/history").query("path", ".").fails(404, "GIT_REPO_NOT_FOUND").await;
}

#[tokio::test]
async fn a_shallow_clone_has_the_history_that_it_has() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.commit("a.txt", "two\n");
    let url = format!("file://{}", repo.root.display());
    repo.git(&["clone", "--quiet", "--depth=1", &url, "../shallow"]);
    let shallow = Repo::at(&daemon, daemon.work().join("shallow"));
    assert_eq!(shallow.get(&daemon, "/git/history").ok().await.json(), expected(&shallow, &[]));
}
