//! Processor time of the mixer for each programme frame, against a bare GStreamer compositor and against voctocore.
//!
//! The scope is the same on all sides: four 720p inputs, one composed picture thirty times a second, sources and encoder
//! outside. Ours and the bare compositor are handed still pictures by reference; voctocore takes its inputs by TCP, from
//! processes whose time is not counted, because that is its only way in.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peers::{PATIENCE, beside};
use crate::process::Process;
use crate::table::{Row, Target, Unit, median};

const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(4);
/// Nothing is counted before the pictures have flowed for this long.
const WARM: Duration = Duration::from_secs(1);
const FRAME_BYTES: f64 = 1280.0 * 720.0 * 1.5;
const CAPS: &str = "video/x-raw,format=I420,width=1280,height=720,framerate=30/1,pixel-aspect-ratio=1/1,\
    interlace-mode=progressive,colorimetry=bt709,chroma-site=mpeg2";
/// voctocore's ports are constants in its source: control, output, and one for each source.
const CONTROL: u16 = 9999;
const OUTPUT: u16 = 11000;
const SOURCES: [u16; 4] = [10000, 10001, 10002, 10003];

/// One scene in the words of all three.
struct Scene {
    name: &'static str,
    ours: &'static str,
    /// Properties of the bare compositor's four pads.
    pads: [&'static str; 4],
    /// Composite mode, where voctocore has the scene.
    voctocore: Option<&'static str>,
}

const SCENES: [Scene; 3] = [
    Scene {
        name: "one camera full",
        ours: "full-cam1",
        pads: ["zorder=4", "zorder=1", "zorder=2", "zorder=3"],
        voctocore: Some("fullscreen"),
    },
    Scene {
        name: "two side by side",
        ours: "two-up",
        pads: ["xpos=0 ypos=180 width=640 height=360", "xpos=640 ypos=180 width=640 height=360", "alpha=0", "alpha=0"],
        voctocore: Some("side_by_side_equal"),
    },
    Scene {
        name: "four in quarters",
        ours: "quad",
        pads: [
            "width=640 height=360",
            "xpos=640 width=640 height=360",
            "ypos=360 width=640 height=360",
            "xpos=640 ypos=360 width=640 height=360",
        ],
        voctocore: None,
    },
];

/// The rows of this room.
pub async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for scene in &SCENES {
        let (mut ours, mut bare, mut vocto) = (Vec::new(), Ok(Vec::new()), Ok(Vec::new()));
        let mut failed = None;
        for _ in 0..ROUNDS {
            match self::ours(scene).await {
                Ok(figure) => ours.push(figure),
                Err(error) => failed = Some(format!("{error:#}")),
            }
            add(&mut bare, self::bare(scene).await);
            if let Some(mode) = scene.voctocore {
                add(&mut vocto, voctocore(mode).await);
            }
        }
        let what = |whom: &str| format!("processor time a programme frame, {}: {whom}", scene.name);
        let Some(figure) = median(&ours).filter(|_| failed.is_none()) else {
            rows.push(Row::missing(what("mixer"), failed.unwrap_or_default()));
            continue;
        };
        let row = |whom, other: Result<Vec<f64>, String>| {
            let other = other.and_then(|values| median(&values).ok_or_else(|| "no figure".to_owned()));
            Row::new(what("mixer"), Unit::Ms, figure).against(whom, other)
        };
        rows.push(row("gst-launch compositor", bare));
        if scene.voctocore.is_some() {
            rows.push(row("voctocore", vocto).target(Target::RatioAtMost(0.8)));
        }
    }
    rows
}

/// Once there is a reason, it stays: a median of fewer rounds would look like a full one.
fn add(figures: &mut Result<Vec<f64>, String>, figure: Result<f64>) {
    match (figures.as_mut(), figure) {
        (Ok(values), Ok(value)) => values.push(value),
        (Ok(_), Err(error)) => *figures = Err(format!("{error:#}")),
        (Err(_), _) => {}
    }
}

/// Milliseconds of processor time a frame.
async fn ours(scene: &Scene) -> Result<f64> {
    let mut command = Command::new(beside("mixer_load")?);
    command.args([scene.ours, &WINDOW.as_secs().to_string(), "4"]);
    let mut process = Process::start("mixer_load", &mut command)?;
    let figure =
        |line: &str| line.strip_prefix(scene.ours)?.split(", ").nth(1)?.strip_suffix(" ms per frame")?.parse().ok();
    let since = process.started();
    Ok(process.line(since, PATIENCE, "figure", figure).await?.1)
}

