//! Replaces text in files: a file is read in pieces, written to a temporary file and renamed, and left alone when
//! there is nothing to replace in it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem::Finder;
use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::service::Files;
use super::transfer::open_regular;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::replacement::Replacement;

/// Bytes read at a time, beside the length of what is looked for.
const PIECE: usize = 256 * 1024;

/// What to look for and what to put in its place: bytes, with no meaning of their own.
#[derive(Debug)]
pub struct Replace {
    finder: Finder<'static>,
    value: Vec<u8>,
}

impl Replace {
    /// # Errors
    /// When there is nothing to look for.
    pub fn new(pattern: &str, value: String) -> Result<Self> {
        if pattern.is_empty() {
            return Err(Error::new(ErrorKind::InvalidBody, "pattern is required"));
        }
        Ok(Self { finder: Finder::new(pattern.as_bytes()).into_owned(), value: value.into_bytes() })
    }
}

impl Files {
    /// Replaces every occurrence in a file, from left to right. Without one the file is not touched.
    ///
    /// # Errors
    /// When the file is not a regular one, or cannot be read or written; it has its old content then.
    pub async fn replace(&self, path: &str, replace: &Arc<Replace>) -> Result<()> {
        if path.is_empty() {
            return Err(Error::new(ErrorKind::InvalidFilePath, "invalid file path: path is empty"));
        }
        let (full, path, replace) = (self.resolve(path), PathBuf::from(path), Arc::clone(replace));
        let (owner, spool) = (self.owner, Arc::clone(&self.spool));
        self.while_wanted(move |wanted| {
            let begin = || Replacement::begin(&full, owner, Some(&spool));
            replace_in(&full, &replace, begin, wanted).map_err(|error| Error::io("replace in", &path, error))
        })
        .await?
    }
}

fn replace_in(
    path: &Path,
    replace: &Replace,
    begin: impl FnOnce() -> io::Result<Replacement>,
    wanted: &CancellationToken,
) -> io::Result<()> {
    let (file, _) = open_regular(path)?;
    let file = File::from(file);
    let mut found = false;
    pieces(&file, &replace.finder, wanted, |piece| {
        found |= matches!(piece, Piece::Match);
        Ok(!found)
    })?;
    if !found {
        return Ok(());
    }
    fs::seek(&file, SeekFrom::Start(0))?;
    let mut new = io::BufWriter::with_capacity(PIECE, begin()?);
    pieces(&file, &replace.finder, wanted, |piece| {
        new.write_all(match piece {
            Piece::Other(bytes) => bytes,
            Piece::Match => &replace.value,
        })?;
        Ok(true)
    })?;
    new.into_inner()?.commit()
}

enum Piece<'a> {
    /// Bytes that are not part of an occurrence.
    Other(&'a [u8]),
    Match,
}

/// Takes a file apart, until its end or until `each` has had enough.
fn pieces(
    mut file: impl io::Read,
    finder: &Finder<'_>,
    wanted: &CancellationToken,
    mut each: impl FnMut(Piece<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    // What was read and not yet passed on; an occurrence may begin in its last bytes.
    let mut window = vec![0; PIECE + finder.needle().len()];
    let mut length = 0;
    loop {
        if wanted.is_cancelled() {
            return Err(Errno::CANCELED.into());
        }
        let count = match file.read(&mut window[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        length += count;
        let text = &window[..length];
        let mut at = 0;
        while let Some(start) = finder.find(&text[at..]) {
            if !each(Piece::Other(&text[at..at + start]))? || !each(Piece::Match)? {
                return Ok(());
            }
            at += start + finder.needle().len();
        }
        let end =
            if count == 0 { length } else { (length + 1).saturating_sub(finder.needle().len()).max(at) };
        if !each(Piece::Other(&text[at..end]))? || count == 0 {
            return Ok(());
        }
        window.copy_within(end..length, 0);
        length -= end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads at most `1` byte, then `2`, and so on, so that every cut is met.
    struct Dripping<'a>(&'a [u8], usize);

    impl io::Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 % 5 + 1;
            let count = self.1.min(buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    proptest! {
        #[test]
        fn pieces_are_replaced_as_in_one_string(text in "[ab]{0,40}", pattern in "[ab]{1,4}", value in "[abc]{0,3}") {
            let mut replaced = Vec::new();
            let finder = Finder::new(pattern.as_bytes());
            pieces(Dripping(text.as_bytes(), 0), &finder, &CancellationToken::new(), |piece| {
                replaced.extend_from_slice(match piece {
                    Piece::Other(bytes) => bytes,
                    Piece::Match => value.as_bytes(),
                });
                Ok(true)
            })
            .unwrap();
            prop_assert_eq!(String::from_utf8(replaced).unwrap(), text.replace(&pattern, &value));
        }
    }
}
