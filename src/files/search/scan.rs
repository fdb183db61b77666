//! Finds matching lines in one file, in bounded memory whatever the length of file and lines.
//!
//! A window moves over the file. Whole blocks of lines are searched at once, so a file without a match costs little
//! more than reading it; lines are told apart, and counted, around matches only. grep-searcher does this too, but
//! its window grows with the longest line or gives the file up.

use std::ops::Range;
use std::os::fd::OwnedFd;

use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};

use crate::error::{Error, Result};

/// Size of the window, in bytes.
const WINDOW: usize = 256 * 1024;
/// Lines up to this length, in bytes, are given whole: as long as the original daemon could give.
const WHOLE_LINE: usize = 64 * 1024;
/// Of a longer line, this much around its first match is given.
const EXCERPT: usize = 4 * 1024;
/// A NUL in so many first bytes means a binary file.
const BINARY: usize = 512;

/// What to look for in a line.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// These bytes.
    Literal(Box<Finder<'static>>),
    /// Anything that this matches.
    Regex(Box<RegexMatcher>),
    /// A literal with a line ending in it: no line has one.
    Nothing,
}

impl Pattern {
    /// Compiles a pattern; a literal is one unless `regex`.
    ///
    /// # Errors
    /// When the regular expression is malformed, too large, or can only match across lines.
    pub(super) fn new(pattern: &str, regex: bool, ignore_case: bool) -> Result<Self> {
        if !regex && pattern.contains('\n') {
            return Ok(Self::Nothing);
        }
        if !regex && !ignore_case {
            return Ok(Self::Literal(Box::new(Finder::new(pattern).into_owned())));
        }
        let matcher = RegexMatcherBuilder::new()
            .fixed_strings(!regex)
            .case_insensitive(ignore_case)
            .multi_line(true)
            .crlf(true)
            .build(pattern)
            .map_err(|error| Error::invalid(format!("pattern is not a regular expression: {error}")))?;
        Ok(Self::Regex(Box::new(matcher)))
    }

    fn find(&self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        match self {
            Self::Literal(finder) => {
                let start = from + finder.find(&bytes[from..])?;
                Some(start..start + finder.needle().len())
            }
            Self::Regex(matcher) => {
                let found = matcher.find_at(bytes, from).ok().flatten()?; // it has no errors
                Some(found.start()..found.end())
            }
            Self::Nothing => None,
        }
    }

    /// What must stay in the window so that no match in a line longer than the window is cut.
    fn overlap(&self) -> usize {
        match self {
            Self::Literal(finder) => finder.needle().len().max(WHOLE_LINE),
            Self::Regex(_) | Self::Nothing => WHOLE_LINE,
        }
    }
}

/// A line with a match in it.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// The line without its ending; of a line longer than 64 KiB, 4 KiB around its first match.
    pub(super) content: &'a [u8],
    /// Lines before it, without their endings. Only what lies within 64 KiB.
    pub(super) before: Vec<&'a [u8]>,
    /// Lines after it.
    pub(super) after: Vec<&'a [u8]>,
}

/// How many lines around a match are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context {
    pub(super) before: usize,
    pub(super) after: usize,
}

/// Where matches go.
pub(super) trait Sink {
    /// Takes one line. False when no more are wanted.
    fn line(&mut self, line: Line<'_>) -> bool;

    /// A part of the file was searched. False when the search has been given up.
    fn progress(&mut self) -> bool;
}

/// The memory of a worker, used for one file after another.
#[derive(Debug)]
pub(super) struct Scanner {
    window: Vec<u8>,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { window: vec![0; WINDOW] }
    }

    /// Searches a file of `size` bytes; 0 when the system does not know. Reading ends quietly at an error.
    pub(super) fn scan(
        &mut self,
        file: &OwnedFd,
        size: u64,
        pattern: &Pattern,
        context: Context,
        sink: &mut impl Sink,
    ) {
        // What is kept before a match, the match, and what is wanted behind it have to fit, with room to move.
        let room = WINDOW.max(4 * pattern.overlap());
        if self.window.len() != room {
            self.window = vec![0; room];
        }
        let mut window = Window {
            file,
            size,
            buffer: &mut self.window,
            filled: 0,
            read: 0,
            ended: false,
            is_cut: false,
            line: 1,
            counted: 0,
        };
        window.fill();
        if memchr(0, &window.data()[..window.filled.min(BINARY)]).is_none() {
            search(&mut window, pattern, context, sink);
        }
    }
}

