//! Query and JSON of pictures (contract `computer-use.md` 5).
//!
//! Parameters and members that the contract does not have are ours, and optional: `display`, `cursor`, `maxWidth`,
//! `maxHeight`, `maxPixels`, `detail`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::encode::Format;
use super::service::{Bounds, Options, Shot, Subject, region};
use crate::desktop::x11::capture::Cursor;
use crate::error::{Error, Result};
use crate::http::extract::repeated;

/// Quality of JPEG when none is given.
const QUALITY: u8 = 85;

/// What every picture takes.
#[derive(Debug, IntoParams)]
#[into_params(names("showCursor", "show_cursor", "cursor", "display", "detail"), parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Parameters` reads")]
pub(super) struct Common(
    /// Whether the pointer is drawn: `true` or `false`, also as 1, t, 0, f.
    Option<bool>,
    /// The same under its older name, which counts more.
    Option<bool>,
    /// `cross` draws a large cross instead of the pointer as it is.
    Option<String>,
    /// Number of the display, or `all`; 0 by default. Regions count from the corner of the whole screen.
    Option<String>,
    /// Whether the reply tells more of the picture.
    Option<bool>,
);

/// What a region takes.
#[derive(Debug, IntoParams)]
#[into_params(names("x", "y", "width", "height"), parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Parameters` reads")]
pub(super) struct Region(
    /// Left edge; what lies outside of the screen is black.
    i32,
    /// Upper edge.
    i32,
    /// Pixels across, 1 to 16384.
    i32,
    /// Pixels down, 1 to 16384; 64 million pixels in all at most.
    i32,
);

/// What a compressed picture takes.
#[derive(Debug, IntoParams)]
#[into_params(names("format", "quality", "scale", "maxWidth", "maxHeight", "maxPixels"), parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Parameters` reads")]
pub(super) struct Compressed(
    /// `png`, the default and what anything else is taken for, `jpeg` or `webp`, which is lossless.
    Option<String>,
    /// Quality of JPEG, 1 to 100; 85 by default.
    Option<u8>,
    /// Factor, 0.1 to 1.
    Option<f64>,
    /// The picture is made small enough, as models want it; the factor is told with `detail`.
    Option<u32>,
    /// As `maxWidth`.
    Option<u32>,
    /// As `maxWidth`, of all pixels.
    Option<u32>,
);

/// The query, read in the contract's order and by its rules: names in this spelling only, and an empty value is a bad
/// one.
pub(super) struct Parameters<'a> {
    query: &'a str,
}

impl<'a> Parameters<'a> {
    pub(super) fn new(query: &'a str) -> Self {
        Self { query }
    }

    fn text(&self, name: &str) -> Option<String> {
        repeated(self.query, name).into_iter().next()
    }

