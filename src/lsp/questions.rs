//! What servers can be asked: completions, symbols, and what goes beyond the contract.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lsp_types::request::{
    Completion, DocumentSymbolRequest, Formatting, GotoDefinition, HoverRequest, References, Rename, Request,
    WorkspaceSymbolRequest,
};
use lsp_types::{
    DocumentFormattingParams, DocumentSymbolParams, FormattingOptions, ReferenceContext, ReferenceParams,
    RenameParams, TextDocumentIdentifier, TextDocumentPositionParams, WorkspaceSymbolParams,
};
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::project::files_with;
use super::server::{REQUEST, Server};
use super::service::{Lease, Lsp};
use super::wire::{
    CompletionContext, CompletionList, Diagnostic, DiagnosticList, FileEdits, Hover, Location, Position,
    Range, Symbol, TextEdit, WorkspaceEdit,
};
use super::{answers, uri};
use crate::error::{Error, ErrorKind, Result};

/// Files whose symbols are asked for when a server does not know those of its project.
const MOST_FILES: usize = 500;
/// Of these, asked for at a time.
const AT_A_TIME: usize = 8;
/// Symbols of a project in one answer.
const MOST_SYMBOLS: usize = 1000;
/// Files opened so that a server finds what is in them.
const MOST_OPENED: usize = 16;
/// Reads unopened files itself when it is asked about them, and would check them for faults if they were opened.
const READS_FILES: &str = "pylsp";
/// What typescript-language-server says when no open file tells it which project is meant.
const NO_PROJECT: &str = "No Project";

/// A document of a server that knows it as it is on disk.
struct Open {
    lease: Lease,
    path: PathBuf,
    /// What the server knows it by.
    uri: lsp_types::Uri,
    /// How much had been published when its text was told last.
    since: u64,
}

/// `languageId` and `pathToProject`.
type Which<'a> = (&'a str, &'a str);

/// Bounds everything that is done for one answer: telling the server what changed may take long as well.
async fn limited<T>(server: &Server, method: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(REQUEST, work).await {
        Ok(result) => result,
        Err(_) => Err(server.late(method, REQUEST)),
    }
}

impl Lsp {
    /// Tells the server of a document; of one that is open, its text as it is now.
    ///
    /// # Errors
    /// When the file cannot be read, or the server was not started or has ended.
    pub async fn open(&self, (language, project): Which<'_>, uri: &str) -> Result<()> {
        let lease = self.lease(language, project).await?;
        let path = self.file(uri).await?;
        limited(&lease.server, "textDocument/didOpen", lease.server.open(&path)).await
    }

    /// Closes a document; nothing happens when it is not open.
    ///
    /// # Errors
    /// When the server was not started or has ended.
    pub async fn close(&self, (language, project): Which<'_>, uri: &str) -> Result<()> {
        let lease = self.lease(language, project).await?;
        let path = self.file(uri).await?;
        limited(&lease.server, "textDocument/didClose", lease.server.close(&path)).await
    }

    async fn document(&self, (language, project): Which<'_>, uri: &str) -> Result<Open> {
        let lease = self.lease(language, project).await?;
        let path = self.file(uri).await?;
        let told = limited(&lease.server, "textDocument/didChange", lease.server.show(&path)).await?;
        Ok(Open { lease, path, uri: told.uri, since: told.since })
    }

    /// What may stand at a place.
    ///
    /// # Errors
    /// As all questions: when the file cannot be read, the server was not started, refuses, is late, or has ended.
    pub async fn completions(
        &self,
        which: Which<'_>,
        uri: &str,
        position: Position,
        context: Option<CompletionContext>,
    ) -> Result<CompletionList> {
        let document = self.document(which, uri).await?;
        let mut params = json!(document.at(position).await?);
        if let Some(context) = context {
            params["context"] = json!(context);
        }
        Ok(answers::completions(&document.server().ask(Completion::METHOD, &params).await?))
    }

    /// What has a name in a document.
    ///
    /// # Errors
    /// As all questions.
    pub async fn document_symbols(&self, which: Which<'_>, uri: &str) -> Result<Vec<Symbol>> {
        let document = self.document(which, uri).await?;
        let answer = document
            .server()
            .ask(DocumentSymbolRequest::METHOD, &symbol_params(document.uri.clone()))
            .await?;
        let mut symbols = answers::symbols(&answer, Some(&uri::of_path(&document.path)));
        convert_symbols(document.server(), &mut symbols).await;
        Ok(symbols)
    }

