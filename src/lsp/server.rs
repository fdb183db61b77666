//! One running language server: its start, its end, and how its failures are told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsp_types::notification::{DidChangeConfiguration, Exit, Initialized, Notification};
use lsp_types::request::{self, Initialize, Request};
use lsp_types::{DidChangeConfigurationParams, InitializedParams};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::client::{Client, Ending, Failure};
use super::documents::{self, Documents, Stamp};
use super::events::{Editors, Events, Inbox};
use super::handshake::{self, Abilities};
use super::languages::Launch;
use super::position::{Encoding, line};
use super::wire::{Position, Range};
use crate::error::{Error, ErrorKind, Result};
use crate::platform::blocking::Lane;
use crate::platform::shutdown::Shutdown;
use crate::supervisor::{Command, Exit as End, Process, Supervisor};

/// Longest wait for the answer to `initialize`: some index the project first.
const INITIALIZE: Duration = Duration::from_secs(60);
/// Longest wait for any other answer.
pub(super) const REQUEST: Duration = Duration::from_secs(30);
/// Longest wait for the answer to `shutdown`, and then for the end of the process.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest wait for the end of a process whose output has ended.
const DYING: Duration = Duration::from_secs(1);
/// Times that a question is repeated.
const REPEATS: usize = 3;
/// What of the time for an answer is left for the answer when a server is waited for that loads the project.
const ANSWERING: Duration = Duration::from_secs(10);
/// Longest wait for the begin of that, while the server was started no longer ago than [`BEGINNING`].
const BEGINS: Duration = Duration::from_millis(500);
const BEGINNING: Duration = Duration::from_secs(3);
/// LSP 3.17, ContentModified and ServerCancelled: the answer would have been about something that has changed since.
const DISTURBED: [i64; 2] = [-32801, -32802];
/// What of standard error is told in errors, in bytes.
const TAIL: usize = 2048;
/// Longest text of a server that is told in an error, in bytes.
const TEXT: usize = 4096;
/// Texts of files that are kept while places in them are converted.
const TEXTS: usize = 8;

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    /// The program's name.
    pub(super) name: String,
    pub(super) language: String,
    pub(super) extensions: Vec<String>,
    pub(super) abilities: Abilities,
    process: Process,
    client: Client,
    pub(super) events: Arc<Events>,
    pub(super) documents: Mutex<Documents>,
    pub(super) lane: Lane,
    /// We are ending it ourselves.
    is_stopping: AtomicBool,
    started: Instant,
    /// It has loaded the project, as far as it tells.
    is_loaded: AtomicBool,
}

/// What a server needs to be started.
pub(super) struct Start<'a> {
    pub(super) supervisor: &'a Supervisor,
    pub(super) shutdown: &'a Shutdown,
    pub(super) lane: &'a Lane,
    pub(super) launch: Launch,
    pub(super) language: &'a str,
    pub(super) root: &'a Path,
    /// Where the program runs.
    pub(super) cwd: &'a Path,
}

impl Server {
    /// Starts a server and shakes hands. Nothing is left of one that fails.
    ///
    /// # Errors
    /// When the program cannot be started, ends, or does not answer in time: with what it wrote to standard error.
    pub(super) async fn start(start: Start<'_>) -> Result<Self> {
        let Start { supervisor, shutdown, lane, launch, language, root, cwd } = start;
        let Launch { name, argv, extensions, options, settings } = launch;
        let mut command = Command::new(argv);
        command.cwd = Some(cwd.to_owned());
        let (process, stdin, stdout) = supervisor.start_with_pipes(command).await.map_err(|error| {
            Error::internal(format!("error starting LSP server: {error}")).with_source(error)
        })?;
        let events = Arc::new(Events {
            folder: serde_json::to_value(handshake::folder(root)).unwrap_or_default(),
            settings: settings.clone(),
            diagnostics: Default::default(),
            editors: Editors::default(),
        });
        let client = Client::new(stdout, stdin, Arc::<Events>::clone(&events), shutdown);
        let params = handshake::params(root, options);
        let answer = client.request(Initialize::METHOD, Some(&params), INITIALIZE).await;
        let server = Self {
            name,
            language: language.to_owned(),
            extensions,
            abilities: Abilities::of(answer.clone().unwrap_or_default()),
            process,
            client,
            events,
            documents: Mutex::default(),
            lane: lane.clone(),
            is_stopping: AtomicBool::new(false),
            started: Instant::now(),
            is_loaded: AtomicBool::new(false),
        };
        if let Err(failure) = answer {
            let text = match failure {
                Failure::Ended(_) => server.end_text().await,
                failure => server.with_tail(format!("{}: {failure}", server.name)).await,
            };
            server.kill().await;
            return Err(Error::internal(format!("error starting LSP server: {text}")));
        }
        if server.greet(settings).await.is_err() {
            let text = server.end_text().await;
            server.kill().await;
            return Err(Error::internal(format!("error starting LSP server: {text}")));
        }
        info!(pid = server.process.pid(), "{} serves {language} in {}", server.name, root.display());
        Ok(server)
    }

