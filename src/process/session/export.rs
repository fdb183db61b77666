//! Each line that the entrypoint prints, for export.

use bytes::Bytes;

use crate::platform::shutdown::Shutdown;
use crate::platform::telemetry::Telemetry;
use crate::supervisor::{Chunk, OutputLog, Stream};

/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// Longest line, in bytes; a longer one is exported in pieces.
const LINE: usize = 16 * 1024;

/// Follows the log from its beginning once there is someone to tell, until it ends.
///
/// The log keeps what comes faster than it can be exported, so nothing is lost as long as it is kept there. When the
/// daemon stops nothing is waited for any more.
pub(super) async fn follow(log: OutputLog, telemetry: Telemetry, shutdown: Shutdown) {
    tokio::select! {
        () = telemetry.started() => {}
        () = shutdown.cancelled() => return,
    }
    let send = async |line: String, stream: Stream| {
        tokio::select! {
            biased;
            () = telemetry.entrypoint_line(line, stream == Stream::Err) => {}
            () = shutdown.cancelled() => {}
        }
    };
    let (mut out, mut err) = (Lines::default(), Lines::default());
    let mut offset = 0;
    loop {
        match log.read(offset, READ).await {
            Chunk::Data(pieces) => {
                for piece in pieces {
                    offset += piece.bytes.len() as u64;
                    let lines = if piece.stream == Stream::Err { &mut err } else { &mut out };
                    for line in lines.push(piece.bytes) {
                        send(line, piece.stream).await;
                    }
                }
            }
            Chunk::Gone { oldest } => offset = oldest,
            Chunk::Ended => break,
        }
    }
    for (lines, stream) in [(out, Stream::Out), (err, Stream::Err)] {
        if !lines.begun.is_empty() {
            send(text(&lines.begun), stream).await;
        }
    }
}

/// Puts lines together that come in pieces.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that end in `bytes`.
    fn push(&mut self, bytes: Bytes) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = part;
            while self.begun.len() + rest.len() > LINE {
                let (piece, after) = rest.split_at(LINE - self.begun.len());
                self.begun.extend_from_slice(piece);
                lines.push(text(&std::mem::take(&mut self.begun)));
                rest = after;
            }
            self.begun.extend_from_slice(rest);
            if self.begun.ends_with(b"\n") {
                lines.push(text(&std::mem::take(&mut self.begun)));
            }
        }
        lines
    }
}

/// Without the line's end.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(Bytes::from_static(b"a\r\n\nb")), ["a", ""]);
        assert_eq!(lines.push(Bytes::from_static(b"c\nd")), ["bc"]);
        let long = lines.push(Bytes::from(vec![b'x'; 2 * LINE]));
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [LINE, LINE]);
        assert_eq!(lines.push(Bytes::from_static(b"\n")), ["x"]);
    }
}
