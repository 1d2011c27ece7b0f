//! What decisions depend on besides the record: the deployment and the protocol's times.

use std::time::Duration;

use crate::id::Deployment;

/// What a deployment's decisions depend on, besides the record.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose submissions they are; the partition of the feed.
    pub deployment: Deployment,
    /// How long a terminal record is kept, and its id is taken.
    pub retention: Duration,
    /// The protocol's times.
    pub timers: Timers,
}

/// The protocol's times. They fit together, and to what ECS keeps: see each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long a claimed RunTask may take to be sent; later it is not sent at all.
    pub send_within: Duration,
    /// How long a claim holds. Longer than a function runs (2 minutes).
    pub lease: Duration,
    /// How long an unanswered RunTask is repeated: ECS keeps a client token for the task's lifetime and 1 hour, and a
    /// repeat after that would start a second task.
    pub repeat_for: Duration,
    /// How long after the last call, and after each other, lookups count: RunTask is eventually consistent.
    pub lookup_after: Duration,
    /// How long after a submission an event of its task should have arrived. Longer than
    /// [`missing_after`](Self::missing_after) and the time that a claimed RunTask may take: MISSING then counts.
    pub first_check: Duration,
    /// The times after that. Shorter than the hour for which ECS describes a stopped task.
    pub check_every: Duration,
    /// How long after the launch MISSING counts.
    pub missing_after: Duration,
    /// How far apart two MISSING count.
    pub missing_apart: Duration,
    /// How often a stop is repeated until it is over.
    pub stop_every: Duration,
    /// The first wait after a refusal for now, doubled with each one up to [`backoff_most`](Self::backoff_most).
    pub backoff: Duration,
    /// The longest such wait.
    pub backoff_most: Duration,
    /// How long ECS may deny access to RunTask before a submission without a launch deadline is rejected: a change of a
    /// role takes a while to reach every part of AWS.
    pub denied_for: Duration,
    /// How much earlier a submission of priority 0 is served than one of priority 999 that was submitted with it. The
    /// oldest submission is passed by for no longer than this.
    pub head_start: Duration,
    /// How long a runner without work may go without asking for it before it is stopped.
    pub silent_after: Duration,
    /// How long a runner waits for its doorbell before it asks for work. Shorter than the two thirds of `silent_after` for
    /// which it counts as idle.
    pub rest: Duration,
    /// How long a runner may wait for its launch. What still waits for one then gets another.
    pub runner_launch: Duration,
    /// How long a submission may wait while runners of its pool are idle before it gets one of its own.
    pub passed_over: Duration,
    /// How long a created runner is counted by its id, as the index may not show it yet.
    pub runner_counted: Duration,
    /// How long an index may take to show a row, at most: usually it takes less than a second.
    pub index_lag: Duration,
    /// The minutes over whose last 15 the busiest one sets how many runners are kept idle.
    pub minute: Duration,
    /// How long lookups of a launch or a task may fail before the submission is given up as lost.
    pub give_up_after: Duration,
    /// How long a submission without a deadline waits for its profile's capacity before it is looked at.
    pub wait_for_capacity: Duration,
    /// How long ECS may have no capacity for a submission without a launch deadline before it ends as expired.
    pub no_capacity_for: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            send_within: Duration::from_secs(MINUTE),
            lease: Duration::from_secs(3 * MINUTE),
            repeat_for: Duration::from_secs(50 * MINUTE),
            lookup_after: Duration::from_secs(5 * MINUTE),
            first_check: Duration::from_secs(12 * MINUTE),
            check_every: Duration::from_secs(20 * MINUTE),
            missing_after: Duration::from_secs(10 * MINUTE),
            missing_apart: Duration::from_secs(5 * MINUTE),
            stop_every: Duration::from_secs(30),
            backoff: Duration::from_secs(5),
            backoff_most: Duration::from_secs(MINUTE),
            denied_for: Duration::from_secs(60 * MINUTE),
            head_start: Duration::from_secs(10 * MINUTE),
            silent_after: Duration::from_secs(5 * MINUTE),
            rest: Duration::from_secs(150),
            runner_launch: Duration::from_secs(10 * MINUTE),
            passed_over: Duration::from_secs(10),
            runner_counted: Duration::from_secs(10 * MINUTE),
            index_lag: Duration::from_secs(10),
            minute: Duration::from_secs(MINUTE),
            give_up_after: Duration::from_secs(24 * 60 * MINUTE),
            wait_for_capacity: Duration::from_secs(60 * MINUTE),
            no_capacity_for: Duration::from_secs(24 * 60 * MINUTE),
        }
    }
}

impl Timers {
    /// All of them divided by `scale`, for tests against a stand-in that runs as much faster. In production this is 1:
    /// ECS's own hour and day do not scale.
    pub fn scaled(self, scale: f64) -> Self {
        let by = |duration: Duration| duration.div_f64(scale);
        Self {
            send_within: by(self.send_within),
            lease: by(self.lease),
            repeat_for: by(self.repeat_for),
            lookup_after: by(self.lookup_after),
            first_check: by(self.first_check),
            check_every: by(self.check_every),
            missing_after: by(self.missing_after),
            missing_apart: by(self.missing_apart),
            stop_every: by(self.stop_every),
            backoff: by(self.backoff),
            backoff_most: by(self.backoff_most),
            denied_for: by(self.denied_for),
            head_start: by(self.head_start),
            silent_after: by(self.silent_after),
            rest: by(self.rest),
            runner_launch: by(self.runner_launch),
            passed_over: by(self.passed_over),
            runner_counted: by(self.runner_counted),
            index_lag: by(self.index_lag),
            minute: by(self.minute),
            give_up_after: by(self.give_up_after),
            wait_for_capacity: by(self.wait_for_capacity),
            no_capacity_for: by(self.no_capacity_for),
        }
    }
}
