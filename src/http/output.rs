//! Output logs in replies: as JSON strings, as text and as frames, written while the log is read.
//!
//! Clients that tell standard output from standard error get *units*: a marker of three bytes, then the bytes of one
//! stream (contract `process.md` 5.4). A unit is never cut inside a character, as some clients decode each by itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use super::socket::MAX_FRAME;
use crate::supervisor::{Chunk, OutputLog, Piece, Stream};

/// Bytes read from a log at a time, so that with their markers they fit into a frame most of the time.
const READ: usize = 60 * 1024;
/// Output up to this size is answered whole, with its length; more is sent in chunks.
const WHOLE: u64 = 64 * 1024;
/// In front of bytes of standard output.
const OUT_MARKER: [u8; 3] = [1; 3];
/// In front of bytes of standard error.
const ERR_MARKER: [u8; 3] = [2; 3];

/// Which bytes of a log, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All of them, streams not told apart.
    All,
    /// Those of one stream.
    Only(Stream),
    /// All of them, as units.
    Marked,
}

/// A part of a log, read from an offset.
#[derive(Debug, Clone)]
pub struct LogText {
    log: OutputLog,
    offset: u64,
    /// None reads on until the log has ended.
    until: Option<u64>,
    select: Select,
    units: Units,
}

impl LogText {
    /// The bytes from `range.start` to `range.end`, which are there already.
    pub fn between(log: &OutputLog, range: Range<u64>, select: Select) -> Self {
        let units = Units { held: Some(Default::default()) };
        Self { log: log.clone(), offset: range.start, until: Some(range.end), select, units }
    }

    /// From `offset` on, also what is yet to come.
    pub fn follow(log: &OutputLog, offset: u64, select: Select) -> Self {
        Self { until: None, ..Self::between(log, offset..0, select) }
    }

    /// Gives everything at once, so that [`LogText::offset`] is right after what was given; characters may be cut.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.units.held = None;
        self
    }

    /// Where the next bytes come from. What is held back for the rest of a character is before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes in the selected form, each item whole units; none at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Bytes>> {
        loop {
            let pieces = self.pieces().await;
            let is_end = pieces.is_none();
            let mut units = self.units.of(pieces.unwrap_or_default(), self.select);
            if is_end {
                units.extend(self.units.rest());
            }
            if !units.is_empty() {
                return Some(packed(&units, self.select));
            }
            if is_end {
                return None;
            }
        }
    }

    /// None at the end.
    async fn pieces(&mut self) -> Option<Vec<Piece>> {
        let left = self.until.map_or(u64::MAX, |until| until.saturating_sub(self.offset));
        if left == 0 {
            return None;
        }
        match self.log.read(self.offset, READ.min(usize::try_from(left).unwrap_or(READ))).await {
            Chunk::Data(pieces) => {
                self.offset += pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
                Some(pieces)
            }
            Chunk::Gone { oldest } => {
                let dropped = oldest - self.offset;
                self.offset = oldest;
                let stream = if let Select::Only(stream) = self.select { stream } else { Stream::Err };
                Some(vec![Piece { stream, bytes: notice(dropped) }])
            }
            Chunk::Ended => None,
        }
    }
}

/// What stands in the text where bytes of a log were dropped.
fn notice(dropped: u64) -> Bytes {
    format!("\n[toolboxd: {dropped} bytes of output were dropped here]\n").into()
}

/// Keeps characters whole: the beginning of one waits for its end, for each stream.
#[derive(Debug, Clone)]
struct Units {
    /// None lets everything pass at once.
    held: Option<[Bytes; 2]>,
}

impl Units {
    fn of(&mut self, pieces: Vec<Piece>, select: Select) -> Vec<Piece> {
        let wanted = |piece: &Piece| !matches!(select, Select::Only(stream) if stream != piece.stream);
        pieces.into_iter().filter(wanted).filter_map(|piece| self.whole(piece)).collect()
    }

    fn whole(&mut self, Piece { stream, bytes }: Piece) -> Option<Piece> {
        let Some(held) = self.held.as_mut().map(|held| &mut held[stream as usize - 1]) else {
            return Some(Piece { stream, bytes });
        };
        let mut bytes = if held.is_empty() { bytes } else { Bytes::from([&held[..], &bytes[..]].concat()) };
        *held = bytes.split_off(bytes.len() - incomplete(&bytes));
        (!bytes.is_empty()).then_some(Piece { stream, bytes })
    }

