//! The record of a submission: one row of the table.
//!
//! A [`Record`] holds what lasts as long as the submission. [`Attempt`] holds what a next attempt starts without, and
//! [`LaunchCalls`] what lasts until ECS answers a RunTask call. The row holds the attributes of all three side by side.

mod attempt;
mod calls;
mod content;
mod kind;
mod placement;
pub mod shown;
mod size;

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    capacity::{Choice, Shape},
    id::{AttemptNumber, PlacementHash, ProfileName, StartedBy, SubmissionId},
    notify::{Notified, Notify, PendingNotifications},
    pool::{PoolKey, Pooled, Process, Runner},
    priority::Priority,
    profile::{Policy, Relaunch},
    rules::{Rules, Timers},
    run_task::FrozenRequest,
    state::{IllegalChange, State},
    time::Timestamp,
};

pub use self::{
    attempt::{Attempt, Hint},
    calls::{Call, LaunchCalls},
    content::ContentHash,
    kind::Kind,
    placement::{DUE_SHARDS, QUEUE, REPEAT, RUNNERS, waiting},
    size::RECORD_BYTES,
};
pub(crate) use self::{content::canonical, placement::jitter};

/// The version of the row's layout that this code writes. Functions of two versions run side by side for a while. A write
/// names only the attributes that it changes, so an attribute that is unknown to it survives.
pub const SCHEMA: u8 = 1;

/// The limit on the labels of a submission in bytes, keys and values together.
pub const LABEL_BYTES: usize = 200;

/// The limit on attempts of a submission that may have started a container.
pub const MOST_ATTEMPTS: u16 = 99;

/// The number of texts on earlier attempts that a record keeps. The newest are the most useful.
pub const ATTEMPTS_KEPT: usize = 10;

/// The time for which the row of a runner is kept after its end.
const RUNNER_KEPT: Duration = Duration::from_secs(86_400);

/// The `expires_at` of a record that is not settled, so that DynamoDB does not remove it: the last second of the year 9999.
pub const NEVER: u64 = 253_402_300_799;

/// A submission or a runner, as the table holds it. An attribute that is not set is absent there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The key, chosen by the caller.
    pub submission_id: SubmissionId,
    /// The version of the row's layout.
    pub schema: u8,
    /// The number of writes. Every write increments it, on condition that it is unchanged.
    pub rev: u64,
    /// The state. It changes only through [`Record::change_to`].
    state: State,
    /// The current attempt.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// The kind of the row.
    #[serde(flatten)]
    pub kind: Kind,

    /// The profile, or none if only a stop is known of this ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// The container that runs the command, or empty if only a stop is known of this ID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// The cluster by name or ARN, or empty if only a stop is known of this ID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The profile's policy at acceptance; absent if it is the default.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
    /// The RunTask request, frozen at acceptance; absent as soon as no launch can follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<FrozenRequest>,
    /// SHA-256 of command, overrides and profile, or none if only a stop is known of this ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<ContentHash>,
    /// The hash of the overrides that affect placement; absent if no override does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementHash>,
    /// The caller's labels, at most [`LABEL_BYTES`] in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The time after which it is not launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_deadline: Option<Timestamp>,
    /// The priority.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,

    /// The reasons for which earlier attempts ended, the last [`ATTEMPTS_KEPT`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<String>,
    /// The first capacity option of an attempt, if a relaunch skips the earlier ones.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub first_choice: u8,
    /// The number of attempts that do not count towards `max_attempts`.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub uncounted: u8,
    /// The number of attempts that ended before a container started, because ECS gave up waiting for capacity. They count
    /// towards no limit.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub given_up: u16,
    /// The container of an earlier attempt may have started.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub ran_before: bool,
    /// The requested stop, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_requested: Option<Stop>,

    /// The notifications of its end that are not delivered yet; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_notifications: Option<Box<PendingNotifications>>,
    /// The delivered notifications of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified: Option<Box<Notified>>,

    /// The time of acceptance.
    pub created_at: Timestamp,
    /// The time of the last write.
    pub updated_at: Timestamp,
    /// The time at which DynamoDB may remove the row, in seconds as its time to live requires. The ID may be used again
    /// then. [`NEVER`] until the record is terminal and no notification is pending.
    pub expires_at: u64,

    /// Partition of the `pool` index, for waiting submissions and for runners that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Sort key of the `pool` index: the time of submission, less the head start of its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<Timestamp>,
    /// Partition of the `due` index; absent once the record is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The only timer: the time by which something should have happened; absent once the record is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_at: Option<Timestamp>,
    /// Partition of the `feed` index; set by the terminal write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
    /// The time of the terminal write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
}

