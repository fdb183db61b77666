//! Git over SSH: runs git's own service on the server, as the user that the URL names.
//!
//! Who we are is shown by the keys of the agent at `SSH_AUTH_SOCK`, then by those in `~/.ssh`; who the server is, by
//! [`known_hosts`](super::known_hosts). No program is started, so `core.sshCommand` and `ProxyCommand` have no effect.

mod keys;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use russh::client::{self, AuthResult, Config, Handle, Msg};
use russh::keys::{HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, MethodKind, Preferred};
use tracing::{info, warn};

use super::connection::tcp;
use super::known_hosts::{KnownHost, Verdict};
use super::location::{Location, SshUrl};
use super::operation::{Operation, transport};
use super::remarks;
use crate::error::{Error, ErrorKind, Result};
use crate::platform::users;

/// Most that the server may send while it does not read, in bytes.
const UNREAD: usize = 4 * 1024 * 1024;

/// The transport.
pub(super) struct Ssh {
    operation: Arc<Operation>,
}

impl Ssh {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        Self { operation }
    }
}

impl SmartSubtransport for Ssh {
    fn action(&self, url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let connection =
            connect(&self.operation, url, service).map_err(|error| self.operation.fail(error))?;
        Ok(Box::new(connection))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

fn connect(operation: &Arc<Operation>, url: &str, service: Service) -> Result<Connection> {
    let location = Location::parse(url, "/".as_ref())?;
    let Location::Ssh(url) = &location else { return Err(Error::invalid("this is no ssh url")) };
    let (host, port) = (url.host.as_str(), url.port.unwrap_or(22));
    let doing = format!("{host} port {port}");
    let known = Arc::new(KnownHost::find(operation.home(), host, port));
    let stream = operation.wait(&doing, tcp(host, port))?;
    let preferred =
        Preferred { key: Cow::Owned(known.preferred(&Preferred::DEFAULT.key)), ..Preferred::DEFAULT };
    let config = Arc::new(Config { preferred, nodelay: true, ..Config::default() });
    let server = Server { known: Arc::clone(&known), new: Arc::default() };
    let new = Arc::clone(&server.new);
    let handle = operation.wait(&doing, async {
        client::connect_stream(config, stream, server).await.map_err(|Failed(error)| name_host(&doing, error))
    });
    let handle = handle?;
    if let Some(key) = lock(&new).take() {
        remember(&known, &key, host);
    }
    let mut connection = Session { handle, operation: Arc::clone(operation), host: doing };
    connection.authenticate(url)?;
    connection.start(url, service, location.to_string())
}

fn remember(known: &KnownHost, key: &PublicKey, host: &str) {
    let print = key.fingerprint(HashAlg::Sha256);
    match known.remember(key) {
        Ok(()) => info!("ssh host {host} is new and is known by {print} from now on"),
        Err(error) => warn!("ssh host {host} is new, and {print} cannot be remembered: {error}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_host(host: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::GitTransportFailed => transport(format!("ssh to {host}: {error}")).with_source(error),
        _ => error,
    }
}

/// Looks at the server's key.
struct Server {
    known: Arc<KnownHost>,
    /// The key of a server that was not known.
    new: Arc<Mutex<Option<PublicKey>>>,
}

/// What the library may fail with, beside what we say ourselves.
#[derive(Debug)]
struct Failed(Error);

impl From<russh::Error> for Failed {
    fn from(error: russh::Error) -> Self {
        Self(broken(error))
    }
}

fn broken(error: russh::Error) -> Error {
    let text = match &error {
        russh::Error::HUP | russh::Error::Disconnect | russh::Error::SendError | russh::Error::RecvError => {
            "the connection was cut".to_owned()
        }
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        }
    };
    transport(text).with_source(error)
}

impl client::Handler for Server {
    type Error = Failed;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failed> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        match self.known.judge(key) {
            Verdict::Known => Ok(true),
            Verdict::New => {
                lock(&self.new).replace(key.clone());
                Ok(true)
            }
            Verdict::Refused(why) => Err(Failed(transport(why))),
        }
    }
}

/// A connection to a server.
struct Session {
    handle: Handle<Server>,
    operation: Arc<Operation>,
    host: String,
}

impl Session {
    /// Shows who we are, in every way that we have.
    fn authenticate(&mut self, url: &SshUrl) -> Result<()> {
        let user = url.user.clone().unwrap_or_else(|| local_user(&self.operation));
        let agent = self.operation.variable("SSH_AUTH_SOCK").map(PathBuf::from);
        let directory = self.operation.home().join(".ssh");
        let (handle, mut tried) = (&mut self.handle, Vec::new());
        let is_in = self.operation.wait(&self.host, async {
            // Says which methods there are; some servers want none.
            let methods = match handle.authenticate_none(&user).await.map_err(broken)? {
                AuthResult::Success => return Ok(true),
                AuthResult::Failure { remaining_methods, .. } => remaining_methods,
            };
            if !methods.contains(&MethodKind::PublicKey) {
                tried.push("the server takes no keys".to_owned());
                return Ok(false);
            }
            let by_agent = keys::from_agent(handle, &user, agent, &mut tried).await;
            Ok(by_agent || keys::from_files(handle, &user, directory, &mut tried).await)
        })?;
        if is_in {
            return Ok(());
        }
        if tried.is_empty() {
            tried.push("there is no key in the agent or in ~/.ssh".to_owned());
        }
        let text = format!("authentication failed: {user} at {}: {}", self.host, tried.join(", "));
        Err(Error::new(ErrorKind::GitAuthFailed, text))
    }

