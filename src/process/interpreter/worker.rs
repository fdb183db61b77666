//! One Python process that runs code: how it is started, and what comes from it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::supervisor::{
    Cause, Command, Exit, ExitStatus, Output, Process, StartError, Stream, Supervisor, memory,
};

/// What the process runs; see there.
const WORKER: &[u8] = include_bytes!("../../../assets/python/worker.py");
/// Reads `WORKER`, which leaves no name in `__main__`.
const BOOTSTRAP: &str = "(lambda f: exec((f.read(), f.close())[0], {'__name__': 'toolboxd'}))(open(6, 'rb'))";
/// Names of the interpreter, in the order of preference.
const NAMES: [&str; 2] = ["python3", "python"];
/// Longest time from the start of the process until it takes requests.
const START: Duration = Duration::from_secs(60);
/// Time for what a process leaves behind between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Largest message of a worker, in bytes.
const MESSAGE: usize = 32 * 1024 * 1024;
/// Bytes read at a time.
const READ: usize = super::text::PIECE;
/// Bytes that the kernel keeps of what was printed and not read yet, where it lets us choose.
const PIPE: usize = 256 * 1024;

/// What a worker is asked to run.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    pub(super) code: &'a str,
    pub(super) envs: &'a std::collections::BTreeMap<String, String>,
    pub(super) rich: bool,
}

/// What a worker says.
#[derive(Debug)]
pub(super) enum Message {
    /// It takes requests.
    Ready,
    /// Code runs, and can be interrupted.
    Begun,
    /// The code has failed.
    Error { name: String, value: String, traceback: String },
    /// The value of the code's last expression, by media type.
    Result(Box<RawValue>),
    /// The code has ended, and all that it printed is in the pipes.
    Done,
}

impl Message {
    /// None for what makes no sense.
    fn parse(json: &[u8]) -> Option<Self> {
        // No enum for serde: it could not keep the data as it is.
        #[derive(Deserialize)]
        struct Wire<'a> {
            r#type: &'a str,
            #[serde(default)]
            name: String,
            #[serde(default)]
            value: String,
            #[serde(default)]
            traceback: String,
            data: Option<Box<RawValue>>,
        }
        let Wire { r#type, name, value, traceback, data } = serde_json::from_slice(json).ok()?;
        match r#type {
            "ready" => Some(Self::Ready),
            "begun" => Some(Self::Begun),
            "error" => Some(Self::Error { name, value, traceback }),
            "result" => data.map(Self::Result),
            "done" => Some(Self::Done),
            _ => None,
        }
    }
}

/// What comes from a worker.
#[derive(Debug)]
pub(super) enum Event {
    /// Code printed something.
    Output(Stream, Vec<u8>),
    /// The worker says something.
    Message(Message),
    /// The process has ended; what it printed last may still be in the pipes.
    Ended(Exit),
}

/// A process that runs code. Dropping it kills it with all that it started.
#[derive(Debug)]
pub(super) struct Worker {
    process: Process,
    channel: UnixStream,
    received: BytesMut,
    unsent: Bytes,
    /// None when nobody can write to it any more.
    pipes: [Option<Receiver>; 2],
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill();
    }
}

impl Worker {
    /// Starts Python in a directory and waits until it takes requests.
    ///
    /// # Errors
    /// Says why it does not: what is missing, or what it printed.
    pub(super) async fn start(supervisor: &Supervisor, cwd: &Path) -> Result<Self, String> {
        let mut worker = Self::launch(supervisor, cwd).await.map_err(|error| error.to_string())?;
        let mut printed = Vec::new();
        let ready = async {
            loop {
                match worker.event(true).await {
                    Event::Message(Message::Ready) => return Ok(()),
                    Event::Ended(exit) => return Err(ending(exit)),
                    Event::Output(_, bytes) if printed.len() < READ => printed.extend(bytes),
                    Event::Output(..) | Event::Message(_) => {}
                }
            }
        };
        let reason = match timeout(START, ready).await {
            Ok(Ok(())) => return Ok(worker),
            Ok(Err(ending)) => ending,
            Err(_elapsed) => "takes no requests".to_owned(),
        };
        printed.extend(worker.drain().await.into_iter().flat_map(|(_, bytes)| bytes));
        let last_line = String::from_utf8_lossy(&printed).trim_end().lines().last().map(str::to_owned);
        Err(format!(
            "the Python worker {reason}{}",
            last_line.map_or_else(String::new, |line| format!(": {line}"))
        ))
    }

