//! The steps of a round of sizing: read, decide, claim the pool's row, create and close runners.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ecs_bridge_core::{
    ProfileName, Record, State, SubmissionId,
    pool::{Batch, Count, Incarnation, Phase, PoolKey, PoolRow, RunnerApiAddress, Sizing, Takes},
    record::Kind,
};

use super::{
    bug::SizingBug,
    promise::SizingPromise,
    scenario::PoolSizing,
    world::{Round, Runner, RunnerState, SizingWorld, Submission},
};

/// The submissions and runners of one pool key.
#[derive(Default)]
struct OfKey {
    count: Count,
    idle: Vec<SubmissionId>,
}

impl PoolSizing {
    /// Returns the row of a runner, with the attributes that sizing reads.
    fn record(&self, runner: &Runner) -> Record {
        let (key, spec) = self.spec(runner.version);
        let of = (runner.id.clone(), key, ProfileName::default_profile());
        let address = RunnerApiAddress::Function("runner-api".to_owned());
        let created = spec.runner(of, "secret", &address, Self::at(runner.created_at), &Self::rules());
        // The request was frozen above.
        let mut record = created.unwrap_or_else(|_| unreachable!());
        let has_polled = runner.polled_at.is_some();
        let state = match (runner.state, has_polled) {
            (RunnerState::Starting, _) => State::Launched,
            (RunnerState::Idle | RunnerState::Busy(_) | RunnerState::Closing, _) => State::Running,
            (RunnerState::Ended, true) => State::Succeeded,
            (RunnerState::Ended, false) => State::Failed,
        };
        record.change_to(state).unwrap_or_else(|_| unreachable!());
        record.changed_at = record.state().is_terminal().then(|| Self::at(runner.ended_at));
        record.attempt.started_at = has_polled.then(|| Self::at(runner.created_at));
        if let Kind::Runner(part) = &mut record.kind {
            part.closing = runner.state == RunnerState::Closing;
            part.polled_at = runner.polled_at.map(Self::at);
            part.incarnation = has_polled.then(|| Incarnation::try_from("process-1".to_owned()).ok()).flatten();
            // Sizing does not depend on which submission it is.
            part.serves = matches!(runner.state, RunnerState::Busy(_)).then(|| runner.id.clone());
        }
        record
    }

    /// Returns what a round reads: submissions and runners by pool key, and the rows of recently created runners.
    fn read(&self, world: &SizingWorld, row: &PoolRow) -> (BTreeMap<PoolKey, OfKey>, Vec<Record>) {
        let (now, timers) = (Self::at(world.now), Self::rules().timers);
        let mut by_key: BTreeMap<_, OfKey> = row.specs.keys().map(|key| (key.clone(), OfKey::default())).collect();
        for submission in &world.index.waiting {
            // The index can still show a submission that no longer waits.
            if let Some(Submission::Waiting { version, since }) = world.submissions.get(*submission)
                && let Some(seen) = by_key.get_mut(&self.spec(*version).0)
            {
                seen.count.waiting(Self::at(*since), now, &timers);
            }
        }
        let recent: BTreeSet<SubmissionId> = row.batches.iter().flat_map(Batch::ids).collect();
        let shown = world.index.runners.iter().filter_map(|runner| world.runners.get(*runner));
        let ids: BTreeSet<_> = shown.map(|runner| &runner.id).chain(&recent).collect();
        let mut created_recently = Vec::new();
        for runner in world.runners.iter().filter(|runner| ids.contains(&runner.id)) {
            let record = self.record(runner);
            if let (false, Some(part)) = (record.state().is_terminal(), &record.runner())
                && let Some(seen) = by_key.get_mut(&part.key)
            {
                let phase = part.phase(now, &timers);
                seen.count.runner(phase);
                if phase == Phase::Idle {
                    seen.idle.push(runner.id.clone());
                }
            }
            if recent.contains(&runner.id) {
                created_recently.push(record);
            }
        }
        let found: BTreeSet<_> = created_recently.iter().map(|record| &record.submission_id).collect();
        for batch in &row.batches {
            let missing = batch.ids().iter().filter(|id| !found.contains(id)).count();
            if let Some(seen) = by_key.get_mut(&batch.key) {
                (0..missing).for_each(|_| seen.count.runner(Phase::Starting));
            }
        }
        (by_key, created_recently)
    }

