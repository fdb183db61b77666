//! Repositories elsewhere, on loopback: made with the `git` program, served by its own services behind HTTP, SSH and
//! git's protocol.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::daemon::within;

/// Runs the `git` program, which must succeed; gives what it prints, without the last line break.
pub(crate) async fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = within(git_command(directory).args(arguments).output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?} in {}: {errors}", directory.display());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The `git` program without the settings of this machine.
pub(crate) fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
        .envs([("GIT_COMMITTER_NAME", "C"), ("GIT_COMMITTER_EMAIL", "c@example.com")])
        .args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A bare repository, and a work tree that pushes to it.
pub(crate) struct Origin {
    root: TempDir,
}

impl Origin {
    /// One commit on `main`.
    pub(crate) async fn new() -> Self {
        let upstream = Self { root: TempDir::new().unwrap() };
        let root = upstream.root.path();
        // Other users may be asked to read it.
        std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        git(root, &["init", "--quiet", "--bare", "--initial-branch=main", "repo.git"]).await;
        git(root, &["init", "--quiet", "--initial-branch=main", "work"]).await;
        git(&upstream.work(), &["remote", "add", "origin", "../repo.git"]).await;
        upstream.commit("README", "hello\n").await;
        upstream
    }

    /// The directory that both are in.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn bare(&self) -> PathBuf {
        self.root.path().join("repo.git")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Commits a file on the branch that is checked out in the work tree, and pushes that; gives the commit.
    pub(crate) async fn commit(&self, file: &str, content: &str) -> String {
        let path = self.work().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self.commit_all(file).await
    }

    /// As [`Origin::commit`], of whatever is in the work tree.
    pub(crate) async fn commit_all(&self, message: &str) -> String {
        self.git(&["add", "--all"]).await;
        self.git(&["commit", "--quiet", "--message", message]).await;
        self.git(&["push", "--quiet", "origin", "HEAD"]).await;
        self.git(&["rev-parse", "HEAD"]).await
    }

    /// Runs git in the work tree.
    pub(crate) async fn git(&self, arguments: &[&str]) -> String {
        git(&self.work(), arguments).await
    }

    /// What a ref of the bare repository points to.
    pub(crate) async fn tip(&self, name: &str) -> String {
        git(&self.bare(), &["rev-parse", name]).await
    }
}

/// A request that a server has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

impl Seen {
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(|value| value.to_str().unwrap())
    }
}

/// What an HTTP server does with requests.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// Serves all repositories below the directory.
    Serves,
    /// Only to whoever has this user and password.
    Private(&'static str, &'static str),
    /// Serves when it is let, once for each permit; says who waits through the requests that were seen.
    Waits(Arc<Semaphore>),
    /// Always answers with this status, type and body.
    Answers(u16, &'static str, &'static str),
    /// Sends everybody to the same path below another URL.
    Redirects(String),
    /// Takes requests and never answers.
    Hangs,
    /// Tells its refs, and then breaks off in the middle of the pack.
    Cuts,
}

/// `git http-backend` behind a server on a free loopback port.
pub(crate) struct GitServer {
    pub(crate) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
}

type Reply = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>>;

impl GitServer {
    pub(crate) async fn start(root: &Path, manner: Manner) -> Self {
        Self::start_with(root, manner, None).await
    }

