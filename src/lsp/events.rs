//! What servers ask and tell of themselves: configuration, progress, diagnostics; and what of it editors get.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client::{Handler, METHOD_NOT_FOUND, ResponseError};
use super::diagnostics::Diagnostics;

/// Messages that wait for one editor…
const WAITING: usize = 1024;
/// …and their bytes. An editor that leaves more unread is disconnected: it would miss something.
const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Takes what one server says.
#[derive(Debug)]
pub(super) struct Events {
    /// The project, as a server asks for it.
    pub(super) folder: Value,
    /// From the settings file.
    pub(super) settings: Value,
    pub(super) diagnostics: Diagnostics,
    pub(super) editors: Editors,
}

impl Handler for Events {
    fn request(&self, message: &Bytes, method: &str, params: &str) -> Option<Result<Value, ResponseError>> {
        let refused = match method {
            "workspace/configuration" => return Some(Ok(self.configuration(params))),
            "workspace/workspaceFolders" => return Some(Ok(json!([self.folder]))),
            "client/registerCapability"
            | "client/unregisterCapability"
            | "window/workDoneProgress/create" => {
                return Some(Ok(Value::Null));
            }
            refresh if refresh.starts_with("workspace/") && refresh.ends_with("/refresh") => {
                return Some(Ok(Value::Null));
            }
            // For a person, if there is one.
            "window/showMessageRequest" => Value::Null,
            "window/showDocument" => json!({"success": false}),
            "workspace/applyEdit" => json!({"applied": false, "failureReason": "no editor is connected"}),
            _ => {
                return Some(Err(ResponseError::new(METHOD_NOT_FOUND, format!("{method} is not supported"))));
            }
        };
        if self.editors.ask(message) { None } else { Some(Ok(refused)) }
    }

    fn notification(&self, message: &Bytes, method: &str, params: &str) {
        match method {
            "textDocument/publishDiagnostics" => self.diagnostics.publish(params),
            "$/progress" => self.diagnostics.progress(params),
            _ => {}
        }
        self.editors.tell(message);
    }
}

impl Events {
    /// One value for each item that is asked for, or servers get confused.
    fn configuration(&self, params: &str) -> Value {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let items = params["items"].as_array().map_or(&[] as &[_], Vec::as_slice);
        items.iter().map(|item| self.section(item["section"].as_str().unwrap_or_default())).collect()
    }

    /// `python.analysis` is member `analysis` of member `python`, unless a member has that whole name.
    fn section(&self, section: &str) -> Value {
        let whole = self.settings.get(section).cloned();
        whole.unwrap_or_else(|| {
            let mut parts = section.split('.').filter(|part| !part.is_empty());
            parts.try_fold(&self.settings, |value, part| value.get(part)).cloned().unwrap_or_default()
        })
    }
}

/// The editors that are connected to a server.
#[derive(Debug, Default)]
pub(super) struct Editors {
    connected: Mutex<Vec<Connected>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Connected {
    queue: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// What one editor gets; dropping it disconnects.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Tells this editor from others.
    pub(super) id: u64,
    queue: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Editors {
    /// One more editor.
    pub(super) fn connect(&self) -> Inbox {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::channel(WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        self.connected().push(Connected { queue: sender, bytes: Arc::clone(&bytes) });
        Inbox { id, queue, bytes }
    }

    /// Sends a message to all.
    fn tell(&self, message: &Bytes) {
        self.connected().retain(|editor| editor.send(message));
    }

    /// Sends a message to the newest; whether there is one.
    fn ask(&self, message: &Bytes) -> bool {
        let mut connected = self.connected();
        while let Some(newest) = connected.last() {
            if newest.send(message) {
                return true;
            }
            connected.pop();
        }
        false
    }

    fn connected(&self) -> std::sync::MutexGuard<'_, Vec<Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    /// Whether there was room, and an editor.
    fn send(&self, message: &Bytes) -> bool {
        let waiting = self.bytes.fetch_add(message.len(), Ordering::Relaxed);
        // One message, however large, always fits.
        (waiting == 0 || waiting + message.len() <= WAITING_BYTES)
            && self.queue.try_send(message.clone()).is_ok()
    }
}

impl Inbox {
    /// The next message; none when the editor has read too slowly. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Bytes> {
        let message = self.queue.recv().await?;
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    /// What is there although nobody will read it.
    pub(super) fn rest(&mut self) -> Vec<Bytes> {
        self.queue.close();
        std::iter::from_fn(|| self.queue.try_recv().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(settings: Value) -> Events {
        Events {
            folder: json!({"uri": "file:///p", "name": "p"}),
            settings,
            diagnostics: Diagnostics::default(),
            editors: Editors::default(),
        }
    }

    fn ask(events: &Events, method: &str, params: &Value) -> Option<Result<Value, i64>> {
        let answer = events.request(&Bytes::from_static(b"{}"), method, &params.to_string());
        answer.map(|answer| answer.map_err(|error| error.code))
    }

    #[test]
    fn configuration_is_one_value_for_each_item() {
        let items =
            json!({"items": [{"section": "python.analysis"}, {"section": "pylsp"}, {}, {"section": "a.b"}]});
        let nothing = events(Value::Null);
        assert_eq!(
            ask(&nothing, "workspace/configuration", &items),
            Some(Ok(json!([null, null, null, null])))
        );
        let settings = json!({"python": {"analysis": {"x": 1}}, "a.b": 2});
        let some = events(settings.clone());
        assert_eq!(
            ask(&some, "workspace/configuration", &items),
            Some(Ok(json!([{"x": 1}, null, settings, 2])))
        );
    }

    #[test]
    fn unknown_requests_are_refused_and_known_ones_answered() {
        let events = events(Value::Null);
        assert_eq!(ask(&events, "client/registerCapability", &json!({})), Some(Ok(Value::Null)));
        assert_eq!(ask(&events, "workspace/codeLens/refresh", &json!(null)), Some(Ok(Value::Null)));
        assert_eq!(
            ask(&events, "workspace/workspaceFolders", &json!(null)),
            Some(Ok(json!([events.folder])))
        );
        assert_eq!(ask(&events, "made/up", &json!({})), Some(Err(METHOD_NOT_FOUND)));
        assert_eq!(ask(&events, "workspace/applyEdit", &json!({})).unwrap().unwrap()["applied"], false);
    }

    #[tokio::test]
    async fn what_is_for_a_person_goes_to_the_newest_editor() {
        let events = events(Value::Null);
        let (mut first, mut second) = (events.editors.connect(), events.editors.connect());
        assert_eq!(ask(&events, "workspace/applyEdit", &json!({})), None);
        assert_eq!(second.recv().await.unwrap(), "{}");
        drop(second);
        assert_eq!(ask(&events, "window/showMessageRequest", &json!({})), None);
        assert_eq!(first.rest().len(), 1);
    }

    #[tokio::test]
    async fn an_editor_that_reads_too_slowly_is_disconnected_and_the_others_are_not() {
        let editors = Editors::default();
        let (mut slow, mut quick) = (editors.connect(), editors.connect());
        for _ in 0..=WAITING {
            editors.tell(&Bytes::from_static(b"x"));
            assert!(quick.recv().await.is_some());
        }
        for _ in 0..WAITING {
            assert!(slow.recv().await.is_some());
        }
        assert_eq!(slow.recv().await, None);
        editors.tell(&Bytes::from(vec![b'x'; WAITING_BYTES + 1]));
        assert_eq!(quick.recv().await.unwrap().len(), WAITING_BYTES + 1);
    }
}
