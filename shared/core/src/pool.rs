//! Pools: profiles whose containers are runners, which wait for commands and pull them from the table.
//!
//! A waiting submission and a runner are rows like any other, with [`Pooled`] or [`Runner`] beside them. How they change is
//! [`crate::decide`]'s; here are their parts, and how many runners a pool needs.

use std::{collections::BTreeMap, fmt, io, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    id::{InvalidName, ProfileName, SubmissionId},
    on_end::OnEnd,
    priority::Priority,
    profile::Policy,
    record::{ContentHash, Record, Submission, canonical},
    rules::{Rules, Timers},
    run_task::FrozenRequest,
    state::State,
    time::Timestamp,
};

/// What the ids of runners begin with. Callers may not use it.
pub const RUNNER_PREFIX: &str = "runner-";

/// How many bytes of JSON the command and environment of a waiting submission may take. They do not travel in RunTask.
pub const WORK_BYTES: usize = 64 * 1024;

/// The minutes of which the busiest one sets how many runners are kept idle.
const RING: usize = 15;

/// The runners that are created at most before the first batches of the last minutes are forgotten: their ids are read
/// with each round of sizing.
const CREATED_AT_ONCE: u32 = 1000;

/// The `pool` object of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// How many runners there are at most, 1 to 10,000.
    pub max: u32,
    /// How many idle runners are kept at least.
    #[serde(default)]
    pub min_idle: u32,
    /// Seconds after which an idle runner above that is closed.
    #[serde(default = "five_minutes")]
    pub idle_timeout: u32,
    /// How many commands a container runs before it ends.
    #[serde(default = "one")]
    pub commands_per_container: u32,
    /// Milliseconds between two requests of an idle runner.
    #[serde(default = "a_second")]
    pub take_interval_ms: u32,
    /// The command of its containers: the runner program, and what it is told.
    #[serde(default = "runner_program")]
    pub runner: Vec<String>,
}

fn runner_program() -> Vec<String> {
    vec!["ecs-bridge-runner".to_owned()]
}

const fn five_minutes() -> u32 {
    300
}

const fn one() -> u32 {
    1
}

const fn a_second() -> u32 {
    1000
}

impl Pool {
    /// Everything that is out of range.
    pub fn problems(&self) -> Vec<&'static str> {
        let Self { max, min_idle, idle_timeout, commands_per_container, take_interval_ms, runner } = self;
        let checks = [
            ((1..=10_000).contains(max), "max must be from 1 to 10000"),
            (min_idle <= max, "min_idle must not exceed max"),
            ((30..=86_400).contains(idle_timeout), "idle_timeout must be from 30 to 86400 seconds"),
            ((1..=100_000).contains(commands_per_container), "commands_per_container must be from 1 to 100000"),
            ((100..=60_000).contains(take_interval_ms), "take_interval_ms must be from 100 to 60000"),
            (!runner.is_empty(), "runner must be the command of the runner program, at least one string"),
        ];
        checks.into_iter().filter(|(fits, _)| !fits).map(|(_, problem)| problem).collect()
    }
}

/// Which runners may take which submissions: the profile, and a hash of its `run_task` and `pool`. Only equal keys meet,
/// so that a changed profile never runs a command in a container of the old one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolKey(String);

impl PoolKey {
    /// The key of a profile as it is, with the requests of its own choice and of its fallbacks.
    pub fn of(profile: &ProfileName, choices: &[Map<String, Value>], container_name: &str, pool: &Pool) -> Self {
        let mut digest = Sha256::new();
        for choice in choices {
            digest.update(canonical(&Value::Object(choice.clone())));
            digest.update([0]);
        }
        digest.update(container_name);
        digest.update([0]);
        // Numbers and strings serialise.
        digest.update(serde_json::to_string(pool).unwrap_or_default());
        let hash: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{profile}#{hash}"))
    }

    /// The partition of the index `pool` for the submissions that wait, in the order of their rank.
    pub fn waiting(&self) -> String {
        self.0.clone()
    }