    fn number<T: std::str::FromStr>(
        &self,
        name: &str,
        what: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse().ok().filter(fits) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::invalid(format!("{name} must be {what}, not {text:?}"))),
        }
    }

    fn required(&self, name: &str) -> Result<i32> {
        let number = self.number(name, "a whole number", |_| true)?;
        number.ok_or_else(|| Error::invalid(format!("{name} is required")))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
            _ => Err(Error::invalid(format!("{name} must be true or false, not {text:?}"))),
        }
    }

    /// Whether the reply tells more.
    pub(super) fn detail(&self) -> bool {
        self.text("detail").as_deref() == Some("true")
    }

    /// The options of the four endpoints. `accepted` is the format that the client wants for want of `format`; with
    /// `swapped`, the numbers of a region come in the order in which some SDKs send them.
    ///
    /// # Errors
    /// Names the parameter.
    pub(super) fn options(
        &self,
        has_region: bool,
        compressed: bool,
        accepted: Option<Format>,
        swapped: bool,
    ) -> Result<Options> {
        let subject = if has_region { self.region(swapped)? } else { Subject::Display(0) };
        let cursor = self.flag("showCursor")?;
        let cursor = self.flag("show_cursor")?.or(cursor).unwrap_or_default();
        let mut options = Options {
            subject,
            cursor: if cursor { Cursor::Real } else { Cursor::Hidden },
            format: accepted.unwrap_or(Format::Png),
            quality: QUALITY,
            bounds: Bounds::NONE,
            known: None,
        };
        if compressed {
            let within = "a whole number from 1 to 100";
            options.quality = self.number("quality", within, |q| (1..=100).contains(q))?.unwrap_or(QUALITY);
            options.bounds = self.bounds()?;
            if let Some(format) = self.text("format") {
                options.format = Format::named(&format).unwrap_or(Format::Png);
            }
        }
        match self.text("cursor").as_deref() {
            None | Some("real") => {}
            Some("cross") => options.cursor = Cursor::Cross,
            Some(other) => {
                return Err(Error::invalid(format!("cursor must be real or cross, not {other:?}")));
            }
        }
        match self.text("display").as_deref() {
            None => {}
            Some(_) if has_region => return Err(Error::invalid("display has no meaning for a region")),
            Some("all") => options.subject = Subject::Screen,
            Some(_) => {
                let number = self.number("display", "a number from 0, or all", |_| true)?;
                options.subject = Subject::Display(number.unwrap_or_default());
            }
        }
        Ok(options)
    }

    fn region(&self, swapped: bool) -> Result<Subject> {
        let names = if swapped { ["height", "width", "y", "x"] } else { ["x", "y", "width", "height"] };
        let [x, y, width, height] = names.map(|name| self.required(name));
        Ok(Subject::Region(region(x?, y?, width?, height?)?))
    }

    fn bounds(&self) -> Result<Bounds> {
        let most = |name: &str| self.number(name, "a whole number from 1", |number: &u32| *number > 0);
        Ok(Bounds {
            scale: self
                .number("scale", "a number from 0.1 to 1", |f| (0.1..=1.0).contains(f))?
                .unwrap_or(1.0),
            max_width: most("maxWidth")?,
            max_height: most("maxHeight")?,
            max_pixels: most("maxPixels")?,
        })
    }
}

/// A picture.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScreenshotResponse)]
pub(super) struct Screenshot {
    /// The file, in base64.
    #[serde(skip_serializing)] // put in front by `Screenshot::json`
    #[allow(dead_code, reason = "describes what `Screenshot::json` writes")]
    screenshot: (),
    cursor_position: Place,
    /// Bytes of the file.
    size_bytes: usize,
    #[serde(flatten)]
    detail: Option<Detail>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Place)]
struct Place {
    x: i64,
    y: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Detail {
    /// Pixels across of the picture.
    width: usize,
    /// Pixels down of the picture.
    height: usize,
    format: &'static str,
    /// Factor that the picture was made smaller by.
    scale: f64,
    /// Number of the display; none for a region and for all of them.
    display: Option<usize>,
    /// What was taken, on the screen.
    region: Rectangle,
    cursor: CursorDetail,
    /// RFC 3339.
    captured_at: String,
    /// Differs when the picture differs.
    version: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rectangle)]
struct Rectangle {
    x: i32,
    y: i32,
    width: u32,
    height: u32,
}

/// Where the pointer is.
#[derive(Debug, Serialize, ToSchema)]
struct CursorDetail {
    /// On the screen.
    screen: Place,
    /// On the picture.
    image: Place,
    /// Whether that is inside of the picture.
    inside: bool,
}

/// Which place a reply tells as `cursorPosition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// That on the screen.
    Screen,
    /// That on the picture.
    Image,
    /// The region's corner plus that on the picture, as the original has it.
    Region,
}

/// The reply's body.
pub(super) fn reply(shot: &Shot, options: &Options, told: Told, detail: bool) -> Vec<u8> {
    let file = shot.file.as_deref().unwrap_or_default();
    let (x, y) = (i64::from(shot.pointer.0), i64::from(shot.pointer.1));
    let (left, top) = (i64::from(shot.area.x), i64::from(shot.area.y));
    let scaled = |value: i64| (value as f64 * shot.factor) as i64;
    let screen = Place { x, y };
    let image = Place { x: scaled(x - left), y: scaled(y - top) };
    let rest = Screenshot {
        screenshot: (),
        cursor_position: match told {
            Told::Screen => screen,
            Told::Image => image,
            Told::Region => Place { x: left + image.x, y: top + image.y },
        },
        size_bytes: file.len(),
        detail: detail.then(|| Detail {
            width: shot.width,
            height: shot.height,
            format: options.format.name(),
            scale: shot.factor,
            display: match options.subject {
                Subject::Display(number) => Some(number),
                Subject::Screen | Subject::Region(_) => None,
            },
            region: Rectangle {
                x: shot.area.x,
                y: shot.area.y,
                width: shot.area.width,
                height: shot.area.height,
            },
            cursor: CursorDetail {
                screen,
                image,
                inside: (0..i64::from(shot.area.width)).contains(&(x - left))
                    && (0..i64::from(shot.area.height)).contains(&(y - top)),
            },
            captured_at: jiff::Timestamp::try_from(shot.taken).unwrap_or_default().to_string(),
            version: format!("{:016x}", shot.version),
        }),
    };
    rest.json(file)
}

