//! Reset and restore do what git does, and no more.

use serde_json::{Value, json};

use super::checkout::ODD;
use super::status::conflicted;
use crate::support::{Daemon, Repo};

/// `HEAD~1` has `x` as C, HEAD as B; `same` is alike in both, `old` only in HEAD~1, `new` only in HEAD.
fn two_commits(daemon: &Daemon) -> Repo {
    let repo = Repo::empty(daemon);
    repo.write("same", "same\n");
    repo.write("old", "old\n");
    repo.commit("x", "C\n");
    repo.remove("old");
    repo.write("new", "new\n");
    repo.commit("x", "B\n");
    repo
}

/// Index and work tree of a file, before a reset.
fn set(repo: &Repo, name: &str, index: Option<&str>, work_tree: Option<&str>) {
    match index {
        Some(content) => {
            repo.write(name, content);
            repo.git(&["--literal-pathspecs", "add", name]);
        }
        None => drop(repo.git(&["rm", "--quiet", "--cached", "--force", "--ignore-unmatch", name])),
    }
    match work_tree {
        Some(content) => repo.write(name, content),
        None if repo.has(name) => repo.remove(name),
        None => {}
    }
}

/// The tables of git-reset(1), and more: every state of a file, every mode, to where we are and to the commit before.
#[tokio::test]
async fn every_mode_does_what_git_does() {
    let daemon = Daemon::start().await;
    let base = two_commits(&daemon);
    let contents = [None, Some("A\n"), Some("B\n"), Some("C\n")];
    let mut states =
        vec![("same", None, Some("same\n")), ("same", Some("A\n"), Some("A\n")), ("old", None, Some("A\n"))];
    states.extend([
        ("new", None, Some("new\n")),
        ("new", Some("A\n"), Some("A\n")),
        ("mine", Some("A\n"), Some("A\n")),
    ]);
    states.extend([
        ("mine", Some("A\n"), Some("B\n")),
        ("mine", None, Some("A\n")),
        ("same", Some("A\n"), Some("same\n")),
    ]);
    for index in contents {
        states.extend(contents.map(|work_tree| ("x", index, work_tree)));
    }
    for (name, index, work_tree) in states {
        for mode in ["soft", "mixed", "hard", "merge", "keep"] {
            for target in ["HEAD", "HEAD~1"] {
                let what = format!("{name}: index {index:?}, work tree {work_tree:?}, {mode} to {target}");
                let ours = base.copy("ours");
                set(&ours, name, index, work_tree);
                let theirs = ours.copy("theirs");
                let before = ours.snapshot();
                let worked =
                    theirs.try_git(&["reset", "--quiet", &format!("--{mode}"), target]).status.success();
                let reply =
                    ours.post(&daemon, "/git/reset", json!({"mode": mode, "target": target})).send().await;
                if worked {
                    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
                    assert_eq!(ours.snapshot(), theirs.snapshot(), "{what}");
                } else {
                    assert_eq!(reply.status, 409, "{what}: {}", reply.text());
                    assert_eq!(reply.json()["code"], "GIT_DIRTY_WORKTREE", "{what}");
                    assert_eq!(ours.snapshot(), before, "{what}");
                }
                for repo in [ours, theirs] {
                    std::fs::remove_dir_all(repo.root).unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn a_merge_is_given_up_or_not() {
    let daemon = Daemon::start().await;
    let base = conflicted(&daemon);
    for mode in ["soft", "mixed", "hard", "merge", "keep"] {
        let ours = base.copy("ours");
        let theirs = ours.copy("theirs");
        let before = ours.snapshot();
        let worked = theirs.try_git(&["reset", "--quiet", &format!("--{mode}")]).status.success();
        let call = ours.post(&daemon, "/git/reset", json!({"mode": mode}));
        if worked {
            call.ok().await;
            assert_eq!(ours.snapshot(), theirs.snapshot(), "{mode}");
            assert_eq!(ours.has(".git/MERGE_HEAD"), theirs.has(".git/MERGE_HEAD"), "{mode}");
        } else {
            call.fails(409, "GIT_MERGE_CONFLICT").await;
            assert_eq!(ours.snapshot(), before, "{mode}");
        }
        for repo in [ours, theirs] {
            std::fs::remove_dir_all(repo.root).unwrap();
        }
    }
}

#[tokio::test]
async fn files_are_unstaged_alone() {
    let daemon = Daemon::start().await;
    let repo = two_commits(&daemon);
    for name in ["x", "same", "dir/a", "dir/b"] {
        set(&repo, name, Some("staged\n"), Some("staged\n"));
    }
    let before = repo.snapshot();
    let reset = |body: Value| repo.post(&daemon, "/git/reset", body);
    reset(json!({"files": ["x", "nosuch"]})).fails(404, "NOT_FOUND").await;
    reset(json!({"mode": "hard", "files": ["x"]})).fails(400, "BAD_REQUEST").await;
    reset(json!({"mode": "odd"})).fails(400, "BAD_REQUEST").await;
    reset(json!({"target": "nosuch"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    assert_eq!(repo.snapshot(), before);
    let head = repo.head();
    reset(json!({"files": ["x", "dir"], "mode": null})).ok().await;
    assert_eq!(repo.porcelain(), "M  same\n M x\n?? dir/a\n?? dir/b");
    reset(json!({"files": ["x", "old"], "target": "HEAD~1"})).ok().await;
    assert_eq!(repo.porcelain(), "AD old\nM  same\nMM x\n?? dir/a\n?? dir/b");
    assert_eq!(repo.head(), head);
    repo.check();
}

#[tokio::test]
async fn a_reset_leaves_the_way_back() {
    let daemon = Daemon::start().await;
    let repo = two_commits(&daemon);
    let head = repo.head();
    repo.post(&daemon, "/git/reset", json!({"mode": "keep", "target": "HEAD~1"})).ok().await;
    assert_eq!(repo.git(&["rev-parse", "ORIG_HEAD"]), head);
    assert_eq!(repo.git(&["rev-parse", "main@{1}"]), head);
    assert_eq!(repo.branch(), "main");
}

#[tokio::test]
async fn the_first_files_can_be_unstaged() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    for name in ["a", "b", "c"] {
        set(&repo, name, Some("x\n"), Some("x\n"));
    }
    repo.post(&daemon, "/git/reset", json!({"files": ["a"]})).ok().await;
    assert_eq!(repo.porcelain(), "A  b\nA  c\n?? a");
    repo.post(&daemon, "/git/restore", json!({"files": ["b"], "staged": true})).ok().await;
    assert_eq!(repo.porcelain(), "A  c\n?? a\n?? b");
    repo.post(&daemon, "/git/reset", json!({})).ok().await;
    assert_eq!(repo.porcelain(), "?? a\n?? b\n?? c");
    repo.post(&daemon, "/git/reset", json!({"mode": "hard"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
}

#[tokio::test]
async fn restore_does_what_git_restore_does() {
    let daemon = Daemon::start().await;
    let base = two_commits(&daemon);
    base.write("dir/keep", "x\n");
    base.commit("dir/a", "1\n");
    set(&base, "x", Some("staged\n"), Some("changed\n"));
    set(&base, "dir/a", Some("staged\n"), Some("changed\n"));
    set(&base, "dir/new", Some("new\n"), Some("new, changed\n"));
    base.write("dir/untracked", "mine\n");
    base.remove("same");
    for name in ODD {
        set(&base, &format!("dir/{name}new"), Some("new\n"), Some("new, changed\n"));
    }
    let cases: &[(&[&str], Value)] = &[
        (&["x"], json!({"files": ["x"]})),
        (&["dir"], json!({"files": ["dir"]})),
        (&["."], json!({"files": ["."]})),
        (&["same", "x"], json!({"files": ["same", "x"], "worktree": true})),
        (&["--staged", "x"], json!({"files": ["x"], "staged": true})),
        (&["--staged", "dir"], json!({"files": ["dir"], "staged": true})),
        (&["--staged", "."], json!({"files": ["."], "staged": true})),
        (&["--staged", "--worktree", "dir"], json!({"files": ["dir"], "staged": true, "worktree": true})),
        (&["--staged", "--worktree", "."], json!({"files": ["."], "staged": true, "worktree": true})),
        (&["--source=HEAD~2", "x"], json!({"files": ["x"], "source": "HEAD~2"})),
        (&["--source=HEAD~2", "old"], json!({"files": ["old"], "source": "HEAD~2"})),
        (&["--source=HEAD~2", "."], json!({"files": ["."], "source": "HEAD~2"})),
        (&["--source=HEAD~2", "--staged", "."], json!({"files": ["."], "source": "HEAD~2", "staged": true})),
        (
            &["--source=HEAD~2", "--staged", "--worktree", "."],
            json!({"files": ["."], "source": "HEAD~2", "staged": true, "worktree": true}),
        ),
    ];
    for (arguments, body) in cases {
        let ours = base.copy("ours");
        let theirs = ours.copy("theirs");
        theirs.git(&[&["restore"], *arguments].concat());
        ours.post(&daemon, "/git/restore", body.clone()).ok().await;
        assert_eq!(ours.snapshot(), theirs.snapshot(), "{arguments:?}");
        assert_eq!(ours.porcelain(), theirs.porcelain(), "{arguments:?}");
        for repo in [ours, theirs] {
            std::fs::remove_dir_all(repo.root).unwrap();
        }
    }
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing() {
    let daemon = Daemon::start().await;
    let repo = two_commits(&daemon);
    set(&repo, "x", Some("staged\n"), Some("changed\n"));
    repo.write("untracked", "mine\n");
    let before = repo.snapshot();
    for (body, status, code) in [
        (json!({"files": ["x", "nosuch"]}), 404, "NOT_FOUND"),
        (json!({"files": ["x", "untracked"]}), 404, "NOT_FOUND"),
        (json!({"files": ["x"], "source": "nosuch"}), 404, "GIT_BRANCH_NOT_FOUND"),
        (json!({"files": ["../x"]}), 400, "BAD_REQUEST"),
        (json!({"files": []}), 400, "INVALID_REQUEST_BODY"),
        (json!({}), 400, "INVALID_REQUEST_BODY"),
    ] {
        repo.post(&daemon, "/git/restore", body).fails(status, code).await;
        assert_eq!(repo.snapshot(), before);
    }
    let repo = Repo::at(&daemon, daemon.work().join("merging"));
    std::fs::rename(conflicted_beside(&daemon).root, &repo.root).unwrap();
    repo.post(&daemon, "/git/restore", json!({"files": ["a.txt"]})).fails(409, "GIT_MERGE_CONFLICT").await;
}

fn conflicted_beside(daemon: &Daemon) -> Repo {
    std::fs::rename(daemon.work().join("repo"), daemon.work().join("before")).unwrap();
    conflicted(daemon)
}
