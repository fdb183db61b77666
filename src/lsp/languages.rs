//! Which program serves which language (contract `lsp.md` 4), and the settings file that adds to it.
//!
//! The file is a JSON object from language id to either words of a command or an object:
//!
//! ```json
//! {"lua": ["lua-language-server"],
//!  "python": {"command": ["pylsp", "-v"], "extensions": ["py"], "initializationOptions": {}, "settings": {}}}
//! ```
//!
//! It is read at each start, so that it may come into the image after the daemon did.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result, os_text};
use crate::supervisor::find_program;

/// Largest settings file, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// What is known of a language without being told.
struct Language {
    id: &'static str,
    /// Commands by preference.
    commands: &'static [&'static [&'static str]],
    /// Of its files' names, without the dot.
    extensions: &'static [&'static str],
}

const TYPESCRIPT: &[&[&str]] = &[&["typescript-language-server", "--stdio"], &["vtsls", "--stdio"]];
const CLANGD: &[&[&str]] = &[&["clangd"]];

const LANGUAGES: &[Language] = &[
    Language { id: "c", commands: CLANGD, extensions: &["c", "h"] },
    Language { id: "cpp", commands: CLANGD, extensions: &["cpp", "cc", "cxx", "hpp", "hh", "h"] },
    Language { id: "go", commands: &[&["gopls"]], extensions: &["go"] },
    Language { id: "java", commands: &[&["jdtls"]], extensions: &["java"] },
    Language { id: "javascript", commands: TYPESCRIPT, extensions: &["js", "mjs", "cjs", "jsx"] },
    Language {
        id: "python",
        commands: &[
            &["pylsp"],
            &["basedpyright-langserver", "--stdio"],
            &["pyright-langserver", "--stdio"],
            &["ruff", "server"],
        ],
        extensions: &["py", "pyi"],
    },
    Language { id: "rust", commands: &[&["rust-analyzer"]], extensions: &["rs"] },
    Language { id: "typescript", commands: TYPESCRIPT, extensions: &["ts", "tsx", "mts", "cts"] },
];

/// A server to start.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Launch {
    /// The program's base name, for messages.
    pub(super) name: String,
    /// Program, found, and its arguments.
    pub(super) argv: Vec<OsString>,
    /// Of files of the language, without the dot.
    pub(super) extensions: Vec<String>,
    /// For `initialize`.
    pub(super) options: Option<Value>,
    /// What it is told when it asks for its configuration.
    pub(super) settings: Value,
}

/// One entry of the settings file.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Entry {
    Command(Vec<String>),
    Server(Server),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Server {
    command: Vec<String>,
    #[serde(default)]
    extensions: Vec<String>,
    #[serde(default)]
    initialization_options: Option<Value>,
    #[serde(default)]
    settings: Value,
}

/// Finds the server for a language: the settings file's, else the first known one that the image has. Reads files.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::error::ErrorKind) for a language that nobody knows; when the image has no server
/// for it, the error lists what was looked for; when the settings file cannot be used.
pub(super) fn find(language: &str, file: Option<&Path>, path: Option<&OsStr>) -> Result<Launch> {
    let entries = file.map(read).transpose()?.unwrap_or_default();
    let known = LANGUAGES.iter().find(|known| known.id == language);
    let extensions = |own: Vec<String>| {
        let known = known.map_or(&[] as &[_], |known| known.extensions);
        if own.is_empty() { known.iter().map(|extension| (*extension).to_owned()).collect() } else { own }
    };
    let launch = |program: PathBuf, words: &[String], own, options, settings| Launch {
        name: Path::new(&words[0])
            .file_name()
            .unwrap_or(OsStr::new(&words[0]))
            .to_string_lossy()
            .into_owned(),
        argv: std::iter::once(program.into_os_string()).chain(words[1..].iter().map(Into::into)).collect(),
        extensions: extensions(own),
        options,
        settings,
    };
    match entries.get(language).cloned() {
        Some(entry) => {
            let server = match entry {
                Entry::Command(command) => Server {
                    command,
                    extensions: Vec::new(),
                    initialization_options: None,
                    settings: Value::Null,
                },
                Entry::Server(server) => server,
            };
            let words = &server.command;
            let program = words.first().ok_or_else(|| {
                Error::internal(format!("error starting LSP server: the command for {language} is empty"))
            })?;
            let found = find_program(program, path).ok_or_else(|| missing(language, &[program]))?;
            Ok(launch(
                found,
                words,
                server.extensions.clone(),
                server.initialization_options.clone(),
                server.settings.clone(),
            ))
        }
        None => {
            let known = known.ok_or_else(|| unsupported(language, entries.keys().map(String::as_str)))?;
            let programs: Vec<&str> = known.commands.iter().map(|words| words[0]).collect();
            let found = known.commands.iter().find_map(|words| Some((find_program(words[0], path)?, words)));
            let (program, words) = found.ok_or_else(|| missing(language, &programs))?;
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Ok(launch(program, &words, Vec::new(), None, Value::Null))
        }
    }
}

/// Whether [`find`] would know the language without looking for programs.
///
/// # Errors
/// As [`find`] for a language that nobody knows, and when the settings file cannot be used.
pub(super) fn check(language: &str, file: Option<&Path>) -> Result<()> {
    if LANGUAGES.iter().any(|known| known.id == language) {
        return Ok(());
    }
    let entries = file.map(read).transpose()?.unwrap_or_default();
    if entries.contains_key(language) {
        return Ok(());
    }
    Err(unsupported(language, entries.keys().map(String::as_str)))
}

