//! Programs on the desktop, and the windows that they open (contract `computer-use.md` 12, item 25).
//!
//! No shell: a command is split into words as a shell would, and that is all.

mod entry;
pub(super) mod routes;
mod wire;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::Desktop;
use super::unit::LAST_WORDS;
use super::x11::{Connection, Events, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::supervisor::{Command, Exit, Output, Process, StartError, check_name, check_value};

/// What Chromium and what is built on it want to be told before they tell anything of their pages.
const RENDERER_ACCESSIBILITY: &str = "--force-renderer-accessibility";
/// Time that a program gets to open a window of its own after the process that was started has ended, as when it only
/// tells one that runs already.
const HANDED_OVER: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug)]
pub(super) struct Launch {
    program: Program,
    cwd: Option<PathBuf>,
    env: Vec<(String, String)>,
    /// How long to wait for a window; not at all when it is none.
    wait: Option<Duration>,
    accessibility: bool,
}

/// Which program.
#[derive(Debug)]
enum Program {
    /// Program and arguments.
    Command(Vec<String>),
    /// An installed application by the name of its desktop entry, and what it is to open.
    Entry { id: String, uri: Option<String> },
    /// Whatever opens this.
    Uri(String),
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Launched {
    pid: u32,
    /// None when none came, or none was waited for.
    window: Option<Window>,
    /// When it ended meanwhile.
    exit: Option<Exit>,
    /// The last line that it printed, when it ended without a window.
    last_line: String,
}

impl Desktop {
    /// Starts a program on the desktop. It goes on when the caller goes away, until it ends by itself or for want of the
    /// screen.
    ///
    /// # Errors
    /// Without a screen; when there is no such program.
    async fn launch(&self, launch: Launch) -> Result<Launched> {
        let connection = self.x11().await?;
        let mut events = connection.events();
        let before: HashSet<u32> = {
            let windows = connection.run(|wire| {
                wire.follow_windows()?;
                wire.windows()
            });
            windows.await?.into_iter().map(|window| window.id).collect()
        };
        let deadline = launch.wait.map(|wait| Instant::now() + wait);
        let (process, printing) = self.begin(launch).await?;
        let Some(deadline) = deadline else {
            let pid = process.pid();
            return Ok(Launched { pid, window: None, exit: process.exit(), last_line: String::new() });
        };
        let coming = window_of(&connection, &mut events, &process, &before, deadline);
        let window = timeout_at(deadline, coming).await.unwrap_or(Ok(None))?;
        let last_line = match &window {
            Some(_) => String::new(),
            None => {
                if process.exit().is_some() {
                    // What it has started may hold the pipe open for ever.
                    let _ = timeout(LAST_WORDS, printing.ended()).await;
                }
                printing.last_line()
            }
        };
        Ok(Launched { pid: process.pid(), window, exit: process.exit(), last_line })
    }

    async fn begin(&self, launch: Launch) -> Result<(Process, super::logs::Printing)> {
        let settings = &self.inner.settings;
        let mut argv = match launch.program {
            Program::Command(argv) => argv,
            Program::Entry { id, uri } => {
                let environment = self.processes().environment();
                let home = settings.home.clone();
                let found =
                    self.processes().blocking(move || entry::find(&environment, &home, &id, uri.as_deref()));
                found.await??
            }
            Program::Uri(uri) => {
                let openers = ["xdg-open", "exo-open", "gio"];
                let opener =
                    openers.into_iter().find(|name| self.processes().programs().find(name).is_some());
                let missing = || {
                    Error::new(ErrorKind::Unavailable, "xdg-open is not installed (Debian package xdg-utils)")
                };
                match opener.ok_or_else(missing)? {
                    "gio" => vec!["gio".to_owned(), "open".to_owned(), uri],
                    opener => vec![opener.to_owned(), uri],
                }
            }
        };
        if launch.accessibility && !argv.iter().any(|word| word == RENDERER_ACCESSIBILITY) {
            argv.insert(1, RENDERER_ACCESSIBILITY.to_owned());
        }
        for (name, value) in &launch.env {
            check_name(name)?;
            check_value(name, value)?;
        }
        let program = argv[0].clone();
        let mut command = Command::new(argv);
        command.cwd = launch.cwd.or_else(|| Some(settings.home.clone()).filter(|home| home.is_dir()));
        let given = launch.env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        command.env =
            std::iter::once(("DISPLAY".into(), settings.display.clone().into())).chain(given).collect();
        command.output = Output::Discarded;
        let printing = self.processes().listen(&mut command)?;
        let process =
            self.inner.supervisor.start(command).await.map_err(|error| not_started(&program, error))?;
        Ok((process, printing))
    }
}

fn not_started(program: &str, error: StartError) -> Error {
    Error::invalid(format!("{program} cannot be started: {error}")).with_source(error)
}

/// Waits for a new window of a process or its descendants. When the process has ended well, for any new window: it may
/// have told another one to open it. None when it has ended otherwise.
async fn window_of(
    connection: &Connection,
    events: &mut Events,
    process: &Process,
    before: &HashSet<u32>,
    deadline: Instant,
) -> Result<Option<Window>> {
    let mut handed_over = None;
    loop {
        let windows = connection.run(|wire| wire.windows()).await?;
        let is_shown = |window: &&Window| !window.is_minimized && !matches!(window.kind, "dock" | "desktop");
        let new = windows.iter().rev().filter(|window| !before.contains(&window.id)).filter(is_shown);
        let own = new.clone().find(|window| window.pid.is_some_and(|pid| process.has_descendant(pid)));
        let any = new.clone().find(|window| handed_over.is_some() || window.pid.is_none());
        if let Some(window) = own.or(any) {
            return Ok(Some(window.clone()));
        }
        tokio::select! {
            change = connection.window_change(events) => {
                if change.is_none() {
                    return Err(Error::new(ErrorKind::Unavailable, "the X server has gone, call start"));
                }
            }
            exit = process.exited(), if handed_over.is_none() => {
                if exit.status.shell_code() != 0 {
                    return Ok(None);
                }
                handed_over = Some(deadline.min(Instant::now() + HANDED_OVER));
            }
            () = tokio::time::sleep_until(handed_over.unwrap_or(deadline)) => return Ok(None),
        }
    }
}
