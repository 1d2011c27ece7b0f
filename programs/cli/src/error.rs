//! The errors that several commands return.

use thiserror::Error;

use crate::client::error::ClientError;

/// The cause of a failed command.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The submission does not exist, or its record has expired.
    #[error("no such submission: \"{0}\"; `ecs-bridge ps --all` lists submissions")]
    NotFound(String),
    /// The id is invalid.
    #[error("invalid submission id: \"{0}\"; it must be 1 to 60 characters of A-Z, a-z, 0-9, _ and -")]
    InvalidId(String),
    /// Several ids begin with this prefix.
    #[error("\"{given}\" is ambiguous: it may be {}; pass more of the id", matches.join(", "))]
    Ambiguous {
        /// The prefix.
        given: String,
        /// Some of the ids.
        matches: Vec<String>,
    },
    /// The bridge failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
