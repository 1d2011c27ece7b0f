//! The real sizing of pools keeps its promises in every state that the model can reach, and each seeded bug breaks the one
//! that it should.

mod checker;

use checker::{breaks, steps};
use ecs_bridge_model::{PoolSizing, SizingBug, SizingPromise};

fn holds(what: &str, sizing: PoolSizing) {
    checker::holds(&format!("sizing, {what}: {} fault(s)", sizing.faults), sizing, steps);
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
        breaks(&bug, PoolSizing { bug: Some(bug), ..sizing }, promise.name());
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
