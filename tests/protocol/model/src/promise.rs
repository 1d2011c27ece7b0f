//! The guarantees that the protocol keeps in every state.

use ecs_bridge_core::{Record, Rules, State};

/// A guarantee. The step that breaks it records that in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// An attempt has at most one task.
    OneTask,
    /// No container starts if one of an earlier attempt may have started. Under `relaunch_on`, it starts only after that
    /// container has ended.
    NoSecondStart,
    /// No container runs without a record.
    Recorded,
    /// A terminal state, its exit code and its place in the feed never change.
    Final,
    /// Each write increments `rev` by one, and changes the state only to one of its successors.
    Successors,
    /// The exit code is the container's, and 0 is the only success.
    ExitCode,
    /// A rejected or expired submission has not run and never runs.
    NeverStarted,
    /// No RunTask is claimed after the response to a stop request.
    StopIsFinal,
    /// The exit of the container ends its attempt as soon as a function sees it.
    ExitIsRecorded,
    /// The first function that sees a live container of an ended submission stops it.
    NoOrphanTask,
    /// A submission has a timer until it has ended and its notifications are delivered. While a stop is requested, it is due
    /// within `stop_every`.
    Timer,
    /// The request is kept while a RunTask can be claimed, and removed by the terminal write.
    Request,
    /// task-state and stops make no ECS call but StopTask.
    OnlyStops,
    /// No notification is sent before the terminal state is recorded.
    NotifiedAfterEnd,
    /// A notification is sent once, plus once for each process that died and each response that was lost.
    NotifiedOnce,
    /// One process of a runner claims an attempt of a pooled submission while it waits, and keeps it.
    ClaimedOnce,
}

impl Promise {
    /// Returns the name of its property.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneTask => "an attempt has at most one task",
            Self::NoSecondStart => "nothing starts again after it may have started",
            Self::Recorded => "nothing runs without a record",
            Self::Final => "a terminal state is final",
            Self::Successors => "a state changes only to one of its successors",
            Self::ExitCode => "the exit code is the container's",
            Self::NeverStarted => "a rejected or expired submission has never run",
            Self::StopIsFinal => "nothing is launched after a stop",
            Self::ExitIsRecorded => "a reported exit is recorded",
            Self::NoOrphanTask => "no orphan task is left",
            Self::Timer => "an unsettled submission has a timer",
            Self::Request => "the request is kept as long as it is needed",
            Self::OnlyStops => "task-state and stops only call StopTask",
            Self::NotifiedAfterEnd => "a notification is sent after the recorded end",
            Self::NotifiedOnce => "a notification is repeated only after a fault",
            Self::ClaimedOnce => "an attempt is claimed by one process",
        }
    }
}

/// Reports for each guarantee about a single row whether this row breaks it.
pub fn of_row(row: &Record, rules: &Rules, mut breaks: impl FnMut(Promise, bool)) {
    let is_terminal = row.state().is_terminal();
    let on_timer = row.check_at.is_some() && row.due.is_some();
    // Runners have no place in the feed, because no caller submitted them.
    let for_feed = is_terminal && row.runner().is_none();
    let latest = row.updated_at.plus(rules.timers.stop_every);
    let stop_is_late =
        !is_terminal && row.stop_requested.is_some() && row.check_at.is_some_and(|check_at| check_at > latest);
    breaks(
        Promise::Timer,
        row.is_settled() == on_timer
            || for_feed != row.feed.is_some()
            || is_terminal != row.changed_at.is_some()
            || stop_is_late,
    );

    // runner-api may have to repeat the response that dispatches a claimed submission.
    let is_needed = matches!(row.state(), State::Queued | State::Launching) || row.taken().is_some();
    breaks(Promise::Request, if is_terminal { row.request.is_some() } else { is_needed && row.request.is_none() });

    let is_success = row.state() == State::Succeeded;
    breaks(Promise::ExitCode, if is_terminal { is_success != (row.attempt.exit_code == Some(0)) } else { false });
}

/// Reports for each guarantee about a write whether this write breaks it.
pub fn of_write(before: &Record, after: &Record, mut breaks: impl FnMut(Promise, bool)) {
    let follows = before.state() == after.state() || before.state().successors().contains(&after.state());
    let end = |record: &Record| (record.state(), record.attempt.exit_code, record.feed.clone(), record.changed_at);
    breaks(Promise::Final, before.state().is_terminal() && end(before) != end(after));
    breaks(Promise::Successors, !follows || after.rev != before.rev + 1);
    breaks(Promise::StopIsFinal, before.stop_requested.is_some() && claims(before, after));
    let is_changed =
        before.taken() != after.taken() && (after.attempt.number == before.attempt.number || after.taken().is_some());
    let is_claim = before.state() == State::Queued && before.taken().is_none() && before.stop_requested.is_none();
    breaks(Promise::ClaimedOnce, is_changed && !is_claim);
}

/// Returns true if a write claims a RunTask call.
fn claims(before: &Record, after: &Record) -> bool {
    after.attempt.calls.last_call_at.is_some() && after.attempt.calls.last_call_at != before.attempt.calls.last_call_at
}
