//! Rules about PTYs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::info;

use super::state::{Attached, Pty, not_found};
use crate::error::{Error, ErrorKind, Result};
use crate::platform::idempotency::{Idempotent, Key};
use crate::platform::paths;
use crate::platform::shutdown::Shutdown;
use crate::platform::users::{self, Credentials, User};
use crate::supervisor::{Command, Process, Shells, Size, Supervisor};

/// Longest id, in bytes.
const ID_BYTES: usize = 256;
/// Largest number of columns and of rows.
const MOST: u16 = 1000;
/// Without a word about it.
const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };
/// What terminals are taken for.
const TERM: &str = "xterm-256color";
/// How long an ended PTY can be connected to by a client that has not seen all of it.
const KEEP: Duration = Duration::from_secs(60);
/// Ended PTYs kept at most; the oldest goes first.
const KEPT: usize = 32;

/// All PTYs; a cheap handle.
#[derive(Debug, Clone)]
pub struct Ptys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    supervisor: Supervisor,
    shells: Shells,
    work_dir: PathBuf,
    shutdown: Shutdown,
    table: Mutex<Table>,
    count: AtomicU64,
    created: Idempotent<()>,
}

#[derive(Debug, Default)]
struct Table {
    /// Those that have their id, whether they run, are being started, or wait for a client.
    live: HashMap<String, Arc<Pty>>,
    /// Those whose id is free again, oldest first.
    ended: VecDeque<Arc<Pty>>,
}

/// A PTY to create.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the client.
    pub id: String,
    /// Where its program begins; relative ones are below the daemon's directory.
    pub cwd: Option<String>,
    /// Variables on top of those that every process inherits.
    pub env: BTreeMap<String, String>,
    /// Columns.
    pub cols: Option<u16>,
    /// Rows.
    pub rows: Option<u16>,
    /// Start when the first client connects.
    pub lazy_start: bool,
    /// Program and arguments instead of the login shell.
    pub command: Option<Vec<String>>,
    /// Name or number of the user whose process it is, instead of the daemon's own.
    pub user: Option<String>,
}

/// A new PTY that is removed unless a client attaches to it.
#[derive(Debug)]
pub struct Unclaimed {
    ptys: Ptys,
    pty: Option<Arc<Pty>>,
}

impl Unclaimed {
    /// It has its client now.
    ///
    /// # Errors
    /// When it was deleted meanwhile.
    pub fn claim(mut self) -> Result<(Arc<Pty>, Attached)> {
        let pty = self.pty.take().expect("it is claimed once");
        let attached = pty.attach(Some(0))?; // another client may have been quicker
        Ok((pty, attached))
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(pty) = self.pty.take().filter(|pty| !pty.was_attached()) {
            self.ptys.table().remove(&pty);
            pty.delete();
        }
    }
}

impl Table {
    /// By identity: the id may be another one's by now. Whether it was there.
    fn remove(&mut self, pty: &Arc<Pty>) -> bool {
        let is_it = self.live.get(&pty.id).is_some_and(|live| Arc::ptr_eq(live, pty));
        is_it && self.live.remove(&pty.id).is_some()
    }
}