    async fn launch(supervisor: &Supervisor, cwd: &Path) -> Result<Self, Launch> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
        let (stdout, stderr) = (Arc::new(stdout), Arc::new(stderr));
        let mut command = Command::new([NAMES[0], "-u", "-c", BOOTSTRAP]);
        command.cwd = Some(cwd.to_path_buf());
        command.output = Output::Discarded;
        command.descriptors = vec![
            (1, Arc::clone(&stdout)),
            (2, Arc::clone(&stderr)),
            (3, Arc::new(theirs.into())),
            (4, stdout),
            (5, stderr),
            (6, Arc::new(memory("worker", &[WORKER])?)),
        ];
        let process = match supervisor.start(command.clone()).await {
            Err(error) if error.is_missing_program() => {
                command.argv[0] = NAMES[1].into();
                supervisor.start(command).await.map_err(|_| error)? // told by the name that people expect
            }
            started => started?,
        };
        Ok(Self {
            process,
            channel: UnixStream::from_std(ours)?,
            received: BytesMut::new(),
            unsent: Bytes::new(),
            pipes: [Some(Receiver::from_owned_fd(out)?), Some(Receiver::from_owned_fd(err)?)],
        })
    }

    /// The process, for signals.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to run code; the request goes out while events are awaited.
    pub(super) fn ask(&mut self, request: &Request<'_>) {
        let body = serde_json::to_vec(request).expect("a request is plain JSON");
        let length = u32::try_from(body.len()).expect("a frame of a client is not that large");
        self.unsent = Bytes::from([&length.to_be_bytes()[..], &body].concat());
    }

    /// What comes next; without output when `with_output` is false. Cancel safe.
    pub(super) async fn event(&mut self, with_output: bool) -> Event {
        loop {
            if let Some(message) = self.message() {
                return Event::Message(message);
            }
            let [out, err] = &self.pipes;
            let (reads_out, reads_err) = (with_output && out.is_some(), with_output && err.is_some());
            let (mut from, mut to) = self.channel.split();
            let bytes = tokio::select! {
                () = readable(out), if reads_out => self.read(0),
                () = readable(err), if reads_err => self.read(1),
                sent = to.write_buf(&mut self.unsent), if !self.unsent.is_empty() => {
                    if sent.is_err() {
                        self.unsent.clear(); // reading tells why
                    }
                    continue;
                }
                received = from.read_buf(&mut self.received) => {
                    if matches!(received, Ok(count) if count > 0) {
                        continue;
                    }
                    return Event::Ended(self.silenced().await);
                }
                exit = self.process.exited() => return Event::Ended(exit),
            };
            if let Some((stream, bytes)) = bytes {
                return Event::Output(stream, bytes);
            }
        }
    }

    /// Waits for its end, now that it cannot say anything any more. Code may have closed the channel and go on.
    async fn silenced(&self) -> Exit {
        if let Ok(exit) = timeout(GRACE, self.process.exited()).await {
            return exit;
        }
        self.process.kill();
        self.process.exited().await
    }

    /// What has been printed up to now and was not read yet.
    pub(super) async fn drain(&mut self) -> Vec<(Stream, Vec<u8>)> {
        let mut drained = Vec::new();
        for index in 0..self.pipes.len() {
            let waiting = |pipe: &Receiver| rustix::io::ioctl_fionread(pipe).unwrap_or_default();
            let mut left = self.pipes[index].as_ref().map_or(0, waiting);
            while left > 0 {
                // What the kernel has shows at once; the runtime may not know yet.
                readable(&self.pipes[index]).await;
                let Some((stream, bytes)) = self.read(index) else { break };
                left = left.saturating_sub(bytes.len() as u64);
                drained.push((stream, bytes));
            }
        }
        drained
    }

    /// None when there is nothing to read after all.
    fn read(&mut self, index: usize) -> Option<(Stream, Vec<u8>)> {
        let mut bytes = Vec::with_capacity(READ);
        match self.pipes[index].as_ref()?.try_read_buf(&mut bytes) {
            Ok(count) if count > 0 => Some(([Stream::Out, Stream::Err][index], bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            _ => {
                self.pipes[index] = None;
                None
            }
        }
    }

    /// The next message that is there as a whole. One that makes no sense is not the worker's: it is passed over.
    fn message(&mut self) -> Option<Message> {
        loop {
            let length = u32::from_be_bytes(*self.received.first_chunk()?) as usize;
            if length > MESSAGE {
                self.process.kill(); // code has got hold of the channel
                return None;
            }
            if self.received.len() < 4 + length {
                return None;
            }
            self.received.advance(4);
            let body = self.received.split_to(length);
            let message = Message::parse(&body);
            if message.is_some() {
                return message;
            }
        }
    }
}

async fn readable(pipe: &Option<Receiver>) {
    if let Some(pipe) = pipe {
        let _ = pipe.readable().await; // reading tells an error
    }
}

/// Why a worker was not launched.
enum Launch {
    Start(StartError),
    Io(io::Error),
}

impl From<StartError> for Launch {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<io::Error> for Launch {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Io(error) => write!(f, "no pipes for Python: {}", crate::error::os_text(error)),
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE); // a limit of the user's may be reached
    Ok((reader, writer))
}

/// How a worker has ended, in words that go on after "the worker".
pub(super) fn ending(exit: Exit) -> String {
    match (exit.cause, exit.status) {
        (Cause::MemoryLimit, _) => "was killed for want of memory".to_owned(),
        (_, ExitStatus::Code(code)) => format!("exited with code {code}"),
        (_, status) => format!("was killed by {}", status.signal_name().unwrap_or_default()),
    }
}
