//! One event: a reconcile run of three concurrent loops, until nothing is due or the time has elapsed.
//!
//! [`launches`](crate::launches) handles the records that need a launch token. [`timers`](crate::timers) handles all
//! other records, so no stop and no check waits behind a launch. [`pools`](crate::pools) creates missing runners.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use ecs_bridge_aws::{Page, TableError, WOKEN_LOOKS, now, telemetry};
use ecs_bridge_core::{
    Timestamp,
    record::{QUEUE, waiting},
};
use serde::Deserialize;

use crate::{app::App, launches, pools, report::Report, run::Run, timers};

/// The maximum duration of a run if no other run begins. The schedule starts one run per minute.
const RUN: Duration = Duration::from_secs(75);

/// The time reserved for the last calls before Lambda ends the process.
const MARGIN: Duration = Duration::from_secs(20);

/// The relevant part of an event. The payload of a scheduled event can have any content.
#[derive(Deserialize)]
pub struct Event {
    /// `true` if another function has just queued work.
    #[serde(default)]
    pub woken: bool,
}

impl App {
    /// Processes due records until none is left or `deadline` is near. If another function has `woken` this run, the
    /// indexes may not show the new work yet.
    ///
    /// # Errors
    /// If the index cannot be read. Records claimed until then are due again when their lease expires.
    pub async fn run(&self, deadline: SystemTime, woken: bool) -> Result<Report, TableError> {
        // A deadline in the past is ignored because `cargo lambda watch` sends a time in 1970.
        let left = deadline.duration_since(SystemTime::now()).map_or(RUN, |left| left.saturating_sub(MARGIN));
        let until = Instant::now() + left.min(RUN);
        let looks_for = if woken { WOKEN_LOOKS } else { Duration::ZERO };
        let begun = self.bridge.table.begin_run(now(), looks_for).await?;
        let run = Run::new(self, until, woken, begun);
        self.report_queue().await?;
        let (launched, served, sized, ()) =
            tokio::join!(launches::run(&run), timers::run(&run), pools::run(&run), run.keep_promise());
        let report = launched?.and(served?).and(sized);
        telemetry::reconciled(report.repaired, report.overdue);
        tracing::info!(?report, "reconciled");
        Ok(report)
    }

    /// Reports the length and age of the queue.
    async fn report_queue(&self) -> Result<(), TableError> {
        let (table, at) = (&self.bridge.table, now());
        let first = table.due(QUEUE, at, 1, Page::default()).await?.records.pop();
        let mut depth = if first.is_some() { table.count_due(QUEUE, at).await? } else { 0 };
        // Runners have a head start in the queue's order.
        let first: Vec<_> = first.into_iter().map(|first| first.submission_id).collect();
        let age = table.get_all(&first).await?.pop().map_or(Duration::ZERO, |first| at.since(first.created_at));
        let capacity = table.capacity(at);
        let mut blocked = BTreeSet::new();
        for (choice, _) in capacity.iter() {
            let waiting = table.count_due(&waiting(choice), Timestamp::MAX).await?;
            depth += waiting;
            if waiting > 0 && capacity.is_blocked(choice) {
                blocked.insert(&choice.shape.profile);
            }
        }
        telemetry::queue(depth, age, blocked.len());
        Ok(())
    }
}
