//! Pool sizing: creates runners where submissions wait and closes surplus idle runners.
//!
//! A round reads the waiting submissions and every runner that has not ended. Before it creates runners, it writes
//! their ids to the pool's row, on condition that the row is unchanged. So two concurrent rounds never exceed `max`,
//! and the next round creates the runners that an interrupted round did not.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ecs_bridge_aws::{ASK, BridgeError, Created, Ranked, TableError, now, read_profiles, telemetry};
use ecs_bridge_core::{
    Input, ProfileName, Record, SubmissionId, Timestamp,
    config::Environment,
    decide::PoolInput,
    pool::{Batch, Count, Phase, PoolKey, PoolRow, RunnerApiAddress, Sizing, Spec, Symptoms, WaitReason},
    rules::Timers,
};
use futures_util::{StreamExt, stream};

use crate::handler::{Loop, Report, Run};

/// The wait between rounds while submissions wait.
const AGAIN: Duration = Duration::from_secs(2);

/// The number of rows written concurrently.
const SIDE_BY_SIDE: usize = 32;

/// The number of waiting submissions that get a wait reason in each round.
const HELD: usize = 100;

/// The maximum count of submissions that wait under a key without a launch configuration.
const COUNTED: usize = 1000;

/// The duration of a failure after which a pool counts as failing.
const FAILING: Duration = Duration::from_secs(600);

/// The cause of a failed round. The next round repeats its work.
#[derive(Debug, thiserror::Error)]
enum SizeError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error("random number generation failed")]
    Random(#[from] getrandom::Error),
    #[error("invalid launch configuration of runners")]
    Spec(#[from] io::Error),
}

/// The pools of the deployment's profiles.
#[derive(Debug, Default)]
pub struct Pools {
    current: BTreeMap<ProfileName, (PoolKey, Spec)>,
    /// The address of the runner API, or none if there is no pool.
    runner_api: Option<RunnerApiAddress>,
    /// The doorbells that this process has tried to create, and whether it succeeded.
    doorbells: Mutex<BTreeMap<PoolKey, bool>>,
}

impl Pools {
    /// Reads the pools of the profiles in the environment. Without profiles there are no pools, because reconcile
    /// needs profiles for nothing else.
    pub fn read<F: Fn(&str) -> Option<String>>(environment: &mut Environment<F>) -> Self {
        let names = ["ECS_BRIDGE_PROFILES", "ECS_BRIDGE_PROFILES_FILE"];
        if names.iter().all(|name| environment.optional(name).is_none()) {
            return Self::default();
        }
        let clusters = environment.clusters();
        // The environment keeps the problems for the report.
        let Ok(profiles) = read_profiles(environment, &clusters) else { return Self::default() };
        let current = profiles.iter().filter_map(|(name, profile)| Some((name.clone(), profile.spec()?))).collect();
        let pools = Self { current, runner_api: environment.runner_api(), doorbells: Mutex::default() };
        if !pools.current.is_empty() && pools.runner_api.is_none() {
            environment.note(
                "ECS_BRIDGE_RUNNER_API_URL or ECS_BRIDGE_RUNNER_API_FUNCTION must be set, as a profile has a pool",
            );
        }
        pools
    }
}

/// Sizes the pools until no pool needs runners or the time has elapsed.
pub async fn run(run: &Run<'_>) -> Report {
    let mut report = Report::default();
    let (mut known, mut is_first) = (BTreeSet::new(), true);
    let announced = Mutex::default();
    let mut keys: BTreeMap<ProfileName, BTreeSet<PoolKey>> = BTreeMap::new();
    while !run.is_late() {
        known.extend(run.bridge.table.pools());
        for (profile, key) in run.take_waiting() {
            keys.entry(profile).or_default().insert(key);
        }
        let names: Vec<_> = run
            .pools
            .current
            .keys()
            .chain(&known)
            .chain(keys.keys())
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut totals = Totals::default();
        for profile in &names {
            let is_known = known.contains(profile);
            let round = Round { run, profile, keys: keys.get(profile), is_first, announced: &announced, now: now() };
            match round.size(is_known, &mut report).await {
                Ok(round) => totals.add(&round),
                Err(error) => {
                    tracing::error!(%profile, %error, "failed to size a pool");
                    report.errors += 1;
                }
            }
            known.insert(profile.clone());
        }
        let Totals { count, failing, stuck, waits } = totals;
        if is_first && !names.is_empty() {
            telemetry::pools(count.waiting, [count.starting, count.idle, count.busy], failing);
        }
        // Later rounds may find more.
        if (is_first || stuck > 0) && !names.is_empty() {
            telemetry::stuck_in_pools(stuck);
        }
        // The index may not show yet the work for which this run was woken.
        let is_at_rest = !run.has_waiting() && (names.is_empty() || !(waits || is_first && run.woken));
        is_first = false;
        if run.is_over(Loop::Pools, is_at_rest) || run.sleep(AGAIN).await {
            break;
        }
    }
    report
}

/// The totals of the rounds of all pools.
#[derive(Debug, Default)]
struct Totals {
    count: Count,
    failing: usize,
    /// Submissions that no runner can serve.
    stuck: u32,
    waits: bool,
}

impl Totals {
    fn add(&mut self, round: &Self) {
        self.count.waiting += round.count.waiting;
        self.count.starting += round.count.starting;
        self.count.idle += round.count.idle;
        self.count.busy += round.count.busy;
        self.failing += round.failing;
        self.stuck += round.stuck;
        self.waits |= round.waits;
    }
}

/// One sizing round of one pool.
struct Round<'a> {
    run: &'a Run<'a>,
    profile: &'a ProfileName,
    /// Keys of waiting submissions whose timers were served. The pool's row may not list them.
    keys: Option<&'a BTreeSet<PoolKey>>,
    /// `true` in the first round of this run.
    is_first: bool,
    /// The submissions that this run has announced to idle runners.
    announced: &'a Mutex<HashSet<SubmissionId>>,
    now: Timestamp,
}

