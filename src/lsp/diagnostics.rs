//! What a server has published about files, and whether it is at rest.
//!
//! Servers publish when they like: some at once and again when they know more, some after a pause, and some never for a
//! file without faults. LSP has no "done". So a server counts as at rest when it has published something about the
//! file since it was told of it, has announced no work that goes on, and was quiet for a moment.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::uri;

/// A server that published nothing for this long, and is at no announced work, is at rest.
const QUIET: Duration = Duration::from_millis(700);
/// Bytes of diagnostics that are kept of one server; of more, those published longest ago are forgotten.
const KEPT: usize = 16 * 1024 * 1024;
/// Announced work that is followed at a time.
const WORK: usize = 256;

/// Diagnostics of one server's files.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<PathBuf, Published>,
    bytes: usize,
    /// When something was published or announced last.
    active: Option<Instant>,
    /// Tokens of work that goes on.
    work: HashSet<String>,
    count: u64,
}

/// What was published of one file.
#[derive(Debug, Clone)]
struct Published {
    /// A JSON array.
    items: Box<RawValue>,
    /// Counts up with everything that is published.
    count: u64,
}

#[derive(Deserialize)]
struct Publish<'a> {
    uri: String,
    #[serde(borrow)]
    diagnostics: &'a RawValue,
}

#[derive(Deserialize)]
struct Progress<'a> {
    #[serde(borrow)]
    token: &'a RawValue,
    value: ProgressValue,
}

#[derive(Deserialize)]
struct ProgressValue {
    #[serde(default)]
    kind: String,
}

impl Diagnostics {
    /// Takes the parameters of `textDocument/publishDiagnostics`.
    pub(super) fn publish(&self, params: &str) {
        let Ok(Publish { uri, diagnostics }) = serde_json::from_str(params) else { return };
        let Some(path) = uri::to_path(&uri) else { return };
        let mut state = self.state();
        state.count += 1;
        state.active = Some(Instant::now());
        let published = Published { items: diagnostics.to_owned(), count: state.count };
        state.bytes += size(&path, &published);
        if let Some(before) = state.files.insert(path.clone(), published) {
            state.bytes -= size(&path, &before);
        }
        while state.bytes > KEPT {
            let oldest = state.files.iter().min_by_key(|(_, published)| published.count);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else { break };
            let published = state.files.remove(&oldest).expect("just found");
            state.bytes -= size(&oldest, &published);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes the parameters of `$/progress`.
    pub(super) fn progress(&self, params: &str) {
        let Ok(Progress { token, value }) = serde_json::from_str::<Progress<'_>>(params) else { return };
        let mut state = self.state();
        match value.kind.as_str() {
            "begin" if state.work.len() < WORK => drop(state.work.insert(token.get().to_owned())),
            "end" => drop(state.work.remove(token.get())),
            "begin" | "report" => {}
            _ => return, // partial results
        }
        state.active = Some(Instant::now());
        drop(state);
        self.changed.notify_waiters();
    }

    /// How much was published so far: what comes after is more.
    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    /// Waits until the server is at rest, having published something of `path` (or, without one, of any file) after
    /// `since`; until `deadline` at most. Whether it is.
    pub(super) async fn settled(&self, path: Option<&Path>, since: Option<u64>, deadline: Instant) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable(); // before looking
            let until = {
                let state = self.state();
                let published = match path {
                    Some(path) => {
                        state.files.get(path).is_some_and(|published| published.count > since.unwrap_or(0))
                    }
                    None => state.count > since.unwrap_or(0),
                };
                let quiet =
                    state.active.map(|active| active + QUIET).filter(|_| published && state.work.is_empty());
                match quiet {
                    Some(quiet) if quiet <= Instant::now() => return true,
                    Some(quiet) => quiet.min(deadline),
                    None => deadline,
                }
            };
            if timeout_at(until, changed).await.is_err() && Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// What is known of a file, or without one of all files, by path: JSON arrays.
    pub(super) fn known(&self, path: Option<&Path>) -> Vec<(PathBuf, Box<RawValue>)> {
        let state = self.state();
        let mut known: Vec<_> = match path {
            Some(path) => state.files.get_key_value(path).into_iter().collect(),
            None => state.files.iter().collect(),
        };
        known.sort_unstable_by_key(|(path, _)| *path);
        known.into_iter().map(|(path, published)| (path.clone(), published.items.clone())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(path: &Path, published: &Published) -> usize {
    path.as_os_str().len() + published.items.get().len() + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(diagnostics: &Diagnostics, file: &str, text: &str) {
        diagnostics.publish(&format!("{{\"uri\":\"file:///{file}\",\"diagnostics\":[\"{text}\"]}}"));
    }

    fn progress(diagnostics: &Diagnostics, kind: &str) {
        diagnostics.progress(&format!("{{\"token\":\"t\",\"value\":{{\"kind\":\"{kind}\"}}}}"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_at_rest_when_it_has_published_and_is_quiet() {
        let (diagnostics, began) = (Diagnostics::default(), Instant::now());
        let deadline = began + Duration::from_secs(10);
        let path = Path::new("/a");
        let settled = diagnostics.settled(Some(path), None, deadline);
        let server = async {
            for _ in 0..3 {
                tokio::time::advance(QUIET / 2).await;
                publish(&diagnostics, "a", "x");
            }
        };
        assert!(tokio::join!(settled, server).0);
        assert_eq!(began.elapsed(), QUIET / 2 * 3 + QUIET);
        assert!(diagnostics.settled(Some(path), None, deadline).await, "and still is");
        assert_eq!(began.elapsed(), QUIET / 2 * 3 + QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn announced_work_and_other_files_do_not_count_as_an_answer() {
        let (diagnostics, began) = (Diagnostics::default(), Instant::now());
        let deadline = began + Duration::from_secs(10);
        publish(&diagnostics, "a", "old");
        let since = diagnostics.count();
        publish(&diagnostics, "b", "x");
        assert!(!diagnostics.settled(Some(Path::new("/a")), Some(since), began + QUIET * 2).await);
        publish(&diagnostics, "a", "new");
        progress(&diagnostics, "begin");
        let settled = diagnostics.settled(Some(Path::new("/a")), Some(since), deadline);
        let server = async {
            tokio::time::advance(QUIET * 3).await;
            progress(&diagnostics, "end");
        };
        assert!(tokio::join!(settled, server).0);
        assert_eq!(began.elapsed(), QUIET * 6);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let (diagnostics, text) = (Diagnostics::default(), "x".repeat(KEPT / 4));
        for file in ["a", "b", "c", "d", "e", "e", "e"] {
            publish(&diagnostics, file, &text);
        }
        let known: Vec<_> = diagnostics.known(None).into_iter().map(|(path, _)| path).collect();
        assert_eq!(known, ["/c", "/d", "/e"].map(PathBuf::from));
        assert!(diagnostics.state().bytes <= KEPT);
    }
}
