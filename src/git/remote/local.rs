//! Repositories on the same file system: objects go from one to the other without a protocol.
//!
//! A new clone gets the files of the object database, as links where that is safe. Everything else is packed; libgit2
//! then finds that it has all that it would fetch, and only updates refs.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Oid, PackBuilder, Repository, RepositoryOpenFlags};

use super::link::Depth;
use super::operation::Operation;
use crate::error::{Error, ErrorKind, Result};
use crate::git::failure::failing;

/// Opens a repository that others are cloned from: its root, its `.git`, or a path that lacks the `.git` at its end.
///
/// # Errors
/// [`ErrorKind::GitRepoNotFound`] when there is none.
pub(super) fn open(path: &Path) -> Result<Repository> {
    let open = |path: &Path| Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, &[] as &[&Path]);
    let opened = open(path).or_else(|error| match path.file_name() {
        Some(name) if error.code() == ErrorCode::NotFound => {
            let mut name = name.to_owned();
            name.push(".git");
            open(&path.with_file_name(name))
        }
        _ => Err(error),
    });
    opened.map_err(|error| match error.code() {
        ErrorCode::NotFound => {
            let text = format!("repository not found: {}", path.display());
            Error::new(ErrorKind::GitRepoNotFound, text).with_source(error)
        }
        _ => failing(&format!("open {}", path.display()))(error),
    })
}

/// Copies the object database of `source` into that of a new repository. With `links`, files that are ours become
/// links: objects never change. False when it has to be packed instead.
///
/// # Errors
/// When the daemon stops.
pub(super) fn copy_objects(
    operation: &Operation,
    source: &Repository,
    target: &Repository,
    links: bool,
) -> Result<bool> {
    let (from, to) = (source.commondir().join("objects"), target.commondir().join("objects"));
    if from.join("info/alternates").exists() {
        return Ok(false);
    }
    let copied = copy_all(operation, &from, &to, links).and_then(|()| {
        let shallow = source.commondir().join("shallow");
        if shallow.exists() {
            std::fs::copy(shallow, target.commondir().join("shallow"))?;
        }
        Ok(())
    });
    operation.check()?;
    // What was copied before it failed is no harm: a file of the database says itself what it holds.
    Ok(copied.is_ok())
}

fn copy_all(operation: &Operation, from: &Path, to: &Path, links: bool) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_loose = name.len() == 2 && is_hex(&name);
        if !(is_loose || name == "pack") || !entry.file_type()?.is_dir() {
            continue;
        }
        let directory = to.join(&*name);
        std::fs::create_dir_all(&directory)?;
        let mut files = files_of(&entry.path(), is_loose)?;
        // An index is of use only when its pack is there.
        files.sort_by_key(|file| file.extension() == Some(OsStr::new("idx")));
        for file in files {
            operation.check().map_err(io::Error::other)?;
            let copy = directory.join(file.file_name().unwrap_or_default());
            let is_linked =
                links && file.symlink_metadata()?.uid() == own && std::fs::hard_link(&file, &copy).is_ok();
            if !is_linked {
                std::fs::copy(&file, &copy)?;
            }
        }
    }
    Ok(())
}

