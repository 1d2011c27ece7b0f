//! The record of a submission: one row of the table, attribute by attribute.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    capacity::{Choice, Shape},
    id::{Attempt, PlacementHash, ProfileName, StartedBy, SubmissionId},
    notify::{Notified, Notify, PendingNotifications},
    pool::{PoolKey, Pooled, Process, Runner},
    priority::Priority,
    profile::{Policy, Relaunch},
    rules::{Rules, Timers},
    run_task::FrozenRequest,
    state::State,
    time::Timestamp,
};

/// The layout that this code writes. Functions of two versions run side by side for a while: a write names
/// only the attributes that it changes, so that one which it does not know survives.
pub const SCHEMA: u8 = 1;

/// How many partitions of the `due` index the timers are spread over: `0`, `1`, …
pub const DUE_SHARDS: u8 = 4;

/// The partition of the `due` index for new submissions that are `queued`, in the order of their priority: apart from the timers, so that however much waits for the
/// launch rate, no stop and no check waits behind it.
pub const QUEUE: &str = "queued";

/// The partition of the `due` index for what is to be launched again: unanswered launches, refused ones, and next
/// attempts. They need a launch token too.
pub const REPEAT: &str = "repeat";

const WAITING: &str = "waiting/";

/// The partition of the `due` index for what is `queued` while nothing that it may be launched by has capacity, in the
/// order of the launch deadlines: of submissions of one shape, which begin with this choice. All of them may be launched by
/// any later choice, so that whichever has capacity again finds one to be launched by it.
pub fn waiting(first: &Choice) -> String {
    format!("{WAITING}{first}")
}

/// The size in bytes that the texts of a record are cut for, DynamoDB's unit of writing. It holds for clusters and
/// containers with names of usual length.
pub const RECORD_BYTES: usize = 1024;

/// How many bytes the labels of a submission may take, keys and values together.
pub const LABEL_BYTES: usize = 200;

/// The most attempts of a submission that may begin a container.
pub const MOST_ATTEMPTS: u16 = 99;

/// How many texts of earlier attempts a record keeps: the row has a place for so many, and the newest say the most.
pub const ATTEMPTS_KEPT: usize = 10;

/// The partition of the `due` index for runners that are to be launched: after everything else that is.
pub const RUNNERS: &str = "runners";

/// How long the row of a runner is kept once it is over.
const RUNNER_KEPT: Duration = Duration::from_secs(86_400);

/// `expires_at` of a record that is not terminal: DynamoDB never removes it. The last second of the year 9999.
pub const NEVER: u64 = 253_402_300_799;

const SHORTEST_TEXT: usize = 16;

