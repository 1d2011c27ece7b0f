//! Makes the one decision of the bridge: given a record and an input, the next record and the next action.
//!
//! Every handler reads a record, calls [`decide`], writes the result if the record's `rev` is unchanged, and only then
//! acts. If a handler dies between the write and the action, the record is due again at `check_at`. If a handler loses
//! the race, it decides again on the newer record. An input that changes nothing causes no write.
//!
//! The module deliberately has no clock and no I/O. It cannot change a terminal state or invent an exit code. It cannot
//! relaunch an attempt whose container may have started, unless `relaunch_on` allows it.

mod launch;
mod notify;
pub mod pool;
mod stop;
mod task;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    id::{AttemptNumber, SubmissionId},
    notify::{Delivery, Notify},
    record::{self, Call, NEVER, Record},
    rules::{Rules, Timers},
    state::{IllegalChange, State},
    task::Task,
    time::Timestamp,
};

pub use pool::PoolInput;

/// An observation or a request. The functions log it as JSON at `DEBUG`, so that decisions can be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// The time `check_at` has passed.
    Due,
    /// The outcome of a RunTask call.
    Launch(Call, LaunchAnswer),
    /// ListTasks, which began at this moment, found no task of this attempt.
    NotFound(AttemptNumber, Timestamp),
    /// ListTasks or DescribeTasks failed: ECS rejected the call or did not respond.
    LookupFailed {
        /// The attempt that the call was about.
        attempt: AttemptNumber,
        /// When the call began.
        at: Timestamp,
        /// ECS's error code and message.
        reason: String,
    },
    /// A task of this submission was reported by an event or a description.
    Seen(Task),
    /// DescribeTasks reported the task as MISSING.
    Missing {
        /// The requested task.
        task_arn: String,
        /// When the call began.
        at: Timestamp,
        /// True if StopTask was sent since then.
        stop_sent: bool,
    },
    /// The caller requests a stop, with this reason.
    Stop(String),
    /// The caller submitted it again, with notification targets. The process that claimed its launch may have died.
    Resubmitted(Notify),
    /// The outcome of a delivery of its notifications.
    Delivered(Delivery),
    /// Its profile has no available capacity.
    NoCapacity,
    /// The submission must be launched through this capacity option. It was waiting for capacity and its timer has not
    /// expired, or it is due and would begin with another option.
    LaunchBy(u8),
    /// An input that concerns pools: for a pooled submission, or for a runner.
    Pool(PoolInput),
}

/// The outcome of a RunTask call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaunchAnswer {
    /// ECS has a task: that of this call, or of an earlier call with the same token.
    Task {
        /// Its ARN.
        arn: String,
        /// True if the task will run, according to the response.
        live: bool,
    },
    /// Retryable: ECS certainly launched nothing, and may do so later.
    RefusedForNow(LaunchBlocker, String),
    /// Permanent: ECS certainly launched nothing, and never will.
    RefusedForGood(String),
    /// The outcome is unknown because of a timeout, a broken connection or a server error.
    Unanswered(String),
}

/// The reason for a retryable failure of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaunchBlocker {
    /// ECS has no capacity for this kind of task: an entry in `failures[]`, no container instances, or a quota of tasks
    /// or vCPUs.
    Capacity,
    /// The bridge's role lacks a permission, or ECS does not know of a recent change of the role yet.
    Access,
    /// Any other transient failure: throttling, no connection, or an unknown error.
    Other,
}

/// The call to make after the record is written, by the process that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Call RunTask.
    RunTask(Call),
    /// List the tasks with the current attempt's `startedBy`.
    LookUp(AttemptNumber),
    /// Describe the task.
    Describe {
        /// Its ARN.
        task_arn: String,
    },
    /// Stop the task.
    Stop {
        /// Its ARN.
        task_arn: String,
        /// Its cluster, by name or ARN.
        cluster: String,
        /// The reason to give.
        reason: String,
        /// The runner to close first, if it runs the command of a pooled submission. It is closed only if it still
        /// serves that submission.
        runner: Option<SubmissionId>,
        /// The step that follows the stop.
        then: AfterStop,
    },
    /// Deliver its pending notifications under the claim of this number, which starts at 1.
    Notify(u32),
}

/// The step that follows a StopTask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterStop {
    /// No step follows, because an event reports that the task has stopped.
    Nothing,
    /// The task is described, because the timer has expired.
    Describe,
    /// The submission ends as lost, through [`Input::Missing`] with `stop_sent`.
    GiveUp(Timestamp),
}

/// A condition that an operator should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A task is alive although its submission has ended.
    OrphanTask,
    /// A second task has the same `startedBy`.
    SecondTask,
    /// ECS launched a task although it rejected the call.
    RefusedTask,
    /// ECS denies access to RunTask.
    AccessDenied,
    /// Lookups of a launch or a task failed for so long that its submission ended as lost.
    GivenUp,
    /// The delivery of a notification failed for so long that the bridge stopped retrying.
    NotificationsFailed,
    /// The decision would have changed the state against [`State::successors`]. Nothing is written, and no action
    /// follows.
    IllegalChange(IllegalChange),
}

