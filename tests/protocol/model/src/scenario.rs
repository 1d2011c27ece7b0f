//! A scenario: how many submissions, under which policy, with how many faults.

use std::{collections::BTreeMap, time::Duration};

use ecs_bridge_core::{
    ProfileName, Rules, Timers, Timestamp,
    notify::Notify,
    profile::{CompleteOn, Policy, Relaunch},
    record::{ContentHash, Submission},
    run_task::FrozenRequest,
};
use serde_json::{Map, json};

use crate::mutation::Mutation;

pub(crate) const CONTAINER: &str = "main";

const TICK_MS: u64 = 1000;

/// The time of the first tick, an arbitrary one.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// A world to check.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many submissions there are.
    pub submissions: usize,
    /// How many faults may happen, of any kinds and at any points.
    pub faults: u8,
    /// The policy of their profile.
    pub policy: Policy,
    /// After this tick they are not launched any more.
    pub launch_deadline: Option<u8>,
    /// ECS may reclaim its capacity.
    pub spot: bool,
    /// On EC2, where the agent of a host may report that a task has stopped that runs on.
    pub ec2: bool,
    /// ECS reports what is rare: start failures in the stopped reason alone, capacity that is given up, a quick container by
    /// its exit code alone, and events without a version.
    pub odd: bool,
    /// Containers may be started again by a restart policy.
    pub restarts: bool,
    /// The caller may request a stop.
    pub stops: bool,
    /// From any moment on, ECS may refuse every call and EventBridge lose every event.
    pub outage: bool,
    /// An event bus is notified of each end.
    pub notify: bool,
    /// ECS may launch what it refuses.
    pub launched_failures: bool,
    /// The seeded bug.
    pub mutation: Option<Mutation>,
    /// The last tick, by which every submission must have ended.
    pub horizon: u8,
}

impl Scenario {
    /// Two attempts, under the default policy.
    pub fn new(submissions: usize, faults: u8) -> Self {
        Self {
            submissions,
            faults,
            policy: Policy {
                max_attempts: 2.try_into().unwrap_or(Policy::default().max_attempts),
                ..Policy::default()
            },
            launch_deadline: None,
            spot: false,
            ec2: false,
            odd: false,
            restarts: false,
            stops: true,
            outage: false,
            notify: false,
            launched_failures: false,
            mutation: None,
            horizon: 60,
        }
    }

    /// With a launch deadline at this tick.
    #[must_use]
    pub fn with_deadline(self, tick: u8) -> Self {
        Self { launch_deadline: Some(tick), ..self }
    }

    /// On Spot, and relaunched after an interruption.
    #[must_use]
    pub fn on_spot(self) -> Self {
        let relaunch_on = vec![Relaunch::from("SpotInterruption")];
        Self { spot: true, policy: Policy { relaunch_on, ..self.policy }, ..self }
    }

    /// On EC2, where a host may be wrong about the end of a task.
    #[must_use]
    pub fn on_ec2(self) -> Self {
        Self { ec2: true, ..self }
    }

    /// With an ECS that reports what is rare.
    #[must_use]
    pub fn with_oddities(self) -> Self {
        Self { odd: true, ..self }
    }

    /// With a fallback.
    #[must_use]
    pub fn with_a_fallback(self) -> Self {
        Self { policy: Policy { fallbacks: 1, ..self.policy }, ..self }
    }

    /// With an ECS that may launch what it refuses.
    #[must_use]
    pub fn with_launched_failures(self) -> Self {
        Self { launched_failures: true, ..self }
    }

    /// With containers that ECS may restart: only the task's end counts.
    #[must_use]
    pub fn with_restarts(self) -> Self {
        Self { restarts: true, policy: Policy { complete_on: CompleteOn::TaskStopped, ..self.policy }, ..self }
    }

    /// With an outage of ECS that may begin at any moment and does not end.
    #[must_use]
    pub fn with_outage(self) -> Self {
        Self { outage: true, ..self }
    }

