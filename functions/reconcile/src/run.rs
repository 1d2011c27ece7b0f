//! The state that the three loops of a run share, and the end of the run.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ecs_bridge_aws::{Begun, Bridge, BridgeError, Doorbells, now};
use ecs_bridge_core::{Action, Input, ProfileName, Record, State, SubmissionId, pool::PoolKey};
use tokio::sync::Notify;

use crate::app::{App, Pools};

/// The period for which a run promises to check for new work. The run renews the promise while it has work.
const PROMISE: Duration = Duration::from_secs(4);

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

impl<'a> Run<'a> {
    /// Creates the state of a run that starts no more work after `until`.
    pub fn new(app: &'a App, until: Instant, woken: bool, begun: Begun) -> Self {
        Self {
            bridge: &app.bridge,
            pools: &app.pools,
            doorbells: &app.doorbells,
            until,
            woken,
            begun: Mutex::new(begun),
            created: Mutex::default(),
            waiting: Mutex::default(),
            at_rest: Default::default(),
            over: Notify::new(),
        }
    }

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
    pub async fn keep_promise(&self) {
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
        for record in records.iter().filter(|record| record.state() == State::Queued) {
            let (Some(profile), Some(pooled)) = (&record.profile, &record.pooled()) else { continue };
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
        let before = record.state();
        let Some(settled) = self.bridge.claim(record, input).await? else { return Ok(Claimed::ByAnother) };
        if let Some(Action::Describe { task_arn }) = settled.action {
            return Ok(Claimed::ToDescribe(Box::new(settled.record), task_arn));
        }
        let action = settled.action.clone();
        let after = self.bridge.carry_out(settled).await?.state();
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
