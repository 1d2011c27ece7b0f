//! Records that need a launch token: the queue, repeated launches without a response, and submissions that wait for
//! capacity.
//!
//! One stream leads from the index to RunTask. The next launch begins as soon as a call has returned and a token is
//! available.

mod candidate;
mod queue;
mod source;

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use ecs_bridge_aws::TableError;
use ecs_bridge_core::launch_rate::LaunchRate;
use futures_util::{StreamExt, stream};

use crate::{
    report::Report,
    run::{Claimed, Run},
};
use candidate::Counters;
use source::Source;

/// The longest duration of a launch, including its writes, at which the launch rate is still reached.
const LATENCY: Duration = Duration::from_secs(2);

/// The minimum and maximum number of concurrent launches. Each uses a connection and some memory.
const UNDER_WAY: (usize, usize) = (32, 400);

/// Launches due records until none is left or the time has elapsed.
///
/// # Errors
/// If the index cannot be read.
pub async fn run(run: &Run<'_>) -> Result<Report, TableError> {
    let at_once = under_way(run.bridge.launch_rate);
    let counters = Counters::default();
    let source = Source::new(run, &counters, at_once);
    let mut report = Report::default();
    let mut failed = None;
    let candidates = stream::unfold(Some(source), |source| async {
        let mut source = source?;
        match source.next().await {
            Ok(Some(candidate)) => Some((Ok(candidate), Some(source))),
            // The last item of the stream is the outcome of the source.
            Ok(None) => Some((Err(Ok(source.is_unfinished())), None)),
            Err(error) => Some((Err(Err(error)), None)),
        }
    });
    let claims = candidates.map(|candidate| async {
        match candidate {
            Ok(candidate) => Ok(candidate.claim(run, &counters).await),
            Err(end) => Err(end),
        }
    });
    let mut outcomes = pin!(claims.buffer_unordered(at_once));
    // The stream is always drained because claimed records must be finished.
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(Ok(Claimed::Done { before, after, action })) => report.done(before, after, action.as_ref()),
            // Records in these partitions have no task to describe.
            Ok(Ok(Claimed::ByAnother | Claimed::ToDescribe(..))) => {}
            Ok(Err(error)) => report.failed(&error),
            Err(Ok(unfinished)) => report.unfinished = unfinished,
            Err(Err(error)) => failed = Some(error),
        }
    }
    run.bridge.give_back(counters.tokens.load(Ordering::Relaxed)).await;
    failed.map_or(Ok(report), Err)
}

fn under_way(rate: LaunchRate) -> usize {
    let (least, most) = UNDER_WAY;
    ((rate.per_second * LATENCY.as_secs_f64()) as usize).clamp(least, most)
}
