//! Servers' answers in the shape that clients accept (contract `lsp.md` 2).
//!
//! Clients are strict: one `null` where they want a text fails a whole reply. Servers are not: older ones leave out
//! what newer protocols want, and each has its own choice of shapes. So every member is read by itself, and one that
//! makes no sense is as good as absent. An element without what it cannot do without is left out alone.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::uri::canonical;
use super::wire::{
    CompletionItem, CompletionList, Diagnostic, FileEdits, FileOperation, Hover, Location, Markup, Range,
    Symbol, TextEdit, WorkspaceEdit,
};

/// LSP's SymbolKind for a symbol without one: Variable.
const VARIABLE: i64 = 13;

/// A member that may be anything: none when it is not what is wanted.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// As [`lenient`], for what is looked at later.
fn elements<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// The elements of an array; none of anything else.
fn array(json: &[u8]) -> Vec<&RawValue> {
    serde_json::from_slice(json).unwrap_or_default()
}

/// The elements of an array, or the one value that stands for it; none of `null`.
fn one_or_many(json: &[u8]) -> Vec<&RawValue> {
    match serde_json::from_slice::<Vec<&RawValue>>(json) {
        Ok(many) => many,
        Err(_) => {
            serde_json::from_slice::<&RawValue>(json).into_iter().filter(|one| one.get() != "null").collect()
        }
    }
}

fn parsed<'a, T: Deserialize<'a>>(raw: &&'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// Of `textDocument/completion`.
pub(super) fn completions(json: &[u8]) -> CompletionList {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct List<'a> {
        #[serde(deserialize_with = "lenient")]
        is_incomplete: Option<bool>,
        #[serde(borrow, deserialize_with = "elements")]
        items: Vec<&'a RawValue>,
    }
    let list: List<'_> = match serde_json::from_slice(json) {
        Ok(items) => List { is_incomplete: None, items },
        Err(_) => serde_json::from_slice(json).unwrap_or_default(),
    };
    CompletionList {
        is_incomplete: list.is_incomplete.unwrap_or_default(),
        items: list.items.iter().filter_map(completion).collect(),
    }
}

fn completion(raw: &&RawValue) -> Option<CompletionItem> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Item {
        #[serde(deserialize_with = "lenient")]
        label: Option<String>,
        #[serde(deserialize_with = "lenient")]
        kind: Option<i64>,
        #[serde(deserialize_with = "lenient")]
        detail: Option<String>,
        #[serde(deserialize_with = "lenient")]
        documentation: Option<Value>,
        #[serde(deserialize_with = "lenient")]
        sort_text: Option<String>,
        #[serde(deserialize_with = "lenient")]
        filter_text: Option<String>,
        #[serde(deserialize_with = "lenient")]
        insert_text: Option<String>,
    }
    let item: Item = parsed(raw)?;
    Some(CompletionItem {
        label: item.label.or_else(|| item.insert_text.clone())?,
        kind: item.kind,
        detail: item.detail,
        documentation: item.documentation.as_ref().and_then(markup),
        sort_text: item.sort_text,
        filter_text: item.filter_text,
        insert_text: item.insert_text,
    })
}

