//! The leader's duty of adding up how devices moved between states, so that counting them stays cheap.

use std::time::Duration;

use async_trait::async_trait;
use r58_actors::rounds::Round;

use crate::fleet::store::Store;

/// How often there is a look at what moved.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Adds up.
pub(super) struct Accountant(pub Store);

#[async_trait]
impl Round for Accountant {
    async fn round(&mut self) -> Result<Duration, String> {
        let more = self.0.leads() && self.0.add_up_moves().await.map_err(|error| error.to_string())?;
        Ok(if more { Duration::ZERO } else { LOOK_EVERY })
    }
}
