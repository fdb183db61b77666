//! Pictures of the screen.

use x11rb::protocol::{xfixes, xproto};

use super::monitors::Area;
use super::pixels::Format;
use super::segment::Segment;
use super::{Failure, Wire};

/// What is drawn where the pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// Nothing.
    Hidden,
    /// The pointer as it is.
    Real,
    /// A large cross.
    Cross,
}

/// A picture, three bytes for each pixel, rows without gaps.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Pixels across.
    pub(crate) width: usize,
    /// Pixels down.
    pub(crate) height: usize,
    /// Red, green, blue.
    pub(crate) rgb: Vec<u8>,
    /// Where the pointer is on the screen.
    pub(crate) pointer: (i32, i32),
}

impl Wire {
    /// What an area of the screen shows; black where it lies outside.
    pub(crate) fn capture(&self, area: Area, cursor: Cursor) -> Result<Picture, Failure> {
        // The screen may become smaller between two requests; not every time.
        match self.capture_once(area, cursor) {
            Err(Failure::Refused(_)) => self.capture_once(area, cursor),
            done => done,
        }
    }

    fn capture_once(&self, area: Area, cursor: Cursor) -> Result<Picture, Failure> {
        let geometry = xproto::get_geometry(&self.x, self.root)?;
        let pointer = xproto::query_pointer(&self.x, self.root)?;
        let real = cursor == Cursor::Real && self.has.xfixes;
        let image = real.then(|| xfixes::get_cursor_image(&self.x)).transpose()?;
        let (geometry, pointer) = (geometry.reply()?, pointer.reply()?);
        let image = image.map(|image| image.reply()).transpose()?;
        let pointer = (i32::from(pointer.root_x), i32::from(pointer.root_y));
        let (width, height) = (area.width as usize, area.height as usize);
        let mut picture = Picture { width, height, rgb: vec![0; width * height * 3], pointer };
        self.paint(&mut picture, area, (geometry.width, geometry.height))?;
        let at = (i64::from(pointer.0) - i64::from(area.x), i64::from(pointer.1) - i64::from(area.y));
        match (cursor, image) {
            (Cursor::Hidden, _) => {}
            (Cursor::Real, Some(image)) => picture.draw_image(&image, at),
            // A server that cannot tell the image can still tell the place.
            (Cursor::Real | Cursor::Cross, _) => picture.draw_cross(at),
        }
        Ok(picture)
    }

    /// Copies what of the area lies on the screen.
    fn paint(&self, picture: &mut Picture, area: Area, screen: (u16, u16)) -> Result<(), Failure> {
        let span = |start: i32, length: u32, limit: u16| {
            let (start, end) = (i64::from(start), i64::from(start) + i64::from(length));
            (start.clamp(0, limit.into()), end.clamp(0, limit.into()))
        };
        let (left, right) = span(area.x, area.width, screen.0);
        let (top, bottom) = span(area.y, area.height, screen.1);
        if left >= right || top >= bottom {
            return Ok(());
        }
        // All of them are between 0 and the size of the screen, and X coordinates have 16 bits.
        let part = (left as i16, top as i16, (right - left) as u16, (bottom - top) as u16);
        let format = Format::ask(self)?;
        let row = format.row(part.2.into());
        let indent = (left - i64::from(area.x)) as usize;
        let first = (top - i64::from(area.y)) as usize;
        let stride = picture.width * 3;
        let rows = picture.rgb.chunks_exact_mut(stride).skip(first);
        self.pixels(part, row * usize::from(part.3), |bytes| {
            for (bytes, rgb) in bytes.chunks_exact(row).zip(rows) {
                format.decode(bytes, &mut rgb[indent * 3..][..usize::from(part.2) * 3]);
            }
        })
    }

