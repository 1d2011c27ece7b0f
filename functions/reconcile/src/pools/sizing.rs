//! The steps of a round: survey, plan, write of the pool's row, and the work that follows from it.

use std::{collections::BTreeMap, time::Duration};

use ecs_bridge_core::pool::{Batch, Sizing};

use super::{
    round::{Round, SizeError, Totals},
    runners::{random, to_close},
};
use crate::{report::Report, run::Run};

/// The number of waiting submissions that get a wait reason in each round.
const HELD: usize = 100;

/// The duration of a failure after which a pool counts as failing.
const FAILING: Duration = Duration::from_secs(600);

impl Round<'_> {
    /// Sizes the pool once, and counts the runners that it created and closed. `is_known` is `true` if the row of launch
    /// tokens lists the pool.
    ///
    /// # Errors
    /// If DynamoDB is unavailable. The next round repeats the work.
    pub async fn size(&self, is_known: bool, report: &mut Report) -> Result<Totals, SizeError> {
        let Run { bridge, pools, .. } = self.run;
        let (table, timers) = (&bridge.table, &bridge.rules.timers);
        let mut before = table.pool_row(self.profile).await?;
        before.set_aside_unreadable();
        let mut row = before.clone();
        let current = pools.current.get(self.profile);
        if !is_known && (current.is_some() || self.keys.is_some()) {
            table.set_pool(self.profile, true).await?;
        }
        row.set_current(current);
        if self.is_first {
            self.create_doorbells(&mut row).await;
        }

        let (seen, lately) = self.survey(&row).await?;
        // Keys without a launch configuration cannot be sized.
        let (mut seen, unserved): (BTreeMap<_, _>, BTreeMap<_, _>) =
            seen.into_iter().partition(|(key, _)| row.specs.contains_key(key));
        let counts: Vec<_> = seen.iter().map(|(key, seen)| (key, seen.count)).collect();
        let takes = table.takes(self.profile).await?;
        let (sizes, spare) = row.plan(&counts, &lately, takes, self.now, timers);
        drop(counts);
        self.find_wait_reasons(&mut row, &seen, &unserved);
        let (mut totals, mut batches, mut closing) = (Totals::default(), Vec::new(), Vec::new());
        for ((key, seen), Sizing { create, close, excess }) in seen.iter_mut().zip(sizes) {
            let Some(spec) = row.specs.get(key) else { continue };
            if create > 0 {
                batches.push(Batch::new(random()?, create, key.clone(), self.now));
            }
            let timeout = Duration::from_secs(spec.pool.idle_timeout.into());
            let idle = std::mem::take(&mut seen.idle);
            closing.extend(to_close(idle, close as usize, excess as usize, timeout, self.now));
            let waits = seen.count.waiting > 0 && !row.paused;
            totals.add(&Totals { count: seen.count, waits, ..Totals::default() });
        }
        totals.count.waiting += unserved.values().map(|seen| seen.count.waiting).sum::<u32>();
        let stuck = row.wait_reasons.iter().filter(|(_, reason)| reason.stuck);
        totals.stuck =
            stuck.filter_map(|(key, _)| seen.get(key).or(unserved.get(key))).map(|it| it.count.waiting).sum();
        // Runners that are about to close do not count as available.
        let of_current = closing.iter().filter(|runner| runner.runner().map(|it| &it.key) == row.current.as_ref());
        row.spare = spare.saturating_sub(u32::try_from(of_current.count()).unwrap_or(u32::MAX));
        totals.failing = usize::from(row.failing_since.is_some_and(|since| self.now.since(since) >= FAILING));
        row.batches.extend(batches.iter().cloned());
        row.forget_keys(self.now, |key| {
            let is_current = current.is_some_and(|(current, _)| current == key);
            is_current || seen.get(key).is_some_and(|seen| seen.count.alive + seen.count.waiting > 0)
        });
        if row != before {
            row.rev = before.rev + 1;
            if !table.update_pool_row(self.profile, &before, &row).await? {
                // Another round was faster and has done the work of this one.
                return Ok(totals);
            }
        }
        if row.specs.is_empty() && row.unreadable.is_empty() && row.wait_reasons.is_empty() && is_known {
            table.set_pool(self.profile, false).await?;
        }
        report.created += self.create(&row, &lately).await?;
        let specs = before.specs.iter().filter(|(key, _)| !row.specs.contains_key(key));
        self.remove_doorbells(specs.filter_map(|(key, spec)| Some((key, spec.doorbell.as_deref()?)))).await;
        report.closed += self.close(&closing).await?;
        self.ring(&row, &seen, &closing).await;
        if self.is_first || row.wait_reasons != before.wait_reasons {
            for (key, seen) in seen.iter().chain(&unserved) {
                let (reason, had) = (row.wait_reasons.get(key), before.wait_reasons.contains_key(key));
                if reason.is_some() || had {
                    self.hold(seen.waiting.iter().take(HELD), reason).await?;
                }
            }
        }
        Ok(totals)
    }
}
