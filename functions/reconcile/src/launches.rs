//! What needs a launch token: the queue, repeats of unanswered launches, and what waits for its profile's capacity.
//!
//! One stream from the index to RunTask: as soon as a call is over and a token is there, the next one begins.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ecs_bridge_aws::{BridgeError, Page, TableError, now};
use ecs_bridge_core::{
    Action, Input, Record, State, Timestamp,
    capacity::{Capacities, Choice},
    decide,
    launch_rate::LaunchRate,
    record::{QUEUE, REPEAT, RUNNERS, waiting},
};
use futures_util::{StreamExt, stream};

use crate::{
    handler::{Claimed, Loop, Report, Run},
    partition::{LOOK_AHEAD, PAGE, Partition},
};

/// How long RunTask may take for the launch rate to be reached all the same, with the writes before and after it.
const LATENCY: Duration = Duration::from_secs(2);

/// How many launches are under way at least, and at most: each takes a connection and some memory.
const UNDER_WAY: (usize, usize) = (32, 400);

/// How many tokens are waited for: to take each by itself would cost a write for each.
const TOKENS: u32 = 8;

/// The shortest and the longest wait for tokens.
const GATHER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long records are read ahead of their launch: what was read long ago has changed since.
const READ_AHEAD: Duration = Duration::from_millis(500);

/// Of how many of those that wait for capacity one is chosen to find out.
const PROBES: i32 = 25;

/// The longest wait before the index is read again, while anything is under way or due soon.
const PAUSE: Duration = Duration::from_secs(1);

/// Launches what is due, until nothing is, or the time is up.
///
/// # Errors
/// If the index cannot be read at all.
pub async fn run(run: &Run<'_>) -> Result<Report, TableError> {
    let at_once = under_way(run.bridge.launch_rate);
    let counts = Counts::default();
    let source = Source {
        run,
        counts: &counts,
        at_once,
        lanes: [QUEUE, REPEAT]
            .map(|name| Lane { partition: Partition::in_order(name), first: None, is_open: true, has_waiting: true })
            .into(),
        runners: Partition::new(RUNNERS),
        free: VecDeque::new(),
        launches: VecDeque::new(),
        unfinished: false,
    };
    let mut report = Report::default();
    let mut failed = None;
    let work = stream::unfold(Some(source), |source| async {
        let mut source = source?;
        match source.next().await {
            Ok(Some(work)) => Some((Ok(work), Some(source))),
            // A last item: how it ended.
            Ok(None) => Some((Err(Ok(source.unfinished)), None)),
            Err(error) => Some((Err(Err(error)), None)),
        }
    });
    let work = work.map(|work| async {
        match work {
            Ok(work) => Ok(work.claim(run, &counts).await),
            Err(end) => Err(end),
        }
    });
    let mut outcomes = pin!(work.buffer_unordered(at_once));
    // To its end in any case: what was claimed is finished.
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(Ok(Claimed::Done { before, after, action })) => report.done(before, after, action.as_ref()),
            // What is in these partitions has no task to be described.
            Ok(Ok(Claimed::ByAnother | Claimed::ToDescribe(..))) => {}
            Ok(Err(error)) => report.failed(&error),
            Err(Ok(unfinished)) => report.unfinished = unfinished,
            Err(Err(error)) => failed = Some(error),
        }
    }
    run.bridge.give_back(counts.tokens.load(Ordering::Relaxed)).await;
    failed.map_or(Ok(report), Err)
}

fn under_way(rate: LaunchRate) -> usize {
    let (least, most) = UNDER_WAY;
    ((rate.per_second * LATENCY.as_secs_f64()) as usize).clamp(least, most)
}

/// The messages between the stream's two ends.
#[derive(Debug, Default)]
struct Counts {
    /// Launch tokens that were taken and not used.
    tokens: AtomicUsize,
    /// Claims that have begun and not ended.
    under_way: AtomicUsize,
}

/// A record that is due, as it was read.
struct Work {
    record: Record,
    input: Input,
    has_token: bool,
}

