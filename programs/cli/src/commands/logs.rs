//! `ecs-bridge logs`

use std::time::Duration;

use clap::Args;
use serde_json::json;
use thiserror::Error;

use crate::client::error::ClientError;
use crate::client::find::BridgeOptions;
use crate::container_logs::{Line, OutputError, Source};
use crate::error::CommandError;
use crate::ids;
use crate::output::{self, iso};
use crate::record::{is_terminal, text};

/// The interval at which new lines are read.
const INTERVAL: Duration = Duration::from_secs(2);
/// The limit of GetLogEvents on lines.
const MAX_LINES: u16 = 10_000;

/// Show the output of a submission's container
#[derive(Args)]
#[command(after_help = "\
The command reads CloudWatch Logs in one call if the container has the log driver awslogs with a stream prefix. With a local \
stack it reads the log directory of `ecs-bridge local`. For the container of a runner, it shows the lines that were written \
while the runner ran the submission. The identity needs ecs:DescribeTasks, ecs:DescribeTaskDefinition, lambda:GetFunctionConfiguration and \
logs:GetLogEvents.")]
pub struct Logs {
    /// The id of the submission, or an unambiguous beginning of it
    id: String,
    /// Show new lines until the submission has ended
    #[arg(long, short)]
    follow: bool,
    /// Show up to N lines from the end
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_LINES)))]
    tail: u16,
    /// Write JSON Lines of {"timestamp", "message"}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

/// The cause of missing lines.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The bridge or the table failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No container was started.
    #[error("\"{0}\" has no container: its state is {1}")]
    NoTask(String, String),
    /// The output cannot be read.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<ClientError> for LogsError {
    fn from(error: ClientError) -> Self {
        Self::Command(error.into())
    }
}

impl Logs {
    pub fn run(self) -> Result<(), LogsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::from)?;
        runtime.block_on(async {
            let client = self.bridge.find().await?;
            let (id, mut record) = ids::find(&client, &self.id).await?;
            while self.follow && !record.contains_key("task_arn") && !is_terminal(&record) {
                tokio::time::sleep(INTERVAL).await;
                record = client.record(&id).await?;
            }
            if !record.contains_key("task_arn") {
                return Err(LogsError::NoTask(id, text(&record, "state")));
            }
            let mut source = Source::of(&client, &record).await?;
            self.show(source.read(&record, self.tail.into()).await?);
            let mut ended = is_terminal(&record).then(tokio::time::Instant::now);
            // After the end, only the last lines of a container that has just exited can arrive.
            while self.follow && ended.is_none_or(|at| at.elapsed() < source.delay()) {
                tokio::time::sleep(INTERVAL.min(source.delay())).await;
                if ended.is_none() {
                    record = client.record(&id).await?;
                    ended = is_terminal(&record).then(tokio::time::Instant::now);
                }
                self.show(source.read(&record, MAX_LINES.into()).await?);
            }
            Ok(())
        })
    }

    fn show(&self, lines: Vec<Line>) {
        for Line { at, message } in lines {
            match (self.json, at) {
                (true, at) => output::say(json!({"timestamp": at, "message": message})),
                (false, Some(at)) => output::say(format!("{}  {message}", iso(at))),
                (false, None) => output::say(message),
            }
        }
    }
}
