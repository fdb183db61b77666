//! JSON of mouse and keyboard (contract `computer-use.md` 3, 4).
//!
//! Members that the contract does not have are ours, and optional: `coordinateSpace`, `relative`, `durationMs`,
//! `holdMs`, `path`, `tabs`, `method`, `pasteKeys`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mouse::{Button, Direction, Space};
use super::{Action, Outcome, Point, keyboard, keys, mouse};
use crate::desktop::body::whole;
use crate::error::{Error, Result};

/// Most notches of one request.
const NOTCHES: i32 = 1000;
/// Most clicks of one request.
const CLICKS: i32 = 10;
/// Longest time that one request moves or holds, in milliseconds.
const LONGEST_MS: i32 = 60_000;
/// Most points of a path.
const POINTS: usize = 10_000;
/// Time of a drag that names none: programs have to see where it goes.
const DRAG_MS: i32 = 200;
/// Time that a drag that names none rests at its ends: what is dragged has to be picked up, and its target found.
const DRAG_HOLD_MS: i32 = 50;

/// A place, in pixels from the upper left corner of the screen.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(in crate::desktop) struct Position {
    /// To the right.
    #[serde(default, deserialize_with = "required")]
    x: i32,
    /// Down.
    #[serde(default, deserialize_with = "required")]
    y: i32,
}

fn required<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    Ok(whole(deserializer)?.unwrap_or_default())
}

impl From<Point> for Position {
    fn from(Point { x, y }: Point) -> Self {
        Self { x, y }
    }
}

impl From<Position> for Point {
    fn from(Position { x, y }: Position) -> Self {
        Self { x, y }
    }
}

/// Whether the wheel was turned.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::desktop) struct Scrolled {
    pub(super) success: bool,
}

/// Size that the first display has for the caller, as a picture made smaller for a model has it. Coordinates of the
/// request and of its reply are converted.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub(in crate::desktop) struct CoordinateSpace {
    /// Pixels across; at least 1.
    #[schema(minimum = 1)]
    width: u32,
    /// Pixels down; at least 1.
    #[schema(minimum = 1)]
    height: u32,
}

impl CoordinateSpace {
    fn check(self) -> Result<Space> {
        let Self { width, height } = self;
        if width == 0 || height == 0 {
            return Err(Error::invalid("coordinateSpace must be 1 by 1 at least"));
        }
        Ok(Space { width, height })
    }
}

fn space(given: Option<CoordinateSpace>) -> Result<Option<Space>> {
    given.map(CoordinateSpace::check).transpose()
}

fn time(name: &str, given: Option<i32>, default: i32) -> Result<Duration> {
    let milliseconds = given.unwrap_or(default);
    if !(0..=LONGEST_MS).contains(&milliseconds) {
        return Err(Error::invalid(format!("{name} must be from 0 to {LONGEST_MS}, not {milliseconds}")));
    }
    Ok(Duration::from_millis(milliseconds.unsigned_abs().into()))
}

fn names(given: &Option<Vec<String>>) -> impl Iterator<Item = &str> {
    given.iter().flatten().map(String::as_str)
}

/// Where to move the pointer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MouseMoveRequest)]
pub(in crate::desktop) struct MoveRequest {
    /// To the right; what lies outside of the screen is moved to its edge.
    #[serde(default, deserialize_with = "whole")]
    x: Option<i32>,
    /// Down.
    #[serde(default, deserialize_with = "whole")]
    y: Option<i32>,
    /// Whether `x` and `y` count from where the pointer is.
    relative: Option<bool>,
    /// Milliseconds that the movement takes, in many steps; 0, the default, is one step.
    #[serde(default, deserialize_with = "whole", alias = "durationms")]
    #[schema(minimum = 0, maximum = 60000)]
    duration_ms: Option<i32>,
    #[serde(default, alias = "coordinatespace")]
    coordinate_space: Option<CoordinateSpace>,
}

impl MoveRequest {
    fn check(self) -> Result<Action> {
        Ok(Action::Move(mouse::Move {
            to: point(self.x, self.y),
            relative: self.relative.unwrap_or_default(),
            duration: time("durationMs", self.duration_ms, 0)?,
            space: space(self.coordinate_space)?,
        }))
    }
}

fn point(x: Option<i32>, y: Option<i32>) -> Point {
    Point { x: x.unwrap_or_default(), y: y.unwrap_or_default() }
}

