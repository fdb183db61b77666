//! Windows as EWMH 1.5 and ICCCM have them: the list, their properties, and what a window manager is asked to do.

use x11rb::CURRENT_TIME;
use x11rb::connection::Connection as _;
use x11rb::cookie::Cookie;
use x11rb::errors::{ConnectionError, ReplyError};
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ChangeWindowAttributesAux, ClientMessageEvent, ConfigureWindowAux, ConnectionExt as _,
    EventMask, GetGeometryReply, GetPropertyReply, InputFocus, MapState, StackMode,
    TranslateCoordinatesReply,
};
use x11rb::rust_connection::RustConnection;

use super::atoms::Atoms;
use super::monitors::Area;
use super::stream::Limited;
use super::{Failure, Wire};
use crate::error::{Error, ErrorKind};

/// Longest title that is read, in bytes.
const TITLE: u32 = 4096;
/// Most windows of a list.
const WINDOWS: u32 = 4096;
/// Most atoms of a property.
const ATOMS: u32 = 64;
/// A request on behalf of the user, as from a pager (EWMH, source indication).
const SOURCE: u32 = 2;
/// ICCCM 4.1.3.1.
const ICONIC: u32 = 3;

/// A window with what it and the window manager say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// The X server's number for it.
    pub(crate) id: u32,
    /// Empty when it has none.
    pub(crate) title: String,
    /// Without what the window manager puts around it, in pixels of the screen.
    pub(crate) area: Area,
    /// With what the window manager puts around it.
    pub(crate) frame: Area,
    /// It has the focus.
    pub(crate) is_active: bool,
    /// As its program says.
    pub(crate) pid: Option<u32>,
    /// WM_CLASS: the name of its program's class; empty when it has none.
    pub(crate) class: String,
    /// Number of the workspace; none when it is on all of them.
    pub(crate) desktop: Option<u32>,
    /// As EWMH names it, in lower case: normal, dialog, dock, …
    pub(crate) kind: &'static str,
    pub(crate) is_minimized: bool,
    pub(crate) is_maximized: bool,
    pub(crate) is_fullscreen: bool,
}

type Property<'a> = Cookie<'a, RustConnection<Limited>, GetPropertyReply>;

/// The questions about one window, all asked before the first answer is awaited.
struct Asked<'a> {
    id: u32,
    geometry: Cookie<'a, RustConnection<Limited>, GetGeometryReply>,
    origin: Cookie<'a, RustConnection<Limited>, TranslateCoordinatesReply>,
    net_name: Property<'a>,
    name: Property<'a>,
    class: Property<'a>,
    pid: Property<'a>,
    desktop: Property<'a>,
    kind: Property<'a>,
    net_state: Property<'a>,
    state: Property<'a>,
    extents: Property<'a>,
}

impl Wire {
    /// The managed windows from bottom to top; without a window manager, the visible windows below the root.
    pub(crate) fn windows(&self) -> Result<Vec<Window>, Failure> {
        let atoms = self.atoms()?;
        let list = self.property(self.root, atoms._NET_CLIENT_LIST_STACKING, AtomEnum::WINDOW, WINDOWS)?;
        let active = self.property(self.root, atoms._NET_ACTIVE_WINDOW, AtomEnum::WINDOW, 1)?;
        let check = self.property(self.root, atoms._NET_SUPPORTING_WM_CHECK, AtomEnum::WINDOW, 1)?;
        let (list, active, check) = (list.reply()?, active.reply()?, check.reply()?);
        let is_managed = number(&check).is_some();
        let active = if is_managed { number(&active) } else { self.focus()? };
        let ids = if is_managed { numbers(&list) } else { self.visible()? };
        let asked = ids.into_iter().map(|id| self.ask(id, atoms)).collect::<Result<Vec<_>, _>>()?;
        let mut windows = Vec::with_capacity(asked.len());
        for asked in asked {
            windows.extend(asked.answer(atoms, active, is_managed)?);
        }
        Ok(windows)
    }

    /// One window; none when there is no such window, or its manager does not show it yet or any more.
    pub(crate) fn window(&self, id: u32) -> Result<Option<Window>, Failure> {
        let atoms = self.atoms()?;
        let active = self.property(self.root, atoms._NET_ACTIVE_WINDOW, AtomEnum::WINDOW, 1)?;
        let check = self.property(self.root, atoms._NET_SUPPORTING_WM_CHECK, AtomEnum::WINDOW, 1)?;
        let asked = self.ask(id, atoms)?;
        let (active, check) = (active.reply()?, check.reply()?);
        let is_managed = number(&check).is_some();
        let active = if is_managed { number(&active) } else { self.focus()? };
        asked.answer(atoms, active, is_managed)
    }

