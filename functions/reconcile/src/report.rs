//! The counts of one run.

use ecs_bridge_aws::BridgeError;
use ecs_bridge_core::{Action, State};
use serde::Serialize;

/// The counts of one run. They are also the function's response.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Due records that this run claimed.
    pub claimed: usize,
    /// RunTask calls.
    pub launches: usize,
    /// Tasks that DescribeTasks described.
    pub described: usize,
    /// Lookups of RunTask calls without a response.
    pub looked_up: usize,
    /// StopTask calls.
    pub stops: usize,
    /// Terminal submissions with notifications to deliver.
    pub notified: usize,
    /// Submissions that ended or continued because of facts that this run found and that no event had reported.
    pub repaired: usize,
    /// Timers that were served more than five minutes late, excluding records that wait for a launch token.
    pub overdue: usize,
    /// Records that failed in this run. They stay due.
    pub errors: usize,
    /// Runners that were created for pools.
    pub created: usize,
    /// Surplus idle runners that were closed.
    pub closed: usize,
    /// `true` if this run left due records to the next run.
    pub unfinished: bool,
}

impl Report {
    /// Counts a claim, except for descriptions.
    pub fn done(&mut self, before: State, after: State, action: Option<&Action>) {
        self.claimed += 1;
        match action {
            Some(Action::RunTask(_)) => self.launches += 1,
            Some(Action::LookUp(_)) => {
                self.looked_up += 1;
                self.repaired += usize::from(after != before);
            }
            Some(Action::Stop { .. }) => self.stops += 1,
            Some(Action::Notify(_)) => self.notified += 1,
            Some(Action::Describe { .. }) | None => {}
        }
    }

    /// Counts a failed record.
    pub fn failed(&mut self, error: &BridgeError) {
        tracing::error!(%error, "failed to process a record; it stays due");
        self.errors += 1;
    }

    /// Returns the sum of both reports.
    pub fn and(self, other: Self) -> Self {
        Self {
            claimed: self.claimed + other.claimed,
            launches: self.launches + other.launches,
            described: self.described + other.described,
            looked_up: self.looked_up + other.looked_up,
            stops: self.stops + other.stops,
            notified: self.notified + other.notified,
            repaired: self.repaired + other.repaired,
            overdue: self.overdue + other.overdue,
            errors: self.errors + other.errors,
            created: self.created + other.created,
            closed: self.closed + other.closed,
            unfinished: self.unfinished || other.unfinished,
        }
    }
}
