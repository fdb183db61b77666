//! Clones: of a branch, at a commit if one is given, into a directory of their own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::build::CheckoutBuilder;
use git2::{
    AutotagOption, CheckoutNotificationType, Commit, Direction, Oid, Repository, RepositoryInitOptions,
};
use tracing::{error, warn};

use super::link::{Depth, Head, Link, Wanted, find_branch};
use super::local;
use super::location::{self, Location};
use super::operation::Operation;
use crate::error::{Error, ErrorKind, Result};
use crate::git::attributes::are_plain;
use crate::git::branches::check_name;
use crate::git::failure::failing;
use crate::platform::paths;

/// Where refs are while a commit is looked for that the branch does not lead to.
const SEARCH: &str = "refs/toolboxd/search/";

/// What to clone.
#[derive(Debug, Default)]
pub struct CloneRequest {
    /// URL or path.
    pub url: String,
    /// The remote's default branch by default.
    pub branch: Option<String>,
    /// Checked out instead of the branch's tip; may be abbreviated.
    pub commit: Option<String>,
    /// Commits of history; all by default.
    pub depth: Option<u32>,
}

/// What the branch of a clone is called, at the remote and here.
struct Chosen {
    /// None when the remote's HEAD is on no branch.
    branch: Option<String>,
    id: Oid,
    is_default: bool,
}

/// Clones into `destination`, which is empty or not there. Relative paths in the request are below `base`.
///
/// # Errors
/// Those of contract `git.md` 1.2. What was created is removed then.
pub(super) fn clone(
    operation: &Arc<Operation>,
    request: &CloneRequest,
    base: &Path,
    destination: &Path,
) -> Result<()> {
    let location = Location::parse(&request.url, base)?;
    request.branch.as_deref().map_or(Ok(()), check_name)?;
    let commit = request.commit.as_deref().map(check_commit).transpose()?;
    if let Location::Local(path) = &location {
        local::open(path)?;
    }
    let created = Created::at(destination)?;
    let cloning = failing("clone");
    let mut options = RepositoryInitOptions::new();
    options.no_reinit(true).external_template(false).mkdir(false);
    let repository = Repository::init_opts(destination, &options).map_err(&cloning)?;
    let url = match &location {
        Location::Local(path) if !request.url.contains("://") => {
            paths::clean(path).to_string_lossy().into_owned()
        }
        _ => request.url.clone(),
    };
    let mut link = Link::connect(operation, &repository, &url, base, Direction::Fetch)?;
    let shown = location::shown(&url);
    let heads = link.heads()?;
    let chosen = choose(&link, &heads, request.branch.as_deref(), &shown)?;
    let message = format!("clone: from {shown}");
    fetch(operation, &repository, &mut link, request, &chosen, &message)?;
    drop(link);
    configure(&repository, &url, &chosen, &message).map_err(&cloning)?;
    match commit {
        None => checkout(operation, &repository, chosen.id)?,
        Some(wanted) => {
            let depth = request.depth.map(Depth::Commits);
            let commit = find_commit(operation, &repository, &url, base, wanted, depth)?;
            repository.set_head_detached(commit).map_err(&cloning)?;
            checkout(operation, &repository, commit)?;
        }
    }
    operation.check()?;
    created.keep();
    Ok(())
}

/// A commit is told by hexadecimal digits.
fn check_commit(commit: &str) -> Result<&str> {
    if (4..=40).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(commit);
    }
    Err(no_commit(commit))
}

fn no_commit(commit: &str) -> Error {
    Error::new(ErrorKind::GitBranchNotFound, format!("commit not found: {commit}"))
}

