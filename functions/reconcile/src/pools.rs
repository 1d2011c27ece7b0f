//! Pool sizing: creates runners where submissions wait and closes surplus idle runners.
//!
//! A round reads the waiting submissions and every runner that has not ended. Before it creates runners, it writes
//! their ids to the pool's row, on condition that the row is unchanged. So two concurrent rounds never exceed `max`,
//! and the next round creates the runners that an interrupted round did not.

mod doorbells;
mod round;
mod runners;
mod sizing;
mod survey;
mod wait_reasons;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use ecs_bridge_aws::{now, telemetry};
use ecs_bridge_core::{ProfileName, pool::PoolKey};

use crate::{
    report::Report,
    run::{Loop, Run},
};
use round::{Round, Totals};

/// The wait between rounds while submissions wait.
const AGAIN: Duration = Duration::from_secs(2);

/// Sizes the pools until no pool needs runners or the time has elapsed.
pub async fn run(run: &Run<'_>) -> Report {
    let mut report = Report::default();
    let (mut known, mut is_first) = (BTreeSet::new(), true);
    let announced = Mutex::default();
    let mut keys: BTreeMap<ProfileName, BTreeSet<PoolKey>> = BTreeMap::new();
    while !run.is_late() {
        known.extend(run.bridge.table.pools());
        for (profile, key) in run.take_waiting() {
            keys.entry(profile).or_default().insert(key);
        }
        let names: Vec<_> = run
            .pools
            .current
            .keys()
            .chain(&known)
            .chain(keys.keys())
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut totals = Totals::default();
        for profile in &names {
            let is_known = known.contains(profile);
            let round = Round { run, profile, keys: keys.get(profile), is_first, announced: &announced, now: now() };
            match round.size(is_known, &mut report).await {
                Ok(round) => totals.add(&round),
                Err(error) => {
                    tracing::error!(%profile, %error, "failed to size a pool");
                    report.errors += 1;
                }
            }
            known.insert(profile.clone());
        }
        let Totals { count, failing, stuck, waits } = totals;
        if is_first && !names.is_empty() {
            telemetry::pools(count.waiting, [count.starting, count.idle, count.busy], failing);
        }
        // Later rounds may find more.
        if (is_first || stuck > 0) && !names.is_empty() {
            telemetry::stuck_in_pools(stuck);
        }
        // The index may not show yet the work for which this run was woken.
        let is_at_rest = !run.has_waiting() && (names.is_empty() || !(waits || is_first && run.woken));
        is_first = false;
        if run.is_over(Loop::Pools, is_at_rest) || run.sleep(AGAIN).await {
            break;
        }
    }
    report
}
