//! One running language server: its start and end, and the documents that it has open.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsp_types::notification::{
    DidChangeConfiguration, DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument,
    DidSaveTextDocument, Exit, Initialized, Notification,
};
use lsp_types::request::{self, Initialize, Request};
use lsp_types::{
    DidChangeConfigurationParams, DidChangeTextDocumentParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, DidSaveTextDocumentParams, InitializedParams, TextDocumentContentChangeEvent,
    TextDocumentIdentifier, TextDocumentItem, VersionedTextDocumentIdentifier,
};
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tracing::{debug, info};

use super::client::{Client, Ending, Failure};
use super::documents::{self, Document, Documents, MOST_OPEN, Owner, Stamp};
use super::events::{Editors, Events, Inbox};
use super::handshake::{self, Abilities, Changes, lsp_uri};
use super::languages::{Launch, document_language};
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
    events: Arc<Events>,
    documents: Mutex<Documents>,
    lane: Lane,
    /// We are ending it ourselves.
    is_stopping: AtomicBool,
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
            abilities: Abilities::of(answer.as_ref().map(Bytes::clone).unwrap_or_default()),
            process,
            client,
            events,
            documents: Mutex::default(),
            lane: lane.clone(),
            is_stopping: AtomicBool::new(false),
        };
        if let Err(failure) = answer {
            let text = match failure {
                Failure::Ended(_) => server.end_text().await,
                failure => server.with_tail(format!("{}: {failure}", server.name)).await,
            };
            server.kill().await;
            return Err(Error::internal(format!("error starting LSP server: {text}")));
        }
        server.greet(settings).await.map_err(|failure| {
            Error::internal(format!("error starting LSP server: {}: {failure}", server.name))
        })?;
        info!(pid = server.process.pid(), "{} serves {language} in {}", server.name, root.display());
        Ok(server)
    }

    async fn greet(&self, settings: serde_json::Value) -> Result<(), Failure> {
        self.client.room().await?.notify(Initialized::METHOD, Some(&InitializedParams {}));
        if !settings.is_null() {
            let params = DidChangeConfigurationParams { settings };
            self.client.room().await?.notify(DidChangeConfiguration::METHOD, Some(&params));
        }
        Ok(())
    }

    /// Asks, when everything that changed on disk was told; see [`Client::request`].
    ///
    /// # Errors
    /// What the server says is the caller's fault; one that is late or has ended is told as such.
    pub(super) async fn ask<P: Serialize + ?Sized>(&self, method: &str, params: &P) -> Result<Bytes> {
        match self.client.request(method, Some(params), REQUEST).await {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.error(failure).await),
        }
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
            (_, Err(_)) => format!("{} closed its output", self.name),
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

    /// What clients have open.
    pub(super) async fn open_paths(&self) -> Vec<PathBuf> {
        self.documents.lock().await.of_clients()
    }

    /// Opens a file, or tells its text again.
    ///
    /// # Errors
    /// When it cannot be read, too much is open, or the server has ended.
    pub(super) async fn open(&self, path: &Path) -> Result<()> {
        let mut documents = self.documents.lock().await;
        let is_full = documents.open.len() >= MOST_OPEN;
        match documents.open.get_mut(path) {
            Some(Document { owner: Owner::Editor { was_open, .. }, .. }) => {
                *was_open = true;
                Ok(())
            }
            Some(_) => {
                self.tell_change(&mut documents, path).await?;
                let now = documents.next_use();
                if let Some(document) = documents.open.get_mut(path) {
                    (document.owner, document.used) = (Owner::Client, now);
                }
                Ok(())
            }
            None if is_full => {
                Err(Error::invalid(format!("{MOST_OPEN} documents are open, which are the most")))
            }
            None => self.tell_open(&mut documents, path, Owner::Client).await,
        }
    }

    /// Closes a file; nothing happens when it is not open.
    ///
    /// # Errors
    /// When the server has ended.
    pub(super) async fn close(&self, path: &Path) -> Result<()> {
        let mut documents = self.documents.lock().await;
        match documents.open.get_mut(path) {
            None => Ok(()),
            Some(Document { owner: Owner::Editor { was_open, .. }, .. }) => {
                *was_open = false;
                Ok(())
            }
            Some(_) => self.tell_close(&mut documents, path).await,
        }
    }

    /// Tells the server of every open file that has changed, and opens `path` if it is not.
    ///
    /// # Errors
    /// When `path` cannot be read, or the server has ended.
    pub(super) async fn synchronise(&self, path: Option<&Path>) -> Result<Told> {
        let mut documents = self.documents.lock().await;
        let stamps = documents.stamps();
        let changed = self.lane.run(move || {
            let now = stamps.into_iter().map(|(path, then)| (Stamp::now(&path), path, then));
            now.filter(|(now, _, then)| now.as_ref() != Some(then))
                .map(|(now, path, _)| (path, now))
                .collect::<Vec<_>>()
        });
        for (path, now) in changed.await? {
            if now.is_none() {
                self.tell_close(&mut documents, &path).await?;
            } else if let Err(error) = self.tell_change(&mut documents, &path).await {
                if self.is_over() {
                    return Err(error);
                }
                debug!(%error, "a changed file cannot be told");
            }
        }
        let Some(path) = path else { return Ok(Told { since: 0, uri: lsp_uri(Path::new("/")) }) };
        if !documents.open.contains_key(path) {
            if let Some(surplus) = documents.surplus() {
                self.tell_close(&mut documents, &surplus).await?;
            }
            self.tell_open(&mut documents, path, Owner::Passing).await?;
        }
        let now = documents.next_use();
        let document = documents.open.get_mut(path).expect("just opened");
        document.used = now;
        Ok(Told { since: document.told, uri: document.uri.clone() })
    }

    /// Whether nothing is open.
    pub(super) async fn has_nothing_open(&self) -> bool {
        self.documents.lock().await.open.is_empty()
    }

    async fn read(&self, path: &Path) -> Result<(String, Stamp)> {
        let path = path.to_owned();
        self.lane.run(move || documents::read(&path)).await?
    }

    async fn tell_open(
        &self,
        documents: &mut MutexGuard<'_, Documents>,
        path: &Path,
        owner: Owner,
    ) -> Result<()> {
        let (text, stamp) = self.read(path).await?;
        let uri = lsp_uri(path);
        let language = document_language(&self.language, path).to_owned();
        let text_document = TextDocumentItem { uri: uri.clone(), language_id: language, version: 1, text };
        let room = self.room().await?;
        let used = documents.next_use();
        let told = self.events.diagnostics.count();
        // Nothing is awaited from here on: a caller that leaves must not leave the two sides with different ideas.
        room.notify(DidOpenTextDocument::METHOD, Some(&DidOpenTextDocumentParams { text_document }));
        documents
            .open
            .insert(path.to_owned(), Document { version: 1, stamp: Some(stamp), owner, used, told, uri });
        Ok(())
    }

    async fn tell_change(&self, documents: &mut MutexGuard<'_, Documents>, path: &Path) -> Result<()> {
        let Some(document) = documents.open.get(path) else { return Ok(()) };
        if self.abilities.changes == Changes::Unwanted {
            let owner = document.owner;
            self.tell_close(documents, path).await?;
            return self.tell_open(documents, path, owner).await;
        }
        let (text, stamp) = self.read(path).await?;
        let room = self.room().await?;
        let saved = if self.abilities.saves.is_some() { Some(self.room().await?) } else { None };
        let Some(document) = documents.open.get_mut(path) else { return Ok(()) };
        document.version += 1;
        document.stamp = Some(stamp);
        document.told = self.events.diagnostics.count();
        let saved_text = self.abilities.saves.unwrap_or_default().then(|| text.clone());
        let params = DidChangeTextDocumentParams {
            text_document: VersionedTextDocumentIdentifier {
                uri: document.uri.clone(),
                version: document.version,
            },
            content_changes: vec![TextDocumentContentChangeEvent { range: None, range_length: None, text }],
        };
        room.notify(DidChangeTextDocument::METHOD, Some(&params));
        if let Some(saved) = saved {
            let text_document = TextDocumentIdentifier { uri: document.uri.clone() };
            let params = DidSaveTextDocumentParams { text_document, text: saved_text };
            saved.notify(DidSaveTextDocument::METHOD, Some(&params));
        }
        Ok(())
    }

    async fn tell_close(&self, documents: &mut MutexGuard<'_, Documents>, path: &Path) -> Result<()> {
        let room = self.room().await?;
        let Some(document) = documents.open.remove(path) else { return Ok(()) };
        let params =
            DidCloseTextDocumentParams { text_document: TextDocumentIdentifier { uri: document.uri } };
        room.notify(DidCloseTextDocument::METHOD, Some(&params));
        Ok(())
    }

    async fn room(&self) -> Result<super::client::Room<'_>> {
        match self.client.room().await {
            Ok(room) => Ok(room),
            Err(failure) => Err(self.error(failure).await),
        }
    }

    /// One more editor.
    pub(super) fn connect(&self) -> Inbox {
        self.events.editors.connect()
    }

    /// An editor opens a document: it is the editor's from now on, whoever had it open before.
    ///
    /// # Errors
    /// When the server has ended, or too much is open.
    pub(super) async fn open_by_editor(
        &self,
        connection: u64,
        path: &Path,
        uri: lsp_types::Uri,
        message: &[u8],
    ) -> Result<()> {
        let mut documents = self.documents.lock().await;
        let was_open = match documents.open.get(path).map(|document| document.owner) {
            Some(Owner::Client) => true,
            Some(Owner::Editor { was_open, .. }) => was_open,
            Some(Owner::Passing) | None => false,
        };
        if documents.open.len() >= MOST_OPEN {
            return Err(Error::invalid(format!("{MOST_OPEN} documents are open, which are the most")));
        }
        self.tell_close(&mut documents, path).await?;
        let room = self.room().await?;
        let (used, told) = (documents.next_use(), self.events.diagnostics.count());
        room.pass_on(message);
        let owner = Owner::Editor { connection, was_open };
        documents.open.insert(path.to_owned(), Document { version: 0, stamp: None, owner, used, told, uri });
        Ok(())
    }

    /// Passes on what an editor says about a document, if it is that editor's.
    ///
    /// # Errors
    /// When the server has ended.
    pub(super) async fn pass_on_of_document(
        &self,
        connection: u64,
        path: &Path,
        message: &[u8],
    ) -> Result<()> {
        let mut documents = self.documents.lock().await;
        let told = self.events.diagnostics.count();
        let room = self.room().await?;
        match documents.open.get_mut(path) {
            Some(document) if document.owner.is_of(connection) => {
                document.told = told;
                room.pass_on(message);
            }
            _ => debug!("an editor speaks of a document that is not its own"),
        }
        Ok(())
    }

    /// An editor closes a document; a client that had it open before has it open again.
    ///
    /// # Errors
    /// When the server has ended.
    pub(super) async fn close_by_editor(&self, connection: u64, path: &Path) -> Result<()> {
        let mut documents = self.documents.lock().await;
        match documents.open.get(path).map(|document| document.owner) {
            Some(Owner::Editor { connection: owner, was_open }) if owner == connection => {
                self.tell_close(&mut documents, path).await?;
                if was_open && let Err(error) = self.tell_open(&mut documents, path, Owner::Client).await {
                    debug!(%error, "a document is not open any more");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An editor has left: its documents are closed.
    pub(super) async fn editor_left(&self, connection: u64) {
        let paths: Vec<PathBuf> = {
            let documents = self.documents.lock().await;
            let all = documents.open.iter();
            all.filter(|(_, document)| document.owner.is_of(connection))
                .map(|(path, _)| path.clone())
                .collect()
        };
        for path in paths {
            if self.close_by_editor(connection, &path).await.is_err() {
                return; // the server has ended, and with it all documents
            }
        }
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

/// What a server was told of a document.
#[derive(Debug)]
pub(super) struct Told {
    /// How much had been published when its text was told last.
    pub(super) since: u64,
    /// What the server knows it by.
    pub(super) uri: lsp_types::Uri,
}

/// A text of a server's, not too long for a message.
fn cut(text: &str) -> String {
    let end = (0..=text.len().min(TEXT)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}
