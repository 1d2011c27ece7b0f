//! Pools: profiles whose containers are runners, which wait for commands and pull them from the table.
//!
//! A waiting submission and a runner are rows like any other, with [`Pooled`] or [`Runner`] beside them. How they change is
//! [`crate::decide`]'s; here are their parts, and how many runners a pool needs.

use std::{collections::BTreeMap, fmt, io, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    id::{Deployment, InvalidName, ProfileName, SubmissionId},
    notify::Notify,
    priority::Priority,
    profile::Policy,
    record::{ContentHash, Record, Submission, canonical},
    rules::{Rules, Timers},
    run_task::FrozenRequest,
    state::State,
    time::Timestamp,
};

mod wait;

pub use wait::{Symptoms, WaitReason};

/// What the ids of runners begin with. Callers may not use it.
pub const RUNNER_PREFIX: &str = "runner-";

/// How many bytes of JSON the command and environment of a waiting submission may take. They do not travel in RunTask.
pub const WORK_BYTES: usize = 64 * 1024;

/// The minutes of which the busiest one sets how many runners are kept idle.
const RING: usize = 15;

/// The number of runners that may be starting at once: their rows are read with each round of sizing. At 40 launches per
/// second, as many are created within the minute that a container takes to start.
const STARTING_AT_ONCE: u32 = 2500;

/// How many of the submissions that wait a runner chooses among at most.
const WIDEST: usize = 100;

/// How long a pool key is kept that nothing uses: a submit function that has found it in the pool's row may still accept
/// submissions under it.
const KEY_KEPT: Duration = Duration::from_secs(86_400);

/// The version of what a pool key is made of. Another one replaces all runners.
const KEY_VERSION: u8 = 2;

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
    pub poll_interval_ms: u32,
    /// The command of its containers: the runner program with its arguments.
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
        let Self { max, min_idle, idle_timeout, commands_per_container, poll_interval_ms, runner } = self;
        let checks = [
            ((1..=10_000).contains(max), "max must be from 1 to 10000"),
            (min_idle <= max, "min_idle must not exceed max"),
            ((30..=86_400).contains(idle_timeout), "idle_timeout must be from 30 to 86400 seconds"),
            ((1..=100_000).contains(commands_per_container), "commands_per_container must be from 1 to 100000"),
            ((100..=60_000).contains(poll_interval_ms), "poll_interval_ms must be from 100 to 60000"),
            (!runner.is_empty(), "runner must be the command of the runner program, at least one string"),
        ];
        checks.into_iter().filter(|(fits, _)| !fits).map(|(_, problem)| problem).collect()
    }
}

/// Which runners may take which submissions: the profile, and a hash of its `run_task` and of what its runners get.
/// Only equal keys meet, so that a changed profile never runs a command in a container of the old one. Limits and policy
/// are not in it: a change of those reaches the pool as it is.
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
        let Pool { runner, commands_per_container, poll_interval_ms, max: _, min_idle: _, idle_timeout: _ } = pool;
        let content = json!([KEY_VERSION, container_name, runner, commands_per_container, poll_interval_ms]);
        digest.update(canonical(&content));
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

    /// The name of its doorbell, an SQS queue. The deployment stands last, after characters whose number is fixed, so that
    /// `ecs-bridge-pool-????????????-<deployment>` in a role names the queues of no other deployment.
    pub fn doorbell_name(&self, deployment: &Deployment) -> String {
        let hash: String = Sha256::digest(&self.0).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("ecs-bridge-pool-{hash}-{deployment}")
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
    /// Of a token. Hashes are compared, never tokens, so that the time of a comparison reveals nothing.
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
            interval_ms: pool.poll_interval_ms,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// The URL of the SQS queue that announces new submissions to idle runners, once reconcile has created it. Without it
    /// they ask every `poll_interval_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doorbell: Option<String>,
}

/// How a runner reaches the runner API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerApiAddress {
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
        runner_api: &RunnerApiAddress,
        now: Timestamp,
        rules: &Rules,
    ) -> io::Result<Record> {
        let (variable, address) = match runner_api {
            RunnerApiAddress::Url(url) => ("ECS_BRIDGE_RUNNER_API_URL", url),
            RunnerApiAddress::Function(arn) => ("ECS_BRIDGE_RUNNER_API_FUNCTION", arn),
        };
        let interval = self.pool.poll_interval_ms.to_string();
        let doorbell = self.doorbell.as_deref().map(|url| ("ECS_BRIDGE_DOORBELL_URL", url));
        let variables = [
            (variable, address.as_str()),
            ("ECS_BRIDGE_RUNNER_ID", submission_id.as_str()),
            ("ECS_BRIDGE_RUNNER_TOKEN", token),
            ("ECS_BRIDGE_POLL_INTERVAL_MS", &interval),
        ];
        let variables: Vec<_> = variables.into_iter().chain(doorbell).collect();
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
            notify: Notify::default(),
        };
        let runner = Runner::new(key, TokenHash::of(token), &self.pool);
        Ok(Record::new_runner(submission, runner, now, rules))
    }
}

