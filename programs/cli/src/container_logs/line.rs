//! A line of output, and the errors of reading it.

use std::path::PathBuf;

use thiserror::Error;

/// The cause of missing output.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The local stack keeps no output.
    #[error("this local stack keeps no output: start it again with `ecs-bridge local --log-dir DIR`")]
    NotKept,
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// This build reads only local stacks.
    #[cfg(not(feature = "account"))]
    #[error(
        "cannot read CloudWatch Logs: this program was built without the feature `account`; build it with `make programs`"
    )]
    NoAccount,
    /// ECS did not return the log configuration of the container.
    #[cfg(feature = "account")]
    #[error("cannot find the log stream of the container: {0}")]
    NoStream(String),
    /// The container uses another log driver.
    #[cfg(feature = "account")]
    #[error(
        "cannot read the log driver \"{1}\" of the container \"{0}\": it must be awslogs with awslogs-stream-prefix"
    )]
    LogDriver(String, String),
    /// CloudWatch Logs rejected the call.
    #[cfg(feature = "account")]
    #[error("cannot read {0}: {1}")]
    Rejected(String, String),
}

/// A line of output, and its time in epoch milliseconds, if it is known.
pub struct Line {
    /// The time.
    pub at: Option<i64>,
    /// The text.
    pub message: String,
}
