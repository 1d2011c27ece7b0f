//! A scenario: the number of submissions, their policy, the number and kinds of faults, and the times in ticks.

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

/// The time of the first tick. It is arbitrary.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// A world to check.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number of submissions.
    pub submissions: usize,
    /// The number of faults that can happen, of any kind and at any step.
    pub faults: u8,
    /// The policy of their profile.
    pub policy: Policy,
    /// The launch deadline, in ticks.
    pub launch_deadline: Option<u8>,
    /// ECS can reclaim the capacity of a task.
    pub spot: bool,
    /// The tasks run on EC2, where a host can report a stop of a task that keeps running.
    pub ec2: bool,
    /// ECS sends rare reports: start failures only in the stopped reason, capacity providers that give up, brief containers
    /// only by exit code 0, and events without a version.
    pub rare_reports: bool,
    /// ECS can restart a container by its restart policy.
    pub restarts: bool,
    /// The caller can request a stop.
    pub stops: bool,
    /// At any step, an outage can begin: ECS refuses every call, and EventBridge can lose every event.
    pub outage: bool,
    /// An event bus is notified of each completion.
    pub notify: bool,
    /// ECS can launch a task although it returns a failure.
    pub launched_failures: bool,
    /// The seeded bug.
    pub mutation: Option<Mutation>,
    /// The last tick. Every submission must have ended by then.
    pub horizon: u8,
}

impl Scenario {
    /// Returns a scenario with two attempts per submission, under the default policy.
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
            rare_reports: false,
            restarts: false,
            stops: true,
            outage: false,
            notify: false,
            launched_failures: false,
            mutation: None,
            horizon: 60,
        }
    }

    /// Adds a launch deadline at this tick.
    #[must_use]
    pub fn with_deadline(self, tick: u8) -> Self {
        Self { launch_deadline: Some(tick), ..self }
    }

    /// Runs tasks on Spot, and relaunches them after an interruption.
    #[must_use]
    pub fn on_spot(self) -> Self {
        let relaunch_on = vec![Relaunch::from("SpotInterruption")];
        Self { spot: true, policy: Policy { relaunch_on, ..self.policy }, ..self }
    }

    /// Runs tasks on EC2, where a host can report a stop that did not happen.
    #[must_use]
    pub fn on_ec2(self) -> Self {
        Self { ec2: true, ..self }
    }

    /// Adds rare reports of ECS.
    #[must_use]
    pub fn with_rare_reports(self) -> Self {
        Self { rare_reports: true, ..self }
    }

    /// Adds a fallback.
    #[must_use]
    pub fn with_fallback(self) -> Self {
        Self { policy: Policy { fallbacks: 1, ..self.policy }, ..self }
    }

    /// Adds failures of RunTask that launch a task all the same.
    #[must_use]
    pub fn with_launched_failures(self) -> Self {
        Self { launched_failures: true, ..self }
    }

    /// Adds restart policies. Only STOPPED then ends an attempt (`complete_on: task_stopped`).
    #[must_use]
    pub fn with_restarts(self) -> Self {
        Self { restarts: true, policy: Policy { complete_on: CompleteOn::TaskStopped, ..self.policy }, ..self }
    }

    /// Adds an outage that can begin at any step and does not end.
    #[must_use]
    pub fn with_outage(self) -> Self {
        Self { outage: true, ..self }
    }

    /// Adds an event bus that is notified of each completion.
    #[must_use]
    pub fn with_notifications(self) -> Self {
        Self { notify: true, ..self }
    }

    /// Adds a `launch_timeout` and a `run_timeout` of one second, which is one tick.
    #[must_use]
    pub fn with_timeouts(self) -> Self {
        Self { policy: Policy { launch_timeout: Some(1), run_timeout: Some(1), ..self.policy }, ..self }
    }

    /// Adds a seeded bug.
    #[must_use]
    pub fn with(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Returns the times of the protocol, in ticks.
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
            // The name is valid.
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

    /// Returns the first tick at or after this time.
    pub(crate) fn tick_from(at: Timestamp) -> u64 {
        at.millis().saturating_sub(EPOCH_MS).div_ceil(TICK_MS)
    }

    pub(crate) fn cluster(&self) -> String {
        "arn:aws:ecs:eu-west-1:123456789012:cluster/nightly".to_owned()
    }

    pub(crate) fn task_arns(&self) -> &'static str {
        "arn:aws:ecs:eu-west-1:123456789012:task/nightly"
    }

    /// Returns the submission that the caller sends. All submissions are equal, and so interchangeable.
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
