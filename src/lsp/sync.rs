//! Documents of a server: what it is told of files and of what editors have open.
//!
//! One lock is held from looking at a document until the server has been told, so that what it is told is always in
//! order. Nothing is awaited between telling and noting it: a caller that leaves must not leave the two sides with
//! different ideas.

use std::path::{Path, PathBuf};

use lsp_types::notification::{
    DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument, Notification,
};
use lsp_types::{
    DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    DidSaveTextDocumentParams, TextDocumentContentChangeEvent, TextDocumentIdentifier, TextDocumentItem,
    VersionedTextDocumentIdentifier,
};
use tracing::debug;

use super::documents::{Document, Documents, MOST_OPEN, Owner, Stamp};
use super::handshake::{Changes, lsp_uri};
use super::languages::document_language;
use super::server::Server;
use crate::error::{Error, Result};

/// What a server was told of a document.
#[derive(Debug)]
pub(super) struct Told {
    /// How much had been published when its text was told last.
    pub(super) since: u64,
    /// What the server knows it by.
    pub(super) uri: lsp_types::Uri,
}

impl Server {
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

    /// Tells the server of every open file that has changed.
    ///
    /// # Errors
    /// When the server has ended.
    pub(super) async fn refresh(&self) -> Result<()> {
        self.tell_changes(&mut *self.documents.lock().await).await
    }

    /// Every open file, with how much had been published when its text was told last.
    pub(super) async fn told(&self) -> Vec<(PathBuf, u64)> {
        let documents = self.documents.lock().await;
        documents.open.iter().map(|(path, document)| (path.clone(), document.told)).collect()
    }

    /// As [`Server::refresh`], and opens `path` if it is not open.
    ///
    /// # Errors
    /// When `path` cannot be read, or the server has ended.
    pub(super) async fn show(&self, path: &Path) -> Result<Told> {
        let mut documents = self.documents.lock().await;
        self.tell_changes(&mut documents).await?;
        if !documents.open.contains_key(path) {
            if let Some(surplus) = documents.surplus() {
                self.tell_close(&mut documents, &surplus).await?;
            }
            self.tell_open(&mut documents, path, Owner::Passing).await?;
        }
        let now = documents.next_use();
        let document = documents.open.get_mut(path).expect("it is open");
        document.used = now;
        Ok(Told { since: document.told, uri: document.uri.clone() })
    }

    async fn tell_changes(&self, documents: &mut Documents) -> Result<()> {
        let stamps = documents.stamps();
        if stamps.is_empty() {
            return Ok(());
        }
        let changed = self.lane.run(move || {
            let now = stamps.into_iter().map(|(path, then)| (Stamp::now(&path), path, then));
            let changed = now.filter(|(now, _, then)| now.as_ref() != Some(then));
            changed.map(|(now, path, _)| (path, now.is_some())).collect::<Vec<_>>()
        });
        for (path, is_there) in changed.await? {
            if !is_there {
                self.tell_close(documents, &path).await?;
            } else if let Err(error) = self.tell_change(documents, &path).await {
                if self.is_over() {
                    return Err(error);
                }
                debug!(%error, "a changed file cannot be told");
            }
        }
        Ok(())
    }

    /// Whether nothing is open.
    pub(super) async fn has_nothing_open(&self) -> bool {
        self.documents.lock().await.open.is_empty()
    }

    async fn tell_open(&self, documents: &mut Documents, path: &Path, owner: Owner) -> Result<()> {
        let (text, stamp) = self.read(path).await?;
        let uri = lsp_uri(path);
        let language = document_language(&self.language, path).to_owned();
        let text_document = TextDocumentItem { uri: uri.clone(), language_id: language, version: 1, text };
        let room = self.room().await?;
        let used = documents.next_use();
        let told = self.events.diagnostics.count();
        room.notify(DidOpenTextDocument::METHOD, Some(&DidOpenTextDocumentParams { text_document }));
        documents
            .open
            .insert(path.to_owned(), Document { version: 1, stamp: Some(stamp), owner, used, told, uri });
        Ok(())
    }

    async fn tell_change(&self, documents: &mut Documents, path: &Path) -> Result<()> {
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

    async fn tell_close(&self, documents: &mut Documents, path: &Path) -> Result<()> {
        let room = self.room().await?;
        let Some(document) = documents.open.remove(path) else { return Ok(()) };
        let params =
            DidCloseTextDocumentParams { text_document: TextDocumentIdentifier { uri: document.uri } };
        room.notify(DidCloseTextDocument::METHOD, Some(&params));
        Ok(())
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
}
