//! An editor on the same server, over a WebSocket: one JSON-RPC message in each text frame, without a head, as
//! `monaco-languageclient` and `vscode-ws-jsonrpc` do it.
//!
//! The server has shaken hands with us, so `initialize` is answered with what it told us then, `shutdown` ends nothing,
//! and `exit` only this connection. Requests get ids of ours on the way. A document that the editor opens is the
//! editor's until it closes it or leaves.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lsp_types::notification::{
    Cancel, DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument, Exit,
    Initialized, Notification, WillSaveTextDocument,
};
use lsp_types::request::{self, Initialize, Request};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client::{Failure, Message, Pending, REQUEST_CANCELLED, Response, ResponseError};
use super::events::Inbox;
use super::server::Server;
use super::service::Lease;
use super::uri;
use crate::error::Error;
use crate::http::socket::{Close, Frame, Left, Receiver, Sender};
use crate::platform::shutdown::Shutdown;

/// Requests of one editor under way at a time; more wait.
const REQUESTS: usize = 64;
/// Longest wait for an answer. Generous: an editor has its own idea of what takes too long, and cancels.
const LIMIT: Duration = Duration::from_secs(600);
/// JSON-RPC's code for an error of the server itself.
const INTERNAL: i64 = -32603;

/// Why the connection ends.
enum Over {
    Because(Close),
    Failed(Error),
}

impl From<Left> for Over {
    fn from(_: Left) -> Self {
        Self::Because(Close::NORMAL)
    }
}

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Serves an editor until it leaves or the server ends.
pub(super) async fn serve(lease: Lease, shutdown: Shutdown, sender: Sender, receiver: Receiver) -> Close {
    let mut editor = Editor {
        inbox: lease.server.connect(),
        lease,
        shutdown,
        asked: HashSet::new(),
        cancellations: HashMap::new(),
        sender,
    };
    match editor.talk(receiver).await {
        Over::Because(close) => close,
        Over::Failed(error) => Close::failed(error.to_string()),
    }
}

struct Editor {
    lease: Lease,
    shutdown: Shutdown,
    inbox: Inbox,
    /// Ids of the server's requests that the editor has not answered, as JSON.
    asked: HashSet<String>,
    /// The editor's requests under way, by their ids as JSON.
    cancellations: HashMap<String, CancellationToken>,
    sender: Sender,
}

/// Also when the connection breaks, and all this is dropped: the server gets an answer to everything, and the editor's
/// documents are closed.
impl Drop for Editor {
    fn drop(&mut self) {
        for message in self.inbox.rest() {
            if let Some(Message { id: Some(id), method: Some(_), .. }) = Message::read(&message) {
                self.asked.insert(id.get().to_owned());
            }
        }
        let error = ResponseError::new(INTERNAL, "the editor has left");
        for id in &self.asked {
            if let Ok(id) = serde_json::from_str::<&RawValue>(id) {
                self.lease.server.client().answer(Response::new(id, Err(&error)).to_json().as_bytes());
            }
        }
        let (server, connection) = (Arc::clone(&self.lease.server), self.inbox.id);
        self.shutdown.spawn(async move { server.editor_left(connection).await });
    }
}