/// The part of a file that is in memory.
struct Window<'a> {
    file: &'a OwnedFd,
    size: u64,
    buffer: &'a mut [u8],
    filled: usize,
    read: u64,
    ended: bool,
    /// It begins inside a line.
    is_cut: bool,
    /// Number of the line at `counted`.
    line: u64,
    /// Line ends before here have been counted.
    counted: usize,
}

impl Window<'_> {
    fn data(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    fn is_full(&self) -> bool {
        self.filled == self.buffer.len()
    }

    /// Reads until the window is full or the file ends.
    fn fill(&mut self) {
        while !self.is_full() && !self.ended {
            match rustix::io::read(self.file, &mut self.buffer[self.filled..]) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.filled += read;
                    self.read += read as u64;
                    // Spares the read that would say so: most files are small.
                    self.ended = self.size > 0 && self.read == self.size;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => self.ended = true,
            }
        }
    }

    /// Forgets what is before `keep` and reads on.
    fn shift(&mut self, keep: usize) {
        if keep > 0 {
            self.is_cut = self.buffer[keep - 1] != b'\n';
        }
        if self.counted < keep {
            self.line_at(keep);
        }
        self.counted -= keep;
        self.buffer.copy_within(keep..self.filled, 0);
        self.filled -= keep;
        self.fill();
    }

    /// The number of the line at `position`, which is not before any that was asked for.
    fn line_at(&mut self, position: usize) -> u64 {
        self.line += memchr_iter(b'\n', &self.buffer[self.counted..position]).count() as u64;
        self.counted = position;
        self.line
    }
}

/// Goes through a file. `at` is where the search goes on: a line's start, unless the line is longer than the window.
fn search(window: &mut Window<'_>, pattern: &Pattern, context: Context, sink: &mut impl Sink) {
    let behind = if context.before > 0 { WHOLE_LINE } else { 0 };
    let mut at = 0;
    let mut has_matched = false; // the line at `at`, whose rest is only passed over
    loop {
        let data = window.data();
        if has_matched && let Some(end) = memchr(b'\n', &data[at..]) {
            at += end + 1;
            has_matched = false;
        }
        let whole = if window.ended { data.len() } else { memrchr(b'\n', data).map_or(0, |end| end + 1) };
        let is_piece = whole <= at && window.is_full() && !window.ended;
        let end = if is_piece { data.len() } else { whole.max(at) };
        let found = if has_matched { None } else { pattern.find(&data[..end], at) };
        // An empty match where the next line begins is that line's; one at the end of a piece may yet grow.
        let found = found.filter(|found| found.start < end || (end > 0 && data[end - 1] != b'\n'));
        let found = found.filter(|found| !is_piece || found.end < end);
        let Some(found) = found else {
            if window.ended {
                return;
            }
            let keep = if has_matched {
                at = data.len();
                at.saturating_sub(behind)
            } else if is_piece {
                at = end - pattern.overlap();
                at
            } else {
                at = end;
                at.saturating_sub(behind)
            };
            at -= keep;
            window.shift(keep);
            if !sink.progress() {
                return;
            }
            continue;
        };
        let start = memrchr(b'\n', &data[..found.start]).map_or(0, |end| end + 1);
        let keep = found.start.saturating_sub(WHOLE_LINE);
        if keep > 0 && !window.ended && data.len() - found.end < WHOLE_LINE {
            at = start.max(keep) - keep; // found again at once, with enough of the file behind it
            window.shift(keep);
            continue;
        }
        let number = window.line_at(start);
        let data = window.data();
        let end = memchr(b'\n', &data[found.end..]).map_or(data.len(), |end| found.end + end);
        let is_whole = (start > 0 || !window.is_cut) && (end < data.len() || window.ended);
        let content_end = start + without_return(&data[start..end]).len();
        let is_in_ending = matches!(pattern, Pattern::Literal(_)) && found.end > content_end;
        if !is_in_ending {
            let content = if is_whole && content_end - start <= WHOLE_LINE {
                &data[start..content_end]
            } else {
                excerpt(data, start..content_end, &found)
            };
            let before = lines_before(&data[..start], context.before, window.is_cut);
            let after = lines_after(data.get(end + 1..).unwrap_or_default(), context.after, window.ended);
            if !sink.line(Line { number, content, before, after }) {
                return;
            }
        }
        has_matched = end == data.len();
        at = data.len().min(end + 1);
    }
}

