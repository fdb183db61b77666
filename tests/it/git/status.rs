//! Status says what `git status` says.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::checkout::ODD;
use crate::support::{Daemon, Repo};

#[tokio::test]
async fn every_state_of_a_file_is_told_as_git_tells_it() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    for name in [
        "same",
        "modified",
        "staged",
        "both",
        "gone",
        "removed",
        "kept",
        "exec",
        "link",
        "type",
        "dir/ü 世.txt",
    ] {
        repo.write(name, format!("{name}\n"));
    }
    repo.remove("link");
    symlink("same", repo.root.join("link")).unwrap();
    repo.commit("base", "base\n");
    repo.write("modified", "x\n");
    repo.write("staged", "x\n");
    repo.write("both", "x\n");
    repo.write("new", "x\n");
    repo.git(&["add", "staged", "both", "new"]);
    repo.write("both", "y\n");
    repo.write("dir/ü 世.txt", "y\n");
    repo.remove("gone");
    repo.git(&["rm", "--quiet", "removed"]);
    repo.git(&["rm", "--quiet", "--cached", "kept"]);
    std::fs::set_permissions(repo.root.join("exec"), PermissionsExt::from_mode(0o755)).unwrap();
    repo.remove("link");
    symlink("modified", repo.root.join("link")).unwrap();
    repo.remove("type");
    symlink("same", repo.root.join("type")).unwrap();
    repo.write("un/tracked/a b\"c\n.txt", "");
    repo.write("un/tracked/d", "");
    repo.write("later", "x\n");
    repo.git(&["add", "--intent-to-add", "later"]);
    let status = repo.status(&daemon).await;
    assert_eq!(status["fileStatus"], repo.expected_status());
    assert_eq!(status["fileStatus"].as_array().unwrap().len(), 14);
    assert_eq!(status["currentBranch"], "main");
    assert_eq!((&status["branchPublished"], &status["detached"]), (&json!(false), &json!(false)));
}

/// Names that mean something to patterns, in a repository where most files are as they were.
#[tokio::test]
async fn a_few_changes_are_found_among_many_files() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write(".gitignore", "*.o\n/out/\n");
    for number in 0..2000 {
        repo.write(&format!("d{}/s{}/f{number}", number % 7, number % 31), "x\n");
    }
    for name in ODD {
        for what in ["changed", "gone", "staged", "unstaged"] {
            repo.write(&format!("odd/{name}{what}"), "1\n");
        }
    }
    repo.commit("d0/base.txt", "x\n");
    assert_eq!(repo.status(&daemon).await["fileStatus"], json!([]));
    repo.write("out/x", "");
    repo.write("d0/s0/x.o", "");
    assert_eq!(repo.status(&daemon).await["fileStatus"], json!([]));
    for name in ODD {
        repo.write(&format!("odd/{name}changed"), "2\n");
        repo.remove(&format!("odd/{name}gone"));
        repo.write(&format!("odd/{name}staged"), "2\n");
        repo.write(&format!("odd/{name}new/x"), "2\n");
        repo.git(&["--literal-pathspecs", "add", &format!("odd/{name}staged")]);
    }
    std::fs::remove_dir_all(repo.root.join("d3/s3")).unwrap();
    repo.write("d3/s3", "a file by now\n");
    assert_eq!(repo.status(&daemon).await["fileStatus"], repo.expected_status());
    for version in ["2", "4"] {
        repo.git(&["update-index", "--index-version", version]);
        repo.git(&["reset", "--quiet"]);
        assert_eq!(repo.status(&daemon).await["fileStatus"], repo.expected_status());
    }
    repo.git(&["rm", "-r", "--quiet", "--cached", "d5"]);
    repo.git(&["mv", "d6", "moved"]);
    assert_eq!(repo.status(&daemon).await["fileStatus"], repo.expected_status());
}

