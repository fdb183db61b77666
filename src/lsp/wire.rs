//! JSON of language servers' endpoints (contract `lsp.md` 1 and 2).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, ErrorKind, Result};
use crate::http::extract::integral;

/// A body whose texts must not be empty.
pub(super) trait Body {
    /// Required texts by their names.
    fn texts(&self) -> Vec<(&'static str, &str)>;

    /// The body itself, when nothing is missing.
    fn checked(self) -> Result<Self>
    where
        Self: Sized,
    {
        match self.texts().iter().find(|(_, text)| text.is_empty()) {
            Some((name, _)) => Err(Error::new(ErrorKind::InvalidBody, format!("{name} is required"))),
            None => Ok(self),
        }
    }
}

/// Which server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LspServerRequest)]
pub(super) struct ServerRequest {
    /// `python`, `typescript`, `javascript`, and others that the daemon knows.
    #[serde(default)]
    #[schema(required = true)]
    pub(super) language_id: String,
    /// Directory of the project; relative to the working directory.
    #[serde(default)]
    #[schema(required = true)]
    pub(super) path_to_project: String,
}

impl Body for ServerRequest {
    fn texts(&self) -> Vec<(&'static str, &str)> {
        vec![("languageId", &self.language_id), ("pathToProject", &self.path_to_project)]
    }
}

macro_rules! document_bodies {
    ($($(#[$doc:meta])* $name:ident as $schema:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        #[schema(as = $schema)]
        pub(super) struct $name {
            /// `python`, `typescript`, `javascript`, and others that the daemon knows.
            #[serde(default)]
            #[schema(required = true)]
            pub(super) language_id: String,
            /// Directory of the project; relative to the working directory.
            #[serde(default)]
            #[schema(required = true)]
            pub(super) path_to_project: String,
            /// `file://` and a path, which may be relative, and may be percent-encoded.
            #[serde(default)]
            #[schema(required = true)]
            pub(super) uri: String,
            $($(#[$field_doc])* pub(super) $field: $type,)*
        }

        impl Body for $name {
            fn texts(&self) -> Vec<(&'static str, &str)> {
                vec![
                    ("languageId", &self.language_id),
                    ("pathToProject", &self.path_to_project),
                    ("uri", &self.uri),
                ]
            }
        }
    )*};
}

document_bodies! {
    /// Which document.
    DocumentRequest as LspDocumentRequest {}

    /// Where completions are wanted.
    CompletionRequest as LspCompletionParams {
        /// Where.
        position: Position,
        /// What made the client ask.
        #[serde(default)]
        context: Option<CompletionContext>,
    }

    /// A place in a document.
    PositionRequest as LspPositionRequest {
        /// Where.
        position: Position,
    }

    /// Whose uses are wanted.
    ReferencesRequest as LspReferencesRequest {
        /// Where.
        position: Position,
        /// Whether the declaration counts as a use; it does by default.
        #[serde(default = "yes")]
        include_declaration: bool,
    }

    /// What is to get another name.
    RenameRequest as LspRenameRequest {
        /// Where.
        position: Position,
        /// The new name.
        new_name: String,
    }

    /// What is to be formatted, and how.
    FormattingRequest as LspFormattingRequest {
        /// Columns of a level of indentation; 4 by default.
        #[serde(default = "four")]
        tab_size: u32,
        /// Whether to indent with spaces instead of tabs; true by default.
        #[serde(default = "yes")]
        insert_spaces: bool,
    }
}

fn yes() -> bool {
    true
}

fn four() -> u32 {
    4
}

/// A place between two characters: zero-based line, and column in UTF-16 units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
pub struct Position {
    /// From 0.
    #[serde(deserialize_with = "whole")]
    pub line: u32,
    /// UTF-16 units from the beginning of the line.
    #[serde(deserialize_with = "whole")]
    pub character: u32,
}

fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    integral(deserializer)?.ok_or_else(|| serde::de::Error::custom("null is not a whole number"))
}

/// From one place to another, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
pub struct Range {
    /// The first place.
    pub start: Position,
    /// The place after the last.
    pub end: Position,
}

/// What made the client ask for completions.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletionContext {
    /// 1: typing or by hand, 2: a trigger character, 3: the list before was incomplete.
    #[serde(deserialize_with = "whole")]
    pub trigger_kind: u32,
    /// Which character, with kind 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_character: Option<String>,
}

/// What may stand at a place.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletionList {
    /// Typing on may bring others.
    pub is_incomplete: bool,
    /// In the server's order.
    pub items: Vec<CompletionItem>,
}

/// One thing that may stand there.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletionItem {
    /// What to show.
    pub label: String,
    /// LSP's CompletionItemKind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<i64>,
    /// Type or symbol information.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is written about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documentation: Option<Markup>,
    /// What to sort by, instead of the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_text: Option<String>,
    /// What to filter by, instead of the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_text: Option<String>,
    /// What to insert, instead of the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insert_text: Option<String>,
}

/// Text of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MarkupContent)]
pub struct Markup {
    /// `plaintext` or `markdown`.
    pub kind: String,
    /// The text.
    pub value: String,
}

/// Something with a name.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = LspSymbol)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// LSP's SymbolKind.
    pub kind: i64,
    /// Where it is.
    pub location: Location,
}

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(as = LspLocation)]
pub struct Location {
    /// Absolute and percent-encoded: `file:///…`.
    pub uri: String,
    /// Which part.
    pub range: Range,
}

/// What is known of a thing.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = LspHover)]
pub struct Hover {
    /// Absent when nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<Markup>,
    /// The thing itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
}

/// A change of a document, which is not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LspTextEdit)]
pub struct TextEdit {
    /// What is replaced.
    pub range: Range,
    /// What stands there then.
    pub new_text: String,
}

/// All changes of one file. They do not overlap, and all are about the file as it is now.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = LspFileEdits)]
pub struct FileEdits {
    /// Which file.
    pub uri: String,
    /// Its changes.
    pub edits: Vec<TextEdit>,
}

/// A file that is made, moved or removed as part of a change.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LspFileOperation)]
pub struct FileOperation {
    /// `create`, `rename` or `delete`.
    pub kind: String,
    /// Which file.
    pub uri: String,
    /// Its URI after `rename`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_uri: Option<String>,
}

/// What a rename would change; nothing is changed.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LspWorkspaceEdit)]
pub struct WorkspaceEdit {
    /// By file.
    pub changes: Vec<FileEdits>,
    /// Absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub file_operations: Vec<FileOperation>,
}

/// Faults that the server found.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = LspDiagnostics)]
pub struct DiagnosticList {
    /// The server has come to rest; otherwise there may be more.
    pub settled: bool,
    /// By file and place.
    pub items: Vec<Diagnostic>,
}

/// One fault.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = LspDiagnostic)]
pub struct Diagnostic {
    /// In which file.
    pub uri: String,
    /// Where.
    pub range: Range,
    /// 1 error, 2 warning, 3 information, 4 hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<i64>,
    /// The rule's name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Which tool found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What is wrong.
    pub message: String,
}
