//! Each seeded bug breaks its guarantee.

mod checker;

use checker::breaks;
use ecs_bridge_model::{Mutation, NOTIFIED, Promise, SETTLED, Scenario};

/// Returns the scenario in which a bug has an effect, and the property that it breaks.
fn consequence(mutation: Mutation) -> (Scenario, &'static str) {
    let calm = Scenario { stops: false, ..Scenario::new(1, 1) };
    let rough = Scenario { faults: 2, ..calm.clone() };
    let (scenario, promise) = match mutation {
        Mutation::RunTaskBeforeRecord => (calm, Promise::Recorded),
        Mutation::NoVersionCheck => (calm, Promise::Final),
        Mutation::NewToken => (calm, Promise::OneTask),
        Mutation::RefusedRepeatIsProof => (rough, Promise::NeverStarted),
        Mutation::UnansweredExpires => (calm.with_deadline(1), Promise::NeverStarted),
        Mutation::VersionNotReset => (calm, Promise::ExitIsRecorded),
        Mutation::StopOfUnknownIgnored => (Scenario::new(1, 0), Promise::StopIsFinal),
        Mutation::TerminalStateChanges => (calm, Promise::Final),
        Mutation::AbsentExitCodeIsZero => (calm, Promise::ExitCode),
        Mutation::SentLate => (rough, Promise::OneTask),
        Mutation::RepeatedForTooLong => (rough, Promise::OneTask),
        Mutation::RelaunchWithoutEvidence => (calm, Promise::NoSecondStart),
        Mutation::NeverDescribed => return (calm, SETTLED),
        Mutation::OrphanTaskKept => (calm.with_deadline(1), Promise::NoOrphanTask),
        Mutation::StopIgnoredByRepeat => (Scenario::new(1, 1), Promise::StopIsFinal),
        Mutation::FallbackAfterNoAnswer => (calm.with_fallback(), Promise::OneTask),
        Mutation::StopNotConfirmed => (calm.on_spot().on_ec2(), Promise::NoSecondStart),
        Mutation::NotificationsDroppedAtClaim | Mutation::UnansweredCountsAsDelivered => {
            return (calm.with_notifications(), NOTIFIED);
        }
        Mutation::NotifiedWithoutClaim => (Scenario { faults: 0, ..calm }.with_notifications(), Promise::NotifiedOnce),
        Mutation::FailedLookupIgnored => return (Scenario::new(1, 0).with_outage(), SETTLED),
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