/// A submission as the table holds it. An attribute that is not set is absent there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The key, chosen by the caller.
    pub submission_id: SubmissionId,
    /// The layout of the row.
    pub schema: u8,
    /// Raised by every write; what a write is conditional on.
    pub rev: u64,
    /// Where the submission stands.
    pub state: State,
    /// The current attempt.
    pub attempt: Attempt,
    /// The profile that was asked for; none if only a stop is known of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// The container that runs the command; empty if only a stop is known of this id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// The cluster, by name or ARN; empty if only a stop is known of this id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The policy of the profile as it was at acceptance; absent where it is the default one.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
    /// The RunTask request, frozen at acceptance; gone once it cannot be needed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<FrozenRequest>,
    /// SHA-256 of command, overrides and profile name; none if only a stop is known of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<ContentHash>,
    /// The caller's own words about it, at most [`LABEL_BYTES`] in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// After this moment it is not launched any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_deadline: Option<Timestamp>,

    /// The task of the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// The version of the task that was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_version: Option<u64>,
    /// The task's `lastStatus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<String>,
    /// The task's `desiredStatus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_status: Option<String>,
    /// The capacity provider of the task, or else its launch type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_on: Option<String>,
    /// CPU units of the task; 1,024 are a vCPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Memory of the task in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// What the end of the container suggests, and does not prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// The named container's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The task's `stopCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<String>,
    /// The task's `stoppedReason`, cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
    /// Our own words on why it is where it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How the attempts before this one ended, the last [`ATTEMPTS_KEPT`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<String>,

    /// When the first RunTask of this attempt was claimed, while nothing has answered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_since: Option<Timestamp>,
    /// How many RunTask calls were claimed since then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub launch_calls: u32,
    /// When the last of them was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_call_at: Option<Timestamp>,
    /// By which choice the current attempt is launched: 0 is the profile's own `run_task`, n its n-th fallback.
    #[serde(default, skip_serializing_if = "is_first")]
    pub fallback: u8,
    /// The first choice of this attempt, where a relaunch has passed over those before.
    #[serde(default, skip_serializing_if = "is_first")]
    pub first_choice: u8,
    /// How many of the attempts do not count towards `max_attempts`.
    #[serde(default, skip_serializing_if = "is_first")]
    pub uncounted: u8,
    /// How many of the attempts ended before a container was begun, because ECS gave up waiting for capacity. They count
    /// towards no limit.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub given_up: u16,
    /// ECS has said that the task is over, is asked again, and the next attempt waits for that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub asked_again: bool,
    /// How many refusals for now this attempt met, each of them after the last choice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    /// Since when ECS has denied access to RunTask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_since: Option<Timestamp>,
    /// Since when ECS has had no capacity for it: from a refusal until its task runs, as a capacity provider may give up on
    /// it after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_capacity_since: Option<Timestamp>,
    /// ECS refused a request of this attempt in `failures[]`, and other choices are tried: AWS does not promise that
    /// nothing was launched, and those have other client tokens.
    #[serde(default, skip_serializing_if = "is_false")]
    pub was_refused: bool,
    /// The overrides that matter for where ECS can place it; absent for the profile as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementHash>,
    /// Since when ECS has failed to describe the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup_failed_since: Option<Timestamp>,
    /// How many counted lookups by `startedBy` found nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lookups: u32,
    /// When the last of them began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_up_at: Option<Timestamp>,
    /// How many counted times in a row ECS called the task MISSING.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_count: u32,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_at: Option<Timestamp>,
    /// The current attempt's task or container was seen RUNNING.
    #[serde(default, skip_serializing_if = "is_false")]
    pub seen_running: bool,
    /// The container of an earlier attempt may have started.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ran_before: bool,
    /// Why it is to be stopped, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_requested: Option<Stop>,

    /// The notifications of its end that are not delivered yet; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_notifications: Option<Box<PendingNotifications>>,
    /// The notifications of its end that were delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notified: Option<Box<Notified>>,

    /// When it was accepted.
    pub created_at: Timestamp,
    /// When ECS was first known to have a task for the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Timestamp>,
    /// When the task started, by ECS; else when it was first seen RUNNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the named container ended, as near as ECS reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_exited_at: Option<Timestamp>,
    /// When the task was torn down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    /// When this row was last written.
    pub updated_at: Timestamp,
    /// When DynamoDB may remove the row, and the id may be used again; in seconds, as its time to live wants it.
    /// [`NEVER`] until the record is terminal and no notification is pending.
    pub expires_at: u64,

    /// Its pool, where runners take it; absent where it is launched in a container of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooled: Option<Box<Pooled>>,
    /// What makes it a runner; absent for submissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Box<Runner>>,
    /// How early it is served.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// Partition of the `pool` index: of submissions that wait, and of runners that are not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Sort key of the `pool` index: when it was submitted, less the head start of its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<Timestamp>,

    /// Partition of the `due` index; absent once it [is over](Self::is_over).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The time by which something should have been heard; absent once it [is over](Self::is_over).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_at: Option<Timestamp>,
    /// Partition of the `feed` index; set by the terminal write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
    /// When it became terminal; set by that write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
}

/// What the end of a container suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// It ran out of memory: ECS says `OutOfMemoryError`, or it was killed and nothing shows by whom.
    OutOfMemory,
}

/// That a submission is to be stopped, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stop {
    /// Who or what asked.
    pub cause: StopCause,
    /// The words that came with it.
    pub reason: String,
}

/// Who or what asked for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// The caller.
    User,
    /// It was launched, and not running in time.
    LaunchTimeout,
    /// It ran for too long.
    RunTimeout,
}

/// SHA-256 over what makes two submissions the same work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(#[serde(with = "serde_bytes")] [u8; 32]);

impl ContentHash {
    /// Of command, overrides and profile; deadline and labels do not count. Objects hash alike in any order of keys.
    pub fn of(command: &[String], overrides: &Value, profile: &ProfileName) -> Self {
        let command = Value::from(command.to_vec());
        let mut digest = Sha256::new();
        for part in [&command, overrides, &Value::from(profile.as_str())] {
            digest.update(canonical(part));
            digest.update([0]);
        }
        Self(digest.finalize().into())
    }
}

pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let members =
                sorted.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// What a new submission brings, checked and merged with its profile.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its id.
    pub submission_id: SubmissionId,
    /// The profile's name.
    pub profile: ProfileName,
    /// The container that is to run the command.
    pub container_name: String,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// The profile's policy.
    pub policy: Policy,
    /// The merged RunTask request.
    pub request: FrozenRequest,
    /// The overrides that matter for where ECS can place it.
    pub placement: Option<PlacementHash>,
    /// What it is compared by.
    pub content_hash: ContentHash,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// The caller's deadline.
    pub launch_deadline: Option<Timestamp>,
    /// How early it is served.
    pub priority: Priority,
    /// The pool whose runners take it; none where it is launched in a container of its own.
    pub pool: Option<PoolKey>,
    /// Whom to notify of its end.
    pub notify: Notify,
}

/// One claimed RunTask call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Call {
    /// The attempt that it is for.
    pub attempt: Attempt,
    /// By which choice: 0 is the profile's own `run_task`, n its n-th fallback.
    #[serde(default)]
    pub choice: u8,
    /// When the first call of this launch was claimed; with `nth` it identifies the call.
    pub since: Timestamp,
    /// The first, second, … call of this launch.
    pub nth: u32,
    /// When this one was claimed: it is sent soon after, or never.
    pub claimed_at: Timestamp,
}

impl Record {
    /// The record of a new submission, `queued` and due at once.
    pub fn queued(submission: Submission, now: Timestamp, rules: &Rules) -> Self {
        let mut record = Self {
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
            pooled: submission.pool.map(|key| Box::new(Pooled { key, taken: None })),
            pending_notifications: (!submission.notify.is_empty()).then(|| Box::new(submission.notify.into())),
            due: Some(QUEUE.to_owned()),
            check_at: Some(now.minus(submission.priority.head_start(&rules.timers))),
            ..Self::blank(submission.submission_id, now)
        };
        if record.pooled.is_some() {
            record.enter_the_index(rules);
            record.wait_for_a_runner(now, rules);
            record.place(now, rules);
        }
        if record.is_past_deadline(now) {
            record.end(State::Expired, "the launch deadline had passed when it was submitted", now, rules);
        }
        record
    }

    /// Claims the first RunTask call of a new submission in the write that creates its record, by one of its
    /// [`choices`](Self::choices); no call where its deadline has passed, or a runner takes it.
    ///
    /// Its timer is set for the first check of the task already, so that the launch need not move it; with a launch
    /// deadline before that, for the last moment at which an unanswered call can be repeated. Should RunTask never be
    /// called, reconcile finds the expired lease then, or as soon as the caller submits again.
    pub fn launch(&mut self, choice: u8, now: Timestamp, rules: &Rules) -> Option<Call> {
        if self.state != State::Queued || self.pooled.is_some() {
            return None;
        }
        self.fallback = choice;
        let call = self.claim(now, rules);
        let Timers { first_check, lease, send_within, .. } = rules.timers;
        let repeatable = self.launch_deadline.map(|deadline| deadline.minus(send_within).max(now.plus(lease)));
        let first_check = now.plus(first_check);
        self.check_at = Some(repeatable.map_or(first_check, |at| at.min(first_check)));
        // Where its launch leaves it: to move a row of an index costs two writes.
        self.due = Some(shard(&self.submission_id));
        Some(call)
    }

    /// The record of a new submission that is launched by its profile's own choice: see [`launch`](Self::launch).
    pub fn launching(submission: Submission, now: Timestamp, rules: &Rules) -> (Self, Option<Call>) {
        let mut record = Self::queued(submission, now, rules);
        let call = record.launch(0, now, rules);
        (record, call)
    }

    /// The record of a new submission whose profile has no capacity: `queued`, to be launched when that comes back.
    pub fn waiting(submission: Submission, now: Timestamp, rules: &Rules) -> Self {
        let mut record = Self::queued(submission, now, rules);
        record.wait_for_capacity(now, rules);
        record
    }

    /// By what its current attempt may be launched.
    pub fn choices(&self) -> RangeInclusive<u8> {
        self.first_choice.min(self.policy.fallbacks)..=self.policy.fallbacks
    }

    /// What is asked for, and the first choice of its current attempt; none if only a stop is known of this id.
    pub fn first(&self) -> Option<Choice> {
        Some(self.shape()?.choice(*self.choices().start()))
    }

