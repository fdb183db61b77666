//! A daemon of a test's own: the real binary on a free port, in a temporary directory.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::client::Client;

/// Longest that any single thing in a test may take; reached only when something is broken.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The shells that every command must work in.
pub(crate) const SHELLS: [&str; 4] = ["/bin/bash", "/bin/dash", "/usr/bin/zsh", ASH];
/// A link to busybox, which goes by the name that it is called by.
const ASH: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/ash");

/// The program under test: the one that was built with these tests, or the one of the image that they run in.
pub(crate) fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        std::env::var("TOOLBOXD_BINARY").unwrap_or(env!("CARGO_BIN_EXE_toolboxd").to_owned())
    });
    &PROGRAM
}

/// Where `tests/run` installs Python's packages and Node.js's.
const VENV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.venv/bin");
pub(crate) const NODE_MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/node_modules");

/// A `PATH` in which Python has packages.
pub(crate) fn python_path() -> String {
    assert!(Path::new(VENV).exists(), "{VENV} is needed for this test; tests/run makes it");
    format!("{VENV}:{}", std::env::var("PATH").unwrap())
}

/// Waits for what a test expects to happen.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("this should not take a minute")
}

/// A running daemon. Dropping it kills it, and shows its log when the test has failed.
pub(crate) struct Daemon {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
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
        let words = [wrapper, &[program()]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        Self::start_in(TempDir::new().unwrap(), command, change).await
    }

    /// With the shell that users' commands run in; in a mount namespace of its own, where the image's list of shells is
    /// empty.
    pub(crate) async fn with_shell(shell: &str) -> Self {
        let _ = std::os::unix::fs::symlink("/bin/busybox", ASH); // another test may have made it
        assert!(Path::new(shell).exists(), "{shell} is needed for this test");
        let script = "mount --bind /dev/null /etc/shells && exec \"$0\" \"$@\"";
        Self::start_under(&["unshare", "--mount", "sh", "-c", script], |command| {
            command.env("SHELL", shell);
        })
        .await
    }

    /// As pid 1 of a process namespace of its own.
    pub(crate) async fn start_as_pid_1(change: impl FnOnce(&mut Command)) -> Self {
        Self::start_under(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], change).await
    }

    /// As [`Daemon::start`], as a user who is not root and owns the working directory; none when we cannot do that,
    /// because we are not root ourselves.
    pub(crate) async fn start_as_nobody() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let directory = TempDir::new().unwrap();
        // The program may be where others cannot read.
        let copy = directory.path().join("toolboxd");
        std::fs::copy(program(), &copy).unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
        let work = directory.path().join("work");
        let chown = |_: &mut Command| std::os::unix::fs::chown(work, Some(65534), Some(65534)).unwrap();
        Some(Self::start_in(directory, command, chown).await)
    }

    async fn start_in(directory: TempDir, mut command: Command, change: impl FnOnce(&mut Command)) -> Self {
        std::fs::create_dir(directory.path().join("work")).unwrap();
        std::fs::create_dir(directory.path().join("home")).unwrap();
        command
            .current_dir(directory.path().join("work"))
            .env_clear()
            .env("TOOLBOXD_LISTEN", "127.0.0.1:0")
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
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut daemon = Self { child, stdout, address: ([0, 0, 0, 0], 0).into(), directory };
        daemon.ready().await;
        daemon
    }

    /// Waits for the ready line and takes the address from it; init starts a daemon that has crashed again.
    pub(crate) async fn ready(&mut self) {
        loop {
            let line = self.next_line().await.expect("the daemon did not start");
            if let Some((_, address)) = line.split_once(" is ready on http://") {
                self.address = address.parse().unwrap();
                return;
            }
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The most memory that it has used so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Threads that it has.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Waits until it has no more than so many descriptors open, beside that of a connection of ours over which it is
    /// asked something meanwhile, which takes its time.
    pub(crate) async fn closes_down_to(&self, descriptors: usize) {
        let client = self.client();
        within(async {
            while self.descriptors() > descriptors + 1 {
                client.get("/version").ok().await;
            }
        })
        .await;
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

/// Whether a process has ended; it may be a zombie that its parent has not asked about.
pub(crate) fn gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']))
}

/// The first line of `text` that is a process id.
pub(crate) fn pid_in(text: &str) -> u32 {
    text.lines().find_map(|line| line.parse().ok()).unwrap()
}

/// A named pipe: opening it waits for the other end.
pub(crate) fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// Makes a named pipe, and tells how many bytes came through it once everyone who had it open for writing is gone. Its
/// thread is waited for by nobody, so that a test can fail meanwhile.
pub(crate) fn held_pipe(path: &Path) -> tokio::sync::oneshot::Receiver<u64> {
    make_fifo(path);
    let path = path.to_owned();
    let (sender, closed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut pipe = File::open(path).unwrap();
        let _ = sender.send(std::io::copy(&mut pipe, &mut std::io::sink()).unwrap());
    });
    closed
}
