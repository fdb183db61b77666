//! Push: one branch to its own name, never forced.

use std::sync::Arc;

use git2::{Direction, ErrorCode, Oid, Repository};
use tracing::warn;

use super::configured::{Configured, Settings, base};
use super::link::Link;
use super::local;
use super::location::Location;
use super::operation::Operation;
use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::check_name;
use crate::git::failure::failing;
use crate::git::status::{Head, head};

/// What to push.
#[derive(Debug, Default)]
pub struct PushRequest {
    /// `origin` by default.
    pub remote: Option<String>,
    /// What is checked out by default.
    pub branch: Option<String>,
    /// Makes the branch follow the remote's.
    pub set_upstream: bool,
}

/// Pushes, and notes what the remote has now; gives what is to be written down besides.
///
/// # Errors
/// Those of contract `git.md` 1.2.
pub(super) fn push(
    operation: &Arc<Operation>,
    repository: &Repository,
    request: &PushRequest,
) -> Result<Settings> {
    let branch = match &request.branch {
        Some(branch) => branch.clone(),
        None => match head(repository)? {
            Head::Branch(name) => name,
            Head::Detached => {
                let text = "HEAD is on no branch: name the branch to push";
                return Err(Error::new(ErrorKind::GitBranchNotFound, text));
            }
        },
    };
    check_name(&branch)?;
    let remote = Configured::find(repository, request.remote.as_deref().unwrap_or("origin"))?;
    let name = format!("refs/heads/{branch}");
    let id = match repository.refname_to_id(&name) {
        Ok(id) => id,
        Err(error) if error.code() == ErrorCode::NotFound => {
            let text = format!("branch not found: {branch}");
            return Err(Error::new(ErrorKind::GitBranchNotFound, text).with_source(error));
        }
        Err(error) => return Err(failing("look up the branch")(error)),
    };
    send(operation, repository, &remote, &name, id)?;
    record(repository, &remote, &branch, id);
    let mut settings = Settings::of(repository);
    if request.set_upstream {
        settings.refspec =
            remote.missing_refspec(repository, &branch).map(|refspec| (remote.name.clone(), refspec));
        settings.upstream = Some((branch, remote.name));
    }
    Ok(settings)
}

fn send(
    operation: &Arc<Operation>,
    repository: &Repository,
    remote: &Configured,
    name: &str,
    id: Oid,
) -> Result<()> {
    let mut link =
        Link::connect(operation, repository, &remote.push_url, &base(repository), Direction::Push)?;
    if let Location::Local(path) = &link.location {
        return local::push(operation, repository, path, name, id);
    }
    if link.heads()?.iter().any(|head| head.name == name && head.id == id) {
        return Ok(());
    }
    match link.push(&format!("{name}:{name}"))? {
        None => Ok(()),
        Some(reason) => Err(refused(operation, &link.location, name, &reason)),
    }
}

/// What a server says when it does not take a ref: git's own words, and those of hooks.
fn refused(operation: &Operation, location: &Location, name: &str, reason: &str) -> Error {
    let text = reason.to_ascii_lowercase();
    let is_stale = [
        "non-fast-forward",
        "fetch first",
        "stale info",
        "cannot lock ref",
        "failed to lock",
        "failed to update ref",
    ];
    let kind = match is_stale.iter().any(|phrase| text.contains(phrase)) {
        true => ErrorKind::GitPushRejected,
        false => ErrorKind::GitRemoteRejected,
    };
    let remarks = operation.remarks();
    let remarks = if remarks.is_empty() { remarks } else { format!(" ({remarks})") };
    Error::new(kind, format!("push to {location}: {name} was rejected: {reason}{remarks}"))
}

/// What was pushed is what the remote has. That it cannot be noted does not undo it.
fn record(repository: &Repository, remote: &Configured, branch: &str, id: Oid) {
    let tracking = remote.tracking(repository, branch);
    if let Err(error) = repository.reference(&tracking, id, true, "update by push") {
        warn!("{tracking} is not updated: {error}");
    }
}