    fn focus(&self) -> Result<Option<u32>, Failure> {
        Ok(Some(self.x.get_input_focus()?.reply()?.focus))
    }

    fn visible(&self) -> Result<Vec<u32>, Failure> {
        let children = self.x.query_tree(self.root)?.reply()?.children;
        let asked = children.iter().map(|id| self.x.get_window_attributes(*id));
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let mut visible = Vec::new();
        for (id, attributes) in children.into_iter().zip(asked) {
            if let Some(attributes) = still_there(attributes.reply())?
                && attributes.map_state == MapState::VIEWABLE
                && !attributes.override_redirect
            {
                visible.push(id);
            }
        }
        Ok(visible)
    }

    fn property(
        &self,
        of: u32,
        name: Atom,
        kind: impl Into<Atom>,
        most: u32,
    ) -> Result<Property<'_>, ConnectionError> {
        self.x.get_property(false, of, name, kind, 0, most)
    }

    fn ask(&self, id: u32, atoms: &Atoms) -> Result<Asked<'_>, Failure> {
        Ok(Asked {
            id,
            geometry: self.x.get_geometry(id)?,
            origin: self.x.translate_coordinates(id, self.root, 0, 0)?,
            net_name: self.property(id, atoms._NET_WM_NAME, AtomEnum::ANY, TITLE / 4)?,
            name: self.property(id, AtomEnum::WM_NAME.into(), AtomEnum::ANY, TITLE / 4)?,
            class: self.property(id, AtomEnum::WM_CLASS.into(), AtomEnum::ANY, TITLE / 4)?,
            pid: self.property(id, atoms._NET_WM_PID, AtomEnum::CARDINAL, 1)?,
            desktop: self.property(id, atoms._NET_WM_DESKTOP, AtomEnum::CARDINAL, 1)?,
            kind: self.property(id, atoms._NET_WM_WINDOW_TYPE, AtomEnum::ATOM, ATOMS)?,
            net_state: self.property(id, atoms._NET_WM_STATE, AtomEnum::ATOM, ATOMS)?,
            state: self.property(id, atoms.WM_STATE, AtomEnum::ANY, 2)?,
            extents: self.property(id, atoms._NET_FRAME_EXTENTS, AtomEnum::CARDINAL, 4)?,
        })
    }
}

impl Asked<'_> {
    /// A managed window has a WM_STATE from when its manager has placed it to when it is withdrawn (ICCCM 4.1.3.1).
    fn answer(self, atoms: &Atoms, active: Option<u32>, is_managed: bool) -> Result<Option<Window>, Failure> {
        let Some(geometry) = still_there(self.geometry.reply())? else { return Ok(None) };
        let Some(origin) = still_there(self.origin.reply())? else { return Ok(None) };
        let read = |cookie: Property<'_>| -> Result<GetPropertyReply, Failure> {
            Ok(still_there(cookie.reply())?.unwrap_or_default())
        };
        let title = match text(&read(self.net_name)?, atoms) {
            title if title.is_empty() => text(&read(self.name)?, atoms),
            title => title,
        };
        let class = text(&read(self.class)?, atoms);
        let states = numbers(&read(self.net_state)?);
        let has = |state: Atom| states.contains(&state);
        let kinds = numbers(&read(self.kind)?);
        let state = number(&read(self.state)?);
        if is_managed && state.is_none() {
            return Ok(None);
        }
        let area = Area {
            x: origin.dst_x.into(),
            y: origin.dst_y.into(),
            width: geometry.width.into(),
            height: geometry.height.into(),
        };
        let extents = numbers(&read(self.extents)?);
        let frame = match extents[..] {
            [left, right, top, bottom] => Area {
                x: area.x - left.cast_signed(),
                y: area.y - top.cast_signed(),
                width: area.width.saturating_add(left).saturating_add(right),
                height: area.height.saturating_add(top).saturating_add(bottom),
            },
            _ => area,
        };
        Ok(Some(Window {
            id: self.id,
            title,
            area,
            frame,
            is_active: active == Some(self.id),
            pid: number(&read(self.pid)?),
            class: class.split('\0').nth(1).unwrap_or_default().to_owned(),
            desktop: numbers(&read(self.desktop)?).first().copied().filter(|desktop| *desktop != u32::MAX),
            kind: kinds.iter().find_map(|kind| kind_name(*kind, atoms)).unwrap_or("normal"),
            is_minimized: has(atoms._NET_WM_STATE_HIDDEN) || state == Some(ICONIC),
            is_maximized: has(atoms._NET_WM_STATE_MAXIMIZED_HORZ) && has(atoms._NET_WM_STATE_MAXIMIZED_VERT),
            is_fullscreen: has(atoms._NET_WM_STATE_FULLSCREEN),
        }))
    }
}