fn choose(link: &Link<'_>, heads: &[Head], branch: Option<&str>, shown: &str) -> Result<Chosen> {
    if heads.is_empty() {
        let text = format!("remote repository is empty: {shown}");
        return Err(Error::new(ErrorKind::GitRepoNotFound, text));
    }
    let default = link.default_branch().and_then(|name| name.strip_prefix("refs/heads/").map(str::to_owned));
    if let Some(branch) = branch {
        let id = find_branch(heads, branch, shown)?;
        let is_default = default.as_deref() == Some(branch);
        return Ok(Chosen { branch: Some(branch.to_owned()), id, is_default });
    }
    match (default, heads.iter().find(|head| head.name == "HEAD")) {
        (Some(branch), _) => {
            Ok(Chosen { id: find_branch(heads, &branch, shown)?, branch: Some(branch), is_default: true })
        }
        (None, Some(head)) => Ok(Chosen { branch: None, id: head.id, is_default: false }),
        (None, None) => {
            let text = format!("the default branch of {shown} has no commits: name another");
            Err(Error::new(ErrorKind::GitBranchNotFound, text))
        }
    }
}

fn fetch(
    operation: &Arc<Operation>,
    repository: &Repository,
    link: &mut Link<'_>,
    request: &CloneRequest,
    chosen: &Chosen,
    message: &str,
) -> Result<()> {
    if let (Location::Local(path), None) = (&link.location, request.depth) {
        let source = local::open(path)?;
        // A URL asks for a copy, as git has it.
        local::copy_objects(operation, &source, repository, !request.url.contains("://"))?;
        repository.odb().and_then(|odb| odb.refresh()).map_err(failing("open the object database"))?;
    }
    let refspec = match &chosen.branch {
        Some(branch) => format!("+refs/heads/{branch}:refs/remotes/origin/{branch}"),
        None => "+HEAD:refs/remotes/origin/HEAD".to_owned(),
    };
    let depth = request.depth.map(Depth::Commits);
    link.fetch(&Wanted { refspecs: &[refspec], tags: AutotagOption::Auto, depth, message })?;
    Ok(())
}

/// Writes what a clone is known by: its remote, its branch and what that follows.
fn configure(repository: &Repository, url: &str, chosen: &Chosen, message: &str) -> Result<(), git2::Error> {
    let mut config = repository.config()?.open_level(git2::ConfigLevel::Local)?;
    config.set_str("remote.origin.url", url)?;
    let Some(branch) = &chosen.branch else {
        config.set_str("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")?;
        return repository.set_head_detached(chosen.id);
    };
    config.set_str("remote.origin.fetch", &format!("+refs/heads/{branch}:refs/remotes/origin/{branch}"))?;
    config.set_str(&format!("branch.{branch}.remote"), "origin")?;
    config.set_str(&format!("branch.{branch}.merge"), &format!("refs/heads/{branch}"))?;
    if chosen.is_default {
        let target = format!("refs/remotes/origin/{branch}");
        repository.reference_symbolic("refs/remotes/origin/HEAD", &target, true, message)?;
    }
    let name = format!("refs/heads/{branch}");
    repository.set_head(&name)?;
    repository.reference(&name, chosen.id, true, message)?;
    Ok(())
}

/// The commit that the digits begin; fetched when it is not in what was cloned.
fn find_commit(
    operation: &Arc<Operation>,
    repository: &Repository,
    url: &str,
    base: &Path,
    digits: &str,
    depth: Option<Depth>,
) -> Result<Oid> {
    let present = || -> Result<Option<Oid>> {
        match repository.find_commit_by_prefix(digits) {
            Ok(commit) => Ok(Some(commit.id())),
            Err(error) if error.code() == git2::ErrorCode::Ambiguous => {
                Err(Error::invalid(format!("several commits begin with {digits}")))
            }
            Err(_) => Ok(None),
        }
    };
    if let Some(found) = present()? {
        return Ok(found);
    }
    let fetch = |refspecs: &[String], depth| {
        let mut link = Link::connect(operation, repository, url, base, Direction::Fetch)?;
        link.fetch(&Wanted { refspecs, tags: AutotagOption::None, depth, message: "fetch a commit" })
    };
    // Many servers give a commit to whoever knows its name.
    if digits.len() == 40 {
        let fetched = fetch(&[digits.to_owned()], depth);
        operation.check()?;
        if fetched.is_ok()
            && let Some(found) = present()?
        {
            return Ok(found);
        }
    }
    let everything = depth.map(|_| Depth::Whole);
    fetch(&["heads", "tags"].map(|kind| format!("+refs/{kind}/*:{SEARCH}{kind}/*")), everything)?;
    let found = present()?;
    let refs = repository.references_glob(&format!("{SEARCH}*")).map_err(failing("list refs"))?;
    for reference in refs {
        let removed = reference.and_then(|mut reference| reference.delete());
        removed.map_err(failing("remove a ref"))?;
    }
    found.ok_or_else(|| no_commit(digits))
}

