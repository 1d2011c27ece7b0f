//! The guarantees about pools.

/// A guarantee about pools. The step that breaks it records that in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolPromise {
    /// The command of an attempt starts at most once, and never while the command of another attempt runs.
    OneStart,
    /// A submission that no runner has claimed does not fail.
    UnclaimedNotFailed,
    /// A stop affects no other command.
    StopAffectsOnlyTarget,
    /// A terminal state and its exit code never change.
    Final,
    /// The exit code is the one that the command returned.
    ExitCode,
    /// A submission does not end while its command runs.
    EndsAfterCommand,
    /// A claimed command starts, unless its runner failed.
    Started,
    /// A runner that is stopping gets no command.
    NoCommandWhileStopping,
    /// The request is kept until the terminal state, and no longer.
    Request,
    /// Every submission that a runner could claim has ended once no step is left.
    Settled,
}

impl PoolPromise {
    /// All guarantees.
    pub const ALL: [Self; 10] = [
        Self::OneStart,
        Self::UnclaimedNotFailed,
        Self::StopAffectsOnlyTarget,
        Self::Final,
        Self::ExitCode,
        Self::EndsAfterCommand,
        Self::Started,
        Self::NoCommandWhileStopping,
        Self::Request,
        Self::Settled,
    ];

    /// Returns the name of its property.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneStart => "a command starts once per attempt",
            Self::UnclaimedNotFailed => "an unclaimed submission does not fail",
            Self::StopAffectsOnlyTarget => "a stop affects no other command",
            Self::Final => "a terminal state is final",
            Self::ExitCode => "the exit code is the command's",
            Self::EndsAfterCommand => "no submission ends while its command runs",
            Self::Started => "a claimed command starts",
            Self::NoCommandWhileStopping => "a stopping runner gets no command",
            Self::Request => "the request is kept as long as it is needed",
            Self::Settled => "every submission ends",
        }
    }
}
