//! Git's own protocol over TCP (gitprotocol-pack(5), "Git Transport"): no encryption, no authentication.

use std::io::{self, Read, Write};
use std::sync::Arc;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::tcp;
use super::location::{GitUrl, Location};
use super::operation::{Operation, transport};
use crate::error::{Error, Result, os_text};

/// The transport.
pub(super) struct Plain {
    operation: Arc<Operation>,
}

impl Plain {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        Self { operation }
    }

    fn connect(&self, url: &str, service: Service) -> Result<Connection> {
        let Location::Git(url) = Location::parse(url, "/".as_ref())? else {
            return Err(Error::invalid("this is no git url"));
        };
        let host = format!("{} port {}", url.host, url.port);
        let stream = self.operation.wait(&host, tcp(&url.host, url.port))?;
        let mut connection = Connection { stream, host, operation: Arc::clone(&self.operation) };
        let sent = connection.write_all(request(&url, service).as_bytes());
        sent.map_err(|error| transport(error.to_string()))?;
        Ok(connection)
    }
}

/// A packet line: length, service, path, and the host for servers that serve several.
fn request(url: &GitUrl, service: Service) -> String {
    let service = match service {
        Service::UploadPackLs | Service::UploadPack => "git-upload-pack",
        Service::ReceivePackLs | Service::ReceivePack => "git-receive-pack",
    };
    let path = url.path.strip_prefix('/').filter(|path| path.starts_with('~')).unwrap_or(&url.path);
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let line = format!("{service} {path}\0host={host}:{}\0", url.port);
    format!("{:04x}{line}", line.len() + 4)
}

impl SmartSubtransport for Plain {
    fn action(&self, url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let connection = self.connect(url, service).map_err(|error| self.operation.fail(error))?;
        Ok(Box::new(connection))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    host: String,
    operation: Arc<Operation>,
}

impl Connection {
    fn failed(&self, error: io::Error) -> Error {
        transport(format!("{}: {}", self.host, os_text(&error))).with_source(error)
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = &mut self.stream;
        let read = self.operation.wait(&self.host, async { Ok(stream.read(buffer).await) });
        let read = read.and_then(|read| read.map_err(|error| self.failed(error)));
        read.map_err(|error| self.operation.fail_io(error))
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stream = &mut self.stream;
        let written = self.operation.wait(&self.host, async { Ok(stream.write(bytes).await) });
        let written = written.and_then(|written| written.map_err(|error| self.failed(error)));
        written.map_err(|error| self.operation.fail_io(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_says_who_is_asked_for_what() {
        let url = GitUrl { host: "::1".into(), port: 9418, path: "/a b".into() };
        let line = "git-upload-pack /a b\0host=[::1]:9418\0";
        assert_eq!(request(&url, Service::UploadPackLs), format!("{:04x}{line}", line.len() + 4));
    }
}
