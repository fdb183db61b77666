//! JSON of the file endpoints (contract `files.md`).

use std::os::unix::ffi::OsStrExt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::{FileType, Stat};
use semver::Version;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::service::Entry;
use crate::http::client::Client;

/// A file or directory. Of a link, everything but `name` and `path` is its target's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileInfo {
    /// Last element of the path.
    name: String,
    /// Bytes; of a directory whatever its file system says.
    size: i64,
    /// Type letters, then `rwxrwxrwx` with `-` for what is not allowed.
    #[schema(example = "-rw-r--r--")]
    mode: String,
    /// Last change of the content, in the daemon's time zone.
    #[schema(example = "2024-03-05 06:07:08.123456 +0000 UTC")]
    mod_time: String,
    /// The same as RFC 3339 with at most six digits of a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2024-03-05T06:07:08.123456Z")]
    modified_at: Option<String>,
    /// Whether it is a directory.
    is_dir: bool,
    /// User id, decimal.
    owner: String,
    /// Group id, decimal.
    group: String,
    /// The lower nine mode bits as four octal digits.
    #[schema(example = "0644")]
    permissions: String,
    /// Absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// How a client wants [`FileInfo`].
#[derive(Debug, Clone)]
pub(super) struct InfoStyle {
    zone: TimeZone,
    with_modified_at: bool,
    with_path: bool,
}

impl InfoStyle {
    /// Old Go clients refuse members that they do not know (contract `core.md` 4.3).
    pub(super) fn of(client: &Client) -> Self {
        Self {
            zone: TimeZone::try_system().unwrap_or(TimeZone::UTC),
            with_modified_at: !client.is_strict_below(&Version::new(0, 184, 0)),
            with_path: !client.is_strict_below(&Version::new(0, 188, 0)),
        }
    }

    /// What the client gets to see of an entry.
    pub(super) fn info(&self, entry: &Entry) -> FileInfo {
        let stat = &entry.stat;
        FileInfo {
            name: text(entry.name.as_bytes()),
            size: stat.st_size,
            mode: mode(stat.st_mode),
            mod_time: self.time(stat, TimeStyle::Go),
            modified_at: self.with_modified_at.then(|| self.time(stat, TimeStyle::Rfc3339)),
            is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            owner: stat.st_uid.to_string(),
            group: stat.st_gid.to_string(),
            permissions: format!("{:04o}", stat.st_mode & 0o777),
            path: self.with_path.then(|| text(entry.path.as_os_str().as_bytes())),
        }
    }

    fn time(&self, stat: &Stat, style: TimeStyle) -> String {
        let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec as i32);
        // File systems know years that no calendar does.
        let far = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX }.as_second();
        let far = Timestamp::from_second(far).unwrap_or_default();
        let time =
            |nanoseconds| Timestamp::new(seconds, nanoseconds).unwrap_or(far).to_zoned(self.zone.clone());
        match style {
            TimeStyle::Go => time(nanoseconds).strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string(),
            TimeStyle::Rfc3339 => {
                // Python before 3.11 reads six digits at most.
                let time = time(nanoseconds / 1000 * 1000);
                let zone = if time.offset().is_zero() { "Z" } else { "%:z" };
                time.strftime(&format!("%Y-%m-%dT%H:%M:%S%.f{zone}")).to_string()
            }
        }
    }
}

#[derive(Clone, Copy)]
enum TimeStyle {
    Go,
    Rfc3339,
}