/// A line without the carriage return that may be left of its ending.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A part of a long line around a match, cut between characters.
fn excerpt<'a>(data: &'a [u8], line: Range<usize>, found: &Range<usize>) -> &'a [u8] {
    let is_inside = |at: usize| line.contains(&at) && data[at] & 0b1100_0000 == 0b1000_0000;
    let margin = EXCERPT.saturating_sub(found.len()) / 2;
    let mut start = found.start.saturating_sub(margin).max(line.start);
    let mut end = line.end.min(start + EXCERPT);
    start = end.saturating_sub(EXCERPT).max(line.start).min(start);
    while start < found.start && is_inside(start) {
        start += 1;
    }
    while end > start + 1 && is_inside(end) {
        end -= 1;
    }
    &data[start..end]
}

/// The last `count` lines of `data`, in the file's order; not the one that lacks its beginning.
fn lines_before(mut data: &[u8], count: usize, is_cut: bool) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while lines.len() < count
        && let Some((_, rest)) = data.split_last()
    {
        let start = memrchr(b'\n', rest).map(|end| end + 1);
        if start.is_none() && is_cut {
            break;
        }
        lines.push(without_return(&rest[start.unwrap_or(0)..]));
        data = &data[..start.unwrap_or(0)];
    }
    lines.reverse();
    lines
}

