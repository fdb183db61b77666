//! Routes and their description, from one source: path, method and words stand once, at the handler.
//!
//! The description is code that runs when it is asked for, by the test that writes it down. A daemon that starts has
//! no use for it: building it would be most of the start.

use axum::Router;
use axum::routing::MethodRouter;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// Routes of a slice.
pub struct Routes<S = ()> {
    router: Router<S>,
    descriptions: Vec<Box<dyn Fn() -> OpenApi>>,
}

/// Handlers of one path, made by [`endpoints!`](crate::endpoints).
pub struct Endpoints<S> {
    /// As the handlers' `utoipa::path` has it.
    pub path: String,
    /// A handler for each of its methods.
    pub methods: MethodRouter<S>,
    /// Adds their description.
    pub describe: fn(OpenApiRouter<S>) -> OpenApiRouter<S>,
}

/// Handlers of one path, with the path and the methods of their `utoipa::path`.
#[macro_export]
macro_rules! endpoints {
    ($first:ident $(, $more:ident)* $(,)?) => {
        $crate::http::routes::Endpoints {
            path: $crate::endpoints!(@path $first),
            methods: {
                let methods = ::axum::routing::MethodRouter::new();
                let methods = $crate::endpoints!(@add methods $first);
                $(let methods = $crate::endpoints!(@add methods $more);)*
                methods
            },
            describe: |router| router.routes(::utoipa_axum::routes!($first $(, $more)*)),
        }
    };
    (@path $handler:ident) => {
        ::utoipa_axum::paste! { <[<__path_ $handler>] as ::utoipa::Path>::path() }
    };
    (@add $methods:ident $handler:ident) => {
        ::utoipa_axum::paste! { <[<__path_ $handler>] as ::utoipa::Path>::methods() }
            .iter()
            .fold($methods, |methods, method| {
                methods.on(::utoipa_axum::PathItemExt::to_method_filter(method), $handler)
            })
    };
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub fn new() -> Self {
        Self { router: Router::new(), descriptions: Vec::new() }
    }

    /// Adds what [`endpoints!`](crate::endpoints) made.
    #[must_use]
    pub fn routes(mut self, Endpoints { path, methods, describe }: Endpoints<S>) -> Self {
        self.descriptions.push(Box::new(move || describe(OpenApiRouter::new()).into_openapi()));
        Self { router: self.router.route(&path, methods), ..self }
    }

    /// Adds a route that is not described.
    #[must_use]
    pub fn route(self, path: &str, methods: MethodRouter<S>) -> Self {
        Self { router: self.router.route(path, methods), ..self }
    }

    /// Adds those of another.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.descriptions.extend(other.descriptions);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// Gives the handlers their state.
    pub fn with_state<T>(self, state: S) -> Routes<T> {
        Routes { router: self.router.with_state(state), descriptions: self.descriptions }
    }

    /// The router alone.
    pub fn into_router(self) -> Router<S> {
        self.router
    }

    /// Adds what describes them to `document`.
    pub fn describe(&self, document: &mut OpenApi) {
        self.descriptions.iter().for_each(|describe| document.merge(describe()));
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}
