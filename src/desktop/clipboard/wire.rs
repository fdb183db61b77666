//! JSON of the clipboard.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::desktop::x11::selection::{Content, Selection};
use crate::error::{Error, Result};

/// How every PNG file begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Which selection, and what of it.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct ClipboardQuery {
    /// `clipboard`, the default: what is copied; `primary`: what is marked.
    selection: Option<String>,
    /// `text`, the default, or `png`: what is preferred when it has both.
    prefer: Option<String>,
}

impl ClipboardQuery {
    pub(super) fn check(&self) -> Result<(Selection, bool)> {
        let prefers_png = match self.prefer.as_deref() {
            None | Some("text") => false,
            Some("png") => true,
            Some(other) => return Err(Error::invalid(format!("prefer must be text or png, not {other:?}"))),
        };
        Ok((selection(self.selection.as_deref())?, prefers_png))
    }
}

fn selection(name: Option<&str>) -> Result<Selection> {
    match name {
        None | Some("clipboard") => Ok(Selection::Clipboard),
        Some("primary") => Ok(Selection::Primary),
        Some(other) => Err(Error::invalid(format!("selection must be clipboard or primary, not {other:?}"))),
    }
}

/// What a selection holds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Clipboard {
    /// Null when it has no text.
    text: Option<String>,
    /// A PNG file in base64; null when it has no picture, or text that was preferred.
    image: Option<String>,
}

impl From<Option<Content>> for Clipboard {
    fn from(content: Option<Content>) -> Self {
        match content {
            Some(Content::Text(text)) => Self { text: Some(text), image: None },
            Some(Content::Png(png)) => Self { text: None, image: Some(STANDARD.encode(png)) },
            None => Self { text: None, image: None },
        }
    }
}

/// What a selection is to hold: text or a picture.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SetClipboard {
    /// Text.
    text: Option<String>,
    /// A PNG file in base64.
    image: Option<String>,
    /// `clipboard`, the default, or `primary`.
    selection: Option<String>,
}

impl SetClipboard {
    pub(super) fn check(self) -> Result<(Selection, Content)> {
        let selection = selection(self.selection.as_deref())?;
        let content = match (self.text, self.image) {
            (Some(text), None) => Content::Text(text),
            (None, Some(image)) => {
                let bytes = STANDARD
                    .decode(image.trim())
                    .map_err(|error| Error::invalid(format!("image is not base64: {error}")))?;
                if !bytes.starts_with(PNG) {
                    return Err(Error::invalid("image is not a PNG file"));
                }
                Content::Png(Bytes::from(bytes))
            }
            _ => return Err(Error::invalid("one of text and image is required")),
        };
        Ok((selection, content))
    }
}
