//! The idle capacity of pools, as far as this process knows.

use std::collections::BTreeMap;

use ecs_bridge_core::{ProfileName, pool::PoolRow};
use tokio::sync::Mutex;

/// The number of submissions of this process that wait for runners, since each pool was last sized.
#[derive(Debug, Default)]
pub struct IdleCapacity(Mutex<BTreeMap<ProfileName, (u64, u64)>>);

impl IdleCapacity {
    /// Returns `true` if `left` more submissions of a profile need more runners than are idle or starting, based on
    /// the pool's `row`.
    pub async fn is_exceeded_by(&self, row: &PoolRow, profile: &ProfileName, left: u64) -> bool {
        let mut known = self.0.lock().await;
        let (rev, since) = known.entry(profile.clone()).or_default();
        if *rev != row.rev {
            (*rev, *since) = (row.rev, 0);
        }
        *since += left;
        *since > u64::from(row.spare) || left > row.spare_now()
    }
}
