//! Pools: profiles whose containers are runners, which wait for commands and pull them from the table.
//!
//! A waiting submission and a runner are rows like any other, with [`Waiting`], [`Taken`] or [`Runner`] beside them. How
//! they change is [`crate::decide`]'s; here are their parts, who may ask for work, and how many runners a pool needs.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    id::{InvalidName, ProfileName, SubmissionId},
    record::canonical,
    time::Timestamp,
};

/// What the ids of runners begin with. Callers may not use it.
pub const RUNNER_PREFIX: &str = "runner-";

/// How many bytes of JSON the command and environment of a waiting submission may take. They do not travel in RunTask.
pub const WORK_BYTES: usize = 64 * 1024;

/// For how long a created runner is counted by its id: the index may not show it yet.
pub const CREATED_COUNTED: Duration = Duration::from_secs(600);

/// How long an idle runner counts as idle after it asked, by a time that its row notes every minute.
const IDLE_COUNTED: Duration = Duration::from_secs(120);

/// How long a submission may wait while runners are idle before it gets one of its own.
const PASSED_OVER: Duration = Duration::from_secs(10);

/// The minutes over which the busiest one sets how many runners are kept idle.
const RING: usize = 15;

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
    /// The key of a profile as it is.
    pub fn of(profile: &ProfileName, run_task: &Map<String, Value>, container_name: &str, pool: &Pool) -> Self {
        let mut digest = Sha256::new();
        digest.update(canonical(&Value::Object(run_task.clone())));
        digest.update([0]);
        digest.update(container_name);
        digest.update([0]);
        // Numbers and strings serialise.
        digest.update(serde_json::to_string(pool).unwrap_or_default());
        let hash: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{profile}#{hash}"))
    }

    /// The partition of the index `pool` for the submissions that wait.
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
}

/// Whether an id is a runner's.
pub fn is_runner(id: &SubmissionId) -> bool {
    id.as_str().starts_with(RUNNER_PREFIX)
}

/// The id of a new runner, from a random number.
///
/// # Errors
/// Never: the prefix and 32 digits are a valid id.
pub fn runner_id(random: u128) -> Result<SubmissionId, InvalidName> {
    format!("{RUNNER_PREFIX}{random:032x}").parse()
}

/// The sort key of the index `pool`: higher priorities first, then older submissions.
pub fn rank(priority: i32, created_at: Timestamp) -> i64 {
    // 2^43 milliseconds last until the year 2248; a priority of 20 bits and those fit.
    const SPAN: i64 = 1 << 43;
    let at = i64::try_from(created_at.millis()).unwrap_or(SPAN - 1).min(SPAN - 1);
    -i64::from(priority) * SPAN + at
}

/// How far priorities reach, up and down.
pub const PRIORITIES: i32 = 500_000;

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
    /// The runners of the last ten minutes, and when they were created.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub created: BTreeMap<SubmissionId, Timestamp>,
    /// How many submissions were taken in each of the last 15 minutes, by the minute modulo 15.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<u32>,
    /// The minute of the last count in `taken`, since the epoch.
    #[serde(default)]
    pub minute: u64,
    /// How many runners were idle or starting, beyond what waited, when the pool was last sized.
    #[serde(default)]
    pub spare: u32,
    /// When the pool was last sized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sized_at: Option<Timestamp>,
    /// Since when its runners have failed to start, without a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
}

/// The key of a pool's row. No submission can have it: `#` is in no id.
pub fn row_key(profile: &ProfileName) -> String {
    format!("#pool/{profile}")
}

/// What a round of sizing counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Submissions that wait.
    pub waiting: u32,
    /// Those of them that have waited for more than 10 s.
    pub passed_over: u32,
    /// Runners that have not asked for work yet.
    pub starting: u32,
    /// Runners that serve nothing and asked within 2 minutes.
    pub idle: u32,
    /// Runners that serve a submission.
    pub busy: u32,
    /// All runners that are not over, closing and silent ones included.
    pub alive: u32,
}

impl Count {
    /// Counts one runner that is not over.
    pub fn runner(&mut self, runner: &Runner, now: Timestamp) {
        self.alive += 1;
        match (&runner.serves, runner.polled_at) {
            _ if runner.closing => {}
            (Some(_), _) => self.busy += 1,
            (None, None) => self.starting += 1,
            (None, Some(polled_at)) => self.idle += u32::from(now.since(polled_at) <= IDLE_COUNTED),
        }
    }

    /// Counts one submission that waits.
    pub fn waiting(&mut self, since: Timestamp, now: Timestamp) {
        self.waiting += 1;
        self.passed_over += u32::from(now.since(since) > PASSED_OVER);
    }
}

/// What a round of sizing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// How many runners to create.
    pub create: u32,
    /// How many idle runners to close, those that have been idle for longer than `idle_timeout`.
    pub close: u32,
    /// How many runners remain for submissions that are still to come.
    pub spare: u32,
}

impl PoolRow {
    /// The number of runners at most.
    pub fn max(&self, pool: &Pool) -> u32 {
        self.max.unwrap_or(pool.max)
    }

    /// How many idle runners to keep: `min_idle`, or what was taken in the busiest minute of the last 15 if that is more.
    pub fn idle_target(&self, pool: &Pool) -> u32 {
        let busiest = self.taken.iter().copied().max().unwrap_or_default();
        self.min_idle.unwrap_or(pool.min_idle).max(busiest)
    }

