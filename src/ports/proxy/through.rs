//! A body that passes without being looked at.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::platform::splice::{Passage, Valve};

/// Bytes that a pipe is worth opening for: more than either end's reader can have already.
const LEAST: u64 = 1024 * 1024;

/// Leads a body of known length past us, as soon as nothing of it waits in between.
#[derive(Debug)]
pub(super) struct Through {
    passage: Passage,
    left: u64,
}

impl Through {
    /// None when copying the body is as good.
    pub(super) fn new(body: &impl Body, from: Valve, to: Valve) -> Option<Self> {
        let left = body.size_hint().exact().filter(|left| *left >= LEAST)?;
        Some(Self { passage: Passage::new(from, to), left })
    }

    /// The frame for the writer that `read` has got from the reader.
    pub(super) fn poll_frame<E>(
        &mut self,
        context: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let is_still = self.passage.is_still(context);
        let frame = read(context);
        if is_still && frame.is_pending() {
            self.passage.open(self.left);
        }
        frame.map_ok(|frame| {
            frame.map_data(|bytes| {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                self.passage.claim(bytes)
            })
        })
    }
}
