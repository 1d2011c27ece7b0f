//! Seeded bugs of the world of pool sizing.

/// A bug in the code that sizes pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizingBug {
    /// A submission is accepted although the pool's row lacks the specification of its runners.
    KeyNotRegistered,
    /// A pool key is removed although submissions wait under it.
    UsedKeyRemoved,
    /// The IDs of runners are not written before the runners are created.
    BatchNotWritten,
    /// A round writes the pool's row without its condition on `rev`.
    UnconditionalClaim,
    /// Idle runners of another version of the profile keep their places.
    OldVersionKeepsPlaces,
    /// The IDs of runners are removed as soon as the runners have polled, although the index may not show them yet.
    BatchRemovedEarly,
    /// A paused pool launches runners.
    PauseIgnored,
}

impl SizingBug {
    /// All bugs.
    pub const ALL: [Self; 7] = [
        Self::KeyNotRegistered,
        Self::UsedKeyRemoved,
        Self::BatchNotWritten,
        Self::UnconditionalClaim,
        Self::OldVersionKeepsPlaces,
        Self::BatchRemovedEarly,
        Self::PauseIgnored,
    ];
}
