//! How everything that runs learns that the daemon stops, and how the daemon learns that everything has stopped.
//!
//! One cancellation token and one task tracker. axum drops a handler when its client leaves, so work that must finish
//! runs in a task of its own, started here.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A cheap handle to the daemon's end: clone it into whatever runs for longer than a request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Nothing is stopping yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that the daemon waits for when it stops. It keeps the caller's span.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Boxed: the program is to be small, and tokio's part of a task is then the same for all.
        let future: Pin<Box<dyn Future<Output = F::Output> + Send>> = Box::pin(future);
        tokio::spawn(self.tasks.track_future(future.in_current_span()))
    }

    /// Makes the daemon wait for `future`, which runs where the caller polls it: an upgraded socket, for one.
    pub fn track<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.tasks.track_future(future)
    }

    /// Resolves when the daemon begins to stop.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.token.clone().cancelled_owned()
    }

    /// Whether the daemon has begun to stop; for blocking work to look at between steps.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Tells everyone to stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Waits until every task has ended, `limit` at most; returns how many were late.
    pub async fn wait(&self, limit: Duration) -> usize {
        self.tasks.close();
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
        self.tasks.len()
    }
}