/// The key of a pool's row. No submission can have it: `#` is in no id.
pub fn row_key(profile: &ProfileName) -> String {
    format!("#pool/{profile}")
}

/// The key of the row that counts what is taken from a pool: small, as it is written with almost every command.
pub fn taken_key(profile: &ProfileName) -> String {
    format!("#pool/{profile}/taken")
}

/// What was ever taken from a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Takes {
    /// Submissions.
    #[serde(default)]
    pub taken: u64,
    /// Those of them that found a runner idle.
    #[serde(default)]
    pub found_idle: u64,
}

/// A pool's row, `#pool/<profile>`: what operators have set, and what sizing needs to know from round to round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Since when nothing has used a pool key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unused_since: BTreeMap<PoolKey, Timestamp>,
    /// How many submissions were ever taken, and how many of them found a runner idle, when the pool was last sized. The
    /// runner API counts them in a row of their own ([`taken_key`]).
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
    /// How many submissions waited or ran at once in each of these minutes, at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peaks: Vec<u32>,
    /// The minute of the last count in `minutes`, since the epoch.
    #[serde(default)]
    pub minute: u64,
    /// How many runners were idle or starting, beyond what waited, when the pool was last sized.
    #[serde(default)]
    pub spare: u32,
    /// How many runners were idle then.
    #[serde(default)]
    pub idle: u32,
    /// How many the current version of the profile was to keep idle then.
    #[serde(default)]
    pub to_keep: u32,
    /// The keys whose runners fail to start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failing: BTreeMap<PoolKey, Failing>,
    /// The first of `failing`, for those who only show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// See [`failing_since`](Self::failing_since).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Why submissions wait under a key, where no runner is about to take them. Such a key may be missing in `specs`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wait_reasons: BTreeMap<PoolKey, WaitReason>,
    /// The keys whose entry in `specs` cannot be read, and why. Whoever writes the row leaves those entries as they are.
    #[serde(skip)]
    pub unreadable: BTreeMap<PoolKey, String>,
}

/// The runners of a key fail to start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failing {
    /// Since when, without a success.
    pub since: Timestamp,
    /// Why the last of them failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Runners that one round of sizing created. Their ids are written before their rows, so that no round that follows
/// counts one too few.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Runners that get no more work, or have stopped asking.
    pub closing: u32,
    /// All runners that are not over, closing and silent ones included.
    pub alive: u32,
    /// When the oldest of the submissions that wait was submitted.
    pub oldest: Option<Timestamp>,
}

/// A runner, by its row.
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
    /// The runner of a row, if it has not ended.
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
            Phase::Closing => self.closing += 1,
        }
    }

    /// Counts one submission that has waited since `since`.
    pub fn waiting(&mut self, since: Timestamp, now: Timestamp, timers: &Timers) {
        self.waiting += 1;
        self.oldest = Some(self.oldest.map_or(since, |oldest| oldest.min(since)));
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
    /// How many idle runners to close at once: there are more than `max`, or another version of the profile needs their
    /// place.
    pub excess: u32,
}

impl PoolRow {
    /// The number of runners at most, of all keys together.
    pub fn max(&self, pool: &Pool) -> u32 {
        self.max.unwrap_or(pool.max)
    }

    /// How many runners to keep for submissions that may come, besides `busy` ones and those for what waits: `min_idle`
    /// of them; or as many more as were needed at once in the last 15 minutes, and as many as the busiest of these
    /// minutes used up.
    pub fn idle_target(&self, pool: &Pool, busy: u32) -> u32 {
        let most = |ring: &[u32]| ring.iter().copied().max().unwrap_or_default();
        let used_up = most(&self.minutes).div_ceil(pool.commands_per_container.max(1));
        // One that is used up now and then was busy too.
        let used_up = if used_up > 1 { used_up } else { 0 };
        let at_once = (most(&self.peaks) + used_up).saturating_sub(busy);
        self.min_idle.unwrap_or(pool.min_idle).max(at_once)
    }

    /// How many runners remain for new submissions, as far as is known since the last round.
    pub fn spare_now(&self) -> u64 {
        u64::from(self.spare).saturating_sub(self.taken.saturating_sub(self.counted))
    }

    /// How many submissions were taken in the last 15 minutes.
    pub fn taken_lately(&self) -> u32 {
        self.minutes.iter().sum()
    }