/// Regular files that belong to the database; links are not followed, and temporary files are left out.
fn files_of(directory: &Path, is_loose: bool) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_object = match name.rsplit_once('.') {
            None => is_loose && name.len() == 38 && is_hex(&name),
            Some((pack, end)) => {
                !is_loose && pack.starts_with("pack-") && matches!(end, "pack" | "idx" | "rev")
            }
        };
        if is_object {
            if !entry.file_type()?.is_file() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Packs what `target` lacks of `wants`.
///
/// # Errors
/// When objects are missing in `source`, when `target` cannot be written, or when the daemon stops.
pub(super) fn transfer(
    operation: &Operation,
    source: &Repository,
    target: &Repository,
    wants: &[Oid],
    depth: Option<Depth>,
) -> Result<()> {
    let has = target.odb().map_err(failing("open the object database"))?;
    let wants: Vec<Oid> = match depth {
        Some(_) => wants.to_vec(),
        None => wants.iter().copied().filter(|id| !has.exists(*id)).collect(),
    };
    if wants.is_empty() {
        return Ok(());
    }
    let mut builder = source.packbuilder().map_err(failing("pack objects"))?;
    builder.set_threads(0);
    let shallow = match depth {
        Some(Depth::Commits(commits)) => Some(add_some(operation, source, &mut builder, &wants, commits)?),
        Some(Depth::Whole) => {
            add_missing(operation, source, &mut builder, &wants, &[])?;
            Some(Shape::default())
        }
        None => {
            add_missing(operation, source, &mut builder, &wants, &tips(target)?)?;
            None
        }
    };
    write(operation, &mut builder, target)?;
    if let Some(shape) = shallow {
        write_shallow(target, &shape)
            .map_err(|error| Error::io("write", &target.commondir().join("shallow"), error))?;
    }
    Ok(())
}

/// What every ref of a repository points to.
fn tips(repository: &Repository) -> Result<Vec<Oid>> {
    let mut tips: Vec<Oid> = repository.head().ok().and_then(|head| head.target()).into_iter().collect();
    for reference in repository.references().map_err(failing("list refs"))? {
        tips.extend(reference.map_err(failing("list refs"))?.target());
    }
    Ok(tips)
}

/// All that can be reached from `wants`, and not from `known`.
fn add_missing(
    operation: &Operation,
    source: &Repository,
    builder: &mut PackBuilder<'_>,
    wants: &[Oid],
    known: &[Oid],
) -> Result<()> {
    let packing = failing("pack objects");
    let mut walk = source.revwalk().map_err(&packing)?;
    for want in wants {
        let commit = add_tags(source, builder, *want)?;
        if let Some(commit) = commit {
            walk.push(commit).map_err(&packing)?;
        }
    }
    for id in known {
        if source.find_commit(*id).is_ok() {
            walk.hide(*id).map_err(&packing)?;
        }
    }
    operation.check()?;
    builder.insert_walk(&mut walk).map_err(packing)
}

/// Adds what is not a commit; gives the commit, if `id` is one or a tag of one.
fn add_tags(source: &Repository, builder: &mut PackBuilder<'_>, id: Oid) -> Result<Option<Oid>> {
    let packing = failing("pack objects");
    let object = source.find_object(id, None).map_err(|error| match error.code() {
        ErrorCode::NotFound => Error::new(ErrorKind::GitBranchNotFound, format!("object not found: {id}")),
        _ => packing(error),
    })?;
    match object.kind() {
        Some(ObjectType::Commit) => Ok(Some(id)),
        Some(ObjectType::Tag) => {
            builder.insert_object(id, None).map_err(&packing)?;
            let tag = object.as_tag().map(git2::Tag::target_id);
            tag.map_or(Ok(None), |target| add_tags(source, builder, target))
        }
        _ => builder.insert_recursive(id, None).map(|()| None).map_err(packing),
    }
}

/// Which commits a repository has, and where that ends.
#[derive(Debug, Default)]
struct Shape {
    commits: HashSet<Oid>,
    /// Those whose parents are left out.
    roots: HashSet<Oid>,
}

/// `depth` commits from each tip, and their files.
fn add_some(
    operation: &Operation,
    source: &Repository,
    builder: &mut PackBuilder<'_>,
    wants: &[Oid],
    depth: u32,
) -> Result<Shape> {
    let packing = failing("pack objects");
    let mut queue = VecDeque::new();
    for want in wants {
        queue.extend(add_tags(source, builder, *want)?.map(|commit| (commit, 1)));
    }
    let already_shallow = read_shallow(source);
    let mut shape = Shape::default();
    while let Some((id, level)) = queue.pop_front() {
        if !shape.commits.insert(id) {
            continue; // it was met nearer to a tip
        }
        operation.check()?;
        builder.insert_commit(id).map_err(&packing)?;
        let commit = source.find_commit(id).map_err(&packing)?;
        if already_shallow.contains(&id) || (level >= depth && commit.parent_count() > 0) {
            shape.roots.insert(id);
        } else {
            queue.extend(commit.parent_ids().map(|parent| (parent, level + 1)));
        }
    }
    Ok(shape)
}

fn write(operation: &Operation, builder: &mut PackBuilder<'_>, target: &Repository) -> Result<()> {
    if builder.object_count() == 0 {
        return Ok(());
    }
    let writing = failing("write objects");
    let odb = target.odb().map_err(&writing)?;
    let mut writer = odb.packwriter().map_err(&writing)?;
    let mut failure = None;
    let packed = builder.foreach(|bytes| {
        let written = match operation.check() {
            Ok(()) => {
                writer.write_all(bytes).map_err(|error| Error::internal(format!("write objects: {error}")))
            }
            Err(stopping) => Err(stopping),
        };
        failure = written.err();
        failure.is_none()
    });
    match (failure, packed) {
        (Some(error), _) => return Err(error),
        (None, packed) => packed.map_err(&writing)?,
    }
    writer.commit().map_err(&writing)?;
    Ok(())
}

fn read_shallow(repository: &Repository) -> HashSet<Oid> {
    let text = std::fs::read_to_string(repository.commondir().join("shallow")).unwrap_or_default();
    text.lines().filter_map(|line| Oid::from_str(line.trim()).ok()).collect()
}

/// gitrepository-layout(5), "shallow". What was not fetched now stays as shallow as it was; a shape of nothing is all
/// that there is.
fn write_shallow(target: &Repository, shape: &Shape) -> io::Result<()> {
    let path = target.commondir().join("shallow");
    let mut roots = shape.roots.clone();
    if !shape.commits.is_empty() {
        roots.extend(read_shallow(target).difference(&shape.commits));
    }
    if roots.is_empty() {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let mut lines: Vec<String> = roots.iter().map(|id| format!("{id}\n")).collect();
    lines.sort();
    let temporary = target.commondir().join("shallow.lock");
    std::fs::write(&temporary, lines.concat())?;
    std::fs::rename(temporary, path)
}

/// Puts a branch into another repository, if that is a fast-forward there.
///
/// # Errors
/// [`ErrorKind::GitPushRejected`] when it is not; [`ErrorKind::GitRemoteRejected`] when the other repository's rules
/// are against it, or are not ours to judge.
pub(super) fn push(
    operation: &Operation,
    source: &Repository,
    target: &Path,
    name: &str,
    id: Oid,
) -> Result<()> {
    let target = open(target)?;
    let shown = target.path().display().to_string();
    let old = match target.refname_to_id(name) {
        Ok(old) => Some(old),
        Err(error) if error.code() == ErrorCode::NotFound => None,
        Err(error) => return Err(failing("look up a ref")(error)),
    };
    if old == Some(id) {
        return Ok(());
    }
    if let Some(old) = old
        && !source.graph_descendant_of(id, old).unwrap_or(false)
    {
        let text = format!("push to {shown}: {name} has commits that are not in the branch: pull first");
        return Err(Error::new(ErrorKind::GitPushRejected, text));
    }
    check_rules(&target, name, &shown)?;
    transfer(operation, source, &target, &[id], None)?;
    let updated = match old {
        Some(old) => target.reference_matching(name, id, true, old, "push"),
        None => target.reference(name, id, false, "push"),
    };
    updated.map(drop).map_err(|error| {
        let kind = match error.code() {
            ErrorCode::Modified | ErrorCode::Exists | ErrorCode::Locked => ErrorKind::GitPushRejected,
            _ => ErrorKind::GitRemoteRejected,
        };
        Error::new(kind, format!("push to {shown}: {name} cannot be updated")).with_source(error)
    })
}

/// What a repository says of pushes: hooks, which are not run here and so refuse, and `receive.denyCurrentBranch`.
fn check_rules(target: &Repository, name: &str, shown: &str) -> Result<()> {
    let refuse =
        |why: String| Err(Error::new(ErrorKind::GitRemoteRejected, format!("push to {shown}: {why}")));
    for hook in ["pre-receive", "update", "reference-transaction", "proc-receive"] {
        let path = target.commondir().join("hooks").join(hook);
        if path.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0) {
            return refuse(format!(
                "its {hook} hook has to agree, and hooks of a local repository are not run"
            ));
        }
    }
    let rule =
        target.config().and_then(|config| config.get_string("receive.denyCurrentBranch")).unwrap_or_default();
    let is_allowed = ["ignore", "warn", "false"].contains(&rule.to_ascii_lowercase().as_str());
    if !target.is_bare() && !is_allowed && is_checked_out(target, name) {
        return refuse(format!("{name} is checked out there"));
    }
    Ok(())
}

fn is_checked_out(target: &Repository, name: &str) -> bool {
    let link = format!("ref: {name}");
    let worktrees = std::fs::read_dir(target.commondir().join("worktrees")).into_iter().flatten().flatten();
    let mut directories = worktrees.map(|entry| entry.path()).chain([target.commondir().to_owned()]);
    directories
        .any(|path| std::fs::read_to_string(path.join("HEAD")).is_ok_and(|head| head.trim_end() == link))
}