impl Ptys {
    /// PTYs begin in `work_dir`.
    pub fn new(supervisor: Supervisor, shells: Shells, work_dir: PathBuf, shutdown: Shutdown) -> Self {
        let inner = Inner {
            supervisor,
            shells,
            work_dir,
            table: Mutex::default(),
            count: AtomicU64::new(0),
            created: Idempotent::new(shutdown.clone()),
            shutdown,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Creates a PTY, and starts its program unless that is to wait. Goes on when the caller leaves.
    ///
    /// # Errors
    /// When the request makes no sense, the id is taken, or the program cannot be started.
    pub async fn create(&self, request: Request, key: Option<Key>) -> Result<()> {
        let ptys = self.clone();
        self.inner.created.run(key, async move { ptys.create_now(request).await.map(drop) }).await
    }

    /// As [`Ptys::create`], for a client that is about to attach.
    ///
    /// # Errors
    /// As [`Ptys::create`].
    pub async fn create_for_client(&self, request: Request) -> Result<Unclaimed> {
        let ptys = self.clone();
        let create = async move {
            let pty = ptys.create_now(request).await?;
            Ok(Unclaimed { ptys, pty: Some(pty) })
        };
        self.finish(create).await
    }

    async fn create_now(&self, request: Request) -> Result<Arc<Pty>> {
        check_id(&request.id)?;
        let size = Size {
            cols: within("invalid value for cols -", request.cols.unwrap_or(DEFAULT_SIZE.cols))?,
            rows: within("invalid value for rows -", request.rows.unwrap_or(DEFAULT_SIZE.rows))?,
        };
        let mut env = request.env;
        check_env(&env)?;
        if env.get("TERM").is_none_or(String::is_empty) {
            env.insert("TERM".to_owned(), TERM.to_owned());
        }
        let user = request.user.as_deref().map(Identity::of).transpose()?;
        let command = self.command(request.command, request.cwd, &env, user)?;
        let order = self.inner.count.fetch_add(1, Ordering::Relaxed);
        let pty = Arc::new(Pty::new(request.id, order, env, request.lazy_start, command, size));
        {
            let mut table = self.table();
            if table.live.contains_key(&pty.id) {
                let message = format!("PTY session with ID '{}' already exists", pty.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            table.live.insert(pty.id.clone(), Arc::clone(&pty));
        }
        if !pty.lazy_start
            && let Err(error) = self.start(&pty).await
        {
            self.table().remove(&pty);
            return Err(error);
        }
        info!(pty.id = %pty.id, "PTY {} created", pty.id);
        Ok(pty)
    }

    fn command(
        &self,
        argv: Option<Vec<String>>,
        cwd: Option<String>,
        env: &BTreeMap<String, String>,
        user: Option<Identity>,
    ) -> Result<Command> {
        let argv: Vec<OsString> = match argv {
            Some(argv) => checked_argv(argv)?,
            None => vec![self.inner.shells.find().into(), "-i".into(), "-l".into()],
        };
        let home = user.as_ref().and_then(|user| user.account.as_ref()).map(|account| account.home.clone());
        let cwd = match cwd {
            Some(cwd) if cwd.contains('\0') => return Err(Error::invalid("cwd has a NUL byte")),
            Some(cwd) => paths::resolve(&self.inner.work_dir, &cwd),
            None => home.unwrap_or_else(|| self.inner.work_dir.clone()),
        };
        let mut command = Command::new(argv);
        command.cwd = Some(cwd);
        command.env = user.iter().flat_map(Identity::env).collect();
        command.env.extend(env.iter().map(|(name, value)| (name.into(), value.into())));
        command.user = user.and_then(|user| user.credentials);
        Ok(command)
    }

    /// Starts the program of a PTY, if it does not run yet.
    async fn start(&self, pty: &Arc<Pty>) -> Result<()> {
        if let Some(process) = pty.start(&self.inner.supervisor).await? {
            self.inner.shutdown.spawn(self.clone().look_after(Arc::clone(pty), process));
        }
        Ok(())
    }

    /// Frees the id when the program has ended, then tells the end, then forgets it.
    async fn look_after(self, pty: Arc<Pty>, process: Process) {
        let exit = process.exited().await;
        {
            let mut table = self.table();
            table.remove(&pty);
            if !pty.is_deleted() {
                table.ended.push_back(Arc::clone(&pty));
            }
            let surplus = table.ended.len().saturating_sub(KEPT);
            table.ended.drain(..surplus);
        }
        pty.tell_end(exit);
        info!(pty.id = %pty.id, "PTY {} ended: {:?}", pty.id, exit.status);
        tokio::select! {
            () = tokio::time::sleep(KEEP) => {}
            () = self.inner.shutdown.cancelled() => {}
        }
        self.table().ended.retain(|ended| !Arc::ptr_eq(ended, &pty));
    }

    /// Those that run or wait for their first client, oldest first.
    pub fn list(&self) -> Vec<Arc<Pty>> {
        let mut listed: Vec<_> = self.table().live.values().filter(|pty| pty.is_listed()).cloned().collect();
        listed.sort_unstable_by_key(|pty| pty.order);
        listed
    }

    /// One PTY.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn get(&self, id: &str) -> Result<Arc<Pty>> {
        let found = self.table().live.get(id).filter(|pty| pty.is_listed()).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::ProcessNotFound, "PTY session not found"))
    }

    /// Attaches a client, after starting the program if that has waited for one.
    ///
    /// # Errors
    /// When there is no such PTY, it has ended, or its program cannot be started.
    pub async fn connect(&self, id: &str, offset: Option<u64>) -> Result<(Arc<Pty>, Attached)> {
        let (ptys, id) = (self.clone(), id.to_owned());
        let connect = async move {
            let (live, ended) = {
                let table = ptys.table();
                let ended = table.ended.iter().rev().find(|pty| pty.id == id);
                (table.live.get(&id).cloned(), ended.cloned())
            };
            if let Some(pty) = &live {
                ptys.start(pty).await?;
            }
            let pty = live.or(ended).ok_or_else(|| not_found(&id))?;
            let attached = pty.attach(offset)?;
            Ok((pty, attached))
        };
        self.finish(connect).await
    }

    /// Changes the size; the job in the foreground gets SIGWINCH.
    ///
    /// # Errors
    /// When there is no such PTY, it has ended, or the size makes no sense.
    pub fn resize(&self, id: &str, cols: Option<u16>, rows: Option<u16>) -> Result<Arc<Pty>> {
        let required = |name: &str, value: Option<u16>| {
            within(name, value.ok_or_else(|| Error::invalid(format!("{name} is required")))?)
        };
        let size = Size { cols: required("cols", cols)?, rows: required("rows", rows)? };
        let table = self.table();
        let pty = table.live.get(id).or_else(|| table.ended.iter().rev().find(|pty| pty.id == id));
        let pty =
            pty.cloned().ok_or_else(|| Error::new(ErrorKind::Gone, format!("PTY session {id} not found")))?;
        drop(table);
        pty.resize(size)?;
        Ok(pty)
    }

    /// Kills a PTY's program and everything that it started; the id is free at once. Goes on when the caller leaves.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let pty = self.table().live.remove(id);
        let pty = pty.ok_or_else(|| Error::new(ErrorKind::ProcessNotFound, "PTY session not found"))?;
        info!(pty.id = %pty.id, "PTY {} deleted", pty.id);
        let process = pty.delete();
        self.finish(async move {
            if let Some(process) = process {
                process.exited().await;
            }
            Ok(())
        })
        .await
    }

