//! Git over HTTP and HTTPS (gitprotocol-http(5), "smart" only).
//!
//! Each action is a request of its own over one connection that is kept. Where a redirect of the first request leads,
//! the others go too; credentials go along only to the server that they were given for. A request's body is sent whole
//! when it is small, so that it can be repeated with credentials, and in pieces while it is made when it is not.

mod client;
mod exchange;

use std::sync::{Arc, Mutex, PoisonError};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};

use client::Client;
use exchange::Exchange;

use super::operation::Operation;
use crate::error::Result;

/// The transport: one for each connection of a remote.
pub(super) struct Http {
    client: Arc<Mutex<Client>>,
    operation: Arc<Operation>,
}

impl Http {
    pub(super) fn new(operation: Arc<Operation>) -> Self {
        let client = Client::new(Arc::clone(&operation));
        Self { client: Arc::new(Mutex::new(client)), operation }
    }
}

impl SmartSubtransport for Http {
    fn action(&self, url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let exchange = |service| -> Box<dyn SmartSubtransportStream> {
            Box::new(Exchange::new(&self.client, &self.operation, service))
        };
        match service {
            Service::UploadPackLs | Service::ReceivePackLs => {
                let reply = lock(&self.client).discover(url, name(service));
                let reply = reply.map_err(|error| self.operation.fail(error))?;
                Ok(Box::new(reply.read_for(&self.client, &self.operation)))
            }
            Service::UploadPack | Service::ReceivePack => Ok(exchange(name(service))),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        lock(&self.client).open = None;
        Ok(())
    }
}

fn name(service: Service) -> &'static str {
    match service {
        Service::UploadPackLs | Service::UploadPack => "git-upload-pack",
        Service::ReceivePackLs | Service::ReceivePack => "git-receive-pack",
    }
}

fn lock(client: &Mutex<Client>) -> std::sync::MutexGuard<'_, Client> {
    client.lock().unwrap_or_else(PoisonError::into_inner)
}