/// A requested stop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stop {
    /// The cause of the request.
    pub cause: StopCause,
    /// The reason that came with it.
    pub reason: String,
}

/// The cause of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// The caller requested it.
    User,
    /// The task was launched and did not run in time.
    LaunchTimeout,
    /// The command ran for too long.
    RunTimeout,
}

/// A new submission, validated and merged with its profile.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The ID, chosen by the caller.
    pub submission_id: SubmissionId,
    /// The profile's name.
    pub profile: ProfileName,
    /// The container that runs the command.
    pub container_name: String,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// The profile's policy.
    pub policy: Policy,
    /// The merged RunTask request.
    pub request: FrozenRequest,
    /// The hash of the overrides that affect placement.
    pub placement: Option<PlacementHash>,
    /// The hash by which a repeated submission is recognized.
    pub content_hash: ContentHash,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// The caller's deadline.
    pub launch_deadline: Option<Timestamp>,
    /// The priority.
    pub priority: Priority,
    /// The pool key whose runners claim it, or none if it is launched as a task of its own.
    pub pool: Option<PoolKey>,
    /// The notification targets.
    pub notify: Notify,
}

impl Record {
    /// Creates the record of a new submission, `queued` and due immediately.
    pub fn queued(submission: Submission, now: Timestamp, rules: &Rules) -> Self {
        let mut record = Self {
            kind: submission.pool.map_or(Kind::Container, |key| Kind::Pooled(Box::new(Pooled { key, taken: None }))),
            profile: Some(submission.profile),
            container_name: submission.container_name,
            cluster: submission.cluster,
            policy: submission.policy,
            request: Some(submission.request),
            placement: submission.placement,
            content_hash: Some(submission.content_hash),
            labels: submission.labels,
            launch_deadline: submission.launch_deadline,
            priority: submission.priority,
            pending_notifications: (!submission.notify.is_empty()).then(|| Box::new(submission.notify.into())),
            due: Some(QUEUE.to_owned()),
            check_at: Some(now.minus(submission.priority.head_start(&rules.timers))),
            ..Self::blank(submission.submission_id, State::Queued, now)
        };
        if record.pooled().is_some() {
            record.enter_the_index(rules);
            record.wait_for_a_runner(now, rules);
            record.place(now, rules);
        }
        if record.is_past_deadline(now) {
            record.state = State::Expired;
            record.ended("the launch deadline had passed when it was submitted", now, rules);
        }
        record
    }

    /// Claims the first RunTask call of a new submission through one of its [`choices`](Self::choices), in the write that
    /// creates its record. Returns none if its deadline has passed, or if a runner claims it.
    ///
    /// The timer is set for the first check of the task, so that the launch need not move it. With an earlier launch
    /// deadline, it is set for the last time at which an unanswered call can be repeated. If RunTask is never called,
    /// reconcile finds the expired lease then, or as soon as the caller submits again.
    pub fn launch(&mut self, choice: u8, now: Timestamp, rules: &Rules) -> Option<Call> {
        if self.state != State::Queued || self.pooled().is_some() {
            return None;
        }
        self.attempt.fallback = choice;
        let call = self.claim(now, rules).ok()?;
        let Timers { first_check, lease, send_within, .. } = rules.timers;
        let repeatable = self.launch_deadline.map(|deadline| deadline.minus(send_within).max(now.plus(lease)));
        let first_check = now.plus(first_check);
        self.check_at = Some(repeatable.map_or(first_check, |at| at.min(first_check)));
        // The partition in which the launch leaves it. To move a row of an index costs two writes.
        self.due = Some(placement::shard(&self.submission_id));
        Some(call)
    }

