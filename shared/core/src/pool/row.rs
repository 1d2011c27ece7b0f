//! The row of a pool: what operators set, and what sizing remembers from round to round.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    key::{Pool, PoolKey},
    runner::RUNNER_PREFIX,
    spec::Spec,
    wait::WaitReason,
};
use crate::{
    id::{InvalidName, ProfileName, SubmissionId},
    record::Record,
    rules::Timers,
    state::State,
    time::Timestamp,
};

/// The minutes of which the busiest one sets how many runners are kept idle.
const RING: usize = 15;

/// The number of runners that may be starting at once: their rows are read with each round of sizing. At 40 launches per
/// second, as many are created within the minute that a container takes to start.
pub(super) const STARTING_AT_ONCE: u32 = 2500;

/// How many of the submissions that wait a runner chooses among at most.
pub(super) const WIDEST: usize = 100;

/// How long a pool key is kept that nothing uses: a submit function that has found it in the pool's row may still accept
/// submissions under it.
const KEY_KEPT: Duration = Duration::from_secs(86_400);

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
    pub(super) fn most_taken(&self, now: Timestamp, timers: &Timers) -> u32 {
        let minute = minute(now, timers);
        let lately = [minute, minute.saturating_sub(1)].into_iter().filter(|minute| self.minute.abs_diff(*minute) <= 1);
        lately.filter_map(|minute| self.minutes.get(slot(minute))).max().copied().unwrap_or_default()
    }

    /// How many runners may be created under a key while they fail to start: one at a time, each later than the one before.
    pub(super) fn may_fail(&self, key: &PoolKey, starting: u32, now: Timestamp) -> u32 {
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

pub(super) fn has_asked(record: &Record) -> bool {
    record.runner().is_some_and(|runner| runner.incarnation.is_some())
}

/// Whether a runner ended without having asked for work. One that was cancelled counts only where it was closed, as it ran
/// and did not ask.
fn has_failed(record: &Record) -> bool {
    let was_closed = record.runner().is_some_and(|runner| runner.closing);
    record.state().is_terminal() && (record.state() != State::Cancelled || was_closed) && !has_asked(record)
}

/// Why a runner failed: why it was stopped, if it was, and its exit code, of which those of the runner program have a meaning.
pub(super) fn failure(record: &Record) -> Option<String> {
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
pub(super) fn failing(before: Option<Failing>, runners: &[&Record]) -> Option<Failing> {
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

pub(super) fn slot(minute: u64) -> usize {
    usize::try_from(minute % RING as u64).unwrap_or_default()
}
