//! The real decisions keep every guarantee in every state that the model can reach.

mod checker;

use std::collections::BTreeSet;

use ecs_bridge_core::State;
use ecs_bridge_model::{Scenario, Step, World, terminal_state_is_reached};
use stateright::{Checker, HasDiscoveries, Model, Path};

fn holds(name: &str, scenario: Scenario) {
    let (submissions, faults) = (scenario.submissions, scenario.faults);
    checker::holds(&format!("{name}: {submissions} submission(s), {faults} fault(s)"), scenario, path_text);
}

/// Returns the states and steps that break a guarantee, one per line.
fn path_text(path: Path<World, Step>) -> String {
    let mut text = String::new();
    for (world, step) in path.into_vec() {
        let submissions: Vec<_> = world.submissions.iter().map(ToString::to_string).collect();
        text += &format!("tick {:2}: {} => {step:?}\n", world.now, submissions.join(" | "));
    }
    text
}

fn unstopped(scenario: Scenario) -> Scenario {
    Scenario { stops: false, ..scenario }
}

#[test]
fn every_terminal_state_is_reached() {
    let ends: BTreeSet<_> = State::ALL.into_iter().filter_map(terminal_state_is_reached).collect();
    let scenario = Scenario::new(1, 2).with_deadline(2);
    let checker = scenario.checker().finish_when(HasDiscoveries::AllOf(ends.clone())).threads(2).spawn_bfs().join();
    let reached: BTreeSet<_> = checker.discoveries().into_keys().collect();
    assert_eq!(reached, ends);
}

#[test]
fn small_one_submission_with_stops() {
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
fn small_one_submission_with_container_restarts() {
    holds("task_stopped, stops", Scenario::new(1, 1).with_restarts());
}

#[test]
fn small_one_submission_relaunched_on_spot() {
    holds("relaunch_on", unstopped(Scenario::new(1, 0).on_spot()));
}

#[test]
fn small_one_submission_with_wrong_stop_reports() {
    holds("relaunch_on, EC2", unstopped(Scenario::new(1, 0).on_spot().on_ec2()));
}

#[test]
fn small_one_submission_with_rare_reports() {
    holds("rare reports, stops", Scenario::new(1, 0).with_rare_reports());
    holds("rare reports, fallback", unstopped(Scenario::new(1, 0).with_rare_reports().with_fallback()));
}

#[test]
fn small_one_submission_with_rare_and_wrong_reports() {
    holds("rare reports, relaunch_on, EC2", unstopped(Scenario::new(1, 0).on_spot().on_ec2().with_rare_reports()));
}

#[test]
#[ignore = "minutes"]
fn one_submission_with_rare_reports_and_a_fault() {
    holds("rare reports, fallback", unstopped(Scenario::new(1, 1).with_rare_reports().with_fallback()));
}

#[test]
#[ignore = "minutes"]
fn one_submission_with_rare_and_wrong_reports_and_a_fault() {
    holds("rare reports, relaunch_on, EC2", unstopped(Scenario::new(1, 1).on_spot().on_ec2().with_rare_reports()));
}

#[test]
fn small_one_submission_with_a_fallback() {
    holds("fallback", unstopped(Scenario::new(1, 1).with_fallback()));
}

#[test]
fn small_one_submission_with_a_fallback_and_launched_failures() {
    holds("fallback, launched failures", unstopped(Scenario::new(1, 1).with_fallback().with_launched_failures()));
}

#[test]
fn small_one_submission_with_notifications() {
    holds("notify", unstopped(Scenario::new(1, 1).with_notifications()));
}

#[test]
fn one_submission_with_permanent_outage() {
    holds("outage, stops", Scenario::new(1, 0).with_outage());
}

#[test]
fn two_submissions_with_stops() {
    holds("default policy, stops", Scenario::new(2, 0));
}

// By hand: `make model`.

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_permanent_outage() {
    holds("outage, stops", Scenario::new(1, 1).with_outage());
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_a_fallback() {
    holds("fallback, stops", Scenario::new(1, 1).with_fallback());
    holds("fallback", unstopped(Scenario::new(1, 2).with_fallback()));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_a_fallback_and_launched_failures() {
    holds("fallback, launched failures, stops", Scenario::new(1, 1).with_fallback().with_launched_failures());
    holds("fallback, launched failures", unstopped(Scenario::new(1, 2).with_fallback().with_launched_failures()));
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_with_notifications() {
    holds("notify, stops", Scenario::new(1, 1).with_notifications());
    holds("notify", unstopped(Scenario::new(1, 2).with_notifications()));
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
fn at_length_one_submission_with_stops() {
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
fn at_length_one_submission_with_container_restarts() {
    holds("task_stopped, stops", Scenario::new(1, 2).with_restarts());
}

#[test]
#[ignore = "minutes"]
fn at_length_one_submission_relaunched_on_spot() {
    holds("relaunch_on", unstopped(Scenario::new(1, 1).on_spot()));
}
