//! URLs below `/api`, as the platform names them.

use std::fmt::Display;
use std::net::IpAddr;

use axum::Json as JsonReply;
use axum::extract::{FromRequestParts, OriginalUri, State};
use axum::response::Response;
use axum::routing::any;
use http::request::Parts;
use http::{Method, StatusCode, Uri};

use super::events;
use super::service::{Filter, Interval, Standalone};
use super::wire::{
    Configuration, CreateSandbox, Labels, ListQuery, PreviewUrl, SandboxDto, SandboxList, SandboxPage,
    SignedPreviewQuery, SignedPreviewUrl, Url,
};
use crate::config::PreviewLinks;
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::extract::{Json, Path, Query, json, repeated};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;
use crate::http::socket::Upgrade;

/// Life of a signed preview URL when the client does not say.
const PREVIEW_SECONDS: u32 = 60;
/// What a platform has and one machine does not.
const PLATFORM_ONLY: &[&str] = &[
    "api-keys",
    "audit",
    "docker-registry",
    "jobs",
    "object-storage",
    "organizations",
    "preview",
    "regions",
    "runners",
    "secret",
    "shared-regions",
    "snapshots",
    "users",
    "volumes",
    "warm-pools",
    "webhooks",
];

pub(crate) fn router(standalone: Standalone) -> Routes {
    let mut router = Routes::new()
        .routes(endpoints!(list, create))
        .routes(endpoints!(list_pages))
        .routes(endpoints!(info, delete))
        .routes(endpoints!(start))
        .routes(endpoints!(stop))
        .routes(endpoints!(set_labels))
        .routes(endpoints!(set_public))
        .routes(endpoints!(set_stop_interval))
        .routes(endpoints!(set_archive_interval))
        .routes(endpoints!(set_delete_interval))
        .routes(endpoints!(touch))
        .routes(endpoints!(toolbox_url))
        .routes(endpoints!(preview))
        .routes(endpoints!(signed_preview))
        .routes(endpoints!(expire_signed_preview))
        .routes(endpoints!(signing_key))
        .routes(endpoints!(rotate_signing_key))
        .routes(endpoints!(configuration))
        .routes(endpoints!(follow))
        .route("/api/sandbox/ssh-access/validate", any(unsupported))
        .route("/api/sandbox/{id}/{*what}", any(unsupported_of_sandbox));
    for area in PLATFORM_ONLY {
        router = router
            .route(&format!("/api/{area}"), any(unsupported))
            .route(&format!("/api/{area}/{{*what}}"), any(unsupported));
    }
    router.with_state(standalone)
}

/// Everything that is there, in one page
#[utoipa::path(get, path = "/api/sandbox", tag = "standalone", params(ListQuery),
    responses((status = 200, body = SandboxList), (status = 400, body = ErrorBody)))]
async fn list(State(standalone): State<Standalone>, base: Base, asked: Asked) -> JsonReply<SandboxList> {
    let items = standalone.list(&asked.0).map(|sandbox| SandboxDto::new(sandbox, &base.0));
    JsonReply(SandboxList { items: items.into_iter().collect(), next_cursor: None })
}

/// Everything that is there, in numbered pages
#[utoipa::path(get, path = "/api/sandbox/paginated", tag = "standalone", params(ListQuery),
    responses((status = 200, body = SandboxPage), (status = 400, body = ErrorBody)))]
async fn list_pages(
    State(standalone): State<Standalone>,
    base: Base,
    asked: Asked,
) -> JsonReply<SandboxPage> {
    let items = standalone.list(&asked.0).map(|sandbox| SandboxDto::new(sandbox, &base.0));
    JsonReply(SandboxPage::new(items.into_iter().collect()))
}

/// Describes the one sandbox anew and starts it
#[utoipa::path(post, path = "/api/sandbox", tag = "standalone", request_body = CreateSandbox,
    responses((status = 200, body = SandboxDto), (status = 400, body = ErrorBody)))]
async fn create(
    State(standalone): State<Standalone>,
    base: Base,
    Json(body): Json<CreateSandbox>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.create(body.into())?)
}

/// The sandbox with this id or name
#[utoipa::path(get, path = "/api/sandbox/{id}", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn info(
    State(standalone): State<Standalone>,
    base: Base,
    Path(id): Path<String>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.get(&id)?)
}

/// Forgets the sandbox until the next create; processes and files stay
#[utoipa::path(delete, path = "/api/sandbox/{id}", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn delete(
    State(standalone): State<Standalone>,
    base: Base,
    Path(id): Path<String>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.delete(&id)?)
}

/// Makes its state `started`
#[utoipa::path(post, path = "/api/sandbox/{id}/start", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn start(
    State(standalone): State<Standalone>,
    base: Base,
    Path(id): Path<String>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.start(&id)?)
}