    /// What is asked for, as far as capacity depends on it; none if only a stop is known of this id.
    pub fn shape(&self) -> Option<Shape> {
        Some(Shape { profile: self.profile.clone()?, placement: self.placement.clone() })
    }

    /// How many attempts may have begun a container, the current one included.
    fn begun(&self) -> u16 {
        self.attempt.get().saturating_sub(self.given_up)
    }

    /// Whether another attempt would count towards `max_attempts`, and is one of them.
    pub(crate) fn has_attempts_left(&self) -> bool {
        self.begun().saturating_sub(self.uncounted.into()) < self.policy.max_attempts.get()
    }

    /// After what of `relaunch_on` another attempt is left.
    pub(crate) fn relaunches(&self) -> impl Iterator<Item = &Relaunch> {
        let has_attempts_left = self.has_attempts_left();
        let has_another = self.begun() < MOST_ATTEMPTS && self.attempt.next().is_some();
        let relaunches = self.policy.relaunch_on.iter().filter(move |_| has_another);
        relaunches.filter(move |relaunch| has_attempts_left || !relaunch.counts)
    }

    /// Whether another attempt follows where ECS gives up waiting for capacity. A runner is launched once.
    pub(crate) fn waits_for_its_capacity(&self) -> bool {
        self.runner.is_none() && self.pooled.is_none() && self.attempt.next().is_some()
    }

    /// Makes it `launching` and claims its next RunTask call.
    pub(crate) fn claim(&mut self, now: Timestamp, rules: &Rules) -> Call {
        let since = *self.unanswered_since.get_or_insert(now);
        self.state = State::Launching;
        self.launch_calls += 1;
        self.last_call_at = Some(now);
        self.check_at = Some(now.plus(rules.timers.lease));
        Call { attempt: self.attempt, choice: self.fallback, since, nth: self.launch_calls, claimed_at: now }
    }

    /// The record of a new runner, to be launched under the submission's request. It is launched once, and never again.
    pub fn runner(submission: Submission, runner: Runner, now: Timestamp, rules: &Rules) -> Self {
        let policy =
            Policy { max_attempts: Attempt::FIRST, relaunch_on: Vec::new(), run_timeout: None, ..submission.policy };
        let mut record = Self::queued(Submission { policy, pool: None, ..submission }, now, rules);
        record.runner = Some(Box::new(runner));
        record.enter_the_index(rules);
        record.check_at = Some(now);
        record.place(now, rules);
        record
    }

    /// What a stop for an unknown id leaves: a submission that it overtook finds it, and never launches.
    pub fn tombstone(submission_id: SubmissionId, reason: &str, now: Timestamp, rules: &Rules) -> Self {
        let mut record = Self::blank(submission_id, now);
        record.stop_requested = Some(Stop { cause: StopCause::User, reason: reason.to_owned() });
        record.end(State::Cancelled, reason, now, rules);
        record.fit();
        record
    }

    fn blank(submission_id: SubmissionId, now: Timestamp) -> Self {
        Self {
            submission_id,
            schema: SCHEMA,
            rev: 1,
            state: State::Queued,
            attempt: Attempt::FIRST,
            profile: None,
            container_name: String::new(),
            cluster: String::new(),
            policy: Policy::default(),
            request: None,
            content_hash: None,
            labels: BTreeMap::new(),
            launch_deadline: None,
            task_arn: None,
            ecs_version: None,
            last_status: None,
            desired_status: None,
            runs_on: None,
            cpu: None,
            memory: None,
            hint: None,
            exit_code: None,
            stop_code: None,
            stopped_reason: None,
            reason: None,
            attempts: Vec::new(),
            unanswered_since: None,
            launch_calls: 0,
            last_call_at: None,
            fallback: 0,
            first_choice: 0,
            uncounted: 0,
            given_up: 0,
            asked_again: false,
            refusals: 0,
            denied_since: None,
            no_capacity_since: None,
            was_refused: false,
            placement: None,
            lookup_failed_since: None,
            lookups: 0,
            looked_up_at: None,
            missing_count: 0,
            missing_at: None,
            seen_running: false,
            ran_before: false,
            stop_requested: None,
            pending_notifications: None,
            notified: None,
            created_at: now,
            launched_at: None,
            started_at: None,
            container_exited_at: None,
            stopped_at: None,
            updated_at: now,
            expires_at: NEVER,
            pooled: None,
            runner: None,
            priority: Priority::default(),
            pool: None,
            rank: None,
            due: None,
            check_at: None,
            feed: None,
            changed_at: None,
        }
    }

