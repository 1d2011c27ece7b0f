//! The properties that the model checks in each state.

use ecs_bridge_core::State;
use stateright::Property;

use super::state::World;
use crate::{promise::Promise, scenario::Scenario};

/// The name of the property that every submission ends.
pub const SETTLED: &str = "every submission ends";

/// The name of the property that every notification is delivered.
pub const NOTIFIED: &str = "every notification is delivered";

/// Returns the name of the property that a submission can reach this state, if the state is terminal.
pub const fn terminal_state_is_reached(state: State) -> Option<&'static str> {
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

/// Returns all properties.
pub(super) fn properties() -> Vec<Property<Scenario>> {
    macro_rules! never_broken {
        ($($promise:ident),*) => {
            vec![$(Property::always(Promise::$promise.name(), |_, world: &World| {
                world.broken != Some(Promise::$promise)
            })),*]
        };
    }
    let mut properties = never_broken![
        OneTask,
        NoSecondStart,
        Recorded,
        Final,
        Successors,
        ExitCode,
        NeverStarted,
        StopIsFinal,
        ExitIsRecorded,
        NoOrphanTask,
        Timer,
        Request,
        OnlyStops,
        NotifiedAfterEnd,
        NotifiedOnce,
        ClaimedOnce
    ];
    properties.push(Property::always(SETTLED, |scenario: &Scenario, world: &World| {
        !world.is_quiet(scenario) || world.is_settled()
    }));
    properties.push(Property::always(NOTIFIED, |scenario: &Scenario, world: &World| {
        !world.is_quiet(scenario) || world.all_are_notified(scenario)
    }));
    macro_rules! terminal_states {
        ($($state:ident),*) => {
            [$(terminal_state_is_reached(State::$state).map(|name| {
                Property::sometimes(name, |_, world: &World| world.has_submission_in(State::$state))
            })),*]
        };
    }
    properties.extend(terminal_states![Succeeded, Failed, Rejected, Expired, Cancelled, Lost].into_iter().flatten());
    properties
}
