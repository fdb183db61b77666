//! Diff, show, stash and tags.

use serde_json::{Value, json};

use super::status::conflicted;
use crate::support::{Daemon, Repo};

#[tokio::test]
async fn a_diff_is_that_of_git() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    let lines = |change: &str| -> String {
        (1..40).map(|n| if n == 20 { format!("{change}\n") } else { format!("line {n}\n") }).collect()
    };
    repo.write("moved", lines("here"));
    repo.write("dir/b", "b\n");
    repo.write("gone", "x\n");
    let first = repo.commit("a.txt", "1\n2\n3\n");
    repo.git(&["mv", "moved", "there"]);
    repo.write("there", lines("changed"));
    repo.remove("gone");
    repo.write("ü", "no newline");
    repo.write("binary", [0_u8, 1, 2, 255]);
    repo.commit("dir/b", "b\nc\n");
    repo.write("a.txt", "1\n2\nstaged\n");
    repo.git(&["add", "a.txt"]);
    repo.write("a.txt", "1\nnot staged\nstaged\n");
    repo.write("dir/b", "z\n");
    repo.write("untracked", "u\n");
    let git = |arguments: &[&str]| {
        let fixed = ["-c", "core.quotePath=true", "diff", "--find-renames", "--no-color", "--abbrev=7"];
        let output = repo.try_git(&[&fixed, arguments].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let ours = async |parameters: &[(&str, &str)]| {
        let call = repo.get(&daemon, "/git/diff");
        let reply = parameters.iter().fold(call, |call, (name, value)| call.query(name, value)).ok().await;
        assert_eq!(reply.header("content-type"), "text/x-diff");
        reply.text()
    };
    assert_eq!(ours(&[]).await, git(&[]));
    assert_eq!(ours(&[("staged", "true")]).await, git(&["--staged"]));
    assert_eq!(ours(&[("from", "HEAD")]).await, git(&["HEAD"]));
    assert_eq!(ours(&[("from", &first), ("to", "HEAD")]).await, git(&[&first, "HEAD"]));
    assert_eq!(ours(&[("from", &first), ("staged", "true")]).await, git(&["--staged", &first]));
    assert_eq!(ours(&[("context", "0")]).await, git(&["-U0"]));
    assert_eq!(ours(&[("file", "dir"), ("file", "nosuch")]).await, git(&["--", "dir", "nosuch"]));
    assert!(ours(&[("untracked", "true")]).await.contains("+++ b/untracked\n@@ -0,0 +1 @@\n+u\n"));
    let call =
        repo.get(&daemon, "/git/diff").query("from", &first).query("to", "HEAD").query("format", "json");
    let files = call.ok().await.json();
    let told: Vec<Value> = files
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            assert!(file["patch"].as_str().unwrap().starts_with("diff --git "), "{file}");
            json!([
                file["path"],
                file["old_path"],
                file["status"],
                file["additions"],
                file["deletions"],
                file["binary"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["binary", null, "Added", 0, 0, true]),
            json!(["dir/b", null, "Modified", 1, 0, false]),
            json!(["gone", null, "Deleted", 0, 1, false]),
            json!(["there", "moved", "Renamed", 1, 1, false]),
            json!(["ü", null, "Added", 1, 0, false]),
        ]
    );
}

#[tokio::test]
async fn a_diff_of_what_is_not_there_is_refused() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    let diff = |name: &str, value: &str| repo.get(&daemon, "/git/diff").query(name, value);
    diff("from", "nosuch").fails(404, "GIT_BRANCH_NOT_FOUND").await;
    diff("to", "HEAD").fails(400, "BAD_REQUEST").await;
    diff("from", "--output=/tmp/x").fails(400, "BAD_REQUEST").await;
    diff("file", "../x").fails(400, "BAD_REQUEST").await;
    diff("format", "odd").fails(400, "BAD_REQUEST").await;
    diff("staged", "true").query("from", "HEAD").query("to", "HEAD").fails(400, "BAD_REQUEST").await;
    assert_eq!(diff("format", "json").ok().await.json(), json!([]));
    assert_eq!(diff("format", "patch").ok().await.text(), "");
}

#[tokio::test]
async fn commits_and_files_of_commits_are_shown() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    let first = repo.head();
    repo.write("big", vec![7_u8; 300_000]);
    repo.commit("a.txt", "two\n");
    let shown = repo.get(&daemon, "/git/show").ok().await.json();
    assert_eq!(shown["hash"], repo.head());
    assert_eq!((&shown["author"], &shown["committer"]), (&json!("Ada"), &json!("Ada")));
    assert_eq!(shown["parents"], json!([first]));
    assert_eq!(shown["tree"], repo.git(&["rev-parse", "HEAD^{tree}"]));
    let names: Vec<_> = shown["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(names, ["a.txt", "big"]);
    let root = repo.get(&daemon, "/git/show").query("revision", "HEAD~1").ok().await.json();
    assert_eq!((&root["parents"], &root["files"][0]["status"]), (&json!([]), &json!("Added")));
    let file = |revision: &str, file: &str| {
        repo.get(&daemon, "/git/show").query("revision", revision).query("file", file)
    };
    assert_eq!(file("HEAD~1", "a.txt").ok().await.text(), "one\n");
    assert_eq!(file("HEAD", "big").ok().await.body, vec![7; 300_000]);
    file("HEAD", "nosuch").fails(404, "NOT_FOUND").await;
    file("nosuch", "a.txt").fails(404, "GIT_BRANCH_NOT_FOUND").await;
}

