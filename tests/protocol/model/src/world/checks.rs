//! The guarantees that a step is checked against.

use ecs_bridge_core::{Action, Record, State, Task, task_id};

use super::{state::Event, turn::Turn};
use crate::{
    ecs::Change,
    promise::{self, Promise},
    scenario::{CONTAINER, Scenario},
};

impl Turn<'_> {
    /// Changes a task, sends its event, and checks the start and the exit of its container.
    pub(super) fn change(&mut self, task: usize, change: Change) -> Option<()> {
        let others =
            self.submission.tasks.iter().enumerate().filter(|(other, _)| *other != task).map(|(_, other)| other);
        let ran: Vec<_> = others.filter(|other| other.ran).copied().collect();
        let it = self.submission.tasks.get_mut(task)?;
        let before = *it;
        it.change(change, self.now);
        let after = *it;
        if change == Change::ReportedStopped {
            self.submission.events.push(Event { task: after.reported_stopped(), late: false });
        } else if after.is_reported() {
            self.submission.events.push(Event { task: after.reported(), late: false });
        }
        if change == Change::Starts {
            let relaunches = !self.scenario.policy.relaunch_on.is_empty();
            let ran: Vec<_> = ran.into_iter().filter(|other| !other.refused && !after.refused).collect();
            self.break_if(Promise::OneTask, ran.iter().any(|other| other.attempt == after.attempt));
            self.break_if(Promise::NoSecondStart, ran.iter().any(|other| !relaunches || !other.is_stopped()));
            self.break_if(Promise::Recorded, self.submission.row.is_none());
            let ended = |row: &Record| matches!(row.state(), State::Rejected | State::Expired) && !after.refused;
            self.break_if(Promise::NeverStarted, self.submission.row.as_deref().is_some_and(ended));
        }
        if before.is_live() && !after.is_live() && !before.to_stop && before.ran {
            let abandoned = self.submission.row.as_deref().is_some_and(|row| {
                ended_without_container(row) && row.changed_at.is_some_and(|ended| ended < Scenario::at(self.now))
            });
            let may_be_unseen = !self.submission.processes.is_empty() || self.submission.events.len() > 1;
            self.break_if(Promise::NoOrphanTask, abandoned && !may_be_unseen && !self.outage);
        }
        Some(())
    }

    /// Checks a row that is about to be written.
    pub(super) fn check_row(&mut self, row: &Record) {
        promise::of_row(row, &Scenario::rules(), |promise, is_broken| self.break_if(promise, is_broken));

        if let Some(code) = row.attempt.exit_code {
            let arn = row.attempt.task_arn.as_deref().unwrap_or_default();
            let reported = self.submission.task_of(arn).filter(|task| task.attempt == row.attempt.number);
            let reported = reported.and_then(|task| task.exit_code());
            self.break_if(Promise::ExitCode, reported != Some(code));
        }

        let never_started = matches!(row.state(), State::Rejected | State::Expired);
        self.break_if(
            Promise::NeverStarted,
            never_started && self.submission.tasks.iter().any(|task| !task.refused && (task.ran || task.is_live())),
        );

        // If a submission ends while its container is live, its task has been stopped.
        let alive = row
            .attempt
            .task_arn
            .as_deref()
            .and_then(|arn| self.submission.task_of(arn))
            .is_some_and(|task| task.is_live() && !task.to_stop);
        let ends =
            ended_without_container(row) && self.submission.row.as_ref().is_some_and(|row| !row.state().is_terminal());
        // During an outage, StopTask fails.
        self.break_if(Promise::NoOrphanTask, ends && alive && !self.outage);
    }

    /// Checks the decision on an observed task. `before` is the row before the decision.
    pub(super) fn check_seen(&mut self, before: &Record, seen: &Task, action: Option<&Action>) {
        let Some(task) = self.submission.task_of(&seen.arn) else { return };
        let version = seen.version.map(|version| u8::try_from(version).unwrap_or(u8::MAX));
        if version.is_some_and(|version| version <= task.seen_version) {
            return;
        }
        // An event without a version counts only if it reports a stop.
        task.seen_version = version.unwrap_or(task.seen_version);
        let is_current = before.attempt.number == seen.attempt
            && before.attempt.task_arn.as_deref().is_none_or(|arn| task_id(arn) == task_id(&seen.arn));
        if !is_current {
            return;
        }
        let name = CONTAINER;
        if ended_without_container(before) {
            let alive = version.is_some()
                && seen.is_live(name)
                && before.attempt.exit_code.is_none()
                && before.attempt.stopped_at.is_none();
            return self.break_if(Promise::NoOrphanTask, alive && !matches!(action, Some(Action::Stop { .. })));
        }
        let has_ended = seen.is_stopped() || (!self.scenario.restarts && seen.exit_code(name).is_some());
        let waits_for_relaunch = self.scenario.spot && !seen.is_stopped() && seen.exit_code(name) != Some(0);
        let is_recorded = self
            .submission
            .row
            .as_ref()
            .is_some_and(|row| row.state().is_terminal() || row.attempt.number > seen.attempt);
        let waits_for_confirmation = self.submission.row.as_ref().is_some_and(|row| row.attempt.asked_again);
        // It may be a task of a refused call, which the response of RunTask then shows.
        let may_be_refused =
            before.attempt.was_refused && before.state() == State::Launching && seen.exit_code(name).is_none();
        let waits = waits_for_relaunch || waits_for_confirmation || may_be_refused;
        self.break_if(Promise::ExitIsRecorded, has_ended && !is_recorded && !waits);
    }
}

/// Returns true if a submission ended without the exit of its container.
fn ended_without_container(row: &Record) -> bool {
    matches!(row.state(), State::Lost | State::Cancelled | State::Expired | State::Rejected)
}