    /// What has a name like `query` anywhere in the project.
    ///
    /// # Errors
    /// As all questions.
    pub async fn workspace_symbols(
        &self,
        (language, project): Which<'_>,
        query: &str,
    ) -> Result<Vec<Symbol>> {
        let lease = self.lease(language, project).await?;
        let method = WorkspaceSymbolRequest::METHOD;
        limited(&lease.server, method, lease.server.refresh()).await?;
        let server = &lease.server;
        let mut symbols = if server.abilities.workspace_symbols {
            if matches!(language, "typescript" | "javascript") {
                self.show_project(&lease, query).await?;
            }
            let params = WorkspaceSymbolParams { query: query.to_owned(), ..Default::default() };
            match server.ask(method, &params).await {
                Ok(answer) => answers::symbols(&answer, None),
                Err(error)
                    if error.kind() == ErrorKind::InvalidInput && error.to_string().contains(NO_PROJECT) =>
                {
                    Vec::new() // there is no file of the language in the project
                }
                Err(error) => return Err(error),
            }
        } else if server.abilities.document_symbols {
            self.symbols_by_file(&lease, query).await?
        } else {
            return Err(Error::invalid(format!("{} knows no symbols", server.name)));
        };
        symbols.truncate(MOST_SYMBOLS);
        convert_symbols(server, &mut symbols).await;
        Ok(symbols)
    }

    /// Opens files so that a TypeScript server knows which project is meant: any one where the project says what is in
    /// it, and otherwise those that can have the answer.
    async fn show_project(&self, lease: &Lease, query: &str) -> Result<()> {
        let root = lease.root.clone();
        let is_configured =
            move || ["tsconfig.json", "jsconfig.json"].iter().any(|name| root.join(name).is_file());
        let is_configured = self.lane().run(is_configured).await?;
        if is_configured && !lease.server.has_nothing_open().await {
            return Ok(());
        }
        let most = if is_configured { 1 } else { MOST_OPENED };
        let mut files = self.files(lease, Some(query), most).await?;
        if files.is_empty() && lease.server.has_nothing_open().await {
            files = self.files(lease, None, 1).await?;
        }
        for file in files {
            if let Err(error) = lease.server.show(&file).await {
                debug!(%error, "a file of the project cannot be shown");
            }
        }
        Ok(())
    }

    /// Symbols of all files in which the query stands, for servers that know single files only. In the order of paths;
    /// of a project too large for one answer's time, as much as came in it.
    async fn symbols_by_file(&self, lease: &Lease, query: &str) -> Result<Vec<Symbol>> {
        let deadline = Instant::now() + REQUEST;
        let lower = query.to_lowercase();
        let files = self.files(lease, Some(query), MOST_FILES).await?;
        let mut answered = std::pin::pin!(
            futures_util::stream::iter(files).map(|file| symbols_of(&lease.server, file)).buffered(AT_A_TIME)
        );
        let mut symbols = Vec::new();
        while symbols.len() < MOST_SYMBOLS {
            match timeout_at(deadline, answered.next()).await {
                Ok(Some(Ok(of_file))) => {
                    symbols.extend(
                        of_file.into_iter().filter(|symbol| symbol.name.to_lowercase().contains(&lower)),
                    );
                }
                Ok(Some(Err(error))) if lease.server.is_over() => return Err(error),
                Ok(Some(Err(error))) => debug!(%error, "a file's symbols are missing"),
                Ok(None) => break,
                Err(_) if symbols.is_empty() => {
                    return Err(lease.server.late(DocumentSymbolRequest::METHOD, REQUEST));
                }
                Err(_) => break,
            }
        }
        Ok(symbols)
    }

    async fn files(&self, lease: &Lease, text: Option<&str>, most: usize) -> Result<Vec<PathBuf>> {
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard(); // when the caller leaves
        let (root, extensions) = (lease.root.clone(), lease.server.extensions.clone());
        let text = text.map(str::to_owned);
        self.lane().run(move || files_with(&root, &extensions, text.as_deref(), most, &stop)).await
    }

    /// What is known of the thing at a place.
    ///
    /// # Errors
    /// As all questions.
    pub async fn hover(&self, which: Which<'_>, uri: &str, position: Position) -> Result<Hover> {
        let document = self.document(which, uri).await?;
        let params = document.at(position).await?;
        let mut hover = answers::hover(&document.server().ask(HoverRequest::METHOD, &params).await?);
        let path = document.path.clone();
        document.server().convert(hover.range.as_mut().map(|range| (path, range)).into_iter()).await;
        Ok(hover)
    }

    /// Where the thing at a place is defined.
    ///
    /// # Errors
    /// As all questions.
    pub async fn definition(&self, which: Which<'_>, uri: &str, position: Position) -> Result<Vec<Location>> {
        let document = self.document(which, uri).await?;
        let params = document.at(position).await?;
        let answer = document.server().ask(GotoDefinition::METHOD, &params).await?;
        Ok(locations(document.server(), &answer).await)
    }

    /// Where the thing at a place is used.
    ///
    /// # Errors
    /// As all questions.
    pub async fn references(
        &self,
        which: Which<'_>,
        uri: &str,
        position: Position,
        include_declaration: bool,
    ) -> Result<Vec<Location>> {
        let document = self.document(which, uri).await?;
        let params = ReferenceParams {
            text_document_position: document.at(position).await?,
            context: ReferenceContext { include_declaration },
            work_done_progress_params: Default::default(),
            partial_result_params: Default::default(),
        };
        let answer = document.server().ask(References::METHOD, &params).await?;
        Ok(locations(document.server(), &answer).await)
    }