/// Where and what to click.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MouseClickRequest)]
pub(in crate::desktop) struct ClickRequest {
    /// To the right.
    #[serde(default, deserialize_with = "whole")]
    x: Option<i32>,
    /// Down.
    #[serde(default, deserialize_with = "whole")]
    y: Option<i32>,
    /// `left`, the default, `right`, `middle`, `back` or `forward`.
    button: Option<String>,
    /// Whether to click twice.
    double: Option<bool>,
    /// How often to click; counts more than `double`.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 10)]
    clicks: Option<i32>,
    /// Held meanwhile: `ctrl`, `alt`, `shift`, `cmd`.
    modifiers: Option<Vec<String>>,
    /// Milliseconds that the button is down.
    #[serde(default, deserialize_with = "whole", alias = "holdms")]
    #[schema(minimum = 0, maximum = 60000)]
    hold_ms: Option<i32>,
    #[serde(default, alias = "coordinatespace")]
    coordinate_space: Option<CoordinateSpace>,
}

impl ClickRequest {
    fn check(self) -> Result<Action> {
        let clicks = self.clicks.unwrap_or(if self.double.unwrap_or_default() { 2 } else { 1 });
        if !(1..=CLICKS).contains(&clicks) {
            return Err(Error::invalid(format!("clicks must be from 1 to {CLICKS}, not {clicks}")));
        }
        Ok(Action::Click(mouse::Click {
            at: point(self.x, self.y),
            button: Button::named(&self.button.unwrap_or_default())?,
            clicks: clicks.unsigned_abs(),
            modifiers: keys::modifiers(names(&self.modifiers))?,
            hold: time("holdMs", self.hold_ms, 0)?,
            space: space(self.coordinate_space)?,
        }))
    }
}

/// What to drag where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MouseDragRequest)]
pub(in crate::desktop) struct DragRequest {
    /// Start, to the right.
    #[serde(default, deserialize_with = "whole", alias = "startx")]
    start_x: Option<i32>,
    /// Start, down.
    #[serde(default, deserialize_with = "whole", alias = "starty")]
    start_y: Option<i32>,
    /// End, to the right.
    #[serde(default, deserialize_with = "whole", alias = "endx")]
    end_x: Option<i32>,
    /// End, down.
    #[serde(default, deserialize_with = "whole", alias = "endy")]
    end_y: Option<i32>,
    /// As of a click.
    button: Option<String>,
    /// As of a click.
    modifiers: Option<Vec<String>>,
    /// Points to pass between start and end, 10,000 at most.
    path: Option<Vec<Position>>,
    /// Milliseconds from start to end; 200 by default.
    #[serde(default, deserialize_with = "whole", alias = "durationms")]
    #[schema(minimum = 0, maximum = 60000)]
    duration_ms: Option<i32>,
    /// Milliseconds that the pointer rests at start and at end; 50 by default.
    #[serde(default, deserialize_with = "whole", alias = "holdms")]
    #[schema(minimum = 0, maximum = 60000)]
    hold_ms: Option<i32>,
    #[serde(default, alias = "coordinatespace")]
    coordinate_space: Option<CoordinateSpace>,
}

impl DragRequest {
    fn check(self) -> Result<Action> {
        let between = self.path.unwrap_or_default();
        if between.len() > POINTS {
            return Err(Error::invalid(format!("path has {} points: {POINTS} at most", between.len())));
        }
        let (start, end) = (point(self.start_x, self.start_y), point(self.end_x, self.end_y));
        Ok(Action::Drag(mouse::Drag {
            path: [start].into_iter().chain(between.into_iter().map(Point::from)).chain([end]).collect(),
            button: Button::named(&self.button.unwrap_or_default())?,
            modifiers: keys::modifiers(names(&self.modifiers))?,
            duration: time("durationMs", self.duration_ms, DRAG_MS)?,
            hold: time("holdMs", self.hold_ms, DRAG_HOLD_MS)?,
            space: space(self.coordinate_space)?,
        }))
    }
}

/// Where and how far to turn the wheel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MouseScrollRequest)]
pub(in crate::desktop) struct ScrollRequest {
    /// To the right.
    #[serde(default, deserialize_with = "whole")]
    x: Option<i32>,
    /// Down.
    #[serde(default, deserialize_with = "whole")]
    y: Option<i32>,
    /// `up`, `down`, `left` or `right`.
    #[schema(required)]
    direction: Option<String>,
    /// Notches; 1 by default and for 0.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 1000)]
    amount: Option<i32>,
    /// As of a click.
    modifiers: Option<Vec<String>>,
    #[serde(default, alias = "coordinatespace")]
    coordinate_space: Option<CoordinateSpace>,
}