    /// Counts `taken` submissions of this minute, and forgets the minutes that are too long ago.
    pub fn count_taken(&mut self, taken: u32, now: Timestamp) {
        let minute = now.millis() / 60_000;
        self.taken.resize(RING, 0);
        for passed in (self.minute + 1..=minute).rev().take(RING) {
            if let Some(slot) = self.taken.get_mut(slot(passed)) {
                *slot = 0;
            }
        }
        self.minute = self.minute.max(minute);
        if let Some(slot) = self.taken.get_mut(slot(minute)) {
            *slot = slot.saturating_add(taken);
        }
    }

    /// How many runners to create and to close: `wanted = min(max, busy + waiting + idle_target)`.
    pub fn size(&self, pool: &Pool, count: &Count) -> Sizing {
        let (max, idle_target) = (self.max(pool), self.idle_target(pool));
        if self.paused {
            return Sizing { create: 0, close: 0, spare: 0 };
        }
        let wanted = max.min(count.busy + count.waiting + idle_target);
        // Idle runners that leave a submission waiting for so long do not take it.
        let idle = count.idle.saturating_sub(count.passed_over);
        let counted = count.starting + idle + count.busy;
        let create = wanted.saturating_sub(counted).min(max.saturating_sub(count.alive));
        let close = if count.waiting == 0 { count.idle.saturating_sub(idle_target) } else { 0 };
        let spare = (count.starting + count.idle + create).saturating_sub(count.waiting);
        Sizing { create, close, spare }
    }
}

fn slot(minute: u64) -> usize {
    usize::try_from(minute % RING as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        serde_json::from_str(r#"{"max": 10, "min_idle": 2}"#).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn an_empty_pool_gets_its_idle_runners() {
        let sizing = PoolRow::default().size(&pool(), &Count::default());
        assert_eq!(sizing, Sizing { create: 2, close: 0, spare: 2 });
    }

    #[test]
    fn runners_never_exceed_the_maximum() {
        let count = Count { waiting: 100, busy: 4, starting: 1, alive: 7, ..Count::default() };
        assert_eq!(PoolRow::default().size(&pool(), &count).create, 3);
        let lowered = PoolRow { max: Some(5), ..PoolRow::default() };
        assert_eq!(lowered.size(&pool(), &count).create, 0);
    }

    #[test]
    fn starting_and_idle_runners_are_not_created_twice() {
        let count = Count { waiting: 3, starting: 3, idle: 2, alive: 5, ..Count::default() };
        assert_eq!(PoolRow::default().size(&pool(), &count).create, 0);
    }

    #[test]
    fn a_submission_that_idle_runners_pass_over_gets_a_runner_of_its_own() {
        let count = Count { waiting: 1, passed_over: 1, idle: 3, alive: 3, ..Count::default() };
        assert_eq!(PoolRow { min_idle: Some(0), ..PoolRow::default() }.size(&pool(), &count).create, 0);
        let count = Count { idle: 1, alive: 1, ..count };
        assert_eq!(PoolRow { min_idle: Some(0), ..PoolRow::default() }.size(&pool(), &count).create, 1);
    }

    #[test]
    fn a_paused_pool_creates_nothing() {
        let count = Count { waiting: 5, ..Count::default() };
        assert_eq!(PoolRow { paused: true, ..PoolRow::default() }.size(&pool(), &count).create, 0);
    }

    #[test]
    fn the_busiest_minute_of_the_last_15_is_kept_idle_and_then_let_end() {
        let mut row = PoolRow::default();
        row.count_taken(4, at(0));
        row.count_taken(3, at(1));
        row.count_taken(1, at(120));
        assert_eq!(row.idle_target(&pool()), 7);
        row.count_taken(0, at(14 * 60));
        assert_eq!(row.idle_target(&pool()), 7);
        row.count_taken(0, at(15 * 60));
        assert_eq!(row.idle_target(&pool()), pool().min_idle);
        row.count_taken(5, at(86_400));
        assert_eq!(row.idle_target(&pool()), 5);
        let count = Count { idle: 9, alive: 9, ..Count::default() };
        assert_eq!(row.size(&pool(), &count).close, 4);
    }

    #[test]
    fn higher_priorities_come_first_and_then_older_submissions() {
        let mut ranks = [(0, 5), (3, 9), (-1, 0), (0, 4), (3, 8)].map(|(priority, s)| (rank(priority, at(s)), s));
        ranks.sort_unstable();
        assert_eq!(ranks.map(|(_, s)| s), [8, 9, 4, 5, 0]);
        assert!(rank(PRIORITIES, at(0)) < rank(-PRIORITIES, at(0)));
    }

    #[test]
    fn a_changed_profile_has_another_key() {
        let profile: ProfileName = "etl".parse().unwrap();
        let run_task = |family: &str| serde_json::json!({"taskDefinition": family}).as_object().unwrap().clone();
        let key = PoolKey::of(&profile, &run_task("a"), "main", &pool());
        assert_eq!(key, PoolKey::of(&profile, &run_task("a"), "main", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &run_task("b"), "main", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &run_task("a"), "other", &pool()));
        assert_ne!(key, PoolKey::of(&profile, &run_task("a"), "main", &Pool { max: 11, ..pool() }));
        assert!(key.as_str().starts_with("etl#"));
    }
}
