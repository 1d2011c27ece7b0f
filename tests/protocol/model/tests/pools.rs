//! The real decisions about pools keep every guarantee in every state that the model can reach. Each seeded bug breaks its
//! guarantee.

mod checker;

use checker::{breaks, steps};
use ecs_bridge_model::{PoolBug, PoolPromise, Pools};

fn holds(world: &str, pools: Pools) {
    let Pools { submissions, runners, faults, .. } = pools;
    let world = format!("pool, {world}: {submissions} submission(s), {runners} runner(s), {faults} fault(s)");
    checker::holds(&world, pools, steps);
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
fn small_one_runner_with_two_commands_and_stops() {
    holds("two commands, stops", Pools { runners: 1, commands: 2, stops: true, ..Pools::new(0) });
}

#[test]
fn small_launch_deadline_with_late_runners() {
    holds("deadline, late runners", Pools { submissions: 1, runners: 1, deadline: Some(2), ..Pools::new(0) });
}

#[test]
fn small_spot_with_and_without_relaunch() {
    let spot = Pools { submissions: 1, runners: 1, spot: true, ..Pools::new(0) };
    holds("spot", spot);
    holds("spot, relaunch_on", Pools { relaunch: true, ..spot });
}

/// Returns the world in which a bug has an effect, and the guarantee that it breaks.
fn consequence(bug: PoolBug) -> (Pools, PoolPromise) {
    let one = Pools { submissions: 1, ..Pools::new(1) };
    let alone = Pools { runners: 1, ..one };
    match bug {
        PoolBug::UnconditionalClaim => (Pools { faults: 0, ..one }, PoolPromise::OneStart),
        PoolBug::IncarnationIgnored => (alone, PoolPromise::OneStart),
        PoolBug::ClaimedRequeued => (one, PoolPromise::OneStart),
        PoolBug::EventToOtherRunner => (one, PoolPromise::EndsAfterCommand),
        PoolBug::ServesAfterClaim => (alone, PoolPromise::Settled),
        PoolBug::ServesCleared => (Pools { runners: 1, ..Pools::new(1) }, PoolPromise::Started),
        PoolBug::ContainerExitCode => (alone, PoolPromise::ExitCode),
        PoolBug::StopWithoutClosing => {
            (Pools { runners: 1, commands: 2, stops: true, ..Pools::new(0) }, PoolPromise::StopAffectsOnlyTarget)
        }
        PoolBug::CommandWhileStopping => {
            (Pools { spot: true, faults: 0, ..alone }, PoolPromise::NoCommandWhileStopping)
        }
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
fn two_late_runners_with_launch_deadline() {
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
