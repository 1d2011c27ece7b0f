//! Seeded bugs of the world of pools.

/// A bug in the code around pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolBug {
    /// The claiming write is made without its condition on `rev`.
    UnconditionalClaim,
    /// Any process of a runner gets its commands, whatever its incarnation.
    IncarnationIgnored,
    /// A claimed submission whose runner ended is queued again.
    ClaimedRequeued,
    /// An event of a runner is applied to the submission that its row names, although another runner has claimed it.
    EventToOtherRunner,
    /// The runner's row names the submission only after the claim.
    ServesAfterClaim,
    /// The runner's row drops a submission that no runner has claimed yet.
    ServesCleared,
    /// The exit code of the runner's container counts as the command's.
    ContainerExitCode,
    /// A task is stopped without closing its runner first.
    StopWithoutClosing,
    /// PollStep is handed out to a runner that is stopping.
    CommandWhileStopping,
}

impl PoolBug {
    /// All bugs.
    pub const ALL: [Self; 9] = [
        Self::UnconditionalClaim,
        Self::IncarnationIgnored,
        Self::ClaimedRequeued,
        Self::EventToOtherRunner,
        Self::ServesAfterClaim,
        Self::ServesCleared,
        Self::ContainerExitCode,
        Self::StopWithoutClosing,
        Self::CommandWhileStopping,
    ];
}
