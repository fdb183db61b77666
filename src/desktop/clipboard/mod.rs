//! The clipboard, and what is marked (contract `computer-use.md` 12, item 24).
//!
//! What is put there is owned by the daemon itself, until another program takes it or the desktop ends: no helper
//! program holds it.

pub(super) mod routes;
mod wire;

use std::sync::Arc;

use tokio::sync::Notify;

use super::Desktop;
use super::x11::selection::{Content, Selection};
use crate::error::Result;

impl Desktop {
    /// What a selection holds; none when it holds nothing of ours to give: neither text nor a PNG.
    ///
    /// # Errors
    /// Without a screen; when the program that has it does not hand it over.
    pub(in crate::desktop) async fn clipboard(
        &self,
        selection: Selection,
        prefers_png: bool,
    ) -> Result<Option<Content>> {
        self.x11().await?.selection(selection, prefers_png).await
    }

    /// Replaces what a selection holds. When this returns, other programs can have it; what it gives is told whenever one
    /// has got it.
    ///
    /// # Errors
    /// Without a screen.
    pub(in crate::desktop) async fn set_clipboard(
        &self,
        selection: Selection,
        content: Content,
    ) -> Result<Arc<Notify>> {
        let owned = self.x11().await?.own(selection, content).await?;
        let taken = owned.taken();
        self.inner.shutdown.spawn(serve(owned, self.inner.shutdown.cancelled()));
        Ok(taken)
    }
}

async fn serve(owned: super::x11::selection::Owned, stop: impl Future<Output = ()>) {
    tokio::select! {
        () = owned.serve() => {}
        () = stop => {}
    }
}