/// Go's `FileMode.String()` (contract `files.md` 1.4).
fn mode(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => "",
        FileType::Directory => "d",
        FileType::Symlink => "L",
        FileType::BlockDevice | FileType::CharacterDevice => "D",
        FileType::Fifo => "p",
        FileType::Socket => "S",
        FileType::Unknown => "?",
    };
    let mut text = if kind == "?" { String::new() } else { kind.to_owned() };
    let is_character_device = FileType::from_raw_mode(mode) == FileType::CharacterDevice;
    let letters = [(mode & 0o4000 != 0, 'u'), (mode & 0o2000 != 0, 'g'), (is_character_device, 'c')];
    text.extend(
        letters
            .into_iter()
            .chain([(mode & 0o1000 != 0, 't')])
            .filter_map(|(set, letter)| set.then_some(letter)),
    );
    if kind == "?" {
        text.push('?');
    }
    if text.is_empty() {
        text.push('-');
    }
    for (index, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if mode & (0o400 >> index) != 0 { letter } else { '-' });
    }
    text
}

/// A name as text, with U+FFFD for each byte that is not UTF-8.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Files to send in one reply.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct BulkDownload {
    /// Paths, answered in this order; at least one.
    pub(super) paths: Vec<String>,
}

/// A file that was written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UploadedFile {
    /// Last element of the path.
    pub(super) name: String,
    /// Absolute path.
    pub(super) path: String,
    /// Always `file`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

/// What became of a bulk upload; when some files failed, this stands in the error's envelope.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BulkUploaded {
    /// The files that were written, in order.
    pub(super) files: Vec<Written>,
}

/// A file of a bulk upload that was written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Written {
    /// The destination as it was sent, without white space around it.
    pub(super) path: String,
    /// Bytes written.
    pub(super) bytes: u64,
}

/// What to replace, and where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplaceRequest {
    /// Paths of files.
    pub(super) files: Vec<String>,
    /// Text to look for, as it is; not empty.
    pub(super) pattern: String,
    /// What to put in its place; empty deletes it.
    pub(super) new_value: String,
}

/// What became of one file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplaceResult {
    /// The path as it was sent.
    pub(super) file: String,
    /// True also when nothing was found.
    pub(super) success: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A move across file systems after which part of the source is still there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MoveRemainder {
    pub(super) message: &'static str,
    /// Why it could not be removed.
    pub(super) error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_go_does() {
        for (bits, expected) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o107_777, "ugtrwxrwxrwx"),
            (0o010_644, "prw-r--r--"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o060_660, "Drw-rw----"),
            (0o140_755, "Srwxr-xr-x"),
        ] {
            assert_eq!(mode(bits), expected);
        }
    }

    #[test]
    fn bad_bytes_of_names_are_replaced_one_by_one() {
        assert_eq!(text(b"a\xff\xfe\xe4\xb8b"), "a\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}b");
        assert_eq!(text("世".as_bytes()), "世");
    }

    fn times(seconds: i64, nanoseconds: u32, zone: TimeZone) -> (String, String) {
        let mut stat = rustix::fs::stat("/").unwrap();
        (stat.st_mtime, stat.st_mtime_nsec) = (seconds, nanoseconds.into());
        let style = InfoStyle { zone, with_modified_at: true, with_path: true };
        (style.time(&stat, TimeStyle::Go), style.time(&stat, TimeStyle::Rfc3339))
    }

    #[test]
    fn times_have_the_local_zone_and_no_needless_digits() {
        let (go, rfc) = times(1_709_618_828, 123_456_789, TimeZone::UTC);
        assert_eq!(go, "2024-03-05 06:07:08.123456789 +0000 UTC");
        assert_eq!(rfc, "2024-03-05T06:07:08.123456Z");
        let (go, rfc) = times(1_709_618_828, 100_000_000, TimeZone::UTC);
        assert_eq!(
            (go.as_str(), rfc.as_str()),
            ("2024-03-05 06:07:08.1 +0000 UTC", "2024-03-05T06:07:08.1Z")
        );
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let (go, rfc) = times(1_709_618_828, 0, berlin);
        assert_eq!(
            (go.as_str(), rfc.as_str()),
            ("2024-03-05 07:07:08 +0100 CET", "2024-03-05T07:07:08+01:00")
        );
        let (_, rfc) = times(i64::MAX, 0, TimeZone::UTC);
        assert_eq!(rfc, "9999-12-30T22:00:00Z");
    }
}
