//! From bytes that code prints to pieces of text.
//!
//! A line is one piece wherever its parts come from, as `print` writes text and line break one after the other: the
//! beginning of a line waits a little for its end. A character is never cut.

use std::time::Duration;

use tokio::time::Instant;

use crate::supervisor::Stream;

/// How long the beginning of a line waits for its end.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longer beginnings do not wait, in bytes.
const LONG: usize = 1024;
/// Longest piece, in bytes, so that as JSON it mostly fits into a frame.
pub(super) const PIECE: usize = 48 * 1024;

/// The text of one stream.
#[derive(Debug)]
pub(super) struct Text {
    /// Which one.
    pub(super) stream: Stream,
    held: Vec<u8>,
    since: Option<Instant>,
}

impl Text {
    /// Nothing yet.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, held: Vec::new(), since: None }
    }

    /// Adds bytes; gives what can be told now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.held.extend_from_slice(bytes);
        let lines = memchr::memrchr(b'\n', &self.held).map_or(0, |end| end + 1);
        let is_long = self.held.len() - lines >= LONG;
        let ready = if is_long { self.held.len() - incomplete(&self.held) } else { lines };
        let pieces = self.take(ready);
        if self.held.is_empty() {
            self.since = None;
        } else if self.since.is_none() || !pieces.is_empty() {
            self.since = Some(Instant::now());
        }
        pieces
    }

    /// When to ask [`Text::waited`].
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    /// What has waited long enough. The beginning of a character waits on.
    pub(super) fn waited(&mut self) -> Vec<String> {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return Vec::new();
        }
        self.since = None;
        self.take(self.held.len() - incomplete(&self.held))
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.since = None;
        self.take(self.held.len())
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        let mut rest = &self.held[..count];
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let mut end = rest.len().min(PIECE);
            if end < rest.len() {
                end -= incomplete(&rest[..end]);
            }
            pieces.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            rest = &rest[end..];
        }
        self.held.drain(..count);
        pieces
    }
}

/// How many bytes at the end are the beginning of a character.
fn incomplete(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let Some(lead) = last.iter().rposition(|byte| *byte >= 0xC0) else { return 0 };
    let tail = &last[lead..];
    let is_beginning = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
    if is_beginning { tail.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_told_at_once_and_their_beginnings_after_a_while() {
        let mut text = Text::new(Stream::Out);
        assert!(text.push(b"hello").is_empty());
        assert_eq!(text.push(b"\n"), ["hello\n"]);
        assert_eq!(text.due(), None);
        assert_eq!(text.push(b"a\nb\nname: "), ["a\nb\n"]);
        assert!(text.waited().is_empty());
        tokio::time::sleep_until(text.due().unwrap()).await;
        assert_eq!(text.waited(), ["name: "]);
        assert_eq!(text.due(), None);
        assert_eq!(text.push(&[b'x'; LONG]), ["x".repeat(LONG)]);
    }

    #[tokio::test(start_paused = true)]
    async fn characters_are_not_cut() {
        let mut text = Text::new(Stream::Out);
        assert!(text.push(b"\xe4\xb8").is_empty());
        tokio::time::sleep_until(text.due().unwrap()).await;
        assert!(text.waited().is_empty());
        assert_eq!(text.push(b"\x96\n"), ["世\n"]);
        text.push(b"\xff\xe4");
        assert_eq!(text.rest(), ["\u{FFFD}\u{FFFD}"]);
        let long = "世".repeat(PIECE);
        assert!(text.push(format!("{long}\n").as_bytes()).iter().all(|piece| !piece.contains('\u{FFFD}')));
    }

    proptest! {
        #[test]
        fn nothing_is_lost(parts in prop::collection::vec("[a\n世é]{0,700}", 0..8), cut in 1_usize..50) {
            let whole = parts.concat();
            let mut text = Text::new(Stream::Err);
            let mut told: String = whole.as_bytes().chunks(cut).flat_map(|bytes| text.push(bytes)).collect();
            told.extend(text.rest());
            prop_assert_eq!(told, whole);
        }
    }
}
