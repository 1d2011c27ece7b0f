//! One run: three loops side by side, until nothing is due or the time is up.
//!
//! [`launches`](crate::launches) does what needs a launch token, [`timers`](crate::timers) everything else, so that no
//! stop and no check waits behind a launch. [`pools`](crate::pools) creates the runners that are missing.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ecs_bridge_aws::{Begun, Bridge, BridgeError, Doorbells, Page, TableError, WOKEN_LOOKS, now, telemetry};
use ecs_bridge_core::{
    Action, Input, ProfileName, Record, State, SubmissionId, Timestamp,
    pool::PoolKey,
    record::{QUEUE, waiting},
};
use serde::Serialize;
use tokio::sync::Notify;

use crate::{
    launches,
    pools::{self, Pools},
    timers,
};

/// How long a run goes on finding work, if no other begins: the schedule starts one every minute.
const RUN: Duration = Duration::from_secs(75);

/// How long a run promises to look for work, again and again while it has any.
const PROMISE: Duration = Duration::from_secs(4);

/// What is left for the last calls before Lambda ends the process.
const MARGIN: Duration = Duration::from_secs(20);

/// What a run did; also its answer.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records that were due, claimed by this run.
    pub claimed: usize,
    /// RunTask calls.
    pub launches: usize,
    /// Tasks that DescribeTasks was asked for.
    pub described: usize,
    /// Lookups of unanswered launches.
    pub looked_up: usize,
    /// StopTask calls.
    pub stops: usize,
    /// Ends that were to be notified.
    pub notified: usize,
    /// Submissions that ended, or went on, by what this run learnt and no event had notified.
    pub repaired: usize,
    /// Timers that were served more than five minutes late. What waits for a launch token is not counted.
    pub overdue: usize,
    /// Records that could not be worked on now; they stay due.
    pub errors: usize,
    /// Runners that were created for pools.
    pub created: usize,
    /// Runners that were closed, as there were more than needed.
    pub closed: usize,
    /// Whether something that is due was left for the next run.
    pub unfinished: bool,
}

/// The function's state between runs.
#[derive(Debug)]
pub struct Reconcile {
    /// Table, ECS and rules.
    pub bridge: Bridge,
    /// The pools of the deployment's profiles.
    pub pools: Pools,
    /// Announces submissions to idle runners.
    pub doorbells: Doorbells,
}

impl Reconcile {
    /// Works on what is due until nothing is, or `deadline` is near. Where another function has `woken` it, the indexes may
    /// not show yet what for.
    ///
    /// # Errors
    /// If the index cannot be read at all. What was claimed until then is due again when its lease is over.
    pub async fn run(&self, deadline: SystemTime, woken: bool) -> Result<Report, TableError> {
        // A deadline before the start is none at all: `cargo lambda watch` sends a moment in 1970.
        let left = deadline.duration_since(SystemTime::now()).map_or(RUN, |left| left.saturating_sub(MARGIN));
        let until = Instant::now() + left.min(RUN);
        let looks_for = if woken { WOKEN_LOOKS } else { Duration::ZERO };
        let begun = self.bridge.table.begin_run(now(), looks_for).await?;
        let run = Run {
            bridge: &self.bridge,
            pools: &self.pools,
            doorbells: &self.doorbells,
            until,
            woken,
            begun: Mutex::new(begun),
            created: Mutex::default(),
            waiting: Mutex::default(),
            at_rest: Default::default(),
            over: Notify::new(),
        };
        self.report_queue().await?;
        let (launched, served, sized, ()) =
            tokio::join!(launches::run(&run), timers::run(&run), pools::run(&run), run.keep_promise());
        let report = launched?.and(served?).and(sized);
        telemetry::reconciled(report.repaired, report.overdue);
        tracing::info!(?report, "reconciled");
        Ok(report)
    }
}

