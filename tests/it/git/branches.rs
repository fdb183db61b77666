//! Branches: list, create, delete.

use serde_json::json;

use crate::support::{Daemon, Repo};

#[tokio::test]
async fn branches_are_sorted_and_the_current_one_is_told() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    let list = repo.get(&daemon, "/git/branches").ok().await.json();
    assert_eq!(list, json!({"branches": [], "current": "main"}));
    repo.commit("a", "a\n");
    for name in ["zeta", "feature/x", "dev"] {
        repo.git(&["branch", name]);
    }
    repo.git(&["pack-refs", "--all"]);
    repo.git(&["branch", "loose"]);
    repo.git(&["update-ref", "refs/remotes/origin/other", "HEAD"]);
    let list = repo.get(&daemon, "/git/branches").ok().await.json();
    assert_eq!(list, json!({"branches": ["dev", "feature/x", "loose", "main", "zeta"], "current": "main"}));
    repo.git(&["checkout", "--quiet", "--detach"]);
    assert!(repo.get(&daemon, "/git/branches").ok().await.json().get("current").is_none());
}

#[tokio::test]
async fn a_new_branch_is_switched_to_and_keeps_all_changes() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.commit("b.txt", "b\n");
    repo.write("a.txt", "not staged\n");
    repo.write("b.txt", "staged\n");
    repo.write("new", "staged\n");
    repo.git(&["add", "b.txt", "new"]);
    repo.write("untracked", "x\n");
    let copy = repo.copy("copy");
    copy.git(&["switch", "--quiet", "-c", "feature/x"]);
    let reply = repo.post(&daemon, "/git/branches", json!({"name": "feature/x"})).ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (201, 0));
    assert_eq!(repo.snapshot(), copy.snapshot());
    assert_eq!(repo.porcelain(), " M a.txt\nM  b.txt\nA  new\n?? untracked");
    repo.check();
}

#[tokio::test]
async fn a_branch_that_cannot_be_made_changes_nothing() {
    let daemon = Daemon::start().await;
    let repo = Repo::empty(&daemon);
    repo.post(&daemon, "/git/branches", json!({"name": "x"})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    repo.commit("a", "a\n");
    repo.git(&["branch", "taken"]);
    repo.git(&["branch", "group/one"]);
    let before = repo.snapshot();
    for name in ["taken", "main", "taken/below", "group"] {
        repo.post(&daemon, "/git/branches", json!({"name": name})).fails(409, "GIT_BRANCH_EXISTS").await;
    }
    for name in ["-x", "a..b", "a b", "a~1", "HEAD", "x.lock", "/x", "a//b", "@{x", "a\\b", "a\u{7f}"] {
        repo.post(&daemon, "/git/branches", json!({"name": name})).fails(400, "BAD_REQUEST").await;
    }
    repo.post(&daemon, "/git/branches", json!({"name": ""})).fails(400, "INVALID_REQUEST_BODY").await;
    assert_eq!(repo.snapshot(), before);
}

#[tokio::test]
async fn a_deleted_branch_takes_its_settings_along() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.git(&["checkout", "--quiet", "-b", "x"]);
    repo.commit("only here", "x\n");
    repo.git(&["checkout", "--quiet", "main"]);
    repo.git(&["config", "branch.x.remote", "origin"]);
    let reply = repo.delete(&daemon, "/git/branches", json!({"name": "x"})).ok().await;
    assert_eq!(reply.status, 204);
    assert_eq!(repo.git(&["branch", "--format=%(refname:short)"]), "main");
    assert!(!repo.read(".git/config").contains("branch"));
    repo.check();
}

#[tokio::test]
async fn a_branch_that_is_checked_out_stays() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    repo.git(&["worktree", "add", "--quiet", "-b", "linked", "../linked"]);
    let linked = Repo::at(&daemon, daemon.work().join("linked"));
    let before = (repo.snapshot(), linked.snapshot());
    for name in ["main", "linked"] {
        repo.delete(&daemon, "/git/branches", json!({"name": name})).fails(409, "CONFLICT").await;
        linked.delete(&daemon, "/git/branches", json!({"name": name})).fails(409, "CONFLICT").await;
    }
    for name in ["nosuch", "-x", "a..b"] {
        repo.delete(&daemon, "/git/branches", json!({"name": name})).fails(404, "GIT_BRANCH_NOT_FOUND").await;
    }
    assert_eq!((repo.snapshot(), linked.snapshot()), before);
}