impl Screenshot {
    /// With the file in front. Base64 has nothing to escape, so that it is written as it is: most of the reply's time
    /// would be spent on looking for that.
    fn json(&self, file: &[u8]) -> Vec<u8> {
        let mut body = String::with_capacity(file.len().div_ceil(3) * 4 + 1024);
        body.push_str("{\"screenshot\":\"");
        STANDARD.encode_string(file, &mut body);
        body.push_str("\",");
        let rest = serde_json::to_string(self).expect("numbers and text are plain JSON");
        body.push_str(rest.strip_prefix('{').expect("an object"));
        body.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str, region: bool, compressed: bool) -> Result<Options> {
        Parameters::new(query).options(region, compressed, None, false)
    }

    #[test]
    fn the_first_bad_parameter_is_named() {
        for (query, name) in [
            ("", "x is required"),
            ("x=1&X=2&Y=2", "y is required"),
            ("x=1&y=1.5&width=1&height=1", "y must be"),
            ("x=1&y=1&width=0&height=0&showCursor=maybe", "width must be"),
            ("x=1&y=1&width=1&height=1&showCursor=", "showCursor must be"),
            ("x=1&y=1&width=1&height=1&showCursor=2&quality=0", "showCursor must be"),
            ("x=1&y=1&width=1&height=1&quality=0&scale=7", "quality must be"),
            ("x=1&y=1&width=1&height=1&quality=101", "quality must be"),
            ("x=1&y=1&width=1&height=1&quality=1.5", "quality must be"),
            ("x=1&y=1&width=1&height=1&scale=0.05", "scale must be"),
            ("x=1&y=1&width=1&height=1&scale=NaN", "scale must be"),
            ("x=1&y=1&width=1&height=1&maxWidth=0", "maxWidth must be"),
            ("x=1&y=1&width=1&height=1&cursor=dot", "cursor must be"),
        ] {
            let error = options(query, true, true).unwrap_err().to_string();
            assert!(error.starts_with(name), "{query}: {error}");
        }
        assert!(options("quality=0&scale=9", false, false).is_ok());
    }

    #[test]
    fn names_and_values_mean_what_the_contract_says() {
        assert_eq!(options("showCursor=true&show_cursor=0", false, false).unwrap().cursor, Cursor::Hidden);
        assert_eq!(options("showCursor=T", false, false).unwrap().cursor, Cursor::Real);
        assert_eq!(options("cursor=cross", false, false).unwrap().cursor, Cursor::Cross);
        assert_eq!(options("format=JPG", false, true).unwrap().format, Format::Jpeg);
        assert_eq!(options("format=webp", false, true).unwrap().format, Format::WebP);
        let unknown = options("format=gif&scale=0.5", false, true).unwrap();
        assert_eq!((unknown.format, unknown.bounds.scale), (Format::Png, 0.5));
        assert_eq!(options("format=jpeg", false, false).unwrap().format, Format::Png);
        assert_eq!(options("display=all", false, false).unwrap().subject, Subject::Screen);
        assert_eq!(options("display=1", false, false).unwrap().subject, Subject::Display(1));
        assert!(options("display=-1", false, false).is_err());
    }

    #[test]
    fn a_swapped_region_is_put_right() {
        let query = Parameters::new("x=200&y=300&width=50&height=100");
        let options = query.options(true, false, None, true).unwrap();
        assert_eq!(options.subject, Subject::Region(region(100, 50, 300, 200).unwrap()));
    }
}
