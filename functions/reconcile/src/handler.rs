//! One reconcile run: three concurrent loops, until nothing is due or the time has elapsed.
//!
//! [`launches`](crate::launches) handles the records that need a launch token. [`timers`](crate::timers) handles all
//! other records, so no stop and no check waits behind a launch. [`pools`](crate::pools) creates missing runners.

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

/// The maximum duration of a run if no other run begins. The schedule starts one run per minute.
const RUN: Duration = Duration::from_secs(75);

/// The period for which a run promises to check for new work. The run renews the promise while it has work.
const PROMISE: Duration = Duration::from_secs(4);

/// The time reserved for the last calls before Lambda ends the process.
const MARGIN: Duration = Duration::from_secs(20);

/// The counts of one run. They are also the function's response.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Due records that this run claimed.
    pub claimed: usize,
    /// RunTask calls.
    pub launches: usize,
    /// Tasks that DescribeTasks described.
    pub described: usize,
    /// Lookups of RunTask calls without a response.
    pub looked_up: usize,
    /// StopTask calls.
    pub stops: usize,
    /// Terminal submissions with notifications to deliver.
    pub notified: usize,
    /// Submissions that ended or continued because of facts that this run found and that no event had reported.
    pub repaired: usize,
    /// Timers that were served more than five minutes late, excluding records that wait for a launch token.
    pub overdue: usize,
    /// Records that failed in this run. They stay due.
    pub errors: usize,
    /// Runners that were created for pools.
    pub created: usize,
    /// Surplus idle runners that were closed.
    pub closed: usize,
    /// `true` if this run left due records to the next run.
    pub unfinished: bool,
}

/// The function's state between runs.
#[derive(Debug)]
pub struct Reconcile {
    /// The table, ECS and decision rules.
    pub bridge: Bridge,
    /// The pools of the deployment's profiles.
    pub pools: Pools,
    /// Announces submissions to idle runners.
    pub doorbells: Doorbells,
}

impl Reconcile {
    /// Processes due records until none is left or `deadline` is near. If another function has `woken` this run, the
    /// indexes may not show the new work yet.
    ///
    /// # Errors
    /// If the index cannot be read. Records claimed until then are due again when their lease expires.
    pub async fn run(&self, deadline: SystemTime, woken: bool) -> Result<Report, TableError> {
        // A deadline in the past is ignored because `cargo lambda watch` sends a time in 1970.
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
        // Runners have a head start in the queue's order.
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

/// State that the loops of a run share.
#[derive(Debug)]
pub struct Run<'a> {
    /// The table, ECS and decision rules.
    pub bridge: &'a Bridge,
    /// The pools of the deployment's profiles.
    pub pools: &'a Pools,
    /// Announces submissions to idle runners.
    pub doorbells: &'a Doorbells,
    /// `true` if another function has just queued work.
    pub woken: bool,
    /// Created runners to launch. The index does not show them yet.
    pub created: Mutex<Vec<SubmissionId>>,
    /// The pool keys of submissions whose timers this run has served.
    waiting: Mutex<WaitingKeys>,
    /// The time after which no more work is started.
    pub until: Instant,
    /// The run's number and the end of its promise to check for work.
    begun: Mutex<Begun>,
    at_rest: [AtomicBool; 3],
    /// Wakes every sleeping loop.
    over: Notify,
}

/// Pool keys under which submissions wait.
#[derive(Debug, Default)]
struct WaitingKeys {
    known: BTreeSet<(ProfileName, PoolKey)>,
    /// The keys that the pools loop has not taken yet.
    new: Vec<(ProfileName, PoolKey)>,
}

/// One of the three loops of a run.
#[derive(Clone, Copy, Debug)]
pub enum Loop {
    /// The loop for records that need a launch token.
    Launches,
    /// The loop for all other due records.
    Timers,
    /// The loop for submissions that wait for runners.
    Pools,
}

impl Run<'_> {
    /// Records if this loop expects work soon, and returns `true` if the run has ended. The run ends when no loop
    /// expects work, because each loop can create work for the others.
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

    /// Returns `true` if no loop found upcoming work at its last check and no other process relies on another check.
    fn are_at_rest(&self) -> bool {
        self.has_nothing_to_do() && now() >= self.begun().looks_until
    }

    fn has_nothing_to_do(&self) -> bool {
        self.at_rest.iter().all(|at_rest| at_rest.load(Ordering::Relaxed))
    }

    fn begun(&self) -> Begun {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the promise to check for work while there is any, until the run ends or a later run begins. If DynamoDB
    /// fails, the promise lapses and the run continues.
    async fn keep_promise(&self) {
        // A woken run has already made a promise, and renews it before it can expire. A scheduled run can end at once
        // if it has little to do.
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
                // The loops detect the later run themselves.
                Ok(false) => self.over.notify_waiters(),
                Err(error) => tracing::warn!(%error, "failed to renew the promise to check for work"),
            }
        }
    }

    /// Queues the pool keys of these waiting records for the pools loop, once per run.
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

    /// Takes the queued keys that no one has taken yet.
    pub fn take_waiting(&self) -> Vec<(ProfileName, PoolKey)> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner).new)
    }

    /// Returns `true` if keys are queued.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).new.is_empty()
    }

    /// Adds a created runner to those to launch.
    pub fn created(&self, id: SubmissionId) {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.begin_again();
    }

    /// Wakes all loops because one loop has work for another.
    fn begin_again(&self) {
        self.at_rest.iter().for_each(|at_rest| at_rest.store(false, Ordering::Relaxed));
        self.over.notify_waiters();
    }

    /// Returns `true` if no more work may start because the time has elapsed or a later run has begun.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.until || !self.bridge.table.is_last_run(&self.begun())
    }

    /// Sleeps until the time elapses or the run ends. Returns `true` if the run has ended.
    pub async fn sleep(&self, time: Duration) -> bool {
        let time_is_up = tokio::time::sleep_until((Instant::now() + time).min(self.until).into());
        tokio::select! {
            () = time_is_up => {}
            () = self.over.notified() => {}
        }
        self.are_at_rest()
    }

    /// Claims a record and takes the due action. Leaves descriptions to the caller, who batches them.
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

/// The outcome of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// Another process claimed it first, or it was not due.
    ByAnother,
    /// Its task must be described.
    ToDescribe(Box<Record>, String),
    /// All due actions are done.
    Done {
        /// The state before the claim.
        before: State,
        /// The state after the actions.
        after: State,
        /// The first action taken.
        action: Option<Action>,
    },
}

impl Report {
    /// Counts a claim, except for descriptions.
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

    /// Counts a failed record.
    pub fn failed(&mut self, error: &BridgeError) {
        tracing::error!(%error, "failed to process a record; it stays due");
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
