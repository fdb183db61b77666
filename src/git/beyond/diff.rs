//! Differences between work tree, index and commits, told file by file as fast as the client reads.

use std::collections::BTreeSet;

use futures_util::Stream;
use git2::{Delta, Diff, DiffFindOptions, DiffOptions, Patch, Repository, Tree};

use crate::error::{Error, Result};
use crate::git::branches::revision;
use crate::git::failure::failing;
use crate::git::pathspec;
use crate::git::service::{Git, work_tree};
use crate::git::worktree::{fresh_index, head_tree, left_out};

/// Largest file that is compared line by line, in bytes; larger ones count as binary.
const FILE_BYTES: i64 = 32 * 1024 * 1024;
/// Most lines around a change.
const CONTEXT: u32 = 100_000;

/// What to compare.
#[derive(Debug, Default)]
pub(super) struct Sides {
    /// A revision: the old side. By default the index, and HEAD when `staged`.
    pub(super) from: Option<String>,
    /// A revision: the new side. By default the work tree.
    pub(super) to: Option<String>,
    /// Whether the index is the new side.
    pub(super) staged: bool,
}

/// How to compare.
#[derive(Debug)]
pub(super) struct Manner {
    /// Only these files and directories; all when there are none.
    pub(super) files: Vec<String>,
    /// Lines around a change.
    pub(super) context: u32,
    /// Whether untracked files of the work tree are new ones.
    pub(super) untracked: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { files: Vec::new(), context: 3, untracked: false }
    }
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Added,
    Deleted,
    Modified,
    Renamed,
    TypeChanged,
    Unmerged,
}

/// The changes of one file.
#[derive(Debug)]
pub(super) struct FileDiff {
    pub(super) path: Vec<u8>,
    /// Of a renamed file.
    pub(super) old_path: Option<Vec<u8>>,
    pub(super) kind: Kind,
    pub(super) is_binary: bool,
    /// Lines that are new.
    pub(super) additions: usize,
    /// Lines that are gone.
    pub(super) deletions: usize,
    /// As `git diff` prints it, or as close as a library comes.
    pub(super) patch: Vec<u8>,
}

impl Git {
    /// Compares. Renamed files are recognised.
    ///
    /// # Errors
    /// When the sides make no sense or are not there. What fails later ends the stream.
    pub(super) async fn diff(
        &self,
        path: &str,
        sides: Sides,
        manner: Manner,
    ) -> Result<impl Stream<Item = Result<FileDiff>> + Send + 'static + use<>> {
        let wrong = match &sides {
            Sides { to: Some(_), staged: true, .. } => Some("staged compares with the index, not with to"),
            Sides { to: Some(_), from: None, .. } => Some("to needs from"),
            _ => None,
        };
        if let Some(text) = wrong {
            return Err(Error::invalid(text));
        }
        // What is wrong with the request is told as an error of its own: it is looked at first.
        let look = {
            let (from, to, files) = (sides.from.clone(), sides.to.clone(), manner.files.clone());
            let needs_work_tree = sides.to.is_none();
            self.read(path, move |repository| {
                if needs_work_tree {
                    work_tree(repository)?;
                }
                for text in [from, to].into_iter().flatten() {
                    revision(repository, &text)?;
                }
                specs(repository, &files).map(drop)
            })
        };
        look.await?;
        Ok(self.stream(path, move |repository, pieces| {
            let tree = |text: &Option<String>| match text {
                Some(text) => {
                    revision(repository, text)?.tree().map(Some).map_err(failing("read the commit"))
                }
                None => Ok(None),
            };
            let mut options = options(&manner, &specs(repository, &manner.files)?);
            let (from, to) = (tree(&sides.from)?, tree(&sides.to)?);
            let mut diff = compare(repository, &sides, from.as_ref(), to.as_ref(), &mut options)?;
            let has_work_tree = to.is_none() && !sides.staged;
            let left_out = if has_work_tree { left_out(&fresh_index(repository)?) } else { BTreeSet::new() };
            files(&mut diff, |file| {
                let is_told = file.kind != Kind::Deleted || !left_out.contains(&file.path);
                if is_told { pieces.send(file) } else { Ok(()) }
            })
        }))
    }
}