    /// Creates the record of a new submission that is launched through its profile's own `run_task`. See
    /// [`launch`](Self::launch).
    pub fn launching(submission: Submission, now: Timestamp, rules: &Rules) -> (Self, Option<Call>) {
        let mut record = Self::queued(submission, now, rules);
        let call = record.launch(0, now, rules);
        (record, call)
    }

    /// Creates the record of a new submission whose profile has no capacity. It is `queued` until capacity is available.
    pub fn waiting(submission: Submission, now: Timestamp, rules: &Rules) -> Self {
        let mut record = Self::queued(submission, now, rules);
        record.wait_for_capacity(now, rules);
        record
    }

    /// Creates the record of a new runner, which is launched once under the submission's request.
    pub fn new_runner(submission: Submission, runner: Runner, now: Timestamp, rules: &Rules) -> Self {
        let policy = Policy {
            max_attempts: AttemptNumber::FIRST,
            relaunch_on: Vec::new(),
            run_timeout: None,
            ..submission.policy
        };
        let mut record = Self::queued(Submission { policy, pool: None, ..submission }, now, rules);
        record.kind = Kind::Runner(Box::new(runner));
        record.enter_the_index(rules);
        record.check_at = Some(now);
        record.place(now, rules);
        record
    }

    /// Creates the record of a stop for an unknown ID. A submission that the stop overtook finds it, and is never launched.
    pub fn tombstone(submission_id: SubmissionId, reason: &str, now: Timestamp, rules: &Rules) -> Self {
        let mut record = Self::blank(submission_id, State::Cancelled, now);
        record.stop_requested = Some(Stop { cause: StopCause::User, reason: reason.to_owned() });
        record.ended(reason, now, rules);
        record.fit();
        record
    }

    fn blank(submission_id: SubmissionId, state: State, now: Timestamp) -> Self {
        Self {
            submission_id,
            schema: SCHEMA,
            rev: 1,
            state,
            attempt: Attempt::new(AttemptNumber::FIRST, 0),
            kind: Kind::Container,
            profile: None,
            container_name: String::new(),
            cluster: String::new(),
            policy: Policy::default(),
            request: None,
            content_hash: None,
            placement: None,
            labels: BTreeMap::new(),
            launch_deadline: None,
            priority: Priority::default(),
            attempts: Vec::new(),
            first_choice: 0,
            uncounted: 0,
            given_up: 0,
            ran_before: false,
            stop_requested: None,
            pending_notifications: None,
            notified: None,
            created_at: now,
            updated_at: now,
            expires_at: NEVER,
            pool: None,
            rank: None,
            due: None,
            check_at: None,
            feed: None,
            changed_at: None,
        }
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Changes the state.
    ///
    /// # Errors
    /// If [`State::successors`] does not have the change. The state is unchanged then.
    pub fn change_to(&mut self, state: State) -> Result<(), IllegalChange> {
        self.state = self.state.change_to(state)?;
        Ok(())
    }

    /// Returns the pool data of a pooled submission.
    pub fn pooled(&self) -> Option<&Pooled> {
        self.kind.pooled()
    }

    /// Returns the runner data of a runner's row.
    pub fn runner(&self) -> Option<&Runner> {
        self.kind.runner()
    }

    pub(crate) fn pooled_mut(&mut self) -> Option<&mut Pooled> {
        match &mut self.kind {
            Kind::Pooled(pooled) => Some(pooled),
            Kind::Container | Kind::Runner(_) => None,
        }
    }

    pub(crate) fn runner_mut(&mut self) -> Option<&mut Runner> {
        match &mut self.kind {
            Kind::Runner(runner) => Some(runner),
            Kind::Container | Kind::Pooled(_) => None,
        }
    }

    /// Returns the process that has claimed it, if it is pooled and claimed.
    pub fn taken(&self) -> Option<&Process> {
        self.pooled()?.taken.as_ref()
    }

    /// Returns the capacity options through which its current attempt may be launched.
    pub fn choices(&self) -> RangeInclusive<u8> {
        self.first_choice.min(self.policy.fallbacks)..=self.policy.fallbacks
    }

    /// Returns its shape and the first capacity option of its current attempt, or none if only a stop is known of this ID.
    pub fn first(&self) -> Option<Choice> {
        Some(self.shape()?.choice(*self.choices().start()))
    }

    /// Returns the part of the request on which capacity depends, or none if only a stop is known of this ID.
    pub fn shape(&self) -> Option<Shape> {
        Some(Shape { profile: self.profile.clone()?, placement: self.placement.clone() })
    }

    /// Returns true if `other` requests the same work. The record of a stop stands for any content.
    pub fn is_same_work(&self, other: &ContentHash) -> bool {
        self.content_hash.as_ref().is_none_or(|own| own == other)
    }

    /// Returns true if it may not be launched any more.
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.launch_deadline.is_some_and(|deadline| now > deadline)
    }

