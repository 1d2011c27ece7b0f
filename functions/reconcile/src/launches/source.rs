//! The source of the stream: reads due records, and holds them until a token is available.

use std::{
    collections::VecDeque,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use ecs_bridge_aws::{TableError, now};
use ecs_bridge_core::{
    Action, Input, Record, State, Timestamp, decide,
    record::{QUEUE, REPEAT, RUNNERS},
};

use super::{
    candidate::{Candidate, Counters},
    queue::{LaunchQueue, forget},
};
use crate::{
    partition::{LOOK_AHEAD, PAGE, Partition},
    run::{Loop, Run},
};

/// The number of tokens to gather. Taking each token separately would cost one write per token.
const TOKENS: u32 = 8;

/// The shortest and the longest wait for tokens.
const GATHER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The period for which records are read ahead. Records that were read long before their launch have changed since.
const READ_AHEAD: Duration = Duration::from_millis(500);

/// The longest wait before the index is read again while launches are in progress or due soon.
const PAUSE: Duration = Duration::from_secs(1);

/// The source of the stream.
pub struct Source<'a> {
    run: &'a Run<'a>,
    counters: &'a Counters,
    at_once: usize,
    /// The partitions in rotation. The one read last is at the back.
    queues: VecDeque<LaunchQueue>,
    /// The runners, launched when no other partition has records.
    runners: Partition,
    /// Records that need no token because they can no longer be launched.
    free: VecDeque<Candidate>,
    /// Records that need a token.
    launches: VecDeque<Candidate>,
    /// `true` if due records were left.
    unfinished: bool,
}

impl<'a> Source<'a> {
    /// Creates a source that has read nothing yet, for up to `at_once` concurrent launches.
    pub fn new(run: &'a Run<'a>, counters: &'a Counters, at_once: usize) -> Self {
        Self {
            run,
            counters,
            at_once,
            queues: [QUEUE, REPEAT].map(LaunchQueue::new).into(),
            runners: Partition::new(RUNNERS),
            free: VecDeque::new(),
            launches: VecDeque::new(),
            unfinished: false,
        }
    }

