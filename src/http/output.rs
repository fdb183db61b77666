//! Output logs as text in replies: valid UTF-8, whatever the program printed, written while the log is read.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use crate::supervisor::{Chunk, OutputLog, Piece};

/// Bytes read from a log at a time.
const READ: usize = 64 * 1024;
/// Output up to this size is answered whole, with its length; more is sent in chunks.
const WHOLE: u64 = 64 * 1024;

/// What stands in the text where bytes of a log were dropped.
fn notice(dropped: u64) -> Vec<u8> {
    format!("\n[toolboxd: {dropped} bytes of output were dropped here]\n").into_bytes()
}

/// A JSON document with the output of an ended process as its last member: `start` goes up to the value's place, `end`
/// closes the document.
pub async fn json_document(start: String, output: OutputLog, end: &'static str) -> Body {
    let is_small = output.end() <= WHOLE;
    let mut text =
        JsonText { log: output, offset: 0, escape: Escape::default(), state: State::Start(start), end };
    if !is_small {
        return Body::from_stream(stream::unfold(text, async |mut text| {
            text.next().await.map(|bytes| (Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), text))
        }));
    }
    let mut whole = Vec::new();
    while let Some(bytes) = text.next().await {
        whole.extend(bytes);
    }
    Body::from(whole)
}

/// The end of a log from `offset` on, as text.
pub async fn tail(output: &OutputLog, mut offset: u64) -> String {
    let mut bytes = Vec::new();
    loop {
        match output.read(offset, READ).await {
            Chunk::Data(pieces) => pieces.iter().for_each(|piece| {
                offset += piece.bytes.len() as u64;
                bytes.extend_from_slice(&piece.bytes);
            }),
            Chunk::Gone { oldest } => {
                bytes.extend(notice(oldest - offset));
                offset = oldest;
            }
            Chunk::Ended => return String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

/// A JSON string.
pub fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("any text is a JSON string")
}

struct JsonText {
    log: OutputLog,
    offset: u64,
    escape: Escape,
    state: State,
    end: &'static str,
}

enum State {
    Start(String),
    Log,
    Done,
}

impl JsonText {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match std::mem::replace(&mut self.state, State::Log) {
            State::Done => return None,
            State::Start(start) => {
                out = start.into_bytes();
                out.push(b'"');
            }
            State::Log => match self.log.read(self.offset, READ).await {
                Chunk::Data(pieces) => pieces.iter().for_each(|Piece { bytes, .. }| {
                    self.offset += bytes.len() as u64;
                    self.escape.push(bytes, &mut out);
                }),
                Chunk::Gone { oldest } => {
                    self.escape.push(&notice(oldest - self.offset), &mut out);
                    self.offset = oldest;
                }
                Chunk::Ended => {
                    self.escape.finish(&mut out);
                    out.push(b'"');
                    out.extend_from_slice(self.end.as_bytes());
                    self.state = State::Done;
                }
            },
        }
        Some(out)
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

    #[test]
    fn each_bad_byte_is_one_replacement_character() {
        assert_eq!(escaped(b"a\xff\xfeb\xe4\xb8", &[]), "a\u{FFFD}\u{FFFD}b\u{FFFD}\u{FFFD}");
        assert_eq!(escaped(b"a\xe4\xb8", &[2, 1]), "a\u{FFFD}\u{FFFD}");
    }
}
