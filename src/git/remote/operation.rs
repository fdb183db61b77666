//! One operation that speaks to a remote: what its transports may use, how long they wait, what the remote said, and
//! why it failed.
//!
//! libgit2 works on a blocking thread and calls the transports there; they wait for the network on the daemon's
//! runtime. Its own error codes cannot carry what went wrong, so a transport leaves that here and the operation finds
//! it when the call into libgit2 has failed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::location::Login;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::shutdown::Shutdown;

/// Most that is kept of what the remote says, in bytes; its beginning goes first.
const REMARKS: usize = 4 * 1024;
/// Longest time for what is only a courtesy.
const PARTING: Duration = Duration::from_millis(100);
/// Time between lines of progress in the log.
const PROGRESS: Duration = Duration::from_secs(5);

thread_local! {
    /// The operation of this thread: libgit2 makes transports from a registry of the process, without a word on what
    /// they are for.
    static CURRENT: RefCell<Option<Arc<Operation>>> = const { RefCell::new(None) };
}

/// What is the same for every operation.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) shutdown: Shutdown,
    /// Longest wait for the network without a byte.
    pub(super) stall: Duration,
    /// Variables as they are now: proxies, the agent of SSH, the user's name.
    pub(super) environment: Arc<BTreeMap<OsString, OsString>>,
    pub(super) home: PathBuf,
    /// Where the user's other settings of git are.
    pub(super) xdg: PathBuf,
}

/// One clone, fetch, pull or push.
#[derive(Debug)]
pub(super) struct Operation {
    around: Surroundings,
    runtime: Handle,
    /// As the request has it.
    pub(super) login: Option<Login>,
    /// Whether certificates are checked.
    pub(super) verifies: bool,
    failure: Mutex<Option<Error>>,
    secrets: Mutex<Vec<String>>,
    remarks: Mutex<VecDeque<u8>>,
    logged: Mutex<Instant>,
}

impl Operation {
    /// To be called on a thread for blocking work.
    pub(super) fn new(around: Surroundings, login: Option<Login>, verifies: bool) -> Arc<Self> {
        let operation = Self {
            around,
            runtime: Handle::current(),
            verifies,
            failure: Mutex::default(),
            secrets: Mutex::default(),
            remarks: Mutex::default(),
            logged: Mutex::new(Instant::now()),
            login,
        };
        if let Some(login) = &operation.login {
            operation.conceal(login);
        }
        Arc::new(operation)
    }

    /// Runs what calls libgit2; transports made meanwhile on this thread belong to this operation.
    pub(super) fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Reset(Option<Arc<Operation>>);
        impl Drop for Reset {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _reset = Reset(CURRENT.replace(Some(Arc::clone(self))));
        work()
    }

