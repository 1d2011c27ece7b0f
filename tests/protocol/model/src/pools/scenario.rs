//! A world of pools to check: its submissions and runners, and the decisions on their rows.

use std::collections::BTreeMap;

use ecs_bridge_core::{
    Action, AttemptNumber, Decision, Input, LaunchAnswer, ProfileName, Record, State, SubmissionId, Timestamp, decide,
    decide::PoolInput,
    pool::{Incarnation, Pool, PoolKey, Runner, TokenHash},
    profile::{Policy, Relaunch},
    record::{ContentHash, Kind, Submission},
    run_task::FrozenRequest,
};
use serde_json::{Map, json};

use super::bug::PoolBug;
use crate::scenario::{CONTAINER, Scenario};

/// A world of pools to check.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// The number of submissions, all of which wait from the beginning.
    pub submissions: usize,
    /// The number of runners.
    pub runners: usize,
    /// The number of faults that can happen.
    pub faults: u8,
    /// The number of commands that a container runs (`commands_per_container`).
    pub commands: u32,
    /// The caller can request a stop of each submission.
    pub stops: bool,
    /// ECS can reclaim the capacity of each runner.
    pub spot: bool,
    /// The profile launches a command again after its runner lost its capacity (`relaunch_on`).
    pub relaunch: bool,
    /// The launch deadline, in ticks. With a deadline, each runner starts at any tick up to the fourth.
    pub deadline: Option<u8>,
    /// The seeded bug.
    pub bug: Option<PoolBug>,
}

impl Pools {
    /// Returns a world of two submissions and two runners that run one command each.
    pub const fn new(faults: u8) -> Self {
        Self {
            submissions: 2,
            runners: 2,
            faults,
            commands: 1,
            stops: false,
            spot: false,
            relaunch: false,
            deadline: None,
            bug: None,
        }
    }

    pub(super) fn has(&self, bug: PoolBug) -> bool {
        self.bug == Some(bug)
    }

    /// Returns the ID of a row. Submissions come first, runners follow.
    pub(super) fn id(&self, row: usize) -> SubmissionId {
        let name = match row.checked_sub(self.submissions) {
            None => format!("nightly-{row}"),
            Some(runner) => format!("runner-{runner}"),
        };
        // Both forms are valid IDs.
        name.parse().unwrap_or_else(|_| unreachable!())
    }

    /// Returns the index of the row with this ID.
    pub(super) fn place(&self, id: &SubmissionId) -> Option<usize> {
        (0..self.submissions + self.runners).find(|row| self.id(*row) == *id)
    }

    pub(super) fn submission(&self, row: usize) -> Submission {
        let profile = ProfileName::default_profile();
        let relaunch_on = if self.relaunch { vec![Relaunch::from("SpotInterruption")] } else { Vec::new() };
        let max_attempts = AttemptNumber::FIRST.next().unwrap_or(AttemptNumber::FIRST);
        Submission {
            submission_id: self.id(row),
            content_hash: ContentHash::of(&["true".to_owned()], &json!({}), &profile),
            placement: None,
            profile,
            container_name: CONTAINER.to_owned(),
            cluster: "nightly".to_owned(),
            policy: Policy { max_attempts, relaunch_on, ..Policy::default() },
            request: FrozenRequest::freeze(&[Map::new()]),
            labels: BTreeMap::new(),
            launch_deadline: self.deadline.map(Scenario::at),
            priority: Default::default(),
            pool: None,
            notify: Default::default(),
        }
    }

    /// Returns the key of the pool, and the runner's part of a row under it.
    pub(crate) fn pool(&self) -> (PoolKey, Runner) {
        let pool = json!({"max": self.runners, "commands_per_container": self.commands});
        // The members above form a valid pool.
        let pool: Pool = serde_json::from_value(pool).unwrap_or_else(|_| unreachable!());
        let key = PoolKey::of(&ProfileName::default_profile(), &[Map::new()], CONTAINER, &pool);
        (key.clone(), Runner::new(key, TokenHash::of("secret"), &pool))
    }

    /// Returns the ARN of a runner's task.
    pub(super) fn arn(runner: usize) -> String {
        format!("arn:aws:ecs:eu-west-1:123456789012:task/nightly/{runner}")
    }

    /// Returns the row of a runner that has a task and has not polled yet.
    pub(super) fn launched(&self, runner: usize) -> Record {
        let (now, rules) = (Scenario::at(0), Scenario::rules());
        let row = self.submissions + runner;
        let record = Record::new_runner(
            Submission { launch_deadline: None, ..self.submission(row) },
            self.pool().1,
            now,
            &rules,
        );
        let claimed = decide(&record, &Input::Due, now, &rules);
        let (Some(record), Some(Action::RunTask(call))) = (claimed.record, claimed.action) else { unreachable!() };
        let task = LaunchAnswer::Task { arn: Self::arn(runner), live: true };
        decide(&record, &Input::Launch(call, task), now, &rules).record.unwrap_or_else(|| unreachable!())
    }

    /// Returns the real decision, changed by the seeded bug if the bug concerns decisions.
    pub(super) fn decide(&self, record: &Record, input: &Input, now: Timestamp) -> Decision {
        let rules = Scenario::rules();
        let Input::Pool(PoolInput::RunnerSeen(_, task)) = input else { return decide(record, input, now, &rules) };
        let is_unreported = task.is_stopped() && record.attempt.exit_code.is_none() && !record.state().is_terminal();
        if self.has(PoolBug::ClaimedRequeued) && is_unreported {
            let mut next = record.clone();
            next.change_to(State::Queued).unwrap_or_else(|_| unreachable!());
            next.rev += 1;
            next.attempt.task_arn = None;
            if let Kind::Pooled(pooled) = &mut next.kind {
                pooled.taken = None;
            }
            return Decision { record: Some(next), ..Decision::default() };
        }
        if self.has(PoolBug::ContainerExitCode) && is_unreported {
            let mut record = record.clone();
            record.attempt.exit_code = task.exit_code(CONTAINER);
            return decide(&record, input, now, &rules);
        }
        decide(record, input, now, &rules)
    }
}

/// Returns the incarnation of the process with this number.
pub(super) fn incarnation(number: u8) -> Incarnation {
    format!("process-{number}").try_into().unwrap_or_else(|_| unreachable!())
}