/// Makes its state `stopped`; processes stay
#[utoipa::path(post, path = "/api/sandbox/{id}/stop", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn stop(
    State(standalone): State<Standalone>,
    base: Base,
    Path(id): Path<String>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.stop(&id)?)
}

/// Replaces all labels
#[utoipa::path(put, path = "/api/sandbox/{id}/labels", tag = "standalone", request_body = Labels,
    responses((status = 200, body = Labels), (status = 404, body = ErrorBody)))]
async fn set_labels(
    State(standalone): State<Standalone>,
    Path(id): Path<String>,
    Json(body): Json<Labels>,
) -> Result<JsonReply<Labels>> {
    Ok(JsonReply(Labels { labels: standalone.set_labels(&id, body.labels)?.labels }))
}

/// Keeps whether previews are meant for everyone
#[utoipa::path(post, path = "/api/sandbox/{id}/public/{public}", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn set_public(
    State(standalone): State<Standalone>,
    base: Base,
    Path((id, public)): Path<(String, bool)>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.set_public(&id, public)?)
}

/// Keeps the minutes without use after which a platform would stop it
#[utoipa::path(post, path = "/api/sandbox/{id}/autostop/{minutes}", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn set_stop_interval(
    State(standalone): State<Standalone>,
    base: Base,
    Path((id, minutes)): Path<(String, i32)>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.set_interval(&id, Interval::Stop, minutes)?)
}

/// Keeps the minutes stopped after which a platform would archive it
#[utoipa::path(post, path = "/api/sandbox/{id}/autoarchive/{minutes}", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn set_archive_interval(
    State(standalone): State<Standalone>,
    base: Base,
    Path((id, minutes)): Path<(String, i32)>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.set_interval(&id, Interval::Archive, minutes)?)
}

/// Keeps the minutes stopped after which a platform would delete it; 0 deletes it when it is stopped
#[utoipa::path(post, path = "/api/sandbox/{id}/autodelete/{minutes}", tag = "standalone",
    responses((status = 200, body = SandboxDto), (status = 404, body = ErrorBody)))]
async fn set_delete_interval(
    State(standalone): State<Standalone>,
    base: Base,
    Path((id, minutes)): Path<(String, i32)>,
) -> Result<JsonReply<SandboxDto>> {
    base.reply(standalone.set_interval(&id, Interval::Delete, minutes)?)
}

/// Notes that the sandbox is in use
#[utoipa::path(post, path = "/api/sandbox/{id}/last-activity", tag = "standalone",
    responses((status = 201), (status = 404, body = ErrorBody)))]
async fn touch(State(standalone): State<Standalone>, Path(id): Path<String>) -> Result<StatusCode> {
    standalone.touch(&id)?;
    Ok(StatusCode::CREATED)
}

/// Where its toolbox API is: `{url}/{id}/…`
#[utoipa::path(get, path = "/api/sandbox/{id}/toolbox-proxy-url", tag = "standalone",
    responses((status = 200, body = Url), (status = 404, body = ErrorBody)))]
async fn toolbox_url(
    State(standalone): State<Standalone>,
    base: Base,
    Path(id): Path<String>,
) -> Result<JsonReply<Url>> {
    standalone.get(&id)?;
    Ok(JsonReply(Url::of_toolbox(&base.0)))
}

/// Where what listens on a port can be reached, and the token for it
#[utoipa::path(get, path = "/api/sandbox/{id}/ports/{port}/preview-url", tag = "standalone",
    responses((status = 200, body = PreviewUrl), (status = 404, body = ErrorBody)))]
async fn preview(
    State(standalone): State<Standalone>,
    base: Base,
    Path((id, port)): Path<(String, u16)>,
) -> Result<JsonReply<PreviewUrl>> {
    let sandbox = standalone.get(&id)?;
    let url = base.preview(&standalone, port);
    Ok(JsonReply(PreviewUrl::new(sandbox, url, standalone.passes().link_token())))
}

/// Where what listens on a port can be reached for a while without a token
#[utoipa::path(get, path = "/api/sandbox/{id}/ports/{port}/signed-preview-url", tag = "standalone",
    params(SignedPreviewQuery), responses((status = 200, body = SignedPreviewUrl), (status = 404, body = ErrorBody)))]
async fn signed_preview(
    State(standalone): State<Standalone>,
    base: Base,
    Path((id, port)): Path<(String, u16)>,
    Query(query): Query<SignedPreviewQuery>,
) -> Result<JsonReply<SignedPreviewUrl>> {
    let sandbox = standalone.get(&id)?;
    let token = standalone.open_preview(port, query.expires_in_seconds.unwrap_or(PREVIEW_SECONDS))?;
    Ok(JsonReply(SignedPreviewUrl::new(sandbox, &base.preview(&standalone, port), port, token)))
}

