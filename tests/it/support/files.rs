//! Files over the API, and what happens to them on disk.

use std::path::Path;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::sync::mpsc;

use super::client::{Call, Client, Reply};
use super::daemon::within;

impl Client {
    pub(crate) fn list(&self, path: &str) -> Call {
        self.get("/files").query("path", path)
    }

    pub(crate) fn info(&self, path: &str) -> Call {
        self.get("/files/info").query("path", path)
    }

    pub(crate) fn download(&self, path: &str) -> Call {
        self.get("/files/download").query("path", path)
    }

    pub(crate) fn bulk_download(&self, paths: &[&str]) -> Call {
        self.post("/files/bulk-download").json(serde_json::json!({ "paths": paths }))
    }

    /// As the raw body of the newer upload.
    pub(crate) fn upload(&self, path: &str, content: impl Into<reqwest::Body>) -> Call {
        self.post("/files/upload-v2").query("path", path).body(content)
    }

    pub(crate) fn remove(&self, path: &str, recursive: bool) -> Call {
        self.delete("/files").query("path", path).query("recursive", recursive.to_string())
    }

    pub(crate) fn create_folder(&self, path: &str, mode: &str) -> Call {
        self.post("/files/folder").query("path", path).query("mode", mode)
    }

    pub(crate) fn rename(&self, source: &str, destination: &str) -> Call {
        self.post("/files/move").query("source", source).query("destination", destination)
    }

    pub(crate) fn set_permissions(&self, path: &str) -> Call {
        self.post("/files/permissions").query("path", path)
    }

    pub(crate) fn replace(&self, files: &[&str], pattern: &str, value: &str) -> Call {
        let body = serde_json::json!({ "files": files, "pattern": pattern, "newValue": value });
        self.post("/files/replace").json(body)
    }
}

/// A form with one field `file`.
pub(crate) fn file_form(content: impl Into<reqwest::Body>) -> Form {
    Form::new().part("file", Part::stream(content).file_name("ignored"))
}

/// A bulk upload as most SDKs send it, each path before its file.
pub(crate) fn bulk_form(files: &[(&str, &[u8])]) -> Form {
    files.iter().enumerate().fold(Form::new(), |form, (index, (path, content))| {
        let file = Part::bytes(content.to_vec()).file_name((*path).to_owned());
        form.text(format!("files[{index}].path"), (*path).to_owned())
            .part(format!("files[{index}].file"), file)
    })
}

/// One part of a bulk download.
#[derive(Debug)]
pub(crate) struct FormPart {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl FormPart {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Reply {
    /// The strings in a member of its JSON's elements.
    pub(crate) fn column(&self, member: &str) -> Vec<String> {
        let rows = self.json();
        rows.as_array().unwrap().iter().map(|row| row[member].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn boundary(&self) -> String {
        self.header("content-type").split_once("boundary=").unwrap().1.to_owned()
    }

    /// The parts of a multipart body, which must be complete.
    pub(crate) fn parts(&self) -> Vec<FormPart> {
        let start = format!("--{}", self.boundary()).into_bytes();
        let delimiter = [b"\r\n", start.as_slice()].concat();
        let mut rest = self.body.strip_prefix(start.as_slice()).unwrap();
        let mut parts = Vec::new();
        while let Some(part) = rest.strip_prefix(b"\r\n") {
            let end = find(part, &delimiter).expect("each part has its end");
            let (head, body) = part[..end].split_at(find(part, b"\r\n\r\n").unwrap() + 4);
            parts.push(FormPart { head: head.to_vec(), body: body.to_vec() });
            rest = &part[end + delimiter.len()..];
        }
        assert_eq!(rest, b"--\r\n");
        parts
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

/// Names in a directory, sorted.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What happens in a directory.
pub(crate) struct Changes {
    events: mpsc::UnboundedReceiver<Event>,
    _watcher: RecommendedWatcher,
}

impl Changes {
    pub(crate) fn of(directory: &Path) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let _ = sender.send(event.unwrap());
        })
        .unwrap();
        watcher.watch(directory, RecursiveMode::NonRecursive).unwrap();
        Self { events, _watcher: watcher }
    }

    /// Waits for the next thing that happens there.
    pub(crate) async fn next(&mut self) {
        within(self.events.recv()).await.unwrap();
    }

    /// Waits for something that is created.
    pub(crate) async fn of_new(&mut self) {
        while !within(self.events.recv()).await.unwrap().kind.is_create() {}
    }

    /// Waits for something that happens to a temporary file.
    pub(crate) async fn of_temporary(&mut self, wanted: impl Fn(&Event) -> bool) {
        loop {
            let event = within(self.events.recv()).await.unwrap();
            let is_temporary = |path: &std::path::PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".toolboxd-"))
            };
            if wanted(&event) && event.paths.iter().any(is_temporary) {
                return;
            }
        }
    }
}
