//! Messages in a stream of bytes: `Content-Length`, an empty line, that many bytes (LSP 3.17, base protocol).
//!
//! Servers are programs of many makers, started through scripts of more: some print a line of their own where only
//! messages belong. Such lines are skipped, up to a bound, so that a greeting does not cost the conversation.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// Largest message taken, in bytes: the symbols of a large project are some megabytes.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Most bytes that may stand where a head is expected, lines that are none included.
const MAX_HEAD: usize = 64 * 1024;
/// Room made for a message before it has come; more when as much has.
const RESERVED: usize = 256 * 1024;
const LENGTH: &[u8] = b"content-length:";

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no message, so where the next one begins is not known.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Takes messages out of what was read so far.
#[derive(Debug, Default)]
pub struct Codec {
    /// Bytes that were looked through for the end of a line.
    searched: usize,
    /// Bytes of the head so far.
    head: usize,
    length: Option<usize>,
    /// The head has ended.
    in_body: bool,
}

impl Codec {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    fn line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            self.in_body = self.length.is_some();
            return Ok(());
        }
        // Perhaps behind something that was printed without an end of line.
        let lower = line.to_ascii_lowercase();
        let Some(at) = memchr::memmem::rfind(&lower, LENGTH) else { return Ok(()) };
        let value = line[at + LENGTH.len()..].trim_ascii();
        let length = std::str::from_utf8(value).ok().and_then(|value| value.parse::<usize>().ok());
        let shown = || String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
        match length {
            None => Err(FramingError::Malformed(format!("Content-Length is {:?}", shown()))),
            Some(length) if length > MAX_MESSAGE => Err(FramingError::Malformed(format!(
                "{length} bytes announced, and {MAX_MESSAGE} are the most"
            ))),
            Some(length) => {
                self.length = Some(length);
                Ok(())
            }
        }
    }
}

impl Decoder for Codec {
    type Item = Bytes;
    type Error = FramingError;

    fn decode(&mut self, read: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        while !self.in_body {
            let Some(end) = memchr::memchr(b'\n', &read[self.searched..]) else {
                self.searched = read.len();
                if self.head + read.len() > MAX_HEAD {
                    return Err(FramingError::Malformed("no Content-Length".to_owned()));
                }
                return Ok(None);
            };
            let line = read.split_to(self.searched + end + 1);
            self.searched = 0;
            self.head += line.len();
            if self.head > MAX_HEAD {
                return Err(FramingError::Malformed("no Content-Length".to_owned()));
            }
            self.line(&line)?;
        }
        let length = self.length.unwrap_or_default();
        if read.len() < length {
            read.reserve((length - read.len()).min(RESERVED.max(read.len())));
            return Ok(None);
        }
        *self = Self::default();
        Ok(Some(read.split_to(length).freeze()))
    }

    fn decode_eof(&mut self, read: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        let message = self.decode(read)?;
        if message.is_none() {
            read.advance(read.len()); // an end in the middle of a message is an end
        }
        Ok(message)
    }
}

/// A message with its head, ready to be written.
pub fn framed(message: &[u8]) -> Bytes {
    let head = format!("Content-Length: {}\r\n\r\n", message.len());
    [head.as_bytes(), message].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All messages of a stream that comes in the given pieces, or what is wrong with it.
    fn decoded(pieces: &[&[u8]]) -> Result<Vec<Bytes>, String> {
        let (mut codec, mut read, mut messages) = (Codec::new(), BytesMut::new(), Vec::new());
        for piece in pieces {
            read.extend_from_slice(piece);
            while let Some(message) = codec.decode(&mut read).map_err(|error| error.to_string())? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn names_are_in_any_case_and_other_fields_do_not_count() {
        let stream = b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-LENGTH:2\r\n\r\n{}\
            Content-Length: 0\r\n\r\nContent-Length: 1\n\n1";
        assert_eq!(decoded(&[stream]).unwrap(), ["{}", "", "1"]);
    }

    #[test]
    fn what_a_server_prints_between_messages_is_skipped() {
        let stream =
            b"Welcome!\n\nwarning: 5 things\nContent-Length: 2\r\n\r\n{}oopsContent-Length: 1\r\n\r\n3";
        assert_eq!(decoded(&[stream]).unwrap(), ["{}", "3"]);
        let endless = b"all work and no play\n".repeat(MAX_HEAD / 20);
        assert_eq!(decoded(&[&endless]).unwrap_err(), "malformed message: no Content-Length");
        let one_line = vec![b'x'; MAX_HEAD + 1];
        assert_eq!(decoded(&[&one_line]).unwrap_err(), "malformed message: no Content-Length");
    }

    #[test]
    fn bad_lengths_are_told() {
        for (length, told) in [
            ("-1", "Content-Length is \"-1\""),
            ("two", "Content-Length is \"two\""),
            ("", "Content-Length is \"\""),
            ("99999999999", "99999999999 bytes announced, and 67108864 are the most"),
            ("99999999999999999999999", "Content-Length is \"99999999999999999999999\""),
        ] {
            let error = decoded(&[format!("Content-Length: {length}\r\n\r\n").as_bytes()]).unwrap_err();
            assert_eq!(error, format!("malformed message: {told}"));
        }
    }

    #[test]
    fn a_large_message_takes_no_room_before_it_has_come() {
        let (mut codec, mut read) = (Codec::new(), BytesMut::new());
        read.extend_from_slice(format!("Content-Length: {MAX_MESSAGE}\r\n\r\n").as_bytes());
        assert_eq!(codec.decode(&mut read).unwrap(), None);
        assert!(read.capacity() <= 2 * RESERVED, "{}", read.capacity());
    }

    proptest! {
        #[test]
        fn where_a_stream_is_cut_does_not_show(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in prop::collection::vec(1_usize..9, 0..80),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(decoded(&pieces).unwrap(), messages);
        }

        #[test]
        fn bytes_of_any_kind_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decoded(&[&bytes]);
        }
    }
}