    /// Runs work in a task of its own, so that it is not cut short when the client leaves.
    async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let result = self.inner.shutdown.spawn(work).await;
        result.unwrap_or_else(|error| Err(Error::internal("the work was interrupted").with_source(error)))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who a program runs as, when not as the daemon's own user.
#[derive(Debug)]
struct Identity {
    /// None when the daemon is that user already.
    credentials: Option<Credentials>,
    /// None for a number that the image has no name for.
    account: Option<User>,
}

impl Identity {
    fn of(user: &str) -> Result<Self> {
        let number = user.parse().ok();
        let account = users::user_by_name(user).or_else(|| users::user_by_id(number?));
        let credentials = match (&account, number) {
            (Some(account), _) => account.credentials(),
            (None, Some(number)) => Credentials { uid: number, gid: number, groups: Vec::new() },
            (None, None) => return Err(Error::invalid(format!("there is no user {user}"))),
        };
        let own = rustix::process::geteuid();
        let credentials = match own.as_raw() == credentials.uid {
            true => None,
            false if own.is_root() => Some(credentials),
            false => {
                let message = format!("the daemon runs as user {} and cannot become {user}", own.as_raw());
                return Err(Error::new(ErrorKind::Forbidden, message));
            }
        };
        Ok(Self { credentials, account })
    }

