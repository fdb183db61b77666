//! One client's socket: what it types goes to the terminal, what the terminal shows goes to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::state::{Attached, Pty};
use super::wire::{exited, exited_close, skipped};
use crate::http::socket::{Close, Frame, Left, MAX_FRAME, Receiver, Sender};
use crate::supervisor::{Chunk, Input, Viewer};

/// How long a client's last input may wait for its place after the client has left.
const LAST_INPUT: Duration = Duration::from_secs(10);

/// What a client understands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// The exit as a message, before the close.
    pub(super) takes_exit: bool,
    /// It counts bytes, and is told when some are left out.
    pub(super) counts: bool,
}

/// Until the program has ended or the client has left.
pub(super) async fn serve(
    pty: Arc<Pty>,
    attached: Attached,
    habits: Habits,
    sender: Sender,
    mut receiver: Receiver,
) -> Close {
    let Attached { viewer, input } = attached;
    let mut typed = std::pin::pin!(take(&mut receiver, &input));
    tokio::select! {
        shown = show(&pty, viewer, habits, &sender) => match shown {
            Ok(close) => close,
            Err(Left) => {
                // What it typed before it left is still to be typed.
                let _ = timeout(LAST_INPUT, typed).await;
                Close::NORMAL
            }
        },
        () = &mut typed => Close::NORMAL,
    }
}

/// Types until the client has left.
async fn take(receiver: &mut Receiver, input: &Input) {
    while let Some(frame) = receiver.recv().await {
        let bytes = match frame {
            Frame::Text(text) => Bytes::from(text),
            Frame::Binary(bytes) => bytes,
        };
        // Fails when the terminal has ended, which the other half tells.
        let _ = input.send(bytes).await;
    }
}

async fn show(pty: &Pty, mut viewer: Viewer, habits: Habits, sender: &Sender) -> Result<Close, Left> {
    let mut has_begun = false;
    loop {
        match viewer.read(MAX_FRAME).await {
            Chunk::Data(pieces) => {
                for piece in pieces {
                    sender.binary(piece.bytes).await?;
                }
                has_begun = true;
            }
            Chunk::Gone { oldest } if habits.counts => sender.text(skipped(oldest)).await?,
            Chunk::Gone { .. } if has_begun => return Ok(Close::out_of_order("slow consumer")),
            Chunk::Gone { .. } => {} // a replay begins with what is kept
            Chunk::Ended => break,
        }
    }
    let end = pty.ended().await;
    if habits.takes_exit {
        sender.text(exited(end)).await?;
    }
    Ok(exited_close(end))
}
