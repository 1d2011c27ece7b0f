//! Each bug, put in, breaks the promise that it should.

mod checker;

use checker::breaks;
use ecs_bridge_model::{Mutation, NOTIFIED, Promise, SETTLED, Scenario};

/// Where a bug shows, and what it breaks.
fn consequence(mutation: Mutation) -> (Scenario, &'static str) {
    let calm = Scenario { stops: false, ..Scenario::new(1, 1) };
    let rough = Scenario { faults: 2, ..calm.clone() };
    let (scenario, promise) = match mutation {
        Mutation::RunTaskBeforeRecord => (calm, Promise::Recorded),
        Mutation::NoVersionCheck => (calm, Promise::Final),
        Mutation::NewToken => (calm, Promise::OneTask),
        Mutation::RefusedRepeatIsProof => (rough, Promise::NeverStarted),
        Mutation::UnansweredExpires => (calm.with_deadline(1), Promise::NeverStarted),
        Mutation::VersionKept => (calm, Promise::EndIsHeard),
        Mutation::StopForgotten => (Scenario::new(1, 0), Promise::StopIsFinal),
        Mutation::EndChanges => (calm, Promise::Final),
        Mutation::AbsentIsZero => (calm, Promise::ExitCode),
        Mutation::SentLate => (rough, Promise::OneTask),
        Mutation::RepeatedForTooLong => (rough, Promise::OneTask),
        Mutation::NoEvidence => (calm, Promise::NeverAgain),
        Mutation::NobodyLooks => return (calm, SETTLED),
        Mutation::OrphanLeft => (calm.with_deadline(1), Promise::NothingLeft),
        Mutation::StopIgnoredByRepeat => (Scenario::new(1, 1), Promise::StopIsFinal),
        Mutation::FallbackAfterNoAnswer => (calm.with_a_fallback(), Promise::OneTask),
        Mutation::NotAskedAgain => (calm.on_spot().on_ec2(), Promise::NeverAgain),
        Mutation::ForgottenAtTheClaim | Mutation::UnansweredIsNotified => return (calm.with_a_listener(), NOTIFIED),
        Mutation::NotifiedWithoutAClaim => (Scenario { faults: 0, ..calm }.with_a_listener(), Promise::NotifiedOnce),
        Mutation::RefusedLookupForgotten => return (Scenario::new(1, 0).with_outage(), SETTLED),
    };
    (scenario, promise.name())
}

#[test]
fn each_seeded_bug_is_found() {
    for mutation in Mutation::ALL {
        let (scenario, promise) = consequence(mutation);
        breaks(&mutation, scenario.with(mutation), promise);
    }
}
