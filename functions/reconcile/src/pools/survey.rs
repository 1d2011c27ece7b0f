//! The submissions and runners of a pool.

use std::collections::{BTreeMap, HashSet};

use ecs_bridge_aws::Ranked;
use ecs_bridge_core::{
    Record, SubmissionId, Timestamp,
    pool::{Batch, Count, Phase, PoolKey, PoolRow, Symptoms},
    rules::Timers,
};

use super::round::{Round, SizeError};

/// The maximum count of submissions that wait under a key without a launch configuration.
const COUNTED: usize = 1000;

/// The submissions and runners found under one key.
#[derive(Default)]
pub struct Seen {
    /// Their numbers.
    pub count: Count,
    /// The waiting submissions.
    pub waiting: Vec<SubmissionId>,
    /// Idle runners, longest idle first.
    pub idle: Vec<Record>,
    /// The signs that submissions will not be served.
    pub symptoms: Symptoms,
}

impl Seen {
    fn waiting(&mut self, waiting: Vec<Ranked>, now: Timestamp, timers: &Timers) {
        for Ranked { submission_id, rank, priority } in waiting {
            self.count.waiting(priority.submitted_at(rank, timers), now, timers);
            self.waiting.push(submission_id);
        }
    }
}

impl Round<'_> {
    /// Reads the waiting submissions and the runners of each key, and the recently created runners.
    pub async fn survey(&self, row: &PoolRow) -> Result<(BTreeMap<PoolKey, Seen>, Vec<Record>), SizeError> {
        let bridge = self.run.bridge;
        let (table, timers) = (&bridge.table, &bridge.rules.timers);
        let mut by_key: BTreeMap<PoolKey, Seen> = BTreeMap::new();
        let lately: HashSet<SubmissionId> = row.batches.iter().flat_map(Batch::ids).collect();
        let mut ids = lately.clone();
        for (key, spec) in &row.specs {
            let most = row.max(&spec.pool) as usize;
            let seen = by_key.entry(key.clone()).or_default();
            seen.waiting(table.ranked(&key.waiting(), most).await?, self.now, timers);
            // More than `max` runners can exist after `max` was lowered.
            let runners = table.ranked(&key.runners(), usize::MAX).await?;
            ids.extend(runners.into_iter().map(|runner| runner.submission_id));
        }
        // Submissions under keys without a launch configuration are shown as stuck.
        let unserved = row.wait_reasons.keys().chain(row.unreadable.keys()).chain(self.keys.into_iter().flatten());
        for key in unserved.filter(|key| !row.specs.contains_key(key)) {
            let seen = by_key.entry(key.clone()).or_default();
            if seen.count.waiting == 0 {
                seen.waiting(table.ranked(&key.waiting(), COUNTED).await?, self.now, timers);
            }
        }
        let records = table.get_all(&ids.into_iter().collect::<Vec<_>>()).await?;
        let mut created_lately = Vec::new();
        for record in records {
            let Some(runner) = record.runner() else { continue };
            let phase = runner.phase(self.now, timers);
            if !record.state().is_terminal()
                && let Some(seen) = by_key.get_mut(&runner.key)
            {
                seen.count.runner(phase);
                seen.symptoms.add(&record, runner, phase, self.now, timers);
                if phase == Phase::Idle {
                    seen.idle.push(record.clone());
                }
            }
            if lately.contains(&record.submission_id) {
                created_lately.push(record);
            }
        }
        // This round creates the runners that another round has announced but not created yet.
        let found: HashSet<_> = created_lately.iter().map(|record| &record.submission_id).collect();
        for batch in &row.batches {
            let missing = batch.ids().iter().filter(|id| !found.contains(id)).count();
            if let Some(seen) = by_key.get_mut(&batch.key) {
                (0..missing).for_each(|_| seen.count.runner(Phase::Starting));
            }
        }
        Ok((by_key, created_lately))
    }
}