    /// The partition of the index `pool` for the runners that are not over.
    pub fn runners(&self) -> String {
        format!("{}/runners", self.0)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One process of the runner program: random, made as it starts. A container that is restarted has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(String);

/// Why a text is no [`Incarnation`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("incarnation must be 8 to 64 characters of A-Z, a-z, 0-9, _ and -")]
pub struct InvalidIncarnation;

impl TryFrom<String> for Incarnation {
    type Error = InvalidIncarnation;

    fn try_from(text: String) -> Result<Self, InvalidIncarnation> {
        let is_valid = (8..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if is_valid { Ok(Self(text)) } else { Err(InvalidIncarnation) }
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.0
    }
}

/// A runner's secret, as its row keeps it: base64url of the SHA-256 of the 256 random bits that RunTask gave to its
/// container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Of a token. Hashes are compared, never tokens, so that the time that it takes tells nothing.
    pub fn of(token: &str) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token)))
    }
}

/// A process of a runner: who took a submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The runner.
    pub runner_id: SubmissionId,
    /// The process.
    pub incarnation: Incarnation,
}

/// A pooled submission's part of its row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pooled {
    /// The key that was in force when it was submitted.
    pub key: PoolKey,
    /// Which process took it; set once per attempt, by the one write that lets the command start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Process>,
}

/// A runner's part of its row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Runner {
    /// The key that was in force when it was made.
    pub key: PoolKey,
    /// SHA-256 of its token.
    pub token: TokenHash,
    /// How many commands it runs before it ends.
    pub commands: u32,
    /// Milliseconds after which it asks again where there is nothing to do.
    pub interval_ms: u32,
    /// The process that asked first; any other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The submission that it takes, or has taken. A hint: the submission's own row decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<SubmissionId>,
    /// How many of its commands are over.
    #[serde(default)]
    pub served: u32,
    /// It gets no more work.
    #[serde(default)]
    pub closing: bool,
    /// When it last asked for work, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled_at: Option<Timestamp>,
    /// Since when it has had nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
}

impl Runner {
    /// A runner that has not been launched.
    pub fn new(key: PoolKey, token: TokenHash, pool: &Pool) -> Self {
        Self {
            key,
            token,
            commands: pool.commands_per_container,
            interval_ms: pool.take_interval_ms,
            incarnation: None,
            serves: None,
            served: 0,
            closing: false,
            polled_at: None,
            idle_since: None,
        }
    }
}

/// Whether an id is a runner's.
pub fn is_runner(id: &SubmissionId) -> bool {
    id.as_str().starts_with(RUNNER_PREFIX)
}

/// What the runners of a pool are launched with: the part of its profile that a pool key stands for, so that what was
/// submitted under an earlier version of the profile still gets its runners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The profile's own RunTask request, without a command.
    pub run_task: FrozenRequest,
    /// The container of the runner program.
    pub container_name: String,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// The profile's policy.
    pub policy: Policy,
    /// The profile's pool.
    pub pool: Pool,
}

/// How a runner reaches the work function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkAddress {
    /// The function's URL.
    Url(String),
    /// The function's ARN, for direct invocation.
    Function(String),
}