    /// With an event bus that is notified of each end.
    #[must_use]
    pub fn with_a_listener(self) -> Self {
        Self { notify: true, ..self }
    }

    /// With `launch_timeout` and `run_timeout` of a tick.
    #[must_use]
    pub fn with_timeouts(self) -> Self {
        Self { policy: Policy { launch_timeout: Some(1), run_timeout: Some(1), ..self.policy }, ..self }
    }

    /// With a bug.
    #[must_use]
    pub fn with(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The protocol's times, in ticks.
    ///
    /// As in production: a claim outlives its call (`send_within` < `lease`); the last repeat is sent before ECS can have
    /// forgotten the token (`repeat_for` + `send_within` < what ECS remembers); a task is looked up only when ListTasks
    /// must know it (`send_within` < `lookup_after`); it is given up only after the last repeat and its lookups
    /// (`repeat_for` + `lookup_after` < `give_up_after`); a task is described before ECS forgets it (`check_every` <
    /// what ECS remembers); MISSING counts only when DescribeTasks must know of a task (`missing_after`), and the first
    /// check comes after that even where RunTask took its time (`missing_after` + `send_within` < `first_check`).
    pub(crate) fn rules() -> Rules {
        let ticks = |count: u64| Duration::from_millis(count * TICK_MS);
        Rules {
            // A name that is valid.
            deployment: "prod".parse().unwrap_or_else(|_| unreachable!()),
            retention: Duration::from_secs(30 * 86_400),
            timers: Timers {
                send_within: ticks(1),
                lease: ticks(2),
                repeat_for: ticks(4),
                lookup_after: ticks(2),
                first_check: ticks(3),
                check_every: ticks(3),
                missing_after: ticks(1),
                missing_apart: ticks(1),
                stop_every: ticks(1),
                backoff: ticks(1),
                backoff_most: ticks(2),
                denied_for: ticks(3),
                head_start: Duration::ZERO,
                silent_after: ticks(3),
                rest: ticks(1),
                runner_launch: ticks(4),
                passed_over: ticks(1),
                runner_counted: ticks(4),
                index_lag: ticks(1),
                minute: ticks(1),
                give_up_after: ticks(8),
                wait_for_capacity: ticks(4),
                // Beyond the horizon.
                no_capacity_for: ticks(100),
            },
        }
    }

    pub(crate) fn at(tick: u8) -> Timestamp {
        Timestamp::from_millis(EPOCH_MS + u64::from(tick) * TICK_MS)
    }

    /// The first tick at which `at` has come.
    pub(crate) fn tick_from(at: Timestamp) -> u64 {
        at.millis().saturating_sub(EPOCH_MS).div_ceil(TICK_MS)
    }

    pub(crate) fn cluster(&self) -> String {
        "arn:aws:ecs:eu-west-1:123456789012:cluster/nightly".to_owned()
    }

    pub(crate) fn task_arns(&self) -> &'static str {
        "arn:aws:ecs:eu-west-1:123456789012:task/nightly"
    }

    /// The submission that the caller sends: the same each time, so that submissions are interchangeable.
    pub(crate) fn submission(&self) -> Submission {
        let profile = ProfileName::default_profile();
        Submission {
            submission_id: "nightly-1".parse().unwrap_or_else(|_| unreachable!()),
            content_hash: ContentHash::of(&["true".to_owned()], &json!({}), &profile),
            placement: None,
            profile,
            container_name: CONTAINER.to_owned(),
            cluster: "nightly".to_owned(),
            policy: self.policy.clone(),
            request: FrozenRequest::freeze(&vec![Map::new(); 1 + usize::from(self.policy.fallbacks)]),
            labels: BTreeMap::new(),
            launch_deadline: self.launch_deadline.map(Self::at),
            priority: Default::default(),
            pool: None,
            notify: Notify { event_bus: self.notify.then(|| "ends".to_owned()), ..Notify::default() },
        }
    }
}
