//! What speaks to remotes: clone, fetch, pull, push and credentials, over every transport.

mod clone;
mod errors;
mod fetch;
mod local;
mod network;
mod pull;
mod push;
mod ssh;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Call, Client, Daemon, git, names_in};

impl Client {
    /// A clone into `repo`, with more members on top.
    fn clone_repo(&self, url: &str, more: Value) -> Call {
        self.git("/git/clone", "repo", merged(json!({"url": url}), more))
    }

    /// A call about the repository at `path`.
    fn git(&self, route: &str, path: &str, more: Value) -> Call {
        self.post(route).json(merged(json!({"path": path}), more))
    }

    fn pull(&self, more: Value) -> Call {
        self.git("/git/pull", "repo", more)
    }

    fn push(&self, more: Value) -> Call {
        self.git("/git/push", "repo", more)
    }

    fn fetch(&self, more: Value) -> Call {
        self.git("/git/fetch", "repo", more)
    }
}

fn merged(mut body: Value, more: Value) -> Value {
    let members = more.as_object().cloned().unwrap_or_default();
    body.as_object_mut().unwrap().extend(members);
    body
}

/// The clone that the helpers above make.
fn repo(daemon: &Daemon) -> PathBuf {
    daemon.work().join("repo")
}

/// What the `git` program makes of it: nothing may be wrong, nothing uncommitted.
async fn check_clean(repository: &Path) {
    git(repository, &["fsck", "--strict", "--no-dangling"]).await;
    assert_eq!(git(repository, &["status", "--porcelain"]).await, "");
}

/// Everything that a failed operation must leave as it was: HEAD, refs, index, work tree.
async fn state(repository: &Path) -> String {
    let mut state = std::fs::read_to_string(repository.join(".git/HEAD")).unwrap();
    state += &git(repository, &["for-each-ref", "refs/heads", "refs/tags"]).await;
    state += &git(repository, &["ls-files", "--stage"]).await;
    state += &git(repository, &["status", "--porcelain", "--untracked-files=all", "--ignored"]).await;
    for name in names_in(repository).iter().filter(|name| *name != ".git") {
        state += &format!("\n{name}: {:?}", std::fs::read(repository.join(name)).ok());
    }
    state
}

/// Fails if a secret is anywhere below a directory.
fn assert_nowhere(directory: &Path, secret: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            assert_nowhere(&entry.path(), secret);
        } else if let Ok(content) = std::fs::read(entry.path()) {
            let found = memchr::memmem::find(&content, secret.as_bytes());
            assert!(found.is_none(), "{secret} is in {}", entry.path().display());
        }
    }
}
