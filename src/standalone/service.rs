//! The one sandbox and what may be done with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{Config, PreviewLinks};
use crate::error::{Error, Result};
use crate::platform::passes::Passes;
use crate::platform::shutdown::Shutdown;
use crate::platform::{cgroup, users};
use crate::supervisor::Environment;

/// Longest life of a signed preview URL, as on the platform.
const PREVIEW_SECONDS: u32 = 24 * 60 * 60;

/// The platform of a daemon that has none; a cheap handle.
#[derive(Debug, Clone)]
pub struct Standalone {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    links: PreviewLinks,
    environment: Environment,
    passes: Passes,
    shutdown: Shutdown,
    /// None after a delete.
    sandbox: Mutex<Option<Sandbox>>,
    /// The state that was reached last, for those who follow.
    state: watch::Sender<State>,
}

/// The sandbox, as it was described by its last create and changed since.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The same for the daemon's life.
    pub id: String,
    /// What a client may call it instead of the id.
    pub name: String,
    /// User that the daemon runs as, or its number where it has no name.
    pub user: String,
    /// Variables given with the last create.
    pub env: BTreeMap<String, String>,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
    /// Whether previews are meant for everyone.
    pub public: bool,
    /// Region that the client asked for.
    pub target: String,
    /// Whether it runs.
    pub state: State,
    /// Minutes without use, told only.
    pub intervals: Intervals,
    /// What the machine, or the cgroup around us, has.
    pub resources: Resources,
    /// When it was described.
    pub created_at: Timestamp,
    /// When anything of it changed last.
    pub updated_at: Timestamp,
    /// When a client last said that it is in use.
    pub last_activity_at: Timestamp,
}

/// Where the sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there and in use.
    Started,
    /// It is there and waits to be started.
    Stopped,
    /// It is gone until the next create.
    Destroyed,
}

/// Minutes after which a platform would do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Stop; 0 for never.
    pub stop: u32,
    /// Archive; 0 for the longest possible.
    pub archive: u32,
    /// Delete after a stop: 0 for at once, negative for never.
    pub delete: i32,
}

/// Which of the intervals.
#[derive(Debug, Clone, Copy)]
pub enum Interval {
    /// [`Intervals::stop`]
    Stop,
    /// [`Intervals::archive`]
    Archive,
    /// [`Intervals::delete`]
    Delete,
}

/// What the sandbox has, in whole units of at least one.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// CPUs.
    pub cpus: u64,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// File system of `/` in GiB.
    pub disk_gib: u64,
}

/// What a client wants of a new sandbox.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Else the id.
    pub name: Option<String>,
    /// Variables for later processes.
    pub env: BTreeMap<String, String>,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
    /// Whether previews are meant for everyone.
    pub public: bool,
    /// Region.
    pub target: Option<String>,
    /// Minutes, see [`Intervals::stop`].
    pub stop_interval: Option<i32>,
    /// Minutes, see [`Intervals::archive`].
    pub archive_interval: Option<i32>,
    /// Minutes, see [`Intervals::delete`].
    pub delete_interval: Option<i32>,
    /// Names of wishes that nothing here can fulfil.
    pub beyond: Vec<String>,
}

/// What a listed sandbox has to be; what is not asked for is anything.
#[derive(Debug, Default)]
pub struct Filter {
    /// Beginning of the id, in any case.
    pub id: Option<String>,
    /// Beginning of the name, in any case.
    pub name: Option<String>,
    /// Labels that it has among its own.
    pub labels: BTreeMap<String, String>,
    /// One of these, unless empty.
    pub states: Vec<String>,
    /// The public flag.
    pub public: Option<bool>,
}

impl State {
    /// The platform's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Destroyed => "destroyed",
        }
    }
}

