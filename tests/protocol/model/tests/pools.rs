//! The real decisions about pools keep every promise in every state that the model can reach, and each seeded bug breaks
//! the one that it should.

mod checker;

use checker::{breaks, steps};
use ecs_bridge_model::{PoolBug, PoolPromise, Pools};

fn holds(what: &str, pools: Pools) {
    let Pools { submissions, runners, faults, .. } = pools;
    let what = format!("pool, {what}: {submissions} submission(s), {runners} runner(s), {faults} fault(s)");
    checker::holds(&what, pools, steps);
}

#[test]
fn small_two_submissions_and_two_runners() {
    holds("one command each", Pools::new(0));
}

#[test]
fn small_one_submission_two_runners_and_a_fault() {
    holds("one command each", Pools { submissions: 1, ..Pools::new(1) });
}

#[test]
fn small_one_runner_with_two_commands_that_may_be_stopped() {
    holds("two commands, stops", Pools { runners: 1, commands: 2, stops: true, ..Pools::new(0) });
}

#[test]
fn small_a_deadline() {
    holds("deadline, late runners", Pools { submissions: 1, runners: 1, deadline: Some(2), ..Pools::new(0) });
}

#[test]
fn small_spot_with_and_without_another_attempt() {
    let spot = Pools { submissions: 1, runners: 1, spot: true, ..Pools::new(0) };
    holds("spot", spot);
    holds("spot, relaunch_on", Pools { relaunch: true, ..spot });
}

/// Where a bug shows, and what it breaks.
fn consequence(bug: PoolBug) -> (Pools, PoolPromise) {
    let one = Pools { submissions: 1, ..Pools::new(1) };
    let alone = Pools { runners: 1, ..one };
    match bug {
        PoolBug::TakenUnconditionally => (Pools { faults: 0, ..one }, PoolPromise::OneStart),
        PoolBug::IncarnationIgnored => (alone, PoolPromise::OneStart),
        PoolBug::TakenQueuedAgain => (one, PoolPromise::OneStart),
        PoolBug::EventToAnother => (one, PoolPromise::NotBeforeItsCommand),
        PoolBug::ServesAfterTake => (alone, PoolPromise::Settled),
        PoolBug::ServesForgotten => (Pools { runners: 1, ..Pools::new(1) }, PoolPromise::Started),
        PoolBug::ContainersCode => (alone, PoolPromise::ExitCode),
        PoolBug::StopWithoutClosing => {
            (Pools { runners: 1, commands: 2, stops: true, ..Pools::new(0) }, PoolPromise::StopHitsItsOwn)
        }
        PoolBug::WorkWhileStopping => (Pools { spot: true, faults: 0, ..alone }, PoolPromise::NotWhileStopping),
    }
}

#[test]
fn each_seeded_bug_is_found() {
    for bug in PoolBug::ALL {
        let (pools, promise) = consequence(bug);
        breaks(&bug, Pools { bug: Some(bug), ..pools }, promise.name());
    }
}

#[test]
#[ignore = "minutes"]
fn two_submissions_two_runners_and_a_fault() {
    holds("one command each", Pools::new(1));
}

#[test]
#[ignore = "minutes"]
fn two_runners_on_spot() {
    let spot = Pools { submissions: 1, spot: true, ..Pools::new(0) };
    holds("spot", spot);
    holds("spot, relaunch_on", Pools { relaunch: true, ..spot });
}

#[test]
#[ignore = "minutes"]
fn two_runners_that_start_late_before_and_after_a_deadline() {
    holds("deadline, late runners", Pools { deadline: Some(2), ..Pools::new(0) });
}

#[test]
#[ignore = "minutes"]
fn one_submission_one_runner_and_two_faults() {
    holds("one command each", Pools { submissions: 1, runners: 1, ..Pools::new(2) });
}

#[test]
#[ignore = "minutes"]
fn one_runner_with_two_commands_stops_and_a_fault() {
    holds("two commands, stops", Pools { runners: 1, commands: 2, stops: true, ..Pools::new(1) });
}