    /// Decides on the new row of the pool.
    fn decide(&self, world: &SizingWorld, before: Arc<PoolRow>, version: usize) -> Round {
        let now = Self::at(world.now);
        let mut row = PoolRow::clone(&before);
        let current = self.spec(version);
        row.set_current(Some(&current));
        let (mut seen, recent) = self.read(world, &row);
        let counts: Vec<_> = seen.iter().map(|(key, seen)| (key, seen.count)).collect();
        let paused = row.paused;
        row.paused &= !self.has(SizingBug::PauseIgnored);
        let takes = Takes { taken: world.taken, found_idle: 0 };
        let mut timers = Self::rules().timers;
        if self.has(SizingBug::BatchRemovedEarly) {
            timers.index_lag = Duration::ZERO;
        }
        let (sizes, spare) = row.plan(&counts, &recent, takes, now, &timers);
        (row.paused, row.spare) = (paused, spare);
        let (mut close, mut batches) = (Vec::new(), Vec::new());
        for ((key, seen), Sizing { create, close: unneeded, excess }) in seen.iter_mut().zip(sizes) {
            let excess = if self.has(SizingBug::OldVersionKeepsPlaces) { 0 } else { excess };
            if create > 0 {
                // Unique per round, as the random number in production.
                let number = u128::from(row.rev + 1) << 96 | u128::from(world.now) << 64 | (version as u128) << 40;
                batches.push(Batch::new(number, create, key.clone(), now));
            }
            // Half a day is longer than any `idle_timeout`.
            seen.idle.truncate(unneeded.max(excess) as usize);
            close.append(&mut seen.idle);
        }
        row.batches.extend(batches);
        let ignores_waiting = self.has(SizingBug::UsedKeyRemoved);
        row.forget_keys(now, |key| {
            let uses = |seen: &OfKey| seen.count.alive + if ignores_waiting { 0 } else { seen.count.waiting };
            *key == current.0 || seen.get(key).is_some_and(|seen| uses(seen) > 0)
        });
        row.rev += u64::from(row != *before);
        let known = recent.into_iter().map(|record| record.submission_id).collect();
        Round::Claim { before, after: Arc::new(row), close, known }
    }
}

impl SizingWorld {
    /// Writes the pool's row if it has not changed since the round read it. Returns true if it was written.
    pub(super) fn claim(&mut self, sizing: &PoolSizing, before: &Arc<PoolRow>, after: &Arc<PoolRow>) -> bool {
        if before == after {
            return true;
        }
        if self.row.rev != before.rev && !sizing.has(SizingBug::UnconditionalClaim) {
            return false;
        }
        let mut written = PoolRow::clone(after);
        if sizing.has(SizingBug::BatchNotWritten) {
            written.batches.clear();
        }
        self.row = Arc::new(written);
        true
    }

    /// Runs one step of a round.
    pub(super) fn run_round(&mut self, sizing: &PoolSizing, round: Round) {
        match round {
            Round::Read { before, version } => {
                let next = sizing.decide(self, before, version);
                self.rounds.push(next);
            }
            Round::Claim { before, after, close, known } => {
                if self.claim(sizing, &before, &after) {
                    self.rounds.push(Round::Create { row: after, close, known });
                }
            }
            Round::Create { row, close, known } => {
                let can_create = !row.paused || sizing.has(SizingBug::PauseIgnored);
                for batch in row.batches.iter().filter(|_| can_create) {
                    let Some(version) = (0..2).find(|version| sizing.spec(*version).0 == batch.key) else { continue };
                    if !row.specs.contains_key(&batch.key) {
                        continue;
                    }
                    for id in batch.ids() {
                        if known.contains(&id) || self.runners.iter().any(|runner| runner.id == id) {
                            continue;
                        }
                        let (created_at, state) = (self.now, RunnerState::Starting);
                        let (served, polled_at, ended_at, is_silent) = (0, None, 0, false);
                        self.runners.push(Runner {
                            id,
                            version,
                            state,
                            served,
                            created_at,
                            polled_at,
                            ended_at,
                            is_silent,
                        });
                        let is_too_many = self.live_runners() > sizing.max as usize;
                        self.break_if(SizingPromise::NotAboveMax, is_too_many);
                        self.break_if(SizingPromise::Paused, row.paused);
                    }
                }
                if !close.is_empty() {
                    self.rounds.push(Round::Close(close));
                }
            }
            Round::Close(close) => {
                for runner in self.runners.iter_mut().filter(|runner| close.contains(&runner.id)) {
                    if runner.state == RunnerState::Idle {
                        runner.state = RunnerState::Closing;
                    }
                }
            }
        }
    }
}
