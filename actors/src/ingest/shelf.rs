//! The last thumbnail of each input of each device, in memory: a picture that is old is worth nothing. Of several servers each
//! hears all of them, so it does not matter which one is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use r58_mqtt::{DeviceAddress, Name};

use crate::supervision::lock;

/// Bytes of JPEG kept by default: some 8,000 pictures of 8 KiB.
pub const SHELF_BYTES: usize = 64 * 1024 * 1024;
/// Pictures kept of one device; a box has at most a dozen inputs.
const NAMES_PER_DEVICE: usize = 32;

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub struct ShelvedThumbnail {
    /// JPEG, at most 16 KiB.
    pub jpeg: Bytes,
    /// Grows with every picture of any device since the server started; each server counts by itself.
    pub seq: u64,
    /// When it arrived.
    pub arrived: Instant,
}

/// Pictures by device and name; bounded by bytes, the oldest go first. Cheap to clone.
#[derive(Clone)]
pub struct ThumbnailShelf(Arc<Mutex<Shelf>>);

struct Shelf {
    devices: HashMap<DeviceAddress, HashMap<Name, ShelvedThumbnail>>,
    bytes: usize,
    limit: usize,
    seq: u64,
}

impl Default for ThumbnailShelf {
    fn default() -> Self {
        Self::with_limit(SHELF_BYTES)
    }
}

impl ThumbnailShelf {
    /// Keeps at most `limit` bytes of JPEG.
    pub fn with_limit(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Shelf { devices: HashMap::new(), bytes: 0, limit, seq: 0 })))
    }

    /// The last picture of one input.
    pub fn get(&self, device: &DeviceAddress, name: &str) -> Option<ShelvedThumbnail> {
        lock(&self.0).devices.get(device)?.get(name).cloned()
    }

    /// Puts a picture in place of the one before; gives its seq.
    pub fn put(&self, now: Instant, device: DeviceAddress, name: Name, jpeg: Bytes) -> u64 {
        let mut shelf = lock(&self.0);
        shelf.seq += 1;
        let seq = shelf.seq;
        shelf.bytes += jpeg.len();
        let of_device = shelf.devices.entry(device.clone()).or_default();
        let mut gone =
            of_device.insert(name, ShelvedThumbnail { jpeg, seq, arrived: now }).map_or(0, |old| old.jpeg.len());
        if of_device.len() > NAMES_PER_DEVICE {
            gone += remove_oldest(of_device);
        }
        shelf.bytes -= gone;
        while shelf.bytes > shelf.limit {
            shelf.drop_oldest_device();
        }
        seq
    }
}

impl Shelf {
    fn drop_oldest_device(&mut self) {
        let newest = |pictures: &HashMap<Name, ShelvedThumbnail>| pictures.values().map(|picture| picture.seq).max();
        let oldest = self.devices.iter().min_by_key(|(_, pictures)| newest(pictures)).map(|(device, _)| device.clone());
        let pictures = oldest.and_then(|device| self.devices.remove(&device)).unwrap_or_default();
        self.bytes -= pictures.values().map(|picture| picture.jpeg.len()).sum::<usize>();
    }
}

fn remove_oldest(pictures: &mut HashMap<Name, ShelvedThumbnail>) -> usize {
    let oldest = pictures.iter().min_by_key(|(_, picture)| picture.seq).map(|(name, _)| name.clone());
    oldest.and_then(|name| pictures.remove(&name)).map_or(0, |picture| picture.jpeg.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: usize) -> DeviceAddress {
        DeviceAddress::new("org", format!("box{n}")).unwrap()
    }

    #[test]
    fn the_shelf_stays_within_its_bytes_and_forgets_the_oldest_device() {
        let shelf = ThumbnailShelf::with_limit(1000);
        for n in 0..100 {
            shelf.put(Instant::now(), device(n), Name::new("cam1").unwrap(), Bytes::from(vec![0; 100]));
            assert!(lock(&shelf.0).bytes <= 1000);
        }
        assert!(shelf.get(&device(0), "cam1").is_none());
        assert_eq!(shelf.get(&device(99), "cam1").unwrap().seq, 100);
    }

    #[test]
    fn one_device_cannot_fill_the_shelf_with_names() {
        let shelf = ThumbnailShelf::default();
        for n in 0..100 {
            let name = Name::new(format!("n{n}")).unwrap();
            shelf.put(Instant::now(), device(0), name, Bytes::from(vec![0; 100]));
        }
        assert_eq!(lock(&shelf.0).bytes, NAMES_PER_DEVICE * 100);
        assert!(shelf.get(&device(0), "n99").is_some());
    }
}
