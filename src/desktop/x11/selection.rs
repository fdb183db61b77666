//! Selections: what other programs copy and paste (ICCCM 2.0, section 2).
//!
//! A selection has an owner, who hands its content out piece by piece to whoever asks. Content that is too large for
//! one request goes in parts (INCR), each after the part before was taken.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ConnectionExt as _, CreateWindowAux, EventMask, PropMode, Property, PropertyNotifyEvent,
    SELECTION_NOTIFY_EVENT, SelectionNotifyEvent, SelectionRequestEvent, Timestamp, Window, WindowClass,
};
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{COPY_FROM_PARENT, CURRENT_TIME, NONE};

use super::{Connection, Events, Failure, Wire};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that go in one part.
const PART: usize = 256 * 1024;
/// Transfers in parts at a time; of more, the oldest is given up.
const TRANSFERS: usize = 16;
/// Longest wait for a program to hand over what it has.
const LIMIT: Duration = Duration::from_secs(5);
/// Most that is taken from another program, in bytes.
pub(crate) const LARGEST: usize = 64 * 1024 * 1024;
/// Most kinds of content that are looked at.
const TARGETS: u32 = 256;

/// One of the two selections that people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// What is copied.
    Clipboard,
    /// What is marked.
    Primary,
}

impl Selection {
    fn atom(self, wire: &Wire) -> Result<Atom, Failure> {
        Ok(match self {
            Self::Clipboard => wire.atoms()?.CLIPBOARD,
            Self::Primary => AtomEnum::PRIMARY.into(),
        })
    }
}

/// What a selection holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Text.
    Text(String),
    /// A picture in PNG's format.
    Png(Bytes),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Png(bytes) => bytes,
        }
    }

    /// The kinds that it is handed out as, best first.
    fn targets(&self, wire: &Wire) -> Result<Vec<Atom>, Failure> {
        let atoms = wire.atoms()?;
        Ok(match self {
            Self::Text(_) => vec![
                atoms.UTF8_STRING,
                atoms.TEXT_PLAIN_UTF8,
                atoms.TEXT_PLAIN,
                atoms.TEXT,
                AtomEnum::STRING.into(),
            ],
            Self::Png(_) => vec![atoms.IMAGE_PNG],
        })
    }

    /// What goes to whoever asks for one kind, and the type it is told to have.
    fn converted(&self, target: Atom, wire: &Wire) -> Result<(Atom, Bytes), Failure> {
        let bytes = || Bytes::copy_from_slice(self.bytes());
        Ok(match self {
            // STRING is Latin-1; what it has no place for becomes a question mark, as everyone does it.
            Self::Text(text) if target == u32::from(AtomEnum::STRING) => {
                let latin = text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(b'?'));
                (target, latin.collect())
            }
            Self::Text(_) if target == wire.atoms()?.TEXT => (wire.atoms()?.UTF8_STRING, bytes()),
            Self::Text(_) => (target, bytes()),
            Self::Png(png) => (target, png.clone()),
        })
    }
}

/// A selection that is ours until someone else takes it.
pub(crate) struct Owned {
    connection: Connection,
    events: Events,
    window: Window,
    selection: Atom,
    since: Timestamp,
    content: Content,
    transfers: Vec<Transfer>,
    /// Told when a program has got the content.
    taken: Arc<Notify>,
}

/// Content that goes to another program in parts.
struct Transfer {
    to: Window,
    property: Atom,
    kind: Atom,
    rest: Bytes,
}

impl Connection {
    /// Takes a selection. It is ours until someone else takes it, and handed out as long as [`Owned::serve`] runs.
    ///
    /// # Errors
    /// When the server has gone, or gives the selection to someone else at the same moment.
    pub(crate) async fn own(&self, selection: Selection, content: Content) -> Result<Owned> {
        let mut events = self.events();
        let window = self.run(Wire::hidden_window).await?;
        let since = time_of(self, &mut events, window).await?;
        let selection = self
            .run(move |wire| {
                let selection = selection.atom(wire)?;
                wire.x.set_selection_owner(window, selection, since)?;
                let owner = wire.x.get_selection_owner(selection)?.reply()?.owner;
                if owner == window {
                    Ok(selection)
                } else {
                    Err(Failure::Refused("the selection is busy".into()))
                }
            })
            .await?;
        Ok(Owned {
            connection: self.clone(),
            events,
            window,
            selection,
            since,
            content,
            transfers: Vec::new(),
            taken: Arc::default(),
        })
    }

