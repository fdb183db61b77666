//! JSON of watches.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::tree::Change;
use crate::http::extract::exactly_true;

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct WatchQuery {
    /// File or directory to watch.
    pub(super) path: String,
    /// Watch everything below it too, also what is made later. Links are not followed.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    pub(super) recursive: bool,
}

/// A change. Paths are below `path` as it was given.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(super) enum WatchEvent {
    /// The first event: what happens from now on is told.
    Ready,
    /// Made, or moved here from outside.
    Create { path: String, is_dir: bool },
    /// Content or attributes have changed, or another file took the place of a single watched one. Repetitions are left
    /// out while nothing else happens.
    Modify { path: String, is_dir: bool },
    /// Removed, or moved out. When `path` is what is watched, this is the last event.
    Delete { path: String, is_dir: bool },
    /// Moved within the tree.
    Rename { from: String, to: String, is_dir: bool },
    /// Changes were lost because they came faster than they were taken. What happens from now on is told again; what is
    /// there has to be listed.
    Overflow,
    /// This directory, and perhaps others, cannot be watched: the system's limit on watches is reached.
    Limit { path: String },
}

impl From<Change> for WatchEvent {
    fn from(change: Change) -> Self {
        let text = |path: Vec<u8>| {
            let mut text = String::new();
            for chunk in path.utf8_chunks() {
                text.push_str(chunk.valid());
                chunk.invalid().iter().for_each(|_| text.push(char::REPLACEMENT_CHARACTER));
            }
            text
        };
        match change {
            Change::Ready => Self::Ready,
            Change::Created { path, is_directory } => Self::Create { path: text(path), is_dir: is_directory },
            Change::Modified { path, is_directory } => {
                Self::Modify { path: text(path), is_dir: is_directory }
            }
            Change::Deleted { path, is_directory } => Self::Delete { path: text(path), is_dir: is_directory },
            Change::Renamed { from, to, is_directory } => {
                Self::Rename { from: text(from), to: text(to), is_dir: is_directory }
            }
            Change::Overflow => Self::Overflow,
            Change::Limit { path } => Self::Limit { path: text(path) },
        }
    }
}

impl WatchEvent {
    /// The event as one line of JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("an event is plain JSON")
    }
}
