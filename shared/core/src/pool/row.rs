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

/// The number of minutes of which the busiest one determines how many runners are kept idle.
const RING: usize = 15;

/// The limit on runners that start at the same time. Each round of sizing reads their rows. At 40 launches per second, as
/// many are created in the minute that a container takes to start.
pub(super) const STARTING_AT_ONCE: u32 = 2500;

/// The limit on the number of waiting submissions among which a runner chooses.
pub(super) const WIDEST: usize = 100;

/// The time for which an unused pool key is kept. A submit function that has read the key in the pool's row may still
/// accept submissions under it.
const KEY_KEPT: Duration = Duration::from_secs(86_400);

/// Returns the key of a pool's row. No submission ID contains `#`.
pub fn row_key(profile: &ProfileName) -> String {
    format!("#pool/{profile}")
}

/// Returns the key of the row that counts the claims of a pool. The row is small, because almost every command writes it.
pub fn taken_key(profile: &ProfileName) -> String {
    format!("#pool/{profile}/taken")
}

/// The number of all claims in a pool so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Takes {
    /// Claimed submissions.
    #[serde(default)]
    pub taken: u64,
    /// Claimed submissions for which a runner was idle at submission.
    #[serde(default)]
    pub found_idle: u64,
}

/// A pool's row, `#pool/<profile>`: the settings of operators, and the state of sizing between rounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolRow {
    /// The number of writes. A round of sizing writes on condition that it is unchanged.
    #[serde(default)]
    pub rev: u64,
    /// Overrides the profile's `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Overrides the profile's `min_idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_idle: Option<u32>,
    /// If true, no runner is launched and no command is assigned.
    #[serde(default)]
    pub paused: bool,
    /// The identity that last changed these settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// The time of that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The specs of the pool keys in use: the current key, and those of earlier versions of the profile that still have
    /// submissions or runners.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub specs: BTreeMap<PoolKey, Spec>,
    /// The key of new submissions, or none if the profile no longer has a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<PoolKey>,
    /// The recently created runners of all keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<Batch>,
    /// The time since which each pool key has been unused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unused_since: BTreeMap<PoolKey, Timestamp>,
    /// The number of all claims at the last round of sizing. The runner API counts claims in a separate row
    /// ([`taken_key`]).
    #[serde(default)]
    pub taken: u64,
    /// The number of those claims for which a runner was idle.
    #[serde(default)]
    pub found_idle: u64,
    /// `taken` when the pool was last sized.
    #[serde(default)]
    pub counted: u64,
    /// The number of claims in each of the last 15 minutes, by the minute modulo 15.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub minutes: Vec<u32>,
    /// The maximum number of submissions that waited or ran at the same time in each of these minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peaks: Vec<u32>,
    /// The minute of the last count in `minutes`, since the epoch.
    #[serde(default)]
    pub minute: u64,
    /// The number of runners that were idle or starting at the last round of sizing, minus the waiting submissions.
    #[serde(default)]
    pub spare: u32,
    /// The number of runners that were idle then.
    #[serde(default)]
    pub idle: u32,
    /// The number of idle runners that the current version of the profile needed then.
    #[serde(default)]
    pub to_keep: u32,
    /// The keys whose runners fail to start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failing: BTreeMap<PoolKey, Failing>,
    /// The start of the first entry of `failing`, for readers that only display it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// The cause of the first entry of `failing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The reasons why submissions of a key wait although no runner is about to claim them. Such a key may be missing in
    /// `specs`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wait_reasons: BTreeMap<PoolKey, WaitReason>,
    /// The keys whose entry in `specs` cannot be read, with the cause. A write of the row leaves these entries unchanged.
    #[serde(skip)]
    pub unreadable: BTreeMap<PoolKey, String>,
}

/// A pool key whose runners fail to start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failing {
    /// The time of the first failure since the last success.
    pub since: Timestamp,
    /// The cause of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Runners that one round of sizing created. Their IDs are written before their rows, so that later rounds count them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Batch {
    /// A random number of 96 bits, in hexadecimal.
    pub base: String,
    /// The number of runners.
    pub runners: u32,
    /// The pool key of the runners.
    pub key: PoolKey,
    /// The time of creation.
    pub at: Timestamp,
}