impl ScrollRequest {
    fn check(self) -> Result<Action> {
        let direction = Direction::named(&self.direction.unwrap_or_default())?;
        let amount = self.amount.unwrap_or_default();
        if !(0..=NOTCHES).contains(&amount) {
            return Err(Error::invalid(format!("amount must be from 0 to {NOTCHES}, not {amount}")));
        }
        Ok(Action::Scroll(mouse::Scroll {
            at: point(self.x, self.y),
            direction,
            amount: amount.max(1).unsigned_abs(),
            modifiers: keys::modifiers(names(&self.modifiers))?,
            space: space(self.coordinate_space)?,
        }))
    }
}

/// Which button, and where to go first.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MouseButtonRequest)]
pub(in crate::desktop) struct ButtonRequest {
    /// To the right; together with `y`, or neither.
    #[serde(default, deserialize_with = "whole")]
    x: Option<i32>,
    /// Down.
    #[serde(default, deserialize_with = "whole")]
    y: Option<i32>,
    /// As of a click.
    button: Option<String>,
    #[serde(default, alias = "coordinatespace")]
    coordinate_space: Option<CoordinateSpace>,
}

impl ButtonRequest {
    fn check(self, down: bool) -> Result<Action> {
        let at = match (self.x, self.y) {
            (None, None) => None,
            (Some(x), Some(y)) => Some(Point { x, y }),
            _ => return Err(Error::invalid("x and y come together, or neither")),
        };
        Ok(Action::Button(mouse::Hold {
            at,
            button: Button::named(&self.button.unwrap_or_default())?,
            down,
            space: space(self.coordinate_space)?,
        }))
    }
}

/// Text to type.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KeyboardTypeRequest)]
pub(in crate::desktop) struct TypeRequest {
    /// Any characters but control characters; line ends are Enter. 100,000 characters at most.
    #[serde(default)]
    text: String,
    /// Milliseconds to wait after each character; none by default. The whole takes five minutes at most.
    #[serde(default, deserialize_with = "whole")]
    delay: Option<i32>,
    /// Whether tabs in the text are typed as Tab; refused otherwise.
    tabs: Option<bool>,
    /// `keys`, the default; `paste` through the clipboard, which is put back; `auto` pastes what would take long to type
    /// and types it when no program takes it.
    method: Option<String>,
    /// What makes the program paste; `ctrl+v` by default.
    #[serde(default, rename = "pasteKeys", alias = "pastekeys")]
    #[schema(example = "ctrl+shift+v")]
    paste_keys: Option<String>,
}

impl TypeRequest {
    fn check(self) -> Result<Action> {
        let delay = Duration::from_millis(self.delay.unwrap_or_default().max(0).unsigned_abs().into());
        let text = keyboard::Text::new(&self.text, delay, self.tabs.unwrap_or_default())?;
        let chord = keys::hotkey(self.paste_keys.as_deref().unwrap_or("ctrl+v"))?;
        Ok(Action::Type(match self.method.as_deref() {
            None | Some("keys") => text,
            Some("paste") => text.pasted(self.text, chord, false),
            Some("auto") => text.pasted(self.text, chord, true),
            Some(other) => {
                return Err(Error::invalid(format!("method must be keys, paste or auto, not {other:?}")));
            }
        }))
    }
}

/// A key, with modifiers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KeyboardPressRequest)]
pub(in crate::desktop) struct KeyRequest {
    /// A letter, digit or punctuation mark, a name as `enter` or `f5`, or an X keysym name.
    #[serde(default)]
    key: String,
    /// `ctrl`, `alt`, `shift`, `cmd`.
    modifiers: Option<Vec<String>>,
    /// Milliseconds that the key is down.
    #[serde(default, deserialize_with = "whole", alias = "holdms")]
    #[schema(minimum = 0, maximum = 60000)]
    hold_ms: Option<i32>,
}

impl KeyRequest {
    fn check(self) -> Result<Action> {
        let hold = time("holdMs", self.hold_ms, 0)?;
        let (symbol, modifiers) = keys::chord(&self.key, names(&self.modifiers))?;
        Ok(Action::Key(keyboard::Chord { symbol, modifiers, hold }))
    }
}

/// A chord as one text.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KeyboardHotkeyRequest)]
pub(in crate::desktop) struct HotkeyRequest {
    /// Modifiers and one key, with `+` between.
    #[serde(default)]
    #[schema(example = "ctrl+shift+t")]
    keys: String,
}

impl HotkeyRequest {
    fn check(self) -> Result<Action> {
        let (symbol, modifiers) = keys::hotkey(&self.keys)?;
        Ok(Action::Key(keyboard::Chord { symbol, modifiers, hold: Duration::ZERO }))
    }
}

