//! The doorbells of a pool: the queues on which its idle runners wait for submissions.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use ecs_bridge_aws::ASK;
use ecs_bridge_core::{
    Record, SubmissionId,
    pool::{PoolKey, PoolRow},
};

use super::{round::Round, survey::Seen};

impl Round<'_> {
    /// Creates missing doorbells, and recreates those that may have been deleted. Runners without a doorbell poll at
    /// intervals. The first failure ends the attempt until the next run, because SQS would also be unavailable for
    /// the others.
    pub async fn create_doorbells(&self, row: &mut PoolRow) {
        for (key, spec) in &mut row.specs {
            if spec.doorbell.is_some() && self.doorbells().get(key) == Some(&true) {
                continue;
            }
            let created = self.run.doorbells.create(key).await;
            let before = self.doorbells().insert(key.clone(), created.is_ok());
            match created {
                Ok(url) => spec.doorbell = Some(url),
                Err(error) => {
                    // Logged once per process because a network without a route to SQS stays that way.
                    if before.is_none() {
                        tracing::warn!(%key, %error, "a pool has no doorbell; its idle runners ask at intervals");
                    }
                    return;
                }
            }
        }
    }

    fn doorbells(&self) -> MutexGuard<'_, BTreeMap<PoolKey, bool>> {
        self.run.pools.doorbells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the doorbells of unused pool keys.
    pub async fn remove_doorbells(&self, doorbells: impl Iterator<Item = (&PoolKey, &str)>) {
        for (key, url) in doorbells {
            self.doorbells().remove(key);
            if let Err(error) = self.run.doorbells.remove(url).await {
                tracing::warn!(%key, %error, queue = url, "failed to remove the unused doorbell of a pool");
            }
        }
    }

    /// Announces waiting submissions again if runners are idle. A message may have been lost, and a submission that
    /// waits again after an interruption had none. Closing runners are also notified, so that they poll sooner and
    /// free their places.
    pub async fn ring(&self, row: &PoolRow, seen: &BTreeMap<PoolKey, Seen>, closing: &[Record]) {
        for (key, seen) in seen {
            let Some(url) = row.specs.get(key).and_then(|spec| spec.doorbell.as_deref()) else { continue };
            let closes = closing.iter().filter(|record| record.runner().is_some_and(|runner| runner.key == *key));
            let mut messages = vec![ASK; closes.count()];
            if !row.paused {
                let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
                let new = seen.waiting.iter().filter(|id| announced.insert((*id).clone()));
                messages.extend(new.take(seen.count.idle as usize).map(SubmissionId::as_str));
            }
            self.run.doorbells.ring(url, &messages).await;
        }
    }
}
