//! Rules of pictures: what part of the screen, how small, how written.

use std::time::SystemTime;

use super::encode::{Format, encode, shrink};
use crate::desktop::Desktop;
use crate::desktop::x11::capture::{Cursor, Picture};
use crate::desktop::x11::monitors::Area;
use crate::desktop::x11::{Failure, Wire};
use crate::error::{Error, Result};
use crate::platform::blocking::Lane;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most pixels of a side of a region.
const SIDE: u32 = 16_384;
/// Most pixels of a region.
const PIXELS: u64 = 64_000_000;

/// Takes pictures, few at a time.
#[derive(Debug)]
pub(in crate::desktop) struct Camera {
    lane: Lane,
}

impl Default for Camera {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { lane: Lane::new(processors.clamp(2, 8)) }
    }
}

/// What to take a picture of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// A display by its number.
    Display(usize),
    /// All displays.
    Screen,
    /// A part of the screen, which may lie outside of it in part or all.
    Region(Area),
}

/// How the picture is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Options {
    pub(super) subject: Subject,
    pub(super) cursor: Cursor,
    pub(super) format: Format,
    /// 1 to 100; of JPEG.
    pub(super) quality: u8,
    pub(super) bounds: Bounds,
    /// The version that the caller has: the file is not made when it is still that.
    pub(super) known: Option<u64>,
}

/// How large the picture may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    /// 0.1 to 1.
    pub(super) scale: f64,
    pub(super) max_width: Option<u32>,
    pub(super) max_height: Option<u32>,
    pub(super) max_pixels: Option<u32>,
}

impl Bounds {
    /// As large as it is.
    pub(super) const NONE: Self = Self { scale: 1.0, max_width: None, max_height: None, max_pixels: None };

    /// The factor, 1 at most, and the size that it gives.
    fn fit(&self, width: usize, height: usize) -> (f64, usize, usize) {
        let (across, down) = (width as f64, height as f64);
        let limit = |most: Option<u32>, is: f64| most.map_or(1.0, |most| f64::from(most) / is);
        let factor = self
            .scale
            .min(limit(self.max_width, across))
            .min(limit(self.max_height, down))
            .min(limit(self.max_pixels, across * down).sqrt())
            .min(1.0);
        // A factor that was made to give a whole number is to give it, in spite of the last bit.
        let size = |is: f64| ((is * factor + 1e-6).floor() as usize).max(1);
        (factor, size(across), size(down))
    }
}

/// A picture taken.
#[derive(Debug)]
pub(super) struct Shot {
    /// None when the caller has it already.
    pub(super) file: Option<Vec<u8>>,
    /// Differs when the picture differs, in pixels or in how it is written.
    pub(super) version: u64,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) factor: f64,
    /// What was taken, on the screen.
    pub(super) area: Area,
    /// Where the pointer is on the screen.
    pub(super) pointer: (i32, i32),
    pub(super) taken: SystemTime,
}

/// A region of the screen.
///
/// # Errors
/// When it is empty or too large.
pub(super) fn region(x: i32, y: i32, width: i32, height: i32) -> Result<Area> {
    for (name, value) in [("width", width), ("height", height)] {
        if value <= 0 {
            return Err(Error::invalid(format!("{name} must be greater than 0, not {value}")));
        }
        if value.unsigned_abs() > SIDE {
            return Err(Error::invalid(format!("{name} must be {SIDE} at most, not {value}")));
        }
    }
    let (width, height) = (width.unsigned_abs(), height.unsigned_abs());
    if u64::from(width) * u64::from(height) > PIXELS {
        return Err(Error::invalid(format!("a region has {PIXELS} pixels at most, not {width} by {height}")));
    }
    Ok(Area { x, y, width, height })
}

/// Takes a picture; `finish` makes the reply of it on the same thread, for writing a file as text takes its time too.
///
/// # Errors
/// For a display that is not there; `Unavailable` without a screen.
pub(super) async fn take<T: Send + 'static>(
    desktop: &Desktop,
    options: Options,
    finish: impl FnOnce(Shot) -> T + Send + 'static,
) -> Result<T> {
    let connection = desktop.x11().await?;
    connection.run_in(&desktop.inner.camera.lane, move |wire| Ok(finish(shoot(wire, &options)?))).await
}

fn shoot(wire: &Wire, options: &Options) -> Result<Shot, Failure> {
    let area = match options.subject {
        Subject::Region(area) => area,
        Subject::Screen => wire.whole()?,
        Subject::Display(number) => {
            let monitors = wire.monitors()?;
            let count = monitors.len();
            monitors.get(number).copied().ok_or_else(|| {
                Error::invalid(format!("there is no display {number}: {count} in all, counted from 0"))
            })?
        }
    };
    let taken = SystemTime::now();
    let picture = wire.capture(area, options.cursor)?;
    let (factor, width, height) = options.bounds.fit(picture.width, picture.height);
    let pointer = picture.pointer;
    let version = version(&picture, options, width, height);
    let file = if options.known == Some(version) {
        None
    } else {
        let picture = shrink(picture, width, height)?;
        Some(encode(&picture, options.format, options.quality)?)
    };
    Ok(Shot { file, version, width, height, factor, area, pointer, taken })
}

/// Of the pixels before they were scaled and written, and of how they are.
fn version(picture: &Picture, options: &Options, width: usize, height: usize) -> u64 {
    let quality = if options.format == Format::Jpeg { options.quality } else { 0 };
    let how = [options.format as u64, quality.into(), picture.width as u64, width as u64, height as u64];
    let seed = xxh3_64_with_seed(&how.map(u64::to_le_bytes).concat(), 0);
    xxh3_64_with_seed(&picture.rgb, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down_and_the_tightest_bound_counts() {
        let fit = |bounds: Bounds, width, height| {
            let (_, width, height) = bounds.fit(width, height);
            (width, height)
        };
        assert_eq!(fit(Bounds { scale: 0.5, ..Bounds::NONE }, 1281, 801), (640, 400));
        assert_eq!(fit(Bounds { scale: 0.1, ..Bounds::NONE }, 5, 5), (1, 1));
        for width in 1..2000 {
            let bounds = Bounds { max_width: Some(width), ..Bounds::NONE };
            assert_eq!(fit(bounds, 1920, 1080).0, width.min(1920) as usize);
        }
        let bounds = Bounds { max_width: Some(1000), max_height: Some(500), ..Bounds::NONE };
        assert_eq!(fit(bounds, 1000, 1000), (500, 500));
        let (width, height) = fit(Bounds { max_pixels: Some(1_150_000), ..Bounds::NONE }, 1920, 1080);
        assert!(width * height <= 1_150_000 && width * height > 1_145_000);
        assert_eq!(fit(Bounds { max_width: Some(4000), ..Bounds::NONE }, 1920, 1080), (1920, 1080));
    }

    #[test]
    fn regions_have_limits() {
        assert!(region(-5, -5, 1, 1).is_ok());
        assert!(region(0, 0, 16_384, 3_906).is_ok());
        for (width, height, name) in
            [(0, 1, "width"), (1, -1, "height"), (16_385, 1, "width"), (8_001, 8_000, "pixels")]
        {
            assert!(region(0, 0, width, height).unwrap_err().to_string().contains(name));
        }
    }
}