    async fn greet(&self, settings: serde_json::Value) -> Result<(), Failure> {
        self.client.room().await?.notify(Initialized::METHOD, Some(&InitializedParams {}));
        // Also without any: pyright answers nothing before.
        let settings = if settings.is_null() { serde_json::json!({}) } else { settings };
        let params = DidChangeConfigurationParams { settings };
        self.client.room().await?.notify(DidChangeConfiguration::METHOD, Some(&params));
        Ok(())
    }

    /// Asks; see [`Client::request`]. A server that knows nothing because it is still loading the project is asked
    /// again when it has, and so is one that was disturbed.
    ///
    /// # Errors
    /// What the server says is the caller's fault; one that is late or has ended is told as such.
    pub(super) async fn ask<P: Serialize + ?Sized>(&self, method: &str, params: &P) -> Result<Bytes> {
        let deadline = Instant::now() + REQUEST;
        let mut repeats = 0;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let before = self.events.diagnostics.work();
            let answer = self.client.request(method, Some(params), limit).await;
            let is_premature = match &answer {
                Ok(answer) => is_nothing(answer) && self.was_loading(before).await,
                Err(Failure::Response(error)) => DISTURBED.contains(&error.code),
                Err(_) => false,
            };
            repeats += 1;
            if is_premature && repeats <= REPEATS && self.events.diagnostics.rests(deadline - ANSWERING).await
            {
                continue;
            }
            return match answer {
                Ok(answer) => Ok(answer),
                Err(Failure::Late { .. }) => Err(self.late(method, REQUEST)),
                Err(failure) => Err(self.error(failure).await),
            };
        }
    }

    /// Whether it was still loading the project when it answered; `before` is its work before it was asked. Servers
    /// that tell of their work begin to soon after they were started; one that has not begun by then, or has loaded
    /// once, is not waited for again.
    async fn was_loading(&self, before: (bool, u64)) -> bool {
        if self.is_loaded.load(Ordering::Relaxed) {
            return false;
        }
        let begins = if self.started.elapsed() < BEGINNING { BEGINS } else { Duration::ZERO };
        let was_loading = before.0
            || self.events.diagnostics.work().1 > before.1
            || self.events.diagnostics.works(begins).await;
        self.is_loaded.store(!was_loading || self.started.elapsed() > REQUEST, Ordering::Relaxed);
        was_loading
    }

    /// What a failure means to the client.
    pub(super) async fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Response(error) => Error::invalid(cut(&error.message)).with_source(error),
            Failure::Late { method, limit } => self.late(&method, limit),
            Failure::Ended(_) if self.is_stopping.load(Ordering::Acquire) => {
                Error::new(ErrorKind::LspNotInitialized, "server not initialized: it was stopped")
            }
            Failure::Ended(_) => Error::internal(self.end_text().await),
        }
    }

    /// A time limit was reached.
    pub(super) fn late(&self, method: &str, limit: Duration) -> Error {
        let limit = humantime::format_duration(limit);
        Error::new(ErrorKind::Timeout, format!("{} did not answer {method} within {limit}", self.name))
    }

    /// The conversation, for editors.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What was published, and whether there will be more.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Whether it can still be asked.
    pub(super) fn is_over(&self) -> bool {
        self.client.is_over()
    }

    /// Waits until it cannot be asked any more.
    pub(super) async fn over(&self) {
        self.client.over().await;
    }

    /// How it ended, with the end of its standard error.
    pub(super) async fn end_text(&self) -> String {
        let ending = timeout(DYING, self.client.over()).await;
        let end = timeout(DYING, self.process.exited()).await;
        let text = match (ending, end) {
            (Ok(Ending::Broken(text)), _) => format!("{}: {text}", self.name),
            (_, Ok(End { status, .. })) => match status.signal_name() {
                Some(signal) => format!("{} was ended by {signal}", self.name),
                None => format!("{} ended with exit code {}", self.name, status.shell_code()),
            },
            (_, Err(_)) => format!("{} closed its pipes", self.name),
        };
        self.with_tail(text).await
    }

    async fn with_tail(&self, text: String) -> String {
        let tail = self.process.output().tail(TAIL).await;
        let tail = String::from_utf8_lossy(&tail);
        match tail.trim() {
            "" => text,
            tail => format!("{text}: {tail}"),
        }
    }

    /// Says goodbye, as LSP has it, and ends what is left of its processes.
    pub(super) async fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        if self.client.request::<()>(request::Shutdown::METHOD, None, GOODBYE).await.is_ok()
            && let Ok(Ok(room)) = timeout(GOODBYE, self.client.room()).await
        {
            room.notify::<()>(Exit::METHOD, None);
            let _ = timeout(GOODBYE, self.process.exited()).await;
        }
        self.process.stop();
        self.process.end_rest().await;
        debug!("{} was stopped", self.name);
    }

    /// Ends its processes at once.
    pub(super) async fn kill(&self) {
        self.process.kill();
        self.process.end_rest().await;
    }

    /// A file's text; see [`documents::read`].
    ///
    /// # Errors
    /// As there.
    pub(super) async fn read(&self, path: &Path) -> Result<(String, Stamp)> {
        let path = path.to_owned();
        self.lane.run(move || documents::read(&path)).await?
    }

    /// Room to tell it something; see [`Client::room`].
    ///
    /// # Errors
    /// When it has ended.
    pub(super) async fn room(&self) -> Result<super::client::Room<'_>> {
        match self.client.room().await {
            Ok(room) => Ok(room),
            Err(failure) => Err(self.error(failure).await),
        }
    }

    /// One more editor.
    pub(super) fn connect(&self) -> Inbox {
        self.events.editors.connect()
    }

    /// A client's place, as this server counts.
    ///
    /// # Errors
    /// When the file has to be read for that and cannot be.
    pub(super) async fn place(&self, path: &Path, place: Position) -> Result<lsp_types::Position> {
        let Position { line: number, mut character } = place;
        if self.abilities.encoding != Encoding::Utf16 {
            let (text, _) = self.read(path).await?;
            character = self.abilities.encoding.column(line(&text, number), character, Encoding::Utf16);
        }
        Ok(lsp_types::Position { line: number, character })
    }

    /// Makes this server's ranges those of clients; what cannot be read is left as it is.
    pub(super) async fn convert<'a>(&self, ranges: impl Iterator<Item = (PathBuf, &'a mut Range)>) {
        if self.abilities.encoding == Encoding::Utf16 {
            return;
        }
        let mut texts: HashMap<PathBuf, String> = HashMap::new();
        for (path, range) in ranges {
            if !texts.contains_key(&path) {
                if texts.len() >= TEXTS {
                    texts.clear();
                }
                let Ok((text, _)) = self.read(&path).await else { continue };
                texts.insert(path.clone(), text);
            }
            let text = &texts[&path];
            for place in [&mut range.start, &mut range.end] {
                let line = line(text, place.line);
                place.character = Encoding::Utf16.column(line, place.character, self.abilities.encoding);
            }
        }
    }
}

/// Whether an answer has nothing in it.
fn is_nothing(answer: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Vec<&'a serde_json::value::RawValue>,
    }
    // What has something in it is longer than that.
    answer.len() < 256
        && (matches!(answer.trim_ascii(), b"null" | b"[]")
            || serde_json::from_slice::<List<'_>>(answer).is_ok_and(|list| list.items.is_empty()))
}

/// A text of a server's, not too long for a message.
fn cut(text: &str) -> String {
    let end = (0..=text.len().min(TEXT)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}