impl Batch {
    /// Creates a batch. 96 bits of the random number are used.
    pub fn new(random: u128, runners: u32, key: PoolKey, at: Timestamp) -> Self {
        Self { base: format!("{:024x}", random >> 32), runners, key, at }
    }

    /// Returns the IDs of its runners, or no ID if the row does not hold a valid batch.
    pub fn ids(&self) -> Vec<SubmissionId> {
        let ids = (0..self.runners).map(|nth| format!("{RUNNER_PREFIX}{}{nth:08x}", self.base).parse());
        ids.collect::<Result<_, InvalidName>>().unwrap_or_default()
    }
}

impl PoolRow {
    /// Returns the maximum number of runners of all keys together.
    pub fn max(&self, pool: &Pool) -> u32 {
        self.max.unwrap_or(pool.max)
    }

    /// Returns the number of runners to keep idle for new submissions, besides `busy` runners and those for waiting
    /// submissions. This is `min_idle`, or more if the last 15 minutes needed more at the same time or used up more in
    /// their busiest minute.
    pub fn idle_target(&self, pool: &Pool, busy: u32) -> u32 {
        let most = |ring: &[u32]| ring.iter().copied().max().unwrap_or_default();
        let used_up = most(&self.minutes).div_ceil(pool.commands_per_container.max(1));
        // A runner that is used up occasionally was busy too.
        let used_up = if used_up > 1 { used_up } else { 0 };
        let at_once = (most(&self.peaks) + used_up).saturating_sub(busy);
        self.min_idle.unwrap_or(pool.min_idle).max(at_once)
    }

    /// Returns the number of runners that remain for new submissions, as far as known since the last round.
    pub fn spare_now(&self) -> u64 {
        u64::from(self.spare).saturating_sub(self.taken.saturating_sub(self.counted))
    }

    /// Returns the number of claims in the last 15 minutes.
    pub fn taken_lately(&self) -> u32 {
        self.minutes.iter().sum()
    }