impl Reconcile {
    /// Reports the length and age of the queue.
    async fn report_queue(&self) -> Result<(), TableError> {
        let (table, at) = (&self.bridge.table, now());
        let first = table.due(QUEUE, at, 1, Page::default()).await?.records.pop();
        let mut depth = if first.is_some() { table.count_due(QUEUE, at).await? } else { 0 };
        // Its place in the queue has a head start.
        let first: Vec<_> = first.into_iter().map(|first| first.submission_id).collect();
        let age = table.get_all(&first).await?.pop().map_or(Duration::ZERO, |first| at.since(first.created_at));
        let capacity = table.capacity(at);
        let mut blocked = BTreeSet::new();
        for (choice, _) in capacity.iter() {
            let waiting = table.count_due(&waiting(choice), Timestamp::MAX).await?;
            depth += waiting;
            if waiting > 0 && capacity.is_blocked(choice) {
                blocked.insert(&choice.shape.profile);
            }
        }
        telemetry::queue(depth, age, blocked.len());
        Ok(())
    }
}

/// What both loops of a run share.
#[derive(Debug)]
pub struct Run<'a> {
    /// Table, ECS and rules.
    pub bridge: &'a Bridge,
    /// The pools of the deployment's profiles.
    pub pools: &'a Pools,
    /// Announces submissions to idle runners.
    pub doorbells: &'a Doorbells,
    /// Whether another function left something to do just now.
    pub woken: bool,
    /// Runners that were created, and are to be launched: the index does not show them yet.
    pub created: Mutex<Vec<SubmissionId>>,
    /// The pool keys of submissions whose timer this run has served.
    waiting: Mutex<WaitingKeys>,
    /// When no more work is begun.
    pub until: Instant,
    /// Its number, and until when it has promised to look for work.
    begun: Mutex<Begun>,
    at_rest: [AtomicBool; 3],
    /// Ends every sleep.
    over: Notify,
}

/// Pool keys under which submissions wait.
#[derive(Debug, Default)]
struct WaitingKeys {
    known: BTreeSet<(ProfileName, PoolKey)>,
    /// Those that the pools' loop has not taken yet.
    new: Vec<(ProfileName, PoolKey)>,
}

/// Which of the loops it is.
#[derive(Clone, Copy, Debug)]
pub enum Loop {
    /// What needs a launch token.
    Launches,
    /// Everything else that is due.
    Timers,
    /// What waits for runners.
    Pools,
}