    /// Counts to this minute what was taken since the last round, and how many submissions wait or run at once, and
    /// forgets the minutes that are too long ago.
    pub fn count(&mut self, takes: Takes, at_once: u32, now: Timestamp, timers: &Timers) {
        (self.taken, self.found_idle) = (self.taken.max(takes.taken), self.found_idle.max(takes.found_idle));
        let taken = u32::try_from(self.taken.saturating_sub(self.counted)).unwrap_or(u32::MAX);
        self.counted = self.taken;
        let minute = minute(now, timers);
        if taken == 0 && at_once == 0 && self.minutes.iter().chain(&self.peaks).all(|&count| count == 0) {
            // Nothing to count or to forget: the row needs no write.
            return;
        }
        let passed: Vec<_> = (self.minute + 1..=minute).rev().take(RING).map(slot).collect();
        for ring in [&mut self.minutes, &mut self.peaks] {
            ring.resize(RING, 0);
            for slot in &passed {
                if let Some(count) = ring.get_mut(*slot) {
                    *count = 0;
                }
            }
        }
        self.minute = self.minute.max(minute);
        if let Some(count) = self.minutes.get_mut(slot(minute)) {
            *count = count.saturating_add(taken);
        }
        if let Some(peak) = self.peaks.get_mut(slot(minute)) {
            *peak = at_once.max(*peak);
        }
    }

    /// Among how many of the first submissions that wait a runner chooses at random. As many as runners that may ask at
    /// this moment, so that two seldom want the same; as many as are taken within a second too, as the index may still
    /// show those; and the first one alone where neither is known, so that priority decides.
    pub fn choices(&self, now: Timestamp, timers: &Timers) -> usize {
        let window = self.idle.saturating_add(self.most_taken(now, timers) / 60).max(1);
        usize::try_from(window).unwrap_or(WIDEST).min(WIDEST)
    }

    /// How many submissions were taken in this minute, or in the one before if that is more.
    fn most_taken(&self, now: Timestamp, timers: &Timers) -> u32 {
        let minute = minute(now, timers);
        let lately = [minute, minute.saturating_sub(1)].into_iter().filter(|minute| self.minute.abs_diff(*minute) <= 1);
        lately.filter_map(|minute| self.minutes.get(slot(minute))).max().copied().unwrap_or_default()
    }

    /// One round of sizing, by what was counted under each key, by the runners that were created `lately`, and by what was
    /// ever taken. Returns the same as [`size`](Self::size).
    pub fn plan(
        &mut self,
        counts: &[(&PoolKey, Count)],
        lately: &[Record],
        takes: Takes,
        now: Timestamp,
        timers: &Timers,
    ) -> (Vec<Sizing>, u32) {
        self.see(lately);
        self.forget_batches(lately, now, timers);
        let at_once = counts.iter().map(|(_, count)| count.busy + count.waiting).sum();
        self.count(takes, at_once, now, timers);
        self.idle = counts.iter().map(|(_, count)| count.idle).sum();
        let current = self.current.as_ref().and_then(|key| Some((key, self.specs.get(key)?)));
        self.to_keep = current.map_or(0, |(current, spec)| {
            let count = counts.iter().find(|(key, _)| *key == current).map(|(_, count)| *count).unwrap_or_default();
            self.idle_target(&spec.pool, count.busy + count.waiting)
        });
        self.size(counts, now)
    }

    /// How many runners to create and to close under each key, in the order of `counts`, and how many remain for
    /// submissions that are still to come.
    ///
    /// Submissions that wait come first, the oldest of all keys before the others, and idle runners of another key make
    /// room for them; then come idle runners for the current key.
    pub fn size(&self, counts: &[(&PoolKey, Count)], now: Timestamp) -> (Vec<Sizing>, u32) {
        let spec = |key: &PoolKey| self.specs.get(key);
        let largest = self.specs.values().map(|spec| spec.pool.max).max();
        let of_profile = self.current.as_ref().and_then(spec).map(|spec| spec.pool.max).or(largest);
        let max = self.max.or(of_profile).unwrap_or_default();
        let sum = |of: fn(&Count) -> u32| counts.iter().map(|(_, count)| of(count)).sum::<u32>();
        let (alive, closing, starting) = (sum(|it| it.alive), sum(|it| it.closing), sum(|it| it.starting));
        let mut sizes = vec![Sizing::default(); counts.len()];
        let mut room = max.saturating_sub(alive).min(STARTING_AT_ONCE.saturating_sub(starting));
        let mut excess = (alive - closing.min(alive)).saturating_sub(max);
        let mut oldest_first: Vec<_> = counts.iter().zip(&mut sizes).collect();
        oldest_first.sort_by_key(|((_, count), _)| (count.oldest.is_none(), count.oldest));
        let mut spare = 0;
        if !self.paused {
            for ((key, count), sizing) in &mut oldest_first {
                // Idle runners that leave a submission waiting for so long do not take it.
                let has = count.starting + count.idle.saturating_sub(count.passed_over);
                let lacks = count.waiting.saturating_sub(has).min(self.may_fail(key, count.starting, now));
                sizing.create = lacks.min(room);
                room -= sizing.create;
                // What closes already makes room too.
                excess = excess.max((lacks - sizing.create).saturating_sub(closing).min(max));
            }
            for ((key, count), sizing) in &mut oldest_first {
                let Some(spec) = spec(key) else { continue };
                let is_current = self.current.as_ref() == Some(*key);
                let target = if is_current { self.idle_target(&spec.pool, count.busy + count.waiting) } else { 0 };
                let left = (count.starting + count.idle + sizing.create).saturating_sub(count.waiting);
                if excess == 0 {
                    let may_fail = self.may_fail(key, count.starting, now).saturating_sub(sizing.create);
                    let more = target.saturating_sub(left).min(room).min(may_fail);
                    room -= more;
                    sizing.create += more;
                }
                if count.waiting == 0 {
                    sizing.close = left.saturating_sub(target).min(count.idle);
                }
                if is_current {
                    spare = (count.starting + count.idle + sizing.create).saturating_sub(count.waiting);
                }
            }
        }
        // Those of earlier versions first; where submissions wait, idle runners are about to take them.
        oldest_first.sort_by_key(|((key, _), _)| self.current.as_ref() == Some(*key));
        for ((_, count), sizing) in oldest_first {
            let idle = count.idle.saturating_sub(if self.paused { 0 } else { count.waiting });
            sizing.excess = excess.min(idle);
            excess -= sizing.excess;
        }
        (sizes, spare)
    }

