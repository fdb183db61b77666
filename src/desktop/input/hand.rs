//! The one hand on mouse and keyboard: has the lock, and undoes what an action leaves behind.

use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{Action, Outcome};
use crate::desktop::Desktop;
use crate::desktop::x11::keymap::{KeyMap, Loan, Locks};
use crate::desktop::x11::{Connection, Failure, Wire, client};
use crate::error::{Error, ErrorKind, Result};

/// Least time that programs get to read a changed keyboard map, before the next keys and before the next change.
/// Measured: with less, toolkits translate keys with the map of before.
const SETTLE: Duration = Duration::from_millis(50);
/// Longest time that a program which is still busy gets.
const SETTLE_BUSY: Duration = Duration::from_secs(1);
/// Time between two looks at such a program.
const LOOK: Duration = Duration::from_millis(4);
/// Looks, one after the other, at which it has to be idle: reading a map takes several exchanges with the server.
const IDLE_LOOKS: u32 = 3;

/// What is held down between requests, and what an action has yet to undo.
#[derive(Debug, Default)]
pub(in crate::desktop) struct Held {
    pub(super) keys: Vec<HeldKey>,
    pub(super) buttons: Vec<u8>,
    pub(super) undo: Undo,
    /// The connection that all this was done on.
    connection: Option<Connection>,
    /// The last use of the input.
    used: Option<Instant>,
    /// Whether a task waits to release what is held for too long.
    watched: bool,
}

/// A key that is held down until it is told to go up.
#[derive(Debug)]
pub(super) struct HeldKey {
    /// As it was named.
    pub(super) name: String,
    pub(super) symbol: u32,
    pub(super) code: u8,
    /// The map before the key was lent its symbol.
    pub(super) loan: Option<(Arc<KeyMap>, Loan)>,
}

/// What is undone when the action ends.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Keys that are down, in the order they went down.
    pub(super) keys: Vec<u8>,
    /// Buttons that are down.
    pub(super) buttons: Vec<u8>,
    /// What was locked before.
    pub(super) locks: Option<Locks>,
    /// Symbols lent, each with the map before.
    pub(super) loans: Vec<(Arc<KeyMap>, Loan)>,
}

impl Undo {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.buttons.is_empty() && self.locks.is_none() && self.loans.is_empty()
    }

    fn run(&self, wire: &Wire) -> Result<(), Failure> {
        for button in self.buttons.iter().rev() {
            wire.button(*button, false)?;
        }
        for code in self.keys.iter().rev() {
            wire.key(*code, false)?;
        }
        if !self.loans.is_empty() {
            wire.restore(&self.loans)?;
        }
        if let Some(locks) = self.locks {
            wire.lock(locks)?;
        }
        wire.sync()
    }
}

impl Held {
    /// Names of the keys that are held down: none on a display that has gone.
    pub(in crate::desktop) fn keys(&self) -> impl Iterator<Item = &str> {
        let there = self.connection.as_ref().is_some_and(|connection| !connection.is_lost());
        self.keys.iter().filter(move |_| there).map(|key| key.name.as_str())
    }

    /// Turns everything that is held into something to undo.
    fn drop_all(&mut self) {
        self.undo.buttons.append(&mut self.buttons);
        for key in self.keys.drain(..) {
            self.undo.keys.push(key.code);
            self.undo.loans.extend(key.loan);
        }
    }
}

/// Mouse and keyboard while one request has them to itself.
pub(in crate::desktop) struct Hand<'a> {
    pub(super) desktop: Desktop,
    pub(super) connection: Connection,
    pub(super) held: &'a mut Held,
    /// Held by the piece of work that is under way: one whose caller has left still runs to its end.
    turn: Arc<Mutex<()>>,
}

impl<'a> Hand<'a> {
    /// Takes over what is left of an earlier connection.
    async fn new(desktop: &Desktop, connection: Connection, held: &'a mut Held) -> Result<Hand<'a>> {
        if held.connection.as_ref().is_some_and(|before| !before.is(&connection)) {
            // The server may be the same one, where keys stay down although who pressed them has gone.
            held.drop_all();
        }
        held.connection = Some(connection.clone());
        held.used = Some(Instant::now());
        let mut hand = Self { desktop: desktop.clone(), connection, held, turn: Arc::default() };
        hand.let_go().await?;
        Ok(hand)
    }

    /// Does a piece of work, after the one before it.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Wire) -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        self.connection
            .run(move |wire| {
                let _turn = turn;
                work(wire)
            })
            .await
    }

    /// Waits until the program that gets the keys has had the time to read the keyboard map and all keys before.
    ///
    /// On a busy machine, that is more than a fixed time. A thread counts as idle once it has been seen asleep; one that
    /// never sleeps is given up on after a while.
    pub(super) async fn settle(&self) -> Result<()> {
        let until = Instant::now() + SETTLE_BUSY;
        sleep(SETTLE).await;
        let process = match self.run(Wire::focused_process).await {
            Ok(Some(process)) => process,
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Ok(None) | Err(_) => return Ok(()), // its window may have gone meanwhile
        };
        let mut idle = 0;
        while idle < IDLE_LOOKS && Instant::now() < until {
            // The server's answer comes after what it has sent to others.
            let mut awake = self.run(move |wire| wire.sync().map(|()| client::awake(process))).await?;
            idle = if awake.is_empty() { idle + 1 } else { 0 };
            while !awake.is_empty() && Instant::now() < until {
                sleep(LOOK).await;
                let still = self.run(move |_| Ok(client::awake(process))).await?;
                awake.retain(|thread| still.contains(thread));
            }
        }
        Ok(())
    }