    /// The process that has taken it, if it is pooled and taken.
    pub fn taken(&self) -> Option<&Process> {
        self.pooled.as_ref()?.taken.as_ref()
    }

    /// Makes it visible to those who look for work, or for runners.
    pub(crate) fn enter_the_index(&mut self, rules: &Rules) {
        if let Some(pooled) = &mut self.pooled {
            pooled.taken = None;
            self.pool = Some(pooled.key.waiting());
        } else if let Some(runner) = &self.runner {
            self.pool = Some(runner.key.runners());
        }
        self.rank = self.pool.as_ref().map(|_| self.priority.rank(self.created_at, &rules.timers));
    }

    pub(crate) fn leave_the_index(&mut self) {
        (self.pool, self.rank) = (None, None);
    }

    /// Sets the timer of a submission that waits for a runner: just past its deadline, or when reconcile checks whether its
    /// pool still knows its key. That is after a minute, after an hour, and then once a day.
    pub(crate) fn wait_for_a_runner(&mut self, now: Timestamp, rules: &Rules) {
        let minute = rules.timers.minute;
        let waited = now.since(self.created_at);
        let checks = [minute, minute * 60].into_iter().find(|check| waited < *check);
        let check_at = checks.map_or(now.plus(minute * 60 * 24), |check| self.created_at.plus(check));
        let past_deadline = self.launch_deadline.map(|deadline| deadline.plus(Duration::from_millis(1)));
        self.check_at = Some(past_deadline.map_or(check_at, |at| at.min(check_at)));
    }

    /// Whether `other` asks for the same work. A bare stop answers any content.
    pub fn is_same_work(&self, other: &ContentHash) -> bool {
        self.content_hash.as_ref().is_none_or(|own| own == other)
    }