    /// How many runners may be created under a key while they fail to start: one at a time, each later than the one before.
    fn may_fail(&self, key: &PoolKey, starting: u32, now: Timestamp) -> u32 {
        const SOONEST: Duration = Duration::from_secs(5);
        const LATEST: Duration = Duration::from_secs(60);
        let Some(Failing { since, .. }) = self.failing.get(key) else { return u32::MAX };
        let last = self.batches.iter().filter(|batch| batch.key == *key).map(|batch| batch.at).max().unwrap_or(*since);
        let is_time = now.since(last) >= (last.since(*since) / 2).clamp(SOONEST, LATEST);
        u32::from(is_time && starting == 0)
    }

    /// Takes into account what became of the runners that were created lately: a key is failing from the first of its
    /// runners that ended without having asked for work, until one asks.
    pub fn see(&mut self, runners: &[Record]) {
        let mut by_key: BTreeMap<PoolKey, Vec<&Record>> = BTreeMap::new();
        for record in runners {
            if let Some(runner) = &record.runner() {
                by_key.entry(runner.key.clone()).or_default().push(record);
            }
        }
        let before = std::mem::take(&mut self.failing);
        // Where none was created lately, nothing waits for one.
        self.failing = by_key
            .into_iter()
            .filter_map(|(key, runners)| Some((key.clone(), failing(before.get(&key).cloned(), &runners)?)))
            .collect();
        let first = self.failing.values().min_by_key(|failing| failing.since);
        self.failing_since = first.map(|failing| failing.since);
        self.failure = first.and_then(|failing| failing.reason.clone());
    }

    /// Forgets the batches that the index shows by now, and those whose runners have all asked for work or are over: what
    /// became of them is in `failing_since`. While runners fail, batches show when the last was created.
    pub fn forget_batches(&mut self, runners: &[Record], now: Timestamp, timers: &Timers) {
        let is_settled = |id: &SubmissionId| {
            let runner = runners.iter().find(|record| record.submission_id == *id);
            let is_settled =
                |record: &Record| has_asked(record) || record.state() == State::Cancelled && !has_failed(record);
            runner.is_some_and(is_settled)
        };
        self.batches.retain(|batch| {
            let age = now.since(batch.at);
            let is_shown = age >= timers.index_lag && batch.ids().iter().all(is_settled);
            age < timers.runner_counted && !is_shown
        });
    }

    /// Makes a version of the profile the current one, with its limits and policy as they are now, which the key does not
    /// show; its doorbell stays.
    pub fn set_current(&mut self, current: Option<&(PoolKey, Spec)>) {
        self.current = current.map(|(key, _)| key.clone());
        if let Some((key, spec)) = current {
            self.unreadable.remove(key);
            let doorbell = self.specs.get(key).and_then(|known| known.doorbell.clone());
            self.specs.insert(key.clone(), Spec { doorbell, ..spec.clone() });
        }
    }

    /// Makes sure that what waits under a key can be served: a submit function accepts nothing before that. Answers
    /// whether the row changes.
    pub fn keep(&mut self, key: &PoolKey, spec: &Spec) -> bool {
        let is_marked = self.unused_since.remove(key).is_some();
        let is_new = !self.specs.contains_key(key);
        if is_new {
            self.unreadable.remove(key);
            self.specs.insert(key.clone(), spec.clone());
        }
        is_marked || is_new
    }

    /// Sets aside the entries of `specs` whose request cannot be read, so that they hinder no other key.
    pub fn set_aside_unreadable(&mut self) {
        let Self { specs, unreadable, .. } = self;
        specs.retain(|key, spec| match spec.run_task.for_runner(&spec.container_name, &spec.pool.runner, &[]) {
            Ok(_) => true,
            Err(error) => {
                unreadable.insert(key.clone(), error.to_string());
                false
            }
        });
    }