    /// Returns the `startedBy` of the current attempt's task.
    pub fn started_by(&self, rules: &Rules) -> StartedBy {
        StartedBy {
            deployment: rules.deployment.clone(),
            submission_id: self.submission_id.clone(),
            attempt: self.attempt.number,
        }
    }

    /// Changes the state to `launching` and claims the next RunTask call.
    pub(crate) fn claim(&mut self, now: Timestamp, rules: &Rules) -> Result<Call, IllegalChange> {
        self.change_to(State::Launching)?;
        let Attempt { number, fallback, calls, .. } = &mut self.attempt;
        let since = *calls.unanswered_since.get_or_insert(now);
        calls.launch_calls += 1;
        calls.last_call_at = Some(now);
        self.check_at = Some(now.plus(rules.timers.lease));
        Ok(Call { attempt: *number, choice: *fallback, since, nth: calls.launch_calls, claimed_at: now })
    }

    /// Starts the next attempt, which inherits nothing of the current one but `reason` in the list of
    /// [`attempts`](Self::attempts).
    pub(crate) fn start_attempt(&mut self, number: AttemptNumber, reason: String) -> Result<(), IllegalChange> {
        self.change_to(State::Queued)?;
        self.attempts.push(reason);
        let excess = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..excess);
        self.attempt = Attempt::new(number, *self.choices().start());
        // It may have waited for capacity, which was available then.
        self.due = None;
        Ok(())
    }

    /// Changes the state to a terminal one. The record is on the feed and has no request any more. Its timer is unset,
    /// unless a notification is pending.
    pub(crate) fn end(
        &mut self,
        state: State,
        reason: impl Into<String>,
        now: Timestamp,
        rules: &Rules,
    ) -> Result<(), IllegalChange> {
        self.change_to(state)?;
        self.ended(reason, now, rules);
        Ok(())
    }

    fn ended(&mut self, reason: impl Into<String>, now: Timestamp, rules: &Rules) {
        let reason = reason.into();
        self.attempt.reason = (!reason.is_empty()).then_some(reason);
        self.request = None;
        self.leave_the_index();
        // A runner is no submission of a caller, so no executor reads it, and no caller asks for it.
        self.feed = self.runner().is_none().then(|| rules.deployment.to_string());
        self.changed_at = Some(now);
        self.settle_or_notify(now, rules);
        self.attempt.calls = LaunchCalls::default();
        self.attempt.clear_refusals();
        self.attempt.clear_failed_lookups();
        self.attempt.no_capacity_since = None;
    }

    /// Unsets the timer of an ended record and lets it expire. If a notification is pending, the record is due instead.
    pub(crate) fn settle_or_notify(&mut self, now: Timestamp, rules: &Rules) {
        if self.pending_notifications.is_some() {
            (self.due, self.check_at) = (Some(placement::shard(&self.submission_id)), Some(now));
            self.expires_at = NEVER;
            return;
        }
        (self.due, self.check_at) = (None, None);
        let kept = if self.runner().is_some() { rules.retention.min(RUNNER_KEPT) } else { rules.retention };
        self.expires_at = self.changed_at.unwrap_or(now).plus(kept).seconds();
    }

    /// Redacts command and environment in a text of ECS, as long as the request is known.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.request.as_ref().map_or_else(|| text.to_owned(), |request| request.redact(text))
    }

    /// The number of attempts that may have started a container, including the current one.
    fn begun(&self) -> u16 {
        self.attempt.number.get().saturating_sub(self.given_up)
    }

    /// Returns true if `max_attempts` allows another attempt.
    pub(crate) fn has_attempts_left(&self) -> bool {
        self.begun().saturating_sub(self.uncounted.into()) < self.policy.max_attempts.get()
    }

    /// Returns the entries of `relaunch_on` that still allow another attempt.
    pub(crate) fn relaunches(&self) -> impl Iterator<Item = &Relaunch> {
        let has_attempts_left = self.has_attempts_left();
        let has_another = self.begun() < MOST_ATTEMPTS && self.attempt.number.next().is_some();
        let relaunches = self.policy.relaunch_on.iter().filter(move |_| has_another);
        relaunches.filter(move |relaunch| has_attempts_left || !relaunch.counts)
    }

    /// Returns true if another attempt follows when ECS gives up waiting for capacity. A runner is launched only once.
    pub(crate) fn waits_for_its_capacity(&self) -> bool {
        self.kind == Kind::Container && self.attempt.number.next().is_some()
    }

    /// Returns true if another attempt may follow, so that the request must be kept.
    pub(crate) fn may_relaunch(&self) -> bool {
        let has_another = self.attempt.number.next().is_some() && self.stop_requested.is_none();
        let may_never_start = (self.has_attempts_left() || self.waits_for_its_capacity()) && !self.attempt.seen_running;
        has_another && (self.relaunches().next().is_some() || may_never_start)
    }
}

