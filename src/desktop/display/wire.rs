//! JSON of displays and windows (contract `computer-use.md` 6).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Granted, Place};
use crate::desktop::body::whole;
use crate::desktop::x11::{Area, Window};
use crate::error::{Error, Result};
use crate::http::extract::exactly_true;

/// Time for a window manager to do something, in milliseconds, when nothing is said.
const TIMEOUT_MS: u64 = 2000;
/// Longest time for it.
const LONGEST_TIMEOUT_MS: u64 = 60_000;

/// Query of displays and windows.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct DetailQuery {
    /// Adds what is known beyond the contract.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    pub(super) detail: bool,
}

/// All displays.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DisplayInfoResponse)]
pub(super) struct Displays {
    displays: Vec<Display>,
    /// With `detail`: the first display.
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_display: Option<Display>,
    /// With `detail`: how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_displays: Option<usize>,
}

/// One display; its place is that on the screen, from the first display's upper left corner.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DisplayInfo)]
pub(super) struct Display {
    id: usize,
    x: i32,
    y: i32,
    width: u32,
    height: u32,
    /// Always true.
    is_active: bool,
}

impl Displays {
    pub(super) fn new(areas: &[Area], detail: bool) -> Self {
        let (left, top) = areas.first().map_or((0, 0), |first| (first.x, first.y));
        let display = |(id, area): (usize, &Area)| Display {
            id,
            x: area.x - left,
            y: area.y - top,
            width: area.width,
            height: area.height,
            is_active: true,
        };
        let displays: Vec<Display> = areas.iter().enumerate().map(display).collect();
        Self {
            primary_display: displays.first().filter(|_| detail).cloned(),
            total_displays: detail.then_some(displays.len()),
            displays,
        }
    }
}

/// All windows, bottom to top.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WindowsResponse)]
pub(super) struct Windows {
    windows: Vec<WindowInfo>,
    /// How many there are.
    count: usize,
}

impl Windows {
    /// Windows without a title are left out, unless details are asked for.
    pub(super) fn new(windows: Vec<Window>, detail: bool) -> Self {
        let windows = windows.into_iter().filter(|window| detail || !window.title.is_empty());
        let windows: Vec<WindowInfo> = windows.map(|window| WindowInfo::new(window, detail)).collect();
        Self { count: windows.len(), windows }
    }
}

/// One window; its place is that on the screen, without what the window manager puts around it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WindowInfo)]
pub(in crate::desktop) struct WindowInfo {
    /// The X server's number for it.
    id: u32,
    title: String,
    x: i32,
    y: i32,
    width: u32,
    height: u32,
    /// It has the focus.
    is_active: bool,
    /// With `detail`.
    #[serde(flatten)]
    detail: Option<WindowDetail>,
}

/// What is known of a window beyond the contract.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::desktop) struct WindowDetail {
    /// As its program says; null when it does not.
    pid: Option<u32>,
    /// The class of its program (WM_CLASS).
    app_name: String,
    /// Number of its workspace; null when it is on all of them.
    desktop: Option<u32>,
    /// `normal`, `dialog`, `dock`, `desktop`, `utility`, `splash`, …
    #[serde(rename = "type")]
    kind: &'static str,
    minimized: bool,
    maximized: bool,
    fullscreen: bool,
    /// With what the window manager puts around it.
    frame: Rectangle,
}

/// A rectangle of the screen.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::desktop) struct Rectangle {
    x: i32,
    y: i32,
    width: u32,
    height: u32,
}

impl From<Area> for Rectangle {
    fn from(Area { x, y, width, height }: Area) -> Self {
        Self { x, y, width, height }
    }
}

impl WindowInfo {
    pub(in crate::desktop) fn new(window: Window, detail: bool) -> Self {
        let Area { x, y, width, height } = window.area;
        let detail = detail.then(|| WindowDetail {
            pid: window.pid,
            app_name: window.class,
            desktop: window.desktop,
            kind: window.kind,
            minimized: window.is_minimized,
            maximized: window.is_maximized,
            fullscreen: window.is_fullscreen,
            frame: window.frame.into(),
        });
        Self { id: window.id, title: window.title, x, y, width, height, is_active: window.is_active, detail }
    }
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimeoutQuery {
    /// Milliseconds that the window manager gets, 2000 by default, 60000 at most.
    #[serde(default)]
    #[param(required = false)]
    timeout_ms: Option<u64>,
}

impl TimeoutQuery {
    pub(super) fn limit(&self) -> Result<Duration> {
        let milliseconds = self.timeout_ms.unwrap_or(TIMEOUT_MS);
        if milliseconds > LONGEST_TIMEOUT_MS {
            return Err(Error::invalid(format!("timeoutMs must be {LONGEST_TIMEOUT_MS} at most")));
        }
        Ok(Duration::from_millis(milliseconds))
    }
}

/// What became of a window.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WindowChanged {
    /// Whether it was done within the time: a program may ask before it closes, a window may have a size of its own.
    done: bool,
    /// As it is now; null when it is closed.
    window: Option<WindowInfo>,
}

impl From<Granted> for WindowChanged {
    fn from(Granted { is_done, window }: Granted) -> Self {
        Self { done: is_done, window: window.map(|window| WindowInfo::new(window, true)) }
    }
}

/// Where a window is to be; what is missing stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PlaceWindow {
    /// Left edge on the screen.
    #[serde(default, deserialize_with = "whole")]
    x: Option<i32>,
    /// Upper edge on the screen.
    #[serde(default, deserialize_with = "whole")]
    y: Option<i32>,
    /// Pixels across.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 32767)]
    width: Option<i32>,
    /// Pixels down.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 32767)]
    height: Option<i32>,
}

impl PlaceWindow {
    pub(super) fn check(&self) -> Result<Place> {
        let within = |name: &str, value: Option<i32>, least: i32| match value {
            Some(value) if !(least..=32767).contains(&value) => {
                Err(Error::invalid(format!("{name} must be from {least} to 32767, not {value}")))
            }
            value => Ok(value),
        };
        let place = Place {
            x: within("x", self.x, -32768)?,
            y: within("y", self.y, -32768)?,
            width: within("width", self.width, 1)?.map(i32::unsigned_abs),
            height: within("height", self.height, 1)?.map(i32::unsigned_abs),
        };
        if place == Place::default() {
            return Err(Error::invalid("one of x, y, width and height is required"));
        }
        Ok(place)
    }
}

/// The size that a screen is to have.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Resize {
    /// Pixels across.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 64, maximum = 16384)]
    width: Option<i32>,
    /// Pixels down.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 64, maximum = 16384)]
    height: Option<i32>,
    /// Whether the X server may be restarted for it, which ends every program on it.
    #[serde(default)]
    pub(super) restart: bool,
}

impl Resize {
    pub(super) fn size(&self) -> Result<(u16, u16)> {
        let side = |name: &str, side: Option<i32>| match side {
            Some(side @ 64..=16384) => Ok(side.unsigned_abs() as u16),
            Some(side) => Err(Error::invalid(format!("{name} must be from 64 to 16384, not {side}"))),
            None => Err(Error::invalid(format!("{name} is required"))),
        };
        Ok((side("width", self.width)?, side("height", self.height)?))
    }
}

/// A screen of a new size.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Resized {
    width: u16,
    height: u16,
    /// The X server was restarted for it.
    restarted: bool,
}

impl From<super::Resized> for Resized {
    fn from(super::Resized { size: (width, height), is_restarted }: super::Resized) -> Self {
        Self { width, height, restarted: is_restarted }
    }
}