fn unsupported<'a>(language: &str, more: impl Iterator<Item = &'a str>) -> Error {
    let mut known: Vec<&str> = LANGUAGES.iter().map(|known| known.id).chain(more).collect();
    known.sort_unstable();
    known.dedup();
    Error::invalid(format!("unsupported language: {language} (supported: {})", known.join(", ")))
}

fn missing(language: &str, programs: &[impl AsRef<str>]) -> Error {
    let programs: Vec<&str> = programs.iter().map(AsRef::as_ref).collect();
    Error::internal(format!(
        "error starting LSP server: no server for {language} is installed; looked for {} in PATH",
        programs.join(", ")
    ))
}

fn read(file: &Path) -> Result<BTreeMap<String, Entry>> {
    let failed = |text: String| {
        Error::internal(format!(
            "error starting LSP server: language servers file {}: {text}",
            file.display()
        ))
    };
    let size = std::fs::metadata(file).map_err(|error| failed(os_text(&error)))?.len();
    if size > FILE_BYTES {
        return Err(failed(format!("is larger than {FILE_BYTES} bytes")));
    }
    let text = std::fs::read(file).map_err(|error| failed(os_text(&error)))?;
    serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))
}

/// What LSP calls the language of a document of a server for `language`.
pub(super) fn document_language<'a>(language: &'a str, path: &Path) -> &'a str {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    match (language, extension) {
        ("typescript" | "javascript", "ts" | "mts" | "cts") => "typescript",
        ("typescript" | "javascript", "tsx") => "typescriptreact",
        ("typescript" | "javascript", "js" | "mjs" | "cjs") => "javascript",
        ("typescript" | "javascript", "jsx") => "javascriptreact",
        _ => language,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Image {
        directory: tempfile::TempDir,
    }

    impl Image {
        fn with(programs: &[&str]) -> Self {
            let directory = tempfile::TempDir::new().unwrap();
            for program in programs {
                let file = directory.path().join(program);
                std::fs::write(&file, "").unwrap();
                std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
            }
            Self { directory }
        }

        fn find(&self, language: &str, settings: Option<&str>) -> Result<Launch> {
            let file = settings.map(|settings| {
                let file = self.directory.path().join("servers.json");
                std::fs::write(&file, settings).unwrap();
                file
            });
            find(language, file.as_deref(), Some(self.directory.path().as_os_str()))
        }
    }

    #[test]
    fn the_first_server_that_the_image_has_is_taken() {
        let image = Image::with(&["ruff", "pyright-langserver"]);
        let launch = image.find("python", None).unwrap();
        let program = image.directory.path().join("pyright-langserver");
        assert_eq!(launch.argv, [program.into_os_string(), "--stdio".into()]);
        assert_eq!(
            (launch.name.as_str(), &launch.extensions[..]),
            ("pyright-langserver", &["py".to_owned(), "pyi".to_owned()][..])
        );
    }

    #[test]
    fn what_was_looked_for_is_told() {
        let image = Image::with(&[]);
        std::fs::write(image.directory.path().join("pylsp"), "not executable").unwrap();
        let told = |language, settings| image.find(language, settings).unwrap_err().to_string();
        assert_eq!(
            told("python", None),
            "error starting LSP server: no server for python is installed; looked for pylsp, basedpyright-langserver, \
             pyright-langserver, ruff in PATH"
        );
        assert_eq!(
            told("cobol", None),
            "unsupported language: cobol (supported: c, cpp, go, java, javascript, python, rust, typescript)"
        );
        assert!(told("x", Some("{\"lua\": [\"l\"]}")).contains(", lua, "));
        assert!(told("lua", Some("{\"lua\": [\"lua-ls\"]}")).ends_with("looked for lua-ls in PATH"));
        assert!(told("lua", Some("{\"lua\": []}")).ends_with("the command for lua is empty"));
        assert!(told("python", Some("{\"lua\": 5}")).contains("servers.json: "));
    }

    #[test]
    fn the_settings_file_wins() {
        let image = Image::with(&["pylsp", "other"]);
        let settings =
            r#"{"python": {"command": ["other", "-x"], "settings": {"a": 1}, "initializationOptions": [2]}}"#;
        let launch = image.find("python", Some(settings)).unwrap();
        assert_eq!((launch.name.as_str(), launch.argv[1].to_str()), ("other", Some("-x")));
        assert_eq!((launch.settings["a"].as_i64(), launch.options.unwrap()[0].as_i64()), (Some(1), Some(2)));
        assert_eq!(launch.extensions, ["py", "pyi"]);
        assert_eq!(image.find("python", Some("{}")).unwrap().name, "pylsp");
    }

    #[test]
    fn documents_have_the_language_of_their_names() {
        let of = |language, path| document_language(language, Path::new(path));
        assert_eq!(of("typescript", "/a.tsx"), "typescriptreact");
        assert_eq!(of("typescript", "/a.mjs"), "javascript");
        assert_eq!(of("javascript", "/a"), "javascript");
        assert_eq!(of("cpp", "/a.ts"), "cpp");
    }
}
