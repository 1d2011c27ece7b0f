//! Records that need a launch token: the queue, repeated launches without a response, and submissions that wait for
//! capacity.
//!
//! One stream leads from the index to RunTask. The next launch begins as soon as a call has returned and a token is
//! available.

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

/// The longest duration of a launch, including its writes, at which the launch rate is still reached.
const LATENCY: Duration = Duration::from_secs(2);

/// The minimum and maximum number of concurrent launches. Each uses a connection and some memory.
const UNDER_WAY: (usize, usize) = (32, 400);

/// The number of tokens to gather. Taking each token separately would cost one write per token.
const TOKENS: u32 = 8;

/// The shortest and the longest wait for tokens.
const GATHER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The period for which records are read ahead. Records that were read long before their launch have changed since.
const READ_AHEAD: Duration = Duration::from_millis(500);

/// The number of capacity-blocked submissions among which the probe is chosen.
const PROBES: i32 = 25;

/// The longest wait before the index is read again while launches are in progress or due soon.
const PAUSE: Duration = Duration::from_secs(1);

/// Launches due records until none is left or the time has elapsed.
///
/// # Errors
/// If the index cannot be read.
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
            // The last item of the stream is the outcome of the source.
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
    // The stream is always drained because claimed records must be finished.
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(Ok(Claimed::Done { before, after, action })) => report.done(before, after, action.as_ref()),
            // Records in these partitions have no task to describe.
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

/// The counters shared by the two ends of the stream.
#[derive(Debug, Default)]
struct Counts {
    /// Tokens that were taken and not used.
    tokens: AtomicUsize,
    /// Claims in progress.
    under_way: AtomicUsize,
}

/// A due record as read from the index.
struct Work {
    record: Record,
    input: Input,
    has_token: bool,
}

impl Work {
    async fn claim(self, run: &Run<'_>, counts: &Counts) -> Result<Claimed, BridgeError> {
        let outcome = run.claim(self.record, &self.input).await;
        // A record whose write failed may have been launched.
        let used = matches!(&outcome, Ok(Claimed::Done { action: Some(Action::RunTask(_)), .. }) | Err(_));
        if self.has_token && !used {
            counts.tokens.fetch_add(1, Ordering::Relaxed);
        }
        counts.under_way.fetch_sub(1, Ordering::Relaxed);
        outcome
    }
}

/// A partition of records to launch.
struct Lane {
    partition: Partition,
    /// For capacity-blocked submissions, the first capacity option that they can use.
    first: Option<Choice>,
    /// `true` if every record in it may be launched.
    is_open: bool,
    /// `true` if the last probe found a submission in it.
    has_waiting: bool,
}

impl Lane {
    /// Returns the partition of submissions that wait for the capacity of this option or a later one.
    fn waiting(first: Choice) -> Self {
        let partition = Partition::in_order(waiting(&first));
        Self { partition, first: Some(first), is_open: false, has_waiting: true }
    }
}

/// The source of the stream.
struct Source<'a> {
    run: &'a Run<'a>,
    counts: &'a Counts,
    at_once: usize,
    /// The partitions in rotation. The one read last is at the back.
    lanes: VecDeque<Lane>,
    /// The runners, launched when no other partition has records.
    runners: Partition,
    /// Records that need no token because they can no longer be launched.
    free: VecDeque<Work>,
    /// Records that need a token.
    launches: VecDeque<Work>,
    /// `true` if due records were left.
    unfinished: bool,
}

impl Source<'_> {
    /// Returns the next record once it may be claimed, or none when the run has ended.
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

    /// Reads launchable records from the first partition that has any. Returns `true` if one did.
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
                        // The records read earlier must be read again.
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
            // Another process has claimed it since the index was read, or it already waits for capacity.
            (_, None) => {}
        }
    }

    /// Returns the time of the next capacity probe, if it is soon.
    fn next_probe(&self) -> Option<Timestamp> {
        let capacity = self.run.bridge.table.capacity(now());
        let firsts = self.lanes.iter().filter(|lane| lane.has_waiting).filter_map(|lane| lane.first.as_ref());
        let probes = firsts.flat_map(|first| capacity.from(first)).filter(|(_, known)| known.is_blocked());
        probes.map(|(_, known)| known.probe_at).min().filter(|probe_at| *probe_at <= now().plus(LOOK_AHEAD))
    }

    /// Waits until a record may be due. Returns `true` if the run has ended.
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
    /// Returns a submission and the capacity option to probe with it, if a probe is due and no other process makes
    /// it. Of the first submissions, the one refused least often is chosen. One that keeps being refused for its own
    /// reason must not block the probe.
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

/// Reopens capacity options that no submission waits for, and removes what the table stores about them after a while.
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
