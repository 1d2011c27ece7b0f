//! The real decisions keep every promise in every state that the model can reach.

mod checker;

use std::collections::BTreeSet;

use ecs_bridge_core::State;
use ecs_bridge_model::{Scenario, Step, World, end_is_reached};
use stateright::{Checker, HasDiscoveries, Model, Path};

fn holds(what: &str, scenario: Scenario) {
    let (submissions, faults) = (scenario.submissions, scenario.faults);
    checker::holds(&format!("{what}: {submissions} submission(s), {faults} fault(s)"), scenario, story);
}

/// The path to a broken promise.
fn story(path: Path<World, Step>) -> String {
    let mut story = String::new();
    for (world, step) in path.into_vec() {
        let lanes: Vec<_> = world.lanes.iter().map(ToString::to_string).collect();
        story += &format!("tick {:2}: {} => {step:?}\n", world.now, lanes.join(" | "));
    }
    story
}

fn unstopped(scenario: Scenario) -> Scenario {
    Scenario { stops: false, ..scenario }
}

#[test]
fn every_end_is_reached() {
    let ends: BTreeSet<_> = State::ALL.into_iter().filter_map(end_is_reached).collect();
    let scenario = Scenario::new(1, 2).with_deadline(2);
    let checker = scenario.checker().finish_when(HasDiscoveries::AllOf(ends.clone())).threads(2).spawn_bfs().join();
    let reached: BTreeSet<_> = checker.discoveries().into_keys().collect();
    assert_eq!(reached, ends);
}

#[test]
fn small_one_submission_that_may_be_stopped() {
    holds("default policy, stops", Scenario::new(1, 1));
}

#[test]
fn small_one_submission_with_a_launch_deadline() {
    holds("launch_deadline, stops", Scenario::new(1, 1).with_deadline(2));
}

#[test]
fn one_submission_with_timeouts() {
    holds("timeouts, stops", Scenario::new(1, 1).with_timeouts());
}

#[test]
fn small_one_submission_whose_containers_may_be_restarted() {
    holds("task_stopped, stops", Scenario::new(1, 1).with_restarts());
}

#[test]
fn small_one_submission_that_is_relaunched_after_spot_interruptions() {
    holds("relaunch_on", unstopped(Scenario::new(1, 0).on_spot()));
}

#[test]
fn small_one_submission_on_a_host_that_may_be_wrong_about_its_end() {
    holds("relaunch_on, EC2", unstopped(Scenario::new(1, 0).on_spot().on_ec2()));
}

#[test]
fn small_one_submission_with_oddities() {
    holds("oddities, stops", Scenario::new(1, 0).with_oddities());
    holds("oddities, fallback", unstopped(Scenario::new(1, 0).with_oddities().with_a_fallback()));
}

#[test]
fn small_one_submission_with_oddities_on_a_host_that_may_be_wrong_about_its_end() {
    holds("oddities, relaunch_on, EC2", unstopped(Scenario::new(1, 0).on_spot().on_ec2().with_oddities()));
}

#[test]
#[ignore = "minutes"]
fn one_submission_with_oddities_and_a_fault() {
    holds("oddities, fallback", unstopped(Scenario::new(1, 1).with_oddities().with_a_fallback()));
}

#[test]
#[ignore = "minutes"]
fn one_submission_with_oddities_on_a_host_that_may_be_wrong_about_its_end_and_a_fault() {
    holds("oddities, relaunch_on, EC2", unstopped(Scenario::new(1, 1).on_spot().on_ec2().with_oddities()));
}

#[test]
fn small_one_submission_with_a_fallback() {
    holds("fallback", unstopped(Scenario::new(1, 1).with_a_fallback()));
}

#[test]
fn small_one_submission_with_a_fallback_whose_refusals_may_launch() {
    holds("fallback, launched failures", unstopped(Scenario::new(1, 1).with_a_fallback().with_launched_failures()));
}

#[test]
fn small_one_submission_with_notifications() {
    holds("notify", unstopped(Scenario::new(1, 1).with_a_listener()));
}

#[test]
fn one_submission_and_an_outage_of_ecs_that_does_not_end() {
    holds("outage, stops", Scenario::new(1, 0).with_outage());
}

#[test]
fn two_submissions_that_may_be_stopped() {
    holds("default policy, stops", Scenario::new(2, 0));
}

// By hand: `make model`.

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_and_an_outage_of_ecs_that_does_not_end() {
    holds("outage, stops", Scenario::new(1, 1).with_outage());
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_a_fallback() {
    holds("fallback, stops", Scenario::new(1, 1).with_a_fallback());
    holds("fallback", unstopped(Scenario::new(1, 2).with_a_fallback()));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_a_fallback_whose_refusals_may_launch() {
    holds("fallback, launched failures, stops", Scenario::new(1, 1).with_a_fallback().with_launched_failures());
    holds("fallback, launched failures", unstopped(Scenario::new(1, 2).with_a_fallback().with_launched_failures()));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_notifications() {
    holds("notify, stops", Scenario::new(1, 1).with_a_listener());
    holds("notify", unstopped(Scenario::new(1, 2).with_a_listener()));
}

#[test]
#[ignore = "minutes"]
fn at_length_two_submissions_with_a_fault() {
    holds("default policy", unstopped(Scenario::new(2, 1)));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_two_faults() {
    holds("default policy", unstopped(Scenario::new(1, 2)));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_that_may_be_stopped() {
    holds("default policy, stops", Scenario::new(1, 2));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_three_faults() {
    holds("default policy", unstopped(Scenario::new(1, 3)));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_a_launch_deadline() {
    holds("launch_deadline, stops", Scenario::new(1, 2).with_deadline(2));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_timeouts() {
    holds("timeouts, stops", Scenario::new(1, 2).with_timeouts());
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_whose_containers_may_be_restarted() {
    holds("task_stopped, stops", Scenario::new(1, 2).with_restarts());
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_that_is_relaunched_after_spot_interruptions() {
    holds("relaunch_on", unstopped(Scenario::new(1, 1).on_spot()));
}
