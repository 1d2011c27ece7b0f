//! The pools of a call's submissions.

use std::collections::{BTreeMap, BTreeSet};

use ecs_bridge_core::{ProfileName, api::SubmissionItem, pool::PoolRow, profile::Profile};

use crate::app::App;

/// The rows of pools, by profile.
pub type PoolRows = BTreeMap<ProfileName, PoolRow>;

impl App {
    /// Returns the rows of the pools of these items. Each row holds the launch configuration for the item's version
    /// of the profile. A pool whose row could not be written is omitted, and nothing is accepted for it.
    pub async fn keep_pools(&self, items: &[SubmissionItem]) -> PoolRows {
        let mut rows = PoolRows::new();
        let pooled = items.iter().filter_map(|item| item.submission.as_ref().ok()).filter(|it| it.pool.is_some());
        for profile in pooled.map(|submission| &submission.profile).collect::<BTreeSet<_>>() {
            let Some(spec) = self.profiles.get(profile).and_then(Profile::spec) else { continue };
            match self.bridge.table.keep_pool(profile, &spec).await {
                Ok(mut row) => {
                    // Runners that were taken since the pool was sized are no longer idle.
                    match self.bridge.table.takes(profile).await {
                        Ok(takes) => row.taken = row.taken.max(takes.taken),
                        Err(error) => tracing::warn!(%error, %profile, "failed to read the takes of a pool"),
                    }
                    rows.insert(profile.clone(), row);
                }
                Err(error) => tracing::error!(%error, %profile, "failed to read or write a pool's row"),
            }
        }
        rows
    }
}
