//! What a round of sizing counts, and what it does.

use super::{
    key::PoolKey,
    row::{PoolRow, STARTING_AT_ONCE, Takes},
    runner::Phase,
};
use crate::{record::Record, rules::Timers, time::Timestamp};

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
}
