//! Staging and committing.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::status::conflicted;
use crate::support::{Daemon, Repo};

/// What a commit needs beside the path.
fn order(message: &str) -> Value {
    json!({"message": message, "author": "Grace Hopper", "email": "grace@example.com"})
}

#[tokio::test]
async fn everything_is_staged_and_ignored_files_are_not() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write(".gitignore", "*.log\n");
    repo.write("gone", "");
    repo.commit("changed", "1\n");
    repo.write("changed", "2\n");
    repo.remove("gone");
    repo.write("dir/ü 世 \"x\".txt", "new\n");
    repo.write("a.log", "");
    repo.write("run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(repo.root.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("no/such", repo.root.join("link")).unwrap();
    let copy = repo.copy("copy");
    copy.git(&["add", "."]);
    repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
    assert_eq!(repo.snapshot(), copy.snapshot());
    assert_eq!(repo.status(&daemon).await["fileStatus"], copy.expected_status());
    repo.check();
}

#[tokio::test]
async fn named_files_are_staged_in_every_state() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write(".gitignore", "*.log\nbuild/\n");
    repo.write("old/x", "");
    repo.write("old/y", "");
    repo.commit("gone", "");
    repo.remove("gone");
    std::fs::remove_dir_all(repo.root.join("old")).unwrap();
    for name in ["a.log", "src/b", "src/c.log", "build/d", "*", "untouched"] {
        repo.write(name, name);
    }
    let inside = repo.root.join("src");
    let files = json!(["a.log", inside, "gone", "old", "build", "*"]);
    repo.post(&daemon, "/git/add", json!({"files": files})).ok().await;
    let staged = "A  *\nA  a.log\nA  build/d\nD  gone\nD  old/x\nD  old/y\nA  src/b\n?? untouched";
    assert_eq!(repo.porcelain(), staged);
    repo.post(&daemon, "/git/add", json!({"files": []})).ok().await;
    assert_eq!(repo.porcelain(), staged);
}

/// Also where so much has changed that everything is looked at.
#[tokio::test]
async fn directories_are_staged_as_git_stages_them() {
    let daemon = Daemon::start().await;
    for changed in [3, 150] {
        let repo = Repo::empty(&daemon);
        let names: Vec<String> = (0..200).map(|number| format!("src/d{}/f{number}", number % 20)).collect();
        names.iter().for_each(|name| repo.write(name, "as it was\n"));
        for name in ["src/file", "src/link", "src/dir/inner", "other/a", "other/gone"] {
            repo.write(name, name);
        }
        repo.write(".gitignore", "*.log\nout/\n");
        repo.commit("root", "1\n");
        names[..changed].iter().for_each(|name| repo.write(name, "changed\n"));
        for name in ["src/d19/f199", "src/file", "src/link", "src/dir/inner", "other/gone"] {
            repo.remove(name);
        }
        repo.write("src/file/now a directory", "");
        symlink("a", repo.root.join("src/link")).unwrap();
        std::fs::remove_dir(repo.root.join("src/dir")).unwrap();
        for name in ["root", "src/dir", "src/new/x/y", "src/a.log", "src/out/x", "other/new", "elsewhere/new"]
        {
            repo.write(name, "2\n");
        }
        for files in [vec!["src/d0"], vec!["other", "src/file"], vec!["src"], vec!["src/new/x", "."]] {
            let (ours, theirs) = (repo.copy("ours"), repo.copy("theirs"));
            ours.post(&daemon, "/git/add", json!({"files": files})).ok().await;
            theirs.git(&[&["add"], &files[..]].concat());
            assert_eq!(ours.snapshot(), theirs.snapshot(), "{changed} changed, {files:?}");
            assert_eq!(ours.porcelain(), theirs.porcelain());
            [ours, theirs].iter().for_each(|copy| std::fs::remove_dir_all(&copy.root).unwrap());
        }
        std::fs::remove_dir_all(repo.root).unwrap();
    }
}