    /// What a selection holds: text when it has text, else a picture; none when it is empty or has neither.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when its owner does not hand it over, [`ErrorKind::TooLarge`] when it is.
    pub(crate) async fn selection(&self, selection: Selection, prefers_png: bool) -> Result<Option<Content>> {
        let mut events = self.events();
        let window = self.run(Wire::hidden_window).await?;
        let taken = take(self, &mut events, window, selection, prefers_png).await;
        let _ = self.run(move |wire| wire.forget_window(window)).await;
        taken
    }
}

async fn take(
    connection: &Connection,
    events: &mut Events,
    window: Window,
    selection: Selection,
    prefers_png: bool,
) -> Result<Option<Content>> {
    let deadline = Instant::now() + LIMIT;
    let targets = connection.run(|wire| Ok(wire.atoms()?.TARGETS)).await?;
    let Some(offered) = convert(connection, events, window, selection, targets, deadline).await? else {
        return Ok(None);
    };
    let offered: Vec<Atom> = offered
        .chunks_exact(4)
        .map(|atom| Atom::from_ne_bytes([atom[0], atom[1], atom[2], atom[3]]))
        .collect();
    let (utf8, png) = connection.run(|wire| Ok((wire.atoms()?.UTF8_STRING, wire.atoms()?.IMAGE_PNG))).await?;
    let string = Atom::from(AtomEnum::STRING);
    let wanted = if prefers_png { [png, utf8, string] } else { [utf8, string, png] };
    let Some(target) = wanted.into_iter().find(|target| offered.contains(target)) else { return Ok(None) };
    let Some(bytes) = convert(connection, events, window, selection, target, deadline).await? else {
        return Ok(None);
    };
    Ok(Some(if target == png {
        Content::Png(bytes.into())
    } else if target == string {
        Content::Text(bytes.iter().map(|byte| char::from(*byte)).collect())
    } else {
        Content::Text(String::from_utf8_lossy(&bytes).into_owned())
    }))
}

/// Has a selection's owner hand over one kind of content; none when it does not have that.
async fn convert(
    connection: &Connection,
    events: &mut Events,
    window: Window,
    selection: Selection,
    target: Atom,
    deadline: Instant,
) -> Result<Option<Vec<u8>>> {
    let property = connection
        .run(move |wire| {
            let property = wire.atoms()?.TOOLBOXD_SELECTION;
            wire.x.delete_property(window, property)?;
            let selection = selection.atom(wire)?;
            wire.x.convert_selection(window, selection, target, property, CURRENT_TIME)?;
            wire.x.flush()?;
            Ok(property)
        })
        .await?;
    let is_reply = |event: &Event| match event {
        Event::SelectionNotify(reply) if reply.requestor == window && reply.target == target => {
            Some(reply.property != NONE)
        }
        _ => None,
    };
    if !wait(connection, events, deadline, is_reply).await? {
        return Ok(None);
    }
    let (kind, mut bytes) = connection.run(move |wire| wire.taken(window, property)).await?;
    let incr = connection.run(|wire| Ok(wire.atoms()?.INCR)).await?;
    if kind != incr {
        return Ok(Some(bytes));
    }
    bytes.clear();
    loop {
        let is_part = |event: &Event| match event {
            Event::PropertyNotify(PropertyNotifyEvent { window: of, atom, state, .. }) => {
                (*of == window && *atom == property && *state == Property::NEW_VALUE).then_some(())
            }
            _ => None,
        };
        wait(connection, events, deadline.max(Instant::now() + LIMIT / 2), is_part).await?;
        let (_, part) = connection.run(move |wire| wire.taken(window, property)).await?;
        if part.is_empty() {
            return Ok(Some(bytes));
        }
        bytes.extend(part);
        if bytes.len() > LARGEST {
            return Err(Error::new(ErrorKind::TooLarge, "the selection is too large"));
        }
    }
}

