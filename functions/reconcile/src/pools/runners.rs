//! Creating and closing runners.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ecs_bridge_aws::{Created, TableError, now};
use ecs_bridge_core::{Input, Record, Timestamp, decide::PoolInput, pool::PoolRow};
use futures_util::{StreamExt, stream};

use super::round::{Round, SizeError};

/// The number of rows written concurrently.
const SIDE_BY_SIDE: usize = 32;

impl Round<'_> {
    /// Creates the runners that are in the row but do not exist yet, and queues their launches.
    pub async fn create(&self, row: &PoolRow, there: &[Record]) -> Result<usize, SizeError> {
        // A pause also holds back runners that an earlier round announced.
        let Some(runner_api) = self.run.pools.runner_api.as_ref().filter(|_| !row.paused) else { return Ok(0) };
        let bridge = self.run.bridge;
        let there: HashSet<_> = there.iter().map(|record| &record.submission_id).collect();
        let mut runners = Vec::new();
        for batch in &row.batches {
            let Some(spec) = row.specs.get(&batch.key) else { continue };
            for id in batch.ids().into_iter().filter(|id| !there.contains(id)) {
                let of = (id, batch.key.clone(), self.profile.clone());
                runners.push(spec.runner(of, &token()?, runner_api, now(), &bridge.rules)?);
            }
        }
        let creates = runners.into_iter().map(|runner| async move {
            let created = bridge.table.create(&runner).await?;
            Ok::<_, TableError>(matches!(created, Created::New).then_some(runner.submission_id))
        });
        let mut creates = stream::iter(creates).buffer_unordered(SIDE_BY_SIDE);
        let mut count = 0;
        while let Some(created) = creates.next().await {
            if let Some(id) = created? {
                count += 1;
                self.run.created(id);
            }
        }
        if count > 0 {
            tracing::info!(profile = %self.profile, runners = count, "created runners");
        }
        Ok(count)
    }

    /// Closes idle runners, except those that received a command in the meantime.
    pub async fn close(&self, runners: &[Record]) -> Result<usize, SizeError> {
        let mut count = 0;
        for runner in runners {
            count +=
                usize::from(self.run.bridge.attempt(runner, &Input::Pool(PoolInput::Close(None))).await?.is_some());
        }
        Ok(count)
    }
}

/// Returns the idle runners to close: `excess` at once, and up to `close` of the others that have been idle for
/// `timeout`.
pub fn to_close(mut idle: Vec<Record>, close: usize, excess: usize, timeout: Duration, now: Timestamp) -> Vec<Record> {
    let since = |record: &Record| record.runner().and_then(|runner| runner.idle_since).unwrap_or(record.created_at);
    idle.sort_by_key(since);
    let has_timed_out = idle.iter().take_while(|record| now.since(since(record)) >= timeout).count();
    idle.truncate(excess.max(close.min(has_timed_out)));
    idle
}

/// Returns an unpredictable random number.
pub fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}

/// Returns a secret for a runner: 256 random bits.
fn token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
