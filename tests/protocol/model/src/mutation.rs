//! Seeded bugs of the world of submissions. They show that the model finds each of them.

use ecs_bridge_core::{Record, State};

/// A bug in the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// RunTask is called before its submission is recorded.
    RunTaskBeforeRecord,
    /// Records are written without the condition on `rev`.
    NoVersionCheck,
    /// An unanswered RunTask is repeated under a new client token.
    NewToken,
    /// A refused repeat counts as proof that nothing was launched.
    RefusedRepeatIsProof,
    /// A launch deadline ends an unanswered launch as `expired`.
    UnansweredExpires,
    /// A new attempt keeps the version of the previous task.
    VersionNotReset,
    /// A stop of an unknown ID leaves no record.
    StopOfUnknownIgnored,
    /// An event can change a terminal record.
    TerminalStateChanges,
    /// A container that stopped without an exit code counts as one that exited with 0.
    AbsentExitCodeIsZero,
    /// RunTask is sent although its claim is too old.
    SentLate,
    /// An unanswered RunTask is repeated for longer than ECS keeps its token.
    RepeatedForTooLong,
    /// A task that failed to start is launched again without evidence that its container never ran.
    RelaunchWithoutEvidence,
    /// A launched task is never described, so a lost event is not detected.
    NeverDescribed,
    /// A live task of an ended submission is not stopped. A RunTask that is sent late launches such a task.
    OrphanTaskKept,
    /// An unanswered RunTask is repeated despite a stop.
    StopIgnoredByRepeat,
    /// A failed ListTasks or DescribeTasks is ignored.
    FailedLookupIgnored,
    /// A fallback follows a call that was not answered.
    FallbackAfterNoAnswer,
    /// The stop that an EC2 host reports is not confirmed with DescribeTasks before the next attempt.
    StopNotConfirmed,
    /// The claim to deliver the pending notifications removes them.
    NotificationsDroppedAtClaim,
    /// A notification without a response counts as delivered.
    UnansweredCountsAsDelivered,
    /// A notification is sent without a claim, so several processes find it due.
    NotifiedWithoutClaim,
}

impl Mutation {
    /// All bugs.
    pub const ALL: [Self; 21] = [
        Self::RunTaskBeforeRecord,
        Self::NoVersionCheck,
        Self::NewToken,
        Self::RefusedRepeatIsProof,
        Self::UnansweredExpires,
        Self::VersionNotReset,
        Self::StopOfUnknownIgnored,
        Self::TerminalStateChanges,
        Self::AbsentExitCodeIsZero,
        Self::SentLate,
        Self::RepeatedForTooLong,
        Self::RelaunchWithoutEvidence,
        Self::NeverDescribed,
        Self::OrphanTaskKept,
        Self::StopIgnoredByRepeat,
        Self::FailedLookupIgnored,
        Self::FallbackAfterNoAnswer,
        Self::StopNotConfirmed,
        Self::NotificationsDroppedAtClaim,
        Self::UnansweredCountsAsDelivered,
        Self::NotifiedWithoutClaim,
    ];
}

/// Returns the record in this state, even if the state is no successor of the current one.
pub(crate) fn in_state(record: &Record, state: State) -> Record {
    let mut row = serde_json::to_value(record).unwrap_or_default();
    if let Some(attributes) = row.as_object_mut() {
        attributes.insert("state".to_owned(), state.as_str().into());
    }
    // Every state is valid in a record.
    serde_json::from_value(row).unwrap_or_else(|_| unreachable!())
}
