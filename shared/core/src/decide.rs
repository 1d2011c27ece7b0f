//! The one decision of the bridge: what a record becomes, and what is to be done, when something is learnt of it.
//!
//! Every handler reads a record, calls [`decide`], writes the result if the record's `rev` is unchanged, and only then
//! acts. A handler that dies between the write and the act leaves a record that is due again at `check_at`; one that
//! loses the race decides anew with what the other left. An input that changes nothing asks for no write.
//!
//! What never happens here: a clock is read, an attempt is launched again whose container may have started (but for
//! `relaunch_on`), a terminal state changes, an exit code is made up.

mod launch;
mod stop;
mod task;

use std::time::Duration;

use crate::{
    id::Attempt,
    record::{self, Call, Record},
    rules::{Rules, Timers},
    state::State,
    task::Task,
    time::Timestamp,
};

/// Something learnt, or asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing was heard by `check_at`.
    Due,
    /// What came of a RunTask call.
    Launch(Call, LaunchAnswer),
    /// ListTasks, begun at this moment, found no task of this attempt.
    NotFound(Attempt, Timestamp),
    /// ECS told of a task of this submission: an event, or a description.
    Seen(Task),
    /// DescribeTasks, begun at `at`, called the task MISSING.
    Missing {
        /// The task that was asked for.
        task_arn: String,
        /// When.
        at: Timestamp,
        /// Whether StopTask was sent since.
        stop_sent: bool,
    },
    /// The caller wants it stopped, for this reason.
    Stop(String),
    /// The caller sent it again: who had claimed its launch may have died.
    Resubmitted,
}
/// What came of a RunTask call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LaunchAnswer {
    /// ECS has a task: this call's, or that of an earlier one with the same token.
    Task {
        /// Its ARN.
        arn: String,
        /// Whether it is to run, as the answer has it.
        live: bool,
    },
    /// ECS certainly launched nothing, and may do so later.
    RefusedForNow(String),
    /// ECS certainly launched nothing, and never will.
    RefusedForGood(String),
    /// Nobody knows: a timeout, a broken connection, an error of the server.
    Unanswered(String),
}

/// What is to be done once the record is written; by whoever wrote it, and with the ECS calls that it may make.
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
        /// What to do after it.
        then: AfterStop,
    },
}

/// What follows a StopTask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterStop {
    /// Nothing: its end will be heard of.
    Nothing,
    /// A description, as it is time to look.
    Describe,
    /// The submission is given up as lost: [`Input::Missing`] with `stop_sent`.
    GiveUp(Timestamp),
}

/// Something that should not be, and that people should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A task lives for a submission that has ended.
    OrphanTask,
    /// A second task has the same `startedBy`.
    SecondTask,
}

/// What follows from an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The record to write; none if nothing changed.
    pub record: Option<Record>,
    /// What to do after the write.
    pub action: Option<Action>,
    /// What to tell people.
    pub alarm: Option<Alarm>,
}

/// Decides what `record` becomes on `input` at `now`.
pub fn decide(record: &Record, input: &Input, now: Timestamp, rules: &Rules) -> Decision {
    let mut next = record.clone();
    let mut step = Step { record: &mut next, now, rules, alarm: None };
    let action = match input {
        Input::Due => step.due(),
        Input::Launch(call, answer) => step.launch_answered(*call, answer),
        Input::NotFound(attempt, began_at) => step.not_found(*attempt, *began_at),
        Input::Seen(task) => step.seen(task),
        Input::Missing { task_arn, at, stop_sent } => step.missing(task_arn, *at, *stop_sent),
        Input::Stop(reason) => step.stop(reason),
        Input::Resubmitted => {
            step.resubmitted();
            None
        }
    };
    let alarm = step.alarm;
    if next == *record {
        return Decision { record: None, action, alarm };
    }
    if !next.state.is_terminal() {
        if matches!(next.state, State::Launched | State::Running) && !next.may_relaunch() {
            next.request = None;
        }
        next.keep_alive(now, rules.retention);
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
}
impl Step<'_> {
    fn timers(&self) -> Timers {
        self.rules.timers
    }

    fn end(&mut self, state: State, reason: impl Into<String>) {
        self.record.end(state, reason, self.now, self.rules);
    }

    /// Moves the timer, but never further than a wanted stop allows.
    fn check_in(&mut self, wait: Duration) {
        let wait = if self.record.stop_requested.is_some() { wait.min(self.timers().stop_every) } else { wait };
        self.record.set_check_at(self.now.plus(wait));
    }

    /// Moves the timer closer, if it is not close enough.
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
        // Terminal, or claimed by another since the index was read.
        if self.record.check_at.is_none_or(|check_at| check_at > self.now) {
            return None;
        }
        match self.record.state {
            State::Queued => self.due_queued(),
            State::Launching => self.due_launching(),
            State::Launched | State::Running => self.due_launched(),
            State::Succeeded | State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Lost => {
                None
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
