//! What a round of sizing counts, and what it does.

use super::{
    key::PoolKey,
    row::{PoolRow, STARTING_AT_ONCE, Takes},
    runner::Phase,
};
use crate::{record::Record, rules::Timers, time::Timestamp};

/// The counts of a round of sizing under one pool key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Waiting submissions.
    pub waiting: u32,
    /// Waiting submissions that have waited for longer than [`Timers::passed_over`].
    pub passed_over: u32,
    /// Runners that have not polled yet.
    pub starting: u32,
    /// Runners that serve no submission and have polled recently.
    pub idle: u32,
    /// Runners that serve a submission.
    pub busy: u32,
    /// Runners that get no more work, or have stopped polling.
    pub closing: u32,
    /// All runners that have not ended, including closing and silent ones.
    pub alive: u32,
    /// The time at which the oldest waiting submission was submitted.
    pub oldest: Option<Timestamp>,
}

impl Count {
    /// Counts a runner that has not ended.
    pub fn runner(&mut self, phase: Phase) {
        self.alive += 1;
        match phase {
            Phase::Starting => self.starting += 1,
            Phase::Idle => self.idle += 1,
            Phase::Busy => self.busy += 1,
            Phase::Closing => self.closing += 1,
        }
    }

    /// Counts a submission that has waited since `since`.
    pub fn waiting(&mut self, since: Timestamp, now: Timestamp, timers: &Timers) {
        self.waiting += 1;
        self.oldest = Some(self.oldest.map_or(since, |oldest| oldest.min(since)));
        self.passed_over += u32::from(now.since(since) > timers.passed_over);
    }
}

/// The result of a round of sizing under one pool key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizing {
    /// The number of runners to create.
    pub create: u32,
    /// The number of runners to close that have been idle for longer than `idle_timeout`.
    pub close: u32,
    /// The number of idle runners to close immediately, because there are more than `max`, or because another version of
    /// the profile needs their place.
    pub excess: u32,
}

impl PoolRow {
    /// Runs a round of sizing from the counts of each key, the runners that were created `lately`, and all claims so far.
    /// Returns the same as [`size`](Self::size).
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

    /// Returns the numbers of runners to create and to close under each key, in the order of `counts`, and the number that
    /// remains for new submissions.
    ///
    /// Waiting submissions come first, and the oldest of all keys before the others. Idle runners of another key are closed
    /// to make room for them. Idle runners for the current key come last.
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
                // Idle runners have not claimed a submission that has waited for so long, so they will not.
                let has = count.starting + count.idle.saturating_sub(count.passed_over);
                let lacks = count.waiting.saturating_sub(has).min(self.may_fail(key, count.starting, now));
                sizing.create = lacks.min(room);
                room -= sizing.create;
                // Closing runners make room too.
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
        // Runners of earlier versions first. Under keys with waiting submissions, idle runners are about to claim them.
        oldest_first.sort_by_key(|((key, _), _)| self.current.as_ref() == Some(*key));
        for ((_, count), sizing) in oldest_first {
            let idle = count.idle.saturating_sub(if self.paused { 0 } else { count.waiting });
            sizing.excess = excess.min(idle);
            excess -= sizing.excess;
        }
        (sizes, spare)
    }
}
