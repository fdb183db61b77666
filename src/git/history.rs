//! Commits, newest first, told as fast as the client reads.

use futures_util::Stream;
use git2::{Commit, Sort, Time};

use super::branches::{head_commit, revision};
use super::failure::failing;
use super::service::Git;
use crate::error::Result;

/// Commits in a piece of the reply.
const BATCH: usize = 256;

/// Which commits are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Where to begin; HEAD by default.
    pub(super) revision: Option<String>,
    /// How many of the newest are left out.
    pub(super) skip: usize,
    /// How many at most.
    pub(super) limit: Option<usize>,
}

/// A commit, as far as it says something of itself.
#[derive(Debug)]
pub(super) struct CommitInfo {
    pub(super) hash: String,
    pub(super) author: String,
    pub(super) email: String,
    /// As it is stored.
    pub(super) message: String,
    /// When it was written: RFC 3339 with the author's offset.
    pub(super) timestamp: String,
}

impl Git {
    /// Commits in the order of `git log`: by the date of the commit.
    ///
    /// # Errors
    /// When there is no repository or no such commit. What fails later ends the stream.
    pub(super) async fn history(
        &self,
        path: &str,
        wanted: Wanted,
    ) -> Result<impl Stream<Item = Result<Vec<CommitInfo>>> + Send + 'static + use<>> {
        let Wanted { revision: start, skip, limit } = wanted;
        // Looked up first, so that what is wrong with the request is told as an error of its own.
        let first = self.read(path, move |repository| {
            let commit = match &start {
                Some(text) => revision(repository, text)?,
                None => head_commit(repository)?,
            };
            Ok(commit.id())
        });
        let first = first.await?;
        Ok(self.stream(path, move |repository, pieces| {
            let failing = failing("read the history");
            let mut walk = repository.revwalk().map_err(&failing)?;
            walk.set_sorting(Sort::TIME).map_err(&failing)?;
            walk.push(first).map_err(&failing)?;
            let mut batch = Vec::new();
            for id in walk.skip(skip).take(limit.unwrap_or(usize::MAX)) {
                let id = id.map_err(&failing)?;
                batch.push(CommitInfo::of(&repository.find_commit(id).map_err(&failing)?));
                if batch.len() == BATCH {
                    pieces.send(std::mem::take(&mut batch))?;
                }
            }
            pieces.send(batch)
        }))
    }
}

impl CommitInfo {
    /// What `commit` says.
    pub(super) fn of(commit: &Commit<'_>) -> Self {
        let author = commit.author();
        // Latin-1 is the one other encoding that needs no table.
        let encoding = commit.message_encoding().ok().flatten().unwrap_or_default();
        let is_latin_1 =
            ["ISO-8859-1", "ISO8859-1", "latin1"].iter().any(|name| name.eq_ignore_ascii_case(encoding));
        let text = |bytes: &[u8]| {
            if is_latin_1 {
                bytes.iter().copied().map(char::from).collect()
            } else {
                String::from_utf8_lossy(bytes).into_owned()
            }
        };
        Self {
            hash: commit.id().to_string(),
            author: text(author.name_bytes()),
            email: text(author.email_bytes()),
            message: text(commit.message_raw_bytes()),
            timestamp: rfc_3339(author.when()),
        }
    }
}

/// With the offset of whoever wrote it; `Z` for none.
pub(super) fn rfc_3339(time: Time) -> String {
    let offset = jiff::tz::Offset::from_seconds(time.offset_minutes().saturating_mul(60))
        .unwrap_or(jiff::tz::Offset::UTC);
    let timestamp = jiff::Timestamp::from_second(time.seconds()).unwrap_or_default();
    let local = offset.to_datetime(timestamp);
    if offset.seconds() == 0 {
        return format!("{local:.0}Z");
    }
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{local:.0}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_offset() {
        assert_eq!(rfc_3339(Time::new(1_577_989_800, 330)), "2020-01-03T00:00:00+05:30");
        assert_eq!(rfc_3339(Time::new(0, -90)), "1969-12-31T22:30:00-01:30");
        assert_eq!(rfc_3339(Time::new(0, 0)), "1970-01-01T00:00:00Z");
    }
}
