//! From a picture to a file.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use jpeg_encoder::SamplingFactor;

use crate::desktop::x11::capture::Picture;
use crate::error::{Error, Result};

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// 8-bit RGB without alpha; exact.
    Png,
    /// Baseline, 4:2:0.
    Jpeg,
    /// Lossless: a third smaller than PNG, and as fast. No encoder of lossy WebP is fast enough.
    WebP,
}

impl Format {
    /// By name, without regard to case; none for any other.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpeg" | "jpg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }
}

/// The file of a picture.
///
/// # Errors
/// When the encoder refuses: no picture that was let through has been seen to do that.
pub(super) fn encode(picture: &Picture, format: Format, quality: u8) -> Result<Vec<u8>> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::internal(format!("write the picture as {}: {error}", format.name())).with_source(error)
    };
    match format {
        Format::Png => png(picture).map_err(|error| failed(error.into())),
        Format::Jpeg => jpeg(picture, quality).map_err(|error| failed(error.into())),
        Format::WebP => webp(picture).map_err(|error| failed(error.into())),
    }
}

fn png(picture: &Picture) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::with_capacity(picture.rgb.len() / 4);
    let mut encoder = png::Encoder::new(&mut file, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()?;
    Ok(file)
}

fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, jpeg_encoder::EncodingError> {
    let mut file = Vec::with_capacity(picture.rgb.len() / 8);
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let (width, height) = (picture.width as u16, picture.height as u16); // 16384 at most
    encoder.encode(&picture.rgb, width, height, jpeg_encoder::ColorType::Rgb)?;
    Ok(file)
}

fn webp(picture: &Picture) -> Result<Vec<u8>, image_webp::EncodingError> {
    let mut file = Vec::with_capacity(picture.rgb.len() / 8);
    let (width, height) = (picture.width as u32, picture.height as u32);
    image_webp::WebPEncoder::new(&mut file).encode(
        &picture.rgb,
        width,
        height,
        image_webp::ColorType::Rgb8,
    )?;
    Ok(file)
}

/// Makes a picture smaller. Each new pixel is a mean of the ones that it stands for, so that text stays readable.
///
/// # Errors
/// When the library refuses: sizes are at least 1.
pub(super) fn shrink(picture: Picture, width: usize, height: usize) -> Result<Picture> {
    if (width, height) == (picture.width, picture.height) {
        return Ok(picture);
    }
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::internal(format!("scale the picture: {error}")).with_source(error)
    };
    let Picture { rgb, pointer, .. } = picture;
    let (from_width, from_height) = (picture.width as u32, picture.height as u32);
    let from =
        TypedImageRef::<U8x3>::from_buffer(from_width, from_height, &rgb).map_err(|e| failed(e.into()))?;
    let mut smaller = vec![0; width * height * 3];
    let mut to = TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut smaller)
        .map_err(|e| failed(e.into()))?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize_typed(&from, &mut to, &options).map_err(|e| failed(e.into()))?;
    Ok(Picture { width, height, rgb: smaller, pointer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        let rgb = (0..width * height).flat_map(|at| [at as u8, (at / 7) as u8, 200]).collect();
        Picture { width, height, rgb, pointer: (0, 0) }
    }

    #[test]
    fn lossless_files_give_the_picture_back() {
        for (width, height) in [(1, 1), (33, 7), (640, 400)] {
            let picture = picture(width, height);
            let file = encode(&picture, Format::Png, 85).unwrap();
            let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
            let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut rgb).unwrap();
            assert_eq!((info.width as usize, info.height as usize), (width, height));
            assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
            assert!(rgb == picture.rgb);
            let file = encode(&picture, Format::WebP, 85).unwrap();
            let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(&file)).unwrap();
            assert_eq!(decoder.dimensions(), (width as u32, height as u32));
            let mut rgb = vec![0; decoder.output_buffer_size().unwrap()];
            decoder.read_image(&mut rgb).unwrap();
            assert!(rgb == picture.rgb);
        }
    }

    #[test]
    fn jpeg_is_baseline_with_halved_colours() {
        let file = encode(&picture(64, 48), Format::Jpeg, 85).unwrap();
        assert!(file.starts_with(&[0xff, 0xd8]) && file.ends_with(&[0xff, 0xd9]));
        let at =
            file.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("the marker of a baseline frame");
        assert_eq!(file[at + 5..at + 9], [0, 48, 0, 64]);
        assert_eq!(file[at + 11], 0x22); // the first component has two samples for each of the others, both ways
        assert!(encode(&picture(64, 48), Format::Jpeg, 10).unwrap().len() < file.len());
    }

    #[test]
    fn smaller_pictures_are_means() {
        let mut checked = Picture { width: 4, height: 2, rgb: vec![0; 24], pointer: (1, 2) };
        for at in [0, 2, 5, 7] {
            checked.rgb[at * 3..][..3].fill(255);
        }
        let half = shrink(checked, 2, 1).unwrap();
        assert_eq!((half.width, half.height, half.pointer), (2, 1, (1, 2)));
        assert!(half.rgb.iter().all(|value| (96..=160).contains(value)), "{:?}", half.rgb);
        assert_eq!(Format::named("JPG"), Some(Format::Jpeg));
        assert_eq!(Format::named("gif"), None);
    }
}
