//! Runs the model checker stateright for the tests of all worlds.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{collections::BTreeSet, fmt::Debug, hash::Hash, time::Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// Visits every state of a world, prints the number of states, and fails with the steps that break a guarantee.
pub fn holds<M>(world: &str, model: M, story: fn(Path<M::State, M::Action>) -> String)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let begun = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!(
        "{world}: {} states, {} steps, {} deep, in {:.0?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    let promises = checker.model().properties().into_iter().filter(|it| it.expectation == Expectation::Always);
    for promise in promises {
        let broken = checker.discovery(promise.name).map(story);
        assert_eq!(broken, None, "{world}: broken: {}", promise.name);
    }
}

/// Visits a world with a seeded bug until this guarantee is broken, and fails if no state breaks it.
pub fn breaks<M>(bug: &dyn Debug, model: M, promise: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let broken = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
    let checker = model.checker().finish_when(broken).threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    let steps = checker.discovery(promise).map(|path| path.into_actions().len()).unwrap_or_default();
    assert!(steps > 0, "{bug:?} does not break: {promise}; states: {states}");
    println!("{bug:?}: \"{promise}\" is broken in {steps} steps; found after {states} states");
}

/// Returns the steps that break a guarantee, one per line.
pub fn steps<S, A: Debug>(path: Path<S, A>) -> String {
    path.into_actions().iter().map(|step| format!("{step:?}\n")).collect()
}