/// `MarkupContent`, a text, a `MarkedString`, or an array of them.
fn markup(value: &Value) -> Option<Markup> {
    match value {
        Value::String(text) => Some(Markup { kind: "plaintext".to_owned(), value: text.clone() }),
        Value::Object(members) => {
            let text = members.get("value")?.as_str()?;
            match (
                members.get("language").and_then(Value::as_str),
                members.get("kind").and_then(Value::as_str),
            ) {
                (Some(language), _) => {
                    Some(Markup { kind: "markdown".to_owned(), value: format!("```{language}\n{text}\n```") })
                }
                (None, kind) => {
                    Some(Markup { kind: kind.unwrap_or("plaintext").to_owned(), value: text.to_owned() })
                }
            }
        }
        Value::Array(parts) => {
            let parts: Vec<String> = parts
                .iter()
                .filter_map(markup)
                .map(|part| part.value)
                .filter(|text| !text.is_empty())
                .collect();
            (!parts.is_empty()).then(|| Markup { kind: "markdown".to_owned(), value: parts.join("\n\n") })
        }
        _ => None,
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawLocation {
    #[serde(deserialize_with = "lenient")]
    uri: Option<String>,
    #[serde(deserialize_with = "lenient")]
    range: Option<Range>,
    // Of a LocationLink.
    #[serde(deserialize_with = "lenient")]
    target_uri: Option<String>,
    #[serde(deserialize_with = "lenient")]
    target_range: Option<Range>,
    #[serde(deserialize_with = "lenient")]
    target_selection_range: Option<Range>,
}

impl RawLocation {
    /// A file as a whole is its beginning.
    fn location(self) -> Option<Location> {
        let range = self.range.or(self.target_selection_range).or(self.target_range).unwrap_or_default();
        Some(Location { uri: canonical(&self.uri.or(self.target_uri)?), range })
    }
}

/// Of `textDocument/definition` and `textDocument/references`.
pub(super) fn locations(json: &[u8]) -> Vec<Location> {
    one_or_many(json).iter().filter_map(|raw| parsed::<RawLocation>(raw)?.location()).collect()
}

/// Of `textDocument/documentSymbol` and `workspace/symbol`: flat, also when the server sends a tree, in its order.
/// `document` is the URI of those that come without one.
pub(super) fn symbols(json: &[u8], document: Option<&str>) -> Vec<Symbol> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct RawSymbol<'a> {
        #[serde(deserialize_with = "lenient")]
        name: Option<String>,
        #[serde(deserialize_with = "lenient")]
        kind: Option<i64>,
        #[serde(deserialize_with = "lenient")]
        location: Option<RawLocation>,
        #[serde(deserialize_with = "lenient")]
        range: Option<Range>,
        #[serde(deserialize_with = "lenient")]
        selection_range: Option<Range>,
        #[serde(borrow, deserialize_with = "elements")]
        children: Vec<&'a RawValue>,
    }
    let mut symbols = Vec::new();
    let mut waiting: Vec<&RawValue> = array(json);
    waiting.reverse();
    while let Some(raw) = waiting.pop() {
        let Some(symbol) = parsed::<RawSymbol<'_>>(&raw) else { continue };
        waiting.extend(symbol.children.iter().rev());
        let location = match symbol.location.and_then(RawLocation::location) {
            Some(location) => Some(location),
            None => document.map(|document| Location {
                uri: document.to_owned(),
                range: symbol.range.or(symbol.selection_range).unwrap_or_default(),
            }),
        };
        if let (Some(name), Some(location)) = (symbol.name, location) {
            symbols.push(Symbol { name, kind: symbol.kind.unwrap_or(VARIABLE), location });
        }
    }
    symbols
}

/// Of `textDocument/hover`.
pub(super) fn hover(json: &[u8]) -> Hover {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct RawHover {
        #[serde(deserialize_with = "lenient")]
        contents: Option<Value>,
        #[serde(deserialize_with = "lenient")]
        range: Option<Range>,
    }
    let hover: RawHover = serde_json::from_slice(json).unwrap_or_default();
    let contents = hover.contents.as_ref().and_then(markup).filter(|contents| !contents.value.is_empty());
    Hover { range: hover.range.filter(|_| contents.is_some()), contents }
}

/// Of `textDocument/formatting`.
pub(super) fn edits(json: &[u8]) -> Vec<TextEdit> {
    array(json).iter().filter_map(parsed).collect()
}

