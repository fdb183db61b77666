//! The file that a program's name means (execvp(3)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Where programs are looked for when `PATH` is not set.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The files to try, in this order: one for each directory of `path`, or the name itself when it has a slash.
pub(super) fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let directories = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes().split(|byte| *byte == b':');
    // An empty one is the working directory.
    let directories = directories.map(|directory| if directory.is_empty() { b"." } else { directory });
    directories.map(|directory| Path::new(OsStr::from_bytes(directory)).join(program)).collect()
}

/// The executable file that a program's name means, if the image has one.
pub fn find_program(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    candidates(OsStr::new(program), path).into_iter().find(|file| is_program(file))
}

/// Whether a file can be run.
pub fn is_program(file: &Path) -> bool {
    file.is_file() && access(file, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_as_execvp_does() {
        let of = |program: &str, path: Option<&str>| -> Vec<String> {
            let found = candidates(OsStr::new(program), path.map(OsStr::new));
            found.into_iter().map(|file| file.into_os_string().into_string().unwrap()).collect()
        };
        assert_eq!(of("/bin/x", Some("/usr/bin")), ["/bin/x"]);
        assert_eq!(of("./x", None), ["./x"]);
        assert_eq!(of("x", None), ["/usr/local/bin/x", "/usr/bin/x", "/bin/x"]);
        assert_eq!(of("x", Some("/a::b")), ["/a/x", "./x", "b/x"]);
        assert_eq!(of("", Some("/a")), [""]);
    }

    #[test]
    fn directories_and_files_without_the_right_to_run_are_no_programs() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x"), "").unwrap();
        std::fs::create_dir(directory.path().join("y")).unwrap();
        let path = Some(directory.path().as_os_str());
        assert_eq!((find_program("x", path), find_program("y", path)), (None, None));
        let file = directory.path().join("x");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find_program("x", path), Some(file));
    }
}
