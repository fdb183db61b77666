//! Checkout: what it does, and that it loses nothing.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::status::conflicted;
use crate::support::{Daemon, Repo};

/// What is a pattern, a comment or a negation elsewhere.
pub(super) const ODD: [&str; 9] = ["!", "#", "*", "?", "[c]", "\\", " ", ":(top)", "-"];

/// On `main`, beside a branch `other` that has one file more, one less, one changed and one alike.
fn two_branches(daemon: &Daemon) -> Repo {
    let repo = Repo::empty(daemon);
    for name in ["same", "changed", "gone", "dir/file"] {
        repo.write(name, format!("{name}\n"));
    }
    for name in ODD {
        repo.write(&format!("{name}changed"), "1\n");
        repo.write(&format!("{name}gone"), "1\n");
    }
    repo.commit("base", "base\n");
    repo.git(&["checkout", "--quiet", "-b", "other"]);
    for name in ODD {
        repo.write(&format!("{name}changed"), "2\n");
        repo.remove(&format!("{name}gone"));
        repo.write(&format!("{name}added"), "2\n");
    }
    repo.write("changed", "changed in other\n");
    repo.write("added", "added in other\n");
    repo.remove("gone");
    repo.write("run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(repo.root.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("same", repo.root.join("link")).unwrap();
    std::fs::remove_dir_all(repo.root.join("dir")).unwrap();
    repo.write("dir", "a file in other\n");
    repo.commit("ü/世", "x\n");
    repo.git(&["checkout", "--quiet", "main"]);
    repo
}

async fn checkout(daemon: &Daemon, repo: &Repo, target: &str) {
    repo.post(daemon, "/git/checkout", json!({"branch": target})).ok().await;
}

#[tokio::test]
async fn branches_tags_and_commits_are_checked_out_as_git_does_it() {
    let daemon = Daemon::start().await;
    let repo = two_branches(&daemon);
    repo.git(&["tag", "v1", "other"]);
    repo.git(&["tag", "-a", "v2", "-m", "annotated", "other"]);
    repo.git(&["branch", "feat"]);
    repo.git(&["update-ref", "refs/remotes/origin/dev", "other"]);
    repo.write("untracked", "x\n");
    let (full, short) = (repo.git(&["rev-parse", "other"]), repo.git(&["rev-parse", "--short", "other"]));
    for target in
        ["other", "v1", "feat", "v2", &full, "main", &short, "origin/dev", "main", "other~1", "other^{}"]
    {
        let copy = repo.copy("copy");
        copy.git(&["checkout", "--quiet", target]);
        checkout(&daemon, &repo, target).await;
        assert_eq!(repo.snapshot(), copy.snapshot(), "{target}");
        assert_eq!(repo.porcelain(), "?? untracked", "{target}");
        std::fs::remove_dir_all(&copy.root).unwrap();
    }
    repo.check();
}

#[tokio::test]
async fn what_is_not_there_is_not_checked_out() {
    let daemon = Daemon::start().await;
    let repo = two_branches(&daemon);
    repo.git(&["branch", "master"]);
    repo.write("same", "not staged\n");
    let before = repo.snapshot();
    for target in
        ["nosuch", "origin/dev", "deadbeef", &"0".repeat(40), "feature/x", "main:same", "a..b", "v1"]
    {
        let call = repo.post(&daemon, "/git/checkout", json!({"branch": target}));
        call.fails(404, "GIT_BRANCH_NOT_FOUND").await;
        assert_eq!(repo.snapshot(), before, "{target}");
    }
    repo.post(&daemon, "/git/checkout", json!({"branch": "-f"})).fails(400, "BAD_REQUEST").await;
    assert_eq!(repo.snapshot(), before);
}

#[tokio::test]
async fn a_branch_of_the_only_remote_becomes_a_local_one_that_follows_it() {
    let daemon = Daemon::start().await;
    let repo = two_branches(&daemon);
    repo.git(&["clone", "--quiet", ".", "../clone"]);
    let clone = Repo::at(&daemon, daemon.work().join("clone"));
    checkout(&daemon, &clone, "other").await;
    assert_eq!((clone.branch().as_str(), clone.porcelain().as_str()), ("other", ""));
    assert_eq!(clone.git(&["rev-parse", "--abbrev-ref", "@{upstream}"]), "origin/other");
    repo.git(&["branch", "twice"]);
    clone.git(&["remote", "add", "second", "../repo"]);
    clone.git(&["fetch", "--quiet", "--all"]);
    let before = clone.snapshot();
    clone.post(&daemon, "/git/checkout", json!({"branch": "twice"})).fails(400, "BAD_REQUEST").await;
    assert_eq!(clone.snapshot(), before);
}

/// Something that a user may have done before a checkout.
type Change = (&'static str, fn(&Repo));

const CHANGES: &[Change] = &[
    ("nothing", |_| {}),
    ("changes what is the same", |repo| repo.write("same", "mine\n")),
    ("stages what is the same", |repo| stage(repo, "same", "mine\n")),
    ("deletes what is the same", |repo| repo.remove("same")),
    ("stages a deletion of what is the same", |repo| drop(repo.git(&["rm", "--quiet", "same"]))),
    ("stages a new file", |repo| stage(repo, "mine", "mine\n")),
    ("stages a new file and changes it", |repo| {
        stage(repo, "mine", "mine\n");
        repo.write("mine", "more\n");
    }),
    ("changes what changes", |repo| repo.write("changed", "mine\n")),
    ("stages what changes", |repo| stage(repo, "changed", "mine\n")),
    ("stages what changes and changes it back", |repo| {
        stage(repo, "changed", "mine\n");
        repo.write("changed", "changed\n");
    }),
    ("stages what it changes to", |repo| stage(repo, "changed", "changed in other\n")),
    ("stages what it changes to and changes it", |repo| {
        stage(repo, "changed", "changed in other\n");
        repo.write("changed", "mine\n");
    }),
    ("deletes what changes", |repo| repo.remove("changed")),
    ("stages a deletion of what changes", |repo| drop(repo.git(&["rm", "--quiet", "changed"]))),
    ("no longer tracks what changes", |repo| drop(repo.git(&["rm", "--quiet", "--cached", "changed"]))),
    ("makes what changes executable", |repo| {
        std::fs::set_permissions(repo.root.join("changed"), PermissionsExt::from_mode(0o755)).unwrap();
    }),
    ("makes what changes a link", |repo| {
        repo.remove("changed");
        symlink("same", repo.root.join("changed")).unwrap();
    }),
    ("changes what goes", |repo| repo.write("gone", "mine\n")),
    ("stages what goes", |repo| stage(repo, "gone", "mine\n")),
    ("deletes what goes", |repo| repo.remove("gone")),
    ("stages a deletion of what goes", |repo| drop(repo.git(&["rm", "--quiet", "gone"]))),
    ("has an untracked file where one comes", |repo| repo.write("added", "mine\n")),
    ("has staged a file where one comes", |repo| stage(repo, "added", "mine\n")),
    ("has staged the file that comes", |repo| stage(repo, "added", "added in other\n")),
    ("has a directory where a file comes", |repo| repo.write("added/below", "mine\n")),
    ("has an untracked file where a directory comes", |repo| repo.write("ü", "mine\n")),
    ("has a link where a directory comes", |repo| symlink("dir", repo.root.join("ü")).unwrap()),
    ("changes a file where a file comes for its directory", |repo| repo.write("dir/file", "mine\n")),
    ("has an untracked file in a directory that goes", |repo| repo.write("dir/mine", "mine\n")),
    ("has put a file in place of a directory", |repo| {
        std::fs::remove_dir_all(repo.root.join("dir")).unwrap();
        repo.write("dir", "mine\n");
    }),
];

fn stage(repo: &Repo, name: &str, content: &str) {
    repo.write(name, content);
    repo.git(&["add", name]);
}

/// Contract 17.1 to 17.3: whatever the user has done, the outcome is git's, or a refusal that has changed nothing.
#[tokio::test]
async fn uncommitted_changes_are_kept_or_in_the_way_as_with_git() {
    let daemon = Daemon::start().await;
    let base = two_branches(&daemon);
    for (what, change) in CHANGES {
        for target in ["other", "other~0"] {
            let ours = base.copy("ours");
            change(&ours);
            let theirs = ours.copy("theirs");
            let before = ours.snapshot();
            let has_switched = theirs.try_git(&["checkout", "--quiet", target]).status.success();
            let call = ours.post(&daemon, "/git/checkout", json!({"branch": target}));
            if has_switched {
                call.ok().await;
                assert_eq!(ours.snapshot(), theirs.snapshot(), "{what}");
                assert_eq!(ours.porcelain(), theirs.porcelain(), "{what}");
            } else {
                let message = call.fails(409, "GIT_DIRTY_WORKTREE").await;
                assert!(message.starts_with("conflict: worktree contains changes"), "{message}");
                assert_eq!(ours.snapshot(), before, "{what}");
            }
            for repo in [ours, theirs] {
                std::fs::remove_dir_all(repo.root).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn ignored_files_are_not_overwritten_either() {
    let daemon = Daemon::start().await;
    let repo = two_branches(&daemon);
    repo.write(".git/info/exclude", "added\n");
    repo.write("added", "mine, and ignored\n");
    let before = repo.snapshot();
    repo.post(&daemon, "/git/checkout", json!({"branch": "other"})).fails(409, "GIT_DIRTY_WORKTREE").await;
    assert_eq!(repo.snapshot(), before);
}

#[tokio::test]
async fn a_merge_in_progress_is_not_left() {
    let daemon = Daemon::start().await;
    let repo = conflicted(&daemon);
    let before = repo.snapshot();
    repo.post(&daemon, "/git/checkout", json!({"branch": "other"})).fails(409, "GIT_MERGE_CONFLICT").await;
    repo.git(&["add", "a.txt"]);
    repo.post(&daemon, "/git/checkout", json!({"branch": "other"})).fails(409, "GIT_MERGE_CONFLICT").await;
    assert!(repo.has(".git/MERGE_HEAD"));
    repo.git(&["update-index", "--unresolve", "a.txt"]);
    assert_eq!(repo.snapshot(), before);
}

/// The target has a file whose name no file system takes, behind others that can be written.
#[tokio::test]
async fn a_checkout_that_fails_midway_is_undone() {
    let daemon = Daemon::start().await;
    let repo = two_branches(&daemon);
    stage(&repo, "mine", "staged\n");
    repo.write("same", "not staged\n");
    let blob = repo.git(&["rev-parse", "HEAD:same"]);
    let long = "z".repeat(300);
    let script = format!(
        "(git ls-tree other; printf '100644 blob {blob}\\t{long}\\n') | git mktree | \
         xargs git commit-tree other -p main -m long"
    );
    let script = script.replace("commit-tree other", "commit-tree");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(&repo.root)
        .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@b"), ("GIT_COMMITTER_NAME", "A")])
        .env("GIT_COMMITTER_EMAIL", "a@b")
        .output()
        .unwrap();
    let commit = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert_eq!(commit.len(), 40, "{}", String::from_utf8_lossy(&output.stderr));
    let before = repo.snapshot();
    repo.post(&daemon, "/git/checkout", json!({"branch": commit})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert_eq!(repo.snapshot(), before);
    assert_eq!(repo.porcelain(), "A  mine\n M same");
    // From a branch without commits too.
    repo.git(&["checkout", "--quiet", "--orphan", "unborn"]);
    repo.git(&["rm", "-rfq", "."]);
    repo.write("untracked", "mine\n");
    let before = repo.snapshot();
    repo.post(&daemon, "/git/checkout", json!({"branch": commit})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert_eq!(repo.snapshot(), before);
}

#[tokio::test]
async fn a_branch_of_another_work_tree_is_not_taken() {
    let daemon = Daemon::start().await;
    let repo = two_branches(&daemon);
    repo.git(&["worktree", "add", "--quiet", "../linked", "other"]);
    let linked = Repo::at(&daemon, daemon.work().join("linked"));
    let before = (repo.snapshot(), linked.snapshot());
    repo.post(&daemon, "/git/checkout", json!({"branch": "other"})).fails(409, "CONFLICT").await;
    linked.post(&daemon, "/git/checkout", json!({"branch": "main"})).fails(409, "CONFLICT").await;
    assert_eq!((repo.snapshot(), linked.snapshot()), before);
    checkout(&daemon, &linked, "main~0").await;
    assert_eq!((linked.branch().as_str(), linked.porcelain().as_str()), ("HEAD", ""));
}

#[tokio::test]
async fn submodules_are_left_alone() {
    let daemon = Daemon::start().await;
    let inner = Repo::empty_at(&daemon, "inner");
    let first = inner.commit("x", "1\n");
    let repo = Repo::new(&daemon);
    repo.git(&["submodule", "--quiet", "add", "../inner", "sub"]);
    repo.git(&["commit", "--quiet", "-m", "sub"]);
    inner.commit("x", "2\n");
    repo.git(&["checkout", "--quiet", "-b", "newer"]);
    repo.git(&["-C", "sub", "pull", "--quiet"]);
    repo.git(&["commit", "--quiet", "-am", "newer sub"]);
    let sub = Repo::at(&daemon, repo.root.join("sub"));
    sub.write("work", "in progress\n");
    checkout(&daemon, &repo, "main").await;
    assert_eq!(repo.git(&["ls-files", "--stage", "sub"]), format!("160000 {first} 0\tsub"));
    assert_eq!((sub.read("x").as_str(), sub.read("work").as_str()), ("2\n", "in progress\n"));
    checkout(&daemon, &repo, "newer").await;
    checkout(&daemon, &repo, "main~1").await;
    assert_eq!(sub.read("work"), "in progress\n");
    repo.check();
}

#[tokio::test]
async fn a_sparse_checkout_stays_sparse() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write("in/a", "1\n");
    repo.commit("out/b", "1\n");
    repo.git(&["checkout", "--quiet", "-b", "other"]);
    repo.write("in/a", "2\n");
    repo.commit("out/b", "2\n");
    repo.git(&["sparse-checkout", "set", "in"]);
    checkout(&daemon, &repo, "main").await;
    assert_eq!((repo.read("in/a").as_str(), repo.has("out/b")), ("1\n", false));
    assert_eq!((repo.porcelain().as_str(), repo.branch().as_str()), ("", "main"));
    // What is left out is not deleted.
    repo.write("in/a", "3\n");
    repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
    repo.post(&daemon, "/git/add", json!({"files": ["out"]})).fails(404, "NOT_FOUND").await;
    assert_eq!(repo.porcelain(), "M  in/a");
    assert_eq!(repo.get(&daemon, "/git/diff").ok().await.text(), "");
    repo.post(&daemon, "/git/stash", json!({})).fails(501, "NOT_IMPLEMENTED").await;
    assert_eq!(repo.porcelain(), "M  in/a");
}