/// Of `textDocument/rename`: `documentChanges` where there are both.
pub(super) fn workspace_edit(json: &[u8]) -> WorkspaceEdit {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct RawEdit<'a> {
        #[serde(deserialize_with = "lenient")]
        changes: Option<std::collections::BTreeMap<String, Vec<TextEdit>>>,
        #[serde(borrow, deserialize_with = "elements")]
        document_changes: Vec<&'a RawValue>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Change<'a> {
        #[serde(deserialize_with = "lenient")]
        kind: Option<String>,
        #[serde(deserialize_with = "lenient")]
        uri: Option<String>,
        #[serde(deserialize_with = "lenient")]
        old_uri: Option<String>,
        #[serde(deserialize_with = "lenient")]
        new_uri: Option<String>,
        #[serde(deserialize_with = "lenient")]
        text_document: Option<RawLocation>,
        #[serde(borrow, deserialize_with = "elements")]
        edits: Vec<&'a RawValue>,
    }
    let raw: RawEdit<'_> = serde_json::from_slice(json).unwrap_or_default();
    let mut edit = WorkspaceEdit::default();
    for change in raw.document_changes.iter().filter_map(parsed::<Change<'_>>) {
        let uri = change.text_document.and_then(|document| document.uri);
        if let Some(kind) = change.kind {
            let Some(uri) = change.uri.or(change.old_uri) else { continue };
            let new_uri = change.new_uri.as_deref().map(canonical);
            edit.file_operations.push(FileOperation { kind, uri: canonical(&uri), new_uri });
        } else if let Some(uri) = uri {
            let edits = change.edits.iter().filter_map(parsed).collect();
            edit.changes.push(FileEdits { uri: canonical(&uri), edits });
        }
    }
    if raw.document_changes.is_empty() {
        let changes = raw.changes.unwrap_or_default().into_iter();
        edit.changes = changes.map(|(uri, edits)| FileEdits { uri: canonical(&uri), edits }).collect();
    }
    edit
}