    /// Forgets the pool keys that nothing has used for a day.
    pub fn forget_keys(&mut self, now: Timestamp, is_used: impl Fn(&PoolKey) -> bool) {
        let Self { specs, batches, unused_since, .. } = self;
        let is_used = |key: &PoolKey| is_used(key) || batches.iter().any(|batch| batch.key == *key);
        for key in specs.keys() {
            if is_used(key) {
                unused_since.remove(key);
            } else {
                unused_since.entry(key.clone()).or_insert(now);
            }
        }
        specs.retain(|key, _| unused_since.get(key).is_none_or(|since| now.since(*since) < KEY_KEPT));
        unused_since.retain(|key, _| specs.contains_key(key));
    }
}

fn has_asked(record: &Record) -> bool {
    record.runner().is_some_and(|runner| runner.incarnation.is_some())
}

/// Whether a runner ended without having asked for work. One that was cancelled counts only where it was closed, as it ran
/// and did not ask.
fn has_failed(record: &Record) -> bool {
    let was_closed = record.runner().is_some_and(|runner| runner.closing);
    record.state().is_terminal() && (record.state() != State::Cancelled || was_closed) && !has_asked(record)
}

/// Why a runner failed: why it was stopped, if it was, and its exit code, of which those of the runner program have a meaning.
fn failure(record: &Record) -> Option<String> {
    let stop = record.stop_requested.as_ref().map(|stop| &stop.reason);
    let reason = stop.or(record.attempt.reason.as_ref());
    let Some(code) = record.attempt.exit_code else { return reason.cloned() };
    // As in `ecs-bridge-runner --help`.
    let meaning = match code {
        200 => ": its configuration is wrong",
        201 => ": it found no AWS credentials",
        202 => ": the runner API refused it",
        203 => ": another process runs as this runner",
        204 => ": it did not reach the runner API",
        _ => "",
    };
    let exited = format!("exited with {code}");
    Some(match reason {
        Some(reason) if reason.contains(&exited) => format!("{reason}{meaning}"),
        Some(reason) => format!("{reason}; container {} {exited}{meaning}", record.container_name),
        None => format!("container {} {exited}{meaning}", record.container_name),
    })
}

/// Whether the runners of a key fail, by those that were created lately.
fn failing(before: Option<Failing>, runners: &[&Record]) -> Option<Failing> {
    let asked = runners.iter().filter(|record| has_asked(record));
    let last_success = asked.map(|record| record.attempt.started_at.unwrap_or(record.created_at)).max();
    let failed = runners.iter().filter(|record| has_failed(record));
    let failed: Vec<_> = failed.filter(|record| last_success.is_none_or(|at| record.changed_at > Some(at))).collect();
    let last = failed.iter().max_by_key(|record| record.changed_at).and_then(|record| failure(record));
    let still = before.filter(|failing| last_success.is_none_or(|at| at < failing.since));
    let first = failed.iter().filter_map(|record| record.changed_at).min();
    match (still, first) {
        (Some(Failing { since, reason }), _) => Some(Failing { since, reason: last.or(reason) }),
        (None, Some(since)) => Some(Failing { since, reason: last }),
        (None, None) => None,
    }
}

