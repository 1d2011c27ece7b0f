//! The real sizing of pools keeps its promises in every state that the model can reach, and each seeded bug breaks the one
//! that it should.

use std::{collections::BTreeSet, time::Instant};

use ecs_bridge_model::{PoolSizing, SizingBug, SizingPromise, SizingStep, SizingWorld};
use stateright::{Checker, HasDiscoveries, Model, Path};

/// Visits every state, and prints how many there are.
fn holds(what: &str, sizing: PoolSizing) {
    let begun = Instant::now();
    let checker = sizing.checker().threads(2).spawn_bfs().join();
    println!(
        "sizing, {what}: {} fault(s): {} states, {} steps, {} deep, in {:.0?}",
        sizing.faults,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    for promise in SizingPromise::ALL {
        let broken = checker.discovery(promise.name()).map(story);
        assert_eq!(broken, None, "{what}: broken: {}", promise.name());
    }
}

/// The path to a broken promise.
fn story(path: Path<SizingWorld, SizingStep>) -> String {
    path.into_actions().iter().map(|step| format!("{step:?}\n")).collect()
}

#[test]
fn small_one_runner_at_a_time() {
    holds("one runner", PoolSizing::new(0));
    holds("one submission", PoolSizing { submissions: 1, ..PoolSizing::new(1) });
}

#[test]
fn small_profile_that_changes() {
    holds("a change, one idle", PoolSizing { submissions: 1, min_idle: 1, changes: true, ..PoolSizing::new(0) });
}

#[test]
fn small_pool_that_is_paused() {
    holds("a pause", PoolSizing { submissions: 1, pauses: true, ..PoolSizing::new(0) });
}

/// Where a bug shows, and what it breaks.
fn consequence(bug: SizingBug) -> (PoolSizing, SizingPromise) {
    let one = PoolSizing { submissions: 1, ..PoolSizing::new(0) };
    let changing = PoolSizing { changes: true, ..one };
    match bug {
        SizingBug::KeyNotKept => (changing, SizingPromise::Served),
        SizingBug::KeyForgotten => (PoolSizing { pauses: true, ..changing }, SizingPromise::Served),
        SizingBug::BatchNotWritten | SizingBug::ClaimedUnconditionally => (one, SizingPromise::NotAboveMax),
        SizingBug::NoRoomMade => (PoolSizing { min_idle: 1, ..changing }, SizingPromise::Served),
        SizingBug::BatchForgottenEarly => (PoolSizing::new(0), SizingPromise::NotAboveMax),
        SizingBug::PauseIgnored => (PoolSizing { pauses: true, ..one }, SizingPromise::Paused),
    }
}

#[test]
fn each_seeded_bug_is_found() {
    for bug in SizingBug::ALL {
        let (sizing, promise) = consequence(bug);
        let broken = HasDiscoveries::AnyOf(BTreeSet::from([promise.name()]));
        let checker =
            PoolSizing { bug: Some(bug), ..sizing }.checker().finish_when(broken).threads(2).spawn_bfs().join();
        let Some(path) = checker.discovery(promise.name()) else {
            panic!("{bug:?} does not break: {}; states: {}", promise.name(), checker.unique_state_count())
        };
        let (states, steps) = (checker.unique_state_count(), path.into_actions());
        println!("{bug:?}: \"{}\" is broken in {} steps; found after {states} states", promise.name(), steps.len());
    }
}

#[test]
#[ignore = "minutes"]
fn two_runners_and_a_fault() {
    holds("two runners", PoolSizing { max: 2, ..PoolSizing::new(1) });
}

#[test]
#[ignore = "minutes"]
fn profile_that_changes_and_a_fault() {
    holds("a change, one idle", PoolSizing { min_idle: 1, changes: true, ..PoolSizing::new(1) });
}

#[test]
#[ignore = "minutes"]
fn containers_with_two_commands_and_two_faults() {
    holds("two commands", PoolSizing { commands: 2, ..PoolSizing::new(2) });
}
