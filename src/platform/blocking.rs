//! Blocking work off the async runtime: a limit for each kind of work, and the caller's span.
//!
//! Each kind has a [`Lane`] of its own, so that a file system that hangs takes down what uses it and nothing else.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

type AnyJob = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// A bounded number of blocking jobs at a time; more wait their turn without holding a thread.
#[derive(Debug, Clone)]
pub struct Lane {
    permits: Arc<Semaphore>,
}

impl Lane {
    /// At most `jobs` at a time.
    pub fn new(jobs: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(jobs)) }
    }

    /// Runs `job` on a blocking thread. It runs to its end even when the caller goes away: a job that may take long
    /// looks at a flag or a closed channel of its own between steps.
    ///
    /// # Errors
    /// Only when `job` panicked.
    pub async fn run<T, F>(&self, job: F) -> Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let result = self.run_any(Box::new(move || Box::new(job()))).await?;
        Ok(*result.downcast().expect("a job gives what it was written to give"))
    }

    /// The same for jobs of every type, as there are hundreds and the program is to be small.
    async fn run_any(&self, job: AnyJob) -> Result<Box<dyn Any + Send>> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let span = tracing::Span::current();
        #[expect(clippy::disallowed_methods, reason = "the one place that runs blocking work")]
        tokio::task::spawn_blocking(move || {
            let _permit = permit; // given back when the job has ended, not when its caller has left
            span.in_scope(job)
        })
        .await
        .map_err(|panic| Error::internal("blocking work failed").with_source(panic))
    }

    /// Drops a value whose end takes its time, as removing a large file does, without waiting for it.
    pub fn discard<T: Send + 'static>(&self, value: T) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
            Err(_) => drop(value),
        }
    }
}
