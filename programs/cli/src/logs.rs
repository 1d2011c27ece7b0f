//! `ecs-bridge logs`

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::config::Region;
use aws_sdk_ecs::types::LogDriver;
use clap::Args;
use serde_json::{Value, json};
use thiserror::Error;

use crate::account::{Account, Function, words};
use crate::bridge::{Bridge, Record, Where};
use crate::ids;
use crate::output::{self, iso, millis, text};
use crate::show::ShowError;
use crate::submit::is_terminal;

/// How often what follows is read.
const EVERY: Duration = Duration::from_secs(2);
/// For how long lines are waited for once the submission has ended: CloudWatch Logs shows them a few seconds late.
const LATE: Duration = Duration::from_secs(10);
/// GetLogEvents' limit.
const MOST: i32 = 10_000;
/// How much of the end of a file may hold the lines that are asked for.
const BYTES_OF_A_LINE: u64 = 1_024;

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
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=i64::from(MOST)))]
    tail: i32,
    /// Write JSON Lines of {"timestamp", "message"}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: Where,
}

/// Why there are no lines.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The bridge or the table failed.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// No container was started.
    #[error("\"{0}\" has no container: its state is {1}")]
    NoTask(String, String),
    /// Its output is nowhere.
    #[error("this local stack keeps no output: start it again with `ecs-bridge local --log-dir DIR`")]
    NotKept,
    /// ECS did not report where it is.
    #[error("cannot find the log stream of the container: {0}")]
    Unknown(String),
    /// Somewhere that cannot be read here.
    #[error(
        "cannot read the log driver \"{1}\" of the container \"{0}\": it must be awslogs with awslogs-stream-prefix"
    )]
    OtherDriver(String, String),
    /// CloudWatch Logs refused.
    #[error("cannot read {0}: {1}")]
    Refused(String, String),
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
}

impl From<crate::bridge::BridgeError> for LogsError {
    fn from(error: crate::bridge::BridgeError) -> Self {
        Self::Show(error.into())
    }
}

/// A line of output, and when it was written, in epoch milliseconds.
struct Line {
    at: Option<i64>,
    message: String,
}

/// Where a container's output is.
enum Source {
    File(PathBuf, u64),
    Stream { client: aws_sdk_cloudwatchlogs::Client, group: String, stream: String, next: Option<String> },
}