/// Returns true if an attribute has its default, so that the row omits it.
fn is_unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{now, rules, submission};

    #[test]
    fn submission_past_deadline_is_created_expired() {
        let late =
            Submission { launch_deadline: Some(Timestamp::from_millis(now().millis() - 1)), ..submission("late") };
        let (record, call) = Record::launching(late, now(), &rules());
        assert_eq!((record.state, call.is_none(), record.request.is_none()), (State::Expired, true, true));
        assert!(record.feed.is_some() && record.check_at.is_none());
    }

    #[test]
    fn public_record_has_no_request_and_no_bookkeeping() {
        let shown = Record::queued(submission("shown"), now(), &rules()).public();
        let members: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(members.contains(&"state"), "{members:?}");
        for hidden in ["request", "content_hash", "rev", "due", "check_at", "feed", "changed_at"] {
            assert!(!members.contains(&hidden), "{hidden}");
        }
    }

    #[test]
    fn record_of_a_stop_stands_for_any_content() {
        let stop = Record::tombstone("x".parse().unwrap(), "not needed", now(), &rules());
        assert!(stop.is_same_work(&submission("x").content_hash));
        assert_eq!((stop.state, stop.attempt.reason.as_deref()), (State::Cancelled, Some("not needed")));
    }

    #[test]
    fn next_attempt_inherits_only_the_list_of_reasons() {
        let (mut record, _) = Record::launching(submission("twice"), now(), &rules());
        record.change_to(State::Launched).unwrap();
        record.attempt.task_arn = Some("arn".to_owned());
        record.attempt.refusals = 3;
        record.first_choice = 1;
        record.policy.fallbacks = 2;
        let second = record.attempt.number.next().unwrap();
        record.start_attempt(second, "interrupted".to_owned()).unwrap();
        assert_eq!(record.attempt, Attempt::new(second, 1));
        assert_eq!(record.attempts, ["interrupted"]);
    }

    #[test]
    fn illegal_change_leaves_the_record_unchanged() {
        let stop = Record::tombstone("x".parse().unwrap(), "not needed", now(), &rules());
        let mut changed = stop.clone();
        let error = changed.claim(now(), &rules()).unwrap_err();
        assert_eq!((error.from, error.to), (State::Cancelled, State::Launching));
        assert_eq!(changed, stop);
    }

    #[test]
    fn row_holds_attributes_side_by_side() {
        let row = serde_json::to_value(Record::queued(submission("flat"), now(), &rules())).unwrap();
        assert_eq!((&row["attempt"], &row["state"]), (&1.into(), &"queued".into()));
        assert!(row.as_object().unwrap().values().all(|value| !value.is_null()));
        assert_eq!(serde_json::from_value::<Record>(row.clone()).unwrap().attempt.number, AttemptNumber::FIRST);
        let mut both = row;
        both["pooled"] = serde_json::json!({"key": "k"});
        both["runner"] = serde_json::json!({});
        assert!(serde_json::from_value::<Record>(both).is_err());
    }
}
