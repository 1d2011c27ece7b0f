//! The real sizing of pools keeps every guarantee in every state that the model can reach. Each seeded bug breaks its
//! guarantee.

mod checker;

use checker::{breaks, steps};
use ecs_bridge_model::{PoolSizing, SizingBug, SizingPromise};

fn holds(world: &str, sizing: PoolSizing) {
    checker::holds(&format!("sizing, {world}: {} fault(s)", sizing.faults), sizing, steps);
}

#[test]
fn small_one_runner_at_a_time() {
    holds("one runner", PoolSizing::new(0));
    holds("one submission", PoolSizing { submissions: 1, ..PoolSizing::new(1) });
}

#[test]
fn small_changed_profile() {
    holds("a change, one idle", PoolSizing { submissions: 1, min_idle: 1, changes: true, ..PoolSizing::new(0) });
}

#[test]
fn small_paused_pool() {
    holds("a pause", PoolSizing { submissions: 1, pauses: true, ..PoolSizing::new(0) });
}

/// Returns the world in which a bug has an effect, and the guarantee that it breaks.
fn consequence(bug: SizingBug) -> (PoolSizing, SizingPromise) {
    let one = PoolSizing { submissions: 1, ..PoolSizing::new(0) };
    let changing = PoolSizing { changes: true, ..one };
    match bug {
        SizingBug::KeyNotRegistered => (changing, SizingPromise::Served),
        SizingBug::UsedKeyRemoved => (PoolSizing { pauses: true, ..changing }, SizingPromise::Served),
        SizingBug::BatchNotWritten | SizingBug::UnconditionalClaim => (one, SizingPromise::NotAboveMax),
        SizingBug::OldVersionKeepsPlaces => (PoolSizing { min_idle: 1, ..changing }, SizingPromise::Served),
        SizingBug::BatchRemovedEarly => (PoolSizing::new(0), SizingPromise::NotAboveMax),
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
fn changed_profile_and_a_fault() {
    holds("a change, one idle", PoolSizing { min_idle: 1, changes: true, ..PoolSizing::new(1) });
}

#[test]
#[ignore = "minutes"]
fn containers_with_two_commands_and_two_faults() {
    holds("two commands", PoolSizing { commands: 2, ..PoolSizing::new(2) });
}