/// A copy has other inodes: what the index knows of its files is of no use until they were all read once.
#[tokio::test]
async fn an_index_that_is_out_of_date_is_refreshed() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    for number in 0..200 {
        repo.write(&format!("d{}/f{number}", number % 7), "x\n");
    }
    repo.commit("base", "x\n");
    let root = daemon.work().join("copy");
    assert!(std::process::Command::new("cp").arg("-a").args([&repo.root, &root]).status().unwrap().success());
    let copy = Repo::at(&daemon, root);
    assert_eq!(copy.git(&["diff-files", "--name-only"]).lines().count(), 201);
    assert_eq!(copy.status(&daemon).await["fileStatus"], json!([]));
    assert_eq!(copy.git(&["diff-files", "--name-only"]), "");
    copy.check();
}

#[tokio::test]
async fn unmerged_files_are_told_as_such() {
    let daemon = Daemon::start().await;
    let repo = conflicted(&daemon);
    let status = repo.status(&daemon).await;
    assert_eq!(status["fileStatus"], repo.expected_status());
    assert_eq!(status["fileStatus"][0]["staging"], "Updated but unmerged");
}

/// A merge that has stopped at a conflict in `a.txt`.
pub(super) fn conflicted(daemon: &Daemon) -> Repo {
    let repo = Repo::new(daemon);
    repo.git(&["checkout", "--quiet", "-b", "other"]);
    repo.commit("a.txt", "theirs\n");
    repo.git(&["checkout", "--quiet", "main"]);
    repo.commit("a.txt", "ours\n");
    assert!(!repo.try_git(&["merge", "other"]).status.success());
    repo
}

#[tokio::test]
async fn what_is_ignored_by_whatever_file_is_absent() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write(".gitignore", "*.log\n/build/\n!keep.log\n");
    repo.write("sub/.gitignore", "secret\n");
    repo.write(".git/info/exclude", "excluded\n");
    std::fs::create_dir_all(daemon.home().join(".config/git")).unwrap();
    std::fs::write(daemon.home().join(".config/git/ignore"), "*.swp\n").unwrap();
    for name in ["a.log", "keep.log", "build/x", "sub/secret", "sub/other", "excluded", "b.swp", "plain"] {
        repo.write(name, "");
    }
    assert_eq!(repo.status(&daemon).await["fileStatus"], repo.expected_status());
    std::fs::write(daemon.home().join("excludes"), "plain\n").unwrap();
    std::fs::write(daemon.home().join(".gitconfig"), "[core]\n\texcludesFile = ~/excludes\n").unwrap();
    let status = repo.status(&daemon).await;
    assert_eq!(status["fileStatus"], repo.expected_status());
    assert!(!status.to_string().contains("plain"), "{status}");
}

#[tokio::test]
async fn modes_line_endings_and_attributes_are_compared_as_configured() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write("crlf.txt", "a\r\nb\r\n");
    repo.write(".gitattributes", "crlf.txt text eol=crlf\n");
    repo.write("auto.txt", "a\r\nb\r\n");
    repo.git(&["config", "core.autocrlf", "true"]);
    repo.commit("exec", "x\n");
    assert_eq!(repo.git(&["cat-file", "blob", "HEAD:auto.txt"]), "a\nb");
    repo.git(&["config", "core.fileMode", "false"]);
    std::fs::set_permissions(repo.root.join("exec"), PermissionsExt::from_mode(0o755)).unwrap();
    repo.write("crlf.txt", "a\r\nb\r\n");
    repo.write("auto.txt", "a\r\nb\r\n");
    assert_eq!(repo.porcelain(), "");
    assert_eq!(repo.status(&daemon).await["fileStatus"], json!([]));
}

#[tokio::test]
async fn a_sparse_checkout_has_deleted_nothing() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write("in/a", "a\n");
    repo.commit("out/b", "b\n");
    repo.git(&["sparse-checkout", "set", "in"]);
    assert!(!repo.has("out/b"));
    assert_eq!(repo.status(&daemon).await["fileStatus"], json!([]));
    repo.write("in/a", "changed\n");
    assert_eq!(repo.status(&daemon).await["fileStatus"], repo.expected_status());
}