async fn bare(scene: &Scene) -> Result<f64> {
    let pads =
        scene.pads.iter().enumerate().flat_map(|(n, pad)| pad.split(' ').map(move |word| format!("sink_{n}::{word}")));
    let picture = "video/x-raw,format=I420,width=1280,height=720,framerate=30/1";
    let source = |n| {
        format!(
            "videotestsrc num-buffers=1 pattern=smpte ! {picture} ! imagefreeze is-live=true ! {picture} ! mixer.sink_{n}"
        )
    };
    let launch = format!(
        "compositor name=mixer background=black {} ! {picture} ! fpsdisplaysink text-overlay=false video-sink=fakesink \
         sync=true silent=false fps-update-interval=250 {}",
        pads.collect::<Vec<_>>().join(" "),
        (0..4).map(source).collect::<Vec<_>>().join(" "),
    );
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "gst-launch-1.0", "-v"]).args(launch.split_whitespace());
    let mut process = Process::start("gst-launch", &mut command)?;
    let rendered = |line: &str| line.split("rendered: ").nth(1)?.split(',').next()?.parse::<f64>().ok();
    let since = process.started();
    process.line(since, PATIENCE, "first frames", rendered).await?;
    tokio::time::sleep(WARM).await;
    let (_, before) = process.line(Instant::now(), PATIENCE, "more frames", rendered).await?;
    let cpu = process.cpu_seconds()?;
    tokio::time::sleep(WINDOW).await;
    let (_, after) = process.line(Instant::now(), PATIENCE, "last frames", rendered).await?;
    Ok((process.cpu_seconds()? - cpu) * 1000.0 / (after - before))
}

async fn voctocore(mode: &str) -> Result<f64> {
    for port in SOURCES.into_iter().chain([CONTROL, OUTPUT]) {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port} is taken"))?;
    }
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config.ini");
    let text = format!(
        "[mix]\nvideocaps={CAPS}\naudiocaps=audio/x-raw,format=S16LE,channels=2,layout=interleaved,rate=48000\n\
         sources=cam1,cam2,cam3,cam4\n[previews]\nenabled=false\n[stream-blanker]\nenabled=false\n[mirrors]\nenabled=false\n"
    );
    std::fs::write(&config, text)?;
    let process = Process::start("voctocore", Command::new("voctocore").arg("-i").arg(&config))?;
    let mut control = connect(CONTROL).await?;
    let source = |port: u16| {
        let launch = format!(
            "videotestsrc num-buffers=1 pattern=smpte ! {CAPS} ! imagefreeze is-live=true ! {CAPS} ! matroskamux name=mux streamable=true ! \
             tcpclientsink host=127.0.0.1 port={port} audiotestsrc is-live=true wave=silence ! \
             audio/x-raw,format=S16LE,channels=2,layout=interleaved,rate=48000 ! mux."
        );
        Process::start(
            "a source of voctocore",
            Command::new("gst-launch-1.0").arg("-q").args(launch.split_whitespace()),
        )
    };
    let mut sources = SOURCES.into_iter().map(source).collect::<Result<Vec<_>>>()?;
    control.write_all(format!("set_composite_mode {mode}\n").as_bytes()).await?;
    tokio::time::sleep(WARM).await;
    let (begin, cpu) = (Instant::now(), process.cpu_seconds()?);
    tokio::time::sleep(WINDOW).await;
    let cores = (process.cpu_seconds()? - cpu) / begin.elapsed().as_secs_f64();
    // Its own rate, read from its output only afterwards: a reader costs it time.
    let fps = output_rate().await?;
    ensure!((25.0..35.0).contains(&fps), "voctocore gave {fps:.1} frames a second instead of 30");
    for source in &mut sources {
        source.is_alive()?;
    }
    Ok(cores * 1000.0 / 30.0)
}

/// Frames a second that come out of voctocore.
async fn output_rate() -> Result<f64> {
    let mut output = connect(OUTPUT).await?;
    let mut buffer = vec![0; 1 << 20];
    // What its mixer has ready comes in a burst.
    let settle = Instant::now();
    while settle.elapsed() < Duration::from_millis(500) {
        tokio::time::timeout(PATIENCE, output.read(&mut buffer)).await??;
    }
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(1) {
        let read = tokio::time::timeout(PATIENCE, output.read(&mut buffer)).await??;
        ensure!(read > 0, "voctocore closed its output");
        bytes += read;
    }
    Ok(bytes as f64 / FRAME_BYTES / begin.elapsed().as_secs_f64())
}

async fn connect(port: u16) -> Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            Ok(stream) => return Ok(stream),
            Err(error) if begin.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("voctocore's port {port}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