    /// Adds the claims since the last round to this minute, records how many submissions wait or run at the same time, and
    /// removes minutes that are too old.
    pub fn count(&mut self, takes: Takes, at_once: u32, now: Timestamp, timers: &Timers) {
        (self.taken, self.found_idle) = (self.taken.max(takes.taken), self.found_idle.max(takes.found_idle));
        let taken = u32::try_from(self.taken.saturating_sub(self.counted)).unwrap_or(u32::MAX);
        self.counted = self.taken;
        let minute = minute(now, timers);
        if taken == 0 && at_once == 0 && self.minutes.iter().chain(&self.peaks).all(|&count| count == 0) {
            // Nothing changes, so the row needs no write.
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

    /// Returns the number of first waiting submissions among which a runner chooses at random. It covers the runners that
    /// may poll at the same time, so that two rarely choose the same submission. It also covers the claims of a second,
    /// which the index may still show. If neither is known, it is 1, so that priority decides.
    pub fn choices(&self, now: Timestamp, timers: &Timers) -> usize {
        let window = self.idle.saturating_add(self.most_taken(now, timers) / 60).max(1);
        usize::try_from(window).unwrap_or(WIDEST).min(WIDEST)
    }

    /// Returns the number of claims in this minute or in the one before, whichever is larger.
    pub(super) fn most_taken(&self, now: Timestamp, timers: &Timers) -> u32 {
        let minute = minute(now, timers);
        let lately = [minute, minute.saturating_sub(1)].into_iter().filter(|minute| self.minute.abs_diff(*minute) <= 1);
        lately.filter_map(|minute| self.minutes.get(slot(minute))).max().copied().unwrap_or_default()
    }

    /// Returns the number of runners that may be created under a key while they fail to start. They are created one at a
    /// time, at growing intervals.
    pub(super) fn may_fail(&self, key: &PoolKey, starting: u32, now: Timestamp) -> u32 {
        const SOONEST: Duration = Duration::from_secs(5);
        const LATEST: Duration = Duration::from_secs(60);
        let Some(Failing { since, .. }) = self.failing.get(key) else { return u32::MAX };
        let last = self.batches.iter().filter(|batch| batch.key == *key).map(|batch| batch.at).max().unwrap_or(*since);
        let is_time = now.since(last) >= (last.since(*since) / 2).clamp(SOONEST, LATEST);
        u32::from(is_time && starting == 0)
    }

    /// Updates the failing keys from recently created runners. A key fails from the first of its runners that ended without
    /// a poll, until one polls.
    pub fn see(&mut self, runners: &[Record]) {
        let mut by_key: BTreeMap<PoolKey, Vec<&Record>> = BTreeMap::new();
        for record in runners {
            if let Some(runner) = &record.runner() {
                by_key.entry(runner.key.clone()).or_default().push(record);
            }
        }
        let before = std::mem::take(&mut self.failing);
        // If none was created recently, no submission waits for one.
        self.failing = by_key
            .into_iter()
            .filter_map(|(key, runners)| Some((key.clone(), failing(before.get(&key).cloned(), &runners)?)))
            .collect();
        let first = self.failing.values().min_by_key(|failing| failing.since);
        self.failing_since = first.map(|failing| failing.since);
        self.failure = first.and_then(|failing| failing.reason.clone());
    }

    /// Removes batches that the index shows by now, and batches whose runners have all polled or ended. Their result is in
    /// `failing_since`. While runners fail, the batches show when the last one was created.
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

    /// Sets the current version of the profile, with its present limits and policy, which are not part of the key. The
    /// doorbell stays.
    pub fn set_current(&mut self, current: Option<&(PoolKey, Spec)>) {
        self.current = current.map(|(key, _)| key.clone());
        if let Some((key, spec)) = current {
            self.unreadable.remove(key);
            let doorbell = self.specs.get(key).and_then(|known| known.doorbell.clone());
            self.specs.insert(key.clone(), Spec { doorbell, ..spec.clone() });
        }
    }

    /// Adds the spec of a key, so that its submissions can be served. A submit function accepts no submission under the key
    /// before. Returns true if the row changes.
    pub fn keep(&mut self, key: &PoolKey, spec: &Spec) -> bool {
        let is_marked = self.unused_since.remove(key).is_some();
        let is_new = !self.specs.contains_key(key);
        if is_new {
            self.unreadable.remove(key);
            self.specs.insert(key.clone(), spec.clone());
        }
        is_marked || is_new
    }

    /// Moves entries of `specs` whose request cannot be read to `unreadable`, so that they affect no other key.
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

    /// Removes pool keys that have been unused for a day.
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

/// Returns true if a runner ended without a poll. A cancelled runner counts only if it was closed, because it ran and did not
/// poll.
fn has_failed(record: &Record) -> bool {
    let was_closed = record.runner().is_some_and(|runner| runner.closing);
    record.state().is_terminal() && (record.state() != State::Cancelled || was_closed) && !has_asked(record)
}

/// Returns the cause of a runner's failure: the reason of its stop, and the meaning of its exit code.
pub(super) fn failure(record: &Record) -> Option<String> {
    let stop = record.stop_requested.as_ref().map(|stop| &stop.reason);
    let reason = stop.or(record.attempt.reason.as_ref());
    let Some(code) = record.attempt.exit_code else { return reason.cloned() };
    // The exit codes are those of `ecs-bridge-runner --help`.
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

/// Returns whether the runners of a key fail, from the recently created ones.
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

/// Returns the minutes since the epoch.
fn minute(now: Timestamp, timers: &Timers) -> u64 {
    now.millis() / u64::try_from(timers.minute.as_millis()).unwrap_or(u64::MAX).max(1)
}

pub(super) fn slot(minute: u64) -> usize {
    usize::try_from(minute % RING as u64).unwrap_or_default()
}