/// What a window manager is asked to do with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Give it the focus; a minimized one is shown.
    Focus,
    /// Put it above the others.
    Raise,
    /// Take it off the screen.
    Minimize,
    /// Let it fill the screen.
    Maximize,
    /// Undo maximizing and full screen.
    Unmaximize,
    /// Ask its program to close it.
    Close,
    /// Move and resize it, without its frame; what is none stays.
    Place {
        /// Left edge.
        x: Option<i32>,
        /// Upper edge.
        y: Option<i32>,
        /// Pixels across.
        width: Option<u32>,
        /// Pixels down.
        height: Option<u32>,
    },
}

impl Wire {
    /// Asks the window manager for something, or does it where there is none. It is not waited for.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] without a window manager, for what only one can do.
    pub(crate) fn wish(&self, id: u32, wish: Wish) -> Result<(), Failure> {
        let atoms = self.atoms()?;
        if self.manager()?.is_none() {
            self.do_alone(id, wish, atoms)?;
            return Ok(self.x.flush()?);
        }
        match wish {
            Wish::Focus => self.message(id, atoms._NET_ACTIVE_WINDOW, [SOURCE, CURRENT_TIME, 0, 0, 0])?,
            Wish::Raise => {
                let above = u32::from(StackMode::ABOVE);
                self.message(id, atoms._NET_RESTACK_WINDOW, [SOURCE, 0, above, 0, 0])?;
            }
            Wish::Minimize => self.message(id, atoms.WM_CHANGE_STATE, [ICONIC, 0, 0, 0, 0])?,
            Wish::Maximize => self.set_maximized(id, 1, atoms)?,
            Wish::Unmaximize => {
                self.set_maximized(id, 0, atoms)?;
                self.message(id, atoms._NET_WM_STATE, [0, atoms._NET_WM_STATE_FULLSCREEN, 0, SOURCE, 0])?;
            }
            Wish::Close => self.message(id, atoms._NET_CLOSE_WINDOW, [CURRENT_TIME, SOURCE, 0, 0, 0])?,
            Wish::Place { x, y, width, height } => {
                // Static gravity: the place is that of the window itself, whatever is around it.
                let given = [x.is_some(), y.is_some(), width.is_some(), height.is_some()];
                let given =
                    given.iter().zip(8..).fold(0, |bits, (is_given, bit)| bits | u32::from(*is_given) << bit);
                let flags = 10 | given | SOURCE << 12;
                let [x, y] = [x, y].map(|at| at.unwrap_or_default().cast_unsigned());
                let [width, height] = [width, height].map(Option::unwrap_or_default);
                self.message(id, atoms._NET_MOVERESIZE_WINDOW, [flags, x, y, width, height])?;
            }
        }
        Ok(self.x.flush()?)
    }

    fn set_maximized(&self, id: u32, action: u32, atoms: &Atoms) -> Result<(), Failure> {
        let (horizontally, vertically) =
            (atoms._NET_WM_STATE_MAXIMIZED_HORZ, atoms._NET_WM_STATE_MAXIMIZED_VERT);
        self.message(id, atoms._NET_WM_STATE, [action, horizontally, vertically, SOURCE, 0])
    }

    fn message(&self, id: u32, kind: Atom, data: [u32; 5]) -> Result<(), Failure> {
        let mask = EventMask::SUBSTRUCTURE_REDIRECT | EventMask::SUBSTRUCTURE_NOTIFY;
        let event = ClientMessageEvent::new(32, id, kind, data);
        self.x.send_event(false, self.root, mask, event)?.ignore_error();
        Ok(())
    }