    /// Over TLS.
    pub(crate) async fn start_with(root: &Path, manner: Manner, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let site = Arc::new(Site { root: root.to_owned(), manner, sender });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, site) = (tls.clone(), Arc::clone(&site));
                tokio::spawn(async move {
                    match tls {
                        // A client that does not trust us leaves here.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                site.serve(stream).await;
                            }
                        }
                        None => site.serve(stream).await,
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// URL of the repository that [`Origin`] makes.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/repo.git", self.address)
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Seen {
        within(self.seen.recv()).await.unwrap()
    }

    /// Waits for the next request to a path that ends so.
    pub(crate) async fn next_to(&mut self, end: &str) -> Seen {
        loop {
            let seen = self.next().await;
            if seen.path.ends_with(end) {
                return seen;
            }
        }
    }
}

struct Site {
    root: PathBuf,
    manner: Manner,
    sender: mpsc::UnboundedSender<Seen>,
}

impl Site {
    async fn serve(self: Arc<Self>, io: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| {
            let site = Arc::clone(&self);
            async move { Ok::<_, Infallible>(site.answer(request).await) }
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(io), service).await; // the client may be gone
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let is_first = path.ends_with("/info/refs");
        // A test that has seen enough does not listen any more.
        let _ = self.sender.send(Seen { path: path.clone(), headers: head.headers.clone() });
        match &self.manner {
            Manner::Serves => {}
            Manner::Private(user, password) => {
                use base64::Engine;
                let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
                let wanted = format!("Basic {pair}");
                if head.headers.get("authorization").is_none_or(|value| *value != *wanted) {
                    return plain(
                        401,
                        "text/html",
                        "<p>who are you?</p>",
                        &[("www-authenticate", "Basic realm=\"x\"")],
                    );
                }
            }
            Manner::Waits(permits) if !is_first => permits.acquire().await.unwrap().forget(),
            Manner::Waits(_) | Manner::Cuts => {}
            Manner::Answers(status, media, text) => return plain(*status, media, text, &[]),
            Manner::Redirects(base) => {
                let location = format!("{base}{}", head.uri.path_and_query().unwrap());
                return plain(302, "text/plain", "", &[("location", &location)]);
            }
            Manner::Hangs => std::future::pending().await,
        }
        let body = body.collect().await.unwrap().to_bytes();
        let (status, headers, content) = self.backend(&head, &path, &body).await;
        let cut = matches!(self.manner, Manner::Cuts) && !is_first;
        let mut frames: Vec<Result<Frame<Bytes>, std::io::Error>> = vec![Ok(Frame::data(content.clone()))];
        if cut {
            let half = content.slice(..content.len() / 2);
            frames = vec![Ok(Frame::data(half)), Err(std::io::Error::other("cut"))];
        }
        reply(status, &headers, futures_util::stream::iter(frames).boxed())
    }

    /// The CGI program (RFC 3875).
    async fn backend(
        &self,
        head: &http::request::Parts,
        path: &str,
        body: &Bytes,
    ) -> (u16, HeaderMap, Bytes) {
        let header = |name| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let mut command = git_command(&self.root);
        command
            .args(["-c", "uploadpack.allowFilter=true", "-c", "http.receivepack=true", "http-backend"])
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("REQUEST_METHOD", head.method.as_str())
            .env("PATH_INFO", percent_encoding::percent_decode_str(path).decode_utf8().unwrap().as_ref())
            .env("QUERY_STRING", head.uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let body = body.clone();
        // Both at once: it may answer before it has read everything.
        let writing = async move {
            let _ = stdin.write_all(&body).await;
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), writing);
        let output = output.unwrap().stdout;
        let end = memchr::memmem::find(&output, b"\r\n\r\n").unwrap();
        let (mut status, mut headers) = (200, HeaderMap::new());
        for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
            let (name, value) = line.split_once(": ").unwrap();
            match name {
                "Status" => status = value[..3].parse().unwrap(),
                _ => drop(headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap())),
            }
        }
        (status, headers, Bytes::copy_from_slice(&output[end + 4..]))
    }
}

fn plain(status: u16, media: &str, text: &'static str, more: &[(&'static str, &str)]) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", media.parse().unwrap());
    for (name, value) in more {
        headers.insert(*name, value.parse().unwrap());
    }
    let body = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(text.as_bytes())))]);
    reply(status, &headers, body.boxed())
}

fn reply(
    status: u16,
    headers: &HeaderMap,
    body: BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>,
) -> Reply {
    let mut reply = Response::new(StreamBody::new(body));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply.headers_mut().extend(headers.clone());
    reply
}