impl Run<'_> {
    /// Sets whether this loop has anything to do soon, and answers whether the run is over: it is once none has, as each
    /// may make work for the others.
    pub fn is_over(&self, which: Loop, at_rest: bool) -> bool {
        let [launches, timers, pools] = &self.at_rest;
        let own = match which {
            Loop::Launches => launches,
            Loop::Timers => timers,
            Loop::Pools => pools,
        };
        own.store(at_rest, Ordering::Relaxed);
        let is_over = self.are_at_rest();
        if is_over {
            self.over.notify_waiters();
        }
        is_over
    }

    /// Whether no loop had anything to do soon when it last looked, and nobody relies on another look.
    fn are_at_rest(&self) -> bool {
        self.has_nothing_to_do() && now() >= self.begun().looks_until
    }

    fn has_nothing_to_do(&self) -> bool {
        self.at_rest.iter().all(|at_rest| at_rest.load(Ordering::Relaxed))
    }

    fn begun(&self) -> Begun {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prolongs the promise to look for work while there is any, until the run is over or a later one has begun. Where
    /// DynamoDB fails, nothing is promised, and the run goes on.
    async fn keep_promise(&self) {
        // A run that was woken has promised already, and does so again before anyone doubts it. One that the schedule began
        // ends at once where it has little to do.
        let mut wait = if self.woken { PROMISE / 20 } else { PROMISE / 2 };
        while !self.sleep(wait).await && !self.is_late() {
            wait = PROMISE / 4;
            let (begun, left) = (self.begun(), self.until.saturating_duration_since(Instant::now()));
            let looks_until = now().plus(PROMISE.min(left));
            if self.has_nothing_to_do() || begun.looks_until >= looks_until {
                continue;
            }
            let prolonged = Begun { looks_until, ..begun };
            match self.bridge.table.go_on_looking(prolonged).await {
                Ok(true) => *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = prolonged,
                // Loops find that out by themselves.
                Ok(false) => self.over.notify_waiters(),
                Err(error) => tracing::warn!(%error, "the promise to look for work was not prolonged"),
            }
        }
    }

    /// Has the pools' loop check the keys of these records that wait for a runner, once a run.
    pub fn check_waiting(&self, records: &[Record]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records.iter().filter(|record| record.state == State::Queued) {
            let (Some(profile), Some(pooled)) = (&record.profile, &record.pooled) else { continue };
            let key = (profile.clone(), pooled.key.clone());
            if waiting.known.insert(key.clone()) {
                waiting.new.push(key);
                self.begin_again();
            }
        }
    }

    /// The keys to check that nobody has taken yet.
    pub fn take_waiting(&self) -> Vec<(ProfileName, PoolKey)> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner).new)
    }

    /// Whether there are any.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).new.is_empty()
    }

    /// A runner was created, and is to be launched.
    pub fn created(&self, id: SubmissionId) {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.begin_again();
    }

    /// Wakes all loops: one has work for another.
    fn begin_again(&self) {
        self.at_rest.iter().for_each(|at_rest| at_rest.store(false, Ordering::Relaxed));
        self.over.notify_waiters();
    }

    /// Whether nothing more is to be begun: there is no time left, or a later run does it.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.until || !self.bridge.table.is_last_run(&self.begun())
    }

    /// Sleeps, but not for longer than the run goes on. Answers whether it is over.
    pub async fn sleep(&self, time: Duration) -> bool {
        let time_is_up = tokio::time::sleep_until((Instant::now() + time).min(self.until).into());
        tokio::select! {
            () = time_is_up => {}
            () = self.over.notified() => {}
        }
        self.are_at_rest()
    }

    /// Claims a record and does what is due; a description is left to the caller, who asks for many at once.
    pub async fn claim(&self, record: Record, input: &Input) -> Result<Claimed, BridgeError> {
        let before = record.state;
        let Some(settled) = self.bridge.claim(record, input).await? else { return Ok(Claimed::ByAnother) };
        if let Some(Action::Describe { task_arn }) = settled.action {
            return Ok(Claimed::ToDescribe(Box::new(settled.record), task_arn));
        }
        let action = settled.action.clone();
        let after = self.bridge.carry_out(settled).await?.state;
        Ok(Claimed::Done { before, after, action })
    }
}

/// What came of claiming a record.
#[derive(Debug)]
pub enum Claimed {
    /// Another was quicker, or it was not due after all.
    ByAnother,
    /// Its task is to be described.
    ToDescribe(Box<Record>, String),
    /// All that was due is done.
    Done {
        /// Its state before.
        before: State,
        /// Its state now.
        after: State,
        /// The first thing that was done.
        action: Option<Action>,
    },
}

impl Report {
    /// Counts what was claimed, but for descriptions.
    pub fn done(&mut self, before: State, after: State, action: Option<&Action>) {
        self.claimed += 1;
        match action {
            Some(Action::RunTask(_)) => self.launches += 1,
            Some(Action::LookUp(_)) => {
                self.looked_up += 1;
                self.repaired += usize::from(after != before);
            }
            Some(Action::Stop { .. }) => self.stops += 1,
            Some(Action::Notify(_)) => self.notified += 1,
            Some(Action::Describe { .. }) | None => {}
        }
    }

    /// Counts a record that could not be worked on.
    pub fn failed(&mut self, error: &BridgeError) {
        tracing::error!(%error, "a record could not be worked on; it stays due");
        self.errors += 1;
    }

    fn and(self, other: Self) -> Self {
        Self {
            claimed: self.claimed + other.claimed,
            launches: self.launches + other.launches,
            described: self.described + other.described,
            looked_up: self.looked_up + other.looked_up,
            stops: self.stops + other.stops,
            notified: self.notified + other.notified,
            repaired: self.repaired + other.repaired,
            overdue: self.overdue + other.overdue,
            errors: self.errors + other.errors,
            created: self.created + other.created,
            closed: self.closed + other.closed,
            unfinished: self.unfinished || other.unfinished,
        }
    }
}