impl Editor {
    async fn talk(&mut self, mut receiver: Receiver) -> Over {
        let server = Arc::clone(&self.lease.server);
        let mut requests = FuturesUnordered::new();
        loop {
            let step = tokio::select! {
                () = server.over() => return Over::Because(Close::failed(server.end_text().await)),
                frame = receiver.recv(), if requests.len() < REQUESTS => match frame {
                    Some(frame) => match self.take(frame).await {
                        Ok(Some((id, pending, cancelled))) => {
                            requests.push(answer(&server, id, pending, cancelled));
                            Ok(())
                        }
                        Ok(None) => Ok(()),
                        Err(over) => Err(over),
                    },
                    None => return Over::Because(Close::NORMAL),
                },
                message = self.inbox.recv() => match message {
                    Some(message) => self.pass_on(&message).await,
                    None => return Over::Because(Close::failed("messages are read too slowly")),
                },
                Some((id, answer)) = requests.next(), if !requests.is_empty() => {
                    self.cancellations.remove(&id);
                    self.sender.text(answer).await.map_err(Over::from)
                }
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    /// A message of the server's.
    async fn pass_on(&mut self, message: &Bytes) -> Result<(), Over> {
        let Ok(text) = std::str::from_utf8(message) else { return Ok(()) };
        if let Some(Message { id: Some(id), method: Some(_), .. }) = Message::read(message) {
            self.asked.insert(id.get().to_owned());
        }
        Ok(self.sender.text(text.to_owned()).await?)
    }

    /// A message of the editor's; gives what has to be waited for.
    async fn take(&mut self, frame: Frame) -> Result<Option<(String, Pending, CancellationToken)>, Over> {
        let text = match &frame {
            Frame::Text(text) => text.as_str(),
            Frame::Binary(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        };
        let no_message = || Over::Because(Close::out_of_order("every frame is one JSON-RPC message"));
        let message = Message::read(text.as_bytes()).ok_or_else(no_message)?;
        match (message.method, message.id) {
            (Some(method), Some(id)) => self.request(&method, id, message.params).await,
            (Some(method), None) => {
                self.notification(&method, message.params, text).await?;
                Ok(None)
            }
            (None, Some(id)) => {
                if self.asked.remove(id.get()) {
                    self.lease.server.client().answer(text.as_bytes());
                }
                Ok(None)
            }
            (None, None) => Err(no_message()),
        }
    }

    async fn request(
        &mut self,
        method: &str,
        id: &RawValue,
        params: Option<&RawValue>,
    ) -> Result<Option<(String, Pending, CancellationToken)>, Over> {
        let own_answer = match method {
            Initialize::METHOD => Some(Cow::Borrowed(&*self.lease.server.abilities.answer)),
            request::Shutdown::METHOD => Some(Cow::Borrowed(b"null".as_slice())),
            _ => None,
        };
        if let Some(answer) = own_answer {
            let answer: &RawValue = serde_json::from_slice(&answer).unwrap_or(RawValue::NULL);
            self.sender.text(Response::new(id, Ok(answer)).to_json()).await?;
            return Ok(None);
        }
        match self.lease.server.client().begin(method, params).await {
            Ok(pending) => {
                let cancelled = CancellationToken::new();
                self.cancellations.insert(id.get().to_owned(), cancelled.clone());
                Ok(Some((id.get().to_owned(), pending, cancelled)))
            }
            Err(failure) => Err(self.lease.server.error(failure).await.into()),
        }
    }

    async fn notification(
        &mut self,
        method: &str,
        params: Option<&RawValue>,
        text: &str,
    ) -> Result<(), Over> {
        match method {
            Initialized::METHOD => Ok(()),
            Exit::METHOD => Err(Over::Because(Close::NORMAL)),
            Cancel::METHOD => {
                #[derive(Deserialize)]
                struct Params<'a> {
                    #[serde(borrow)]
                    id: &'a RawValue,
                }
                let params = params.and_then(|params| serde_json::from_str::<Params<'_>>(params.get()).ok());
                let request = params.and_then(|params| self.cancellations.get(params.id.get()));
                if let Some(request) = request {
                    request.cancel();
                }
                Ok(())
            }
            DidOpenTextDocument::METHOD
            | DidChangeTextDocument::METHOD
            | WillSaveTextDocument::METHOD
            | DidSaveTextDocument::METHOD
            | DidCloseTextDocument::METHOD => {
                let Some((path, uri)) = params.and_then(document) else {
                    debug!("an editor speaks of what is no file");
                    return Ok(());
                };
                let (id, bytes) = (self.inbox.id, text.as_bytes());
                let told = match method {
                    DidOpenTextDocument::METHOD => {
                        self.lease.server.open_by_editor(id, &path, uri, bytes).await
                    }
                    DidCloseTextDocument::METHOD => self.lease.server.close_by_editor(id, &path).await,
                    _ => self.lease.server.pass_on_of_document(id, &path, bytes).await,
                };
                Ok(told?)
            }
            _ => match self.lease.server.client().room().await {
                Ok(room) => {
                    room.pass_on(text.as_bytes());
                    Ok(())
                }
                Err(failure) => Err(self.lease.server.error(failure).await.into()),
            },
        }
    }
}

/// Waits for the answer to an editor's request; gives it under the editor's own id.
async fn answer(
    server: &Server,
    id: String,
    pending: Pending,
    cancelled: CancellationToken,
) -> (String, String) {
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(LIMIT, pending.answer()) => match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Response(error))) => Err(error),
            Ok(Err(failure)) => Err(ResponseError::new(INTERNAL, failure.to_string())),
            Err(_) => Err(ResponseError::new(INTERNAL, server.late("the request", LIMIT).to_string())),
        },
        () = cancelled.cancelled() => Err(ResponseError::new(REQUEST_CANCELLED, "cancelled")),
    };
    let raw_id: &RawValue = serde_json::from_str(&id).unwrap_or(RawValue::NULL);
    let result = outcome.as_ref().map(|answer| serde_json::from_slice(answer).unwrap_or(RawValue::NULL));
    let text = Response::new(raw_id, result).to_json();
    (id, text)
}

/// The document that a notification is about, and the editor's own name for it.
fn document(params: &RawValue) -> Option<(PathBuf, lsp_types::Uri)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        text_document: Identifier,
    }
    #[derive(Deserialize)]
    struct Identifier {
        uri: lsp_types::Uri,
    }
    let Params { text_document: Identifier { uri } } = serde_json::from_str(params.get()).ok()?;
    Some((uri::to_path(uri.as_str())?, uri))
}
