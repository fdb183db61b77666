//! `initialize`: what we tell a server that we can do, and what of its answer matters.

use std::path::Path;
use std::str::FromStr;

use bytes::Bytes;
use lsp_types::{
    ClientCapabilities, ClientInfo, CompletionClientCapabilities, CompletionItemCapability,
    DidChangeConfigurationClientCapabilities, DocumentSymbolClientCapabilities, GeneralClientCapabilities,
    HoverClientCapabilities, InitializeParams, MarkupKind, PositionEncodingKind,
    PublishDiagnosticsClientCapabilities, RenameClientCapabilities, SymbolKind, SymbolKindCapability,
    TextDocumentClientCapabilities, TextDocumentSyncClientCapabilities, Uri, WindowClientCapabilities,
    WorkspaceClientCapabilities, WorkspaceEditClientCapabilities, WorkspaceFolder,
    WorkspaceSymbolClientCapabilities,
};
use serde_json::Value;

use super::position::Encoding;
use super::uri;

/// SymbolKind has the numbers from 1 to this one.
const LAST_SYMBOL_KIND: i32 = 26;

/// A path as LSP's libraries take it.
pub(super) fn lsp_uri(path: &Path) -> Uri {
    Uri::from_str(&uri::of_path(path)).expect("an escaped path is a URI")
}

/// The project as servers know it.
pub(super) fn folder(root: &Path) -> WorkspaceFolder {
    let name = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
    WorkspaceFolder { uri: lsp_uri(root), name }
}

/// Parameters of `initialize`.
#[expect(deprecated, reason = "older servers know a root and no folders")]
pub(super) fn params(root: &Path, options: Option<Value>) -> InitializeParams {
    InitializeParams {
        process_id: Some(std::process::id()),
        root_path: root.to_str().map(str::to_owned),
        root_uri: Some(lsp_uri(root)),
        initialization_options: options,
        capabilities: capabilities(),
        workspace_folders: Some(vec![folder(root)]),
        client_info: Some(ClientInfo {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }),
        ..InitializeParams::default()
    }
}

/// Not announced, though the original does: snippets, as clients are not told what is one. Nor trees of symbols, which
/// clients cannot take. Nor that we ask for diagnostics: servers that may wait for that would publish none.
fn capabilities() -> ClientCapabilities {
    let no = Some(false);
    let yes = Some(true);
    let formats = || Some(vec![MarkupKind::Markdown, MarkupKind::PlainText]);
    let kinds = || {
        let all =
            (1..=LAST_SYMBOL_KIND).filter_map(|kind| serde_json::from_value::<SymbolKind>(kind.into()).ok());
        Some(SymbolKindCapability { value_set: Some(all.collect()) })
    };
    let text_document = TextDocumentClientCapabilities {
        synchronization: Some(TextDocumentSyncClientCapabilities { did_save: yes, ..Default::default() }),
        completion: Some(CompletionClientCapabilities {
            completion_item: Some(CompletionItemCapability {
                snippet_support: no,
                commit_characters_support: yes,
                documentation_format: formats(),
                deprecated_support: yes,
                preselect_support: yes,
                ..Default::default()
            }),
            context_support: yes,
            ..Default::default()
        }),
        hover: Some(HoverClientCapabilities { content_format: formats(), ..Default::default() }),
        document_symbol: Some(DocumentSymbolClientCapabilities {
            symbol_kind: kinds(),
            ..Default::default()
        }),
        rename: Some(RenameClientCapabilities::default()),
        publish_diagnostics: Some(PublishDiagnosticsClientCapabilities::default()),
        ..Default::default()
    };
    let workspace = WorkspaceClientCapabilities {
        apply_edit: yes,
        workspace_edit: Some(WorkspaceEditClientCapabilities { document_changes: yes, ..Default::default() }),
        did_change_configuration: Some(DidChangeConfigurationClientCapabilities::default()),
        symbol: Some(WorkspaceSymbolClientCapabilities { symbol_kind: kinds(), ..Default::default() }),
        workspace_folders: yes,
        configuration: yes,
        ..Default::default()
    };
    ClientCapabilities {
        workspace: Some(workspace),
        text_document: Some(text_document),
        window: Some(WindowClientCapabilities { work_done_progress: yes, ..Default::default() }),
        general: Some(GeneralClientCapabilities {
            position_encodings: Some(vec![PositionEncodingKind::UTF16]),
            ..Default::default()
        }),
        experimental: None,
        ..Default::default()
    }
}

