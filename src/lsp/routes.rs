//! URLs below `/lsp`.

use std::time::Duration;

use axum::Json as JsonReply;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::connect;
use super::service::Lsp;
use super::wire::{
    Body, CompletionList, CompletionRequest, DiagnosticList, DocumentRequest, FormattingRequest, Hover,
    Location, PositionRequest, ReferencesRequest, RenameRequest, ServerRequest, Symbol, TextEdit,
    WorkspaceEdit,
};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::extract::{Json, Query};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::Upgrade;
use crate::platform::shutdown::Shutdown;

/// How long diagnostics are waited for, when nothing is said, and at most.
const DIAGNOSTICS_MS: u64 = 10_000;
const MOST_DIAGNOSTICS_MS: u64 = 60_000;

#[derive(Debug, Clone)]
struct Context {
    lsp: Lsp,
    shutdown: Shutdown,
}

pub(crate) fn router(lsp: Lsp, shutdown: Shutdown) -> Routes {
    Routes::new()
        .routes(endpoints!(start))
        .routes(endpoints!(stop))
        .routes(endpoints!(did_open))
        .routes(endpoints!(did_close))
        .routes(endpoints!(completions))
        .routes(endpoints!(document_symbols))
        .routes(endpoints!(workspace_symbols))
        .routes(endpoints!(workspace_symbols_as_documented))
        .routes(endpoints!(diagnostics))
        .routes(endpoints!(hover))
        .routes(endpoints!(definition))
        .routes(endpoints!(references))
        .routes(endpoints!(rename))
        .routes(endpoints!(formatting))
        .routes(endpoints!(connect))
        .with_state(Context { lsp, shutdown })
}

/// Starts the language server of a project; nothing happens when it runs
#[utoipa::path(post, path = "/lsp/start", tag = "lsp", request_body = ServerRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 500, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn start(State(context): State<Context>, Json(body): Json<ServerRequest>) -> Result<StatusCode> {
    let body = body.checked()?;
    context.lsp.start(&body.language_id, &body.path_to_project).await?;
    Ok(StatusCode::OK)
}

/// Ends a language server and everything that it started
#[utoipa::path(post, path = "/lsp/stop", tag = "lsp", request_body = ServerRequest,
    responses((status = 200), (status = 400, body = ErrorBody), (status = 500, body = ErrorBody)))]
async fn stop(State(context): State<Context>, Json(body): Json<ServerRequest>) -> Result<StatusCode> {
    let body = body.checked()?;
    context.lsp.stop(&body.language_id, &body.path_to_project).await?;
    Ok(StatusCode::OK)
}

/// Tells the server of a document; of one that is open, its text as it is now
#[utoipa::path(post, path = "/lsp/did-open", tag = "lsp", request_body = DocumentRequest,
    responses((status = 200), (status = 400, body = ErrorBody)))]
async fn did_open(State(context): State<Context>, Json(body): Json<DocumentRequest>) -> Result<StatusCode> {
    let body = body.checked()?;
    context.lsp.open((&body.language_id, &body.path_to_project), &body.uri).await?;
    Ok(StatusCode::OK)
}

/// Closes a document; nothing happens when it is not open
#[utoipa::path(post, path = "/lsp/did-close", tag = "lsp", request_body = DocumentRequest,
    responses((status = 200), (status = 400, body = ErrorBody)))]
async fn did_close(State(context): State<Context>, Json(body): Json<DocumentRequest>) -> Result<StatusCode> {
    let body = body.checked()?;
    context.lsp.close((&body.language_id, &body.path_to_project), &body.uri).await?;
    Ok(StatusCode::OK)
}