#[tokio::test]
async fn changes_are_put_aside_and_taken_back() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.commit("b", "b\n");
    let stash = |body: Value| repo.post(&daemon, "/git/stash", body);
    stash(json!({})).fails(409, "CONFLICT").await;
    let clean = repo.snapshot();
    repo.write("a.txt", "staged\n");
    repo.git(&["add", "a.txt"]);
    repo.write("b", "not staged\n");
    repo.write("untracked", "u\n");
    let changed = (repo.snapshot(), repo.porcelain());
    let reply = stash(json!({"message": "half done", "include_untracked": true})).ok().await.json();
    assert_eq!(reply["hash"], repo.git(&["rev-parse", "stash@{0}"]));
    assert_eq!(repo.porcelain(), "");
    let list = repo.get(&daemon, "/git/stash").ok().await.json();
    assert_eq!(
        (&list["stashes"][0]["message"], &list["stashes"][0]["index"]),
        (&json!("On main: half done"), &json!(0))
    );
    // In the way: nothing happens, and nothing is lost.
    repo.write("b", "mine\n");
    let before = repo.snapshot();
    repo.post(&daemon, "/git/stash/pop", json!({})).fails(409, "GIT_DIRTY_WORKTREE").await;
    repo.post(&daemon, "/git/stash/pop", json!({"index": 1})).fails(404, "NOT_FOUND").await;
    assert_eq!(repo.snapshot(), before);
    repo.git(&["checkout", "--quiet", "b"]);
    repo.post(&daemon, "/git/stash/apply", json!({"reinstate_index": true})).ok().await;
    assert_eq!(repo.porcelain(), changed.1);
    repo.git(&["reset", "--quiet", "--hard"]);
    repo.remove("untracked");
    repo.post(&daemon, "/git/stash/pop", json!({"reinstate_index": true})).ok().await;
    assert_eq!((repo.snapshot(), repo.porcelain()), changed);
    assert_eq!(repo.get(&daemon, "/git/stash").ok().await.json(), json!({"stashes": []}));
    repo.git(&["stash", "--quiet", "--include-untracked"]);
    repo.delete(&daemon, "/git/stash", json!({"index": 3})).fails(404, "NOT_FOUND").await;
    repo.delete(&daemon, "/git/stash", json!({})).ok().await;
    assert_eq!(repo.snapshot(), clean);
    repo.check();
}

#[tokio::test]
async fn a_stash_that_conflicts_stays() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write("a.txt", "stashed\n");
    repo.post(&daemon, "/git/stash", json!({})).ok().await;
    repo.commit("a.txt", "committed\n");
    repo.post(&daemon, "/git/stash/pop", json!({})).fails(409, "GIT_MERGE_CONFLICT").await;
    assert_eq!(repo.git(&["stash", "list"]).lines().count(), 1);
    assert!(repo.read("a.txt").contains("<<<<<<<") && repo.porcelain().starts_with("UU a.txt"));
    let repo = {
        std::fs::rename(&repo.root, daemon.work().join("before")).unwrap();
        conflicted(&daemon)
    };
    repo.post(&daemon, "/git/stash", json!({})).fails(409, "GIT_MERGE_CONFLICT").await;
}

#[tokio::test]
async fn tags_are_listed_created_and_deleted() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    let first = repo.head();
    let second = repo.commit("b", "b\n");
    let create = |body: Value| repo.post(&daemon, "/git/tags", body);
    let reply = create(json!({"name": "v2"})).ok().await;
    assert_eq!((reply.status.as_u16(), reply.json()), (201, json!({"hash": second})));
    let tagger = json!({"name": "v1", "target": "HEAD~1", "message": "first", "tagger": "T", "email": "t@e"});
    create(tagger).ok().await;
    let tags = repo.get(&daemon, "/git/tags").ok().await.json();
    let expected = json!({"tags": [
        {"name": "v1", "hash": first, "message": "first"}, {"name": "v2", "hash": second},
    ]});
    assert_eq!(tags, expected);
    assert_eq!(repo.git(&["cat-file", "-t", "v1"]), "tag");
    create(json!({"name": "v1"})).fails(409, "CONFLICT").await;
    create(json!({"name": "v1", "force": true})).ok().await;
    assert_eq!(repo.git(&["rev-parse", "v1"]), second);
    create(json!({"name": "v3", "message": "nobody"})).fails(400, "BAD_REQUEST").await;
    create(json!({"name": "v3", "message": "x", "tagger": "T"})).fails(400, "INVALID_REQUEST_BODY").await;
    create(json!({"name": "v3", "target": "nosuch"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    for name in ["-d", "a b", "a..b"] {
        create(json!({"name": name})).fails(400, "BAD_REQUEST").await;
    }
    assert_eq!(repo.delete(&daemon, "/git/tags", json!({"name": "v2"})).ok().await.status, 204);
    repo.delete(&daemon, "/git/tags", json!({"name": "v2"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    assert_eq!(repo.git(&["tag"]), "v1");
    repo.check();
}
