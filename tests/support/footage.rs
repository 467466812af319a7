//! What a guest's camera and microphone give: one even colour and a beeping tone, as files for the browser.

use std::f64::consts::TAU;
use std::io::Write;

use tempfile::TempDir;

use super::browser::Capture;

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const RATE: u32 = 48_000;

/// The two files; they go with the value.
pub struct Footage {
    dir: TempDir,
}

impl Footage {
    /// A picture of one colour (red, green, blue) and a tone of `hertz`, on for 0.3 s and off for 0.2 s: the browser's noise
    /// suppression takes a tone that never ends for a fan.
    pub fn new(colour: [u8; 3], hertz: f64) -> Self {
        let footage = Self { dir: tempfile::tempdir().expect("a directory") };
        let file = |name| std::fs::File::create(footage.dir.path().join(name)).expect("a file");
        write_y4m(file("picture.y4m"), colour).expect("write the pictures");
        write_wav(file("sound.wav"), hertz).expect("write the sound");
        footage
    }

    /// For the start of the browser.
    pub fn capture(&self) -> Capture {
        Capture::Files(self.dir.path().join("picture.y4m"), self.dir.path().join("sound.wav"))
    }
}

fn write_y4m(mut file: impl Write, colour: [u8; 3]) -> std::io::Result<()> {
    let [y, cb, cr] = bt601(colour.map(f64::from));
    let mut frame = vec![y; WIDTH * HEIGHT];
    frame.resize(WIDTH * HEIGHT * 5 / 4, cb);
    frame.resize(WIDTH * HEIGHT * 3 / 2, cr);
    writeln!(file, "YUV4MPEG2 W{WIDTH} H{HEIGHT} F30:1 Ip A1:1 C420jpeg")?;
    for _ in 0..5 {
        file.write_all(b"FRAME\n")?;
        file.write_all(&frame)?;
    }
    Ok(())
}

/// Studio range, ITU-R BT.601: what a browser takes the samples of a camera of this size for.
fn bt601([r, g, b]: [f64; 3]) -> [u8; 3] {
    [
        16.0 + (65.481 * r + 128.553 * g + 24.966 * b) / 255.0,
        128.0 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255.0,
        128.0 + (112.0 * r - 93.786 * g - 18.214 * b) / 255.0,
    ]
    .map(|value| value.round() as u8)
}

fn write_wav(mut file: impl Write, hertz: f64) -> std::io::Result<()> {
    let samples: Vec<u8> = (0..RATE)
        .flat_map(|n| {
            let t = f64::from(n) / f64::from(RATE);
            let on = t % 0.5 < 0.3;
            let value = if on { (TAU * hertz * t).sin() * 16_000.0 } else { 0.0 };
            (value as i16).to_le_bytes()
        })
        .collect();
    let size = samples.len() as u32;
    file.write_all(b"RIFF")?;
    file.write_all(&(36 + size).to_le_bytes())?;
    file.write_all(b"WAVEfmt ")?;
    file.write_all(&16u32.to_le_bytes())?;
    // PCM, one channel, 16 bits.
    file.write_all(&1u16.to_le_bytes())?;
    file.write_all(&1u16.to_le_bytes())?;
    file.write_all(&RATE.to_le_bytes())?;
    file.write_all(&(RATE * 2).to_le_bytes())?;
    file.write_all(&2u16.to_le_bytes())?;
    file.write_all(&16u16.to_le_bytes())?;
    file.write_all(b"data")?;
    file.write_all(&size.to_le_bytes())?;
    file.write_all(&samples)
}