    /// Returns `true` if due records were left.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Returns the next record once it may be claimed, or none when the run has ended.
    pub async fn next(&mut self) -> Result<Option<Candidate>, TableError> {
        loop {
            let candidate = match self.free.pop_front() {
                Some(candidate) => Some(candidate),
                None => self.launches.pop_front_if(|_| self.counters.take_token()),
            };
            if let Some(candidate) = candidate {
                self.counters.under_way.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(candidate));
            }
            if self.run.is_late() {
                let partitions = self.queues.iter().map(|queue| &queue.partition).chain([&self.runners]);
                self.unfinished = !self.launches.is_empty() || partitions.into_iter().any(Partition::has_more);
                return Ok(None);
            }
            if !self.launches.is_empty() {
                self.take_tokens().await;
            } else if !self.read().await? && self.rest().await {
                return Ok(None);
            }
        }
    }

    /// Takes launch tokens, or waits for them.
    async fn take_tokens(&self) {
        let room = self.at_once.saturating_sub(self.counters.under_way.load(Ordering::Relaxed)).max(1);
        let waiting = self.launches.len() + self.queues.iter().map(|queue| queue.partition.due_len()).sum::<usize>();
        let tokens = self.run.bridge.launch_tokens(self.launches.len().min(room), waiting).await;
        self.counters.tokens.fetch_add(tokens, Ordering::Relaxed);
        if tokens == 0 {
            let (shortest, longest) = GATHER;
            self.run.sleep(self.run.bridge.launch_rate.time_for(TOKENS).clamp(shortest, longest)).await;
        }
    }

    /// Reads launchable records from the first partition that has any. Returns `true` if one did.
    async fn read(&mut self) -> Result<bool, TableError> {
        let bridge = self.run.bridge;
        let per_read = bridge.launch_rate.per_second * READ_AHEAD.as_secs_f64();
        let limit = (per_read as usize).clamp(PAGE / 10, PAGE);
        let capacity = bridge.table.capacity(now());
        for (choice, _) in capacity.iter() {
            if !self.queues.iter().any(|queue| queue.first.as_ref() == Some(choice)) {
                self.queues.push_back(LaunchQueue::waiting(choice.clone()));
            }
        }
        forget(self.run, &capacity).await?;
        for _ in 0..self.queues.len() {
            self.queues.rotate_left(1);
            let Some(queue) = self.queues.back_mut() else { break };
            let is_open = match &queue.first {
                None => false,
                Some(first) => {
                    let is_open = !capacity.is_blocked(first);
                    if is_open != queue.is_open {
                        // The records read earlier must be read again.
                        *queue = LaunchQueue { is_open, ..LaunchQueue::waiting(first.clone()) };
                    }
                    if let Some((record, choice)) = queue.probe(self.run, &capacity).await? {
                        self.launches.push_front(Candidate { record, input: Input::LaunchBy(choice), has_token: true });
                        return Ok(true);
                    }
                    is_open
                }
            };
            let ids = queue.partition.next(&bridge.table, limit, is_open).await?;
            if !ids.is_empty() {
                for record in bridge.table.get_all(&ids).await? {
                    self.sort(record).await;
                }
                return Ok(true);
            }
        }
        let created: Vec<_> = {
            let mut created = self.run.created.lock().unwrap_or_else(PoisonError::into_inner);
            let first = created.len().saturating_sub(limit);
            created.drain(first..).collect()
        };
        let ids = if created.is_empty() { self.runners.next(&bridge.table, limit, false).await? } else { created };
        for record in bridge.table.get_all(&ids).await? {
            self.sort(record).await;
        }
        Ok(!ids.is_empty())
    }

    async fn sort(&mut self, record: Record) {
        let Run { bridge, .. } = self.run;
        let input = if record.state() == State::Queued {
            match bridge.choose(&record).await {
                None => Input::NoCapacity,
                Some(choice) if choice != record.attempt.fallback || record.waits_for_capacity() => {
                    Input::LaunchBy(choice)
                }
                Some(_) => Input::Due,
            }
        } else {
            Input::Due
        };
        let decision = decide(&record, &input, now(), &bridge.rules);
        match (decision.action, decision.record) {
            (Some(Action::RunTask(_)), _) => self.launches.push_back(Candidate { record, input, has_token: true }),
            (_, Some(_)) => self.free.push_back(Candidate { record, input, has_token: false }),
            // Another process has claimed it since the index was read, or it already waits for capacity.
            (_, None) => {}
        }
    }

    /// Returns the time of the next capacity probe, if it is soon.
    fn next_probe(&self) -> Option<Timestamp> {
        let capacity = self.run.bridge.table.capacity(now());
        let firsts = self.queues.iter().filter(|queue| queue.has_waiting).filter_map(|queue| queue.first.as_ref());
        let probes = firsts.flat_map(|first| capacity.from(first)).filter(|(_, known)| known.is_blocked());
        probes.map(|(_, known)| known.probe_at).min().filter(|probe_at| *probe_at <= now().plus(LOOK_AHEAD))
    }

    /// Waits until a record may be due. Returns `true` if the run has ended.
    async fn rest(&self) -> bool {
        let partitions = self.queues.iter().map(|queue| &queue.partition).chain([&self.runners]);
        let next_due = partitions.filter_map(|partition| partition.next_due).min().into_iter();
        let next_due = next_due.chain(self.next_probe()).min();
        let at_rest = next_due.is_none() && self.counters.under_way.load(Ordering::Relaxed) == 0;
        if self.run.is_over(Loop::Launches, at_rest) {
            return true;
        }
        self.run.sleep(next_due.map_or(PAUSE, |next_due| next_due.since(now()).min(PAUSE))).await
    }
}
