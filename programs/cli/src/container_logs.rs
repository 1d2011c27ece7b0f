//! The output of a submission's container: files of a local stack, or CloudWatch Logs.
//!
//! Without the feature `account`, only local stacks are read.

#[cfg(feature = "account")]
mod cloudwatch;
mod file;
mod line;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "account")]
use crate::account::Account;
use crate::client::connection::Client;
use crate::record::{Record, millis, task_id, text};
#[cfg(feature = "account")]
use cloudwatch::Stream;
use file::tail;
pub use line::{Line, OutputError};

/// The location of a container's output.
pub enum Source {
    /// A file, read up to this byte.
    File(PathBuf, u64),
    /// A stream of CloudWatch Logs.
    #[cfg(feature = "account")]
    Stream(Stream),
}

/// Returns the last lines of a submission's container, or none if they cannot be read within a few seconds.
pub async fn last_lines(client: &Client, record: &Record, max_lines: usize) -> Vec<String> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    if !record.contains_key("task_arn") {
        return Vec::new();
    }
    let read = async { Source::of(client, record).await?.read(record, max_lines).await };
    let lines = tokio::time::timeout(TIMEOUT, read).await;
    lines.into_iter().flatten().flatten().map(|line| line.message).collect()
}

impl Source {
    /// Finds the output of the container of a submission.
    ///
    /// # Errors
    /// If it is not kept, or cannot be found.
    pub async fn of(client: &Client, record: &Record) -> Result<Self, OutputError> {
        if let Some(local) = &client.local
            && !has_cloudwatch_logs(client)
        {
            let folder = local.log_dir.as_ref().ok_or(OutputError::NotKept)?;
            let name = format!("{}-{}.log", task_id(record), text(record, "container_name"));
            return Ok(Self::File(folder.join(name), 0));
        }
        #[cfg(feature = "account")]
        return Ok(Self::Stream(Stream::find(client, record).await?));
        #[cfg(not(feature = "account"))]
        Err(OutputError::NoAccount)
    }

    /// Returns the time for which more lines may arrive after the submission has ended.
    pub const fn delay(&self) -> Duration {
        match self {
            Self::File(..) => Duration::from_millis(500),
            #[cfg(feature = "account")]
            Self::Stream(_) => Stream::DELAY,
        }
    }

    /// Reads the last `max_lines` lines at first, and new lines in later calls. In the container of a runner, reads only
    /// the lines that were written while the submission ran.
    ///
    /// # Errors
    /// If the file or the stream cannot be read.
    #[cfg_attr(not(feature = "account"), allow(unused_variables, reason = "the lines of files have no times"))]
    pub async fn read(&mut self, record: &Record, max_lines: usize) -> Result<Vec<Line>, OutputError> {
        match self {
            Self::File(path, position) => {
                tail(path, position, max_lines).map_err(|source| OutputError::File(path.clone(), source))
            }
            #[cfg(feature = "account")]
            Self::Stream(stream) => stream.read(span(record), max_lines).await,
        }
    }
}

/// Returns `true` if the local stack is used with an emulator of CloudWatch Logs.
#[cfg(feature = "account")]
fn has_cloudwatch_logs(client: &Client) -> bool {
    Account::of(client).has("CLOUDWATCH_LOGS")
}

/// Returns `false`, because this build does not call CloudWatch Logs.
#[cfg(not(feature = "account"))]
fn has_cloudwatch_logs(_: &Client) -> bool {
    false
}

/// Returns the start and the end of the command, in the container of a runner.
fn span(record: &Record) -> (Option<i64>, Option<i64>) {
    if !record.contains_key("runner_id") {
        return (None, None);
    }
    // The clocks of container and bridge differ slightly.
    let end = millis(record, "container_exited_at").or_else(|| millis(record, "stopped_at"));
    (millis(record, "started_at").map(|at| at - 1_000), end.map(|at| at + 2_000))
}
