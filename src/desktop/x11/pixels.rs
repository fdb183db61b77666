//! What the bytes of a picture mean: from any depth and byte order to red, green and blue.

use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{self, ImageOrder, VisualClass};

use super::{Failure, Wire};

/// How the root window's pixels lie in memory.
#[derive(Debug, Clone)]
pub(super) struct Format {
    bits: usize,
    /// A row's length is a multiple of this, in bits.
    pad: usize,
    bytes_msb_first: bool,
    bits_msb_first: bool,
    colours: Colours,
}

#[derive(Debug, Clone)]
enum Colours {
    /// Where each of red, green and blue lies in a pixel.
    Channels([Channel; 3]),
    /// What each pixel value stands for.
    Table(Vec<[u8; 3]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Channel {
    shift: u32,
    bits: u32,
}

impl Channel {
    fn of(mask: u32) -> Self {
        Self { shift: mask.trailing_zeros().min(31), bits: mask.count_ones() }
    }

    fn of_pixel(self, pixel: u32) -> u8 {
        let most = (1_u64 << self.bits) - 1;
        let value = u64::from(pixel >> self.shift) & most;
        ((value * 255 + most / 2) / most.max(1)) as u8 // at most 255
    }
}

impl Format {
    /// That of the root window. Colour tables may change at any time, so that they are asked for each time.
    pub(super) fn ask(wire: &Wire) -> Result<Self, Failure> {
        let setup = wire.x.setup();
        let depth = wire.screen.root_depth;
        let format = setup.pixmap_formats.iter().find(|format| format.depth == depth);
        let format = format.ok_or_else(|| Failure::Refused(format!("depth {depth} has no format")))?;
        let visuals = wire.screen.allowed_depths.iter().flat_map(|depth| &depth.visuals);
        let visual = visuals.clone().find(|visual| visual.visual_id == wire.screen.root_visual);
        let visual = visual.ok_or_else(|| Failure::Refused("the root window has no visual".into()))?;
        let colours = match visual.class {
            VisualClass::TRUE_COLOR | VisualClass::DIRECT_COLOR => {
                Colours::Channels([visual.red_mask, visual.green_mask, visual.blue_mask].map(Channel::of))
            }
            _ => {
                let pixels: Vec<u32> = (0..visual.colormap_entries.into()).collect();
                let colours =
                    xproto::query_colors(&wire.x, wire.screen.default_colormap, &pixels)?.reply()?;
                let high = |value: u16| (value >> 8) as u8;
                let colours = colours.colors.iter();
                Colours::Table(
                    colours.map(|colour| [high(colour.red), high(colour.green), high(colour.blue)]).collect(),
                )
            }
        };
        Ok(Self {
            bits: format.bits_per_pixel.into(),
            pad: format.scanline_pad.into(),
            bytes_msb_first: setup.image_byte_order == ImageOrder::MSB_FIRST,
            bits_msb_first: setup.bitmap_format_bit_order == ImageOrder::MSB_FIRST,
            colours,
        })
    }

    /// Bytes of a row of so many pixels.
    pub(super) fn row(&self, width: usize) -> usize {
        (width * self.bits).next_multiple_of(self.pad) / 8
    }

    /// Turns a row of pixels into three bytes for each: as many as fit into `rgb`.
    pub(super) fn decode(&self, row: &[u8], rgb: &mut [u8]) {
        if self.is_bgrx() {
            // The compiler makes vector code of this shape.
            for (pixel, rgb) in row.chunks_exact(4).zip(rgb.chunks_exact_mut(3)) {
                rgb[0] = pixel[2];
                rgb[1] = pixel[1];
                rgb[2] = pixel[0];
            }
            return;
        }
        for (index, rgb) in rgb.chunks_exact_mut(3).enumerate() {
            let pixel = self.pixel(row, index);
            rgb.copy_from_slice(&match &self.colours {
                Colours::Channels(channels) => channels.map(|channel| channel.of_pixel(pixel)),
                Colours::Table(table) => table.get(pixel as usize).copied().unwrap_or_default(),
            });
        }
    }

    fn is_bgrx(&self) -> bool {
        const CHANNELS: [Channel; 3] =
            [Channel { shift: 16, bits: 8 }, Channel { shift: 8, bits: 8 }, Channel { shift: 0, bits: 8 }];
        self.bits == 32
            && !self.bytes_msb_first
            && matches!(&self.colours, Colours::Channels(channels) if *channels == CHANNELS)
    }

    fn pixel(&self, row: &[u8], index: usize) -> u32 {
        if self.bits < 8 {
            let Some(byte) = row.get(index * self.bits / 8) else { return 0 };
            let within = index * self.bits % 8;
            let first = if self.bits == 1 { self.bits_msb_first } else { self.bytes_msb_first };
            let shift = if first { 8 - self.bits - within } else { within };
            return u32::from(*byte >> shift) & ((1 << self.bits) - 1);
        }
        let size = self.bits / 8;
        let bytes = row.get(index * size..(index + 1) * size).unwrap_or_default();
        let add = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        if self.bytes_msb_first { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits: usize, bytes_msb_first: bool, masks: [u32; 3]) -> Format {
        let colours = Colours::Channels(masks.map(Channel::of));
        Format { bits, pad: 32, bytes_msb_first, bits_msb_first: bytes_msb_first, colours }
    }

    fn decoded(format: &Format, row: &[u8], pixels: usize) -> Vec<u8> {
        let mut rgb = vec![7; pixels * 3];
        format.decode(row, &mut rgb);
        rgb
    }

    #[test]
    fn every_depth_gives_red_green_and_blue() {
        let masks = [0xff_0000, 0xff00, 0xff];
        assert_eq!(decoded(&format(32, false, masks), &[3, 2, 1, 0, 6, 5, 4, 9], 2), [1, 2, 3, 4, 5, 6]);
        assert_eq!(decoded(&format(32, true, masks), &[0, 1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(decoded(&format(24, false, masks), &[3, 2, 1, 6, 5, 4], 2), [1, 2, 3, 4, 5, 6]);
        let masks = [0xf800, 0x07e0, 0x1f];
        assert_eq!(
            decoded(&format(16, false, masks), &[0, 0xf8, 0xe0, 7, 0x1f, 0], 3),
            [255, 0, 0, 0, 255, 0, 0, 0, 255]
        );
        let masks = [0x3ff0_0000, 0xf_fc00, 0x3ff];
        assert_eq!(decoded(&format(32, false, masks), &[0xff, 3, 0xf0, 0x3f], 1), [255, 0, 255]);
    }

    #[test]
    fn tables_and_single_bits_are_looked_up() {
        let table = |bits, msb| Format {
            bits,
            pad: 32,
            bytes_msb_first: msb,
            bits_msb_first: msb,
            colours: Colours::Table(vec![[0; 3], [1, 2, 3]]),
        };
        assert_eq!(decoded(&table(8, false), &[1, 0, 9], 3), [1, 2, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decoded(&table(1, false), &[0b10], 2), [0, 0, 0, 1, 2, 3]);
        assert_eq!(decoded(&table(1, true), &[0b1000_0000], 2), [1, 2, 3, 0, 0, 0]);
        assert_eq!(decoded(&table(4, true), &[0x01], 2), [0, 0, 0, 1, 2, 3]);
        assert_eq!(table(1, false).row(33), 8);
        assert_eq!(decoded(&table(8, false), &[], 1), [0, 0, 0]);
    }
}
