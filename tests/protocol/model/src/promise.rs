//! Promises: what must hold in every state.

use ecs_bridge_core::{Record, Rules, State};
use stateright::Property;

use crate::{Scenario, World};

/// The name of the property that every submission ends.
pub const SETTLED: &str = "with nothing left to happen, every submission is over";

/// The name of the property that every notification is delivered.
pub const NOTIFIED: &str = "with nothing left to happen, every notification has been delivered";

/// A promise; the step that breaks it notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// An attempt has at most one task.
    OneTask,
    /// No container starts after one of an earlier attempt may have started; under `relaunch_on`, only after that one's end.
    NeverAgain,
    /// No container runs without a record.
    Recorded,
    /// A terminal state, its exit code and its place in the feed never change.
    Final,
    /// Each write raises `rev` by one and goes to a state that may follow.
    Successors,
    /// The exit code is the container's, and 0 is the only success.
    ExitCode,
    /// A rejected or expired submission has never run, and never runs.
    NeverStarted,
    /// No RunTask is claimed after a stop was answered.
    StopIsFinal,
    /// The end of the container ends its attempt as soon as a function sees it.
    EndIsHeard,
    /// A live container of an ended submission is stopped by the first function that sees it.
    NothingLeft,
    /// A submission is on the timer until it has ended and its notifications are delivered, and soon due while a stop is requested.
    Timer,
    /// The request is kept as long as a RunTask may be claimed, and removed at the end.
    Request,
    /// task-state and stops make no ECS call but StopTask.
    OnlyStops,
    /// No notification is sent before the end is recorded.
    NotifiedTheEnd,
    /// A notification is sent once, and once more for each process that died, and for each answer that was lost.
    NotifiedOnce,
    /// Of a pooled submission, one process of a runner takes an attempt, out of what waits, and keeps it.
    TakenOnce,
}

impl Promise {
    /// Its property's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneTask => "an attempt has at most one task",
            Self::NeverAgain => "nothing is launched again after it may have started",
            Self::Recorded => "nothing runs without a record",
            Self::Final => "an end is final",
            Self::Successors => "states follow each other as the table of changes has it",
            Self::ExitCode => "the exit code is the container's",
            Self::NeverStarted => "what is rejected or expired has never run",
            Self::StopIsFinal => "nothing is launched after a stop",
            Self::EndIsHeard => "a reported end is recorded",
            Self::NothingLeft => "no container is left behind",
            Self::Timer => "what is not over is on the timer",
            Self::Request => "the request is kept as long as it is needed",
            Self::OnlyStops => "task-state and stops only call StopTask",
            Self::NotifiedTheEnd => "a notification shows the recorded end",
            Self::NotifiedOnce => "a notification is repeated only after a fault",
            Self::TakenOnce => "an attempt is taken by one process",
        }
    }
}

/// Reports which promises a row keeps or breaks by itself, whatever happened around it.
pub fn of_row(row: &Record, rules: &Rules, mut breaks: impl FnMut(Promise, bool)) {
    let over = row.state.is_terminal();
    let on_timer = row.check_at.is_some() && row.due.is_some();
    // A runner is nobody's submission: no executor reads of it.
    let for_feed = over && row.runner.is_none();
    let soon = row.updated_at.plus(rules.timers.stop_every);
    let stop_is_late = !over && row.stop_requested.is_some() && row.check_at.is_some_and(|check_at| check_at > soon);
    breaks(
        Promise::Timer,
        row.is_settled() == on_timer
            || for_feed != row.feed.is_some()
            || over != row.changed_at.is_some()
            || stop_is_late,
    );

    // An answer that hands out what is taken may have to be repeated.
    let is_needed = matches!(row.state, State::Queued | State::Launching) || row.taken().is_some();
    breaks(Promise::Request, if over { row.request.is_some() } else { is_needed && row.request.is_none() });

    let is_success = row.state == State::Succeeded;
    breaks(Promise::ExitCode, if over { is_success != (row.exit_code == Some(0)) } else { false });
}

/// Reports which promises a write keeps or breaks.
pub fn of_write(before: &Record, after: &Record, mut breaks: impl FnMut(Promise, bool)) {
    let follows = before.state == after.state || before.state.successors().contains(&after.state);
    let end = |record: &Record| (record.state, record.exit_code, record.feed.clone(), record.changed_at);
    breaks(Promise::Final, before.state.is_terminal() && end(before) != end(after));
    breaks(Promise::Successors, !follows || after.rev != before.rev + 1);
    breaks(Promise::StopIsFinal, before.stop_requested.is_some() && claims(before, after));
    let is_changed = before.taken() != after.taken() && (after.attempt == before.attempt || after.taken().is_some());
    let is_take = before.state == State::Queued && before.taken().is_none() && before.stop_requested.is_none();
    breaks(Promise::TakenOnce, is_changed && !is_take);
}

/// Whether a write claims a RunTask call.
fn claims(before: &Record, after: &Record) -> bool {
    after.last_call_at.is_some() && after.last_call_at != before.last_call_at
}

/// The name of the property that a submission can come to this end, if it is one.
pub const fn end_is_reached(state: State) -> Option<&'static str> {
    match state {
        State::Queued | State::Launching | State::Launched | State::Running => None,
        State::Succeeded => Some("one succeeds"),
        State::Failed => Some("one fails"),
        State::Rejected => Some("one is rejected"),
        State::Expired => Some("one expires"),
        State::Cancelled => Some("one is cancelled"),
        State::Lost => Some("one is lost"),
    }
}

pub(crate) fn properties() -> Vec<Property<Scenario>> {
    macro_rules! never_broken {
        ($($promise:ident),*) => {
            vec![$(Property::always(Promise::$promise.name(), |_, world: &World| {
                world.broken != Some(Promise::$promise)
            })),*]
        };
    }
    let mut properties = never_broken![
        OneTask,
        NeverAgain,
        Recorded,
        Final,
        Successors,
        ExitCode,
        NeverStarted,
        StopIsFinal,
        EndIsHeard,
        NothingLeft,
        Timer,
        Request,
        OnlyStops,
        NotifiedTheEnd,
        NotifiedOnce,
        TakenOnce
    ];
    properties.push(Property::always(SETTLED, |scenario: &Scenario, world: &World| {
        !world.is_quiet(scenario) || world.is_settled()
    }));
    properties.push(Property::always(NOTIFIED, |scenario: &Scenario, world: &World| {
        !world.is_quiet(scenario) || world.all_are_notified(scenario)
    }));
    macro_rules! ends {
        ($($state:ident),*) => {
            [$(end_is_reached(State::$state).map(|name| {
                Property::sometimes(name, |_, world: &World| world.has_one(State::$state))
            })),*]
        };
    }
    properties.extend(ends![Succeeded, Failed, Rejected, Expired, Cancelled, Lost].into_iter().flatten());
    properties
}