    /// Undoes what the action has left behind.
    pub(super) async fn let_go(&mut self) -> Result<()> {
        if self.held.undo.is_empty() {
            return Ok(());
        }
        if !self.held.undo.loans.is_empty() {
            let _ = self.settle().await; // a lost connection is told by what follows
        }
        let undo = Arc::new(mem::take(&mut self.held.undo));
        let done = self.run({
            let undo = Arc::clone(&undo);
            move |wire| undo.run(wire)
        });
        let done = done.await;
        if self.connection.is_lost()
            && let Some(undo) = Arc::into_inner(undo)
        {
            self.held.undo = undo; // for the next connection
        }
        done
    }

    /// Does one thing, and undoes what it leaves behind.
    pub(in crate::desktop) async fn perform(&mut self, action: Action) -> Result<Outcome> {
        self.held.used = Some(Instant::now());
        let done = match action {
            Action::Move(action) => self.move_to(action).await.map(Outcome::At),
            Action::Click(action) => self.click(action).await.map(Outcome::At),
            Action::Drag(action) => self.drag(action).await.map(Outcome::At),
            Action::Scroll(action) => self.scroll(action).await.map(|()| Outcome::Scrolled),
            Action::Button(action) => self.hold_button(action).await.map(Outcome::At),
            Action::Type(text) => self.enter(text).await.map(|()| Outcome::Done),
            Action::Key(chord) => self.press(chord).await.map(|()| Outcome::Done),
            Action::Hold(action) => self.hold_key(action).await.map(|()| Outcome::Done),
        };
        let undone = self.let_go().await;
        done.and_then(|outcome| undone.map(|()| outcome))
    }
}

/// Does one thing on the desktop.
///
/// # Errors
/// Those of the action; [`ErrorKind::Unavailable`] without a screen.
pub(in crate::desktop) async fn perform(desktop: &Desktop, action: Action) -> Result<Outcome> {
    act(desktop, move |hand| hand.perform(action).boxed()).await
}

/// Does `work` with mouse and keyboard for itself. It ends early when the caller goes away; what it holds is released
/// all the same.
///
/// # Errors
/// Those of the work; [`ErrorKind::Unavailable`] without a screen.
pub(in crate::desktop) async fn act<T, F>(desktop: &Desktop, work: F) -> Result<T>
where
    F: for<'a> FnOnce(&'a mut Hand<'_>) -> BoxFuture<'a, Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let caller = CancellationToken::new();
    let _stays = caller.clone().drop_guard();
    let task = act_for(desktop.clone(), caller, work);
    let done = desktop.inner.shutdown.spawn(task).await;
    done.map_err(|panic| Error::internal("the input failed").with_source(panic))?
}

async fn act_for<T, F>(desktop: Desktop, caller: CancellationToken, work: F) -> Result<T>
where
    F: for<'a> FnOnce(&'a mut Hand<'_>) -> BoxFuture<'a, Result<T>>,
{
    let left = || Error::new(ErrorKind::Timeout, "the client has left");
    let mut held = tokio::select! {
        biased;
        () = caller.cancelled() => return Err(left()),
        held = desktop.input() => held,
    };
    let connection = desktop.x11().await?;
    let _keep = connection.keep();
    let mut hand = Hand::new(&desktop, connection, &mut held).await?;
    let stopping = desktop.inner.shutdown.cancelled();
    let done = {
        let work = AssertUnwindSafe(work(&mut hand)).catch_unwind(); // what is held is written down in any case
        tokio::select! {
            biased;
            done = work => done,
            () = caller.cancelled() => Ok(Err(left())),
            () = stopping => Ok(Err(Error::new(ErrorKind::Unavailable, "the daemon is stopping"))),
        }
    };
    let undone = hand.let_go().await;
    held.used = Some(Instant::now());
    watch(&desktop, &mut held);
    match done {
        Ok(done) => done.and_then(|value| undone.map(|()| value)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Releases every key and button, as before the desktop stops. Without a screen there is nothing to release.
pub(in crate::desktop) async fn release(desktop: &Desktop) {
    let mut held = desktop.input().await;
    release_held(desktop, &mut held).await;
}

async fn release_held(desktop: &Desktop, held: &mut Held) {
    held.drop_all();
    let connection = held.connection.take();
    if let Some(connection) = connection.filter(|connection| !connection.is_lost())
        && let Err(error) = Hand::new(desktop, connection, held).await.map(drop)
    {
        debug!("what was held could not be released: {error}");
    }
}

/// Sees to it that what is held is released when the input has not been used for a while.
fn watch(desktop: &Desktop, held: &mut Held) {
    if held.watched || (held.keys.is_empty() && held.buttons.is_empty()) {
        return;
    }
    held.watched = true;
    let desktop = desktop.clone();
    desktop.clone().inner.shutdown.spawn(async move {
        let mut until = Instant::now();
        let mut _keep = None;
        loop {
            tokio::select! {
                () = desktop.inner.shutdown.cancelled() => return release(&desktop).await,
                () = sleep_until(until) => {}
            }
            let mut held = desktop.input().await;
            let now = Instant::now();
            let limit = desktop.inner.settings.held_key_timeout;
            if !held.keys.is_empty() && held.used.is_none_or(|used| used + limit <= now) {
                info!("released what was held for too long: {}", held.keys().collect::<Vec<_>>().join(", "));
                release_held(&desktop, &mut held).await;
            }
            if held.keys.is_empty() && held.buttons.is_empty() {
                held.watched = false;
                return;
            }
            _keep = held.connection.as_ref().map(Connection::keep);
            // A button alone may be held for as long as the caller likes.
            until = held.used.filter(|_| !held.keys.is_empty()).unwrap_or(now) + limit;
        }
    });
}