impl Spec {
    /// The row of a new runner, whose secret is `token`.
    ///
    /// # Errors
    /// If the stored bytes are not a request.
    pub fn runner(
        &self,
        (submission_id, key, profile): (SubmissionId, PoolKey, ProfileName),
        token: &str,
        work: &WorkAddress,
        now: Timestamp,
        rules: &Rules,
    ) -> io::Result<Record> {
        let (variable, address) = match work {
            WorkAddress::Url(url) => ("ECS_BRIDGE_WORK_URL", url),
            WorkAddress::Function(arn) => ("ECS_BRIDGE_WORK_FUNCTION", arn),
        };
        let interval = self.pool.take_interval_ms.to_string();
        let variables = [
            (variable, address.as_str()),
            ("ECS_BRIDGE_RUNNER_ID", submission_id.as_str()),
            ("ECS_BRIDGE_RUNNER_TOKEN", token),
            ("ECS_BRIDGE_TAKE_INTERVAL_MS", &interval),
        ];
        let request = self.run_task.for_runner(&self.container_name, &self.pool.runner, &variables)?;
        let submission = Submission {
            submission_id,
            content_hash: ContentHash::of(&self.pool.runner, &Value::Null, &profile),
            placement: None,
            profile,
            container_name: self.container_name.clone(),
            cluster: self.cluster.clone(),
            policy: self.policy.clone(),
            request,
            labels: BTreeMap::new(),
            launch_deadline: Some(now.plus(rules.timers.runner_launch)),
            priority: Priority::default(),
            pool: None,
            on_end: OnEnd::default(),
        };
        let runner = Runner::new(key, TokenHash::of(token), &self.pool);
        Ok(Record::runner(submission, runner, now, rules))
    }
}

/// The key of a pool's row. No submission can have it: `#` is in no id.
pub fn row_key(profile: &ProfileName) -> String {
    format!("#pool/{profile}")
}

/// A pool's row, `#pool/<profile>`: what operators have set, and what sizing needs to know from round to round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Raised by every write; what a round is conditional on.
    #[serde(default)]
    pub rev: u64,
    /// Instead of the profile's `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Instead of the profile's `min_idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_idle: Option<u32>,
    /// Nothing is launched or handed out.
    #[serde(default)]
    pub paused: bool,
    /// Who changed these last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// What the pool keys stand for that are in use: the current one, and those of earlier versions of the profile as long
    /// as anything waits or runs under them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub specs: BTreeMap<PoolKey, Spec>,
    /// The key that new submissions get; none if the profile has no pool any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<PoolKey>,
    /// The runners that were created lately, of all keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<Batch>,
    /// How many submissions were ever taken, and how many of them found a runner idle. Raised by the work function,
    /// whatever the `rev`, and written by nobody else.
    #[serde(default)]
    pub taken: u64,
    /// See [`taken`](Self::taken).
    #[serde(default)]
    pub found_idle: u64,
    /// `taken` when the pool was last sized.
    #[serde(default)]
    pub counted: u64,
    /// How many submissions were taken in each of the last 15 minutes, by the minute modulo 15.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub minutes: Vec<u32>,
    /// The minute of the last count in `minutes`, since the epoch.
    #[serde(default)]
    pub minute: u64,
    /// How many runners were idle or starting, beyond what waited, when the pool was last sized.
    #[serde(default)]
    pub spare: u32,
    /// Since when its runners have failed to start, without a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Why the last of them failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Runners that one round of sizing created. Their ids are written before their rows, so that no round that follows
/// counts one too few.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// A random number of 96 bits, in hexadecimal.
    pub base: String,
    /// How many.
    pub runners: u32,
    /// Their pool key.
    pub key: PoolKey,
    /// When.
    pub at: Timestamp,
}

impl Batch {
    /// A batch with a random number, of which 96 bits are used.
    pub fn new(random: u128, runners: u32, key: PoolKey, at: Timestamp) -> Self {
        Self { base: format!("{:024x}", random >> 32), runners, key, at }
    }

    /// The ids of its runners. None if the row holds something else than a batch.
    pub fn ids(&self) -> Vec<SubmissionId> {
        let ids = (0..self.runners).map(|nth| format!("{RUNNER_PREFIX}{}{nth:08x}", self.base).parse());
        ids.collect::<Result<_, InvalidName>>().unwrap_or_default()
    }
}

/// What a round of sizing counts under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Submissions that wait.
    pub waiting: u32,
    /// Those of them that have waited for longer than [`Timers::passed_over`].
    pub passed_over: u32,
    /// Runners that have not asked for work yet.
    pub starting: u32,
    /// Runners that serve nothing and asked lately.
    pub idle: u32,
    /// Runners that serve a submission.
    pub busy: u32,
    /// All runners that are not over, closing and silent ones included.
    pub alive: u32,
}

