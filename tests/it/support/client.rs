//! A client that says what it expects.

use std::net::SocketAddr;

use http::{HeaderMap, Method, StatusCode};
use reqwest::{Body, RequestBuilder};
use serde_json::Value;

use super::daemon::within;

/// Talks to one daemon over a connection pool of its own.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, address }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Call {
        Call { builder: self.http.request(method, self.url(path)) }
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Call {
        self.request(Method::POST, path)
    }

    pub(crate) fn put(&self, path: &str) -> Call {
        self.request(Method::PUT, path)
    }

    pub(crate) fn patch(&self, path: &str) -> Call {
        self.request(Method::PATCH, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Call {
        self.request(Method::DELETE, path)
    }
}

/// A request that is being put together.
pub(crate) struct Call {
    builder: RequestBuilder,
}

impl Call {
    pub(crate) fn query(self, name: &str, value: impl AsRef<str>) -> Self {
        Self { builder: self.builder.query(&[(name, value.as_ref())]) }
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self { builder: self.builder.header(name, value) }
    }

    pub(crate) fn json(self, body: Value) -> Self {
        Self { builder: self.builder.json(&body) }
    }

    pub(crate) fn body(self, body: impl Into<Body>) -> Self {
        Self { builder: self.builder.body(body) }
    }

    pub(crate) fn multipart(self, form: reqwest::multipart::Form) -> Self {
        Self { builder: self.builder.multipart(form) }
    }

    /// Perhaps there is no reply.
    pub(crate) async fn try_send(self) -> reqwest::Result<reqwest::Response> {
        within(self.builder.send()).await
    }

    /// The reply's head, with its body still to come.
    pub(crate) async fn open(self) -> reqwest::Response {
        self.try_send().await.unwrap()
    }

    pub(crate) async fn send(self) -> Reply {
        let response = self.open().await;
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { status, headers, body: within(response.bytes()).await.unwrap().to_vec() }
    }

    /// Wants success.
    pub(crate) async fn ok(self) -> Reply {
        let reply = self.send().await;
        assert!(reply.status.is_success(), "{}: {}", reply.status, reply.text());
        reply
    }

    /// Wants a complete envelope with this status and code; gives its message.
    pub(crate) async fn fails(self, status: u16, code: &str) -> String {
        let reply = self.send().await;
        let body = reply.json();
        assert_eq!((reply.status.as_u16(), &body["code"]), (status, &Value::from(code)), "{body}");
        assert_eq!(body["statusCode"], status);
        assert_eq!(body["source"], "DAYTONA_DAEMON");
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z'), "{body}");
        assert!(body["path"].as_str().unwrap().starts_with('/'), "{body}");
        assert!(body["method"].is_string());
        body["message"].as_str().unwrap().to_owned()
    }
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