    /// Whether it may not be launched any more.
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.launch_deadline.is_some_and(|deadline| now > deadline)
    }

    /// `startedBy` of the current attempt's task.
    pub fn started_by(&self, rules: &Rules) -> StartedBy {
        StartedBy {
            deployment: rules.deployment.clone(),
            submission_id: self.submission_id.clone(),
            attempt: self.attempt,
        }
    }

    /// Makes it terminal: on the feed, its request forgotten, and off the timer, unless a notification is pending.
    pub(crate) fn end(&mut self, state: State, reason: impl Into<String>, now: Timestamp, rules: &Rules) {
        let reason = reason.into();
        self.state = state;
        self.reason = (!reason.is_empty()).then_some(reason);
        self.request = None;
        self.leave_the_index();
        // A runner is nobody's submission: no executor reads of it, and nobody asks for it again.
        let is_runner = self.runner.is_some();
        self.feed = (!is_runner).then(|| rules.deployment.to_string());
        self.changed_at = Some(now);
        self.settle_or_notify(now, rules);
        self.forget_the_launch();
        self.forget_refusals();
        self.no_capacity_since = None;
        (self.missing_count, self.missing_at, self.lookup_failed_since) = (0, None, None);
    }

    /// Takes an ended record off the timer, and lets it expire; or leaves it due, if a notification is pending.
    pub(crate) fn settle_or_notify(&mut self, now: Timestamp, rules: &Rules) {
        if self.pending_notifications.is_some() {
            (self.due, self.check_at) = (Some(shard(&self.submission_id)), Some(now));
            self.expires_at = NEVER;
            return;
        }
        (self.due, self.check_at) = (None, None);
        let kept = if self.runner.is_some() { rules.retention.min(RUNNER_KEPT) } else { rules.retention };
        self.expires_at = self.changed_at.unwrap_or(now).plus(kept).seconds();
    }

    /// Clears what only matters until the attempt is launched.
    pub(crate) fn forget_refusals(&mut self) {
        (self.refusals, self.denied_since, self.was_refused) = (0, None, false);
    }

    /// Clears what only matters while a RunTask call is unanswered.
    pub(crate) fn forget_the_launch(&mut self) {
        self.unanswered_since = None;
        self.last_call_at = None;
        self.looked_up_at = None;
        (self.launch_calls, self.lookups) = (0, 0);
    }

    /// A text of ECS about its task, without command and environment as far as its request is still known.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.request.as_ref().map_or_else(|| text.to_owned(), |request| request.redact(text))
    }

    /// Lets what is queued wait for capacity until its deadline, or for so long that a look at it costs next to nothing.
    pub fn wait_for_capacity(&mut self, now: Timestamp, rules: &Rules) {
        if self.state != State::Queued {
            return;
        }
        // What waits for a runner is launched by none of these, and a runner is launched only while something waits.
        let (Some(first), None, None) = (self.first(), &self.pooled, &self.runner) else { return };
        self.no_capacity_since.get_or_insert(now);
        let expires = self.launch_deadline.map(|deadline| deadline.plus(Duration::from_millis(1)));
        let longest = now.plus(rules.timers.wait_for_capacity);
        let by = expires.map_or(longest, |expires| expires.min(longest));
        // The order in which they are launched. What is looked at so early waits on, until its deadline.
        let early = by.minus(self.priority.head_start(&rules.timers));
        self.check_at = Some(if early > now { early } else { by });
        self.due = Some(waiting(&first));
        self.reason.get_or_insert_with(|| {
            let overrides = if first.shape.placement.is_some() { " with the overrides of this submission" } else { "" };
            format!("ECS has no capacity for profile {}{overrides}", first.shape.profile)
        });
    }

    /// Whether it is queued behind the launch that finds out whether its profile has capacity again.
    pub fn waits_for_capacity(&self) -> bool {
        self.state == State::Queued && self.due.as_deref().is_some_and(|due| due.starts_with(WAITING))
    }

    /// Whether its unanswered launch may be repeated at this moment: ECS still knows the client token, and the caller
    /// still wants it launched.
    pub fn may_repeat(&self, at: Timestamp, rules: &Rules) -> bool {
        self.state == State::Launching
            && self.stop_requested.is_none()
            && !self.is_past_deadline(at)
            && self.unanswered_since.is_some_and(|since| at < since.plus(rules.timers.repeat_for))
    }

    /// Puts it into the partition of the `due` index where it is served as its state needs: what is to be launched needs
    /// a launch token, and nothing else waits behind that.
    pub(crate) fn place(&mut self, now: Timestamp, rules: &Rules) {
        let Some(check_at) = self.check_at else { return };
        self.due = Some(match self.state {
            State::Queued if self.waits_for_capacity() => return,
            State::Queued if self.pooled.is_some() => shard(&self.submission_id),
            State::Queued if self.runner.is_some() => RUNNERS.to_owned(),
            // What was refused, and the next attempt, would wait behind the head starts of new submissions.
            State::Queued if self.refusals > 0 || self.fallback > 0 || self.attempt != Attempt::FIRST => {
                REPEAT.to_owned()
            }
            State::Queued => QUEUE.to_owned(),
            State::Launching if self.may_repeat(check_at.max(now), rules) => REPEAT.to_owned(),
            State::Launching | State::Launched | State::Running => shard(&self.submission_id),
            State::Succeeded | State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Lost => {
                return;
            }
        });
    }

    /// Whether what was seen can still lead to another attempt, so that the request must be kept.
    pub(crate) fn may_relaunch(&self) -> bool {
        let has_another = self.attempt.next().is_some() && self.stop_requested.is_none();
        let may_never_start = (self.has_attempts_left() || self.waits_for_its_capacity()) && !self.seen_running;
        has_another && (self.relaunches().next().is_some() || may_never_start)
    }

    /// Cuts its texts, the longest first, until the row without its request and pending notifications fits into [`RECORD_BYTES`].
    pub(crate) fn fit(&mut self) {
        let mut excess = self.bytes().saturating_sub(RECORD_BYTES - 1);
        while excess > 0 {
            let texts = self.attempts.iter_mut().chain(&mut self.reason).chain(&mut self.stopped_reason);
            let texts = texts.chain(self.stop_requested.as_mut().map(|stop| &mut stop.reason));
            let Some(longest) = texts.max_by_key(|text| text.len()).filter(|text| text.len() > SHORTEST_TEXT) else {
                return;
            };
            let before = longest.len();
            cut(longest, before.saturating_sub(excess).max(before / 2).max(SHORTEST_TEXT));
            excess = excess.saturating_sub(before - longest.len());
        }
    }

    /// The size of its row in bytes, without request and pending notifications, as DynamoDB counts: names and values in UTF-8, a number two
    /// digits a byte and one more, a container 3 and one more an entry. The table's `nonce` of 20 digits is included.
    pub fn bytes(&self) -> usize {
        const NONCE: usize = "nonce".len() + 11;
        let bare = Self { request: None, pending_notifications: None, content_hash: None, ..self.clone() };
        let hash = self.content_hash.map_or(0, |hash| "content_hash".len() + hash.0.len());
        NONCE
            + hash
            + match serde_json::to_value(bare) {
                Ok(Value::Object(members)) => {
                    members.iter().map(|(name, value)| name.len() + bytes_of(value)).sum::<usize>()
                }
                Ok(_) | Err(_) => 0,
            }
    }
}