impl Work {
    async fn claim(self, run: &Run<'_>, counts: &Counts) -> Result<Claimed, BridgeError> {
        let outcome = run.claim(self.record, &self.input).await;
        // A record that could not be written to the end may have been launched.
        let used = matches!(&outcome, Ok(Claimed::Done { action: Some(Action::RunTask(_)), .. }) | Err(_));
        if self.has_token && !used {
            counts.tokens.fetch_add(1, Ordering::Relaxed);
        }
        counts.under_way.fetch_sub(1, Ordering::Relaxed);
        outcome
    }
}

/// A partition of what is to be launched.
struct Lane {
    partition: Partition,
    /// What the submissions in it begin with, where they wait for capacity: for any choice from this one on.
    first: Option<Choice>,
    /// Whether all that is in it may be launched.
    is_open: bool,
    /// Whether anything was in it when one was last to find out about capacity.
    has_waiting: bool,
}

impl Lane {
    /// The submissions that wait for the capacity of a choice, or of one after it.
    fn waiting(first: Choice) -> Self {
        let partition = Partition::in_order(waiting(&first));
        Self { partition, first: Some(first), is_open: false, has_waiting: true }
    }
}

/// Where the work comes from.
struct Source<'a> {
    run: &'a Run<'a>,
    counts: &'a Counts,
    at_once: usize,
    /// In turns: the one read last is the last.
    lanes: VecDeque<Lane>,
    /// Runners, which are launched when no lane has anything.
    runners: Partition,
    /// What needs no token after all: it cannot be launched any more.
    free: VecDeque<Work>,
    /// What needs a token.
    launches: VecDeque<Work>,
    /// Whether something that is due was left.
    unfinished: bool,
}