    /// The operation that this thread works for.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// A variable that has a value.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.around.environment.get(OsStr::new(name))?.to_str().filter(|value| !value.is_empty())
    }

    /// The user's home directory.
    pub(super) fn home(&self) -> &Path {
        &self.around.home
    }

    /// Where the user's settings of git are that are not in the home directory itself.
    pub(super) fn xdg(&self) -> &Path {
        &self.around.xdg
    }

    /// Whether the daemon stops.
    pub(super) fn is_cancelled(&self) -> bool {
        self.around.shutdown.is_cancelled()
    }

    /// Ends the operation when the daemon stops; for work between waits.
    ///
    /// # Errors
    /// When it does.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }

    /// Waits for one step of the network. `doing` ends the sentence "… took longer than".
    ///
    /// # Errors
    /// What the step fails with; when nothing happens for too long; when the daemon stops.
    pub(super) fn wait<T>(&self, doing: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
        let stall = self.around.stall;
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.around.shutdown.cancelled() => Err(stopping()),
                result = timeout(stall, step) => result.unwrap_or_else(|_late| {
                    let limit = humantime::format_duration(stall);
                    Err(transport(format!("{doing}: nothing was received for {limit}")))
                }),
            }
        })
    }

    /// Gives a connection a moment for what is not needed.
    pub(super) fn part(&self, farewell: impl Future<Output = ()>) {
        let _ = self.runtime.block_on(async { timeout(PARTING, farewell).await });
    }

    /// Keeps why a transport failed, the first time, for [`Operation::failed`].
    pub(super) fn fail(&self, error: Error) -> git2::Error {
        let short = git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Net, error.to_string());
        lock(&self.failure).get_or_insert(error);
        short
    }

    /// As [`Operation::fail`], for a stream.
    pub(super) fn fail_io(&self, error: Error) -> std::io::Error {
        let text = error.to_string().replace('\0', " ");
        lock(&self.failure).get_or_insert(error);
        std::io::Error::other(text)
    }

    /// What a transport left behind, if one did.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    /// Takes care that a secret is in no message.
    pub(super) fn conceal(&self, login: &Login) {
        let mut secrets = lock(&self.secrets);
        let pair = format!("{}:{}", login.user, login.password);
        secrets.push(BASE64_STANDARD.encode(pair));
        // Passwords before users: one may contain the other. Some tokens are in the user's place.
        for secret in [&login.password, &login.user] {
            let is_token = *secret == login.password || secret.len() >= 16;
            if is_token && !secret.is_empty() {
                secrets.push(BASE64_STANDARD.encode(secret));
                secrets.push(utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string());
                secrets.push(secret.clone());
            }
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
    }

    /// `text` without secrets.
    pub(super) fn redacted(&self, text: &str) -> String {
        lock(&self.secrets).iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// Keeps the end of what the remote says to people.
    pub(super) fn remark(&self, text: &[u8]) {
        let mut remarks = lock(&self.remarks);
        remarks.extend(&text[text.len().saturating_sub(REMARKS)..]);
        let excess = remarks.len().saturating_sub(REMARKS);
        drop(remarks.drain(..excess));
    }

    /// What the remote has said, on one line, without its progress and without secrets; empty when it was nothing.
    pub(super) fn remarks(&self) -> String {
        let remarks = lock(&self.remarks);
        let text = String::from_utf8_lossy(&remarks.iter().copied().collect::<Vec<_>>()).into_owned();
        let lines = text.split('\n').filter_map(|line| {
            let line = line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default().trim();
            let is_progress = line.ends_with(", done.") || line.contains("% (") || line.starts_with("Total ");
            (!line.is_empty() && !is_progress).then(|| line.trim_start_matches("remote: "))
        });
        let text: String = lines.collect::<Vec<_>>().join("; ");
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        self.redacted(&text)
    }

    /// Writes progress to the log, now and then.
    pub(super) fn progress(&self, what: impl FnOnce() -> String) {
        let mut logged = lock(&self.logged);
        if logged.elapsed() >= PROGRESS {
            *logged = Instant::now();
            info!("{}", what());
        }
    }
}

/// The network, or what is at its other end, did not work.
pub(super) fn transport(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::GitTransportFailed, message)
}

fn stopping() -> Error {
    Error::new(ErrorKind::Unavailable, "the daemon is stopping")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> Arc<Operation> {
        let around = Surroundings {
            shutdown: Shutdown::new(),
            stall: Duration::from_secs(60),
            environment: Arc::default(),
            home: "/nowhere".into(),
            xdg: "/nowhere".into(),
        };
        let login = Login { user: "me".into(), password: "s3cr/t".into() };
        Operation::new(around, Some(login), true)
    }

    #[tokio::test]
    async fn no_form_of_a_secret_is_shown() {
        let operation = operation();
        let encoded = BASE64_STANDARD.encode("me:s3cr/t");
        let text = format!("s3cr/t s3cr%2Ft {encoded} me");
        assert_eq!(operation.redacted(&text), "*** *** *** me");
    }

    #[tokio::test]
    async fn remarks_are_short_and_without_progress() {
        let operation = operation();
        operation.remark(b"Counting objects:  50% (1/2)\rCounting objects: 100% (2/2), done.\n");
        operation.remark(b"\x1b[1mno entry\x1b[0m\nfor s3cr/t\r\n");
        assert_eq!(operation.remarks(), "[1mno entry[0m; for ***");
        operation.remark(&vec![b'x'; 3 * REMARKS]);
        assert_eq!(operation.remarks().len(), REMARKS);
    }
}
