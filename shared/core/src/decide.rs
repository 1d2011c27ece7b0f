//! The one decision of the bridge: given a record and an input, the next record and the next action.
//!
//! Every handler reads a record, calls [`decide`], writes the result if the record's `rev` is unchanged, and only then
//! acts. A handler that dies between the write and the act leaves a record that is due again at `check_at`. A handler
//! that loses the race decides again on the record that won. An input that changes nothing causes no write.
//!
//! Deliberately absent: a clock, I/O, and any way to change a terminal state, to make up an exit code, or to launch an
//! attempt again whose container may have started (`relaunch_on` excepted).

mod launch;
mod notify;
pub mod pool;
mod stop;
mod task;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    id::{Attempt, SubmissionId},
    notify::{Delivery, Notify},
    record::{self, Call, NEVER, Record},
    rules::{Rules, Timers},
    state::State,
    task::Task,
    time::Timestamp,
};

pub use pool::PoolInput;

/// An observation or a request. As JSON it stands in the functions' logs at `DEBUG`, so that decisions can be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// `check_at` has passed.
    Due,
    /// The outcome of a RunTask call.
    Launch(Call, LaunchAnswer),
    /// ListTasks, begun at this moment, found no task of this attempt.
    NotFound(Attempt, Timestamp),
    /// ListTasks or DescribeTasks, begun at `at`, failed: ECS refused the call or did not answer it.
    LookupFailed {
        /// The attempt that the call was about.
        attempt: Attempt,
        /// When the call began.
        at: Timestamp,
        /// ECS's error code and message.
        reason: String,
    },
    /// A task of this submission, from an event or a description.
    Seen(Task),
    /// DescribeTasks, begun at `at`, called the task MISSING.
    Missing {
        /// The task that was asked for.
        task_arn: String,
        /// When the call began.
        at: Timestamp,
        /// Whether StopTask was sent since.
        stop_sent: bool,
    },
    /// The caller asks for a stop, for this reason.
    Stop(String),
    /// The caller submitted it again, and names targets of notifications: the process that claimed its launch may have
    /// died.
    Resubmitted(Notify),
    /// The outcome of its notifications.
    Delivered(Delivery),
    /// Its profile has no capacity.
    NoCapacity,
    /// It is to be launched by this choice: what waits for capacity, before its timer, or what is due and would begin with
    /// another choice.
    LaunchBy(u8),
    /// Of a pool: for a pooled submission, or for a runner.
    Pool(PoolInput),
}

/// The outcome of a RunTask call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaunchAnswer {
    /// ECS has a task: this call's, or that of an earlier one with the same token.
    Task {
        /// Its ARN.
        arn: String,
        /// Whether it is to run, as the answer has it.
        live: bool,
    },
    /// ECS certainly launched nothing, and may do so later.
    RefusedForNow(LaunchBlocker, String),
    /// ECS certainly launched nothing, and never will.
    RefusedForGood(String),
    /// Unknown: a timeout, a broken connection, a server error.
    Unanswered(String),
}

/// What kept ECS from launching a task for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaunchBlocker {
    /// No capacity for this kind of task: `failures[]`, no container instances, a quota of tasks or vCPUs.
    Capacity,
    /// The bridge's role lacks a permission, or its change has not reached ECS yet.
    Access,
    /// Anything else that passes: throttling, no connection, an error that is not known.
    Other,
}

/// The call to make once the record is written, by the process that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Call RunTask.
    RunTask(Call),
    /// List the tasks with the current attempt's `startedBy`.
    LookUp(Attempt),
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
        /// The runner whose task it is, where a pooled submission's command runs there: it is first closed, on condition
        /// that it still serves that submission.
        runner: Option<SubmissionId>,
        /// What to do after it.
        then: AfterStop,
    },
    /// Deliver its pending notifications, under this claim: the first, second, …
    Notify(u32),
}

/// What follows a StopTask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterStop {
    /// Nothing: an event reports the end of the task.
    Nothing,
    /// A description, because the timer has expired.
    Describe,
    /// The submission ends as lost: [`Input::Missing`] with `stop_sent`.
    GiveUp(Timestamp),
}

/// A condition that an operator should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A task is alive although its submission has ended.
    OrphanTask,
    /// A second task has the same `startedBy`.
    SecondTask,
    /// A task is there that ECS refused to launch.
    RefusedTask,
    /// ECS denies access to RunTask.
    AccessDenied,
    /// Lookups of a launch or a task failed for so long that its submission was given up as lost.
    GivenUp,
    /// A notification failed for so long that it was given up.
    NotificationsFailed,
}

/// The result of [`decide`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The record to write; none if nothing changed.
    pub record: Option<Record>,
    /// The action to take after the write.
    pub action: Option<Action>,
    /// The alarm to raise.
    pub alarm: Option<Alarm>,
}

/// Decides the next record and action for `record` on `input` at `now`.
pub fn decide(record: &Record, input: &Input, now: Timestamp, rules: &Rules) -> Decision {
    let mut next = record.clone();
    let mut step = Step { record: &mut next, now, rules, alarm: None, forced: false };
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
    let ends = step.record.state.is_terminal() && !record.state.is_terminal();
    // Where its end asks for another action, its notifications are delivered when due; and where a runner waits for the answer, which a slow
    // listener must not delay.
    let is_reported = matches!(input, Input::Pool(PoolInput::Done { .. }));
    let action = if ends && !is_reported { action.or_else(|| step.notify()) } else { action };
    let (alarm, forced) = (step.alarm, step.forced);
    if next == *record && !forced {
        return Decision { record: None, action, alarm };
    }
    if !next.state.is_terminal() {
        next.expires_at = NEVER;
        // A runner may need once more what it has taken.
        let is_over_with = next.taken().is_none() && !next.may_relaunch();
        if matches!(next.state, State::Launched | State::Running) && is_over_with {
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
    /// The row is written although nothing in it but `rev` changes.
    forced: bool,
}

impl Step<'_> {
    fn timers(&self) -> Timers {
        self.rules.timers
    }

    fn end(&mut self, state: State, reason: impl Into<String>) {
        self.record.end(state, reason, self.now, self.rules);
    }

    /// Moves the timer; with a stop requested, by at most [`Timers::stop_every`].
    fn check_in(&mut self, wait: Duration) {
        let wait = if self.record.stop_requested.is_some() { wait.min(self.timers().stop_every) } else { wait };
        self.record.check_at = Some(self.now.plus(wait));
    }

    /// Brings the timer forward to `at`; an earlier one stays.
    fn check_by(&mut self, at: Timestamp) {
        self.record.check_at = self.record.check_at.map(|check_at| check_at.min(at));
    }

    fn backoff(&self, count: u32) -> Duration {
        let Timers { backoff, backoff_most, .. } = self.timers();
        let wait = backoff.saturating_mul(1 << count.saturating_sub(1).min(16)).min(backoff_most);
        let half = wait / 2;
        let jitter = record::jitter(&self.record.submission_id, count) % 1000;
        // At most 999 of 1000: it fits.
        half + half.mul_f64(jitter as f64 / 1000.0)
    }

    fn due(&mut self) -> Option<Action> {
        // Over, or claimed by another process since the index was read.
        if self.record.check_at.is_none_or(|check_at| check_at > self.now) {
            return None;
        }
        match self.record.state {
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