impl Standalone {
    /// With a sandbox that is started. `environment` is the one that processes inherit.
    pub fn new(config: &Config, environment: Environment, passes: Passes, shutdown: Shutdown) -> Self {
        let id = config.identity();
        let sandbox = describe(&id, Wanted::default(), Intervals { stop: 0, archive: 0, delete: -1 });
        let inner = Inner {
            id,
            links: config.preview_links,
            environment,
            passes,
            shutdown,
            sandbox: Mutex::new(Some(sandbox)),
            state: watch::Sender::new(State::Started),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The sandbox's id, whether it is there or not.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The form that preview links are wanted in.
    pub fn links(&self) -> PreviewLinks {
        self.inner.links
    }

    /// What ends those who follow.
    pub fn shutdown(&self) -> &Shutdown {
        &self.inner.shutdown
    }

    /// The states that the sandbox goes through from now on.
    pub fn follow(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    /// What links that are handed on carry in place of the daemon's token.
    pub fn passes(&self) -> &Passes {
        &self.inner.passes
    }

    /// Describes the sandbox anew and starts it.
    ///
    /// # Errors
    /// When a variable's name, or an interval, is not valid; then nothing has changed.
    pub fn create(&self, mut wanted: Wanted) -> Result<Sandbox> {
        let intervals = Intervals {
            stop: minutes("autoStopInterval", wanted.stop_interval.unwrap_or(0))?,
            archive: minutes("autoArchiveInterval", wanted.archive_interval.unwrap_or(0))?,
            delete: wanted.delete_interval.unwrap_or(-1),
        };
        let beyond = std::mem::take(&mut wanted.beyond);
        self.inner.environment.update(&[], "", &wanted.env)?;
        if !beyond.is_empty() {
            warn!("create: nothing here can honour {}; going on without", beyond.join(", "));
        }
        let sandbox = describe(&self.inner.id, wanted, intervals);
        *self.lock() = Some(sandbox.clone());
        self.reached(State::Started);
        Ok(sandbox)
    }

    /// The sandbox that `id_or_name` names.
    ///
    /// # Errors
    /// When it is not this one, or this one is deleted.
    pub fn get(&self, id_or_name: &str) -> Result<Sandbox> {
        self.change(id_or_name, |_| {})
    }

    /// The sandbox, if there is one and it is what `filter` wants.
    pub fn list(&self, filter: &Filter) -> Option<Sandbox> {
        self.lock().clone().filter(|sandbox| filter.takes(sandbox))
    }

    /// Makes the state `started`.
    ///
    /// # Errors
    /// As [`Standalone::get`].
    pub fn start(&self, id_or_name: &str) -> Result<Sandbox> {
        let sandbox = self.update(id_or_name, |sandbox| sandbox.state = State::Started)?;
        self.reached(State::Started);
        Ok(sandbox)
    }

    /// Makes the state `stopped`, or deletes an ephemeral sandbox.
    ///
    /// # Errors
    /// As [`Standalone::get`].
    pub fn stop(&self, id_or_name: &str) -> Result<Sandbox> {
        let sandbox = self.update(id_or_name, |sandbox| sandbox.state = State::Stopped)?;
        if sandbox.intervals.delete == 0 {
            return self.delete(id_or_name);
        }
        self.reached(State::Stopped);
        Ok(sandbox)
    }

    /// Removes the sandbox's description, and what was added to the environment. Gives its last state.
    ///
    /// # Errors
    /// As [`Standalone::get`].
    pub fn delete(&self, id_or_name: &str) -> Result<Sandbox> {
        let sandbox = self.update(id_or_name, |sandbox| sandbox.state = State::Destroyed)?;
        *self.lock() = None;
        self.inner.environment.reset();
        self.reached(State::Destroyed);
        Ok(sandbox)
    }

    /// Replaces all labels.
    ///
    /// # Errors
    /// As [`Standalone::get`].
    pub fn set_labels(&self, id_or_name: &str, labels: BTreeMap<String, String>) -> Result<Sandbox> {
        self.update(id_or_name, |sandbox| sandbox.labels = labels)
    }

    /// Keeps whether previews are meant for everyone.
    ///
    /// # Errors
    /// As [`Standalone::get`].
    pub fn set_public(&self, id_or_name: &str, public: bool) -> Result<Sandbox> {
        self.update(id_or_name, |sandbox| sandbox.public = public)
    }

    /// Keeps an interval.
    ///
    /// # Errors
    /// As [`Standalone::get`], and when it is negative where that has no meaning.
    pub fn set_interval(&self, id_or_name: &str, which: Interval, value: i32) -> Result<Sandbox> {
        let whole = match which {
            Interval::Stop | Interval::Archive => minutes("the interval", value)?,
            Interval::Delete => 0,
        };
        self.update(id_or_name, |sandbox| match which {
            Interval::Stop => sandbox.intervals.stop = whole,
            Interval::Archive => sandbox.intervals.archive = whole,
            Interval::Delete => sandbox.intervals.delete = value,
        })
    }

    /// Notes that the sandbox is in use.
    ///
    /// # Errors
    /// As [`Standalone::get`].
    pub fn touch(&self, id_or_name: &str) -> Result<Sandbox> {
        self.change(id_or_name, |sandbox| sandbox.last_activity_at = Timestamp::now())
    }

    /// A new token that opens one port for a while.
    ///
    /// # Errors
    /// When the lifetime is out of bounds, and when too many are valid.
    pub fn open_preview(&self, port: u16, seconds: u32) -> Result<String> {
        if !(1..=PREVIEW_SECONDS).contains(&seconds) {
            return Err(Error::invalid(format!("expiresInSeconds must be from 1 to {PREVIEW_SECONDS}")));
        }
        self.inner.passes.open_preview(port, Duration::from_secs(seconds.into()))
    }

    fn update(&self, id_or_name: &str, change: impl FnOnce(&mut Sandbox)) -> Result<Sandbox> {
        self.change(id_or_name, |sandbox| {
            change(sandbox);
            sandbox.updated_at = Timestamp::now();
        })
    }

    fn change(&self, id_or_name: &str, change: impl FnOnce(&mut Sandbox)) -> Result<Sandbox> {
        let mut sandbox = self.lock();
        let found = sandbox.as_mut().filter(|found| found.id == id_or_name || found.name == id_or_name);
        let found = found.ok_or_else(|| Error::not_found(format!("there is no sandbox {id_or_name}")))?;
        change(found);
        Ok(found.clone())
    }

    fn reached(&self, state: State) {
        info!("the sandbox is {}", state.word());
        self.inner.state.send_replace(state);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sandbox>> {
        self.inner.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filter {
    fn takes(&self, sandbox: &Sandbox) -> bool {
        let begins = |text: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| text.to_lowercase().starts_with(&wanted.to_lowercase()))
        };
        begins(&sandbox.id, &self.id)
            && begins(&sandbox.name, &self.name)
            && self.labels.iter().all(|(name, value)| sandbox.labels.get(name) == Some(value))
            && (self.states.is_empty() || self.states.iter().any(|state| state == sandbox.state.word()))
            && self.public.is_none_or(|public| public == sandbox.public)
    }
}

fn describe(id: &str, wanted: Wanted, intervals: Intervals) -> Sandbox {
    let now = Timestamp::now();
    let uid = rustix::process::geteuid().as_raw();
    Sandbox {
        id: id.to_owned(),
        name: wanted.name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_owned()),
        user: users::user_by_id(uid).map_or_else(|| uid.to_string(), |user| user.name),
        env: wanted.env,
        labels: wanted.labels,
        public: wanted.public,
        target: wanted.target.unwrap_or_else(|| "local".to_owned()),
        state: State::Started,
        intervals,
        resources: Resources::of_this_machine(),
        created_at: now,
        updated_at: now,
        last_activity_at: now,
    }
}

impl Resources {
    fn of_this_machine() -> Self {
        let gib = |bytes: u64| (bytes >> 30).max(1);
        let machine = rustix::system::sysinfo();
        let memory = machine.totalram as u64 * u64::from(machine.mem_unit);
        let disk = rustix::fs::statvfs("/").map_or(0, |fs| fs.f_blocks * fs.f_frsize);
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            memory_gib: gib(cgroup::memory().map_or(memory, |group| group.limit.min(memory))),
            disk_gib: gib(disk),
        }
    }
}

fn minutes(name: &str, value: i32) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::invalid(format!("{name} must not be negative")))
}