impl Logs {
    pub fn run(self) -> Result<(), LogsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ShowError::from)?;
        runtime.block_on(async {
            let bridge = self.bridge.find().await?;
            let (id, mut record) = ids::find(&bridge, &self.id).await?;
            while self.follow && !record.contains_key("task_arn") && !is_terminal(&record) {
                tokio::time::sleep(EVERY).await;
                record = bridge.record(&id).await?;
            }
            if !record.contains_key("task_arn") {
                return Err(LogsError::NoTask(id, text(&record, "state")));
            }
            let mut source = Source::of(&bridge, &record).await?;
            let (from, to) = span(&record);
            self.show(source.read(self.tail, from, to).await?);
            let mut ended = is_terminal(&record).then(tokio::time::Instant::now);
            // Of what has ended, nothing more will come but the last lines of a container that has just exited.
            while self.follow && ended.is_none_or(|at| at.elapsed() < source.patience()) {
                tokio::time::sleep(EVERY.min(source.patience())).await;
                if ended.is_none() {
                    record = bridge.record(&id).await?;
                    ended = is_terminal(&record).then(tokio::time::Instant::now);
                }
                let (from, to) = span(&record);
                self.show(source.read(MOST, from, to).await?);
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

/// The last lines of a submission's container; none if they cannot be read within a few seconds.
pub async fn last_lines(bridge: &Bridge, record: &Record, most: i32) -> Vec<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    if !record.contains_key("task_arn") {
        return Vec::new();
    }
    let read = async {
        let (from, to) = span(record);
        Source::of(bridge, record).await?.read(most, from, to).await
    };
    let lines = tokio::time::timeout(PATIENCE, read).await;
    lines.into_iter().flatten().flatten().map(|line| line.message).collect()
}

/// When the command ran, in the container of a runner.
fn span(record: &Record) -> (Option<i64>, Option<i64>) {
    if !record.contains_key("runner_id") {
        return (None, None);
    }
    // The clocks of container and bridge differ a little.
    let end = millis(record, "container_exited_at").or_else(|| millis(record, "stopped_at"));
    (millis(record, "started_at").map(|at| at - 1_000), end.map(|at| at + 2_000))
}

impl Source {
    async fn of(bridge: &Bridge, record: &Record) -> Result<Self, LogsError> {
        let account = Account::of(bridge);
        let (task, container) = (output::task_id(record), text(record, "container_name"));
        if let Some(local) = &account.local
            && !account.has("CLOUDWATCH_LOGS")
        {
            let folder = local.log_dir.as_ref().ok_or(LogsError::NotKept)?;
            return Ok(Self::File(folder.join(format!("{task}-{container}.log")), 0));
        }
        let definition = definition(&account, record).await.map_err(LogsError::Unknown)?;
        let answer = account.ecs.describe_task_definition().task_definition(&definition).send().await;
        let answer = answer.map_err(|error| LogsError::Unknown(words(&error)))?;
        let containers = answer.task_definition.and_then(|it| it.container_definitions).unwrap_or_default();
        let named = containers.into_iter().find(|it| it.name() == Some(&container));
        let logging = named.and_then(|it| it.log_configuration);
        let options = logging.as_ref().and_then(|it| it.options.clone()).unwrap_or_default();
        match (logging.map(|it| it.log_driver), options.get("awslogs-group"), options.get("awslogs-stream-prefix")) {
            (Some(LogDriver::Awslogs), Some(group), Some(prefix)) => {
                let region = options.get("awslogs-region").map(|region| Region::new(region.clone()));
                let config = aws_sdk_cloudwatchlogs::config::Builder::from(bridge.config());
                let config = region.map_or_else(|| config.clone(), |region| config.clone().region(region)).build();
                let client = aws_sdk_cloudwatchlogs::Client::from_conf(config);
                let stream = format!("{prefix}/{container}/{task}");
                Ok(Self::Stream { client, group: group.clone(), stream, next: None })
            }
            (driver, ..) => {
                let driver = driver.map_or_else(|| "none".to_owned(), |driver| driver.to_string());
                Err(LogsError::OtherDriver(container, driver))
            }
        }
    }

    /// For how long something may still come after the end.
    const fn patience(&self) -> Duration {
        match self {
            Self::File(..) => Duration::from_millis(500),
            Self::Stream { .. } => LATE,
        }
    }

    /// The last `most` lines at first, and then those that came since.
    async fn read(&mut self, most: i32, from: Option<i64>, to: Option<i64>) -> Result<Vec<Line>, LogsError> {
        match self {
            Self::File(path, read) => {
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                tail(path, read, most).map_err(|source| LogsError::File(path.clone(), source))
            }
            Self::Stream { client, group, stream, next } => {
                let request = client.get_log_events().log_group_name(&*group).log_stream_name(&*stream);
                let request = request.limit(most).start_from_head(next.is_some()).set_next_token(next.clone());
                let answer = request.set_start_time(from).set_end_time(to).send().await;
                let answer = match answer {
                    Ok(answer) => answer,
                    // The container has written nothing yet.
                    Err(error)
                        if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) =>
                    {
                        return Ok(Vec::new());
                    }
                    Err(error) => return Err(LogsError::Refused(format!("{group} {stream}"), words(&error))),
                };
                *next = answer.next_forward_token.or(next.take());
                let events = answer.events.unwrap_or_default().into_iter();
                Ok(events.map(|it| Line { at: it.timestamp, message: it.message.unwrap_or_default() }).collect())
            }
        }
    }
}

/// The task definition of a submission's task: ECS reports it for an hour after the end; then it is the profile's.
async fn definition(account: &Account, record: &Record) -> Result<String, String> {
    let request = account.ecs.describe_tasks().cluster(text(record, "cluster")).tasks(text(record, "task_arn"));
    let answer = request.send().await.map_err(|error| words(&error))?;
    if let Some(definition) = answer.tasks().first().and_then(|task| task.task_definition_arn()) {
        return Ok(definition.to_owned());
    }
    let configuration = account.configuration(Function::Submit).await?;
    let profile = text(record, "profile");
    let profiles = configuration.profiles().ok_or("ECS no longer reports the task, and the profiles are in a layer")?;
    let definition = Value::Object(profiles).pointer(&format!("/{profile}/run_task/taskDefinition")).cloned();
    definition
        .and_then(|definition| definition.as_str().map(str::to_owned))
        .ok_or_else(|| format!("ECS no longer reports the task, and the profile \"{profile}\" has no task definition"))
}

/// Whole lines of a file after those that were `read`: at first the last `most`.
fn tail(path: &PathBuf, read: &mut u64, most: usize) -> std::io::Result<Vec<Line>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    let from = (*read).max(length.saturating_sub(BYTES_OF_A_LINE.saturating_mul(most as u64)));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    *read = from + bytes.len() as u64;
    let lines = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = lines.lines().map(|line| Line { at: None, message: line.to_owned() }).collect();
    let skipped = lines.len().saturating_sub(most);
    Ok(lines.into_iter().skip(skipped).collect())
}