/// Ends a signed preview URL early
#[utoipa::path(post, path = "/api/sandbox/{id}/ports/{port}/signed-preview-url/{token}/expire", tag = "standalone",
    responses((status = 200), (status = 404, body = ErrorBody)))]
async fn expire_signed_preview(
    State(standalone): State<Standalone>,
    Path((id, port, token)): Path<(String, u16, String)>,
) -> Result<()> {
    standalone.get(&id)?;
    standalone.passes().expire_preview(port, &token)
}

/// The key that file URLs are signed with
#[utoipa::path(get, path = "/api/sandbox/{id}/signing-key", tag = "standalone",
    responses((status = 200, body = String), (status = 404, body = ErrorBody)))]
async fn signing_key(
    State(standalone): State<Standalone>,
    Path(id): Path<String>,
) -> Result<JsonReply<String>> {
    standalone.get(&id)?;
    Ok(JsonReply(standalone.passes().signing_key()))
}

/// Replaces the key that file URLs are signed with, which ends all that were signed
#[utoipa::path(post, path = "/api/sandbox/{id}/signing-key/rotate", tag = "standalone",
    responses((status = 200, body = String), (status = 404, body = ErrorBody)))]
async fn rotate_signing_key(
    State(standalone): State<Standalone>,
    Path(id): Path<String>,
) -> Result<JsonReply<String>> {
    standalone.get(&id)?;
    Ok(JsonReply(standalone.passes().rotate_signing_key()))
}

/// What clients want to know of a platform
#[utoipa::path(get, path = "/api/config", tag = "standalone", responses((status = 200, body = Configuration)))]
async fn configuration(State(standalone): State<Standalone>, base: Base) -> JsonReply<Configuration> {
    let template = base.preview(&standalone, "{{PORT}}");
    JsonReply(Configuration::new(&base.0, template))
}

/// State changes over Socket.IO, WebSocket transport only
#[utoipa::path(get, path = "/api/socket.io", tag = "standalone",
    responses((status = 101), (status = 400, body = ErrorBody)))]
async fn follow(State(standalone): State<Standalone>, upgrade: Upgrade) -> Response {
    let shutdown = standalone.shutdown().clone();
    upgrade.serve(&shutdown, |sender, receiver| events::serve(standalone, sender, receiver))
}

async fn unsupported(method: Method, OriginalUri(uri): OriginalUri) -> Result<()> {
    let message = format!("{method} {} needs a platform, and toolboxd runs stand-alone", uri.path());
    Err(Error::new(ErrorKind::Unsupported, message))
}

async fn unsupported_of_sandbox(
    State(standalone): State<Standalone>,
    Path((id, _)): Path<(String, String)>,
    method: Method,
    uri: OriginalUri,
) -> Result<()> {
    standalone.get(&id)?;
    unsupported(method, uri).await
}

/// The origin under which the client reached us, as `http://127.0.0.1:2280`: what links are made from.
struct Base(String);

impl Base {
    fn reply(&self, sandbox: super::service::Sandbox) -> Result<JsonReply<SandboxDto>> {
        Ok(JsonReply(SandboxDto::new(sandbox, &self.0)))
    }

    /// Where what listens on `port` is reached. A host name of its own is one of this machine's: a client that came
    /// another way gets a path.
    fn preview(&self, standalone: &Standalone, port: impl Display) -> String {
        let by_path = || format!("{}/proxy/{port}", self.0);
        let Ok(uri) = self.0.parse::<Uri>() else { return by_path() };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if standalone.links() == PreviewLinks::Path || !(is_loopback || is_below_localhost(host)) {
            return by_path();
        }
        let own = uri.port().map(|own| format!(":{own}")).unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or("http");
        format!("{scheme}://{port}-{}.localhost{own}", standalone.id().to_ascii_lowercase())
    }
}

fn is_below_localhost(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

impl<S: Sync> FromRequestParts<S> for Base {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let host = parts.uri.authority().map(http::uri::Authority::as_str).or_else(|| text("host"));
        let host = host.ok_or_else(|| Error::invalid("the Host header is missing"))?;
        // Only a proxy that ends TLS sets it.
        let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        Ok(Self(format!("{scheme}://{host}")))
    }
}

/// The filter of a list, with its repeated parameters.
struct Asked(Filter);

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Query(query) = Query::<ListQuery>::from_request_parts(parts, state).await?;
        let labels = query.labels.as_deref().map(|text| json(text.as_bytes())).transpose();
        let labels = labels.map_err(|error| Error::invalid(format!("labels: {error}")))?;
        Ok(Self(Filter {
            id: query.id,
            name: query.name,
            labels: labels.unwrap_or_default(),
            states: repeated(parts.uri.query().unwrap_or_default(), "states"),
            public: query.is_public,
        }))
    }
}
