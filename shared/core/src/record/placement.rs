//! The indexes of the table: in which partition a record stands, and at which time it is due there.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{
    capacity::Choice,
    id::{AttemptNumber, SubmissionId},
    record::{Kind, Record},
    rules::Rules,
    state::State,
    time::Timestamp,
};

/// The number of partitions of the `due` index over which the timers are spread: `0`, `1`, …
pub const DUE_SHARDS: u8 = 4;

/// The partition of the `due` index for new submissions that are `queued`, in the order of their priority. It is apart from
/// the timers, so that no stop and no check waits behind submissions that wait for the launch rate.
pub const QUEUE: &str = "queued";

/// The partition of the `due` index for repeated launches: unanswered launches, rejected launches and next attempts. They
/// need a launch token too.
pub const REPEAT: &str = "repeat";

/// The partition of the `due` index for runners to launch. They are launched after all submissions.
pub const RUNNERS: &str = "runners";

const WAITING: &str = "waiting/";

/// Returns the partition of the `due` index for submissions of one shape that begin with this choice, while none of their
/// capacity options has capacity. The order is that of their launch deadlines. Any later choice may launch each of them,
/// so an option that has capacity again finds a submission for it.
pub fn waiting(first: &Choice) -> String {
    format!("{WAITING}{first}")
}

impl Record {
    /// Enters the `pool` index, as a waiting submission or as a runner.
    pub(crate) fn enter_the_index(&mut self, rules: &Rules) {
        self.pool = match &mut self.kind {
            Kind::Container => None,
            Kind::Pooled(pooled) => {
                pooled.taken = None;
                Some(pooled.key.waiting())
            }
            Kind::Runner(runner) => Some(runner.key.runners()),
        };
        self.rank = self.pool.as_ref().map(|_| self.priority.rank(self.created_at, &rules.timers));
    }

    pub(crate) fn leave_the_index(&mut self) {
        (self.pool, self.rank) = (None, None);
    }

    /// Sets the timer of a submission that waits for a runner. It expires just after the launch deadline, or when reconcile
    /// checks whether a runner can still serve the pool key: after a minute, after an hour, and then once a day.
    pub(crate) fn wait_for_a_runner(&mut self, now: Timestamp, rules: &Rules) {
        let minute = rules.timers.minute;
        let waited = now.since(self.created_at);
        let checks = [minute, minute * 60].into_iter().find(|check| waited < *check);
        let check_at = checks.map_or(now.plus(minute * 60 * 24), |check| self.created_at.plus(check));
        let past_deadline = self.launch_deadline.map(|deadline| deadline.plus(Duration::from_millis(1)));
        self.check_at = Some(past_deadline.map_or(check_at, |at| at.min(check_at)));
    }

    /// Moves a queued submission to the partition that waits for capacity. Its timer expires at its launch deadline, or
    /// after [`Timers::wait_for_capacity`](crate::Timers::wait_for_capacity), which costs next to nothing.
    pub fn wait_for_capacity(&mut self, now: Timestamp, rules: &Rules) {
        // A pooled submission is launched by no capacity option. A runner is launched only while a submission waits.
        let (State::Queued, Some(first), Kind::Container) = (self.state(), self.first(), &self.kind) else { return };
        self.attempt.no_capacity_since.get_or_insert(now);
        let expires = self.launch_deadline.map(|deadline| deadline.plus(Duration::from_millis(1)));
        let longest = now.plus(rules.timers.wait_for_capacity);
        let by = expires.map_or(longest, |expires| expires.min(longest));
        // The order of launches. A submission that is checked that early goes on waiting until its deadline.
        let early = by.minus(self.priority.head_start(&rules.timers));
        self.check_at = Some(if early > now { early } else { by });
        self.due = Some(waiting(&first));
        self.attempt.reason.get_or_insert_with(|| {
            let overrides = if first.shape.placement.is_some() { " with the overrides of this submission" } else { "" };
            format!("ECS has no capacity for profile {}{overrides}", first.shape.profile)
        });
    }

    /// Returns true if the submission waits until a probe finds capacity for its shape.
    pub fn waits_for_capacity(&self) -> bool {
        self.state() == State::Queued && self.due.as_deref().is_some_and(|due| due.starts_with(WAITING))
    }

    /// Returns true if its unanswered launch may be repeated at this time: ECS still knows the client token, and the caller
    /// still wants the launch.
    pub fn may_repeat(&self, at: Timestamp, rules: &Rules) -> bool {
        self.state() == State::Launching
            && self.stop_requested.is_none()
            && !self.is_past_deadline(at)
            && self.attempt.calls.unanswered_since.is_some_and(|since| at < since.plus(rules.timers.repeat_for))
    }

    /// Sets the partition of the `due` index that serves the record in its state. A launch needs a launch token, and
    /// nothing else waits behind launches.
    pub(crate) fn place(&mut self, now: Timestamp, rules: &Rules) {
        let Some(check_at) = self.check_at else { return };
        self.due = Some(match (self.state(), &self.kind) {
            (State::Queued, _) if self.waits_for_capacity() => return,
            (State::Queued, Kind::Pooled(_)) => shard(&self.submission_id),
            (State::Queued, Kind::Runner(_)) => RUNNERS.to_owned(),
            // A rejected launch or a next attempt would wait behind the head starts of new submissions.
            (State::Queued, Kind::Container) if self.is_repeated() => REPEAT.to_owned(),
            (State::Queued, Kind::Container) => QUEUE.to_owned(),
            (State::Launching, _) if self.may_repeat(check_at.max(now), rules) => REPEAT.to_owned(),
            (State::Launching | State::Launched | State::Running, _) => shard(&self.submission_id),
            (
                State::Succeeded | State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Lost,
                _,
            ) => return,
        });
    }

    /// Returns true if a launch of the submission was rejected, or if this is not its first attempt.
    fn is_repeated(&self) -> bool {
        self.attempt.refusals > 0 || self.attempt.fallback > 0 || self.attempt.number != AttemptNumber::FIRST
    }
}

/// Returns the partition of the `due` index for the timer of a record that needs no launch.
pub(super) fn shard(submission_id: &SubmissionId) -> String {
    (jitter(submission_id, 0) % u64::from(DUE_SHARDS)).to_string()
}

/// Returns a number that looks random, and is the same for the same submission and count.
pub(crate) fn jitter(submission_id: &SubmissionId, count: u32) -> u64 {
    let digest = Sha256::new().chain_update(submission_id.as_str()).chain_update(count.to_be_bytes()).finalize();
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}
