//! Why submissions of a pool wait that no runner will serve.

use std::collections::BTreeMap;

use ecs_bridge_core::{
    Input, SubmissionId,
    decide::PoolInput,
    pool::{PoolKey, PoolRow, WaitReason},
};

use super::{
    round::{Round, SizeError},
    survey::Seen,
};

impl Round<'_> {
    /// Records the wait reasons of submissions that no runner will serve.
    pub fn find_wait_reasons(
        &self,
        row: &mut PoolRow,
        seen: &BTreeMap<PoolKey, Seen>,
        unserved: &BTreeMap<PoolKey, Seen>,
    ) {
        let timers = &self.run.bridge.rules.timers;
        let largest = row.specs.values().map(|spec| row.max(&spec.pool)).max().unwrap_or_default();
        let max = row.current.as_ref().and_then(|key| row.specs.get(key)).map_or(largest, |spec| row.max(&spec.pool));
        let is_full = seen.values().map(|seen| seen.count.alive).sum::<u32>() >= max;
        let has_address = self.run.pools.runner_api.is_some();
        let reasons = seen.iter().chain(unserved).filter_map(|(key, Seen { count, symptoms, .. })| {
            let reason = row.wait_reason(key, count, symptoms, (is_full, has_address), self.now, timers)?;
            Some((key.clone(), reason))
        });
        let reasons: BTreeMap<_, _> = reasons.collect();
        for (key, WaitReason { reason, stuck, .. }) in &reasons {
            if *stuck && row.wait_reasons.get(key).is_none_or(|before| !before.stuck) {
                tracing::warn!(profile = %self.profile, %key, reason, "submissions of a pool are stuck");
            }
        }
        row.wait_reasons = reasons;
    }

    /// Writes the wait reason to the waiting submissions, or clears it.
    pub async fn hold(
        &self,
        waiting: impl Iterator<Item = &SubmissionId>,
        reason: Option<&WaitReason>,
    ) -> Result<(), SizeError> {
        let ids: Vec<_> = waiting.cloned().collect();
        for record in self.run.bridge.table.get_all(&ids).await? {
            let held = PoolInput::Held(reason.map(|reason| reason.reason.clone()));
            self.run.bridge.settle(record, Input::Pool(held)).await?;
        }
        Ok(())
    }
}