fn compare<'r>(
    repository: &'r Repository,
    sides: &Sides,
    from: Option<&Tree<'_>>,
    to: Option<&Tree<'_>>,
    options: &mut DiffOptions,
) -> Result<Diff<'r>> {
    let options = Some(options);
    let diff = if to.is_some() {
        repository.diff_tree_to_tree(from, to, options)
    } else if sides.staged {
        let index = fresh_index(repository)?;
        let head = if from.is_none() { head_tree(repository)? } else { None };
        repository.diff_tree_to_index(from.or(head.as_ref()), Some(&index), options)
    } else if from.is_some() {
        repository.diff_tree_to_workdir_with_index(from, options)
    } else {
        repository.diff_index_to_workdir(None, options)
    };
    diff.map_err(failing("compare"))
}

/// What to compare of `diff`, as libgit2 wants to know it.
pub(super) fn options(manner: &Manner, specs: &[Vec<u8>]) -> DiffOptions {
    let mut options = DiffOptions::new();
    options
        .context_lines(manner.context.min(CONTEXT))
        .include_typechange(true)
        .max_size(FILE_BYTES)
        .disable_pathspec_match(true)
        .include_untracked(manner.untracked)
        .recurse_untracked_dirs(manner.untracked)
        .show_untracked_content(manner.untracked);
    if specs.iter().all(|spec| !spec.is_empty()) {
        for spec in specs {
            options.pathspec(spec.as_slice());
        }
    }
    options
}

fn specs(repository: &Repository, files: &[String]) -> Result<Vec<Vec<u8>>> {
    let root = repository.workdir().unwrap_or(repository.path());
    files.iter().map(|file| pathspec::below(root, file)).collect()
}

/// Gives the files of a diff one by one; only one at a time is in memory.
///
/// # Errors
/// When a file cannot be compared, and what `each` fails with.
pub(super) fn files(diff: &mut Diff<'_>, mut each: impl FnMut(FileDiff) -> Result<()>) -> Result<()> {
    let failing = failing("compare");
    let mut find = DiffFindOptions::new();
    find.renames(true).for_untracked(false);
    diff.find_similar(Some(&mut find)).map_err(&failing)?;
    for at in 0..diff.deltas().len() {
        let mut patch = Patch::from_diff(diff, at).map_err(&failing)?;
        let Some(delta) = diff.get_delta(at) else { continue };
        let Some(kind) = kind(delta.status()) else { continue };
        let (additions, deletions, text) = match &mut patch {
            Some(patch) => {
                let (_, additions, deletions) = patch.line_stats().map_err(&failing)?;
                (additions, deletions, patch.to_buf().map_err(&failing)?.to_vec())
            }
            None => (0, 0, Vec::new()),
        };
        let delta = patch.as_ref().map_or(delta, Patch::delta); // knows by now what is binary
        let path = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_owned();
        let (old, new) = (path(delta.old_file().path_bytes()), path(delta.new_file().path_bytes()));
        each(FileDiff {
            old_path: (kind == Kind::Renamed).then_some(old),
            path: new,
            kind,
            is_binary: delta.flags().is_binary(),
            additions,
            deletions,
            patch: text,
        })?;
    }
    Ok(())
}

fn kind(status: Delta) -> Option<Kind> {
    Some(match status {
        Delta::Added | Delta::Untracked | Delta::Copied => Kind::Added,
        Delta::Deleted => Kind::Deleted,
        Delta::Modified => Kind::Modified,
        Delta::Renamed => Kind::Renamed,
        Delta::Typechange => Kind::TypeChanged,
        Delta::Conflicted => Kind::Unmerged,
        Delta::Unmodified | Delta::Ignored | Delta::Unreadable => return None,
    })
}