/// How a server wants to be told of changes (LSP's TextDocumentSyncKind).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    /// Not at all: the document is closed and opened.
    Unwanted,
    /// As the whole text, which incremental servers take too.
    Whole,
}

/// What matters of a server's answer.
#[derive(Debug, Clone)]
pub(super) struct Abilities {
    /// The whole answer, for editors.
    pub(super) answer: Bytes,
    pub(super) encoding: Encoding,
    pub(super) changes: Changes,
    /// Wants to know when a file was saved; true with its text.
    pub(super) saves: Option<bool>,
    pub(super) workspace_symbols: bool,
    pub(super) document_symbols: bool,
}

impl Abilities {
    /// Reads the result of `initialize`. What makes no sense counts as absent.
    pub(super) fn of(answer: Bytes) -> Self {
        let value: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let all = &value["capabilities"];
        let has = |name: &str| !matches!(all[name], Value::Null | Value::Bool(false));
        // clangd named it so before LSP had it.
        let encoding =
            all["positionEncoding"].as_str().or(value["offsetEncoding"].as_str()).unwrap_or_default();
        let sync = &all["textDocumentSync"];
        let change = sync.as_u64().or(sync["change"].as_u64()).unwrap_or(1);
        let saves = match &sync["save"] {
            Value::Bool(true) => Some(false),
            Value::Object(save) => Some(save.get("includeText").and_then(Value::as_bool).unwrap_or_default()),
            _ => None,
        };
        Self {
            encoding: Encoding::named(encoding),
            changes: if change == 0 { Changes::Unwanted } else { Changes::Whole },
            saves,
            workspace_symbols: has("workspaceSymbolProvider"),
            document_symbols: has("documentSymbolProvider"),
            answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &'static str) -> Abilities {
        Abilities::of(Bytes::from_static(answer.as_bytes()))
    }

    #[test]
    fn abilities_are_read_from_every_shape() {
        let old = of(r#"{"capabilities": {"textDocumentSync": 2, "documentSymbolProvider": true}}"#);
        assert_eq!((old.changes, old.saves, old.encoding), (Changes::Whole, None, Encoding::Utf16));
        assert_eq!((old.document_symbols, old.workspace_symbols), (true, false));
        let new = of(r#"{"capabilities": {"textDocumentSync": {"change": 0, "save": {"includeText": true}},
                "workspaceSymbolProvider": {"resolveProvider": true}, "positionEncoding": "utf-8"}}"#);
        assert_eq!((new.changes, new.saves, new.encoding), (Changes::Unwanted, Some(true), Encoding::Utf8));
        assert_eq!((new.document_symbols, new.workspace_symbols), (false, true));
        assert_eq!(of(r#"{"capabilities": {}, "offsetEncoding": "utf-32"}"#).encoding, Encoding::Utf32);
        assert_eq!(of("null").changes, Changes::Whole);
    }

    #[test]
    fn a_project_is_told_with_an_escaped_absolute_uri() {
        let told = serde_json::to_value(params(Path::new("/a b/#c"), None)).unwrap();
        assert_eq!(told["rootUri"], "file:///a%20b/%23c");
        assert_eq!(told["workspaceFolders"][0]["name"], "#c");
        assert_eq!(told["capabilities"]["general"]["positionEncodings"][0], "utf-16");
        assert_eq!(
            told["capabilities"]["textDocument"]["documentSymbol"]["symbolKind"]["valueSet"]
                .as_array()
                .unwrap()
                .len(),
            26
        );
    }
}