#[tokio::test]
async fn unmerged_files_are_staged_with_their_directory() {
    let daemon = Daemon::start().await;
    for is_deleted in [false, true] {
        let repo = conflicted(&daemon);
        if is_deleted {
            repo.remove("a.txt");
        }
        let copy = repo.copy("copy");
        copy.git(&["add", "."]);
        repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
        assert_eq!(repo.snapshot(), copy.snapshot());
        [repo, copy].iter().for_each(|repo| std::fs::remove_dir_all(&repo.root).unwrap());
    }
}

/// Also where so much has changed that everything is looked at.
#[tokio::test]
async fn what_is_left_out_is_not_staged_as_deleted() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.commit("in/a", "1\n");
    repo.commit("out/b", "1\n");
    repo.git(&["sparse-checkout", "set", "in"]);
    for added in [0, 100] {
        repo.write("in/a", format!("2 {added}\n"));
        (0..added).for_each(|number| repo.write(&format!("in/new {number}"), ""));
        repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
        let staged = repo.porcelain();
        assert_eq!(staged.lines().filter(|line| line.starts_with("A  ")).count(), added, "{staged}");
        assert!(staged.contains("M  in/a") && !staged.contains("out/b"), "{staged}");
    }
}

#[tokio::test]
async fn nothing_is_committed_whose_content_is_missing() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write("dir/a", "a\n");
    repo.write("dir/b", "b\n");
    repo.git(&["add", "."]);
    let id = repo.git(&["rev-parse", ":dir/b"]);
    repo.remove(&format!(".git/objects/{}/{}", &id[..2], &id[2..]));
    let head = repo.head();
    let message = repo.post(&daemon, "/git/commit", order("x")).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert!(message.contains("the content of dir/b is missing"), "{message}");
    assert_eq!(repo.head(), head);
}

#[tokio::test]
async fn a_file_that_is_only_to_be_added_stays_out_of_commits() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write("dir/later", "later\n");
    repo.write("later", "later\n");
    repo.git(&["add", "--intent-to-add", "dir/later", "later"]);
    let before = repo.porcelain();
    repo.post(&daemon, "/git/commit", order("nothing")).fails(409, "CONFLICT").await;
    repo.write("dir/now", "now\n");
    repo.post(&daemon, "/git/add", json!({"files": ["dir/now"]})).ok().await;
    repo.post(&daemon, "/git/commit", order("now")).ok().await;
    assert_eq!(repo.git(&["show", "--name-only", "--format=", "HEAD"]), "dir/now");
    assert_eq!(repo.porcelain(), before);
    repo.git(&["fsck", "--strict"]);
    // It is, once it is added.
    repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
    repo.post(&daemon, "/git/commit", order("later")).ok().await;
    assert_eq!(repo.git(&["show", "--name-only", "--format=", "HEAD"]), "dir/later\nlater");
    assert_eq!(repo.porcelain(), "");
}

#[tokio::test]
async fn nothing_is_staged_when_one_file_is_not_known() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write("b", "");
    symlink("/etc", repo.root.join("link")).unwrap();
    let before = repo.snapshot();
    for (file, status, code) in [
        ("nosuch", 404, "NOT_FOUND"),
        ("b*", 404, "NOT_FOUND"),
        ("../other", 400, "BAD_REQUEST"),
        ("/etc/passwd", 400, "BAD_REQUEST"),
        ("link/passwd", 400, "BAD_REQUEST"),
        (".git/config", 400, "BAD_REQUEST"),
        ("", 400, "BAD_REQUEST"),
    ] {
        repo.post(&daemon, "/git/add", json!({"files": ["b", file]})).fails(status, code).await;
        assert_eq!(repo.snapshot(), before, "{file}");
    }
    for body in [json!({}), json!({"files": null}), json!({"files": "b"})] {
        repo.post(&daemon, "/git/add", body).fails(400, "INVALID_REQUEST_BODY").await;
    }
    let body = json!({"path": "", "files": ["b"]});
    daemon.client().post("/git/add").json(body).fails(400, "INVALID_REQUEST_BODY").await;
}