impl Source<'_> {
    /// The next record to be claimed, as soon as it may be; none when the run is over.
    async fn next(&mut self) -> Result<Option<Work>, TableError> {
        loop {
            let work = match self.free.pop_front() {
                Some(work) => Some(work),
                None => self.launches.pop_front_if(|_| self.counts.take_token()),
            };
            if let Some(work) = work {
                self.counts.under_way.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(work));
            }
            if self.run.is_late() {
                let partitions = self.lanes.iter().map(|lane| &lane.partition).chain([&self.runners]);
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
        let room = self.at_once.saturating_sub(self.counts.under_way.load(Ordering::Relaxed)).max(1);
        let waiting = self.launches.len() + self.lanes.iter().map(|lane| lane.partition.due_len()).sum::<usize>();
        let tokens = self.run.bridge.launch_tokens(self.launches.len().min(room), waiting).await;
        self.counts.tokens.fetch_add(tokens, Ordering::Relaxed);
        if tokens == 0 {
            let (shortest, longest) = GATHER;
            self.run.sleep(self.run.bridge.launch_rate.time_for(TOKENS).clamp(shortest, longest)).await;
        }
    }

    /// Reads what may be launched from the first lane that has anything. Answers whether there was.
    async fn read(&mut self) -> Result<bool, TableError> {
        let bridge = self.run.bridge;
        let per_read = bridge.launch_rate.per_second * READ_AHEAD.as_secs_f64();
        let limit = (per_read as usize).clamp(PAGE / 10, PAGE);
        let capacity = bridge.table.capacity(now());
        for (choice, _) in capacity.iter() {
            if !self.lanes.iter().any(|lane| lane.first.as_ref() == Some(choice)) {
                self.lanes.push_back(Lane::waiting(choice.clone()));
            }
        }
        forget(self.run, &capacity).await?;
        for _ in 0..self.lanes.len() {
            self.lanes.rotate_left(1);
            let Some(lane) = self.lanes.back_mut() else { break };
            let is_open = match &lane.first {
                None => false,
                Some(first) => {
                    let is_open = !capacity.is_blocked(first);
                    if is_open != lane.is_open {
                        // What was read of it before is to be read again.
                        *lane = Lane { is_open, ..Lane::waiting(first.clone()) };
                    }
                    if let Some((record, choice)) = lane.probe(self.run, &capacity).await? {
                        self.launches.push_front(Work { record, input: Input::LaunchBy(choice), has_token: true });
                        return Ok(true);
                    }
                    is_open
                }
            };
            let ids = lane.partition.next(&bridge.table, limit, is_open).await?;
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
        let input = if record.state == State::Queued {
            match bridge.choose(&record).await {
                None => Input::NoCapacity,
                Some(choice) if choice != record.fallback || record.waits_for_capacity() => Input::LaunchBy(choice),
                Some(_) => Input::Due,
            }
        } else {
            Input::Due
        };
        let decision = decide(&record, &input, now(), &bridge.rules);
        match (decision.action, decision.record) {
            (Some(Action::RunTask(_)), _) => self.launches.push_back(Work { record, input, has_token: true }),
            (_, Some(_)) => self.free.push_back(Work { record, input, has_token: false }),
            // Another has claimed it since the index was read, or it waits for capacity already.
            (_, None) => {}
        }
    }

    /// When the next submission finds out whether capacity is back, if that is soon.
    fn next_probe(&self) -> Option<Timestamp> {
        let capacity = self.run.bridge.table.capacity(now());
        let firsts = self.lanes.iter().filter(|lane| lane.has_waiting).filter_map(|lane| lane.first.as_ref());
        let probes = firsts.flat_map(|first| capacity.from(first)).filter(|(_, known)| known.is_blocked());
        probes.map(|(_, known)| known.probe_at).min().filter(|probe_at| *probe_at <= now().plus(LOOK_AHEAD))
    }

    /// Waits until something may be due. Answers whether the run is over.
    async fn rest(&self) -> bool {
        let partitions = self.lanes.iter().map(|lane| &lane.partition).chain([&self.runners]);
        let next_due = partitions.filter_map(|partition| partition.next_due).min().into_iter();
        let next_due = next_due.chain(self.next_probe()).min();
        let at_rest = next_due.is_none() && self.counts.under_way.load(Ordering::Relaxed) == 0;
        if self.run.is_over(Loop::Launches, at_rest) {
            return true;
        }
        self.run.sleep(next_due.map_or(PAUSE, |next_due| next_due.since(now()).min(PAUSE))).await
    }
}

impl Lane {
    /// One of the submissions in it, and the choice by which it is launched to find out whether that has capacity again,
    /// if it is time for that and no other process does. Of the first ones, that which was refused least often: one that
    /// keeps being refused for a reason of its own does not keep the others from finding out.
    async fn probe(&mut self, run: &Run<'_>, capacity: &Capacities) -> Result<Option<(Record, u8)>, TableError> {
        let (table, at) = (&run.bridge.table, now());
        let Some(first) = &self.first else { return Ok(None) };
        for (choice, known) in capacity.from(first) {
            let Some(probed) = known.probed(at, &run.bridge.rules.timers) else { continue };
            let page = table.due(&waiting(first), Timestamp::MAX, PROBES, Page::default()).await?;
            let ids: Vec<_> = page.records.into_iter().map(|due| due.submission_id).collect();
            self.has_waiting = !ids.is_empty();
            let records = table.get_all(&ids).await?.into_iter();
            let may = records.filter(|it| it.waits_for_capacity() && it.choices().contains(&choice.number));
            if let Some(record) = may.min_by_key(|record| (record.refusals, record.check_at))
                && table.set_capacity(choice, Some(known), Some(probed)).await?
            {
                return Ok(Some((record, choice.number)));
            }
        }
        Ok(None)
    }
}

/// Opens and forgets, after a while, what is known of choices that no submission waits for.
async fn forget(run: &Run<'_>, capacity: &Capacities) -> Result<(), TableError> {
    let table = &run.bridge.table;
    for (choice, known) in capacity.iter() {
        let Some(next) = known.idle(choice, now()) else { continue };
        let mut is_waited_for = false;
        for number in 0..=choice.number {
            let first = choice.shape.choice(number);
            let page = table.due(&waiting(&first), Timestamp::MAX, 1, Page::default()).await?;
            is_waited_for |= !page.records.is_empty();
        }
        if !is_waited_for {
            table.set_capacity(choice, Some(known), next).await?;
        }
    }
    Ok(())
}

impl Counts {
    fn take_token(&self) -> bool {
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(1)).is_ok()
    }
}