#[tokio::test]
async fn branch_and_upstream_are_told() {
    let daemon = Daemon::start().await;
    let upstream = Repo::new(&daemon);
    daemon.client().get("/git/status").query("path", "repo/").ok().await;
    let root = daemon.work().join("clone");
    upstream.git(&["clone", "--quiet", ".", root.to_str().unwrap()]);
    let repo = Repo::at(&daemon, root);
    repo.commit("b", "1\n");
    repo.commit("b", "2\n");
    upstream.commit("c", "1\n");
    let status = repo.status(&daemon).await;
    assert_eq!((&status["ahead"], &status["behind"]), (&json!(2), &json!(0)));
    repo.git(&["fetch", "--quiet"]);
    let status = repo.status(&daemon).await;
    assert_eq!((&status["ahead"], &status["behind"]), (&json!(2), &json!(1)));
    assert_eq!((&status["branchPublished"], &status["upstream"]), (&json!(true), &json!("origin/main")));
    repo.git(&["update-ref", "-d", "refs/remotes/origin/main"]);
    let status = repo.status(&daemon).await;
    assert_eq!((&status["branchPublished"], &status["ahead"]), (&json!(false), &json!(0)));
    repo.git(&["checkout", "--quiet", "-b", "feature/x"]);
    assert_eq!(repo.status(&daemon).await["currentBranch"], "feature/x");
    repo.git(&["checkout", "--quiet", "--detach"]);
    let status = repo.status(&daemon).await;
    assert_eq!((&status["currentBranch"], &status["detached"]), (&json!("HEAD"), &json!(true)));
}

#[tokio::test]
async fn a_branch_without_commits_has_a_status() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.write("new", "");
    let status = repo.status(&daemon).await;
    assert_eq!((&status["currentBranch"], &status["fileStatus"]), (&json!("main"), &repo.expected_status()));
}

#[tokio::test]
async fn linked_work_trees_and_submodules_are_repositories() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.git(&["worktree", "add", "--quiet", "-b", "linked", "../linked"]);
    let linked = Repo::at(&daemon, daemon.work().join("linked"));
    linked.write("a.txt", "changed\n");
    let status = linked.status(&daemon).await;
    assert_eq!(
        (&status["currentBranch"], &status["fileStatus"]),
        (&json!("linked"), &linked.expected_status())
    );
    assert_eq!(repo.status(&daemon).await["fileStatus"], json!([]));
    let outer = Repo::empty_at(&daemon, "outer");
    outer.git(&["submodule", "--quiet", "add", "../repo", "sub"]);
    outer.git(&["commit", "--quiet", "-m", "sub"]);
    let sub = Repo::at(&daemon, outer.root.join("sub"));
    assert_eq!(sub.status(&daemon).await["currentBranch"], "main");
    sub.write("a.txt", "changed\n");
    assert_eq!(outer.status(&daemon).await["fileStatus"], outer.expected_status());
}

#[tokio::test]
async fn only_the_root_of_a_work_tree_has_a_status() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.commit("sub/b", "b\n");
    let client = daemon.client();
    for path in ["repo/sub", "nothing", "repo/a.txt", "."] {
        let message = client.get("/git/status").query("path", path).fails(404, "GIT_REPO_NOT_FOUND").await;
        assert!(message.starts_with("not found: repository does not exist"), "{message}");
    }
    repo.git(&["clone", "--quiet", "--bare", ".", "../bare"]);
    client.get("/git/status").query("path", "bare").fails(400, "BAD_REQUEST").await;
    let message = client.get("/git/status").fails(400, "BAD_REQUEST").await;
    assert_eq!(message, "bad request: path is required");
}

#[tokio::test]
async fn readers_do_not_wait_for_another_programs_lock() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.write(".git/index.lock", "");
    assert_eq!(repo.status(&daemon).await["fileStatus"], json!([]));
    repo.write("b", "");
    let message = repo.post(&daemon, "/git/add", json!({"files": ["b"]})).fails(409, "CONFLICT").await;
    assert!(message.contains("index.lock"), "{message}");
    repo.remove(".git/index.lock");
    repo.post(&daemon, "/git/add", json!({"files": ["b"]})).ok().await;
}