/// The first event that `wanted` wants something of.
async fn wait<T>(
    connection: &Connection,
    events: &mut Events,
    deadline: Instant,
    wanted: impl Fn(&Event) -> Option<T>,
) -> Result<T> {
    let waiting = async {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = connection.lost() => Err(RecvError::Closed),
            };
            match event {
                Ok(event) => {
                    if let Some(found) = wanted(&event) {
                        return Ok(found);
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => {
                    return Err(Error::new(ErrorKind::Unavailable, "the X server has gone, call start"));
                }
            }
        }
    };
    let late = || Error::new(ErrorKind::Timeout, "the owner of the selection does not hand it over");
    timeout_at(deadline, waiting).await.map_err(|_| late())?
}

/// The server's time, which it tells with a change of a property that changes nothing.
async fn time_of(connection: &Connection, events: &mut Events, window: Window) -> Result<Timestamp> {
    let property = connection
        .run(move |wire| {
            let property = wire.atoms()?.TOOLBOXD_SELECTION;
            wire.check(wire.x.change_property8(
                PropMode::APPEND,
                window,
                property,
                AtomEnum::STRING,
                &[],
            )?)?;
            Ok(property)
        })
        .await?;
    let is_ours = |event: &Event| match event {
        Event::PropertyNotify(event) if event.window == window && event.atom == property => Some(event.time),
        _ => None,
    };
    wait(connection, events, Instant::now() + LIMIT, is_ours).await
}

impl Wire {
    /// A window that is never seen, to which changes of its properties are told.
    fn hidden_window(&self) -> Result<Window, Failure> {
        let window = self.x.generate_id()?;
        let aux = CreateWindowAux::new().event_mask(EventMask::PROPERTY_CHANGE).override_redirect(1);
        let class = WindowClass::INPUT_ONLY; // it has no depth
        let made =
            self.x.create_window(0, window, self.root, -1, -1, 1, 1, 0, class, COPY_FROM_PARENT, &aux)?;
        self.check(made)?;
        Ok(window)
    }

    /// Gives a window up, which may have gone already.
    fn forget_window(&self, window: Window) -> Result<(), Failure> {
        self.x.destroy_window(window)?.ignore_error();
        Ok(())
    }

    /// A property with its type, which is removed: that asks for the next part where it has parts.
    fn taken(&self, window: Window, property: Atom) -> Result<(Atom, Vec<u8>), Failure> {
        let most = u32::try_from(LARGEST / 4).unwrap_or(u32::MAX);
        let reply = self.x.get_property(true, window, property, AtomEnum::ANY, 0, most)?.reply()?;
        if reply.bytes_after > 0 {
            return Err(Error::new(ErrorKind::TooLarge, "the selection is too large").into());
        }
        Ok((reply.type_, reply.value))
    }
}

impl Owned {
    /// Is told each time that a program has got the content, whole.
    pub(crate) fn taken(&self) -> Arc<Notify> {
        Arc::clone(&self.taken)
    }