#[tokio::test]
async fn line_endings_are_converted_as_configured() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write(".gitattributes", "*.txt text\n*.bin -text\n");
    repo.write("t.txt", "a\r\nb\r\n");
    repo.write("t.bin", "a\r\nb\r\n");
    repo.post(&daemon, "/git/add", json!({"files": ["."]})).ok().await;
    assert_eq!(repo.git(&["cat-file", "blob", ":t.txt"]), "a\nb");
    assert_eq!(repo.git(&["cat-file", "blob", ":t.bin"]), "a\r\nb\r");
}

#[tokio::test]
async fn a_repository_inside_is_staged_as_a_link_to_its_commit() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    let inner = Repo::empty_at(&daemon, "repo/inner");
    let commit = inner.commit("x", "x\n");
    repo.post(&daemon, "/git/add", json!({"files": ["inner"]})).ok().await;
    assert_eq!(repo.git(&["ls-files", "--stage", "inner"]), format!("160000 {commit} 0\tinner"));
}

#[tokio::test]
async fn a_commit_is_exactly_what_was_asked_for() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write("a", "a\n");
    repo.git(&["add", "a"]);
    repo.write("a", "not staged\n");
    for hook in ["pre-commit", "commit-msg", "prepare-commit-msg", "post-commit"] {
        repo.write(&format!(".git/hooks/{hook}"), "#!/bin/sh\ntouch ../hooked; exit 1\n");
        let path = repo.root.join(".git/hooks").join(hook);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    repo.git(&["config", "commit.gpgSign", "true"]);
    repo.git(&["config", "user.name", "Somebody Else"]);
    let message = "  ümlaut\n\n# no comment\n  body  \n\n\n";
    let reply = repo.post(&daemon, "/git/commit", order(message)).ok().await.json();
    assert_eq!(reply, json!({"hash": repo.head()}));
    let raw = repo.try_git(&["cat-file", "commit", "HEAD"]).stdout;
    let raw = String::from_utf8(raw).unwrap();
    assert!(raw.ends_with(&format!("\n\n{message}")), "{raw:?}");
    for role in ["author", "committer"] {
        assert!(raw.contains(&format!("\n{role} Grace Hopper <grace@example.com> ")), "{raw}");
    }
    assert!(!raw.contains("gpgsig") && !repo.root.join("../hooked").exists());
    assert_eq!(repo.porcelain(), " M a");
    assert_eq!(repo.git(&["show", "HEAD:a"]), "a");
    repo.check();
    // Detached, and with nothing changed.
    repo.git(&["checkout", "--quiet", "--detach"]);
    let mut empty = order("empty");
    empty["allow_empty"] = json!(true);
    repo.post(&daemon, "/git/commit", empty).ok().await;
    assert_eq!((repo.branch(), repo.git(&["rev-list", "--count", "HEAD"])), ("HEAD".into(), "2".into()));
}

#[tokio::test]
async fn an_empty_commit_is_refused() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    let text = "conflict: cannot create empty commit: clean working tree";
    assert_eq!(repo.post(&daemon, "/git/commit", order("x")).fails(409, "CONFLICT").await, text);
    repo.commit("a", "a\n");
    repo.write("a", "not staged\n");
    let before = repo.snapshot();
    let mut null = order("x");
    null["allow_empty"] = Value::Null;
    assert_eq!(repo.post(&daemon, "/git/commit", null).fails(409, "CONFLICT").await, text);
    for field in ["message", "author", "email"] {
        for missing in [Value::Null, json!("")] {
            let mut body = order("x");
            body[field] = missing;
            repo.post(&daemon, "/git/commit", body).fails(400, "INVALID_REQUEST_BODY").await;
        }
    }
    let mut odd = order("x");
    odd["author"] = json!("a <b");
    repo.post(&daemon, "/git/commit", odd).fails(400, "BAD_REQUEST").await;
    assert_eq!(repo.snapshot(), before);
}

