//! Files of a project, for servers that know only what they are shown.

use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use tokio_util::sync::CancellationToken;

/// Entries looked at, at most.
const MOST_ENTRIES: usize = 100_000;
/// Larger files are left out, in bytes: what is so large was hardly written by hand.
const FILE_BYTES: u64 = 1024 * 1024;
/// Levels of directories.
const DEPTH: usize = 32;
/// Directories that have others' code. Hidden ones, `.git` and `.venv` among them, are left out anyway.
const SKIPPED: &[&str] = &["node_modules", "__pycache__", "site-packages", "venv"];
/// What a virtual environment of Python has at its top (PEP 405).
const VIRTUALENV: &str = "pyvenv.cfg";

/// Finds files with one of `extensions` in which `text`, in any case, stands somewhere: `most` of them, sorted by path.
/// Without `text`, any. Neither ignored files (`.gitignore`), nor others' code, nor links. Blocks, until `stop`.
pub(super) fn files_with(
    root: &Path,
    extensions: &[String],
    text: Option<&str>,
    most: usize,
    stop: &CancellationToken,
) -> Vec<PathBuf> {
    let text = text.map(str::to_lowercase);
    let mut walk = WalkBuilder::new(root);
    walk.git_global(false).max_depth(Some(DEPTH)).max_filesize(Some(FILE_BYTES)).sort_by_file_name(Ord::cmp);
    walk.filter_entry(|entry| {
        let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        entry.depth() == 0
            || !is_directory
            || !(SKIPPED.iter().any(|name| entry.file_name() == *name)
                || entry.path().join(VIRTUALENV).exists())
    });
    let entries = walk.build().take(MOST_ENTRIES).take_while(|_| !stop.is_cancelled()).flatten();
    let files = entries.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
    let mut found = Vec::new();
    for file in files.map(ignore::DirEntry::into_path) {
        let extension = file.extension().and_then(|extension| extension.to_str());
        let is_of_language = extension.is_some_and(|is| extensions.iter().any(|wanted| wanted == is));
        if is_of_language && text.as_deref().is_none_or(|text| contains(&file, text)) {
            found.push(file);
            if found.len() == most {
                break;
            }
        }
    }
    found
}

fn contains(file: &Path, lower: &str) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    let content = String::from_utf8_lossy(&bytes).to_lowercase();
    memchr::memmem::find(content.as_bytes(), lower.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_code_and_other_languages_are_left_out() {
        let directory = tempfile::TempDir::new().unwrap();
        let root = directory.path();
        for (file, text) in [
            ("b/main.py", "class GREETER: pass"),
            ("a.py", "from b import Greeter"),
            ("none.py", "nothing"),
            ("a.txt", "Greeter"),
            (".git/x.py", "Greeter"),
            ("node_modules/x.py", "Greeter"),
            ("own-env/pyvenv.cfg", ""),
            ("own-env/x.py", "Greeter"),
        ] {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a.py"), root.join("link.py")).unwrap();
        let find = |text, most| files_with(root, &["py".to_owned()], text, most, &CancellationToken::new());
        assert_eq!(find(Some("greeter"), 9), [root.join("a.py"), root.join("b/main.py")]);
        assert_eq!(find(Some("greeter"), 1), [root.join("a.py")]);
        assert_eq!(find(None, 9).len(), 3);
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(files_with(root, &["py".to_owned()], None, 9, &stop).is_empty());
    }
}
