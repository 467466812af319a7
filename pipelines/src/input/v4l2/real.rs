//! The kernel's capture devices.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::ioctl::{self, DvTimings};
use super::{CaptureDevice, CaptureError};
use crate::elements::make;
use crate::error::PipelineError;
use crate::signal::{CaptureFormat, Driver, Probe, Timings};

/// Most events taken at one look.
const MOST_EVENTS: usize = 32;

/// A `/dev/video*` node, with the subdevice that knows the true signal where there is one.
pub struct RealDevice {
    node: PathBuf,
    subdev: Option<PathBuf>,
    driver: Driver,
    file: Option<File>,
    subdev_file: Option<File>,
    queried: Option<DvTimings>,
}

impl RealDevice {
    /// Nothing is opened before the first probe.
    pub fn new(node: &Path, subdev: Option<&Path>, driver: Driver) -> Self {
        Self {
            node: node.to_owned(),
            subdev: subdev.map(Path::to_owned),
            driver,
            file: None,
            subdev_file: None,
            queried: None,
        }
    }

    fn open(&mut self) -> Result<(), Errno> {
        if self.file.is_none() {
            let file = open(&self.node)?;
            // Not every driver has events; the query once a second finds changes too.
            let _ = ioctl::subscribe_source_change(file.as_fd());
            self.file = Some(file);
        }
        if let (Some(path), None) = (&self.subdev, &self.subdev_file) {
            let file = open(path)?;
            let _ = ioctl::subscribe_source_change(file.as_fd());
            self.subdev_file = Some(file);
        }
        Ok(())
    }

    /// The file that knows the true signal.
    fn knowing(&self) -> Result<&File, Errno> {
        self.subdev_file.as_ref().or(self.file.as_ref()).ok_or(Errno::ENODEV)
    }

    fn query(&mut self) -> Result<Timings, Errno> {
        self.open()?;
        let (raw, plain) = ioctl::query_timings(self.knowing()?.as_fd())?;
        self.queried = Some(raw);
        Ok(plain)
    }
}

fn open(path: &Path) -> Result<File, Errno> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    opened.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

impl CaptureDevice for RealDevice {
    fn driver(&self) -> Driver {
        self.driver
    }

    fn probe(&mut self) -> Probe {
        match self.query() {
            Ok(timings) => Probe::Timings(timings),
            Err(errno) => {
                if matches!(errno, Errno::ENODEV | Errno::ENOENT | Errno::EBADF) {
                    self.file = None;
                    self.subdev_file = None;
                }
                Probe::Errno(errno as i32)
            }
        }
    }

    fn configure(&mut self, timings: &Timings) -> Result<CaptureFormat, CaptureError> {
        let failed = |call| move |errno: Errno| CaptureError::Call { call, errno: errno as i32 };
        let raw = self.queried.ok_or_else(|| CaptureError::Unusable("configured before it was probed".into()))?;
        ioctl::set_timings(self.knowing().map_err(failed("open"))?.as_fd(), &raw).map_err(failed("S_DV_TIMINGS"))?;
        // rkcif nodes read 0x0 until the subdevice's size is read and set on the node.
        let (width, height) = match &self.subdev_file {
            Some(subdev) => ioctl::subdev_size(subdev.as_fd()).map_err(failed("subdevice G_FMT"))?,
            None => (timings.width, timings.height),
        };
        let node = self.file.as_ref().ok_or_else(|| CaptureError::Unusable("the node is not open".into()))?;
        let (code, width, height) = ioctl::set_format(node.as_fd(), width, height).map_err(failed("S_FMT"))?;
        let fourcc = code.to_le_bytes().iter().map(|byte| char::from(*byte)).collect();
        Ok(CaptureFormat { fourcc, width, height })
    }

    fn source_changed(&mut self) -> bool {
        let mut changed = false;
        for file in [&self.file, &self.subdev_file].into_iter().flatten() {
            for _ in 0..MOST_EVENTS {
                match ioctl::dequeue_event(file.as_fd()) {
                    Ok(change) => changed |= change,
                    Err(_) => break,
                }
            }
        }
        changed
    }

    fn source(&mut self, _format: &CaptureFormat) -> Result<gst::Element, PipelineError> {
        use gst::prelude::ObjectExt;
        let source = make("v4l2src")?;
        source.set_property("device", self.node.to_string_lossy().as_ref());
        source.set_property("do-timestamp", true);
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_there_and_a_file_that_is_no_node_have_their_errno() {
        let mut nowhere = RealDevice::new(Path::new("/dev/video-nowhere"), None, Driver::Generic);
        assert_eq!(nowhere.probe(), Probe::Errno(Errno::ENOENT as i32));
        let mut plain = RealDevice::new(Path::new("/dev/null"), None, Driver::Generic);
        assert_eq!(plain.probe(), Probe::Errno(Errno::ENOTTY as i32));
        assert!(!plain.source_changed());
        let timings = Timings { width: 1920, height: 1080, pixel_clock: 0, interlaced: false };
        assert!(plain.configure(&timings).is_err());
    }
}
