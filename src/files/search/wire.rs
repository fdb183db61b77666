//! JSON of the search endpoints (contract `files.md` 13, 14), written straight to bytes by the searching threads.
//!
//! Every entry begins with a comma; whoever puts them into an array leaves out the first.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::scan::Context;
use super::walk::Entry;
use super::{Find, Match};
use crate::error::{Error, Result};
use crate::http::extract::exactly_true;

/// Most lines of context on either side.
const CONTEXT_LINES: u32 = 100;

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct SearchQuery {
    /// Where to search; `path` itself is one of the entries.
    pub(super) path: String,
    /// Matched against whole base names, with case: `*` any run, `?` one character, `[a-z]` a class, `[^a-z]` its
    /// opposite, `\` takes the special meaning away.
    pub(super) pattern: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub(super) struct FindQuery {
    /// File or directory to search.
    path: String,
    /// What a line has to contain.
    pattern: String,
    /// `pattern` is a regular expression (Rust's `regex` syntax, one line at a time), not a literal.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    regex: bool,
    /// Upper and lower case are the same.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    ignore_case: bool,
    /// Only files that this matches, or with `!` in front only others. With a slash in it, it is for paths below
    /// `path`, else for base names; `**` and `{a,b}` are understood.
    glob: Option<String>,
    /// Leave out `.git` and what the `.gitignore` files of the tree, and of the repository around it, leave out.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    gitignore: bool,
    /// Most entries in the reply, which also has 16 MiB at most then. The header `X-Toolbox-Truncated` says whether
    /// there are more; the reply begins when that is known.
    #[param(minimum = 1)]
    pub(super) limit: Option<u32>,
    /// Give so many lines before each match, 100 at most. With this, `after` or `context`, entries have the members
    /// `before` and `after`.
    #[param(maximum = 100)]
    before: Option<u32>,
    /// Give so many lines after each match, 100 at most.
    #[param(maximum = 100)]
    after: Option<u32>,
    /// Both of these.
    #[param(maximum = 100)]
    context: Option<u32>,
}

impl FindQuery {
    /// What to look for.
    ///
    /// # Errors
    /// When a number is out of its bounds.
    pub(super) fn into_find(self) -> Result<Find> {
        if self.limit == Some(0) {
            return Err(Error::invalid("limit must be 1 or more"));
        }
        for (name, lines) in [("before", self.before), ("after", self.after), ("context", self.context)] {
            if lines.is_some_and(|lines| lines > CONTEXT_LINES) {
                return Err(Error::invalid(format!("{name} must be {CONTEXT_LINES} or less")));
            }
        }
        let lines = |own: Option<u32>| own.or(self.context).unwrap_or(0) as usize;
        let asked = self.before.or(self.after).or(self.context);
        Ok(Find {
            context: asked.map(|_| Context { before: lines(self.before), after: lines(self.after) }),
            path: self.path,
            pattern: self.pattern,
            regex: self.regex,
            ignore_case: self.ignore_case,
            glob: self.glob,
            gitignore: self.gitignore,
        })
    }
}

/// Entries that were found by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchFilesResponse)]
pub(super) struct FoundFiles {
    /// `path` as it was given, then paths below it; pre-order, names sorted byte-wise.
    files: Vec<String>,
}

/// A line that was found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Match)]
pub(super) struct FoundLine {
    /// The file, below `path` as it was given.
    file: String,
    /// Number of the line, from 1.
    line: u64,
    /// The line without its ending. Of a line longer than 64 KiB, 4 KiB around the match.
    content: String,
    /// Lines before it, when asked for; what lies within 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Vec<String>>,
    /// Lines after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Vec<String>>,
}

/// `,"path"`
pub(super) fn encode_name(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.push(b',');
    string(&[entry.parent, entry.name], out);
}

/// `,{"file":…,"line":…,"content":…}`, the shape of [`FoundLine`].
pub(super) fn encode_line(found: &Match<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",{\"file\":");
    string(&[found.entry.parent, found.entry.name], out);
    out.extend_from_slice(b",\"line\":");
    out.extend_from_slice(found.line.number.to_string().as_bytes());
    out.extend_from_slice(b",\"content\":");
    string(&[found.line.content], out);
    if found.has_context {
        for (name, lines) in [("before", &found.line.before), ("after", &found.line.after)] {
            out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
            for (number, line) in lines.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                string(&[line], out);
            }
            out.push(b']');
        }
    }
    out.push(b'}');
}

/// A JSON string of some parts; U+FFFD for each byte that is not UTF-8.
fn string(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in parts.iter().flat_map(|part| part.utf8_chunks()) {
        let mut rest = chunk.valid();
        while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            match rest.as_bytes()[at] {
                quoted @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', quoted]),
                b'\t' => out.extend_from_slice(b"\\t"),
                control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest.as_bytes());
        chunk.invalid().iter().for_each(|_| out.extend_from_slice("\u{FFFD}".as_bytes()));
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        string(&[bytes], &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn each_bad_byte_is_one_replacement_character() {
        assert_eq!(decoded(b"a\xe4\xb8\xffb"), "a\u{FFFD}\u{FFFD}\u{FFFD}b");
    }

    proptest! {
        #[test]
        fn text_survives(text in any::<String>()) {
            prop_assert_eq!(decoded(text.as_bytes()), text);
        }
    }
}