    /// What login(1) sets.
    fn env(&self) -> Vec<(OsString, OsString)> {
        let Some(User { name, home, shell, .. }) = &self.account else { return Vec::new() };
        let shell = if shell.as_os_str().is_empty() { Path::new("/bin/sh") } else { shell };
        vec![
            ("HOME".into(), home.into()),
            ("USER".into(), name.into()),
            ("LOGNAME".into(), name.into()),
            ("SHELL".into(), shell.into()),
        ]
    }
}

fn within(name: &str, value: u16) -> Result<u16> {
    match value {
        0 => Err(Error::invalid(format!("{name} must be at least 1"))),
        1..=MOST => Ok(value),
        _ => Err(Error::invalid(format!("{name} must be less than {MOST}"))),
    }
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::invalid("session ID is required"));
    }
    if id.len() > ID_BYTES || id.chars().any(char::is_control) {
        let message = format!("session ID must have at most {ID_BYTES} bytes and no control characters");
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// Names as execve(2) can pass them, which is more than a shell can set.
pub(super) fn check_env(env: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0', '\r', '\n']) {
            return Err(Error::invalid(format!("invalid environment variable name: {name:?}")));
        }
        if value.contains('\0') {
            return Err(Error::invalid(format!("the value of environment variable {name} has a NUL byte")));
        }
    }
    Ok(())
}

fn checked_argv(argv: Vec<String>) -> Result<Vec<OsString>> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("command must begin with a program"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid("command has a NUL byte"));
    }
    Ok(argv.into_iter().map(OsString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::supervisor::Environment;

    fn ptys() -> Ptys {
        let config = Config::parse_from(["toolboxd".into()], BTreeMap::new()).unwrap();
        let (environment, shutdown) = (Environment::new(BTreeMap::new()), Shutdown::new());
        let supervisor = Supervisor::new(&config, environment.clone(), shutdown.clone());
        Ptys::new(supervisor, Shells::new(environment), "/".into(), shutdown)
    }

    fn request(command: &str) -> Request {
        let command = Some(vec![command.to_owned()]);
        let (cwd, env, cols, rows, user) = (None, BTreeMap::new(), None, None, None);
        Request { id: "p1".into(), cwd, env, cols, rows, lazy_start: false, command, user }
    }

    #[tokio::test]
    async fn what_was_made_for_a_client_that_never_came_is_removed() {
        let ptys = ptys();
        let unclaimed = ptys.create_for_client(request("cat")).await.unwrap();
        let pty = ptys.get("p1").unwrap();
        drop(unclaimed);
        assert!(ptys.list().is_empty());
        assert_eq!(pty.ended().await.code, 137);
        // Unless another client has come.
        let unclaimed = ptys.create_for_client(request("cat")).await.unwrap();
        let (pty, _attached) = ptys.connect("p1", None).await.unwrap();
        drop(unclaimed);
        assert!(Arc::ptr_eq(&pty, &ptys.get("p1").unwrap()));
        ptys.delete("p1").await.unwrap();
    }

    #[tokio::test]
    async fn a_new_one_of_the_same_id_is_not_the_old_one() {
        let ptys = ptys();
        ptys.create(request("cat"), None).await.unwrap();
        let old = ptys.get("p1").unwrap();
        ptys.delete("p1").await.unwrap();
        ptys.create(request("cat"), None).await.unwrap();
        assert!(!ptys.table().remove(&old), "an end that is noticed late takes nothing away");
        assert_eq!(old.ended().await.code, 137);
        assert!(!Arc::ptr_eq(&old, &ptys.get("p1").unwrap()));
        ptys.delete("p1").await.unwrap();
    }
}