/// The first `count` lines of `data`; not the one that lacks its end.
fn lines_after(mut data: &[u8], count: usize, ended: bool) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while lines.len() < count && !data.is_empty() {
        match memchr(b'\n', data) {
            Some(end) => {
                lines.push(without_return(&data[..end]));
                data = &data[end + 1..];
            }
            None if ended => {
                lines.push(without_return(data));
                break;
            }
            None => break,
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use proptest::prelude::*;

    use super::*;

    type Found = (u64, String, Vec<String>, Vec<String>);

    struct Collect(Vec<Found>);

    impl Sink for Collect {
        fn line(&mut self, line: Line<'_>) -> bool {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let texts = |lines: &[&[u8]]| lines.iter().map(|line| text(line)).collect();
            self.0.push((line.number, text(line.content), texts(&line.before), texts(&line.after)));
            true
        }

        fn progress(&mut self) -> bool {
            true
        }
    }

    fn scan_with(bytes: &[u8], pattern: &Pattern, before: usize, after: usize) -> Vec<Found> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut found = Collect(Vec::new());
        let context = Context { before, after };
        Scanner::new().scan(&file.into(), bytes.len() as u64, pattern, context, &mut found);
        found.0
    }

    fn scan(bytes: &[u8], needle: &str) -> Vec<(u64, String)> {
        let found = scan_with(bytes, &Pattern::new(needle, false, false).unwrap(), 0, 0);
        found.into_iter().map(|(number, content, ..)| (number, content)).collect()
    }

    fn regex(bytes: &[u8], pattern: &str) -> Vec<u64> {
        scan_with(bytes, &Pattern::new(pattern, true, false).unwrap(), 0, 0)
            .iter()
            .map(|found| found.0)
            .collect()
    }

    #[test]
    fn a_line_is_given_once_and_without_its_ending() {
        let found = scan(b"x\n  a a\r\n\na", "a");
        assert_eq!(found, [(2, "  a a".into()), (4, "a".into())]);
        assert_eq!(scan(b"h.*o\nhello\nH.*O", "h.*o"), [(1, "h.*o".into())]);
    }

    #[test]
    fn an_ending_is_no_part_of_a_line() {
        assert_eq!(scan(b"a\r\nb\ra\r", "\r"), [(2, "b\ra".into())]);
        assert_eq!(scan(b"a\nb", "a\nb"), []);
    }

    #[test]
    fn binary_is_a_nul_in_the_first_512_bytes() {
        let mut bytes = vec![b'a'; 600];
        bytes[511] = 0;
        assert_eq!(scan(&bytes, "a").len(), 0);
        bytes[511] = b'a';
        bytes[512] = 0;
        assert_eq!(scan(&bytes, "a").len(), 1);
    }

    #[test]
    fn long_lines_are_cut_around_the_match_and_do_not_end_the_search() {
        for length in [WHOLE_LINE, WHOLE_LINE + 1, 3 * WINDOW, 3 * WINDOW + 5] {
            for place in [0, length / 2, length - 6] {
                let mut line = "é".repeat(length / 2).into_bytes();
                line.resize(length, b'x');
                let place = place / 2 * 2;
                line[place..place + 6].copy_from_slice(b"needle");
                let bytes = [b"first needle\n", &line[..], b"\nlast needle"].concat();
                let found = scan(&bytes, "needle");
                assert_eq!(
                    found.iter().map(|found| found.0).collect::<Vec<_>>(),
                    [1, 2, 3],
                    "{length} {place}"
                );
                assert!(
                    found[1].1.contains("needle") && !found[1].1.contains('\u{FFFD}'),
                    "{length} {place}"
                );
                assert_eq!(found[1].1.len() == length, length <= WHOLE_LINE, "{length} {place}");
                assert!(length <= WHOLE_LINE || (EXCERPT - 4..=EXCERPT).contains(&found[1].1.len()));
            }
        }
    }

    #[test]
    fn lines_are_numbered_across_windows() {
        let mut bytes = b"line\n".repeat(200_000);
        bytes.extend(b"needle");
        assert_eq!(scan(&bytes, "needle"), [(200_001, "needle".into())]);
        assert_eq!(scan(&bytes, "line").len(), 200_000);
    }

    #[test]
    fn regular_expressions_see_one_line() {
        assert_eq!(regex(b"foo\r\nbar\nfoo\n", "^foo$"), [1, 3]);
        assert_eq!(regex(b"a\n\nb\n", "x*"), [1, 2, 3]);
        assert_eq!(regex(b"a\n\nb", "^$"), [2]);
        assert_eq!(regex(b"", "x*"), [0; 0]);
        assert_eq!(regex(&[&b"y".repeat(3 * WINDOW)[..], b"x\nx"].concat(), "x$"), [1, 2]);
        assert!(Pattern::new("a\nb", true, false).is_err() && Pattern::new("(", true, false).is_err());
        let ignore_case = Pattern::new("H.o", false, true).unwrap();
        assert_eq!(scan_with(b"h.O\nhxo", &ignore_case, 0, 0).len(), 1);
    }

    #[test]
    fn context_is_the_lines_around() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let pattern = Pattern::new("m", false, false).unwrap();
        let found = scan_with(b"1\n2\r\nm\nm2\n5", &pattern, 2, 2);
        assert_eq!(found[0], (3, "m".into(), texts(&["1", "2"]), texts(&["m2", "5"])));
        assert_eq!(found[1], (4, "m2".into(), texts(&["2", "m"]), texts(&["5"])));
        // Also where one window ends and the next begins.
        for padding in WINDOW - 8..WINDOW + 8 {
            let bytes = [&b"p".repeat(padding)[..], b"\nb\nm\na\nz"].concat();
            let found = scan_with(&bytes, &pattern, 1, 1);
            assert_eq!(found, [(3, "m".into(), texts(&["b"]), texts(&["a"]))], "{padding}");
        }
    }

    proptest! {
        #[test]
        fn the_window_finds_what_line_by_line_reading_finds(
            lines in prop::collection::vec(
                (prop_oneof![3 => 0_usize..20, 1 => 60_000_usize..70_000, 1 => 250_000_usize..600_000], any::<u16>(),
                    any::<bool>()),
                0..12,
            ),
            ends in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            for (length, place, has_match) in &lines {
                let mut line = vec![b'.'; *length];
                if *has_match && *length > 6 {
                    let place = usize::from(*place) * (length - 6) / usize::from(u16::MAX);
                    line[place..place + 6].copy_from_slice(b"needle");
                }
                bytes.extend(line);
                bytes.push(b'\n');
            }
            if !ends {
                bytes.pop();
            }
            let text = String::from_utf8(bytes).unwrap();
            let expected: Vec<u64> =
                (1..).zip(text.split('\n')).filter(|(_, line)| line.contains("needle")).map(|(n, _)| n).collect();
            let found = scan(text.as_bytes(), "needle");
            prop_assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), expected);
        }
    }
}