    fn do_alone(&self, id: u32, wish: Wish, atoms: &Atoms) -> Result<(), Failure> {
        match wish {
            Wish::Focus => {
                self.x.set_input_focus(InputFocus::POINTER_ROOT, id, CURRENT_TIME)?.ignore_error();
                let above = ConfigureWindowAux::new().stack_mode(StackMode::ABOVE);
                self.x.configure_window(id, &above)?.ignore_error();
            }
            Wish::Raise => {
                let above = ConfigureWindowAux::new().stack_mode(StackMode::ABOVE);
                self.x.configure_window(id, &above)?.ignore_error();
            }
            Wish::Close => {
                let protocols = self.property(id, atoms.WM_PROTOCOLS, AtomEnum::ATOM, ATOMS)?.reply()?;
                if numbers(&protocols).contains(&atoms.WM_DELETE_WINDOW) {
                    let data = [atoms.WM_DELETE_WINDOW, CURRENT_TIME, 0, 0, 0];
                    let event = ClientMessageEvent::new(32, id, atoms.WM_PROTOCOLS, data);
                    self.x.send_event(false, id, EventMask::NO_EVENT, event)?.ignore_error();
                } else {
                    self.x.kill_client(id)?.ignore_error();
                }
            }
            Wish::Place { x, y, width, height } => {
                let place = ConfigureWindowAux { x, y, width, height, ..ConfigureWindowAux::default() };
                self.x.configure_window(id, &place)?.ignore_error();
            }
            Wish::Minimize | Wish::Maximize | Wish::Unmaximize => {
                let message = "no window manager runs that could do this";
                return Err(Error::new(ErrorKind::Conflict, message).into());
            }
        }
        Ok(())
    }

    /// Has the server tell of what happens to one window. False when there is no such window.
    pub(crate) fn follow(&self, id: u32) -> Result<bool, Failure> {
        let mask = EventMask::PROPERTY_CHANGE | EventMask::STRUCTURE_NOTIFY;
        let change = ChangeWindowAttributesAux::new().event_mask(mask);
        Ok(still_there(self.check(self.x.change_window_attributes(id, &change)?))?.is_some())
    }
}

/// A reply about a window that may have gone meanwhile.
fn still_there<T>(reply: Result<T, ReplyError>) -> Result<Option<T>, Failure> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(ReplyError::X11Error(_)) => Ok(None),
        Err(error @ ReplyError::ConnectionError(_)) => Err(error.into()),
    }
}

fn numbers(reply: &GetPropertyReply) -> Vec<u32> {
    reply.value32().map(Iterator::collect).unwrap_or_default()
}

fn number(reply: &GetPropertyReply) -> Option<u32> {
    reply.value32()?.next().filter(|number| *number != 0)
}

/// Text of a property: UTF-8 where it says so or is; else Latin-1, as STRING is (ICCCM 2.7.1).
fn text(reply: &GetPropertyReply, atoms: &Atoms) -> String {
    match std::str::from_utf8(&reply.value) {
        Ok(text) => text.to_owned(),
        Err(_) if reply.type_ == atoms.UTF8_STRING => String::from_utf8_lossy(&reply.value).into_owned(),
        Err(_) => reply.value.iter().map(|byte| char::from(*byte)).collect(),
    }
}

fn kind_name(kind: Atom, atoms: &Atoms) -> Option<&'static str> {
    let kinds = [
        (atoms._NET_WM_WINDOW_TYPE_NORMAL, "normal"),
        (atoms._NET_WM_WINDOW_TYPE_DIALOG, "dialog"),
        (atoms._NET_WM_WINDOW_TYPE_DOCK, "dock"),
        (atoms._NET_WM_WINDOW_TYPE_DESKTOP, "desktop"),
        (atoms._NET_WM_WINDOW_TYPE_UTILITY, "utility"),
        (atoms._NET_WM_WINDOW_TYPE_TOOLBAR, "toolbar"),
        (atoms._NET_WM_WINDOW_TYPE_MENU, "menu"),
        (atoms._NET_WM_WINDOW_TYPE_SPLASH, "splash"),
        (atoms._NET_WM_WINDOW_TYPE_DROPDOWN_MENU, "dropdown_menu"),
        (atoms._NET_WM_WINDOW_TYPE_POPUP_MENU, "popup_menu"),
        (atoms._NET_WM_WINDOW_TYPE_TOOLTIP, "tooltip"),
        (atoms._NET_WM_WINDOW_TYPE_NOTIFICATION, "notification"),
        (atoms._NET_WM_WINDOW_TYPE_COMBO, "combo"),
        (atoms._NET_WM_WINDOW_TYPE_DND, "dnd"),
    ];
    kinds.iter().find(|(atom, _)| *atom == kind).map(|(_, name)| *name)
}
