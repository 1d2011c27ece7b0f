//! A world of one pool to check: its submissions, its limits, and the times of the protocol in ticks.

use std::time::Duration;

use ecs_bridge_core::{
    ProfileName, Rules, Timers, Timestamp,
    pool::{Pool, PoolKey, Spec},
    profile::Policy,
    run_task::FrozenRequest,
};
use serde_json::{Map, json};

use super::bug::SizingBug;
use crate::scenario::{CONTAINER, Scenario};

const TICK: Duration = Duration::from_secs(43_200);

/// The time of the first tick. It is a multiple of a tick, so that each minute in the pool's row is a tick.
const EPOCH_MS: u64 = 41_660 * 43_200_000;

/// The last tick at which the caller submits, the profile changes, or the operator pauses the pool.
pub(super) const BUSY_UNTIL: u8 = 3;

/// A world of one pool to check.
#[derive(Clone, Copy, Debug)]
pub struct PoolSizing {
    /// The number of submissions.
    pub submissions: usize,
    /// The maximum number of runners.
    pub max: u32,
    /// The number of idle runners that the pool keeps.
    pub min_idle: u32,
    /// The number of commands that a container runs (`commands_per_container`).
    pub commands: u32,
    /// The number of faults that can happen.
    pub faults: u8,
    /// The profile changes once, at different moments in submit and in reconcile.
    pub changes: bool,
    /// An operator can pause the pool once, and resumes it.
    pub pauses: bool,
    /// The seeded bug.
    pub bug: Option<SizingBug>,
}

impl PoolSizing {
    /// Returns a world of two submissions and a pool of up to one runner, which runs one command.
    pub const fn new(faults: u8) -> Self {
        Self { submissions: 2, max: 1, min_idle: 0, commands: 1, faults, changes: false, pauses: false, bug: None }
    }

    /// Returns the tick at which all submissions must have ended. A runner that stops polling holds its place for four
    /// ticks.
    pub(super) fn horizon(&self) -> u8 {
        2 * BUSY_UNTIL + 4 * self.faults
    }

    pub(super) fn has(&self, bug: SizingBug) -> bool {
        self.bug == Some(bug)
    }

    pub(super) fn rules() -> Rules {
        let ticks = |count: u32| TICK * count;
        let timers = Timers {
            minute: TICK,
            index_lag: TICK,
            passed_over: ticks(1),
            silent_after: ticks(3),
            runner_counted: ticks(4),
            runner_launch: ticks(4),
            head_start: Duration::ZERO,
            ..Timers::default()
        };
        Rules { timers, ..Scenario::rules() }
    }

    pub(super) fn at(tick: u8) -> Timestamp {
        Timestamp::from_millis(EPOCH_MS).plus(TICK * tick.into())
    }

    /// Returns the pool key and the runner specification of a version of the profile.
    pub(super) fn spec(&self, version: usize) -> (PoolKey, Spec) {
        let pool = json!({"max": self.max, "min_idle": self.min_idle, "commands_per_container": self.commands});
        // The members above form a valid pool.
        let pool: Pool = serde_json::from_value(pool).unwrap_or_else(|_| unreachable!());
        let run_task = Map::from_iter([("taskDefinition".to_owned(), json!(format!("etl:{version}")))]);
        let key = PoolKey::of(&ProfileName::default_profile(), std::slice::from_ref(&run_task), CONTAINER, &pool);
        let spec = Spec {
            run_task: FrozenRequest::freeze(&[run_task]),
            container_name: CONTAINER.to_owned(),
            cluster: "nightly".to_owned(),
            policy: Policy::default(),
            pool,
            doorbell: None,
        };
        (key, spec)
    }
}