/// A certificate for `localhost` that nobody trusts, and it as a file of roots.
pub(crate) fn certificate(directory: &Path) -> (ServerConfig, PathBuf) {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let roots = directory.join("roots.pem");
    std::fs::write(&roots, certificate.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    (tls, roots)
}

/// Starts a program for each connection, which it has as its input and output, as inetd(8) does.
async fn inetd(program: impl Fn() -> Command + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let input = OwnedFd::from(stream);
            let output = input.try_clone().unwrap();
            let mut child: Child =
                program().stdin(input).stdout(output).stderr(Stdio::null()).spawn().unwrap();
            tokio::spawn(async move { child.wait().await });
        }
    });
    address
}

/// `git daemon` on a free port; gives its address.
pub(crate) async fn git_daemon(root: &Path) -> SocketAddr {
    let root = root.to_owned();
    inetd(move || {
        let mut command = git_command(&root);
        command.args(["daemon", "--inetd", "--export-all"]).arg(format!("--base-path={}", root.display()));
        command
    })
    .await
}

/// An SSH server that lets the test's own user in.
pub(crate) struct SshServer {
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl SshServer {
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().to_owned();
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap(); // it wants that
        }
        new_key(&path.join("host")).await;
        let config = format!(
            "HostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\nUsePAM no\nPidFile none\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            path.display()
        );
        std::fs::write(path.join("config"), config).unwrap();
        std::fs::write(path.join("authorized"), "").unwrap();
        let address = inetd(move || {
            let mut command = Command::new("/usr/sbin/sshd");
            command.arg("-i").arg("-f").arg(path.join("config"));
            command
        })
        .await;
        Self { address, directory }
    }

    /// Lets in whoever has the key.
    pub(crate) fn authorize(&self, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        std::fs::write(self.directory.path().join("authorized"), public).unwrap();
    }

    /// Gives itself another key.
    pub(crate) async fn change_key(&self) {
        let path = self.directory.path().join("host");
        std::fs::remove_file(&path).unwrap();
        new_key(&path).await;
    }

    /// URL of a repository.
    pub(crate) fn url(&self, path: &Path) -> String {
        format!("ssh://{}@{}{}", whoami(), self.address, path.display())
    }

    /// Its own key, as a list of known hosts has it.
    pub(crate) fn known_hosts(&self) -> String {
        let public = std::fs::read_to_string(self.directory.path().join("host.pub")).unwrap();
        let key: Vec<&str> = public.split(' ').take(2).collect();
        format!("[127.0.0.1]:{} {}\n", self.address.port(), key.join(" ").trim_end())
    }
}

/// The user who runs the tests.
pub(crate) fn whoami() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string())).unwrap();
    line.split(':').next().unwrap().to_owned()
}

/// Makes a key pair for SSH, without a passphrase.
pub(crate) async fn new_key(path: &Path) {
    new_key_with(path, "").await;
}

/// As [`new_key`], with a passphrase.
pub(crate) async fn new_key_with(path: &Path, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-C", "test", "-N", passphrase, "-f"]).arg(path);
    assert!(command.status().await.unwrap().success());
}

/// A proxy on a free port that lets everybody through.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    heads: mpsc::UnboundedReceiver<String>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(stream, sender.clone()));
            }
        });
        Self { address, heads }
    }

    /// The head of the first request of the next connection.
    pub(crate) async fn next(&mut self) -> String {
        within(self.heads.recv()).await.unwrap()
    }

    /// Whether nobody has asked it for anything.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.heads.try_recv().is_err()
    }
}

async fn forward(mut client: TcpStream, heads: mpsc::UnboundedSender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head).unwrap();
    let target = text.split(' ').nth(1).unwrap().to_owned();
    let is_tunnel = text.starts_with("CONNECT ");
    let address = target.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let _ = heads.send(text.clone());
    let mut server = TcpStream::connect(address).await.unwrap();
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        server.write_all(text.as_bytes()).await.unwrap();
    }
    let _ = copy_bidirectional(&mut client, &mut server).await; // either may cut
}
