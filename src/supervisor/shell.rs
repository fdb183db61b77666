//! Which shell runs users' commands (contract `process.md` 0.6).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::environment::Environment;

const LIST: &str = "/etc/shells";
/// In this order, when the image's list names them.
const PREFERRED: &[&str] = &["/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash"];
/// Names of shells that read POSIX commands; `$SHELL` may be another kind.
const POSIX: &[&str] = &["sh", "bash", "zsh", "dash", "ash", "ksh", "mksh", "busybox"];

/// Finds the shell; looks at the image's list again only when that has changed.
#[derive(Debug, Clone)]
pub struct Shells {
    environment: Environment,
    found: Arc<Mutex<Option<Found>>>,
}

#[derive(Debug)]
struct Found {
    /// When the list was changed last.
    list: Option<SystemTime>,
    shell: PathBuf,
}

impl Shells {
    /// Falls back on `$SHELL` of `environment`.
    pub fn new(environment: Environment) -> Self {
        Self { environment, found: Arc::default() }
    }

    /// The shell to use now: the first preferred one that `/etc/shells` names and the image has, else `$SHELL`, else
    /// `sh`.
    pub fn find(&self) -> PathBuf {
        let changed = std::fs::metadata(LIST).and_then(|list| list.modified()).ok();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = found.as_ref().filter(|found| found.list == changed && found.shell.exists()) {
            return found.shell.clone();
        }
        let list = std::fs::read(LIST).unwrap_or_default();
        let own = self.environment.get("SHELL").map(PathBuf::from);
        let shell = choose(&String::from_utf8_lossy(&list), own.as_deref(), |shell| shell.exists());
        *found = Some(Found { list: changed, shell: shell.clone() });
        shell
    }
}

fn choose(list: &str, own: Option<&Path>, exists: impl Fn(&Path) -> bool) -> PathBuf {
    let lines: Vec<&str> = list.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let listed = |shell: &&&str| lines.iter().any(|line| line.contains(**shell)) && exists(Path::new(shell));
    if let Some(shell) = PREFERRED.iter().find(listed) {
        return shell.into();
    }
    let is_posix = |shell: &&Path| {
        let name = shell.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| POSIX.contains(&name)) && exists(shell)
    };
    match own.filter(is_posix) {
        Some(shell) => shell.to_owned(),
        None => ["/bin/sh", "/usr/bin/sh"]
            .iter()
            .map(Path::new)
            .find(|sh| exists(sh))
            .unwrap_or(Path::new("sh"))
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_decides_then_the_variable_then_sh() {
        let all = |_: &Path| true;
        assert_eq!(choose("# zsh\n/bin/sh\n/bin/bash\n", None, all), Path::new("/bin/bash"));
        assert_eq!(choose("/bin/bash\n/usr/bin/zsh\n", None, all), Path::new("/usr/bin/zsh"));
        assert_eq!(choose("#/bin/bash\n", Some(Path::new("/bin/ash")), all), Path::new("/bin/ash"));
        assert_eq!(choose("", Some(Path::new("/usr/bin/fish")), all), Path::new("/bin/sh"));
        assert_eq!(choose("/bin/bash\n", Some(Path::new("/bin/bash")), |_| false), Path::new("sh"));
    }
}