    fn rest(&mut self) -> impl Iterator<Item = Piece> {
        let held = self.held.as_mut().map(std::mem::take).unwrap_or_default();
        let pieces = [Stream::Out, Stream::Err].into_iter().zip(held);
        pieces.filter(|(_, bytes)| !bytes.is_empty()).map(|(stream, bytes)| Piece { stream, bytes })
    }
}

/// How many bytes at the end are the beginning of a character.
fn incomplete(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let lead = last.iter().rev().position(|byte| *byte >= 0xC0).map_or(0, |from_end| from_end + 1);
    if is_beginning(&last[last.len() - lead..]) { lead } else { 0 }
}

/// Puts whole units together, [`MAX_FRAME`] bytes at most in each item.
fn packed(units: &[Piece], select: Select) -> Vec<Bytes> {
    if let (Select::All | Select::Only(_), [only]) = (select, units) {
        return vec![only.bytes.clone()];
    }
    let (mut packed, mut open) = (Vec::new(), Vec::with_capacity(READ));
    for Piece { stream, bytes } in units {
        let marker: &[u8] = match (select, stream) {
            (Select::All | Select::Only(_), _) => &[],
            (Select::Marked, Stream::Out) => &OUT_MARKER,
            (Select::Marked, Stream::Err) => &ERR_MARKER,
        };
        if open.len() + marker.len() + bytes.len() > MAX_FRAME {
            packed.push(Bytes::from(std::mem::take(&mut open)));
        }
        open.extend_from_slice(marker);
        open.extend_from_slice(bytes);
    }
    packed.push(open.into());
    packed
}

/// A part of a JSON document.
#[derive(Debug)]
pub enum Part {
    /// JSON as it is.
    Json(String),
    /// A string with the text of a log.
    Log(LogText),
    /// A string with several parts of one, which it is without what is between them.
    Logs(VecDeque<LogText>),
}

/// A JSON document of parts, sent while the logs are read. Small ones are put together first and have a length.
pub async fn json_document(parts: Vec<Part>) -> Body {
    let length = |text: &LogText| text.until.map_or(u64::MAX, |until| until.saturating_sub(text.offset));
    let size = |part: &Part| match part {
        Part::Json(_) => 0,
        Part::Log(text) => length(text),
        Part::Logs(texts) => texts.iter().map(length).fold(0, u64::saturating_add),
    };
    let is_small = parts.iter().map(size).fold(0, u64::saturating_add) <= WHOLE;
    let mut document = Document { parts: parts.into(), escape: None };
    if is_small {
        let mut whole = Vec::new();
        while let Some(bytes) = document.next().await {
            whole.extend(bytes);
        }
        return Body::from(whole);
    }
    Body::from_stream(stream::unfold(document, async |mut document| {
        document.next().await.map(|bytes| (Ok::<_, Infallible>(Bytes::from(bytes)), document))
    }))
}

/// The text of a log as a body, sent while the log is read.
pub fn text_body(text: LogText) -> Body {
    Body::from_stream(stream::unfold(text, async |mut text| {
        text.next().await.map(|bytes| (Ok::<_, Infallible>(Bytes::from(bytes.concat())), text))
    }))
}

/// The end of a log from `offset` on, as text.
pub async fn tail(log: &OutputLog, offset: u64) -> String {
    let (mut text, mut bytes) = (LogText::between(log, offset..log.end(), Select::All), Vec::new());
    while let Some(more) = text.next().await {
        bytes.extend(more.concat());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A JSON string.
pub fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("any text is a JSON string")
}

struct Document {
    parts: VecDeque<Part>,
    /// Of the string that is being written.
    escape: Option<Escape>,
}

impl Document {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let next = match self.parts.front_mut()? {
            Part::Json(json) => {
                out = std::mem::take(json).into_bytes();
                self.parts.pop_front();
                return Some(out);
            }
            Part::Log(text) => text.next().await,
            Part::Logs(texts) => next_of(texts).await,
        };
        let escape = self.escape.get_or_insert_with(|| {
            out.push(b'"');
            Escape::default()
        });
        match next {
            Some(items) => items.iter().for_each(|bytes| escape.push(bytes, &mut out)),
            None => {
                escape.finish(&mut out);
                out.push(b'"');
                self.escape = None;
                self.parts.pop_front();
            }
        }
        Some(out)
    }
}

/// The next bytes of several parts of a log, one after the other.
async fn next_of(texts: &mut VecDeque<LogText>) -> Option<Vec<Bytes>> {
    loop {
        let items = texts.front_mut()?.next().await;
        if items.is_some() {
            return items;
        }
        texts.pop_front();
    }
}