/// What a runner's row tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not launched, or has not asked for work yet.
    Starting,
    /// It serves nothing, and asked lately.
    Idle,
    /// It serves a submission.
    Busy,
    /// It gets no more work, or has stopped asking.
    Closing,
}

impl Runner {
    /// What its row tells, if it is not over.
    pub fn phase(&self, now: Timestamp, timers: &Timers) -> Phase {
        // `polled_at` is noted every third of `silent_after`.
        let counts_for = timers.silent_after * 2 / 3;
        match (&self.serves, self.polled_at) {
            _ if self.closing => Phase::Closing,
            (Some(_), _) => Phase::Busy,
            (None, None) => Phase::Starting,
            (None, Some(polled_at)) if now.since(polled_at) <= counts_for => Phase::Idle,
            (None, Some(_)) => Phase::Closing,
        }
    }
}

impl Count {
    /// Counts one runner that is not over.
    pub fn runner(&mut self, phase: Phase) {
        self.alive += 1;
        match phase {
            Phase::Starting => self.starting += 1,
            Phase::Idle => self.idle += 1,
            Phase::Busy => self.busy += 1,
            Phase::Closing => {}
        }
    }

    /// Counts one submission that has waited since `since`.
    pub fn waiting(&mut self, since: Timestamp, now: Timestamp, timers: &Timers) {
        self.waiting += 1;
        self.passed_over += u32::from(now.since(since) > timers.passed_over);
    }
}

/// What a round of sizing does under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizing {
    /// How many runners to create.
    pub create: u32,
    /// How many idle runners to close: those that have been idle for longer than `idle_timeout`.
    pub close: u32,
    /// How many idle runners to close at once: there are more than `max`.
    pub excess: u32,
    /// How many runners remain for submissions that are still to come.
    pub spare: u32,
    /// How many runners are wanted in all.
    pub wanted: u32,
}

impl PoolRow {
    /// The number of runners at most, of all keys together.
    pub fn max(&self, pool: &Pool) -> u32 {
        self.max.unwrap_or(pool.max)
    }

    /// How many idle runners to keep: `min_idle`, or what was taken in the busiest minute of the last 15 if that is more.
    pub fn idle_target(&self, pool: &Pool) -> u32 {
        let busiest = self.minutes.iter().copied().max().unwrap_or_default();
        self.min_idle.unwrap_or(pool.min_idle).max(busiest)
    }

    /// How many submissions were taken in the last 15 minutes.
    pub fn taken_lately(&self) -> u32 {
        self.minutes.iter().sum()
    }

    /// Counts what was taken since the last round to this minute, and forgets the minutes that are too long ago.
    pub fn count_taken(&mut self, now: Timestamp, timers: &Timers) {
        let taken = u32::try_from(self.taken.saturating_sub(self.counted)).unwrap_or(u32::MAX);
        self.counted = self.taken;
        let minute = now.millis() / u64::try_from(timers.minute.as_millis()).unwrap_or(u64::MAX).max(1);
        if taken == 0 && self.minutes.iter().all(|&count| count == 0) {
            // Nothing to count or to forget: the row needs no write.
            return;
        }
        self.minutes.resize(RING, 0);
        for passed in (self.minute + 1..=minute).rev().take(RING) {
            if let Some(slot) = self.minutes.get_mut(slot(passed)) {
                *slot = 0;
            }
        }
        self.minute = self.minute.max(minute);
        if let Some(slot) = self.minutes.get_mut(slot(minute)) {
            *slot = slot.saturating_add(taken);
        }
    }

    /// How many runners remain for new submissions, as far as is known since the last round.
    pub fn spare_now(&self) -> u64 {
        u64::from(self.spare).saturating_sub(self.taken.saturating_sub(self.counted))
    }

