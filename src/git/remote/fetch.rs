//! Fetch: refs and objects come, and nothing else changes.

use std::sync::Arc;

use git2::{AutotagOption, Direction, Remote, Repository};

use super::configured::{Configured, Settings, base};
use super::link::{Depth, Head, Link, Update, Wanted, find_branch};
use super::operation::Operation;
use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::check_name;
use crate::git::failure::failing;

/// What a fetch is asked for.
#[derive(Debug, Default)]
pub struct FetchRequest {
    /// `origin` by default.
    pub remote: Option<String>,
    /// Only this branch; by default what the configuration says.
    pub branch: Option<String>,
    /// Commits of history from each tip.
    pub depth: Option<u32>,
    /// All of the history, of a shallow clone.
    pub unshallow: bool,
    /// Removes what the remote has no more.
    pub prune: bool,
    /// All tags, and not only those that point into what is fetched.
    pub tags: bool,
}

/// Brings refs and objects; nothing in the work tree changes.
///
/// # Errors
/// Those of contract `git.md` 1.2.
pub(super) fn fetch(
    operation: &Arc<Operation>,
    repository: &Repository,
    request: &FetchRequest,
) -> Result<(Vec<Update>, Settings)> {
    let remote = Configured::find(repository, request.remote.as_deref().unwrap_or("origin"))?;
    let base = base(repository);
    let mut link = Link::connect(operation, repository, &remote.url, &base, Direction::Fetch)?;
    let heads = link.heads()?;
    let mut named = None;
    let refspecs = match &request.branch {
        Some(branch) => {
            check_name(branch)?;
            named = Some((find_branch(&heads, branch, &remote.shown())?, branch));
            vec![format!("+refs/heads/{branch}:{}", remote.tracking(repository, branch))]
        }
        None => configured(repository, &remote)?,
    };
    let depth = match (request.unshallow, request.depth) {
        (true, _) => repository.is_shallow().then_some(Depth::Whole),
        (false, depth) => depth.map(Depth::Commits),
    };
    let tags = if request.tags { AutotagOption::All } else { AutotagOption::Auto };
    let message = format!("fetch {}", remote.name);
    let mut updates = link.fetch(&Wanted { refspecs: &refspecs, tags, depth, message: &message })?;
    let mut settings = Settings::of(repository);
    if let Some((id, branch)) = named {
        link.note(id, branch)?;
        settings.refspec =
            remote.missing_refspec(repository, branch).map(|refspec| (remote.name.clone(), refspec));
    }
    if request.prune {
        updates.extend(prune(repository, &heads, &refspecs)?);
    }
    Ok((updates, settings))
}

/// Fetches what will be a remote, as it will be configured.
///
/// # Errors
/// As [`fetch`], and when the name is taken.
pub(super) fn fetch_new(
    operation: &Arc<Operation>,
    repository: &Repository,
    name: &str,
    url: &str,
    overwrite: bool,
) -> Result<()> {
    if name.starts_with('-') || !Remote::is_valid_name(name) {
        return Err(Error::invalid(format!("invalid remote name: {name:?}")));
    }
    if !overwrite && Configured::find(repository, name).is_ok() {
        return Err(Error::new(ErrorKind::Conflict, format!("remote {name} already exists")));
    }
    let mut link = Link::connect(operation, repository, url, &base(repository), Direction::Fetch)?;
    let refspecs = [format!("+refs/heads/*:refs/remotes/{name}/*")];
    let message = format!("fetch {name}");
    link.fetch(&Wanted { refspecs: &refspecs, tags: AutotagOption::Auto, depth: None, message: &message })?;
    Ok(())
}

fn configured(repository: &Repository, remote: &Configured) -> Result<Vec<String>> {
    let found = repository.find_remote(&remote.name).map_err(failing("read the configuration"))?;
    let specs = found.fetch_refspecs().map_err(failing("read the configuration"))?;
    let specs: Vec<String> = specs.iter().filter_map(|spec| spec.ok().flatten().map(str::to_owned)).collect();
    if specs.is_empty() {
        return Ok(vec![format!("+refs/heads/*:refs/remotes/{}/*", remote.name)]);
    }
    Ok(specs)
}

/// Removes refs that stand for what the remote has no more.
fn prune(repository: &Repository, heads: &[Head], refspecs: &[String]) -> Result<Vec<Update>> {
    let mut removed = Vec::new();
    for refspec in refspecs {
        let Some((source, target)) = refspec.trim_start_matches('+').split_once(':') else { continue };
        let (Some(source), Some(target)) = (source.strip_suffix('*'), target.strip_suffix('*')) else {
            continue;
        };
        let found = repository.references_glob(&format!("{target}*")).map_err(failing("list refs"))?;
        for reference in found {
            let mut reference = reference.map_err(failing("list refs"))?;
            let Ok(name) = reference.name().map(str::to_owned) else { continue };
            let Some(rest) = name.strip_prefix(target) else { continue };
            let is_there = heads.iter().any(|head| head.name.strip_prefix(source) == Some(rest));
            // A symbolic one is ours: which of the remote's branches is its default.
            if let (false, Some(old)) = (is_there, reference.target()) {
                reference.delete().map_err(failing("remove a ref"))?;
                removed.push(Update { name, old: Some(old), new: None });
            }
        }
    }
    Ok(removed)
}