    /// Runs the service.
    fn start(self, url: &SshUrl, service: Service, shown: String) -> Result<Connection> {
        let service = match service {
            Service::UploadPackLs | Service::UploadPack => "git-upload-pack",
            Service::ReceivePackLs | Service::ReceivePack => "git-receive-pack",
        };
        let command = format!("{service} {}", quoted(&url.path));
        let channel = self.operation.wait(&self.host, async {
            let channel = self.handle.channel_open_session().await.map_err(broken)?;
            channel.exec(true, command).await.map_err(broken)?;
            Ok(channel)
        });
        let (reader, writer) = channel.map_err(|error| name_host(&self.host, error))?.split();
        let ended = None;
        Ok(Connection {
            session: self,
            reader,
            writer,
            inbox: VecDeque::new(),
            unread: 0,
            ended,
            shown,
            has_read: false,
        })
    }
}

/// The name that SSH logs in with when the URL has none.
fn local_user(operation: &Operation) -> String {
    let variable = operation.variable("USER").or_else(|| operation.variable("LOGNAME"));
    let entry = || users::user_by_id(rustix::process::geteuid().as_raw()).map(|user| user.name);
    variable.map(str::to_owned).or_else(entry).unwrap_or_else(|| "root".to_owned())
}

/// For the shell of the server, as git itself quotes.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"))
}

/// The service's input and output.
struct Connection {
    session: Session,
    reader: ChannelReadHalf,
    writer: ChannelWriteHalf<Msg>,
    inbox: VecDeque<Bytes>,
    /// Bytes in the inbox.
    unread: usize,
    /// How the service ended, when it has: its exit code if it told one.
    ended: Option<Option<u32>>,
    shown: String,
    has_read: bool,
}

impl Connection {
    /// Takes what the server says.
    fn take(&mut self, message: Option<ChannelMsg>) {
        match message {
            Some(ChannelMsg::Data { data }) => {
                self.unread += data.len();
                self.inbox.push_back(data);
            }
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => self.session.operation.remark(&data),
            Some(ChannelMsg::ExitStatus { exit_status }) => self.ended = Some(Some(exit_status)),
            Some(ChannelMsg::Failure) => {
                self.session.operation.remark(b"the server does not run commands");
                self.ended.get_or_insert(None);
            }
            Some(ChannelMsg::Close) | None => {
                self.ended.get_or_insert(None);
            }
            Some(_) => {}
        }
    }

    /// Why the service ended too early.
    fn failure(&self) -> Error {
        let remarks = self.session.operation.remarks();
        match (remarks.as_str(), self.ended) {
            ("", Some(Some(127))) => transport(format!("{}: git is not installed there", self.shown)),
            ("", Some(Some(code))) => transport(format!("{}: git ended with exit code {code}", self.shown)),
            ("", _) => transport(format!("ssh to {}: the connection was cut", self.session.host)),
            (words, _) => remarks::sorted(&self.shown, words),
        }
    }

    fn fill(&mut self) -> Result<()> {
        while self.inbox.is_empty() && !matches!(self.ended, Some(None)) {
            let reader = &mut self.reader;
            let message =
                self.session.operation.wait(&self.session.host, async { Ok(reader.wait().await) })?;
            let is_last = message.is_none() || matches!(message, Some(ChannelMsg::Close));
            self.take(message);
            if is_last {
                break;
            }
        }
        match (&self.inbox, self.ended) {
            (inbox, _) if !inbox.is_empty() => Ok(()),
            (_, Some(Some(0))) if self.has_read => Ok(()),
            _ => Err(self.failure()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let (host, operation) = (self.session.host.clone(), Arc::clone(&self.session.operation));
        let mut messages = Vec::new();
        let (reader, writer, unread) = (&mut self.reader, &self.writer, self.unread);
        let sent = operation.wait(&host, async {
            let mut sending = pin!(writer.data_bytes(Bytes::copy_from_slice(bytes)));
            let mut arrived = unread;
            loop {
                // What the server says meanwhile must be taken, or it takes nothing from us in the end.
                tokio::select! {
                    biased;
                    sent = &mut sending => return sent.map_err(broken),
                    message = reader.wait() => {
                        let is_over = message.is_none() || matches!(message, Some(ChannelMsg::Close));
                        if let Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) = &message {
                            arrived += data.len();
                        }
                        messages.push(message);
                        if is_over || arrived > UNREAD {
                            return Err(transport("the server ended the transfer"));
                        }
                    }
                }
            }
        });
        let mut is_over = false;
        for message in messages {
            is_over |= message.is_none() || matches!(message, Some(ChannelMsg::Close));
            self.take(message);
        }
        if is_over { Err(self.failure()) } else { sent.map_err(|error| name_host(&host, error)) }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.fill() {
            return Err(self.session.operation.fail_io(error));
        }
        let Some(first) = self.inbox.front_mut() else { return Ok(0) };
        let length = first.len().min(buffer.len());
        first.copy_to_slice(&mut buffer[..length]);
        if first.is_empty() {
            self.inbox.pop_front();
        }
        self.unread -= length;
        self.has_read = true;
        Ok(length)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.send(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => Err(self.session.operation.fail_io(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let handle = &self.handle;
        self.operation.part(async {
            let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_the_servers_shell() {
        assert_eq!(quoted("/it's! here"), r"'/it'\''s'\!' here'");
    }
}
