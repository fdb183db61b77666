//! The API at a glance: every slice's router, and what the paths of a platform are stripped of.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use super::auth::{self, Access, Peer};
use super::layers;
use super::preview::{Names, Preview, is_passed_on};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::routes::Routes;
use crate::platform::sockets::OwnPorts;

/// First segments of our own paths; a first segment that is none of them, before one that is, is a sandbox id.
const ROOTS: &[&str] = &[
    "absproxy",
    "api",
    "computeruse",
    "docs",
    "env",
    "files",
    "git",
    "init",
    "lsp",
    "openapi.json",
    "port",
    "process",
    "project-dir",
    "proxy",
    "system",
    "user-home-dir",
    "version",
    "work-dir",
];

/// The API of this daemon, ready to answer requests.
#[derive(Clone)]
pub struct Api {
    router: Router,
    names: Arc<Names>,
    own_ports: OwnPorts,
}

/// General facts for the published document; its paths come from the slices.
#[cfg(test)]
#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "toolboxd",
    description = "The toolbox API of a sandbox. Paths are served at /, /{sandboxId}/, /toolbox/{sandboxId}/ and \
                   /api/toolbox/{sandboxId}/toolbox/. Errors have the shape of ErrorResponse."
))]
struct Facts;

/// Every route with its description.
fn routes(app: &App) -> Routes {
    let routes = Routes::new()
        .merge(crate::system::routes::router(app.system.clone()))
        .merge(crate::files::routes::router(app.files.clone()))
        .merge(crate::git::routes::router(app.git.clone()))
        .merge(crate::git::remote::routes::router(app.remotes.clone()))
        .merge(crate::lsp::routes::router(app.lsp.clone(), app.shutdown.clone()))
        .merge(crate::ports::routes::router(app.ports.clone()))
        .merge(crate::process::exec::routes::router(app.exec.clone()))
        .merge(crate::process::code::routes::router(app.code.clone()))
        .merge(crate::process::interpreter::routes::router(app.interpreter.clone(), app.shutdown.clone()))
        .merge(crate::process::session::routes::router(app.sessions.clone(), app.shutdown.clone()))
        .merge(crate::desktop::router(app.desktop.clone()))
        .merge(crate::process::pty::routes::router(app.ptys.clone(), app.shutdown.clone()));
    match &app.standalone {
        Some(standalone) => routes.merge(crate::standalone::routes::router(standalone.clone())),
        None => routes,
    }
}

/// The description of the API, made from the handlers.
#[cfg(test)]
fn document(app: &App) -> utoipa::openapi::OpenApi {
    let mut document = <Facts as utoipa::OpenApi>::openapi();
    routes(app).describe(&mut document);
    document
}

impl Api {
    /// Puts the slices together and the layers around them.
    pub fn new(app: &App, access: Arc<Access>, docs: bool) -> Self {
        let mut router = routes(app).into_router();
        let names = Arc::new(access.names.clone());
        if docs {
            router = router.merge(super::docs::router());
        }
        let router = router
            .fallback(no_such_route)
            .method_not_allowed_fallback(no_such_route)
            .layer(CatchPanicLayer::custom(layers::panicked))
            .layer(from_fn_with_state(access, auth::guard))
            .layer(from_fn_with_state(app.telemetry.clone(), layers::observe));
        Self { router, names, own_ports: app.own_ports.clone() }
    }

    /// Answers one request of `peer`.
    pub async fn answer(&self, mut request: Request<Body>, peer: Peer) -> Response {
        let own = own_uri(request.uri());
        if let Some((preview, uri)) = self.names.find(request.uri(), request.headers(), own.as_ref()) {
            // `/proxy/{our own port}` is one more prefix, once: a second one is left for the proxy to refuse.
            let ourselves = Preview::of_ourselves(&uri).filter(|_| self.own_ports.is_api(preview.port));
            *request.uri_mut() = ourselves.map_or(uri, |uri| own_uri(&uri).unwrap_or(uri));
            request.extensions_mut().insert(preview);
        } else if let Some(uri) = own {
            *request.uri_mut() = uri;
        }
        let extensions = request.extensions_mut();
        extensions.insert(peer);
        extensions.insert(ConnectInfo(peer.address));
        self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

async fn no_such_route(request: Request<Body>) -> Result<()> {
    Err(Error::not_found(format!("there is no {} {}", request.method(), request.uri().path())))
}

/// The URI without a platform's prefix (contract `core.md` 10.3) and without a slash at its end; none when it has
/// neither. Percent-encoding is left alone, and so is everything that is passed on to a port.
fn own_uri(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let mut own = without_prefix(path);
    if own.len() > 1 && !is_passed_on(own) {
        own = own.trim_end_matches('/');
    }
    let own = if own.is_empty() { "/" } else { own };
    if own == path {
        return None;
    }
    let text = match uri.query() {
        Some(query) => format!("{own}?{query}"),
        None => own.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

fn without_prefix(path: &str) -> &str {
    if let Some(rest) = path.strip_prefix("/api/toolbox/")
        && let Some((_id, rest)) = rest.split_once('/')
        && let Some(own) = rest.strip_prefix("toolbox").filter(|own| own.starts_with('/'))
    {
        return own;
    }
    let below_toolbox = path.strip_prefix("/toolbox/");
    let rest = below_toolbox.or_else(|| path.strip_prefix('/')).unwrap_or_default();
    let Some(end) = rest.find('/') else { return path };
    let own = &rest[end..];
    if below_toolbox.is_some() || (!is_root(rest) && is_root(&own[1..])) { own } else { path }
}

fn is_root(path: &str) -> bool {
    path.split('/').next().is_some_and(|segment| ROOTS.contains(&segment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::shutdown::Shutdown;
    use crate::platform::telemetry::Telemetry;

    /// With `TOOLBOXD_UPDATE` set, the file is written instead of compared.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "asks who runs the test")]
    async fn the_published_description_is_that_of_the_handlers() {
        let config = crate::config::Config::parse_from(["toolboxd".into()], Default::default()).unwrap();
        let (telemetry, shutdown) = (Telemetry::new(&config), Shutdown::new());
        let app = App::new(&config, &telemetry, &shutdown).unwrap();
        let made = document(&app).to_pretty_json().unwrap() + "\n";
        if std::env::var_os("TOOLBOXD_UPDATE").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/openapi.json"), made).unwrap();
        } else {
            assert!(
                made == crate::server::docs::unpacked().unwrap(),
                "run the tests once with TOOLBOXD_UPDATE=1 and look at the difference"
            );
        }
    }

    fn own(uri: &str) -> String {
        let uri: Uri = uri.parse().unwrap();
        own_uri(&uri).unwrap_or(uri).to_string()
    }

    #[test]
    fn every_prefix_is_stripped() {
        for prefix in ["", "/3f2a-id", "/toolbox/3f2a-id", "/api/toolbox/3f2a-id/toolbox"] {
            assert_eq!(own(&format!("{prefix}/files?path=a%2Fb")), "/files?path=a%2Fb");
            assert_eq!(own(&format!("{prefix}/files/")), "/files");
            assert_eq!(own(&format!("{prefix}/proxy/3000/a%2Fb//c/?q")), "/proxy/3000/a%2Fb//c/?q");
        }
    }

    #[test]
    fn our_own_paths_are_left_alone() {
        for path in
            ["/", "/files", "/process/session/files/exec", "/api/sandbox/x", "/git/files", "/proxy/80/files/"]
        {
            assert_eq!(own(path), path);
        }
    }
}