/// The minutes since the epoch.
fn minute(now: Timestamp, timers: &Timers) -> u64 {
    now.millis() / u64::try_from(timers.minute.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn slot(minute: u64) -> usize {
    usize::try_from(minute % RING as u64).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        decide::tests::{now, rules, submission},
        record::{Stop, StopCause},
    };

    pub(crate) fn pool() -> Pool {
        serde_json::from_str(r#"{"max": 10, "min_idle": 2}"#).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        now().plus(Duration::from_secs(seconds))
    }

    pub(crate) fn key() -> PoolKey {
        PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "main", &pool())
    }

    fn spec() -> Spec {
        let run_task = FrozenRequest::freeze(&[Map::new()]);
        let policy = Policy::default();
        Spec {
            run_task,
            container_name: "main".to_owned(),
            cluster: "nightly".to_owned(),
            policy,
            pool: pool(),
            doorbell: None,
        }
    }

    pub(crate) fn earlier() -> PoolKey {
        PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "before", &pool())
    }

    pub(crate) fn row() -> PoolRow {
        let specs = [(key(), spec()), (earlier(), spec())].into();
        PoolRow { specs, current: Some(key()), ..PoolRow::default() }
    }

    /// The size of a pool with the current key alone, and what is spare.
    fn sizing(row: &PoolRow, count: &Count) -> (Sizing, u32) {
        let (sizes, spare) = row.size(&[(&key(), *count)], now());
        (sizes[0], spare)
    }

    fn create(row: &PoolRow, count: &Count) -> u32 {
        sizing(row, count).0.create
    }

    #[test]
    fn empty_pool_gets_its_idle_runners() {
        let (sizing, spare) = sizing(&row(), &Count::default());
        assert_eq!((sizing, spare), (Sizing { create: 2, ..Sizing::default() }, 2));
    }

    #[test]
    fn runners_never_exceed_the_maximum_of_all_keys() {
        let count = Count { waiting: 100, busy: 4, starting: 1, alive: 7, ..Count::default() };
        assert_eq!(create(&row(), &count), 3);
        let busy = Count { busy: 2, alive: 2, ..Count::default() };
        let (sizes, _) = row().size(&[(&key(), count), (&earlier(), busy)], now());
        assert_eq!(sizes.iter().map(|sizing| sizing.create).sum::<u32>(), 1);
        assert_eq!(create(&PoolRow { max: Some(5), ..row() }, &count), 0);
    }

    #[test]
    fn lowered_maximum_closes_the_excess_and_no_more() {
        let count = Count { idle: 4, busy: 4, alive: 8, ..Count::default() };
        for (max, excess) in [(6, 2), (1, 4), (8, 0)] {
            assert_eq!(sizing(&PoolRow { max: Some(max), ..row() }, &count).0.excess, excess);
        }
        let closing = Count { idle: 2, closing: 2, ..count };
        assert_eq!(sizing(&PoolRow { max: Some(6), ..row() }, &closing).0.excess, 0, "two close already");
    }

    #[test]
    fn starting_and_idle_runners_are_not_created_twice() {
        let count = Count { waiting: 3, starting: 3, idle: 2, alive: 5, ..Count::default() };
        assert_eq!(create(&row(), &count), 0);
    }

    #[test]
    fn submission_that_idle_runners_pass_over_gets_a_runner_of_its_own() {
        let row = PoolRow { min_idle: Some(0), ..row() };
        let count = Count { waiting: 1, passed_over: 1, idle: 3, alive: 3, ..Count::default() };
        assert_eq!(create(&row, &count), 0);
        assert_eq!(create(&row, &Count { idle: 1, alive: 1, ..count }), 1);
    }

    #[test]
    fn paused_pool_creates_nothing() {
        let count = Count { waiting: 5, ..Count::default() };
        assert_eq!(create(&PoolRow { paused: true, ..row() }, &count), 0);
    }

    #[test]
    fn more_runners_start_at_once_than_a_minute_of_launches_and_not_more() {
        let large = PoolRow { max: Some(10_000), ..row() };
        let count = Count { waiting: 9_000, ..Count::default() };
        assert_eq!(create(&large, &count), STARTING_AT_ONCE);
        let starting = Count { starting: 2_400, alive: 2_400, ..count };
        assert_eq!(create(&large, &starting), 100);
        let busy = Count { busy: 2_400, alive: 2_400, ..count };
        assert_eq!(create(&large, &busy), STARTING_AT_ONCE, "what was created and runs does not count");
    }

    #[test]
    fn earlier_version_of_a_profile_gets_runners_for_what_waits_and_none_to_spare() {
        let size = |count: Count| row().size(&[(&key(), Count::default()), (&earlier(), count)], now()).0[1];
        assert_eq!(size(Count { waiting: 1, ..Count::default() }).create, 1);
        assert_eq!(size(Count { idle: 2, alive: 2, ..Count::default() }).close, 2);
    }

    #[test]
    fn oldest_submission_comes_before_idle_runners_of_the_current_version() {
        let waits = Count { waiting: 3, oldest: Some(at(0)), ..Count::default() };
        for (order, of) in [([key(), earlier()], 1), ([earlier(), key()], 0)] {
            // The current version's idle runners fill the pool.
            let idle = Count { idle: 10, alive: 10, ..Count::default() };
            let counts: Vec<_> = order.iter().map(|it| (it, if *it == key() { idle } else { waits })).collect();
            let (sizes, _) = row().size(&counts, at(9));
            assert_eq!((sizes[of].create, sizes[1 - of].excess), (0, 3), "three make room");
            let closing = Count { idle: 7, closing: 3, ..idle };
            let counts: Vec<_> = order.iter().map(|it| (it, if *it == key() { closing } else { waits })).collect();
            assert_eq!(row().size(&counts, at(9)).0[1 - of].excess, 0, "they do already");
            let closed = Count { idle: 7, alive: 7, ..idle };
            let counts: Vec<_> = order.iter().map(|it| (it, if *it == key() { closed } else { waits })).collect();
            let (sizes, _) = row().size(&counts, at(9));
            assert_eq!((sizes[of].create, sizes[1 - of].create, sizes[1 - of].excess), (3, 0, 0));
        }
    }

    #[test]
    fn oldest_submission_of_all_versions_gets_the_last_place() {
        let waiting = |seconds| Count { waiting: 2, oldest: Some(at(seconds)), ..Count::default() };
        let one = PoolRow { max: Some(1), ..row() };
        let of = |current, before| {
            let (sizes, _) = one.size(&[(&key(), waiting(current)), (&earlier(), waiting(before))], at(99));
            (sizes[0].create, sizes[1].create)
        };
        assert_eq!((of(5, 9), of(9, 5)), ((1, 0), (0, 1)));
    }

    fn takes(taken: u64) -> Takes {
        Takes { taken, found_idle: 0 }
    }

    #[test]
    fn short_commands_keep_few_reusable_runners_idle() {
        let timers = Timers::default();
        let reuse = Pool { commands_per_container: 50, min_idle: 0, ..pool() };
        let mut row = row();
        for second in 0..600 {
            row.count(takes(second), u32::from(second % 3 == 0), at(second), &timers);
        }
        assert!((1..=3).contains(&row.idle_target(&reuse, 0)), "{}", row.idle_target(&reuse, 0));
        let once = Pool { commands_per_container: 1, ..reuse };
        assert_eq!(row.idle_target(&once, 0), 61, "each takes a container, which starts within a minute");
    }

    #[test]
    fn peak_of_the_last_15_minutes_is_kept_and_then_let_end() {
        let timers = Timers::default();
        let reuse = Pool { commands_per_container: 50, ..pool() };
        let mut row = row();
        row.count(takes(4), 4, at(0), &timers);
        row.count(takes(7), 7, at(1), &timers);
        row.count(takes(8), 0, at(120), &timers);
        assert_eq!((row.idle_target(&reuse, 0), row.idle_target(&reuse, 6), row.taken_lately()), (7, 2, 8));
        row.count(takes(8), 0, at(14 * 60), &timers);
        assert_eq!(row.idle_target(&reuse, 0), 7);
        row.count(takes(8), 0, at(15 * 60), &timers);
        assert_eq!(row.idle_target(&reuse, 0), reuse.min_idle);
        row.count(takes(9), 5, at(86_400), &timers);
        assert_eq!(row.idle_target(&reuse, 0), 5);
    }

    #[test]
    fn idle_runners_beyond_the_target_are_closed_and_not_spare() {
        let (sizing, spare) = sizing(&row(), &Count { idle: 9, alive: 9, ..Count::default() });
        assert_eq!((sizing.close, sizing.excess, spare), (7, 0, 9), "whoever closes them subtracts them");
    }

    #[test]
    fn pool_at_rest_needs_no_write() {
        let mut row = PoolRow::default();
        row.count(Takes::default(), 0, at(0), &Timers::default());
        assert_eq!(row, PoolRow::default());
    }

    #[test]
    fn choices_grow_with_idle_runners_and_with_what_is_taken() {
        let timers = Timers::default();
        let mut row = row();
        assert_eq!(row.choices(at(0), &timers), 1, "priority decides");
        row.idle = 12;
        assert_eq!(row.choices(at(0), &timers), 12);
        row.count(takes(60 * 40), 0, at(30), &timers);
        assert_eq!(row.choices(at(31), &timers), 52);
        assert_eq!(row.choices(at(600), &timers), 12);
        assert_eq!(PoolRow { idle: 5_000, ..row }.choices(at(600), &timers), WIDEST);
    }

    #[test]
    fn key_that_nothing_uses_is_kept_for_a_day_and_for_what_is_accepted_under_it() {
        let mut row = row();
        row.forget_keys(at(0), |key| *key != earlier());
        assert!(row.specs.contains_key(&earlier()));
        assert!(!row.keep(&key(), &spec()));
        assert!(row.keep(&earlier(), &spec()), "a submit function that was not updated yet");
        row.forget_keys(at(80_000), |key| *key != earlier());
        row.forget_keys(at(90_000), |key| *key != earlier());
        assert!(row.specs.contains_key(&earlier()));
        row.forget_keys(at(166_401), |key| *key != earlier());
        assert!(!row.specs.contains_key(&earlier()) && row.unused_since.is_empty());
        assert!(row.keep(&earlier(), &spec()) && row.specs.contains_key(&earlier()));
    }

    #[test]
    fn key_changes_with_the_spec_and_not_with_limits() {
        let key = |pool: &Pool| PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "main", pool);
        let same = Pool { max: 11, min_idle: 3, idle_timeout: 60, ..pool() };
        assert_eq!(key(&same), key(&pool()));
        for other in [
            Pool { commands_per_container: 2, ..pool() },
            Pool { poll_interval_ms: 2000, ..pool() },
            Pool { runner: vec!["other".to_owned()], ..pool() },
        ] {
            assert_ne!(key(&other), key(&pool()), "{other:?}");
        }
    }

    #[test]
    fn claims_since_last_round_are_not_spare() {
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
        ended_as(State::Failed, seconds, has_asked)
    }

    fn ended_as(state: State, seconds: u64, has_asked: bool) -> Record {
        let runner = Runner::new(key(), TokenHash::of("secret"), &pool());
        let mut record = Record::new_runner(submission("runner-1"), runner, at(0), &rules());
        if has_asked {
            record.runner_mut().unwrap().incarnation = Some("incarnation".to_owned().try_into().unwrap());
            record.attempt.started_at = Some(at(seconds));
        }
        record.change_to(State::Launching).unwrap();
        record.end(state, "no such image", at(seconds), &rules()).unwrap();
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
    fn failure_has_the_reason_of_the_stop_and_the_exit_code_with_its_meaning() {
        let failure = |change: &dyn Fn(&mut Record)| {
            let mut record = ended(5, false);
            change(&mut record);
            let mut row = row();
            row.see(&[record]);
            row.failure.unwrap()
        };
        let stopped = |record: &mut Record, code| {
            record.attempt.exit_code = Some(code);
            record.attempt.reason = Some("UserInitiated with exit code 0".to_owned());
            let reason = "the runner never asked for work".to_owned();
            record.stop_requested = Some(Stop { cause: StopCause::User, reason });
        };
        assert_eq!(failure(&|_| {}), "no such image");
        assert_eq!(
            failure(&|record| stopped(record, 204)),
            "the runner never asked for work; container main exited with 204: it did not reach the runner API"
        );
        assert_eq!(
            failure(&|record| stopped(record, 0)),
            "the runner never asked for work; container main exited with 0"
        );
        let exited = |record: &mut Record| {
            record.attempt.exit_code = Some(201);
            record.attempt.reason = Some("container main exited with 201".to_owned());
        };
        assert_eq!(failure(&exited), "container main exited with 201: it found no AWS credentials");
    }

    #[test]
    fn runner_that_asked_and_ended_is_no_failure() {
        let mut worked = ended(9, true);
        worked.attempt.started_at = Some(at(5));
        let mut row = row();
        row.see(&[worked]);
        assert_eq!((row.failing.len(), row.failing_since), (0, None));
    }

    #[test]
    fn runner_that_was_stopped_because_it_never_asked_has_failed() {
        let stopped = |closing| {
            let mut record = ended_as(State::Cancelled, 5, false);
            record.runner_mut().unwrap().closing = closing;
            record
        };
        let mut row = PoolRow { batches: vec![Batch::new(0, 1, key(), at(0))], ..row() };
        let of_batch = |closing| {
            let mut record: Record = stopped(closing);
            record.submission_id = row.batches[0].ids()[0].clone();
            record
        };
        let (failed, cancelled) = (of_batch(true), of_batch(false));
        row.see(std::slice::from_ref(&failed));
        assert_eq!(row.failing_since, Some(at(5)));
        row.forget_batches(&[failed], at(120), &Timers::default());
        assert_eq!(row.batches.len(), 1, "the next round still finds it");
        row.see(std::slice::from_ref(&cancelled));
        row.forget_batches(&[cancelled], at(120), &Timers::default());
        assert_eq!(row.batches, []);
    }

    #[test]
    fn failing_version_of_a_profile_holds_up_no_other() {
        let mut row = row();
        let broken = |mut record: Record| {
            record.runner_mut().unwrap().key = earlier();
            record
        };
        row.see(&[broken(ended(5, false)), ended(9, true)]);
        assert_eq!(row.failing.keys().collect::<Vec<_>>(), [&earlier()]);
        assert_eq!((row.failing_since, row.failure.as_deref()), (Some(at(5)), Some("no such image")));
        let waiting = |seconds| Count { waiting: 3, oldest: Some(at(seconds)), ..Count::default() };
        // The older submissions are those of the failing version.
        let (sizes, _) = row.size(&[(&key(), waiting(2)), (&earlier(), waiting(1))], at(20));
        assert_eq!((sizes[0].create, sizes[1].create), (5, 1));
    }

    #[test]
    fn a_failing_pool_tries_one_runner_at_a_time_ever_later() {
        let count = Count { waiting: 9, ..Count::default() };
        let failing = Failing { since: at(0), reason: None };
        let mut row = PoolRow { failing: [(key(), failing)].into(), ..row() };
        let mut tries = vec![];
        for second in 0..600 {
            let create = row.size(&[(&key(), count)], at(second)).0[0].create;
            if create > 0 {
                assert_eq!(create, 1);
                tries.push(second);
                row.batches = vec![Batch::new(0, 1, key(), at(second))];
            }
        }
        assert_eq!(tries[..5], [5, 10, 15, 23, 35]);
        assert_eq!(tries[tries.len() - 1] - tries[tries.len() - 2], 60);
        let starting = Count { starting: 1, alive: 1, ..count };
        assert_eq!(row.size(&[(&key(), starting)], at(3600)).0[0].create, 0);
    }

    #[test]
    fn a_changed_profile_has_another_key() {
        let profile: ProfileName = "etl".parse().unwrap();
        let run_task = |family: &str| serde_json::json!({"taskDefinition": family}).as_object().unwrap().clone();
        let key = PoolKey::of(&profile, &[run_task("a")], "main", &pool());
        assert_eq!(key, PoolKey::of(&profile, &[run_task("a")], "main", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &[run_task("b")], "main", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &[run_task("a")], "other", &pool()));
        assert!(key.as_str().starts_with("etl#"));
    }
}
