//! Records that need no launch token: checks of tasks, stops, timeouts, and lookups of RunTask calls without a
//! response.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use ecs_bridge_aws::{DESCRIBED, TableError, now};
use ecs_bridge_core::{Input, Record, SubmissionId, record::DUE_SHARDS};
use futures_util::{StreamExt, stream};

use crate::{
    partition::{PAGE, Partition},
    report::Report,
    run::{Claimed, Loop, Run},
};

/// The number of batches per stop-retry interval. Timers are batched so that one DescribeTasks call describes many
/// tasks.
const GATHERINGS: u32 = 6;

/// The longest wait before the index is read again.
const PAUSE: Duration = Duration::from_secs(5);

/// The wait before the index is read again after something was served.
const AGAIN: Duration = Duration::from_millis(200);

/// The number of records processed concurrently.
const SIDE_BY_SIDE: usize = 32;

/// Serves due timers until none is left or the time has elapsed.
///
/// # Errors
/// If the index cannot be read.
pub async fn run(run: &Run<'_>) -> Result<Report, TableError> {
    let mut report = Report::default();
    let mut shards: Vec<_> = (0..DUE_SHARDS).map(|shard| Partition::new(shard.to_string())).collect();
    while !run.is_late() {
        let began = Instant::now();
        let mut has_served = false;
        // Each run shuffles differently so that two runs rarely claim the same record.
        let random = RandomState::new();
        shards.sort_by_cached_key(|shard| random.hash_one(&shard.name));
        for shard in &mut shards {
            let ids = shard.next(&run.bridge.table, PAGE, false).await?;
            has_served |= !ids.is_empty();
            serve(run, &ids, &mut report).await?;
            if run.is_late() {
                break;
            }
        }
        report.unfinished = shards.iter().any(Partition::has_more);
        if report.unfinished {
            continue;
        }
        let next_due = shards.iter().filter_map(|shard| shard.next_due).min();
        // A served record may be due again soon, which only another read of the index shows.
        if run.is_over(Loop::Timers, next_due.is_none() && !has_served) {
            break;
        }
        let gathered = began + run.bridge.rules.timers.stop_every / GATHERINGS;
        let wait = match next_due {
            Some(next_due) => next_due.since(now()).min(PAUSE).max(gathered.saturating_duration_since(Instant::now())),
            None if has_served => AGAIN,
            None => PAUSE,
        };
        if run.sleep(wait).await {
            break;
        }
    }
    report.overdue = shards.iter().map(|shard| shard.overdue).sum();
    Ok(report)
}

/// Claims these records and takes the due actions.
async fn serve(run: &Run<'_>, ids: &[SubmissionId], report: &mut Report) -> Result<(), TableError> {
    if ids.is_empty() {
        return Ok(());
    }
    let records = run.bridge.table.get_all(ids).await?;
    run.check_waiting(&records);
    let claims = records.into_iter().map(|record| run.claim(record, &Input::Due));
    let mut claims = stream::iter(claims).buffer_unordered(SIDE_BY_SIDE);
    let mut to_describe: BTreeMap<String, Vec<(Box<Record>, String)>> = BTreeMap::new();
    while let Some(claimed) = claims.next().await {
        match claimed {
            Ok(Claimed::ToDescribe(record, task_arn)) => {
                to_describe.entry(record.cluster.clone()).or_default().push((record, task_arn));
            }
            Ok(Claimed::Done { before, after, action }) => report.done(before, after, action.as_ref()),
            Ok(Claimed::ByAnother) => {}
            Err(error) => report.failed(&error),
        }
    }
    for (cluster, claimed) in to_describe {
        for hundred in claimed.chunks(DESCRIBED) {
            describe(run, &cluster, hundred, report).await;
        }
    }
    Ok(())
}

/// Describes the tasks of claimed records in one call, and applies the result to each record.
async fn describe(run: &Run<'_>, cluster: &str, claimed: &[(Box<Record>, String)], report: &mut Report) {
    let tasks: Vec<_> = claimed.iter().map(|(record, task_arn)| (&**record, task_arn.as_str())).collect();
    report.claimed += claimed.len();
    report.described += claimed.len();
    let inputs = run.bridge.describe_all(cluster, &tasks).await;
    let settles = tasks.into_iter().zip(inputs).map(|((record, _), input)| {
        let (record, before) = (record.clone(), record.state());
        async move { run.bridge.settle(record, input).await.map(|after| (before, after.state())) }
    });
    let mut settles = stream::iter(settles).buffer_unordered(SIDE_BY_SIDE);
    while let Some(outcome) = settles.next().await {
        match outcome {
            Ok((before, after)) => report.repaired += usize::from(before != after),
            Err(error) => report.failed(&error),
        }
    }
}
