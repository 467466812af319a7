//! The kernel's V4L2 calls that GStreamer's source element does not make (linux/videodev2.h, linux/v4l2-subdev.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::signal::Timings;

const CAPTURE: u32 = 1;
const CAPTURE_MPLANE: u32 = 9;
const EVENT_SOURCE_CHANGE: u32 = 5;
const SUBDEV_ACTIVE: u32 = 1;

/// `struct v4l2_dv_timings`, BT.656/1120 kind.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(super) struct DvTimings {
    kind: u32,
    width: u32,
    height: u32,
    interlaced: u32,
    polarities: u32,
    pixel_clock: u64,
    /// Porches, standards, flags and the reserved rest, carried from query to set unchanged.
    rest: [u8; 104],
}

/// `struct v4l2_format`: the union begins with width, height and pixel format in both kinds used here.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Format {
    kind: u32,
    _pad: u32,
    width: u32,
    height: u32,
    pixel_format: u32,
    rest: [u32; 47],
}

/// `struct v4l2_subdev_format`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SubdevFormat {
    which: u32,
    pad: u32,
    width: u32,
    height: u32,
    rest: [u32; 18],
}

/// `struct v4l2_event_subscription`.
#[repr(C)]
struct Subscription {
    kind: u32,
    rest: [u32; 7],
}

/// `struct v4l2_event`.
#[repr(C, align(8))]
struct Event {
    kind: u32,
    rest: [u32; 33],
}

const _: () = {
    assert!(size_of::<DvTimings>() == 132);
    assert!(size_of::<Format>() == 208);
    assert!(size_of::<SubdevFormat>() == 88);
    assert!(size_of::<Subscription>() == 32);
    assert!(size_of::<Event>() == 136);
};

mod raw {
    use super::{DvTimings, Event, Format, SubdevFormat, Subscription};
    nix::ioctl_readwrite!(get_format, b'V', 4, Format);
    nix::ioctl_readwrite!(set_format, b'V', 5, Format);
    nix::ioctl_readwrite!(subdev_get_format, b'V', 4, SubdevFormat);
    nix::ioctl_readwrite!(set_timings, b'V', 87, DvTimings);
    nix::ioctl_read!(dequeue_event, b'V', 89, Event);
    nix::ioctl_write_ptr!(subscribe_event, b'V', 90, Subscription);
    nix::ioctl_read!(query_timings, b'V', 99, DvTimings);
}

/// QUERY_DV_TIMINGS, on a node or its subdevice (the numbers are the same).
pub(super) fn query_timings(fd: BorrowedFd<'_>) -> Result<(DvTimings, Timings), Errno> {
    let mut timings =
        DvTimings { kind: 0, width: 0, height: 0, interlaced: 0, polarities: 0, pixel_clock: 0, rest: [0; 104] };
    // SAFETY: the file is open and the structure has the kernel's size and layout.
    unsafe { raw::query_timings(fd.as_raw_fd(), &mut timings) }?;
    let plain = Timings {
        width: timings.width,
        height: timings.height,
        pixel_clock: timings.pixel_clock,
        interlaced: timings.interlaced != 0,
    };
    Ok((timings, plain))
}

/// S_DV_TIMINGS.
pub(super) fn set_timings(fd: BorrowedFd<'_>, timings: &DvTimings) -> Result<(), Errno> {
    let mut timings = *timings;
    // SAFETY: as above.
    unsafe { raw::set_timings(fd.as_raw_fd(), &mut timings) }.map(|_| ())
}

/// G_FMT on a subdevice's source pad: the true size.
pub(super) fn subdev_size(fd: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    let mut format = SubdevFormat { which: SUBDEV_ACTIVE, pad: 0, width: 0, height: 0, rest: [0; 18] };
    // SAFETY: as above.
    unsafe { raw::subdev_get_format(fd.as_raw_fd(), &mut format) }?;
    Ok((format.width, format.height))
}

/// G_FMT, then S_FMT with the given size. Answers fourcc, width and height as the driver took them. The caller makes sure
/// that nothing streams from the node.
pub(super) fn set_format(fd: BorrowedFd<'_>, width: u32, height: u32) -> Result<(u32, u32, u32), Errno> {
    let mut format = get_format(fd, CAPTURE_MPLANE).or_else(|_| get_format(fd, CAPTURE))?;
    format.width = width;
    format.height = height;
    // SAFETY: as above.
    unsafe { raw::set_format(fd.as_raw_fd(), &mut format) }?;
    Ok((format.pixel_format, format.width, format.height))
}

fn get_format(fd: BorrowedFd<'_>, kind: u32) -> Result<Format, Errno> {
    let mut format = Format { kind, _pad: 0, width: 0, height: 0, pixel_format: 0, rest: [0; 47] };
    // SAFETY: as above.
    unsafe { raw::get_format(fd.as_raw_fd(), &mut format) }?;
    Ok(format)
}

/// Asks for change events.
pub(super) fn subscribe_source_change(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let subscription = Subscription { kind: EVENT_SOURCE_CHANGE, rest: [0; 7] };
    // SAFETY: as above.
    unsafe { raw::subscribe_event(fd.as_raw_fd(), &subscription) }.map(|_| ())
}

/// Takes one waiting event; answers whether it was a change of source. The file must be opened non-blocking.
pub(super) fn dequeue_event(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut event = Event { kind: 0, rest: [0; 33] };
    // SAFETY: as above.
    unsafe { raw::dequeue_event(fd.as_raw_fd(), &mut event) }?;
    Ok(event.kind == EVENT_SOURCE_CHANGE)
}
