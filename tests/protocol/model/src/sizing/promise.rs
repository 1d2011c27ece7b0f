//! The guarantees about the size of a pool.

/// A guarantee about the size of a pool. The step that breaks it records that in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SizingPromise {
    /// There are never more runners than the maximum of the pool.
    NotAboveMax,
    /// No submission waits once no step is left.
    Served,
    /// Once no step is left, no more runners are idle than the pool keeps.
    IdleLimit,
    /// A paused pool creates no runner.
    Paused,
}

impl SizingPromise {
    /// All guarantees.
    pub const ALL: [Self; 4] = [Self::NotAboveMax, Self::Served, Self::IdleLimit, Self::Paused];

    /// Returns the name of its property.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAboveMax => "a pool has no more runners than its maximum",
            Self::Served => "no submission waits at the end",
            Self::IdleLimit => "no more runners are idle at the end than the pool keeps",
            Self::Paused => "a paused pool creates no runner",
        }
    }
}