    /// What would change if the thing at a place had another name. Nothing is changed.
    ///
    /// # Errors
    /// As all questions.
    pub async fn rename(
        &self,
        which: Which<'_>,
        uri: &str,
        position: Position,
        new_name: String,
    ) -> Result<WorkspaceEdit> {
        let document = self.document(which, uri).await?;
        let params = RenameParams {
            text_document_position: document.at(position).await?,
            new_name,
            work_done_progress_params: Default::default(),
        };
        let mut edit = answers::workspace_edit(&document.server().ask(Rename::METHOD, &params).await?);
        let mut ranges = Vec::new();
        for FileEdits { uri, edits } in &mut edit.changes {
            let Some(path) = uri::to_path(uri) else { continue };
            ranges.extend(edits.iter_mut().map(|edit| (path.clone(), &mut edit.range)));
        }
        document.server().convert(ranges.into_iter()).await;
        Ok(edit)
    }

    /// What would change if a document were formatted. Nothing is changed.
    ///
    /// # Errors
    /// As all questions.
    pub async fn formatting(
        &self,
        which: Which<'_>,
        uri: &str,
        tab_size: u32,
        insert_spaces: bool,
    ) -> Result<Vec<TextEdit>> {
        let document = self.document(which, uri).await?;
        let params = DocumentFormattingParams {
            text_document: TextDocumentIdentifier { uri: document.uri.clone() },
            options: FormattingOptions { tab_size, insert_spaces, ..Default::default() },
            work_done_progress_params: Default::default(),
        };
        let mut edits = answers::edits(&document.server().ask(Formatting::METHOD, &params).await?);
        let ranges = edits.iter_mut().map(|edit| (document.path.clone(), &mut edit.range));
        document.server().convert(ranges).await;
        Ok(edits)
    }

    /// The faults of a document, or without one of all that the server told of, once it has come to rest or `limit` is
    /// over.
    ///
    /// # Errors
    /// As all questions.
    pub async fn diagnostics(
        &self,
        which: Which<'_>,
        uri: Option<&str>,
        limit: Duration,
    ) -> Result<DiagnosticList> {
        let deadline = Instant::now() + limit;
        let (lease, path, told) = match uri {
            Some(uri) => {
                let Open { lease, path, since, .. } = self.document(which, uri).await?;
                (lease, Some(path.clone()), vec![(path, since)])
            }
            None => {
                let lease = self.lease(which.0, which.1).await?;
                limited(&lease.server, "textDocument/didChange", lease.server.refresh()).await?;
                let told = lease.server.told().await;
                (lease, None, told)
            }
        };
        let server = &lease.server;
        let diagnostics = &server.events().diagnostics;
        let settled = tokio::select! {
            settled = diagnostics.settled(&told, deadline) => settled,
            () = server.over() => {
                let failure = super::client::Failure::Ended(super::client::Ending::Closed);
                return Err(server.error(failure).await);
            }
        };
        let published = diagnostics.known(path.as_deref());
        let mut items: Vec<Diagnostic> = Vec::new();
        for (path, json) in published {
            items.extend(answers::diagnostics(json.get().as_bytes(), &uri::of_path(&path)));
        }
        let ranges = items.iter_mut().filter_map(|item| Some((uri::to_path(&item.uri)?, &mut item.range)));
        server.convert(ranges).await;
        Ok(DiagnosticList { settled, items })
    }
}

impl Open {
    fn server(&self) -> &Arc<Server> {
        &self.lease.server
    }

    /// A place in it, as the server counts.
    async fn at(&self, position: Position) -> Result<TextDocumentPositionParams> {
        let position = self.server().place(&self.path, position).await?;
        let text_document = TextDocumentIdentifier { uri: self.uri.clone() };
        Ok(TextDocumentPositionParams { text_document, position })
    }
}

fn symbol_params(uri: lsp_types::Uri) -> DocumentSymbolParams {
    DocumentSymbolParams {
        text_document: TextDocumentIdentifier { uri },
        work_done_progress_params: Default::default(),
        partial_result_params: Default::default(),
    }
}

async fn symbols_of(server: &Server, file: PathBuf) -> Result<Vec<Symbol>> {
    let uri = if server.name == READS_FILES {
        super::handshake::lsp_uri(&file)
    } else {
        server.show(&file).await?.uri
    };
    let answer = server.ask(DocumentSymbolRequest::METHOD, &symbol_params(uri)).await?;
    Ok(answers::symbols(&answer, Some(&uri::of_path(&file))))
}

async fn locations(server: &Server, answer: &Bytes) -> Vec<Location> {
    let mut locations = answers::locations(answer);
    server.convert(locations.iter_mut().filter_map(ranged)).await;
    locations
}

async fn convert_symbols(server: &Server, symbols: &mut [Symbol]) {
    server.convert(symbols.iter_mut().filter_map(|symbol| ranged(&mut symbol.location))).await;
}

fn ranged(location: &mut Location) -> Option<(PathBuf, &mut Range)> {
    Some((uri::to_path(&location.uri)?, &mut location.range))
}