/// What may stand at a place in a document
#[utoipa::path(post, path = "/lsp/completions", tag = "lsp", request_body = CompletionRequest,
    responses((status = 200, body = CompletionList), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn completions(
    State(context): State<Context>,
    Json(body): Json<CompletionRequest>,
) -> Result<JsonReply<CompletionList>> {
    let body = body.checked()?;
    let which = (&*body.language_id, &*body.path_to_project);
    Ok(JsonReply(context.lsp.completions(which, &body.uri, body.position, body.context).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
struct DocumentQuery {
    /// `python`, `typescript`, `javascript`, and others that the daemon knows.
    language_id: String,
    /// Directory of the project; relative to the working directory.
    path_to_project: String,
    /// `file://` and a path, which may be relative, and may be percent-encoded.
    uri: String,
}

/// What has a name in a document
#[utoipa::path(get, path = "/lsp/document-symbols", tag = "lsp", params(DocumentQuery),
    responses((status = 200, body = [Symbol]), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn document_symbols(
    State(context): State<Context>,
    Query(query): Query<DocumentQuery>,
) -> Result<JsonReply<Vec<Symbol>>> {
    let which = (&*query.language_id, &*query.path_to_project);
    Ok(JsonReply(context.lsp.document_symbols(which, &query.uri).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
struct SymbolQuery {
    /// What the names are like; each server has its own idea of that.
    query: String,
    /// `python`, `typescript`, `javascript`, and others that the daemon knows.
    language_id: String,
    /// Directory of the project; relative to the working directory.
    path_to_project: String,
}

/// What has a name like the query anywhere in a project
///
/// 1000 symbols at most. For a server that knows single files only, those whose names contain the query in any case, in
/// files of the project that are neither ignored nor others' code.
#[utoipa::path(get, path = "/lsp/workspacesymbols", tag = "lsp", params(SymbolQuery),
    responses((status = 200, body = [Symbol]), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn workspace_symbols(
    State(context): State<Context>,
    Query(query): Query<SymbolQuery>,
) -> Result<JsonReply<Vec<Symbol>>> {
    let which = (&*query.language_id, &*query.path_to_project);
    Ok(JsonReply(context.lsp.workspace_symbols(which, &query.query).await?))
}

/// The same as `/lsp/workspacesymbols`, as the platform's document spells it
#[utoipa::path(get, path = "/lsp/workspace-symbols", tag = "lsp", params(SymbolQuery),
    responses((status = 200, body = [Symbol]), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn workspace_symbols_as_documented(
    context: State<Context>,
    query: Query<SymbolQuery>,
) -> Result<JsonReply<Vec<Symbol>>> {
    workspace_symbols(context, query).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
struct DiagnosticsQuery {
    /// `python`, `typescript`, `javascript`, and others that the daemon knows.
    language_id: String,
    /// Directory of the project; relative to the working directory.
    path_to_project: String,
    /// Which document; without it, all that the server told of.
    uri: Option<String>,
    /// Longest wait for the server to come to rest, in milliseconds: 10000 by default, 60000 at most.
    #[param(maximum = 60_000)]
    timeout_ms: Option<u64>,
}

/// Faults that the server finds, once it has come to rest
#[utoipa::path(get, path = "/lsp/diagnostics", tag = "lsp", params(DiagnosticsQuery),
    responses((status = 200, body = DiagnosticList), (status = 400, body = ErrorBody)))]
async fn diagnostics(
    State(context): State<Context>,
    Query(query): Query<DiagnosticsQuery>,
) -> Result<JsonReply<DiagnosticList>> {
    let timeout_ms = query.timeout_ms.unwrap_or(DIAGNOSTICS_MS);
    if timeout_ms > MOST_DIAGNOSTICS_MS {
        return Err(Error::invalid(format!(
            "timeoutMs may be {MOST_DIAGNOSTICS_MS} at most, not {timeout_ms}"
        )));
    }
    let which = (&*query.language_id, &*query.path_to_project);
    let limit = Duration::from_millis(timeout_ms);
    Ok(JsonReply(context.lsp.diagnostics(which, query.uri.as_deref(), limit).await?))
}

/// What is known of the thing at a place: type, signature, documentation
#[utoipa::path(post, path = "/lsp/hover", tag = "lsp", request_body = PositionRequest,
    responses((status = 200, body = Hover), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn hover(
    State(context): State<Context>,
    Json(body): Json<PositionRequest>,
) -> Result<JsonReply<Hover>> {
    let body = body.checked()?;
    let which = (&*body.language_id, &*body.path_to_project);
    Ok(JsonReply(context.lsp.hover(which, &body.uri, body.position).await?))
}

/// Where the thing at a place is defined
#[utoipa::path(post, path = "/lsp/definition", tag = "lsp", request_body = PositionRequest,
    responses((status = 200, body = [Location]), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn definition(
    State(context): State<Context>,
    Json(body): Json<PositionRequest>,
) -> Result<JsonReply<Vec<Location>>> {
    let body = body.checked()?;
    let which = (&*body.language_id, &*body.path_to_project);
    Ok(JsonReply(context.lsp.definition(which, &body.uri, body.position).await?))
}

/// Where the thing at a place is used
#[utoipa::path(post, path = "/lsp/references", tag = "lsp", request_body = ReferencesRequest,
    responses((status = 200, body = [Location]), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn references(
    State(context): State<Context>,
    Json(body): Json<ReferencesRequest>,
) -> Result<JsonReply<Vec<Location>>> {
    let body = body.checked()?;
    let which = (&*body.language_id, &*body.path_to_project);
    let found = context.lsp.references(which, &body.uri, body.position, body.include_declaration);
    Ok(JsonReply(found.await?))
}

/// What would change if the thing at a place had another name; nothing is changed
#[utoipa::path(post, path = "/lsp/rename", tag = "lsp", request_body = RenameRequest,
    responses((status = 200, body = WorkspaceEdit), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn rename(
    State(context): State<Context>,
    Json(body): Json<RenameRequest>,
) -> Result<JsonReply<WorkspaceEdit>> {
    let body = body.checked()?;
    if body.new_name.is_empty() {
        return Err(Error::new(ErrorKind::InvalidBody, "newName is required"));
    }
    let which = (&*body.language_id, &*body.path_to_project);
    Ok(JsonReply(context.lsp.rename(which, &body.uri, body.position, body.new_name).await?))
}

/// What would change if a document were formatted; nothing is changed
#[utoipa::path(post, path = "/lsp/formatting", tag = "lsp", request_body = FormattingRequest,
    responses((status = 200, body = [TextEdit]), (status = 400, body = ErrorBody), (status = 408, body = ErrorBody)))]
async fn formatting(
    State(context): State<Context>,
    Json(body): Json<FormattingRequest>,
) -> Result<JsonReply<Vec<TextEdit>>> {
    let body = body.checked()?;
    let which = (&*body.language_id, &*body.path_to_project);
    Ok(JsonReply(context.lsp.formatting(which, &body.uri, body.tab_size, body.insert_spaces).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
struct ServerQuery {
    /// `python`, `typescript`, `javascript`, and others that the daemon knows.
    language_id: String,
    /// Directory of the project; relative to the working directory.
    path_to_project: String,
}

/// Connects an editor to a project's language server, which is started if need be
///
/// Each text frame of the WebSocket is one JSON-RPC message. What the editor opens is the editor's until it closes it or
/// leaves; positions count as the server has it.
#[utoipa::path(get, path = "/lsp/connect", tag = "lsp", params(ServerQuery),
    responses((status = 101, description = "WebSocket"), (status = 400, body = ErrorBody),
        (status = 500, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn connect(
    State(context): State<Context>,
    Query(query): Query<ServerQuery>,
    upgrade: Upgrade,
) -> Result<Response> {
    let lease = context.lsp.started(&query.language_id, &query.path_to_project).await?;
    let shutdown = context.shutdown.clone();
    Ok(upgrade.serve(&context.shutdown, async move |sender, receiver| {
        connect::serve(lease, shutdown, sender, receiver).await
    }))
}
