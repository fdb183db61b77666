//! Remotes as a repository's configuration has them, and what an operation writes there.

use std::path::PathBuf;

use git2::{Config, Direction, Remote, Repository};

use super::location;
use crate::error::{Error, Result};
use crate::git::failure::failing;

/// A remote of a repository, as its configuration has it.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) push_url: String,
}

impl Configured {
    /// # Errors
    /// When there is no such remote, or its name cannot be one.
    pub(super) fn find(repository: &Repository, name: &str) -> Result<Self> {
        if !Remote::is_valid_name(name) {
            return Err(Error::invalid(format!("{name:?} cannot be the name of a remote")));
        }
        let missing = || Error::not_found(format!("remote not found: {name}"));
        let config = repository
            .config()
            .and_then(|mut config| config.snapshot())
            .map_err(failing("read the configuration"))?;
        let first = |variable: &str| -> Option<String> {
            let mut entries = config.multivar(&format!("remote.{name}.{variable}"), None).ok()?;
            entries.next()?.ok()?.value().ok().map(str::to_owned)
        };
        let url = first("url").ok_or_else(missing)?;
        Ok(Self { name: name.to_owned(), push_url: first("pushurl").unwrap_or_else(|| url.clone()), url })
    }

    /// Where the remote's branch is kept: what the configuration says, else the usual place.
    pub(super) fn tracking(&self, repository: &Repository, branch: &str) -> String {
        self.configured_tracking(repository, branch)
            .unwrap_or_else(|| format!("refs/remotes/{}/{branch}", self.name))
    }

    /// As the configuration says; none when it leaves the branch out, as that of a clone of a single other branch.
    pub(super) fn configured_tracking(&self, repository: &Repository, branch: &str) -> Option<String> {
        let source = format!("refs/heads/{branch}");
        let remote = repository.find_remote(&self.name).ok()?;
        let fetching = remote
            .refspecs()
            .filter(|spec| spec.direction() == Direction::Fetch && spec.src_matches(&source));
        let mut names =
            fetching.filter_map(|spec| spec.transform(&source).ok()?.as_str().ok().map(str::to_owned));
        names.find(|name| !name.is_empty())
    }

    /// What the configuration lacks for the branch to have a place.
    pub(super) fn missing_refspec(&self, repository: &Repository, branch: &str) -> Option<String> {
        let is_missing = self.configured_tracking(repository, branch).is_none();
        is_missing.then(|| format!("+refs/heads/{branch}:refs/remotes/{}/{branch}", self.name))
    }

    /// For messages and logs.
    pub(super) fn shown(&self) -> String {
        location::shown(&self.url)
    }
}

/// What is to be written into a repository's configuration after an operation.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) file: PathBuf,
    /// A remote, and what to fetch of it as well.
    pub(super) refspec: Option<(String, String)>,
    /// A branch, and the remote whose branch of the same name it follows.
    pub(super) upstream: Option<(String, String)>,
}

impl Settings {
    pub(super) fn of(repository: &Repository) -> Self {
        Self { file: repository.commondir().join("config"), refspec: None, upstream: None }
    }

    pub(super) fn are_empty(&self) -> bool {
        self.refspec.is_none() && self.upstream.is_none()
    }

    /// # Errors
    /// When the configuration has something else in their place.
    pub(super) fn write(&self, config: &mut Config) -> Result<()> {
        let mut write = || -> Result<(), git2::Error> {
            if let Some((remote, refspec)) = &self.refspec {
                // A value that no pattern fits is added.
                config.set_multivar(&format!("remote.{remote}.fetch"), "^$never", refspec)?;
            }
            if let Some((branch, remote)) = &self.upstream {
                config.set_str(&format!("branch.{branch}.remote"), remote)?;
                config.set_str(&format!("branch.{branch}.merge"), &format!("refs/heads/{branch}"))?;
            }
            Ok(())
        };
        write().map_err(failing("change the settings"))
    }
}

/// What relative URLs of a repository's remotes are relative to.
pub(super) fn base(repository: &Repository) -> PathBuf {
    repository.workdir().unwrap_or_else(|| repository.path()).to_owned()
}