    /// How many runners to create and to close under a key, `wanted = min(max, busy + waiting + idle_target)`. `others` is
    /// how many runners of other keys are not over, and `is_current` whether new submissions get this key.
    pub fn size(&self, pool: &Pool, count: &Count, others: u32, is_current: bool, now: Timestamp) -> Sizing {
        let max = self.max(pool).saturating_sub(others);
        let idle_target = if is_current { self.idle_target(pool) } else { 0 };
        let excess = count.alive.saturating_sub(max).min(count.idle);
        if self.paused {
            return Sizing { excess, wanted: count.busy, ..Sizing::default() };
        }
        let wanted = max.min(count.busy + count.waiting + idle_target);
        // Idle runners that leave a submission waiting for so long do not take it.
        let idle = count.idle.saturating_sub(count.passed_over);
        let counted = count.starting + idle + count.busy;
        let lately: u32 = self.batches.iter().map(|batch| batch.runners).sum();
        let room = max.saturating_sub(count.alive).min(CREATED_AT_ONCE.saturating_sub(lately));
        let create = wanted.saturating_sub(counted).min(room).min(self.may_fail(count, now));
        let close = if count.waiting == 0 { count.idle.saturating_sub(idle_target) } else { 0 };
        let spare = (count.starting + count.idle + create).saturating_sub(count.waiting);
        Sizing { create, close, excess, spare, wanted }
    }

    /// How many runners may be created while they fail to start: one at a time, each later than the one before.
    fn may_fail(&self, count: &Count, now: Timestamp) -> u32 {
        const SOONEST: Duration = Duration::from_secs(5);
        const LATEST: Duration = Duration::from_secs(60);
        let Some(since) = self.failing_since else { return u32::MAX };
        let last = self.batches.iter().map(|batch| batch.at).max().unwrap_or(since);
        let is_time = now.since(last) >= (last.since(since) / 2).clamp(SOONEST, LATEST);
        u32::from(is_time && count.starting == 0)
    }

    /// Takes into account what became of the runners that were created lately: a pool is failing from the first of them
    /// that ended without having asked for work, until one asks.
    pub fn see(&mut self, runners: &[Record]) {
        let asked = runners.iter().filter(|record| record.runner.as_ref().is_some_and(|it| it.incarnation.is_some()));
        let last_success = asked.map(|record| record.started_at.unwrap_or(record.created_at)).max();
        let failed = runners.iter().filter(|record| {
            let has_asked = record.runner.as_ref().is_some_and(|runner| runner.incarnation.is_some());
            record.state.is_terminal() && record.state != State::Cancelled && !has_asked
        });
        let failed: Vec<_> =
            failed.filter(|record| last_success.is_none_or(|at| record.changed_at > Some(at))).collect();
        let last = failed.iter().max_by_key(|record| record.changed_at);
        let still = self.failing_since.filter(|since| last_success.is_none_or(|at| at < *since));
        let first = failed.iter().filter_map(|record| record.changed_at).min();
        // Where none was created lately, nothing waits for one.
        self.failing_since = still.filter(|_| !runners.is_empty()).or(first);
        self.failure = match (self.failing_since, last) {
            (None, _) => None,
            (Some(_), Some(last)) => last.reason.clone().or_else(|| self.failure.take()),
            (Some(_), None) => self.failure.take(),
        };
    }

    /// Forgets the batches that the index shows by now.
    pub fn forget_batches(&mut self, now: Timestamp, timers: &Timers) {
        self.batches.retain(|batch| now.since(batch.at) < timers.runner_counted);
    }

    /// Forgets the pool keys that nothing uses.
    pub fn forget_keys(&mut self, is_used: impl Fn(&PoolKey) -> bool) {
        let Self { specs, batches, .. } = self;
        specs.retain(|key, _| is_used(key) || batches.iter().any(|batch| batch.key == *key));
    }
}

