//! What language servers write, byte by byte: no input panics, where it is cut does not show, and memory follows what
//! came, not what was announced.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;
use toolboxd::lsp::framing::{Codec, MAX_MESSAGE, framed};

/// Every message up to the first fault, and whether there was one.
fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, bool) {
    let (mut codec, mut read, mut messages) = (Codec::new(), BytesMut::new(), Vec::new());
    let mut came = 0;
    for piece in pieces {
        came += piece.len();
        read.extend_from_slice(piece);
        loop {
            match codec.decode(&mut read) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
        assert!(read.capacity() <= 2 * came + 1024 * 1024, "{} for {came}", read.capacity());
    }
    (messages, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    let (whole, is_faulty) = decoded(std::iter::once(stream));
    let cut = decoded(stream.chunks(usize::from(size).max(1)));
    assert_eq!((&cut.0, cut.1), (&whole, is_faulty));
    assert!(whole.iter().all(|message| message.len() <= MAX_MESSAGE));
    let again: Vec<u8> = whole.iter().flat_map(|message| framed(message)).collect();
    assert_eq!(decoded(std::iter::once(&again[..])), (whole, false));
});