/// The partition of the `due` index for the timer of a submission that needs no launch.
fn shard(submission_id: &SubmissionId) -> String {
    (jitter(submission_id, 0) % u64::from(DUE_SHARDS)).to_string()
}

/// A number that looks random and is the same for the same submission and count.
pub(crate) fn jitter(submission_id: &SubmissionId, count: u32) -> u64 {
    let digest = Sha256::new().chain_update(submission_id.as_str()).chain_update(count.to_be_bytes()).finalize();
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Cuts a text to at most `bytes`, at a character's border, with an ellipsis where something went.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes {
        let end = bytes.saturating_sub(ELLIPSIS.len());
        text.truncate((0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0));
        text.push_str(ELLIPSIS);
    }
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Number(number) => number.to_string().len().div_ceil(2) + 1,
        Value::String(text) => text.len(),
        Value::Array(items) => 3 + items.iter().map(|item| 1 + bytes_of(item)).sum::<usize>(),
        Value::Object(members) => {
            3 + members.iter().map(|(name, value)| 1 + name.len() + bytes_of(value)).sum::<usize>()
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_first(number: &u8) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none_of_them(number: &u16) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{now, rules, submission};

    #[test]
    fn the_same_work_hashes_alike_in_any_order_of_keys() {
        let profile = ProfileName::default_profile();
        let hash = |command: &[&str], overrides: &str| {
            let command: Vec<_> = command.iter().map(ToString::to_string).collect();
            ContentHash::of(&command, &serde_json::from_str(overrides).unwrap(), &profile)
        };
        assert_eq!(hash(&["a"], r#"{"x":1,"y":{"b":2,"a":[1]}}"#), hash(&["a"], r#"{"y":{"a":[1],"b":2},"x":1}"#));
        assert_ne!(hash(&["a"], "{}"), hash(&["a", ""], "{}"));
        assert_ne!(hash(&["a", "b"], "{}"), hash(&["ab"], "{}"));
        assert_ne!(hash(&["a"], r#"{"x":[1,2]}"#), hash(&["a"], r#"{"x":[2,1]}"#));
    }

    #[test]
    fn texts_are_cut_until_the_row_fits() {
        let mut record = Record::queued(submission("cut"), now(), &rules());
        record.reason = Some("ä".repeat(2000));
        record.attempts = vec!["x".repeat(500); 5];
        record.stopped_reason = Some("why ".repeat(300));
        record.fit();
        assert!(record.bytes() < RECORD_BYTES, "{}", record.bytes());
        assert!(record.reason.unwrap().ends_with('…'));
        assert_eq!(record.attempts.len(), 5);
    }

    #[test]
    fn submission_past_deadline_is_created_expired() {
        let late =
            Submission { launch_deadline: Some(Timestamp::from_millis(now().millis() - 1)), ..submission("late") };
        let (record, call) = Record::launching(late, now(), &rules());
        assert_eq!((record.state, call.is_none(), record.request.is_none()), (State::Expired, true, true));
        assert!(record.feed.is_some() && record.check_at.is_none());
    }

    #[test]
    fn the_public_record_has_no_request_and_no_bookkeeping() {
        let shown = Record::queued(submission("shown"), now(), &rules()).public();
        let members: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(members.contains(&"state"), "{members:?}");
        for hidden in ["request", "content_hash", "rev", "due", "check_at", "feed", "changed_at"] {
            assert!(!members.contains(&hidden), "{hidden}");
        }
    }

    #[test]
    fn a_bare_stop_answers_any_content() {
        let stop = Record::tombstone("x".parse().unwrap(), "not needed", now(), &rules());
        assert!(stop.is_same_work(&submission("x").content_hash));
        assert_eq!((stop.state, stop.reason.as_deref()), (State::Cancelled, Some("not needed")));
    }
}