    /// Hands the content out until someone else takes the selection, or the server has gone.
    pub(crate) async fn serve(mut self) {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.connection.lost() => return,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => continue, // whoever asked gives up and asks again
                Err(RecvError::Closed) => return,
            };
            let done = match &*event {
                Event::SelectionClear(event)
                    if event.owner == self.window && event.selection == self.selection =>
                {
                    break;
                }
                Event::SelectionRequest(event) if event.owner == self.window => self.answer(*event).await,
                Event::PropertyNotify(event) if event.state == Property::DELETE => {
                    self.next_part(event.window, event.atom).await
                }
                _ => continue,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a selection was not handed over");
            }
        }
        let window = self.window;
        let _ = self.connection.run(move |wire| wire.forget_window(window)).await;
    }

    async fn answer(&mut self, event: SelectionRequestEvent) -> Result<()> {
        // Obsolete clients name no property (ICCCM 2.2).
        let property = if event.property == NONE { event.target } else { event.property };
        let (content, since) = (self.content.clone(), self.since);
        let transfer = self.connection.run(move |wire| {
            let handed = hand_over(wire, &content, since, event.requestor, event.target, property);
            let is_content = content.targets(wire)?.contains(&event.target);
            let (transfer, property) = match handed {
                Ok(Some(transfer)) => (transfer, property),
                Ok(None) => (None, NONE),
                Err(error @ Failure::Lost(_)) => return Err(error),
                Err(_refused) => (None, NONE),
            };
            let is_taken = is_content && property != NONE && transfer.is_none();
            let reply = SelectionNotifyEvent {
                response_type: SELECTION_NOTIFY_EVENT,
                sequence: 0,
                time: event.time,
                requestor: event.requestor,
                selection: event.selection,
                target: event.target,
                property,
            };
            wire.x.send_event(false, event.requestor, EventMask::NO_EVENT, reply)?.ignore_error();
            wire.x.flush()?;
            Ok((transfer, is_taken))
        });
        let (transfer, is_taken) = transfer.await?;
        if is_taken {
            self.taken.notify_one();
        }
        if let Some(transfer) = transfer {
            self.transfers.retain(|other| (other.to, other.property) != (transfer.to, transfer.property));
            if self.transfers.len() >= TRANSFERS {
                self.transfers.remove(0);
            }
            self.transfers.push(transfer);
        }
        Ok(())
    }

    /// The part before was taken: puts the next one in its place; an empty one is the end.
    async fn next_part(&mut self, to: Window, property: Atom) -> Result<()> {
        let same = |transfer: &Transfer| (transfer.to, transfer.property) == (to, property);
        let Some(index) = self.transfers.iter().position(same) else { return Ok(()) };
        let transfer = &mut self.transfers[index];
        let (part, kind) = (transfer.rest.split_to(transfer.rest.len().min(PART)), transfer.kind);
        if part.is_empty() {
            self.transfers.remove(index);
            self.taken.notify_one();
        }
        let put = move |wire: &Wire| {
            Ok(wire.check(wire.x.change_property8(PropMode::REPLACE, to, property, kind, &part)?)?)
        };
        self.connection.run(put).await
    }
}

/// Puts content where another program asked for it. None: it has no such kind. Some: it goes in one piece, or in parts.
fn hand_over(
    wire: &Wire,
    content: &Content,
    since: Timestamp,
    to: Window,
    target: Atom,
    property: Atom,
) -> Result<Option<Option<Transfer>>, Failure> {
    let atoms = wire.atoms()?;
    let own_targets = content.targets(wire)?;
    if target == atoms.TARGETS {
        let mut all = vec![atoms.TARGETS, atoms.TIMESTAMP, atoms.MULTIPLE];
        all.extend(own_targets);
        wire.check(wire.x.change_property32(PropMode::REPLACE, to, property, AtomEnum::ATOM, &all)?)?;
    } else if target == atoms.TIMESTAMP {
        wire.check(wire.x.change_property32(
            PropMode::REPLACE,
            to,
            property,
            AtomEnum::INTEGER,
            &[since],
        )?)?;
    } else if target == atoms.MULTIPLE {
        let pairs = wire.x.get_property(false, to, property, AtomEnum::ANY, 0, TARGETS)?.reply()?;
        let mut pairs: Vec<Atom> = pairs.value32().map(Iterator::collect).unwrap_or_default();
        for pair in pairs.chunks_exact_mut(2) {
            // One at a time is answered in one piece only: nobody is known to want more.
            let fits = pair[0] != atoms.MULTIPLE && content.bytes().len() <= PART;
            if !fits || hand_over(wire, content, since, to, pair[0], pair[1])?.is_none() {
                pair[1] = NONE;
            }
        }
        wire.check(wire.x.change_property32(PropMode::REPLACE, to, property, atoms.ATOM_PAIR, &pairs)?)?;
    } else if own_targets.contains(&target) {
        let (kind, bytes) = content.converted(target, wire)?;
        if bytes.len() <= PART {
            wire.check(wire.x.change_property8(PropMode::REPLACE, to, property, kind, &bytes)?)?;
            return Ok(Some(None));
        }
        wire.follow(to)?;
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        wire.check(wire.x.change_property32(PropMode::REPLACE, to, property, atoms.INCR, &[size])?)?;
        return Ok(Some(Some(Transfer { to, property, kind, rest: bytes })));
    } else {
        return Ok(None);
    }
    Ok(Some(None))
}
