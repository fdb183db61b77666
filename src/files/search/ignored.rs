//! What `.gitignore` files leave out of a search that asks for it.
//!
//! As git has it: the files of the tree and of the repository around it, nearest first, then `.git/info/exclude`, and
//! `.git` itself. Outside a repository the tree's own files count alike. The user's global file does not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};

use crate::error::{Error, Result};

const GITIGNORE: &str = ".gitignore";

/// Rules for one directory, and for all above it.
#[derive(Debug)]
pub(super) struct Ignored {
    rules: Gitignore,
    above: Option<Arc<Self>>,
    shared: Arc<Shared>,
}

/// Rules for the whole tree.
#[derive(Debug)]
struct Shared {
    /// Whether `.gitignore` files count.
    gitignore: bool,
    /// The client's own glob.
    glob: Override,
}

impl Ignored {
    /// Rules for a walk from `root`, an absolute path without links when `gitignore` is set. `glob` has the form of a
    /// line in a `.gitignore`: with a slash it is relative to the root, else it is for base names; only files that it
    /// matches are left in, or with `!` in front those that it does not.
    ///
    /// # Errors
    /// When the glob is malformed.
    pub(super) fn new(root: &[u8], gitignore: bool, glob: Option<&str>) -> Result<Arc<Self>> {
        let root = Path::new(OsStr::from_bytes(root));
        let mut overrides = OverrideBuilder::new(root);
        if let Some(glob) = glob {
            overrides.add(glob).map_err(|error| Error::invalid(format!("glob is malformed: {error}")))?;
        }
        let glob =
            overrides.build().map_err(|error| Error::invalid(format!("glob is malformed: {error}")))?;
        let shared = Arc::new(Shared { gitignore, glob });
        let mut rules =
            Arc::new(Self { rules: Gitignore::empty(), above: None, shared: Arc::clone(&shared) });
        if !gitignore {
            return Ok(rules);
        }
        if let Some(repository) = root.ancestors().find(|above| above.join(".git").exists()) {
            rules = rules.with(repository, &repository.join(".git/info/exclude"));
            let above: Vec<_> =
                root.ancestors().skip(1).take_while(|above| above.starts_with(repository)).collect();
            for directory in above.into_iter().rev() {
                rules = rules.with(directory, &directory.join(GITIGNORE));
            }
        }
        Ok(rules)
    }

    /// Rules for the entries of `directory`; `has` tells whether there is one of that name.
    pub(super) fn below(
        above: Option<&Arc<Self>>,
        directory: &[u8],
        has: impl FnOnce(&[u8]) -> bool,
    ) -> Option<Arc<Self>> {
        let above = Arc::clone(above?);
        if !above.shared.gitignore || !has(GITIGNORE.as_bytes()) {
            return Some(above);
        }
        let directory = Path::new(OsStr::from_bytes(directory));
        Some(above.with(directory, &directory.join(GITIGNORE)))
    }

    /// Whether an entry is left out, with everything below it.
    pub(super) fn leaves_out(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        if self.shared.glob.matched(path, is_directory).is_ignore() {
            return true;
        }
        if !self.shared.gitignore {
            return false;
        }
        if path.file_name().is_some_and(|name| name == ".git") {
            return true;
        }
        let mut level = Some(self);
        while let Some(Self { rules, above, .. }) = level {
            match rules.matched(path, is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => level = above.as_deref(),
            }
        }
        false
    }

    fn with(self: Arc<Self>, directory: &Path, file: &Path) -> Arc<Self> {
        let mut builder = GitignoreBuilder::new(directory);
        let _ = builder.add(file); // lines that make no sense are passed over, as git does
        match builder.build() {
            Ok(rules) if !rules.is_empty() => {
                Arc::new(Self { rules, shared: Arc::clone(&self.shared), above: Some(self) })
            }
            _ => self,
        }
    }
}