/// Of `textDocument/publishDiagnostics`: its array, for the file with that URI.
pub(super) fn diagnostics(json: &[u8], uri: &str) -> Vec<Diagnostic> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct RawDiagnostic {
        #[serde(deserialize_with = "lenient")]
        range: Option<Range>,
        #[serde(deserialize_with = "lenient")]
        severity: Option<i64>,
        #[serde(deserialize_with = "lenient")]
        code: Option<Value>,
        #[serde(deserialize_with = "lenient")]
        source: Option<String>,
        #[serde(deserialize_with = "lenient")]
        message: Option<Value>,
    }
    let diagnostic = |raw: RawDiagnostic| {
        Some(Diagnostic {
            uri: uri.to_owned(),
            range: raw.range.unwrap_or_default(),
            severity: raw.severity,
            code: raw.code.and_then(|code| match code {
                Value::String(text) => Some(text),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            }),
            source: raw.source,
            message: raw.message.as_ref().and_then(markup)?.value,
        })
    };
    let mut diagnostics: Vec<_> = array(json).iter().filter_map(|raw| diagnostic(parsed(raw)?)).collect();
    diagnostics.sort_by_key(|diagnostic| diagnostic.range);
    diagnostics
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }

    fn range(line: u32) -> Value {
        json!({"start": {"line": line, "character": 0}, "end": {"line": line, "character": 5}})
    }

    #[test]
    fn completions_of_every_shape_become_a_list_without_nulls() {
        let items = json!([
            {"label": "a", "kind": 2, "documentation": "text", "detail": null, "sortText": "1", "data": {"x": 1}},
            {"label": "b", "kind": "odd", "documentation": {"kind": "markdown", "value": "*b*"}},
            {"label": "c", "documentation": {"value": "no kind"}, "insertText": 5},
            {"insertText": "d()"},
            {"kind": 3}, null, 7,
        ]);
        let expected = json!([
            {"label": "a", "kind": 2, "documentation": {"kind": "plaintext", "value": "text"}, "sortText": "1"},
            {"label": "b", "documentation": {"kind": "markdown", "value": "*b*"}},
            {"label": "c", "documentation": {"kind": "plaintext", "value": "no kind"}},
            {"label": "d()", "insertText": "d()"},
        ]);
        let shaped = |answer: &Value| serde_json::to_value(completions(&bytes(answer))).unwrap();
        assert_eq!(shaped(&items), json!({"isIncomplete": false, "items": expected}));
        assert_eq!(
            shaped(&json!({"isIncomplete": true, "items": items})),
            json!({"isIncomplete": true, "items": expected})
        );
        for nothing in
            [json!(null), json!({}), json!({"items": null, "isIncomplete": null}), json!([]), json!("x")]
        {
            assert_eq!(shaped(&nothing), json!({"isIncomplete": false, "items": []}), "{nothing}");
        }
    }

    #[test]
    fn trees_of_symbols_are_flattened_in_order() {
        let tree = json!([
            {"name": "A", "kind": 5, "range": range(0), "selectionRange": range(9), "children": [
                {"name": "a1", "kind": 6, "selectionRange": range(1), "children": [{"name": "a11", "range": range(2)}]},
                {"name": "a2", "kind": 6, "range": range(3), "children": null},
            ]},
            {"name": "B", "kind": 12, "location": {"uri": "file:///x y", "range": range(4)}, "containerName": "A"},
            {"kind": 1, "range": range(5)},
        ]);
        let flat = symbols(&bytes(&tree), Some("file:///doc"));
        let expected = json!([
            {"name": "A", "kind": 5, "location": {"uri": "file:///doc", "range": range(0)}},
            {"name": "a1", "kind": 6, "location": {"uri": "file:///doc", "range": range(1)}},
            {"name": "a11", "kind": 13, "location": {"uri": "file:///doc", "range": range(2)}},
            {"name": "a2", "kind": 6, "location": {"uri": "file:///doc", "range": range(3)}},
            {"name": "B", "kind": 12, "location": {"uri": "file:///x%20y", "range": range(4)}},
        ]);
        assert_eq!(serde_json::to_value(flat).unwrap(), expected);
        assert_eq!(symbols(b"null", None), []);
    }

    #[test]
    fn places_are_told_one_way() {
        let expected =
            [Location { uri: "file:///a".to_owned(), range: serde_json::from_value(range(1)).unwrap() }];
        for answer in [
            json!({"uri": "file:///a", "range": range(1)}),
            json!([{"uri": "file:///a", "range": range(1)}, {"range": range(2)}]),
            json!([{"targetUri": "file:///a", "targetRange": range(0), "targetSelectionRange": range(1)}]),
        ] {
            assert_eq!(locations(&bytes(&answer)), expected, "{answer}");
        }
        assert_eq!(locations(b"null"), []);
    }

    #[test]
    fn hover_of_every_shape_is_one_text() {
        for (contents, kind, value) in [
            (json!("x"), "plaintext", "x"),
            (json!({"kind": "markdown", "value": "x"}), "markdown", "x"),
            (json!({"language": "py", "value": "x"}), "markdown", "```py\nx\n```"),
            (json!(["a", {"language": "py", "value": "x"}, ""]), "markdown", "a\n\n```py\nx\n```"),
        ] {
            let shaped = hover(&bytes(&json!({"contents": contents}))).contents.unwrap();
            assert_eq!((shaped.kind.as_str(), shaped.value.as_str()), (kind, value));
        }
        for nothing in
            [json!(null), json!({"contents": ""}), json!({"contents": []}), json!({"contents": null})]
        {
            assert_eq!(serde_json::to_value(hover(&bytes(&nothing))).unwrap(), json!({}), "{nothing}");
        }
    }

    #[test]
    fn edits_are_sorted_by_file_whichever_way_they_come() {
        let edit = json!({"range": range(1), "newText": "n"});
        let expected = json!({"changes": [{"uri": "file:///a", "edits": [edit]}]});
        for answer in [
            json!({"changes": {"file:///a": [edit]}}),
            json!({"documentChanges": [{"textDocument": {"uri": "file:///a", "version": null}, "edits": [edit]}]}),
        ] {
            assert_eq!(serde_json::to_value(workspace_edit(&bytes(&answer))).unwrap(), expected);
        }
        let moves =
            json!({"documentChanges": [{"kind": "rename", "oldUri": "file:///a", "newUri": "file:///b"}]});
        let expected = json!([{"kind": "rename", "uri": "file:///a", "newUri": "file:///b"}]);
        assert_eq!(serde_json::to_value(workspace_edit(&bytes(&moves))).unwrap()["fileOperations"], expected);
        assert_eq!(workspace_edit(b"null"), WorkspaceEdit::default());
    }

    #[test]
    fn diagnostics_are_sorted_and_codes_are_text() {
        let published = json!([
            {"range": range(2), "message": "second", "severity": 1, "code": 2304, "source": "ts"},
            {"range": range(1), "message": {"kind": "markdown", "value": "first"}, "code": "E1", "tags": [1]},
            {"range": range(0)},
        ]);
        let expected = json!([
            {"uri": "file:///a", "range": range(1), "code": "E1", "message": "first"},
            {"uri": "file:///a", "range": range(2), "severity": 1, "code": "2304", "source": "ts", "message": "second"},
        ]);
        assert_eq!(serde_json::to_value(diagnostics(&bytes(&published), "file:///a")).unwrap(), expected);
    }
}
