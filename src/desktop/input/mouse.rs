//! The pointer and its buttons.

use std::time::Duration;

use tokio::time::sleep;

use super::Point;
use super::hand::Hand;
use super::keys::Modifier;
use crate::desktop::x11::monitors::Area;
use crate::desktop::x11::{Failure, Wire};
use crate::error::{Error, Result};

/// Time between two steps of a movement that takes time: more often than screens show.
const STEP: Duration = Duration::from_millis(8);
/// Time between the clicks of a double click; toolkits take up to 250 ms or more.
pub(super) const GAP: Duration = Duration::from_millis(50);
/// Steps of a drag that takes no time.
const FEWEST_STEPS: u32 = 20;

/// A button, by its X number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desktop) struct Button(u8);

impl Button {
    /// By name, without regard to case and surrounding blanks; empty is the left one.
    ///
    /// # Errors
    /// Names the value and what would do.
    pub(super) fn named(name: &str) -> Result<Self> {
        Ok(Self(match name.trim().to_ascii_lowercase().as_str() {
            "" | "left" => 1,
            "middle" => 2,
            "right" => 3,
            "back" => 8,
            "forward" => 9,
            _ => {
                let known = "left, right and middle, and back and forward";
                return Err(Error::invalid(format!("unknown button {name:?}: known are {known}")));
            }
        }))
    }
}

/// A way to turn the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desktop) struct Direction(u8);

impl Direction {
    /// By name, without regard to case and surrounding blanks.
    ///
    /// # Errors
    /// Names the value and what would do.
    pub(super) fn named(name: &str) -> Result<Self> {
        Ok(Self(match name.trim().to_ascii_lowercase().as_str() {
            "up" => 4,
            "down" => 5,
            "left" => 6,
            "right" => 7,
            _ => {
                let message = format!("unknown direction {name:?}: known are up, down, left and right");
                return Err(Error::invalid(message));
            }
        }))
    }
}

/// The size that the caller believes the first display to have, as that of a picture made smaller for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desktop) struct Space {
    /// Pixels across; at least 1.
    pub(super) width: u32,
    /// Pixels down; at least 1.
    pub(super) height: u32,
}

/// From the caller's coordinates to the screen's, and back.
#[derive(Debug, Clone, Copy)]
struct Scale {
    space: Space,
    display: Area,
}

impl Scale {
    fn of(wire: &Wire, space: Option<Space>) -> Result<Option<Self>, Failure> {
        let Some(space) = space else { return Ok(None) };
        let display = wire.monitors()?.first().copied();
        Ok(display.map(|display| Self { space, display }))
    }

    fn to_screen(self, point: Point) -> Point {
        let Self { space, display } = self;
        Point {
            x: display.x + middle(point.x, space.width, display.width),
            y: display.y + middle(point.y, space.height, display.height),
        }
    }

    fn to_space(self, point: Point) -> Point {
        let Self { space, display } = self;
        Point {
            x: middle(point.x - display.x, display.width, space.width),
            y: middle(point.y - display.y, display.height, space.height),
        }
    }
}

