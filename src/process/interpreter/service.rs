//! All contexts: the default one, which is always there, and those that clients make.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::{Context, Surroundings};
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::platform::idempotency::{Idempotent, Key};
use crate::platform::paths;
use crate::platform::shutdown::Shutdown;
use crate::supervisor::Supervisor;

/// Id of the context that needs not be made.
pub(super) const DEFAULT: &str = "default";
/// The one language.
pub(super) const LANGUAGE: &str = "python";

/// The interpreter's contexts; a cheap handle.
#[derive(Debug, Clone)]
pub struct Interpreter {
    work_dir: Arc<Path>,
    surroundings: Surroundings,
    /// Its process is started by its first run: in most sandboxes nobody ever runs anything in it.
    default: Arc<Context>,
    /// In the order in which they were made.
    contexts: Arc<Mutex<Vec<Arc<Context>>>>,
    made: Idempotent<Arc<Context>>,
}

impl Interpreter {
    /// Contexts start in `work_dir` when nothing else is said.
    pub fn new(supervisor: Supervisor, work_dir: PathBuf, shutdown: Shutdown) -> Self {
        let surroundings = Surroundings { supervisor, shutdown: shutdown.clone() };
        let shown = work_dir.display().to_string();
        let default = Context::new(DEFAULT.to_owned(), shown, work_dir.clone(), None, surroundings.clone());
        Self {
            work_dir: work_dir.into(),
            surroundings,
            default: Arc::new(default),
            contexts: Arc::default(),
            made: Idempotent::new(shutdown),
        }
    }

    /// Makes a context, in the working directory when `cwd` is none, and starts its process.
    ///
    /// # Errors
    /// When the language is another one, or the process cannot be started.
    pub async fn create(
        &self,
        cwd: Option<String>,
        language: Option<String>,
        key: Option<Key>,
    ) -> Result<Arc<Context>> {
        if let Some(language) = language.filter(|language| language != LANGUAGE) {
            return Err(Error::invalid(format!(
                "unsupported language: {language:?}; the supported one is {LANGUAGE}"
            )));
        }
        if cwd.as_ref().is_some_and(|cwd| cwd.contains('\0')) {
            return Err(Error::invalid("cwd has a NUL byte"));
        }
        let interpreter = self.clone();
        self.made.run(key, async move { interpreter.make(cwd).await }).await
    }

    async fn make(&self, cwd: Option<String>) -> Result<Arc<Context>> {
        let shown = cwd.unwrap_or_else(|| self.work_dir.display().to_string());
        let cwd = paths::resolve(&self.work_dir, &shown);
        let worker = Worker::start(&self.surroundings.supervisor, &cwd).await;
        let worker = worker.map_err(|reason| Error::internal(format!("no context was created: {reason}")))?;
        let id = uuid::Uuid::new_v4().to_string();
        let context = Arc::new(Context::new(id, shown, cwd, Some(worker), self.surroundings.clone()));
        self.contexts().push(Arc::clone(&context));
        Ok(context)
    }

    /// All contexts but the default one, oldest first.
    pub fn list(&self) -> Vec<Arc<Context>> {
        self.contexts().clone()
    }

    /// The context with this id.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Context>> {
        if id == DEFAULT {
            return Some(Arc::clone(&self.default));
        }
        self.contexts().iter().find(|context| context.id == id).cloned()
    }

    /// Ends a context with its process, everything that that has started, and all runs in it. From the first moment on
    /// it is listed no more.
    ///
    /// # Errors
    /// When it is the default one, or does not exist.
    pub async fn delete(&self, id: &str) -> Result<()> {
        if id == DEFAULT {
            return Err(Error::invalid("cannot delete default context"));
        }
        let found = {
            let mut contexts = self.contexts();
            let index = contexts.iter().position(|context| context.id == id);
            index.map(|index| contexts.remove(index))
        };
        let context = found.ok_or_else(|| Error::not_found(format!("context with ID '{id}' not found")))?;
        context.close().await;
        Ok(())
    }

    fn contexts(&self) -> MutexGuard<'_, Vec<Arc<Context>>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