/// Turns bytes into the inside of a JSON string, piece by piece; a character may be split between two of them.
#[derive(Debug, Default)]
struct Escape {
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Escape {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let joined;
        let mut rest = bytes;
        if !self.held.is_empty() {
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            rest = &joined;
        }
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            let quoted = json_string(chunk.valid());
            out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(invalid) {
                self.held.extend_from_slice(invalid);
            } else {
                replace(invalid, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        replace(&std::mem::take(&mut self.held), out);
    }
}

/// U+FFFD for each bad byte, as the contract has it.
fn replace(invalid: &[u8], out: &mut Vec<u8>) {
    invalid.iter().for_each(|_| out.extend_from_slice("\u{FFFD}".as_bytes()));
}

/// Whether more bytes could make a character of it.
fn is_beginning(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(bytes: &[u8], cuts: &[usize]) -> String {
        let (mut escape, mut out, mut from) = (Escape::default(), vec![b'"'], 0);
        for cut in cuts {
            let to = (from + cut).min(bytes.len());
            escape.push(&bytes[from..to], &mut out);
            from = to;
        }
        escape.push(&bytes[from..], &mut out);
        escape.finish(&mut out);
        out.push(b'"');
        serde_json::from_slice(&out).unwrap()
    }

    proptest! {
        #[test]
        fn cuts_do_not_show(
            text in prop::collection::vec(prop_oneof!["[a-z\"\\\\\n\0]", "é", "世", "🙂"].prop_map(String::into_bytes), 0..30),
            junk in prop::collection::vec(any::<u8>(), 0..6),
            cuts in prop::collection::vec(0_usize..4, 0..60),
        ) {
            let mut bytes: Vec<u8> = text.concat();
            let whole = escaped(&bytes, &cuts);
            prop_assert_eq!(whole.as_bytes(), &bytes[..]);
            bytes.extend(junk);
            prop_assert_eq!(escaped(&bytes, &cuts), escaped(&bytes, &[]));
        }
    }

    fn piece(stream: Stream, bytes: &'static [u8]) -> Piece {
        Piece { stream, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn units_are_marked_and_never_cut_a_character() {
        let mut units = Units { held: Some(Default::default()) };
        let pieces =
            vec![piece(Stream::Out, b"a\xe4\xb8"), piece(Stream::Err, b"x\xff"), piece(Stream::Out, b"\x96")];
        let whole = units.of(pieces, Select::Marked);
        let expected = Bytes::from_static(b"\x01\x01\x01a\x02\x02\x02x\xff\x01\x01\x01\xe4\xb8\x96");
        assert_eq!(packed(&whole, Select::Marked), [expected]);
        assert_eq!(units.rest().count(), 0);
        units.of(vec![piece(Stream::Out, b"\xf0\x9f")], Select::Marked);
        assert_eq!(units.rest().collect::<Vec<_>>(), [piece(Stream::Out, b"\xf0\x9f")]);
    }

    #[test]
    fn one_stream_alone_has_no_markers() {
        let pieces = vec![piece(Stream::Out, b"a"), piece(Stream::Err, b"b"), piece(Stream::Out, b"c")];
        let only = Units { held: Some(Default::default()) }.of(pieces.clone(), Select::Only(Stream::Out));
        assert_eq!(packed(&only, Select::Only(Stream::Out)), [Bytes::from("ac")]);
        let all = Units { held: Some(Default::default()) }.of(pieces, Select::All);
        assert_eq!(packed(&all, Select::All), [Bytes::from("abc")]);
    }

    #[test]
    fn only_the_beginning_of_a_character_waits() {
        for (bytes, waits) in [
            (&b"abc"[..], 0),
            (b"", 0),
            (b"a\xc3", 1),
            (b"\xe4\xb8", 2),
            (b"\xf0\x9f\x99", 3),
            ("é".as_bytes(), 0),
            (b"\xff", 0),
            (b"\x80\x80\x80", 0),
        ] {
            assert_eq!(incomplete(bytes), waits, "{bytes:x?}");
        }
    }

    #[test]
    fn each_bad_byte_is_one_replacement_character() {
        assert_eq!(escaped(b"a\xff\xfeb\xe4\xb8", &[]), "a\u{FFFD}\u{FFFD}b\u{FFFD}\u{FFFD}");
        assert_eq!(escaped(b"a\xe4\xb8", &[2, 1]), "a\u{FFFD}\u{FFFD}");
    }
}