/// The pixel of a row of `to` that the middle of pixel `at` in a row of `from` lies in.
fn middle(at: i32, from: u32, to: u32) -> i32 {
    let at = (i64::from(at) * 2 + 1) * i64::from(to);
    let pixel = at.div_euclid(2 * i64::from(from.max(1)));
    pixel.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// Puts the pointer somewhere.
#[derive(Debug)]
pub(in crate::desktop) struct Move {
    pub(super) to: Point,
    /// Whether `to` counts from where the pointer is.
    pub(super) relative: bool,
    /// Time that it takes; none is at once.
    pub(super) duration: Duration,
    pub(super) space: Option<Space>,
}

/// Presses and releases a button.
#[derive(Debug)]
pub(in crate::desktop) struct Click {
    pub(super) at: Point,
    pub(super) button: Button,
    /// How often; at least once.
    pub(super) clicks: u32,
    pub(super) modifiers: Vec<Modifier>,
    /// Time that the button is down.
    pub(super) hold: Duration,
    pub(super) space: Option<Space>,
}

/// Moves along points while a button is down.
#[derive(Debug)]
pub(in crate::desktop) struct Drag {
    /// At least two.
    pub(super) path: Vec<Point>,
    pub(super) button: Button,
    pub(super) modifiers: Vec<Modifier>,
    /// Time of the whole movement.
    pub(super) duration: Duration,
    /// Time that the pointer rests at the start and at the end, with the button down.
    pub(super) hold: Duration,
    pub(super) space: Option<Space>,
}

/// Turns the wheel.
#[derive(Debug)]
pub(in crate::desktop) struct Scroll {
    pub(super) at: Point,
    pub(super) direction: Direction,
    /// Notches; a program makes some lines of each.
    pub(super) amount: u32,
    pub(super) modifiers: Vec<Modifier>,
    pub(super) space: Option<Space>,
}

/// Presses a button and keeps it down, or releases it.
#[derive(Debug)]
pub(in crate::desktop) struct Hold {
    /// Where to go first.
    pub(super) at: Option<Point>,
    pub(super) button: Button,
    pub(super) down: bool,
    pub(super) space: Option<Space>,
}

/// Where the pointer is, in the caller's coordinates.
pub(super) fn position(wire: &Wire, space: Option<Space>) -> Result<Point, Failure> {
    let (x, y) = wire.pointer()?;
    let at = Point { x, y };
    Ok(Scale::of(wire, space)?.map_or(at, |scale| scale.to_space(at)))
}

fn motion(wire: &Wire, to: Point, space: Option<Space>) -> Result<(), Failure> {
    let to = Scale::of(wire, space)?.map_or(to, |scale| scale.to_screen(to));
    wire.motion(to.x, to.y)
}

impl Hand<'_> {
    pub(super) async fn move_to(&mut self, action: Move) -> Result<Point> {
        let Move { to, relative, duration, space } = action;
        if duration.is_zero() && !relative {
            return self
                .run(move |wire| {
                    motion(wire, to, space)?;
                    position(wire, space)
                })
                .await;
        }
        let from = self.run(move |wire| position(wire, space)).await?;
        let to = if relative {
            Point { x: from.x.saturating_add(to.x), y: from.y.saturating_add(to.y) }
        } else {
            to
        };
        self.follow(&[from, to], duration, 1, space).await?;
        self.run(move |wire| position(wire, space)).await
    }

    pub(super) async fn click(&mut self, action: Click) -> Result<Point> {
        let Click { at, button: Button(button), clicks, modifiers, hold, space } = action;
        self.press_modifiers(&modifiers).await?;
        for click in 0..clicks {
            if click > 0 {
                sleep(GAP).await;
            }
            let first = click == 0;
            if hold.is_zero() {
                let press = move |wire: &Wire| {
                    if first {
                        motion(wire, at, space)?;
                    }
                    wire.button(button, true)?;
                    wire.button(button, false)?;
                    position(wire, space)
                };
                let position = self.run(press).await?;
                if click + 1 == clicks {
                    self.held.buttons.retain(|held| *held != button);
                    return Ok(position);
                }
                continue;
            }
            self.held.undo.buttons.push(button);
            self.run(move |wire| {
                if first {
                    motion(wire, at, space)?;
                }
                wire.button(button, true)?;
                wire.sync()
            })
            .await?;
            sleep(hold).await;
            self.release_button(button).await?;
        }
        self.run(move |wire| position(wire, space)).await
    }

    pub(super) async fn drag(&mut self, action: Drag) -> Result<Point> {
        let Drag { path, button: Button(button), modifiers, duration, hold, space } = action;
        self.press_modifiers(&modifiers).await?;
        let start = path[0];
        self.held.undo.buttons.push(button);
        self.run(move |wire| {
            motion(wire, start, space)?;
            wire.button(button, true)?;
            wire.sync()
        })
        .await?;
        sleep(hold).await;
        self.follow(&path, duration, FEWEST_STEPS, space).await?;
        sleep(hold).await;
        self.release_button(button).await?;
        self.run(move |wire| position(wire, space)).await
    }

    pub(super) async fn scroll(&mut self, action: Scroll) -> Result<()> {
        let Scroll { at, direction: Direction(button), amount, modifiers, space } = action;
        self.press_modifiers(&modifiers).await?;
        self.run(move |wire| {
            motion(wire, at, space)?;
            for _ in 0..amount {
                wire.button(button, true)?;
                wire.button(button, false)?;
            }
            wire.sync()
        })
        .await
    }

    pub(super) async fn hold_button(&mut self, action: Hold) -> Result<Point> {
        let Hold { at, button: Button(button), down, space } = action;
        let was_down = self.held.buttons.contains(&button);
        self.held.buttons.retain(|held| *held != button);
        if down {
            self.held.buttons.push(button);
        }
        self.run(move |wire| {
            if let Some(at) = at {
                motion(wire, at, space)?;
            }
            if down != was_down {
                wire.button(button, down)?;
            }
            position(wire, space)
        })
        .await
    }

    async fn release_button(&mut self, button: u8) -> Result<()> {
        self.run(move |wire| {
            wire.button(button, false)?;
            wire.sync()
        })
        .await?;
        self.held.undo.buttons.retain(|held| *held != button);
        self.held.buttons.retain(|held| *held != button);
        Ok(())
    }

    /// Moves along a path, in as many steps as the time has, and `fewest` at least.
    async fn follow(
        &mut self,
        path: &[Point],
        time: Duration,
        fewest: u32,
        space: Option<Space>,
    ) -> Result<()> {
        let steps = u32::try_from(time.as_millis() / STEP.as_millis()).unwrap_or(u32::MAX).max(fewest);
        let points = steps_along(path, steps);
        if time.is_zero() {
            return self
                .run(move |wire| {
                    points.into_iter().try_for_each(|point| motion(wire, point, space))?;
                    wire.sync()
                })
                .await;
        }
        let pause = time / u32::try_from(points.len().max(1)).unwrap_or(u32::MAX);
        for point in points {
            sleep(pause).await;
            self.run(move |wire| {
                motion(wire, point, space)?;
                wire.sync()
            })
            .await?;
        }
        Ok(())
    }
}

