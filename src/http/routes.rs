//! Routes and their description, from one source: path, method and words stand once, at the handler.
//!
//! The description is part of the tests, one of which writes it down: building it would be most of the daemon's start,
//! and a tenth of its code.

use std::mem;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter};
use utoipa::openapi::path::HttpMethod;
use utoipa_axum::PathItemExt;
#[cfg(test)]
use {utoipa::openapi::OpenApi, utoipa_axum::router::OpenApiRouter};

/// Routes of a slice.
pub struct Routes<S = ()> {
    router: Router<S>,
    #[cfg(test)]
    description: OpenApi,
}

/// Handlers of one path, made by [`endpoints!`](crate::endpoints).
pub struct Endpoints<S> {
    /// As the handlers' `utoipa::path` has it.
    pub path: String,
    /// A handler for each of its methods.
    pub methods: MethodRouter<S>,
    /// Adds their description.
    #[cfg(test)]
    pub describe: fn(OpenApiRouter<S>) -> OpenApiRouter<S>,
}

/// Handlers of one path, with the path and the methods of their `utoipa::path`; or one for every method at a path that the
/// description cannot have in full.
#[macro_export]
macro_rules! endpoints {
    ($handler:ident at $path:literal) => {
        || $crate::http::routes::Endpoints {
            path: $path.to_owned(),
            methods: ::axum::routing::any($handler),
            #[cfg(test)]
            describe: |router| router.routes(::utoipa_axum::routes!($handler)),
        }
    };
    ($first:ident $(, $more:ident)* $(,)?) => {
        || $crate::http::routes::Endpoints {
            path: $crate::endpoints!(@path $first),
            methods: {
                let mut methods = ::axum::routing::MethodRouter::new();
                $crate::endpoints!(@add methods $first);
                $($crate::endpoints!(@add methods $more);)*
                methods
            },
            #[cfg(test)]
            describe: |router| router.routes(::utoipa_axum::routes!($first $(, $more)*)),
        }
    };
    (@path $handler:ident) => {
        ::utoipa_axum::paste! { <[<__path_ $handler>] as ::utoipa::Path>::path() }
    };
    (@add $methods:ident $handler:ident) => {
        let of = ::utoipa_axum::paste! { <[<__path_ $handler>] as ::utoipa::Path>::methods() };
        $crate::http::routes::add(&mut $methods, of, $handler);
    };
}

/// Adds a handler of some methods. It stays a function of its own: inlined, a hundred and fifty of it are 1 % of the
/// program.
#[inline(never)]
pub fn add<H: Handler<T, S>, T: 'static, S: Clone + Send + Sync + 'static>(
    methods: &mut MethodRouter<S>,
    of: Vec<HttpMethod>,
    handler: H,
) {
    let filter = of.iter().map(PathItemExt::to_method_filter).reduce(MethodFilter::or);
    if let Some(filter) = filter {
        *methods = mem::take(methods).on(filter, handler);
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            #[cfg(test)]
            description: OpenApi::default(),
        }
    }

    /// Adds what [`endpoints!`](crate::endpoints) made.
    #[must_use]
    #[inline(never)] // as `add`, for what it would take in
    pub fn routes(mut self, endpoints: fn() -> Endpoints<S>) -> Self {
        let endpoints = endpoints();
        #[cfg(test)]
        self.description.merge((endpoints.describe)(OpenApiRouter::new()).into_openapi());
        self.router = self.router.route(&endpoints.path, endpoints.methods);
        self
    }

    /// Adds a route that is not described.
    #[must_use]
    pub fn route(mut self, path: &str, methods: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, methods);
        self
    }

    /// Adds those of another.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        #[cfg(test)]
        self.description.merge(other.description);
        self.router = self.router.merge(other.router);
        self
    }

    /// Gives the handlers their state.
    pub fn with_state<T>(self, state: S) -> Routes<T> {
        Routes {
            router: self.router.with_state(state),
            #[cfg(test)]
            description: self.description,
        }
    }

    /// The router alone.
    pub fn into_router(self) -> Router<S> {
        self.router
    }

    /// Adds what describes them to `document`.
    #[cfg(test)]
    pub fn describe(self, document: &mut OpenApi) {
        document.merge(self.description);
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}
