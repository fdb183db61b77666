//! A daemon of a test's own: the real binary on a free port, in a temporary directory.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::client::Client;

/// Longest that any single thing in a test may take; reached only when something is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for what a test expects to happen.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("this should not take a minute")
}

/// A running daemon. Dropping it kills it, and shows its log when the test has failed.
pub(crate) struct Daemon {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
    /// What it printed on stdout up to and including the ready line.
    pub(crate) greeting: Vec<String>,
    directory: TempDir,
}

impl Daemon {
    /// Stand-alone, on a free loopback port.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// As [`Daemon::start`], after `change` has had its way with the command.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Command)) -> Self {
        Self::start_under(&[], change).await
    }

    /// As [`Daemon::start_with`], through programs that take a command as their last arguments and become it.
    pub(crate) async fn start_under(wrapper: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let directory = TempDir::new().unwrap();
        let words = [wrapper, &[env!("CARGO_BIN_EXE_toolboxd")]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        std::fs::create_dir(directory.path().join("work")).unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        command
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(directory.path().join("work"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", directory.path().join("home"))
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .process_group(0)
            .kill_on_drop(true);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut greeting = Vec::new();
        let address = loop {
            let Some(line) = within(stdout.next_line()).await.unwrap() else {
                let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
                panic!("the daemon did not start: {greeting:?}\n{log}");
            };
            greeting.push(line.clone());
            if let Some((_, address)) = line.split_once(" is ready on http://") {
                break address.parse().unwrap();
            }
        };
        Self { child, stdout, address, greeting, directory }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Its working directory, empty at first.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work").canonicalize().unwrap()
    }

    /// Its home directory, empty at first.
    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home").canonicalize().unwrap()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The next line that it prints on stdout.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        within(self.stdout.next_line()).await.unwrap()
    }

    /// Sends it a signal by name, as kill(1) knows it.
    pub(crate) async fn signal(&self, name: &str) {
        kill(name, self.pid()).await;
    }

    /// Waits for its end.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        within(self.child.wait()).await.unwrap()
    }
}

async fn kill(name: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().await.unwrap();
    assert!(status.success());
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the daemon\n{}", self.log());
        }
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']))
}
