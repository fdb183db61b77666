//! Lines with a mark in the output: how the wrappers of older SDKs pass charts on (contract `process.md` 3.2). They are
//! taken out of the result, whatever is in them.

use std::ops::Range;

use memchr::{memchr, memmem};

use super::chart::acceptable;
use crate::supervisor::{Chunk, OutputLog};

/// What such a line begins with.
const MARKER: &[u8] = b"dtn_artifact_k39fd2:";
/// Bytes read from a log at a time.
const READ: usize = 64 * 1024;
/// Longest line whose content is looked at, in bytes.
const LINE: usize = 16 * 1024 * 1024;
/// Lines that are taken out at most; more stay.
const LINES: usize = 10_000;
/// Bytes of charts that are taken at most.
const TOTAL: usize = 64 * 1024 * 1024;

/// What was found in an output.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Where the output is without such lines.
    pub(super) kept: Vec<Range<u64>>,
    /// Charts of these lines, as JSON that clients accept.
    pub(super) charts: Vec<String>,
}

/// Looks through the output of a program that has ended.
pub(super) async fn find(log: &OutputLog) -> Found {
    let mut scan = Scan::default();
    let mut offset = 0;
    loop {
        match log.read(offset, READ).await {
            Chunk::Data(pieces) => {
                for piece in pieces {
                    scan.push(offset, &piece.bytes);
                    offset += piece.bytes.len() as u64;
                }
            }
            Chunk::Gone { oldest } => {
                scan.skip();
                offset = oldest;
            }
            Chunk::Ended => return scan.finish(offset),
        }
    }
}

#[derive(Debug, Default)]
struct Scan {
    found: Found,
    /// Where what is kept began last.
    kept_from: u64,
    place: Place,
    chart_bytes: usize,
}

/// Where in a line the scan is.
#[derive(Debug)]
enum Place {
    /// As many bytes of the mark have been seen as there are from `start` on.
    Begin { start: u64, seen: usize },
    /// In a line without a mark.
    Plain,
    /// In a line with one.
    Marked { start: u64, content: Vec<u8> },
}

impl Default for Place {
    fn default() -> Self {
        Self::Begin { start: 0, seen: 0 }
    }
}

impl Scan {
    fn push(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(offset, bytes);
            offset += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    /// Goes on by some bytes; how many they were.
    fn step(&mut self, offset: u64, bytes: &[u8]) -> usize {
        match &mut self.place {
            Place::Begin { start, seen } => {
                let wanted = &MARKER[*seen..];
                let same = wanted.iter().zip(bytes).take_while(|(wanted, byte)| wanted == byte).count();
                *seen += same;
                if *seen == MARKER.len() && self.found.kept.len() < LINES {
                    self.place = Place::Marked { start: *start, content: Vec::new() };
                } else if same < bytes.len() {
                    self.place = Place::Plain;
                }
                same
            }
            Place::Plain => {
                // Only the beginning of a line that begins as the mark does is of interest, and the last one.
                let next =
                    memmem::find(bytes, b"\nd").or_else(|| bytes.ends_with(b"\n").then(|| bytes.len() - 1));
                let Some(end) = next else { return bytes.len() };
                self.place = Place::Begin { start: offset + end as u64 + 1, seen: 0 };
                end + 1
            }
            Place::Marked { content, .. } => {
                let end = memchr(b'\n', bytes);
                let length = end.unwrap_or(bytes.len());
                if content.len() + length <= LINE {
                    content.extend_from_slice(&bytes[..length]);
                }
                match end {
                    Some(end) => {
                        self.take_line(offset + end as u64 + 1);
                        end + 1
                    }
                    None => length,
                }
            }
        }
    }

    /// Takes the line out that ends before `end`.
    fn take_line(&mut self, end: u64) {
        let next = Place::Begin { start: end, seen: 0 };
        if let Place::Marked { start, content } = std::mem::replace(&mut self.place, next) {
            self.found.kept.push(self.kept_from..start);
            self.kept_from = end;
            let chart = chart(&content).filter(|chart| self.chart_bytes + chart.len() <= TOTAL);
            self.chart_bytes += chart.as_ref().map_or(0, String::len);
            self.found.charts.extend(chart);
        }
    }

    /// Bytes are missing: what comes next is in the middle of a line.
    fn skip(&mut self) {
        self.place = Place::Plain;
    }

    fn finish(mut self, end: u64) -> Found {
        self.take_line(end);
        self.found.kept.push(self.kept_from..end);
        self.found.kept.retain(|range| !range.is_empty());
        self.found
    }
}

/// The chart of a line's content.
fn chart(content: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Artifact<'a> {
        r#type: String,
        #[serde(borrow)]
        value: &'a serde_json::value::RawValue,
    }
    let artifact: Artifact<'_> = serde_json::from_slice(content).ok()?;
    (artifact.r#type == "chart").then(|| acceptable(artifact.value.get())).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str, cuts: &[usize]) -> (String, Vec<String>) {
        let (mut scan, mut offset) = (Scan::default(), 0);
        for cut in cuts.iter().copied().chain([text.len()]) {
            let end = (offset + cut).min(text.len());
            scan.push(offset as u64, &text.as_bytes()[offset..end]);
            offset = end;
        }
        let found = scan.finish(text.len() as u64);
        let kept = found.kept.iter().map(|range| &text[range.start as usize..range.end as usize]);
        (kept.collect(), found.charts)
    }

    const CHART: &str = "dtn_artifact_k39fd2:{\"type\":\"chart\",\"value\":{\"type\":\"line\"}}\n";

    #[test]
    fn marked_lines_are_taken_out() {
        let line = vec!["{\"type\":\"line\"}".to_owned()];
        assert_eq!(scan(&format!("a\n{CHART}b\n"), &[]), ("a\nb\n".into(), line.clone()));
        assert_eq!(scan(CHART.trim_end(), &[]), (String::new(), line));
        for (text, left) in [
            ("dtn_artifact_k39fd2:junk\nx", "x"),
            ("dtn_artifact_k39fd2:{\"type\":\"other\",\"value\":1}\n", ""),
            ("x dtn_artifact_k39fd2:{}\n", "x dtn_artifact_k39fd2:{}\n"),
            ("d\nd\ndtn\ndtn_artifact_k39fd2\n", "d\nd\ndtn\ndtn_artifact_k39fd2\n"),
            ("", ""),
        ] {
            assert_eq!(scan(text, &[]), (left.to_owned(), vec![]), "{text}");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_show(
            lines in prop::collection::vec(prop_oneof![Just(CHART.to_owned()), "[dtn_x]{0,3}\n", Just("dtn_artifact".to_owned())], 0..8),
            cuts in prop::collection::vec(0_usize..30, 0..60),
        ) {
            let text = lines.concat();
            prop_assert_eq!(scan(&text, &cuts), scan(&text, &[]));
        }
    }
}
