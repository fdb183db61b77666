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
/// Between two pieces of the same work, as a project is loaded.
const PAUSE: Duration = Duration::from_millis(250);
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
    /// Begins and ends of work so far.
    turns: u64,
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
        state.turns += u64::from(value.kind != "report");
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

    /// Whether announced work goes on, and how often work has begun or ended so far.
    pub(super) fn work(&self) -> (bool, u64) {
        let state = self.state();
        (!state.work.is_empty(), state.turns)
    }

    /// Waits until the server has announced work that goes on, `limit` at most. Whether it has.
    pub(super) async fn works(&self, limit: Duration) -> bool {
        let is_at_work = |state: &State| (!state.work.is_empty()).then(Instant::now);
        self.until(Instant::now() + limit, is_at_work).await
    }

    /// Waits until no announced work goes on and nothing was heard for a moment; until `deadline` at most. Whether it is
    /// so.
    pub(super) async fn rests(&self, deadline: Instant) -> bool {
        let rest = |state: &State| {
            state.work.is_empty().then(|| state.active.map_or_else(Instant::now, |active| active + PAUSE))
        };
        self.until(deadline, rest).await
    }

    /// How much was published so far: what comes after is more.
    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    /// Waits until the server is at rest, having published something of each of `files` after the count that stands
    /// with it, or anything at all when there are none; until `deadline` at most. Whether it is.
    pub(super) async fn settled(&self, files: &[(PathBuf, u64)], deadline: Instant) -> bool {
        let quiet = |state: &State| {
            let has_answered = |(path, since): &(PathBuf, u64)| {
                state.files.get(path).is_some_and(|published| published.count > *since)
            };
            let rests = state.work.is_empty() && files.iter().all(has_answered);
            state.active.filter(|_| rests).map(|active| active + QUIET)
        };
        self.until(deadline, quiet).await
    }

    /// Waits for the moment that `moment` gives, unless something changes it before; whether it came before `deadline`.
    async fn until(&self, deadline: Instant, moment: impl Fn(&State) -> Option<Instant>) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable(); // before looking
            let moment = moment(&self.state());
            if moment.is_some_and(|moment| moment <= Instant::now()) {
                return true;
            }
            let until = moment.map_or(deadline, |moment| moment.min(deadline));
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
        let file = [(PathBuf::from("/a"), 0)];
        let settled = diagnostics.settled(&file, deadline);
        let server = async {
            for _ in 0..3 {
                tokio::time::advance(QUIET / 2).await;
                publish(&diagnostics, "a", "x");
            }
        };
        assert!(tokio::join!(settled, server).0);
        assert_eq!(began.elapsed(), QUIET / 2 * 3 + QUIET);
        assert!(diagnostics.settled(&file, deadline).await, "and still is");
        assert_eq!(began.elapsed(), QUIET / 2 * 3 + QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn announced_work_and_other_files_do_not_count_as_an_answer() {
        let (diagnostics, began) = (Diagnostics::default(), Instant::now());
        let deadline = began + Duration::from_secs(10);
        publish(&diagnostics, "a", "old");
        let file = [(PathBuf::from("/a"), diagnostics.count())];
        publish(&diagnostics, "b", "x");
        assert!(!diagnostics.settled(&file, began + QUIET * 2).await);
        publish(&diagnostics, "a", "new");
        progress(&diagnostics, "begin");
        let settled = diagnostics.settled(&file, deadline);
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
