//! Whether a checkout writes files as they are stored, as gitattributes(5) has it.

use std::path::Path;

use git2::{Config, Repository, Tree, TreeWalkMode, TreeWalkResult};
use memchr::memmem;

/// Where attributes of the whole system are.
const SYSTEM: &str = "/etc/gitattributes";
/// Without these words, attributes leave what is stored as it is: they are of other line endings, and of `$Id$`.
const CHANGING: &[&[u8]] = &[b"crlf", b"ident"];

/// Whether all files of `tree` are certainly written as they are stored, to a work tree that has no files yet. To ask
/// libgit2 for the attributes of each one takes it longer than to write it. `xdg` is where the user's attributes are.
pub(super) fn are_plain(repository: &Repository, tree: &Tree<'_>, xdg: &Path) -> bool {
    let others = [Path::new(SYSTEM), &xdg.join("attributes"), &repository.path().join("info/attributes")];
    others.iter().all(|path| path.symlink_metadata().is_err())
        && repository.config().and_then(|mut config| config.snapshot()).is_ok_and(|config| is_plain(&config))
        && has_plain(repository, tree)
}

fn is_plain(config: &Config) -> bool {
    let is_unset = |name: &str| config.get_entry(name).is_err();
    is_unset("core.attributesFile")
        && (is_unset("core.autocrlf") || matches!(config.get_bool("core.autocrlf"), Ok(false)))
        && (is_unset("core.eol") || config.get_string("core.eol").is_ok_and(|eol| eol == "lf"))
}

fn has_plain(repository: &Repository, tree: &Tree<'_>) -> bool {
    let mut is_plain = true;
    let walked = tree.walk(TreeWalkMode::PreOrder, |_, entry| {
        if entry.name_bytes() == b".gitattributes" {
            let attributes = repository.find_blob(entry.id());
            let changes = |text: &[u8]| CHANGING.iter().any(|word| memmem::find(text, word).is_some());
            is_plain = attributes.is_ok_and(|blob| !changes(blob.content()));
        }
        if is_plain { TreeWalkResult::Ok } else { TreeWalkResult::Abort }
    });
    walked.is_ok() && is_plain
}
