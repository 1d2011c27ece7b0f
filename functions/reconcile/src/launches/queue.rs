//! The partitions of records to launch.

use ecs_bridge_aws::{Page, TableError, now};
use ecs_bridge_core::{
    Record, Timestamp,
    capacity::{Capacities, Choice},
    record::waiting,
};

use crate::{partition::Partition, run::Run};

/// The number of capacity-blocked submissions among which the probe is chosen.
const PROBES: i32 = 25;

/// A partition of records to launch.
pub struct LaunchQueue {
    /// The rows of the index.
    pub partition: Partition,
    /// For capacity-blocked submissions, the first capacity option that they can use.
    pub first: Option<Choice>,
    /// `true` if every record in it may be launched.
    pub is_open: bool,
    /// `true` if the last probe found a submission in it.
    pub has_waiting: bool,
}

impl LaunchQueue {
    /// Returns a partition whose records wait for no capacity.
    pub fn new(name: &str) -> Self {
        Self { partition: Partition::in_order(name), first: None, is_open: true, has_waiting: true }
    }

    /// Returns the partition of submissions that wait for the capacity of this option or a later one.
    pub fn waiting(first: Choice) -> Self {
        let partition = Partition::in_order(waiting(&first));
        Self { partition, first: Some(first), is_open: false, has_waiting: true }
    }

    /// Returns a submission and the capacity option to probe with it, if a probe is due and no other process makes
    /// it. Of the first submissions, the one refused least often is chosen. One that keeps being refused for its own
    /// reason must not block the probe.
    pub async fn probe(&mut self, run: &Run<'_>, capacity: &Capacities) -> Result<Option<(Record, u8)>, TableError> {
        let (table, at) = (&run.bridge.table, now());
        let Some(first) = &self.first else { return Ok(None) };
        for (choice, known) in capacity.from(first) {
            let Some(probed) = known.probed(at, &run.bridge.rules.timers) else { continue };
            let page = table.due(&waiting(first), Timestamp::MAX, PROBES, Page::default()).await?;
            let ids: Vec<_> = page.records.into_iter().map(|due| due.submission_id).collect();
            self.has_waiting = !ids.is_empty();
            let records = table.get_all(&ids).await?.into_iter();
            let may = records.filter(|it| it.waits_for_capacity() && it.choices().contains(&choice.number));
            if let Some(record) = may.min_by_key(|record| (record.attempt.refusals, record.check_at))
                && table.set_capacity(choice, Some(known), Some(probed)).await?
            {
                return Ok(Some((record, choice.number)));
            }
        }
        Ok(None)
    }
}

/// Reopens capacity options that no submission waits for, and removes what the table stores about them after a while.
pub async fn forget(run: &Run<'_>, capacity: &Capacities) -> Result<(), TableError> {
    let table = &run.bridge.table;
    for (choice, known) in capacity.iter() {
        let Some(next) = known.idle(choice, now()) else { continue };
        let mut is_waited_for = false;
        for number in 0..=choice.number {
            let first = choice.shape.choice(number);
            let page = table.due(&waiting(&first), Timestamp::MAX, 1, Page::default()).await?;
            is_waited_for |= !page.records.is_empty();
        }
        if !is_waited_for {
            table.set_capacity(choice, Some(known), next).await?;
        }
    }
    Ok(())
}
