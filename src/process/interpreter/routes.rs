//! URLs of the interpreter.

use std::time::Duration;

use axum::Json as JsonReply;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use tokio::time::timeout;

use super::context::{Context as Namespace, Refusal, Running};
use super::run::{End, Event, Snippet};
use super::service::Interpreter;
use super::wire::{
    Control, CreateContext, Done, InterpreterContext, InterpreterContexts, OutputFrame, RunRequest,
};
use crate::endpoints;
use crate::error::{Error, Result};
use crate::http::extract::{Path, collect, idempotency_key, json};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::{Close, Frame, Left, Receiver, Sender, Upgrade};
use crate::platform::shutdown::Shutdown;

/// Largest description of a context, in bytes.
const BODY_BYTES: usize = 1024 * 1024;
/// Time for the first frame.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// Close code for code that reached its time limit.
const TIMED_OUT: u16 = 4008;
/// Close code for a peer that does not keep to what was agreed (RFC 6455 7.4.1).
const PROTOCOL: u16 = 1002;
/// Close code for what goes away (RFC 6455 7.4.1).
const AWAY: u16 = 1001;

#[derive(Debug, Clone)]
struct Context {
    interpreter: Interpreter,
    shutdown: Shutdown,
}

pub(crate) fn router(interpreter: Interpreter, shutdown: Shutdown) -> Routes {
    Routes::new()
        .routes(endpoints!(create, list))
        .routes(endpoints!(delete))
        .routes(endpoints!(execute))
        .with_state(Context { interpreter, shutdown })
}

/// Makes a context: a Python process with a namespace of its own, that runs of code share
///
/// Repeating a request with the same `Idempotency-Key` header gives the first one's answer.
#[utoipa::path(post, path = "/process/interpreter/context", tag = "interpreter", request_body = CreateContext,
    responses((status = 200, body = InterpreterContext), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 500, body = ErrorBody)))]
async fn create(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<JsonReply<InterpreterContext>> {
    let body = collect(body, BODY_BYTES).await?;
    let key = idempotency_key(&headers, &body)?;
    let CreateContext { cwd, language } = json(&body)?;
    let cwd = cwd.filter(|cwd| !cwd.is_empty());
    let made = context.interpreter.create(cwd, language, key).await?;
    Ok(JsonReply(InterpreterContext::from(&*made)))
}

/// All contexts but the default one, oldest first
#[utoipa::path(get, path = "/process/interpreter/context", tag = "interpreter",
    responses((status = 200, body = InterpreterContexts)))]
async fn list(State(context): State<Context>) -> JsonReply<InterpreterContexts> {
    let contexts = context.interpreter.list();
    JsonReply(InterpreterContexts {
        contexts: contexts.iter().map(|context| InterpreterContext::from(&**context)).collect(),
    })
}

/// Ends a context and everything that it started: SIGTERM, 2 seconds, SIGKILL
#[utoipa::path(delete, path = "/process/interpreter/context/{id}", tag = "interpreter",
    params(("id" = String, Path, description = "Id of the context")),
    responses((status = 200, body = Done), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn delete(State(context): State<Context>, Path(id): Path<String>) -> Result<JsonReply<Done>> {
    let interpreter = context.interpreter.clone();
    let deleted = context.shutdown.spawn(async move { interpreter.delete(&id).await }).await;
    deleted.map_err(|error| Error::internal("the context was not deleted").with_source(error))??;
    Ok(JsonReply(Done { message: "Context deleted successfully" }))
}

/// Runs code in a context, over a WebSocket: one connection is one run
///
/// The client's first frame is a `RunRequest`; what comes back are `OutputFrame`s and a close: 1000 when the code has
/// ended, with an error or not, 4008 when it reached its time limit, 1001 when its context was deleted, 1011 when the
/// process that ran it has ended, 1002 and 1008 when the request makes no sense. Runs of a context wait for each other.
/// A run goes on when its client leaves, one that waits does not begin. A later frame `{"type":"interrupt"}` raises a
/// KeyboardInterrupt in the code.
#[utoipa::path(get, path = "/process/interpreter/execute", tag = "interpreter",
    responses((status = 101, body = OutputFrame), (status = 400, body = ErrorBody)), request_body = RunRequest)]
async fn execute(State(context): State<Context>, upgrade: Upgrade) -> Response {
    let interpreter = context.interpreter.clone();
    upgrade.serve(&context.shutdown, move |sender, receiver| run(interpreter, sender, receiver))
}

async fn run(interpreter: Interpreter, sender: Sender, mut receiver: Receiver) -> Close {
    let Ok(Some(frame)) = timeout(FIRST_FRAME, receiver.recv()).await else {
        return Close::new(PROTOCOL, "failed to read first message");
    };
    let Ok(request) = serde_json::from_slice::<RunRequest>(bytes_of(&frame)) else {
        return Close::new(PROTOCOL, "invalid JSON payload");
    };
    let (id, snippet) = match request.into_run() {
        Ok(run) => run,
        Err(reason) => return Close::out_of_order(reason),
    };
    let Some(namespace) = interpreter.get(&id) else {
        return Close::out_of_order(format!("context not found: {id}"));
    };
    match follow(&namespace, snippet, &sender, &mut receiver).await {
        Ok(close) => close,
        Err(Left) => Close::NORMAL, // nobody reads it
    }
}

async fn follow(
    namespace: &Namespace,
    snippet: Snippet,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<Close, Left> {
    let mut turn = std::pin::pin!(namespace.run(snippet));
    let Running { mut events, interrupt } = loop {
        tokio::select! {
            running = &mut turn => match running {
                Ok(running) => break running,
                Err(Refusal::Closed) => return Ok(closed()),
                Err(Refusal::Full) => return Ok(Close::out_of_order("too many runs wait for this context")),
            },
            frame = receiver.recv() => if is_interrupt(&frame.ok_or(Left)?) {
                sender.text(OutputFrame::interrupted()).await?;
                sender.text(OutputFrame::completed()).await?;
                return Ok(Close::NORMAL);
            },
        }
    };
    loop {
        tokio::select! {
            event = events.recv() => match event {
                None => return Ok(closed()),
                Some(Event::End(end)) => return finish(&namespace.id, end, sender).await,
                Some(event) => for frame in OutputFrame::of(&event) {
                    sender.text(frame).await?;
                },
            },
            frame = receiver.recv() => if is_interrupt(&frame.ok_or(Left)?) {
                interrupt.notify_one();
            },
        }
    }
}

async fn finish(id: &str, end: End, sender: &Sender) -> Result<Close, Left> {
    Ok(match end {
        End::Completed => {
            sender.text(OutputFrame::completed()).await?;
            Close::NORMAL
        }
        End::TimedOut => Close::new(TIMED_OUT, ""),
        End::WorkerEnded => Close::failed("worker process ended"),
        End::Closed => closed(),
        End::NotStarted(reason) => Close::failed(format!("failed to get {id} context: {reason}")),
    })
}

fn closed() -> Close {
    Close::new(AWAY, "context shutdown")
}

fn is_interrupt(frame: &Frame) -> bool {
    matches!(serde_json::from_slice(bytes_of(frame)), Ok(Control::Interrupt))
}

fn bytes_of(frame: &Frame) -> &[u8] {
    match frame {
        Frame::Text(text) => text.as_bytes(),
        Frame::Binary(bytes) => bytes,
    }
}
