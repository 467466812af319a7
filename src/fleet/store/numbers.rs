//! Short keys of devices, as messages need them: learned once, kept in memory. They never change; a device that is taken out of
//! service is forgotten, here at once, and at another server when it finds nothing under its number.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use r58_mqtt::DeviceAddress;

use super::many::lists;
use super::{DeviceNo, Store, StoreError};

/// Device to its organization and short key.
#[derive(Default)]
pub(super) struct Numbers(RwLock<HashMap<String, (String, DeviceNo)>>);

impl Numbers {
    fn get(&self, org: &str, device: &str) -> Option<DeviceNo> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(device).filter(|(owner, _)| owner == org).map(|(_, no)| *no)
    }

    fn learn(&self, rows: Vec<(String, String, i64)>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(rows.into_iter().map(|(device, org, no)| (device, (org, DeviceNo(no)))));
    }
}

impl Store {
    /// The number of a device that is registered and not decommissioned.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_no(&self, org: &str, device: &str) -> Result<Option<DeviceNo>, StoreError> {
        if let Some(known) = self.numbers.get(org, device) {
            return Ok(Some(known));
        }
        self.learn_numbers(&[device]).await?;
        Ok(self.numbers.get(org, device))
    }

    /// The same for many, in their order. What is not known yet is asked for together: a server that starts hears of its whole
    /// fleet within a minute.
    pub(super) async fn device_numbers<'a>(
        &self,
        devices: impl Iterator<Item = &'a DeviceAddress> + Clone,
    ) -> Result<Vec<Option<DeviceNo>>, StoreError> {
        let known = |device: &DeviceAddress| self.numbers.get(device.org.as_str(), device.device.as_str());
        let numbers: Vec<Option<DeviceNo>> = devices.clone().map(known).collect();
        let unknown: BTreeSet<&str> = devices
            .clone()
            .zip(&numbers)
            .filter(|(_, no)| no.is_none())
            .map(|(device, _)| device.device.as_str())
            .collect();
        if unknown.is_empty() {
            return Ok(numbers);
        }
        self.learn_numbers(&unknown.into_iter().collect::<Vec<_>>()).await?;
        Ok(devices.map(known).collect())
    }

    async fn learn_numbers(&self, devices: &[&str]) -> Result<(), StoreError> {
        const HEAD: &str = "SELECT id, org, no FROM devices WHERE decommissioned_at IS NULL AND id IN (";
        for query in lists(HEAD, devices) {
            self.numbers.learn(query.build_query_as().fetch_all(&self.reader).await?);
        }
        Ok(())
    }

    pub(super) fn forget_number(&self, device: &str) {
        self.numbers.0.write().unwrap_or_else(PoisonError::into_inner).remove(device);
    }
}
