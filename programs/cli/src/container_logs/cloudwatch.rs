//! Container output in CloudWatch Logs.

use std::time::Duration;

use aws_sdk_cloudwatchlogs::config::Region;
use aws_sdk_ecs::types::LogDriver;
use serde_json::Value;

use super::line::{Line, OutputError};
use crate::account::{Account, Function, error_text};
use crate::client::connection::Client;
use crate::record::{Record, task_id, text};

/// A log stream, and the position in it.
pub struct Stream {
    client: aws_sdk_cloudwatchlogs::Client,
    group: String,
    name: String,
    next: Option<String>,
}

impl Stream {
    /// The time for which lines may still arrive after a submission has ended. CloudWatch Logs shows them a few seconds late.
    pub const DELAY: Duration = Duration::from_secs(10);

    /// Finds the stream of the container of a submission in the log configuration of its task definition.
    ///
    /// # Errors
    /// If ECS does not return the task definition, or the container has another log driver.
    pub async fn find(client: &Client, record: &Record) -> Result<Self, OutputError> {
        let account = Account::of(client);
        let (task, container) = (task_id(record), text(record, "container_name"));
        let definition = definition(&account, record).await.map_err(OutputError::NoStream)?;
        let answer = account.ecs.describe_task_definition().task_definition(&definition).send().await;
        let answer = answer.map_err(|error| OutputError::NoStream(error_text(&error)))?;
        let containers = answer.task_definition.and_then(|it| it.container_definitions).unwrap_or_default();
        let named = containers.into_iter().find(|it| it.name() == Some(&container));
        let logging = named.and_then(|it| it.log_configuration);
        let options = logging.as_ref().and_then(|it| it.options.clone()).unwrap_or_default();
        match (logging.map(|it| it.log_driver), options.get("awslogs-group"), options.get("awslogs-stream-prefix")) {
            (Some(LogDriver::Awslogs), Some(group), Some(prefix)) => {
                let region = options.get("awslogs-region").map(|region| Region::new(region.clone()));
                let config = aws_sdk_cloudwatchlogs::config::Builder::from(client.config());
                let config = region.map_or_else(|| config.clone(), |region| config.clone().region(region)).build();
                let client = aws_sdk_cloudwatchlogs::Client::from_conf(config);
                let name = format!("{prefix}/{container}/{task}");
                Ok(Self { client, group: group.clone(), name, next: None })
            }
            (driver, ..) => {
                let driver = driver.map_or_else(|| "none".to_owned(), |driver| driver.to_string());
                Err(OutputError::LogDriver(container, driver))
            }
        }
    }

    /// Reads the last `max_lines` lines between two times (epoch milliseconds) at first, and new lines in later calls.
    ///
    /// # Errors
    /// If CloudWatch Logs rejects the call.
    pub async fn read(
        &mut self,
        (from, to): (Option<i64>, Option<i64>),
        max_lines: usize,
    ) -> Result<Vec<Line>, OutputError> {
        let Self { client, group, name, next } = self;
        let request = client.get_log_events().log_group_name(&*group).log_stream_name(&*name);
        let request = request
            .limit(i32::try_from(max_lines).unwrap_or(i32::MAX))
            .start_from_head(next.is_some())
            .set_next_token(next.clone());
        let answer = request.set_start_time(from).set_end_time(to).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            // The container has written nothing yet.
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(OutputError::Rejected(format!("{group} {name}"), error_text(&error))),
        };
        *next = answer.next_forward_token.or(next.take());
        let events = answer.events.unwrap_or_default().into_iter();
        Ok(events.map(|it| Line { at: it.timestamp, message: it.message.unwrap_or_default() }).collect())
    }
}

/// Returns the task definition of the task. ECS reports it for an hour after the end. Later, it is that of the profile.
async fn definition(account: &Account, record: &Record) -> Result<String, String> {
    let request = account.ecs.describe_tasks().cluster(text(record, "cluster")).tasks(text(record, "task_arn"));
    let answer = request.send().await.map_err(|error| error_text(&error))?;
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