/// The submissions and runners found under one key.
#[derive(Default)]
struct Seen {
    count: Count,
    waiting: Vec<SubmissionId>,
    /// Idle runners, longest idle first.
    idle: Vec<Record>,
    symptoms: Symptoms,
}

impl Seen {
    fn waiting(&mut self, waiting: Vec<Ranked>, now: Timestamp, timers: &Timers) {
        for Ranked { submission_id, rank, priority } in waiting {
            self.count.waiting(priority.submitted_at(rank, timers), now, timers);
            self.waiting.push(submission_id);
        }
    }
}

impl Round<'_> {
    async fn size(&self, is_known: bool, report: &mut Report) -> Result<Totals, SizeError> {
        let Run { bridge, pools, .. } = self.run;
        let (table, timers) = (&bridge.table, &bridge.rules.timers);
        let mut before = table.pool_row(self.profile).await?;
        before.set_aside_unreadable();
        let mut row = before.clone();
        let current = pools.current.get(self.profile);
        if !is_known && (current.is_some() || self.keys.is_some()) {
            table.set_pool(self.profile, true).await?;
        }
        row.set_current(current);
        if self.is_first {
            self.create_doorbells(&mut row).await;
        }

        let (seen, lately) = self.look(&row).await?;
        // Keys without a launch configuration cannot be sized.
        let (mut seen, unserved): (BTreeMap<_, _>, BTreeMap<_, _>) =
            seen.into_iter().partition(|(key, _)| row.specs.contains_key(key));
        let counts: Vec<_> = seen.iter().map(|(key, seen)| (key, seen.count)).collect();
        let takes = table.takes(self.profile).await?;
        let (sizes, spare) = row.plan(&counts, &lately, takes, self.now, timers);
        drop(counts);
        self.find_wait_reasons(&mut row, &seen, &unserved);
        let (mut totals, mut batches, mut closing) = (Totals::default(), Vec::new(), Vec::new());
        for ((key, seen), Sizing { create, close, excess }) in seen.iter_mut().zip(sizes) {
            let Some(spec) = row.specs.get(key) else { continue };
            if create > 0 {
                batches.push(Batch::new(random()?, create, key.clone(), self.now));
            }
            let timeout = Duration::from_secs(spec.pool.idle_timeout.into());
            let idle = std::mem::take(&mut seen.idle);
            closing.extend(to_close(idle, close as usize, excess as usize, timeout, self.now));
            let waits = seen.count.waiting > 0 && !row.paused;
            totals.add(&Totals { count: seen.count, waits, ..Totals::default() });
        }
        totals.count.waiting += unserved.values().map(|seen| seen.count.waiting).sum::<u32>();
        let stuck = row.wait_reasons.iter().filter(|(_, reason)| reason.stuck);
        totals.stuck =
            stuck.filter_map(|(key, _)| seen.get(key).or(unserved.get(key))).map(|it| it.count.waiting).sum();
        // Runners that are about to close do not count as available.
        let of_current =
            closing.iter().filter(|runner| runner.runner.as_ref().map(|it| &it.key) == row.current.as_ref());
        row.spare = spare.saturating_sub(u32::try_from(of_current.count()).unwrap_or(u32::MAX));
        totals.failing = usize::from(row.failing_since.is_some_and(|since| self.now.since(since) >= FAILING));
        row.batches.extend(batches.iter().cloned());
        row.forget_keys(self.now, |key| {
            let is_current = current.is_some_and(|(current, _)| current == key);
            is_current || seen.get(key).is_some_and(|seen| seen.count.alive + seen.count.waiting > 0)
        });
        if row != before {
            row.rev = before.rev + 1;
            if !table.update_pool_row(self.profile, &before, &row).await? {
                // Another round was faster and has done the work of this one.
                return Ok(totals);
            }
        }
        if row.specs.is_empty() && row.unreadable.is_empty() && row.wait_reasons.is_empty() && is_known {
            table.set_pool(self.profile, false).await?;
        }
        report.created += self.create(&row, &lately).await?;
        let specs = before.specs.iter().filter(|(key, _)| !row.specs.contains_key(key));
        self.remove_doorbells(specs.filter_map(|(key, spec)| Some((key, spec.doorbell.as_deref()?)))).await;
        report.closed += self.close(&closing).await?;
        self.ring(&row, &seen, &closing).await;
        if self.is_first || row.wait_reasons != before.wait_reasons {
            for (key, seen) in seen.iter().chain(&unserved) {
                let (reason, had) = (row.wait_reasons.get(key), before.wait_reasons.contains_key(key));
                if reason.is_some() || had {
                    self.hold(seen.waiting.iter().take(HELD), reason).await?;
                }
            }
        }
        Ok(totals)
    }

    /// Creates missing doorbells, and recreates those that may have been deleted. Runners without a doorbell poll at
    /// intervals. The first failure ends the attempt until the next run, because SQS would also be unavailable for
    /// the others.
    async fn create_doorbells(&self, row: &mut PoolRow) {
        for (key, spec) in &mut row.specs {
            if spec.doorbell.is_some() && self.doorbells().get(key) == Some(&true) {
                continue;
            }
            let created = self.run.doorbells.create(key).await;
            let before = self.doorbells().insert(key.clone(), created.is_ok());
            match created {
                Ok(url) => spec.doorbell = Some(url),
                Err(error) => {
                    // Logged once per process because a network without a route to SQS stays that way.
                    if before.is_none() {
                        tracing::warn!(%key, %error, "a pool has no doorbell; its idle runners ask at intervals");
                    }
                    return;
                }
            }
        }
    }

    fn doorbells(&self) -> MutexGuard<'_, BTreeMap<PoolKey, bool>> {
        self.run.pools.doorbells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the doorbells of unused pool keys.
    async fn remove_doorbells(&self, doorbells: impl Iterator<Item = (&PoolKey, &str)>) {
        for (key, url) in doorbells {
            self.doorbells().remove(key);
            if let Err(error) = self.run.doorbells.remove(url).await {
                tracing::warn!(%key, %error, queue = url, "failed to remove the unused doorbell of a pool");
            }
        }
    }

    /// Announces waiting submissions again if runners are idle. A message may have been lost, and a submission that
    /// waits again after an interruption had none. Closing runners are also notified, so that they poll sooner and
    /// free their places.
    async fn ring(&self, row: &PoolRow, seen: &BTreeMap<PoolKey, Seen>, closing: &[Record]) {
        for (key, seen) in seen {
            let Some(url) = row.specs.get(key).and_then(|spec| spec.doorbell.as_deref()) else { continue };
            let closes =
                closing.iter().filter(|record| record.runner.as_ref().is_some_and(|runner| runner.key == *key));
            let mut messages = vec![ASK; closes.count()];
            if !row.paused {
                let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
                let new = seen.waiting.iter().filter(|id| announced.insert((*id).clone()));
                messages.extend(new.take(seen.count.idle as usize).map(SubmissionId::as_str));
            }
            self.run.doorbells.ring(url, &messages).await;
        }
    }

    /// Records the wait reasons of submissions that no runner will serve.
    fn find_wait_reasons(&self, row: &mut PoolRow, seen: &BTreeMap<PoolKey, Seen>, unserved: &BTreeMap<PoolKey, Seen>) {
        let timers = &self.run.bridge.rules.timers;
        let largest = row.specs.values().map(|spec| row.max(&spec.pool)).max().unwrap_or_default();
        let max = row.current.as_ref().and_then(|key| row.specs.get(key)).map_or(largest, |spec| row.max(&spec.pool));
        let is_full = seen.values().map(|seen| seen.count.alive).sum::<u32>() >= max;
        let has_address = self.run.pools.runner_api.is_some();
        let reasons = seen.iter().chain(unserved).filter_map(|(key, Seen { count, symptoms, .. })| {
            let reason = row.wait_reason(key, count, symptoms, (is_full, has_address), self.now, timers)?;
            Some((key.clone(), reason))
        });
        let reasons: BTreeMap<_, _> = reasons.collect();
        for (key, WaitReason { reason, stuck, .. }) in &reasons {
            if *stuck && row.wait_reasons.get(key).is_none_or(|before| !before.stuck) {
                tracing::warn!(profile = %self.profile, %key, reason, "submissions of a pool are stuck");
            }
        }
        row.wait_reasons = reasons;
    }

    /// Reads the waiting submissions and the runners of each key, and the recently created runners.
    async fn look(&self, row: &PoolRow) -> Result<(BTreeMap<PoolKey, Seen>, Vec<Record>), SizeError> {
        let bridge = self.run.bridge;
        let (table, timers) = (&bridge.table, &bridge.rules.timers);
        let mut by_key: BTreeMap<PoolKey, Seen> = BTreeMap::new();
        let lately: HashSet<SubmissionId> = row.batches.iter().flat_map(Batch::ids).collect();
        let mut ids = lately.clone();
        for (key, spec) in &row.specs {
            let most = row.max(&spec.pool) as usize;
            let seen = by_key.entry(key.clone()).or_default();
            seen.waiting(table.ranked(&key.waiting(), most).await?, self.now, timers);
            // More than `max` runners can exist after `max` was lowered.
            let runners = table.ranked(&key.runners(), usize::MAX).await?;
            ids.extend(runners.into_iter().map(|runner| runner.submission_id));
        }
        // Submissions under keys without a launch configuration are shown as stuck.
        let unserved = row.wait_reasons.keys().chain(row.unreadable.keys()).chain(self.keys.into_iter().flatten());
        for key in unserved.filter(|key| !row.specs.contains_key(key)) {
            let seen = by_key.entry(key.clone()).or_default();
            if seen.count.waiting == 0 {
                seen.waiting(table.ranked(&key.waiting(), COUNTED).await?, self.now, timers);
            }
        }
        let records = table.get_all(&ids.into_iter().collect::<Vec<_>>()).await?;
        let mut created_lately = Vec::new();
        for record in records {
            let Some(runner) = record.runner.as_deref() else { continue };
            let phase = runner.phase(self.now, timers);
            if !record.state.is_terminal()
                && let Some(seen) = by_key.get_mut(&runner.key)
            {
                seen.count.runner(phase);
                seen.symptoms.add(&record, runner, phase, self.now, timers);
                if phase == Phase::Idle {
                    seen.idle.push(record.clone());
                }
            }
            if lately.contains(&record.submission_id) {
                created_lately.push(record);
            }
        }
        // This round creates the runners that another round has announced but not created yet.
        let found: HashSet<_> = created_lately.iter().map(|record| &record.submission_id).collect();
        for batch in &row.batches {
            let missing = batch.ids().iter().filter(|id| !found.contains(id)).count();
            if let Some(seen) = by_key.get_mut(&batch.key) {
                (0..missing).for_each(|_| seen.count.runner(Phase::Starting));
            }
        }
        Ok((by_key, created_lately))
    }

    /// Creates the runners that are in the row but do not exist yet, and queues their launches.
    async fn create(&self, row: &PoolRow, there: &[Record]) -> Result<usize, SizeError> {
        // A pause also holds back runners that an earlier round announced.
        let Some(runner_api) = self.run.pools.runner_api.as_ref().filter(|_| !row.paused) else { return Ok(0) };
        let bridge = self.run.bridge;
        let there: HashSet<_> = there.iter().map(|record| &record.submission_id).collect();
        let mut runners = Vec::new();
        for batch in &row.batches {
            let Some(spec) = row.specs.get(&batch.key) else { continue };
            for id in batch.ids().into_iter().filter(|id| !there.contains(id)) {
                let of = (id, batch.key.clone(), self.profile.clone());
                runners.push(spec.runner(of, &token()?, runner_api, now(), &bridge.rules)?);
            }
        }
        let creates = runners.into_iter().map(|runner| async move {
            let created = bridge.table.create(&runner).await?;
            Ok::<_, TableError>(matches!(created, Created::New).then_some(runner.submission_id))
        });
        let mut creates = stream::iter(creates).buffer_unordered(SIDE_BY_SIDE);
        let mut count = 0;
        while let Some(created) = creates.next().await {
            if let Some(id) = created? {
                count += 1;
                self.run.created(id);
            }
        }
        if count > 0 {
            tracing::info!(profile = %self.profile, runners = count, "created runners");
        }
        Ok(count)
    }

    /// Closes idle runners, except those that received a command in the meantime.
    async fn close(&self, runners: &[Record]) -> Result<usize, SizeError> {
        let mut count = 0;
        for runner in runners {
            count +=
                usize::from(self.run.bridge.attempt(runner, &Input::Pool(PoolInput::Close(None))).await?.is_some());
        }
        Ok(count)
    }

    /// Writes the wait reason to the waiting submissions, or clears it.
    async fn hold(
        &self,
        waiting: impl Iterator<Item = &SubmissionId>,
        reason: Option<&WaitReason>,
    ) -> Result<(), SizeError> {
        let ids: Vec<_> = waiting.cloned().collect();
        for record in self.run.bridge.table.get_all(&ids).await? {
            let held = PoolInput::Held(reason.map(|reason| reason.reason.clone()));
            self.run.bridge.settle(record, Input::Pool(held)).await?;
        }
        Ok(())
    }
}

/// Returns the idle runners to close: `excess` at once, and up to `close` of the others that have been idle for
/// `timeout`.
fn to_close(mut idle: Vec<Record>, close: usize, excess: usize, timeout: Duration, now: Timestamp) -> Vec<Record> {
    let since =
        |record: &Record| record.runner.as_ref().and_then(|runner| runner.idle_since).unwrap_or(record.created_at);
    idle.sort_by_key(since);
    let has_timed_out = idle.iter().take_while(|record| now.since(since(record)) >= timeout).count();
    idle.truncate(excess.max(close.min(has_timed_out)));
    idle
}

/// Returns an unpredictable random number.
fn random() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}

/// Returns a secret for a runner: 256 random bits.
fn token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
