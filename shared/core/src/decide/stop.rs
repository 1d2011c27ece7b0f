//! Stops tasks: on request, after a timeout, and if they should not be alive.

use std::time::Duration;

use crate::{
    decide::{Action, AfterStop, Alarm, Step},
    record::{Stop, StopCause},
    state::State,
    task::task_id,
    time::Timestamp,
};

impl Step<'_> {
    pub(super) fn stop(&mut self, reason: &str) -> Option<Action> {
        if self.record.state().is_terminal() {
            return None;
        }
        if self.record.stop_requested.is_none() {
            self.record.stop_requested = Some(Stop { cause: StopCause::User, reason: reason.to_owned() });
            self.check_by(self.now.plus(self.timers().stop_every));
        }
        if self.record.state() == State::Queued {
            self.end(State::Cancelled, reason);
            return None;
        }
        let task_arn = self.record.attempt.task_arn.clone()?;
        Some(self.stop_task(task_arn, reason.to_owned(), AfterStop::Nothing))
    }

    /// Applies a stop that was requested before the task was known.
    pub(super) fn stop_if_asked(&mut self, news: bool, arn: &str) -> Option<Action> {
        let reason = self.record.stop_requested.as_ref().filter(|_| news)?.reason.clone();
        Some(self.stop_task(arn.to_owned(), reason, AfterStop::Nothing))
    }

    pub(super) fn stop_task(&self, task_arn: String, reason: String, then: AfterStop) -> Action {
        let runner = self.record.taken().map(|taken| taken.runner_id.clone());
        Action::Stop { task_arn, cluster: self.record.cluster.clone(), reason, runner, then }
    }

    pub(super) fn is_another(&self, arn: &str) -> bool {
        self.record.attempt.task_arn.as_deref().is_some_and(|recorded| task_id(recorded) != task_id(arn))
    }

    /// Stops a task with the same `startedBy` as the recorded task.
    pub(super) fn second_task(&mut self, arn: &str, live: bool) -> Option<Action> {
        self.alarm = Some(Alarm::SecondTask);
        let reason = "a second task of the same attempt".to_owned();
        live.then(|| self.stop_task(arn.to_owned(), reason, AfterStop::Nothing))
    }

    /// Stops a live task of a submission that ended without it. The same applies if the submission ended because ECS
    /// reported the task as STOPPED, and a newer version has `refuted` that.
    pub(super) fn orphan(&mut self, arn: &str, refuted: bool) -> Option<Action> {
        let ended_without = match self.record.state() {
            State::Lost | State::Cancelled | State::Expired | State::Rejected => true,
            State::Queued | State::Launching | State::Launched | State::Running => false,
            State::Succeeded | State::Failed => false,
        };
        // The outcome is recorded, so a description that shows the task alive is older.
        let seen_to_end = self.record.attempt.exit_code.is_some() || self.record.attempt.stopped_at.is_some();
        if !refuted && (!ended_without || seen_to_end) {
            return None;
        }
        self.alarm = Some(Alarm::OrphanTask);
        let reason = format!("its submission is {}", self.record.state());
        Some(self.stop_task(arn.to_owned(), reason, AfterStop::Nothing))
    }

    /// Returns the time at which the timeout of the state expires, and its cause.
    pub(super) fn timeout(&self) -> Option<(Timestamp, StopCause, u32)> {
        // The container has exited, and only its task is still being torn down.
        if self.record.attempt.exit_code.is_some() {
            return None;
        }
        let (from, seconds, cause) = match self.record.state() {
            State::Launched => {
                (self.record.attempt.launched_at, self.record.policy.launch_timeout, StopCause::LaunchTimeout)
            }
            State::Running => (self.record.attempt.started_at, self.record.policy.run_timeout, StopCause::RunTimeout),
            _ => return None,
        };
        let (from, seconds) = (from?, seconds?);
        Some((from.plus(Duration::from_secs(seconds.into())), cause, seconds))
    }

    pub(super) fn check_by_timeout(&mut self) {
        if let Some((at, ..)) = self.timeout() {
            self.check_by(at.max(self.now));
        }
    }

    pub(super) fn request_stop_if_overdue(&mut self) {
        let Some((at, cause, seconds)) = self.timeout() else { return };
        if self.now >= at && self.record.stop_requested.is_none() {
            let reason = match cause {
                StopCause::LaunchTimeout => format!("not running {seconds} s after its launch (launch_timeout)"),
                StopCause::RunTimeout | StopCause::User => format!("still running after {seconds} s (run_timeout)"),
            };
            self.record.stop_requested = Some(Stop { cause, reason });
        }
    }
}