    /// Hands the bytes of a part of the screen to `read`.
    fn pixels(
        &self,
        part: (i16, i16, u16, u16),
        length: usize,
        read: impl FnOnce(&[u8]),
    ) -> Result<(), Failure> {
        if self.has.shm {
            let mut kept = self.segment.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if kept.as_ref().is_none_or(|segment| segment.size() < length) {
                if let Some(small) = kept.take() {
                    small.detach(self)?;
                }
                *kept = match Segment::attach(self, length) {
                    Err(Failure::Refused(why)) => {
                        tracing::debug!("pictures come over the socket: {why}");
                        None
                    }
                    attached => Some(attached?),
                };
            }
            if let Some(segment) = &mut *kept {
                read(segment.picture(self, part, length)?);
                return Ok(());
            }
        }
        let (x, y, width, height) = part;
        let image =
            xproto::get_image(&self.x, xproto::ImageFormat::Z_PIXMAP, self.root, x, y, width, height, !0)?
                .reply()?;
        read(&image.data);
        Ok(())
    }
}

impl Picture {
    fn pixel(&mut self, x: i64, y: i64) -> Option<&mut [u8]> {
        let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
        (x < self.width && y < self.height).then(|| {
            let start = (y * self.width + x) * 3;
            &mut self.rgb[start..start + 3]
        })
    }

    /// Draws the pointer's image with its hot spot at a place.
    fn draw_image(&mut self, image: &xfixes::GetCursorImageReply, (x, y): (i64, i64)) {
        let width = usize::from(image.width);
        let (left, top) = (x - i64::from(image.xhot), y - i64::from(image.yhot));
        for (row, pixels) in image.cursor_image.chunks_exact(width.max(1)).enumerate() {
            for (column, source) in pixels.iter().enumerate() {
                let [blue, green, red, alpha] = source.to_le_bytes();
                if let Some(pixel) = self.pixel(left + column as i64, top + row as i64) {
                    for (below, above) in pixel.iter_mut().zip([red, green, blue]) {
                        // The source is multiplied with its alpha already (XFixes).
                        let through = (u16::from(*below) * u16::from(255 - alpha) + 127) / 255;
                        *below = above.saturating_add(through as u8);
                    }
                }
            }
        }
    }

    /// Draws a cross, 41 pixels wide: black in a white outline, with a red centre.
    fn draw_cross(&mut self, (x, y): (i64, i64)) {
        let mut block = |half_width: i64, half_height: i64, colour: [u8; 3]| {
            for row in -half_height..=half_height {
                for column in -half_width..=half_width {
                    if let Some(pixel) = self.pixel(x + column, y + row) {
                        pixel.copy_from_slice(&colour);
                    }
                }
            }
        };
        block(20, 1, [255; 3]);
        block(1, 20, [255; 3]);
        block(20, 0, [0; 3]);
        block(0, 20, [0; 3]);
        block(2, 2, [255, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_is_drawn_at_its_hot_spot_and_cut_at_the_edge() {
        let mut picture = Picture { width: 4, height: 3, rgb: vec![100; 36], pointer: (0, 0) };
        let image = xfixes::GetCursorImageReply {
            width: 2,
            height: 2,
            xhot: 1,
            yhot: 1,
            cursor_image: vec![0xffff_0000, 0, 0x8000_0080, 0xff00_ff00],
            ..Default::default()
        };
        picture.draw_image(&image, (3, 1));
        assert_eq!(picture.pixel(2, 0).unwrap(), [255, 0, 0]);
        assert_eq!(picture.pixel(3, 0).unwrap(), [100, 100, 100]);
        assert_eq!(picture.pixel(2, 1).unwrap(), [50, 50, 178]);
        assert_eq!(picture.pixel(3, 1).unwrap(), [0, 255, 0]);
        picture.draw_image(&image, (0, 0)); // one of its pixels is inside
        assert_eq!(picture.pixel(0, 0).unwrap(), [0, 255, 0]);
        picture.draw_cross((1, -19));
        assert_eq!(picture.pixel(1, 1).unwrap(), [0, 0, 0]);
        assert_eq!(picture.pixel(1, 2).unwrap(), [100, 100, 100]);
    }
}