fn slot(minute: u64) -> usize {
    usize::try_from(minute % RING as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{now, rules, submission};

    fn pool() -> Pool {
        serde_json::from_str(r#"{"max": 10, "min_idle": 2}"#).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        now().plus(Duration::from_secs(seconds))
    }

    fn key() -> PoolKey {
        PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "main", &pool())
    }

    fn sizing(row: &PoolRow, count: &Count) -> Sizing {
        row.size(&pool(), count, 0, true, now())
    }

    #[test]
    fn an_empty_pool_gets_its_idle_runners() {
        let sizing = sizing(&PoolRow::default(), &Count::default());
        assert_eq!((sizing.create, sizing.close, sizing.spare, sizing.wanted), (2, 0, 2, 2));
    }

    #[test]
    fn runners_never_exceed_the_maximum_of_all_keys() {
        let count = Count { waiting: 100, busy: 4, starting: 1, alive: 7, ..Count::default() };
        assert_eq!(sizing(&PoolRow::default(), &count).create, 3);
        assert_eq!(PoolRow::default().size(&pool(), &count, 2, true, now()).create, 1);
        let lowered = PoolRow { max: Some(5), ..PoolRow::default() };
        assert_eq!(sizing(&lowered, &count).create, 0);
    }

    #[test]
    fn idle_runners_beyond_a_lowered_maximum_are_closed_at_once() {
        let count = Count { idle: 4, busy: 4, alive: 8, ..Count::default() };
        assert_eq!(sizing(&PoolRow { max: Some(6), ..PoolRow::default() }, &count).excess, 2);
        assert_eq!(sizing(&PoolRow { max: Some(1), ..PoolRow::default() }, &count).excess, 4);
        assert_eq!(sizing(&PoolRow { max: Some(8), ..PoolRow::default() }, &count).excess, 0);
    }

    #[test]
    fn starting_and_idle_runners_are_not_created_twice() {
        let count = Count { waiting: 3, starting: 3, idle: 2, alive: 5, ..Count::default() };
        assert_eq!(sizing(&PoolRow::default(), &count).create, 0);
    }

    #[test]
    fn a_submission_that_idle_runners_pass_over_gets_a_runner_of_its_own() {
        let row = PoolRow { min_idle: Some(0), ..PoolRow::default() };
        let count = Count { waiting: 1, passed_over: 1, idle: 3, alive: 3, ..Count::default() };
        assert_eq!(sizing(&row, &count).create, 0);
        assert_eq!(sizing(&row, &Count { idle: 1, alive: 1, ..count }).create, 1);
    }

    #[test]
    fn a_paused_pool_creates_nothing() {
        let count = Count { waiting: 5, ..Count::default() };
        assert_eq!(sizing(&PoolRow { paused: true, ..PoolRow::default() }, &count).create, 0);
    }

    #[test]
    fn an_earlier_version_of_a_profile_gets_runners_for_what_waits_and_none_to_spare() {
        let count = Count { waiting: 1, ..Count::default() };
        assert_eq!(PoolRow::default().size(&pool(), &count, 0, false, now()).create, 1);
        let idle = Count { idle: 2, alive: 2, ..Count::default() };
        assert_eq!(PoolRow::default().size(&pool(), &idle, 0, false, now()).close, 2);
    }

    #[test]
    fn the_busiest_minute_of_the_last_15_is_kept_idle_and_then_let_end() {
        let timers = Timers::default();
        let mut row = PoolRow::default();
        let count = |row: &mut PoolRow, taken: u64, seconds| {
            row.taken += taken;
            row.count_taken(at(seconds), &timers);
        };
        count(&mut row, 4, 0);
        count(&mut row, 3, 1);
        count(&mut row, 1, 120);
        assert_eq!((row.idle_target(&pool()), row.taken_lately()), (7, 8));
        count(&mut row, 0, 14 * 60);
        assert_eq!(row.idle_target(&pool()), 7);
        count(&mut row, 0, 15 * 60);
        assert_eq!(row.idle_target(&pool()), pool().min_idle);
        count(&mut row, 5, 86_400);
        assert_eq!(row.idle_target(&pool()), 5);
        assert_eq!(sizing(&row, &Count { idle: 9, alive: 9, ..Count::default() }).close, 4);
    }

    #[test]
    fn a_pool_at_rest_needs_no_write() {
        let mut row = PoolRow::default();
        row.count_taken(at(0), &Timers::default());
        assert_eq!(row, PoolRow::default());
    }

    #[test]
    fn what_was_taken_since_the_last_round_is_not_spare() {
        let row = PoolRow { spare: 3, taken: 12, counted: 10, ..PoolRow::default() };
        assert_eq!(row.spare_now(), 1);
    }

    #[test]
    fn a_batch_names_its_runners() {
        let ids = Batch::new(u128::MAX, 2, key(), now()).ids();
        assert_eq!(ids.len(), 2);
        assert!(ids.iter().all(is_runner));
        assert_ne!(ids.first(), ids.last());
        assert!(Batch::new(1 << 40, 1, key(), now()).ids() != Batch::new(1 << 41, 1, key(), now()).ids());
    }

    /// A runner that ended at this second without having asked for work, or with.
    fn ended(seconds: u64, has_asked: bool) -> Record {
        let runner = Runner::new(key(), TokenHash::of("secret"), &pool());
        let mut record = Record::runner(submission("runner-1"), runner, at(0), &rules());
        if has_asked {
            record.runner.as_mut().unwrap().incarnation = Some("incarnation".to_owned().try_into().unwrap());
            record.started_at = Some(at(seconds));
        }
        record.state = State::Launching;
        record.end(State::Failed, "no such image", at(seconds), &rules());
        record
    }

    #[test]
    fn a_pool_fails_from_the_first_runner_that_never_asked_until_one_asks() {
        let mut row = PoolRow::default();
        row.see(&[ended(5, false), ended(9, false)]);
        assert_eq!((row.failing_since, row.failure.as_deref()), (Some(at(5)), Some("no such image")));
        row.see(&[ended(9, false)]);
        assert_eq!(row.failing_since, Some(at(5)));
        row.see(&[ended(9, false), ended(20, true)]);
        assert_eq!((row.failing_since, &row.failure), (None, &None));
        row.see(&[ended(5, true), ended(9, false)]);
        assert_eq!(row.failing_since, Some(at(9)));
        row.see(&[]);
        assert_eq!(row.failing_since, None);
    }

    #[test]
    fn a_failing_pool_tries_one_runner_at_a_time_ever_later() {
        let count = Count { waiting: 9, ..Count::default() };
        let mut row = PoolRow { failing_since: Some(at(0)), ..PoolRow::default() };
        let mut tries = vec![];
        for second in 0..600 {
            let create = row.size(&pool(), &count, 0, true, at(second)).create;
            if create > 0 {
                assert_eq!(create, 1);
                tries.push(second);
                row.batches = vec![Batch::new(0, 1, key(), at(second))];
            }
        }
        assert_eq!(tries[..5], [5, 10, 15, 23, 35]);
        assert_eq!(tries[tries.len() - 1] - tries[tries.len() - 2], 60);
        let starting = Count { starting: 1, alive: 1, ..count };
        assert_eq!(row.size(&pool(), &starting, 0, true, at(3600)).create, 0);
    }

    #[test]
    fn a_changed_profile_has_another_key() {
        let profile: ProfileName = "etl".parse().unwrap();
        let run_task = |family: &str| serde_json::json!({"taskDefinition": family}).as_object().unwrap().clone();
        let key = PoolKey::of(&profile, &[run_task("a")], "main", &pool());
        assert_eq!(key, PoolKey::of(&profile, &[run_task("a")], "main", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &[run_task("b")], "main", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &[run_task("a")], "other", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &[run_task("a")], "main", &Pool { max: 11, ..pool() }));
        assert!(key.as_str().starts_with("etl#"));
    }
}
