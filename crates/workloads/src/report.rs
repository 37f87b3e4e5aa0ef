//! Owns pictures in memory: RGBA pixels, their PNG form and their fingerprint.

use sha2::{Digest, Sha256};

use crate::Error;

/// An RGBA picture with 8 bits a channel and no padding between rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 4` bytes, rows from the top.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Decodes an 8-bit RGB or RGBA PNG file.
    pub fn from_png(png: &[u8]) -> Result<Self, Error> {
        let failed = |problem: String| Error::Png { action: "read", problem };
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(png)).read_info().map_err(|e| failed(e.to_string()))?;
        let size = reader.output_buffer_size().ok_or_else(|| failed("it is too large".into()))?;
        let mut raw = vec![0; size];
        let info = reader.next_frame(&mut raw).map_err(|e| failed(e.to_string()))?;
        raw.truncate(info.buffer_size());
        let pixels = match (info.color_type, info.bit_depth) {
            (png::ColorType::Rgba, png::BitDepth::Eight) => raw,
            (png::ColorType::Rgb, png::BitDepth::Eight) => {
                raw.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect()
            }
            (color, depth) => return Err(failed(format!("{color:?} at {depth:?} bits"))),
        };
        Ok(Self { width: info.width, height: info.height, pixels })
    }

    /// Encodes the picture as PNG.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        let failed = |e: png::EncodingError| Error::Png { action: "write", problem: e.to_string() };
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width, self.height);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(out)
    }

    /// SHA-256 of the pixels (not of the PNG file), in hexadecimal.
    pub fn sha256(&self) -> String {
        let digest = Sha256::digest(&self.pixels);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How many different colours the picture has.
    pub fn distinct_colours(&self) -> usize {
        let mut colours: Vec<[u8; 4]> = self.pixels.as_chunks::<4>().0.to_vec();
        colours.sort_unstable();
        colours.dedup();
        colours.len()
    }

    /// A rectangle of the picture; `None` if it does not lie inside.
    pub fn crop(&self, left: u32, top: u32, width: u32, height: u32) -> Option<Self> {
        if left.checked_add(width)? > self.width || top.checked_add(height)? > self.height {
            return None;
        }
        let row = |y: u32| {
            let start = ((top + y) * self.width + left) as usize * 4;
            &self.pixels[start..start + width as usize * 4]
        };
        Some(Self { width, height, pixels: (0..height).flat_map(row).copied().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn png_round_trip_keeps_every_pixel() {
        let image = Image { width: 3, height: 2, pixels: (0..24).collect() };
        assert_eq!(Image::from_png(&image.to_png().unwrap()).unwrap(), image);
        assert_eq!(image.distinct_colours(), 6);
        assert_eq!(image.crop(2, 1, 1, 1).unwrap().pixels, [20, 21, 22, 23]);
        assert_eq!(image.crop(2, 1, 2, 1), None);
    }

    #[test]
    fn a_file_that_is_no_png_is_refused_in_words() {
        let error = Image::from_png(b"GIF89a").unwrap_err().to_string();
        assert!(error.starts_with("cannot read PNG picture"), "{error}");
    }
}
