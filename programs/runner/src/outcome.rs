//! The outcome of a runner, and its exit code.

use crate::api::PollError;

/// The outcome of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The runner API closed it, or it was stopped.
    Closed,
    /// It has no credentials.
    NoCredentials,
    /// The runner API or Lambda rejects it.
    Rejected,
    /// Another process runs as this runner.
    OtherIncarnation,
    /// There was no response for an hour, or none before it was stopped.
    Unreachable,
}

impl Outcome {
    /// Returns the outcome of a runner whose calls all fail with this error.
    pub const fn of(error: &PollError) -> Self {
        match error {
            PollError::RunnerRejected(_) | PollError::CallRejected { .. } | PollError::ClockSkew(_) => Self::Rejected,
            PollError::OtherIncarnation(_) => Self::OtherIncarnation,
            PollError::Credentials(_) => Self::NoCredentials,
            PollError::Unavailable(_) => Self::Unreachable,
        }
    }

    /// Returns the exit code of the program.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::NoCredentials => 201,
            Self::Rejected => 202,
            Self::OtherIncarnation => 203,
            Self::Unreachable => 204,
        }
    }
}
