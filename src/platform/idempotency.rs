//! Retries that are safe: the first call with a key does the work, later ones get its answer.
//!
//! A proxy may lose a reply after the work was done. A client that sends `Idempotency-Key` and asks again gets the
//! first call's answer, for as long as it is kept; the same key with another request is a conflict. Failures are not
//! kept: an error means that nothing was started, so a retry may try again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::shutdown::Shutdown;
use crate::error::{Error, ErrorKind, Result};

/// How long an answer is kept after its call began.
const KEEP: Duration = Duration::from_secs(600);
/// Answers kept at most; the oldest goes first.
const KEPT: usize = 256;
/// Longest key taken, in bytes.
const KEY_BYTES: usize = 256;

/// A client's key and a digest of the request that it stands for.
#[derive(Debug, Clone)]
pub struct Key {
    name: String,
    request: [u8; 32],
}

impl Key {
    /// `name` as the client sent it, `request` the bytes that make two requests the same.
    ///
    /// # Errors
    /// When `name` is empty or longer than 256 bytes.
    pub fn new(name: &str, request: &[u8]) -> Result<Self> {
        if name.is_empty() || name.len() > KEY_BYTES {
            return Err(Error::invalid(format!("Idempotency-Key must have 1 to {KEY_BYTES} bytes")));
        }
        Ok(Self { name: name.to_owned(), request: Sha256::digest(request).into() })
    }
}

/// The answers of one kind of call, by key.
#[derive(Debug, Clone)]
pub struct Idempotent<T> {
    shutdown: Shutdown,
    calls: Arc<Mutex<HashMap<String, Call<T>>>>,
}

#[derive(Debug)]
struct Call<T> {
    request: [u8; 32],
    began: Instant,
    answer: watch::Receiver<Option<T>>,
}

impl<T: Clone + Send + Sync + 'static> Idempotent<T> {
    /// No call yet.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, calls: Arc::default() }
    }

    /// Does `work` in a task of its own, so that it goes on when the client leaves, or waits for the call that has
    /// the same key.
    ///
    /// # Errors
    /// What `work` fails with; a conflict when the key stands for another request.
    pub async fn run<F>(&self, key: Option<Key>, work: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(key) = key else { return joined(self.shutdown.spawn(work).await) };
        loop {
            let (answer, mine) = match self.enter(&key)? {
                Entered::First(answer) => (answer, true),
                Entered::Later(answer) => {
                    let mut answer = answer;
                    match answer.wait_for(Option::is_some).await {
                        Ok(value) => return Ok(value.clone().expect("waited for a value")),
                        Err(_failed) => continue, // the first call failed: this one may be the first now
                    }
                }
            };
            debug_assert!(mine);
            let calls = Arc::clone(&self.calls);
            return joined(
                self.shutdown
                    .spawn(async move {
                        let result = work.await;
                        match &result {
                            Ok(value) => drop(answer.send_replace(Some(value.clone()))),
                            Err(_) => drop(locked(&calls).remove(&key.name)),
                        }
                        result
                    })
                    .await,
            );
        }
    }

    fn enter(&self, key: &Key) -> Result<Entered<T>> {
        let mut calls = locked(&self.calls);
        let now = Instant::now();
        calls.retain(|_, call| now.duration_since(call.began) < KEEP);
        if let Some(call) = calls.get(&key.name) {
            if call.request != key.request {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("Idempotency-Key {} was used for another request", key.name),
                ));
            }
            return Ok(Entered::Later(call.answer.clone()));
        }
        if calls.len() >= KEPT
            && let Some(oldest) =
                calls.iter().min_by_key(|(_, call)| call.began).map(|(name, _)| name.clone())
        {
            calls.remove(&oldest);
        }
        let (sender, answer) = watch::channel(None);
        calls.insert(key.name.clone(), Call { request: key.request, began: now, answer });
        Ok(Entered::First(sender))
    }
}

enum Entered<T> {
    First(watch::Sender<Option<T>>),
    Later(watch::Receiver<Option<T>>),
}

fn locked<T>(calls: &Mutex<HashMap<String, Call<T>>>) -> std::sync::MutexGuard<'_, HashMap<String, Call<T>>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

fn joined<T>(result: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.unwrap_or_else(|error| Err(Error::internal("the work was interrupted").with_source(error)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_key_runs_its_work_once_and_every_call_gets_the_answer() {
        let calls = Idempotent::new(Shutdown::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let attempt = |request: &'static [u8]| {
            let (calls, runs) = (calls.clone(), Arc::clone(&runs));
            async move {
                let key = Key::new("k", request)?;
                calls
                    .run(Some(key), async move {
                        tokio::task::yield_now().await;
                        Ok(runs.fetch_add(1, Ordering::SeqCst))
                    })
                    .await
            }
        };
        let (a, b) = tokio::join!(attempt(b"same"), attempt(b"same"));
        assert_eq!((a.unwrap(), b.unwrap(), attempt(b"same").await.unwrap()), (0, 0, 0));
        assert_eq!(attempt(b"other").await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let calls = Idempotent::<u8>::new(Shutdown::new());
        let key = || Some(Key::new("k", b"r").unwrap());
        assert!(calls.run(key(), async { Err(Error::internal("no")) }).await.is_err());
        assert_eq!(calls.run(key(), async { Ok(7) }).await.unwrap(), 7);
    }
}
