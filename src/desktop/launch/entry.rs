//! Installed applications (Desktop Entry Specification 1.5).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::supervisor::Environment;

/// Where applications are when `XDG_DATA_DIRS` is not set.
const DATA_DIRS: &str = "/usr/local/share:/usr/share";

/// The command line of an application by its id, with or without `.desktop`.
///
/// # Errors
/// When there is none, or its entry has no command.
pub(super) fn find(
    environment: &Environment,
    home: &Path,
    id: &str,
    uri: Option<&str>,
) -> Result<Vec<String>> {
    let name = id.strip_suffix(".desktop").unwrap_or(id);
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(Error::invalid(format!("{id:?} is not the id of an application")));
    }
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let own = set("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from);
    let dirs: OsString = set("XDG_DATA_DIRS").unwrap_or_else(|| DATA_DIRS.into());
    let directories = std::iter::once(own).chain(std::env::split_paths(&dirs).collect::<Vec<_>>());
    let files = directories.map(|directory| directory.join("applications").join(format!("{name}.desktop")));
    for file in files {
        if let Ok(bytes) = std::fs::read(&file) {
            let command = command(&String::from_utf8_lossy(&bytes), &file, uri);
            return command.ok_or_else(|| Error::invalid(format!("{} has no command", file.display())));
        }
    }
    Err(Error::not_found(format!("no application is called {id}")))
}

/// What `Exec` of the entry's own group says, with its field codes filled in.
fn command(text: &str, file: &Path, uri: Option<&str>) -> Option<Vec<String>> {
    let mut in_entry = false;
    let mut exec = None;
    let mut title = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_entry = line == "[Desktop Entry]";
        } else if in_entry && let Some((key, value)) = line.split_once('=') {
            match key.trim() {
                "Exec" => exec = Some(value.trim()),
                "Name" => title = value.trim(),
                _ => {}
            }
        }
    }
    // A backslash is escaped in a string, and again within quotes.
    let words = shell_words::split(&exec?.replace("\\\\", "\\")).ok()?;
    let mut argv = Vec::new();
    for word in words {
        match word.as_str() {
            "%f" | "%F" | "%u" | "%U" => argv.extend(uri.map(str::to_owned)),
            "%i" | "%d" | "%D" | "%n" | "%N" | "%v" | "%m" => {}
            _ => argv.push(
                word.replace("%u", uri.unwrap_or_default())
                    .replace("%f", uri.unwrap_or_default())
                    .replace("%c", title)
                    .replace("%k", &file.display().to_string())
                    .replace("%%", "%"),
            ),
        }
    }
    (!argv.is_empty()).then_some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_codes_are_filled_in() {
        let of = |exec: &str, uri| {
            let text = format!(
                "[Desktop Action new]\nExec=other\n[Desktop Entry]\nName=An Editor\nExec={exec}\n[X]\nExec=y"
            );
            command(&text, Path::new("/a/x.desktop"), uri)
        };
        assert_eq!(of("mousepad %U", None).unwrap(), ["mousepad"]);
        assert_eq!(of("mousepad %U", Some("/a b")).unwrap(), ["mousepad", "/a b"]);
        let quoted = of("x \"a b\" --title=%c --file=%k 100%% %i", None).unwrap();
        assert_eq!(quoted, ["x", "a b", "--title=An Editor", "--file=/a/x.desktop", "100%"]);
        assert_eq!(command("[Desktop Entry]\nName=x", Path::new("/"), None), None);
    }
}