/// The result of [`decide`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The record to write, or none if nothing changed.
    pub record: Option<Record>,
    /// The action to take after the write.
    pub action: Option<Action>,
    /// The alarm to raise.
    pub alarm: Option<Alarm>,
}

/// Decides the next record and action for `record` on `input` at `now`.
pub fn decide(record: &Record, input: &Input, now: Timestamp, rules: &Rules) -> Decision {
    let mut next = record.clone();
    let mut step = Step { record: &mut next, now, rules, alarm: None, forced: false, illegal: None };
    let action = match input {
        Input::Due => step.due(),
        Input::Launch(call, answer) => step.launch_answered(*call, answer),
        Input::NotFound(attempt, began_at) => step.not_found(*attempt, *began_at),
        Input::LookupFailed { attempt, at, reason } => step.lookup_failed(*attempt, *at, reason),
        Input::Seen(task) => step.seen(task),
        Input::Missing { task_arn, at, stop_sent } => step.missing(task_arn, *at, *stop_sent),
        Input::Stop(reason) => step.stop(reason),
        Input::Resubmitted(notify) => step.resubmitted(notify),
        Input::Delivered(delivery) => {
            step.delivered(delivery);
            None
        }
        Input::NoCapacity => {
            step.no_capacity();
            None
        }
        Input::LaunchBy(choice) => step.turn(*choice),
        Input::Pool(input) => step.pool(input),
    };
    if let Some(illegal) = step.illegal {
        return Decision { alarm: Some(Alarm::IllegalChange(illegal)), ..Decision::default() };
    }
    let ends = step.record.state().is_terminal() && !record.state().is_terminal();
    // If the outcome leads to another action, notifications are delivered when due. The same applies if a runner waits
    // for the response, which a slow target must not delay.
    let is_reported = matches!(input, Input::Pool(PoolInput::Done { .. }));
    let action = if ends && !is_reported { action.or_else(|| step.notify()) } else { action };
    let (alarm, forced) = (step.alarm, step.forced);
    if next == *record && !forced {
        return Decision { record: None, action, alarm };
    }
    if !next.state().is_terminal() {
        next.expires_at = NEVER;
        // A runner may request a submission that it has claimed once more.
        let is_over_with = next.taken().is_none() && !next.may_relaunch();
        if matches!(next.state(), State::Launched | State::Running) && is_over_with {
            next.request = None;
        }
        next.place(now, rules);
    }
    next.rev += 1;
    next.updated_at = now;
    next.fit();
    Decision { record: Some(next), action, alarm }
}

struct Step<'a> {
    record: &'a mut Record,
    now: Timestamp,
    rules: &'a Rules,
    alarm: Option<Alarm>,
    /// The row is written even if only `rev` changes.
    forced: bool,
    /// The first change that the table of changes does not have. Nothing is written then.
    illegal: Option<IllegalChange>,
}

impl Step<'_> {
    fn timers(&self) -> Timers {
        self.rules.timers
    }

    fn change_to(&mut self, state: State) {
        let changed = self.record.change_to(state);
        self.legal(changed);
    }

    fn claim(&mut self) -> Option<Action> {
        let claimed = self.record.claim(self.now, self.rules);
        self.legal(claimed).map(Action::RunTask)
    }

    fn end(&mut self, state: State, reason: impl Into<String>) {
        let ended = self.record.end(state, reason, self.now, self.rules);
        self.legal(ended);
    }

    /// Returns the value of a legal change, and notes an illegal one.
    fn legal<T>(&mut self, changed: Result<T, IllegalChange>) -> Option<T> {
        changed.map_err(|illegal| self.illegal.get_or_insert(illegal)).ok()
    }

    /// Moves the timer, by up to [`Timers::stop_every`] if a stop is requested.
    fn check_in(&mut self, wait: Duration) {
        let wait = if self.record.stop_requested.is_some() { wait.min(self.timers().stop_every) } else { wait };
        self.record.check_at = Some(self.now.plus(wait));
    }

    /// Brings the timer forward to `at`, unless it is earlier already.
    fn check_by(&mut self, at: Timestamp) {
        self.record.check_at = self.record.check_at.map(|check_at| check_at.min(at));
    }

    fn backoff(&self, count: u32) -> Duration {
        let Timers { backoff, backoff_most, .. } = self.timers();
        let wait = backoff.saturating_mul(1 << count.saturating_sub(1).min(16)).min(backoff_most);
        let half = wait / 2;
        let jitter = record::jitter(&self.record.submission_id, count) % 1000;
        // The jitter is up to 999 of 1,000, so the value fits.
        half + half.mul_f64(jitter as f64 / 1000.0)
    }

    fn due(&mut self) -> Option<Action> {
        // The record has ended, or another process has claimed it since the index was read.
        if self.record.check_at.is_none_or(|check_at| check_at > self.now) {
            return None;
        }
        match self.record.state() {
            State::Queued => self.due_queued(),
            State::Launching => self.due_launching(),
            State::Launched | State::Running => self.due_launched(),
            State::Succeeded | State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Lost => {
                self.due_to_notify()
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
