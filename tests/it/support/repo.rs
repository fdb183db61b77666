//! Repositories that the `git` program has made, and what it says of those that we have changed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{Call, Daemon};

/// A repository below a daemon's working directory.
pub(crate) struct Repo {
    /// Its root.
    pub(crate) root: PathBuf,
    home: PathBuf,
}

/// All that must not change when an operation fails.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// What HEAD is, and every ref.
    refs: String,
    /// What is staged.
    index: String,
    /// Each file with its mode and content; the target of a link.
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Repo {
    /// `repo` in the working directory, empty, on a branch `main` without commits.
    pub(crate) fn empty(daemon: &Daemon) -> Self {
        Self::empty_at(daemon, "repo")
    }

    /// As [`Repo::empty`], elsewhere.
    pub(crate) fn empty_at(daemon: &Daemon, name: &str) -> Self {
        let repo = Self::at(daemon, daemon.work().join(name));
        std::fs::create_dir_all(&repo.root).unwrap();
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    /// As [`Repo::empty`], with one commit of a file `a.txt`.
    pub(crate) fn new(daemon: &Daemon) -> Self {
        let repo = Self::empty(daemon);
        repo.commit("a.txt", "one\n");
        repo
    }

    /// What is there already.
    pub(crate) fn at(daemon: &Daemon, root: PathBuf) -> Self {
        Self { root, home: daemon.home() }
    }

    /// A copy beside it, for the `git` program to do the same with.
    pub(crate) fn copy(&self, name: &str) -> Self {
        let root = self.root.with_file_name(name);
        let status = Command::new("cp").arg("-a").arg(&self.root).arg(&root).status().unwrap();
        assert!(status.success());
        let copy = Self { root, home: self.home.clone() };
        copy.try_git(&["update-index", "-q", "--refresh"]); // a copy has other inodes
        copy
    }

    /// Runs `git` in it; gives what it printed.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Runs `git` in it, which may fail.
    pub(crate) fn try_git(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `git` with the daemon's home, so that both have the same settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args([
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.com",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(["-c", "advice.detachedHead=false", "-c", "safe.directory=*"])
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.home)
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    /// Writes a file, with the directories on the way.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.join(name)).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.root.join(name).symlink_metadata().is_ok()
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.root.join(name)).unwrap();
    }

    /// Writes a file and commits it; gives the commit.
    pub(crate) fn commit(&self, name: &str, content: &str) -> String {
        self.write(name, content);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", &format!("change {name}")]);
        self.head()
    }

    /// The commit that is checked out.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// The branch that is checked out; `HEAD` when it is detached.
    pub(crate) fn branch(&self) -> String {
        self.git(&["rev-parse", "--abbrev-ref", "HEAD"])
    }

    /// As `git status --porcelain` has it, untracked directories expanded.
    pub(crate) fn porcelain(&self) -> String {
        self.git(&["status", "--porcelain=v1", "--untracked-files=all", "--no-renames"])
    }

    /// The same in the API's words, sorted by name.
    pub(crate) fn expected_status(&self) -> Value {
        let output =
            self.try_git(&["status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"]);
        let mut files: BTreeMap<Vec<u8>, (char, char)> = BTreeMap::new();
        for line in output.stdout.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let (x, y, name) = (char::from(line[0]), char::from(line[1]), line[3..].to_owned());
            // Gone from the index and still there: git has two lines for that.
            let staged = files.get(&name).map(|(x, _)| *x);
            files.insert(name, (staged.unwrap_or(x), y));
        }
        let word = |letter| match letter {
            ' ' => "Unmodified",
            '?' => "Untracked",
            'M' | 'T' => "Modified",
            'A' => "Added",
            'D' => "Deleted",
            'U' => "Updated but unmerged",
            other => panic!("{other}"),
        };
        let entries = files.into_iter().map(|(name, (x, y))| {
            let is_unmerged = x == 'U' || y == 'U' || (x, y) == ('A', 'A') || (x, y) == ('D', 'D');
            let (x, y) = if is_unmerged { ('U', 'U') } else { (x, y) };
            let name = String::from_utf8_lossy(&name).into_owned();
            json!({"name": name, "extra": "", "staging": word(x), "worktree": word(y)})
        });
        entries.collect()
    }

    /// Refs, index and work tree as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let head = std::fs::read_to_string(self.git_dir().join("HEAD")).unwrap();
        let mut files = BTreeMap::new();
        collect(&self.root, Path::new(""), &mut files);
        Snapshot {
            refs: head + &self.git(&["for-each-ref", "--format=%(refname) %(objectname)"]),
            index: self.git(&["-c", "core.quotePath=true", "ls-files", "--stage", "-v"]),
            files,
        }
    }

    fn git_dir(&self) -> PathBuf {
        self.root.join(self.git(&["rev-parse", "--git-dir"]))
    }

    /// Whether git finds nothing wrong.
    pub(crate) fn check(&self) {
        let output = self.try_git(&["fsck", "--strict", "--no-dangling"]);
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }

    /// A request with a JSON body that names this repository.
    pub(crate) fn post(&self, daemon: &Daemon, path: &str, body: Value) -> Call {
        daemon.client().post(path).json(self.named(body))
    }

    pub(crate) fn delete(&self, daemon: &Daemon, path: &str, body: Value) -> Call {
        daemon.client().delete(path).json(self.named(body))
    }

    pub(crate) fn get(&self, daemon: &Daemon, path: &str) -> Call {
        daemon.client().get(path).query("path", self.root.to_str().unwrap())
    }

    fn named(&self, mut body: Value) -> Value {
        body["path"] = json!(self.root);
        body
    }

    /// The API's status.
    pub(crate) async fn status(&self, daemon: &Daemon) -> Value {
        self.get(daemon, "/git/status").ok().await.json()
    }
}

fn collect(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let name = below.join(entry.unwrap().file_name());
        let full = root.join(&name);
        let kind = full.symlink_metadata().unwrap();
        if name == Path::new(".git") {
            continue;
        }
        if kind.is_dir() {
            collect(root, &name, files);
        } else if kind.is_symlink() {
            let target = full.read_link().unwrap();
            files.insert(name, (0, target.into_os_string().into_encoded_bytes()));
        } else {
            files.insert(name, (kind.permissions().mode() & 0o111, std::fs::read(full).unwrap()));
        }
    }
}
