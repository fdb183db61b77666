//! Settings of a repository, the user or the system, in the files that every git reads.
//!
//! Files are changed as git changes them: under a lock beside them that other programs respect, and replaced as a
//! whole, with mode kept. libgit2 alone would make a file of secrets readable for everyone.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::{Config, ErrorCode};

use super::failure::{failed, failing};
use super::locks;
use super::service::{Git, open};
use crate::error::{Error, ErrorKind, Result};

/// Where a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Scope {
    /// Of the daemon's user: `.gitconfig` in the home directory.
    #[default]
    Global,
    /// Of one repository.
    Local,
    /// Of everyone: `/etc/gitconfig`.
    System,
}

impl std::str::FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "global" => Ok(Self::Global),
            "local" => Ok(Self::Local),
            "system" => Ok(Self::System),
            _ => Err(Error::invalid(format!("scope must be global, local or system, not {text:?}"))),
        }
    }
}

impl Git {
    /// The value of a setting; the last one when there are several, none when there is none.
    ///
    /// # Errors
    /// When the key makes no sense, or `local` lacks a repository.
    pub(super) async fn setting(
        &self,
        key: String,
        scope: Scope,
        path: Option<&str>,
    ) -> Result<Option<String>> {
        check_key(&key)?;
        let (git, path) = (self.clone(), path.map(|path| self.resolve(path)));
        let read = self.lane.run(move || {
            let mut value = None;
            for file in git.files(scope, path.as_deref())? {
                match std::fs::metadata(&file) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(Error::io("read", &file, error)),
                }
                let config = Config::open(&file).map_err(failing("read settings"))?;
                match config.get_entry(&key) {
                    Ok(entry) => value = Some(String::from_utf8_lossy(entry.value_bytes()).into_owned()),
                    Err(error) if error.code() == ErrorCode::NotFound => {}
                    Err(error) => return Err(failed(&format!("read {key}"), error)),
                }
            }
            Ok(value)
        });
        read.await?
    }

    /// Sets settings, all or none.
    ///
    /// # Errors
    /// When a key or value makes no sense, a key has several values, or `local` lacks a repository.
    pub(super) async fn set(
        &self,
        settings: Vec<(String, String)>,
        scope: Scope,
        path: Option<&str>,
    ) -> Result<()> {
        for (key, value) in &settings {
            check_key(key)?;
            if value.contains('\0') {
                return Err(Error::invalid(format!("the value of {key} has a NUL byte")));
            }
        }
        let path = path.map(|path| self.resolve(path));
        let git = self.clone();
        let file = self.lane.run(move || git.file_to_write(scope, path.as_deref())).await??;
        self.edit(file, move |config| settings.iter().try_for_each(|(key, value)| set(config, key, value)))
            .await
    }

    /// Changes a file of settings as a whole, when its turn has come and no other program is at it.
    ///
    /// # Errors
    /// What `change` fails with, and what the operating system says; the file is as it was then.
    pub(super) async fn edit(
        &self,
        file: PathBuf,
        change: impl FnOnce(&mut Config) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let git = self.clone();
        self.to_its_end(async move {
            let _turn = git.writers.turn(file.clone()).await;
            let spool = git.spool.clone();
            git.lane.run(move || edit(&file, &spool, change)).await?
        })
        .await
    }

    /// Files of a scope, the one that counts most last.
    fn files(&self, scope: Scope, path: Option<&Path>) -> Result<Vec<PathBuf>> {
        Ok(match scope {
            Scope::Global => vec![self.xdg.join("config"), self.home.join(".gitconfig")],
            Scope::System => vec![PathBuf::from("/etc/gitconfig")],
            Scope::Local => {
                let path =
                    path.ok_or_else(|| Error::invalid("scope local needs the path of a repository"))?;
                vec![open(path)?.commondir().join("config")]
            }
        })
    }

    /// git takes the file below `.config` when it is the only one.
    pub(super) fn file_to_write(&self, scope: Scope, path: Option<&Path>) -> Result<PathBuf> {
        let mut files = self.files(scope, path)?;
        let last = files.pop().unwrap_or_default();
        let file = files.pop().filter(|first| first.exists() && !last.exists()).unwrap_or(last);
        Ok(file.canonicalize().unwrap_or(file)) // often a link, into a repository of dot files
    }
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<()> {
    let mut count = 0;
    match config.multivar(key, None) {
        Ok(values) => values.for_each(|_| count += 1).map_err(failing("read settings"))?,
        Err(error) if error.code() == ErrorCode::NotFound => {}
        Err(error) => return Err(failed(&format!("read {key}"), error)),
    }
    if count > 1 {
        let text = format!("{key} has {count} values: one would replace them all");
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    config.set_str(key, value).map_err(failing(&format!("set {key}")))
}

fn edit(file: &Path, spool: &Path, change: impl FnOnce(&mut Config) -> Result<()>) -> Result<()> {
    rewrite(file, |old| {
        let directory =
            tempfile::TempDir::new_in(spool).map_err(|error| Error::io("create", spool, error))?;
        let copy = directory.path().join("config");
        std::fs::write(&copy, old).map_err(|error| Error::io("write", &copy, error))?;
        let mut config = Config::open(&copy).map_err(failing(&format!("read {}", file.display())))?;
        change(&mut config)?;
        std::fs::read(&copy).map_err(|error| Error::io("read", &copy, error))
    })
}

/// Takes a section out of a file of settings, wherever parts of it are.
///
/// # Errors
/// When another program holds the file's lock, and what the operating system says.
pub(super) fn drop_section(file: &Path, section: &str, subsection: &str) -> Result<()> {
    rewrite(file, |old| Ok(without_section(old, section, subsection)))
}

/// Replaces a file of settings by what `change` makes of it; one that is not there is empty.
fn rewrite(file: &Path, change: impl FnOnce(&[u8]) -> Result<Vec<u8>>) -> Result<()> {
    let failed = |error: io::Error| Error::io("write", file, error);
    locks::await_others(file)?;
    let lock = Lock::take(file)?;
    let (old, mode) = match std::fs::read(file) {
        Ok(old) => (old, Some(std::fs::metadata(file).map_err(failed)?.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => return Err(failed(error)),
    };
    let new = change(&old)?;
    if new == old { Ok(()) } else { lock.replace(file, &new, mode) }
}

/// `text` without the section and its subsection.
fn without_section(text: &[u8], section: &str, subsection: &str) -> Vec<u8> {
    let quoted = subsection.replace('\\', "\\\\").replace('"', "\\\"");
    let header = format!("\"{quoted}\"");
    let (mut kept, mut is_inside, mut goes_on) = (Vec::new(), false, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let trimmed = line.trim_ascii();
        if !goes_on && let Some(rest) = trimmed.strip_prefix(b"[") {
            let name_ends = rest.len().min(section.len());
            is_inside = rest[..name_ends].eq_ignore_ascii_case(section.as_bytes())
                && rest[name_ends..]
                    .trim_ascii_start()
                    .strip_prefix(header.as_bytes())
                    .is_some_and(|rest| rest.trim_ascii_start().starts_with(b"]"));
        }
        goes_on = trimmed.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        if !is_inside {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// git's lock on a file: the new one, in the making beside it.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    fn take(file: &Path) -> Result<Self> {
        let mut path = file.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
        }
        match File::create_new(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err(Error::io("lock", file, error)),
        }
    }

    /// With the mode of the old file; a new one gets that of any new file.
    fn replace(mut self, file: &Path, content: &[u8], mode: Option<Permissions>) -> Result<()> {
        let write = || {
            if let Some(mode) = mode {
                self.file.set_permissions(Permissions::from_mode(mode.mode() & 0o7777))?;
            }
            self.file.write_all(content)?;
            self.file.sync_all()?;
            std::fs::rename(&self.path, file)
        };
        write().map_err(|error| Error::io("write", file, error))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // renamed when all went well
    }
}

/// # Errors
/// [`ErrorKind::InvalidInput`] unless it is `section.name` or `section.anything.name` (git-config(1)).
pub(super) fn check_key(key: &str) -> Result<()> {
    let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let (first, last) = (key.find('.'), key.rfind('.'));
    let is_valid = first.zip(last).is_some_and(|(first, last)| {
        let (section, name) = (&key[..first], &key[last + 1..]);
        !section.is_empty()
            && word(section)
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && word(name)
            && !key.contains(['\n', '\0'])
    });
    if is_valid { Ok(()) } else { Err(Error::invalid(format!("invalid key: {key:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_goes_and_all_others_stay() {
        let text = "[branch \"a\"]\n\tremote = x\n[core]\n\tx = \\\n[branch \"a\"]\n# kept\n[BRANCH  \"a\"] y = 1\n\
                    z = 2\n[branch \"A\"]\n[branch \"a.b\"]\n[branch]\n";
        let kept = "[core]\n\tx = \\\n[branch \"a\"]\n# kept\n[branch \"A\"]\n[branch \"a.b\"]\n[branch]\n";
        assert_eq!(String::from_utf8(without_section(text.as_bytes(), "branch", "a")).unwrap(), kept);
        let odd = "[branch \"q\\\"\\\\\"]\nx = 1\n";
        assert_eq!(without_section(odd.as_bytes(), "branch", "q\"\\"), b"");
    }

    #[test]
    fn keys_are_sections_and_names() {
        for key in ["user.name", "branch.feature/x.y.merge", "http.https://a.b/.proxy", "a-b.c-d1"] {
            check_key(key).unwrap();
        }
        for key in ["", "user", "user.", ".name", "us er.name", "user.na_me", "user.1name", "a.b\nc.d", "-"] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
    }
}