/// Fills the work tree. Nothing that is there is overwritten: it was not before, so somebody has put it there.
fn checkout(operation: &Operation, repository: &Repository, id: Oid) -> Result<()> {
    let checking_out = failing("check out");
    let commit: Commit<'_> = repository.find_commit(id).map_err(&checking_out)?;
    let tree = commit.tree().map_err(&checking_out)?;
    let mut options = CheckoutBuilder::new();
    options
        .disable_filters(are_plain(repository, &tree, operation.xdg()))
        .safe()
        .recreate_missing(true)
        .notify_on(CheckoutNotificationType::all())
        .notify(|_, _, _, _, _| !operation.is_cancelled())
        .progress(|_, done, total| operation.progress(|| format!("clone: {done} of {total} files")));
    let done = repository.checkout_tree(commit.as_object(), Some(&mut options));
    operation.check()?;
    done.map_err(checking_out)
}

/// A directory that is removed again, with what was made on the way to it, unless it is kept.
struct Created {
    path: PathBuf,
    /// Made by us; the outermost first.
    directories: Vec<PathBuf>,
    is_kept: bool,
}

impl Created {
    fn at(path: &Path) -> Result<Self> {
        match std::fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let text = match path.join(".git").exists() || path.join("HEAD").exists() {
                        true => format!("repository already exists: {}", path.display()),
                        false => format!("the destination is not empty: {}", path.display()),
                    };
                    return Err(Error::new(ErrorKind::Conflict, text));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && path.exists() => {
                let text = format!("the destination is not a directory: {}", path.display());
                return Err(Error::new(ErrorKind::Conflict, text));
            }
            Err(error) => return Err(Error::io("read", path, error)),
        }
        let mut missing: Vec<_> =
            path.ancestors().take_while(|path| path.symlink_metadata().is_err()).collect();
        missing.reverse();
        let mut created = Self { path: path.to_owned(), directories: Vec::new(), is_kept: false };
        for directory in missing {
            std::fs::create_dir(directory).map_err(|error| Error::io("create", directory, error))?;
            created.directories.push(directory.to_owned());
        }
        Ok(created)
    }

    fn keep(mut self) {
        self.is_kept = true;
    }

    fn remove(&self) -> io::Result<()> {
        if self.directories.last() == Some(&self.path) {
            std::fs::remove_dir_all(&self.path)?;
        } else {
            for entry in std::fs::read_dir(&self.path)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => std::fs::remove_dir_all(entry.path())?,
                    false => std::fs::remove_file(entry.path())?,
                }
            }
        }
        for directory in self.directories.iter().rev().filter(|directory| **directory != self.path) {
            if std::fs::remove_dir(directory).is_err() {
                warn!("{} is left behind: it is used by others", directory.display());
            }
        }
        Ok(())
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = self.remove()
        {
            error!("a clone that failed is left behind in {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_created_is_removed_and_nothing_else() {
        let root = tempfile::TempDir::new().unwrap();
        let path = root.path().join("a/b");
        let created = Created::at(&path).unwrap();
        std::fs::create_dir(path.join("dir")).unwrap();
        drop(created);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        std::fs::create_dir(root.path().join("a")).unwrap();
        let created = Created::at(&root.path().join("a")).unwrap();
        std::fs::create_dir(root.path().join("a/dir")).unwrap();
        drop(created);
        assert_eq!(std::fs::read_dir(root.path().join("a")).unwrap().count(), 0);
        Created::at(&path).unwrap().keep();
        assert!(path.is_dir());
        assert_eq!(Created::at(&root.path().join("a")).map(drop).unwrap_err().kind(), ErrorKind::Conflict);
    }
}