#[tokio::test]
async fn unmerged_files_are_not_committed_and_a_merge_is_concluded() {
    let daemon = Daemon::start().await;
    let repo = conflicted(&daemon);
    let before = repo.snapshot();
    let message = repo.post(&daemon, "/git/commit", order("x")).fails(409, "GIT_MERGE_CONFLICT").await;
    assert!(message.contains("a.txt"), "{message}");
    assert_eq!(repo.snapshot(), before);
    assert!(repo.has(".git/MERGE_HEAD"));
    repo.write("a.txt", "both\n");
    repo.post(&daemon, "/git/add", json!({"files": ["a.txt"]})).ok().await;
    repo.post(&daemon, "/git/commit", order("merged")).ok().await;
    assert_eq!(repo.git(&["rev-list", "--parents", "-1", "HEAD"]).split(' ').count(), 3);
    assert!(!repo.has(".git/MERGE_HEAD") && !repo.has(".git/MERGE_MSG"));
    assert!(repo.git(&["status"]).contains("nothing to commit"));
    repo.check();
}

#[tokio::test]
async fn linked_work_trees_are_committed_to() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.git(&["worktree", "add", "--quiet", "-b", "linked", "../linked"]);
    let linked = Repo::at(&daemon, daemon.work().join("linked"));
    linked.write("b", "b\n");
    linked.post(&daemon, "/git/add", json!({"files": ["b"]})).ok().await;
    let reply = linked.post(&daemon, "/git/commit", order("linked")).ok().await.json();
    assert_eq!(reply["hash"], repo.git(&["rev-parse", "linked"]));
    assert_eq!((linked.porcelain(), repo.porcelain()), (String::new(), String::new()));
    repo.check();
}

#[tokio::test]
async fn writers_at_once_all_succeed() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    let files: Vec<String> = (0..16).map(|number| format!("file {number}")).collect();
    files.iter().for_each(|name| repo.write(name, name));
    let adds = files.iter().map(|name| repo.post(&daemon, "/git/add", json!({"files": [name]})).ok());
    futures_util::future::join_all(adds).await;
    assert_eq!(repo.git(&["diff", "--cached", "--name-only"]).lines().count(), 16);
    let commits = (0..8).map(|number| {
        let mut body = order(&format!("commit {number}"));
        body["allow_empty"] = json!(true);
        repo.post(&daemon, "/git/commit", body).ok()
    });
    futures_util::future::join_all(commits).await;
    assert_eq!(repo.git(&["rev-list", "--count", "HEAD"]), "9");
    repo.check();
}

/// The `git` program compares whole seconds, and looks at the content where an index is of the same second as its file:
/// whatever writes the index in a later one must not say that it knows the file.
#[tokio::test]
async fn a_change_in_the_second_of_its_staging_is_still_seen_by_git() {
    let daemon = Daemon::start().await;
    for (path, body, expected) in [
        ("/git/add", json!({"files": ["other"]}), "AM mine\nA  other"),
        ("/git/checkout", json!({"branch": "elsewhere"}), "AM mine\n?? other"),
        ("/git/branches", json!({"name": "new"}), "AM mine\n?? other"),
        ("/git/commit", order("mine"), " M mine\n?? other"),
    ] {
        let repo = Repo::empty(&daemon);
        repo.commit("a", "1\n");
        repo.git(&["branch", "elsewhere"]);
        repo.commit("a", "2\n");
        repo.git(&["config", "core.trustctime", "false"]); // that is a time that cannot be set
        let set_time = |name: &str, nanoseconds| {
            let time = UNIX_EPOCH + Duration::new(1_500_000_000, nanoseconds);
            File::options().write(true).open(repo.root.join(name)).unwrap().set_modified(time).unwrap();
        };
        repo.write("other", "x\n");
        repo.write("mine", "mine\n");
        set_time("mine", 100);
        repo.git(&["add", "mine"]);
        repo.write("mine", "more\n");
        set_time("mine", 300);
        set_time(".git/index", 200);
        repo.post(&daemon, path, body).ok().await;
        assert_eq!(repo.porcelain(), expected, "{path}");
        std::fs::remove_dir_all(repo.root).unwrap();
    }
}
