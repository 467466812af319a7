//! Looks at a picture: the mean colour of a part of it.

use jpeg_decoder::{Decoder, PixelFormat};

/// A decoded picture, three bytes a pixel.
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// Decodes a JPEG; anything else fails the test.
    pub fn decode(jpeg: &[u8]) -> Self {
        let mut decoder = Decoder::new(jpeg);
        let rgb = decoder.decode().expect("a JPEG");
        let info = decoder.info().expect("its size");
        assert_eq!(info.pixel_format, PixelFormat::RGB24);
        Self { width: info.width.into(), height: info.height.into(), rgb }
    }

    /// Mean colour (red, green, blue, 0 to 255) of the rectangle given in parts of the whole (0 to 1).
    pub fn mean(&self, x: f64, y: f64, width: f64, height: f64) -> [f64; 3] {
        let span = |from: f64, size: f64, whole: usize| {
            let begin = (from * whole as f64) as usize;
            begin..(((from + size) * whole as f64) as usize).clamp(begin + 1, whole)
        };
        let mut sum = [0.0; 3];
        let mut pixels = 0.0;
        for row in span(y, height, self.height) {
            for column in span(x, width, self.width) {
                let at = (row * self.width + column) * 3;
                for (channel, total) in sum.iter_mut().enumerate() {
                    *total += f64::from(self.rgb[at + channel]);
                }
                pixels += 1.0;
            }
        }
        sum.map(|total| total / pixels)
    }
}

/// Whether two colours are alike to the eye of a lossy encoder.
pub fn alike(one: [f64; 3], other: [f64; 3]) -> bool {
    one.iter().zip(other).all(|(a, b)| (a - b).abs() < 40.0)
}
