//! A log file that is begun anew when it has grown too large.
//!
//! ```text
//!   daemon.log                                  written now
//!   daemon-2025-11-24T09-48-08.123.log          old, not compressed yet
//!   daemon-2025-11-23T17-02-55.001.log.gz       older
//! ```
//!
//! Names, sizes and ages are those of the original daemon, whose old files are therefore removed in their turn too.
//! Written here because the crates for it (file-rotate, logroller) limit the number or the age of old files but not
//! both, and bring a second date library.
//!
//! One thread writes, so that a slow disk slows nobody; lines are lost when it is far behind. Compressing and removing
//! old files is the work of a second thread, which ends with it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

use crate::config::Config;

/// Time at which a file was put aside, in UTC, as it stands in its name.
const WHEN: &str = "%Y-%m-%dT%H-%M-%S%.3f";
/// At the end of the name of a compressed file.
const COMPRESSED: &str = ".gz";
/// At the end of the name of a file that is being compressed.
const UNFINISHED: &str = ".gz.part";

/// What becomes of a log file and its predecessors.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Size at which a new file is begun, in bytes.
    size_bytes: u64,
    /// Old files kept.
    backups: usize,
    /// How long old files are kept.
    age: Duration,
    /// Old files are compressed.
    compress: bool,
}