/// Points along a path at equal distances, every corner and the end among them; without the start.
fn steps_along(path: &[Point], steps: u32) -> Vec<Point> {
    let length = |from: &Point, to: &Point| {
        (f64::from(to.x) - f64::from(from.x)).hypot(f64::from(to.y) - f64::from(from.y))
    };
    let total: f64 = path.windows(2).map(|pair| length(&pair[0], &pair[1])).sum();
    let mut points = Vec::new();
    for pair in path.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let part = if total > 0.0 { length(&from, &to) / total } else { 0.0 };
        let count = (f64::from(steps) * part).ceil().max(1.0);
        let between = |from: i32, to: i32, at: f64| {
            (f64::from(from) + (f64::from(to) - f64::from(from)) * at).round() as i32
        };
        for step in 1..=count as u32 {
            let at = f64::from(step) / count;
            points.push(Point { x: between(from.x, to.x, at), y: between(from.y, to.y, at) });
        }
    }
    points.dedup();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(path: &[(i32, i32)]) -> Vec<Point> {
        path.iter().map(|&(x, y)| Point { x, y }).collect()
    }

    #[test]
    fn a_path_keeps_its_corners_and_ends_at_its_end() {
        let steps = steps_along(&points(&[(0, 0), (100, 0), (100, 50)]), 20);
        assert!(steps.contains(&Point { x: 100, y: 0 }));
        assert_eq!(steps.last(), Some(&Point { x: 100, y: 50 }));
        assert!((20..=22).contains(&steps.len()), "{}", steps.len());
        assert_eq!(steps_along(&points(&[(5, 5), (5, 5)]), 20), points(&[(5, 5)]));
        let far = steps_along(&points(&[(i32::MIN, 0), (i32::MAX, 0)]), 2);
        assert_eq!(far.last(), Some(&Point { x: i32::MAX, y: 0 }));
    }

    #[test]
    fn coordinates_of_a_smaller_picture_hit_the_middle_of_what_they_show() {
        let display = Area { x: 0, y: 0, width: 1280, height: 800 };
        let scale = Scale { space: Space { width: 640, height: 400 }, display };
        assert_eq!(scale.to_screen(Point { x: 0, y: 0 }), Point { x: 1, y: 1 });
        assert_eq!(scale.to_screen(Point { x: 639, y: 399 }), Point { x: 1279, y: 799 });
        for x in 0..640 {
            assert_eq!(scale.to_space(scale.to_screen(Point { x, y: 7 })), Point { x, y: 7 });
        }
        let same = Scale { space: Space { width: 1280, height: 800 }, display };
        assert_eq!(same.to_screen(Point { x: 77, y: 13 }), Point { x: 77, y: 13 });
    }

    #[test]
    fn buttons_and_directions_go_by_name() {
        assert_eq!(Button::named(" Left ").unwrap(), Button(1));
        assert_eq!(Button::named("").unwrap(), Button(1));
        assert_eq!(Button::named("FORWARD").unwrap(), Button(9));
        for name in ["center", "wheel"] {
            let message = Button::named(name).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("left, right and middle"), "{message}");
        }
        assert_eq!(Direction::named("Up ").unwrap(), Direction(4));
        assert!(Direction::named("").is_err());
    }
}
