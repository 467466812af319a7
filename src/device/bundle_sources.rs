//! What a support bundle asks of the box. Secrets are taken out by whoever packs it.

use std::sync::Arc;

use r58_actors::House;
use r58_actors::bundle::BundleSources;
use r58_actors::device::DeviceHandle;
use r58_actors::fleet_link::config::ConfigSeam;
use r58_actors::supervision::ActorReport;
use serde_json::{Value, json};

use crate::config::DeviceSettings;

/// The parts of a running box.
pub struct BoxSources {
    /// As configured.
    pub settings: DeviceSettings,
    /// What commands changed of it.
    pub seam: Arc<dyn ConfigSeam>,
    /// The tree.
    pub house: House,
    /// The state as the pages show it.
    pub device: DeviceHandle,
    /// The log, for what was lost of it.
    pub book: r58_actors::logs::LogBook,
}

impl BundleSources for BoxSources {
    fn config(&self) -> Value {
        json!({
            "configured": serde_json::to_value(&self.settings).unwrap_or_default(),
            "in_force": self.seam.public(),
        })
    }

    fn state(&self) -> Value {
        let state = self.device.state.borrow().clone();
        json!({
            "state": serde_json::to_value(&*state).unwrap_or_default(),
            "log_records_never_written": self.book.unwritten(),
        })
    }

    fn actors(&self) -> Vec<ActorReport> {
        self.house.reports()
    }

    fn graphs(&self) -> Vec<(String, String)> {
        r58_pipelines::graphs::draw()
    }
}