/// The file that is written now.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    limits: Limits,
    file: File,
    size: u64,
    /// The thread that was started last for old files.
    tidying: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens the file of the settings, if they name one; directories that are missing are made.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub(super) fn open(config: &Config) -> io::Result<Option<Self>> {
        let Some(path) = &config.daemon_log_file_path else { return Ok(None) };
        let limits = Limits {
            size_bytes: u64::from(config.daemon_log_max_size_mb) << 20,
            backups: config.daemon_log_max_backups as usize,
            age: Duration::from_secs(u64::from(config.daemon_log_max_age_days) * 24 * 60 * 60),
            compress: config.daemon_log_compress,
        };
        let opened = Self::open_with(path, limits);
        opened.map(Some).map_err(|error| {
            io::Error::new(error.kind(), format!("--daemon-log-file-path {}: {error}", path.display()))
        })
    }

    fn open_with(path: &Path, limits: Limits) -> io::Result<Self> {
        let path = std::path::absolute(path)?; // the daemon may change its directory
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = open(&path)?;
        let size = file.metadata()?.len();
        let mut file = Self { path, limits, file, size, tidying: None };
        file.tidy();
        Ok(file)
    }

    /// Puts the file aside and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = Backups::of(&self.path).name(Timestamp::now());
        fs::rename(&self.path, aside)?;
        self.file = open(&self.path)?;
        self.size = 0;
        self.tidy();
        Ok(())
    }

    /// Begins to compress and remove old files; what a thread that is still at work does not see is left for the next.
    fn tidy(&mut self) {
        if self.tidying.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (path, limits) = (self.path.clone(), self.limits);
        // There is nowhere to tell of a failure but this log: old files that cannot be handled stay as they are.
        let work = move || drop(tidy(&Backups::of(&path), limits, Timestamp::now()));
        self.tidying = std::thread::Builder::new().name("old logs".to_owned()).spawn(work).ok();
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.limits.size_bytes {
            // A file that cannot be put aside goes on growing: better too long a log than none.
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The names of a log's old files.
#[derive(Debug)]
struct Backups {
    directory: PathBuf,
    /// In front of the time.
    stem: OsString,
    /// Behind it.
    extension: OsString,
}

/// One old file.
#[derive(Debug)]
struct Backup {
    path: PathBuf,
    at: Timestamp,
    is_compressed: bool,
}

impl Backups {
    fn of(path: &Path) -> Self {
        let mut stem = path.file_stem().unwrap_or_default().to_owned();
        stem.push("-");
        let mut extension = OsString::new();
        if let Some(own) = path.extension() {
            extension.push(".");
            extension.push(own);
        }
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        Self { directory, stem, extension }
    }

    fn name(&self, at: Timestamp) -> PathBuf {
        let mut name = self.stem.clone();
        name.push(at.to_zoned(TimeZone::UTC).strftime(WHEN).to_string());
        name.push(&self.extension);
        self.directory.join(name)
    }

    /// The time in a name, which ends with the extension and then `suffix`.
    fn time(&self, name: &OsStr, suffix: &str) -> Option<Timestamp> {
        let name = name.to_str()?.strip_prefix(self.stem.to_str()?)?;
        let time = name.strip_suffix(suffix)?.strip_suffix(self.extension.to_str()?)?;
        DateTime::strptime(WHEN, time).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }

    /// Old files, the newest first.
    fn list(&self) -> io::Result<Vec<Backup>> {
        let mut backups = Vec::new();
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let name = entry.file_name();
            let compressed = self.time(&name, COMPRESSED);
            let Some(at) = compressed.or_else(|| self.time(&name, "")) else { continue };
            backups.push(Backup { path: entry.path(), at, is_compressed: compressed.is_some() });
        }
        backups.sort_unstable_by_key(|backup| std::cmp::Reverse(backup.at));
        Ok(backups)
    }
}

/// Removes the old files that are too many or too old and compresses the others.
fn tidy(backups: &Backups, limits: Limits, now: Timestamp) -> io::Result<()> {
    let mut result = Ok(());
    for (index, backup) in backups.list()?.into_iter().enumerate() {
        let age = Duration::try_from(now.duration_since(backup.at)).unwrap_or_default();
        if index >= limits.backups || age > limits.age {
            result = result.and(fs::remove_file(&backup.path));
        } else if limits.compress && !backup.is_compressed {
            result = result.and(compress(&backup.path));
        }
    }
    result
}

/// Replaces a file by its compressed form, which has its whole name only when it is whole.
fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (unfinished, compressed) = (with(UNFINISHED), with(COMPRESSED));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, &compressed)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use jiff::ToSpan;

    use super::*;

    const LIMITS: Limits =
        Limits { size_bytes: 100, backups: 2, age: Duration::from_secs(24 * 60 * 60), compress: true };

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_compressed_and_no_line_is_cut_or_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/daemon.log");
        let mut log = LogFile::open_with(&path, LIMITS).unwrap();
        let lines: Vec<String> =
            (0..3).map(|index| format!("{}\n", index.to_string().repeat(60 - index))).collect();
        for line in &lines[..2] {
            log.write_all(line.as_bytes()).unwrap();
            log.tidying.take().into_iter().for_each(|thread| thread.join().unwrap());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), lines[1]);
        let found = names(path.parent().unwrap());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("daemon-") && found[0].ends_with(".log.gz"), "{found:?}");
        let mut text = String::new();
        let old = File::open(path.with_file_name(&found[0])).unwrap();
        GzDecoder::new(old).read_to_string(&mut text).unwrap();
        assert_eq!(text, lines[0]);

        // Another start goes on with the file, and counts what is in it.
        drop(log);
        let mut log = LogFile::open_with(&path, LIMITS).unwrap();
        log.write_all(lines[2].as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), lines[2]);
    }

    #[test]
    fn old_files_that_are_too_many_or_too_old_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let backups = Backups::of(&directory.path().join("daemon.log"));
        let now = Timestamp::now();
        for hours in [1, 2, 3, 30] {
            fs::write(backups.name(now - hours.hours()), "x").unwrap();
        }
        fs::write(directory.path().join("daemon-notes.log"), "not ours").unwrap();
        let kept = |limits| {
            tidy(&backups, limits, now).unwrap();
            names(directory.path()).len() - 1
        };
        assert_eq!(kept(Limits { backups: 9, compress: false, ..LIMITS }), 3, "one was too old");
        assert_eq!(kept(LIMITS), 2, "one was too many");
        assert!(names(directory.path()).iter().filter(|name| name.ends_with(".log.gz")).count() == 2);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_said_to_be_so() {
        assert!(LogFile::open_with(Path::new("/proc/daemon.log"), LIMITS).is_err());
    }
}