/// A key to hold or to release.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KeyboardHoldRequest)]
pub(in crate::desktop) struct HoldRequest {
    /// As of a key press.
    #[serde(default)]
    key: String,
}

impl HoldRequest {
    fn check(self, down: bool) -> Result<Action> {
        let symbol = keys::key(&self.key)?;
        Ok(Action::Hold(keyboard::Hold { name: self.key, symbol, down }))
    }
}

/// One thing to do, as the request of its own endpoint has it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(in crate::desktop) enum ActionRequest {
    /// `/computeruse/mouse/move`
    Move(MoveRequest),
    /// `/computeruse/mouse/click`
    Click(ClickRequest),
    /// `/computeruse/mouse/drag`
    Drag(DragRequest),
    /// `/computeruse/mouse/scroll`
    Scroll(ScrollRequest),
    /// `/computeruse/mouse/down`
    MouseDown(ButtonRequest),
    /// `/computeruse/mouse/up`
    MouseUp(ButtonRequest),
    /// `/computeruse/keyboard/type`
    Type(TypeRequest),
    /// `/computeruse/keyboard/key`
    Key(KeyRequest),
    /// `/computeruse/keyboard/hotkey`
    Hotkey(HotkeyRequest),
    /// `/computeruse/keyboard/down`
    KeyDown(HoldRequest),
    /// `/computeruse/keyboard/up`
    KeyUp(HoldRequest),
}

impl ActionRequest {
    /// Checks what can be checked without a screen.
    ///
    /// # Errors
    /// Names the member that does not fit.
    pub(in crate::desktop) fn check(self) -> Result<Action> {
        match self {
            Self::Move(request) => request.check(),
            Self::Click(request) => request.check(),
            Self::Drag(request) => request.check(),
            Self::Scroll(request) => request.check(),
            Self::MouseDown(request) => request.check(true),
            Self::MouseUp(request) => request.check(false),
            Self::Type(request) => request.check(),
            Self::Key(request) => request.check(),
            Self::Hotkey(request) => request.check(),
            Self::KeyDown(request) => request.check(true),
            Self::KeyUp(request) => request.check(false),
        }
    }
}

/// What an action replies.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::desktop) enum OutcomeReply {
    At(Position),
    Scrolled(Scrolled),
    Done(crate::desktop::body::Empty),
}

impl From<Outcome> for OutcomeReply {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::At(point) => Self::At(point.into()),
            Outcome::Scrolled => Self::Scrolled(Scrolled { success: true }),
            Outcome::Done => Self::Done(crate::desktop::body::Empty {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desktop::body::read;

    fn checked(kind: &str, members: &str) -> Result<Action> {
        read::<ActionRequest>(format!("{{\"type\":\"{kind}\"{members}}}").as_bytes())?.check()
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (kind, members, message) in [
            ("click", ",\"clicks\":0", "clicks must be from 1 to 10, not 0"),
            ("click", ",\"clicks\":11", "clicks"),
            ("click", ",\"button\":\"wheel\"", "unknown button \"wheel\""),
            ("click", ",\"modifiers\":[\"c\"]", "unknown modifier \"c\""),
            ("scroll", ",\"direction\":\"\"", "unknown direction \"\""),
            ("scroll", ",\"direction\":\"up\",\"amount\":-1", "amount must be from 0 to 1000, not -1"),
            ("scroll", ",\"direction\":\"up\",\"amount\":1001", "amount"),
            ("mouseDown", ",\"x\":1", "x and y come together"),
            ("drag", ",\"durationMs\":60001", "durationMs"),
            ("move", ",\"coordinateSpace\":{\"width\":0,\"height\":1}", "coordinateSpace"),
            ("keyDown", "", "empty key token"),
        ] {
            let error = checked(kind, members).unwrap_err().to_string();
            assert!(error.starts_with(message), "{kind}: {error}");
        }
    }

    #[test]
    fn what_is_missing_has_its_default() {
        let Action::Click(click) = checked("click", "").unwrap() else { panic!() };
        assert_eq!((click.at, click.clicks), (Point { x: 0, y: 0 }, 1));
        let Action::Click(click) = checked("click", ",\"double\":true,\"modifiers\":null").unwrap() else {
            panic!()
        };
        assert_eq!(click.clicks, 2);
        let Action::Scroll(scroll) = checked("scroll", ",\"direction\":\" Left\",\"amount\":0").unwrap()
        else {
            panic!()
        };
        assert_eq!(scroll.amount, 1);
        assert!(checked("type", ",\"text\":\"\",\"delay\":-5").is_ok());
    }
}
