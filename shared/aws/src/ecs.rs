//! ECS: RunTask and what each of its answers proves, DescribeTasks, ListTasks, StopTask.

use std::{error::Error, io};

use aws_sdk_ecs::{
    Client,
    config::retry::RetryConfig,
    error::{ConnectorError, ProvideErrorMetadata, SdkError},
    operation::run_task::{RunTaskError, RunTaskOutput},
    primitives::DateTime,
    types::{self, DesiredStatus},
};
use ecs_bridge_core::{
    Attempt, Container, LaunchAnswer, Obstacle, StartedBy, Task, Timestamp, record::Record, run_task,
    task::without_program, task_id,
};
use hyper_util::client::legacy;

/// DescribeTasks' limit on the tasks of a call.
pub const DESCRIBED: usize = 100;

const NO_CLUSTER: &str = "ClusterNotFoundException";

/// Why a call to ECS other than RunTask failed. It is repeated when the record is due again.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {reason}")]
pub struct EcsError {
    operation: &'static str,
    reason: String,
}

impl EcsError {
    fn call<E: ProvideErrorMetadata, R>(operation: &'static str) -> impl Fn(SdkError<E, R>) -> Self {
        move |error| Self { operation, reason: words(&error) }
    }
}

/// One task of DescribeTasks' answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// The task, and its `startedBy` if ECS gives one in the bridge's form.
    Task(Option<StartedBy>, Box<Task>),
    /// MISSING: ECS has no task of this ARN, or has forgotten it.
    Missing(String),
}

impl Described {
    /// The task's id: the last segment of its ARN.
    pub fn task_id(&self) -> &str {
        match self {
            Self::Task(_, task) => task.id(),
            Self::Missing(task_arn) => task_id(task_arn),
        }
    }
}

/// The outcome of a RunTask call.
#[derive(Debug)]
pub enum RunTaskAnswer {
    /// An answer, or none.
    Answer(LaunchAnswer),
    /// The client token was used before with other parameters, by these tasks.
    Conflict(Vec<String>),
}

/// ECS in the deployment's region.
#[derive(Clone, Debug)]
pub struct Ecs {
    client: Client,
}

impl Ecs {
    /// ECS by this client.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Calls RunTask once with the record's frozen request of this choice.
    ///
    /// The request goes out as the JSON that was frozen, not through the SDK's types: parameters that ECS takes and
    /// this SDK does not know yet get there, and nothing is built twice. Signing, endpoint and errors are the SDK's.
    /// Its retries are off: what a refusal proves depends on whether it answers the first call.
    pub async fn run_task(&self, record: &Record, choice: u8, started_by: &StartedBy) -> RunTaskAnswer {
        let body = record
            .request
            .as_ref()
            .map_or(Err(io::ErrorKind::NotFound.into()), |request| request.body(started_by, choice));
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                return RunTaskAnswer::Answer(LaunchAnswer::RefusedForGood(format!(
                    "the stored request cannot be read: {error}"
                )));
            }
        };
        let sent = body.clone();
        let result = self
            .client
            .run_task()
            .customize()
            .config_override(aws_sdk_ecs::Config::builder().retry_config(RetryConfig::disabled()))
            .mutate_request(move |request| {
                request.headers_mut().insert("content-length", sent.len().to_string());
                *request.body_mut() = sent.as_str().into();
            })
            .send()
            .await;
        match result {
            Ok(output) => RunTaskAnswer::Answer(answer(&output, &body)),
            Err(error) => refusal(&error, &body),
        }
    }

    /// Describes up to [`DESCRIBED`] tasks of a cluster. Where ECS has no such cluster, all of them are missing.
    ///
    /// # Errors
    /// Where ECS refuses or does not answer.
    pub async fn describe(&self, cluster: &str, task_arns: &[String]) -> Result<Vec<Described>, EcsError> {
        let request = self.client.describe_tasks().cluster(cluster).set_tasks(Some(task_arns.to_vec()));
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(NO_CLUSTER) => {
                return Ok(task_arns.iter().cloned().map(Described::Missing).collect());
            }
            Err(error) => return Err(EcsError::call("DescribeTasks")(error)),
        };
        let tasks = answer.tasks().iter().filter_map(described);
        let missing = answer.failures().iter().filter(|failure| failure.reason() == Some("MISSING"));
        Ok(tasks.chain(missing.filter_map(|failure| Some(Described::Missing(failure.arn()?.to_owned())))).collect())
    }

    /// The ARNs of the tasks with this `startedBy`: those that run, else those that have stopped; none where ECS has no
    /// such cluster. Reads pages until one has a task, as ECS may answer an empty page before the last.
    ///
    /// # Errors
    /// Where ECS refuses or does not answer.
    pub async fn list(&self, cluster: &str, started_by: &StartedBy) -> Result<Vec<String>, EcsError> {
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let mut pages = self
                .client
                .list_tasks()
                .cluster(cluster)
                .started_by(started_by.to_string())
                .desired_status(status)
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                match page {
                    Ok(page) if page.task_arns().is_empty() => {}
                    Ok(page) => return Ok(page.task_arns().to_vec()),
                    Err(error) if error.code() == Some(NO_CLUSTER) => return Ok(Vec::new()),
                    Err(error) => return Err(EcsError::call("ListTasks")(error)),
                }
            }
        }
        Ok(Vec::new())
    }

    /// Asks ECS to stop a task: SIGTERM, and SIGKILL after the container's stop timeout. A task that ECS does not know
    /// is nothing to stop.
    ///
    /// # Errors
    /// Where ECS does not answer, or refuses.
    pub async fn stop(&self, cluster: &str, task_arn: &str, reason: &str) -> Result<(), EcsError> {
        let request = self.client.stop_task().cluster(cluster).task(task_arn).reason(cut(reason));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_unknown_task(&error) => Ok(()),
            Err(error) => Err(EcsError::call("StopTask")(error)),
        }
    }

    /// Whether the cluster is there and active.
    ///
    /// # Errors
    /// Where ECS does not answer.
    pub async fn is_active(&self, cluster: &str) -> Result<bool, EcsError> {
        let answer = self
            .client
            .describe_clusters()
            .clusters(cluster)
            .send()
            .await
            .map_err(EcsError::call("DescribeClusters"))?;
        Ok(answer.clusters().iter().any(|cluster| cluster.status() == Some("ACTIVE")))
    }

    /// The container called `name` of a task definition; nothing where it has none of that name.
    ///
    /// # Errors
    /// Where ECS does not answer, or does not know the task definition.
    pub async fn container_definition(
        &self,
        task_definition: &str,
        name: &str,
    ) -> Result<Option<types::ContainerDefinition>, EcsError> {
        let request = self.client.describe_task_definition().task_definition(task_definition);
        let answer = request.send().await.map_err(EcsError::call("DescribeTaskDefinition"))?;
        let containers = answer.task_definition().map(types::TaskDefinition::container_definitions).unwrap_or_default();
        Ok(containers.iter().find(|container| container.name() == Some(name)).cloned())
    }
}

/// StopTask has no code of its own for a task that ECS never knew, or knows no longer.
fn is_unknown_task(error: &impl ProvideErrorMetadata) -> bool {
    let message = error.message().unwrap_or_default();
    error.code() == Some("InvalidParameterException") && message.starts_with("The referenced task was not found")
}

/// StopTask's reason is at most 255 characters long.
fn cut(reason: &str) -> String {
    reason.chars().take(255).collect()
}

/// Code and message of an error.
fn words<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    words_with(error, str::to_owned)
}

/// Code and message of an error, the message as `rewrite` gives it.
fn words_with<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>, rewrite: impl Fn(&str) -> String) -> String {
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {}", rewrite(message)),
        (Some(code), None) => code.to_owned(),
        (None, _) => match error {
            SdkError::ConstructionFailure(_) => "no request could be made".to_owned(),
            SdkError::TimeoutError(_) => "no answer in time".to_owned(),
            SdkError::DispatchFailure(_) => "the connection broke".to_owned(),
            _ => "the answer was not understood".to_owned(),
        },
    }
}

/// RunTask's HTTP 200, which is an answer only if it holds a task or a failure.
fn answer(output: &RunTaskOutput, body: &str) -> LaunchAnswer {
    if let Some(task) = output.tasks().first()
        && let Some(arn) = task.task_arn()
    {
        let live = task.last_status() != Some("STOPPED") && task.desired_status() != Some("STOPPED");
        return LaunchAnswer::Task { arn: arn.to_owned(), live };
    }
    // None of ECS's reasons here is for good: hosts come, tasks end. The launch deadline ends the wait.
    match output.failures().first() {
        Some(failure) => {
            let parts = [failure.reason(), failure.detail()];
            let reason = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
            LaunchAnswer::RefusedForNow(Obstacle::Capacity, run_task::redact(&reason, body))
        }
        None => LaunchAnswer::Unanswered("RunTask answered with neither a task nor a failure".to_owned()),
    }
}

/// What an error of RunTask proves.
fn refusal(error: &SdkError<RunTaskError>, body: &str) -> RunTaskAnswer {
    let reason = words_with(error, |message| run_task::redact(message, body));
    let answer = match error {
        // The request was never sent.
        SdkError::ConstructionFailure(_) => LaunchAnswer::RefusedForNow(Obstacle::Other, reason),
        SdkError::DispatchFailure(failure) if failure.as_connector_error().is_some_and(never_connected) => {
            LaunchAnswer::RefusedForNow(Obstacle::Other, "no connection to ECS".to_owned())
        }
        SdkError::ServiceError(context) => {
            if let RunTaskError::ConflictException(conflict) = context.err() {
                return RunTaskAnswer::Conflict(conflict.resource_ids().to_vec());
            }
            // An error without a code is not from ECS but from a proxy, which may have forwarded the call.
            match error.code().filter(|_| !context.raw().status().is_server_error()) {
                None => LaunchAnswer::Unanswered(reason),
                Some(code) => match verdict(code, error.message().unwrap_or_default()) {
                    Verdict::Unanswered => LaunchAnswer::Unanswered(reason),
                    Verdict::ForNow(obstacle) => LaunchAnswer::RefusedForNow(obstacle, reason),
                    Verdict::ForGood => LaunchAnswer::RefusedForGood(reason),
                },
            }
        }
        // A timeout, a broken connection, an answer cut short.
        _ => LaunchAnswer::Unanswered(reason),
    };
    RunTaskAnswer::Answer(answer)
}

/// Whether the connection itself failed: name resolution, TCP, TLS or the connect timeout. The request was then never
/// sent. hyper reports each of them as a connect error.
fn never_connected(error: &ConnectorError) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect) {
            return true;
        }
        source = error.source();
    }
    false
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Unanswered,
    ForNow(Obstacle),
    ForGood,
}

/// What a refusal with this code and message proves. The message counts where ECS uses one code for several things; the
/// texts are those of the ECS API reference and of its guide's chapter on API failure reasons.
fn verdict(code: &str, message: &str) -> Verdict {
    use Obstacle::{Access, Capacity, Other};
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match code {
        "ServerException" => Verdict::Unanswered,
        // Throttling has this code too.
        "InvalidParameterException" if says(&["rate exceeded", "throttl"]) => Verdict::ForNow(Other),
        // An EC2 cluster that scales from zero.
        "InvalidParameterException" if says(&["no container instances were found"]) => Verdict::ForNow(Capacity),
        // The first RunTask of a new account creates the role, which takes a while.
        "InvalidParameterException" | "ClientException" if says(&["service linked role", "service-linked role"]) => {
            Verdict::ForNow(Other)
        }
        "ClientException"
            if says(&[
                "taskdefinition",
                "task definition",
                "unable to assume the role",
                "no fargate configuration",
            ]) =>
        {
            Verdict::ForGood
        }
        // Quotas of tasks in PROVISIONING and of vCPUs: free again as tasks end.
        "ClientException" | "LimitExceededException" => Verdict::ForNow(Capacity),
        // A role's change takes a while to reach every part of AWS.
        "AccessDeniedException" => Verdict::ForNow(Access),
        "ClusterNotFoundException"
        | "InvalidParameterException"
        | "PlatformUnknownException"
        | "PlatformTaskDefinitionIncompatibilityException"
        | "UnsupportedFeatureException"
        | "BlockedException"
        | "SerializationException"
        | "ValidationException" => Verdict::ForGood,
        // ThrottlingException, expired credentials, and codes that are new.
        _ => Verdict::ForNow(Other),
    }
}

/// A described task, with the first attempt where it does not say which.
fn described(task: &types::Task) -> Option<Described> {
    let started_by = task.started_by().and_then(StartedBy::parse);
    let task = Task {
        arn: task.task_arn()?.to_owned(),
        cluster_arn: task.cluster_arn().unwrap_or_default().to_owned(),
        attempt: started_by.as_ref().map_or(Attempt::FIRST, |started_by| started_by.attempt),
        version: u64::try_from(task.version()).ok()?,
        last_status: task.last_status().unwrap_or_default().to_owned(),
        desired_status: task.desired_status().unwrap_or_default().to_owned(),
        stop_code: task.stop_code().map(|code| code.as_str().to_owned()),
        stopped_reason: task.stopped_reason().map(without_program),
        containers: task.containers().iter().map(container).collect(),
        runs_on: task.capacity_provider_name().or(task.launch_type().map(types::LaunchType::as_str)).map(str::to_owned),
        cpu: task.cpu().and_then(|units| units.parse().ok()),
        memory: task.memory().and_then(|mib| mib.parse().ok()),
        started_at: task.started_at().and_then(moment),
        execution_stopped_at: task.execution_stopped_at().and_then(moment),
        stopped_at: task.stopped_at().and_then(moment),
        at: None,
    };
    Some(Described::Task(started_by, Box::new(task)))
}

fn container(container: &types::Container) -> Container {
    Container {
        name: container.name().unwrap_or_default().to_owned(),
        last_status: container.last_status().unwrap_or_default().to_owned(),
        exit_code: container.exit_code(),
        reason: container.reason().map(without_program),
    }
}

fn moment(at: &DateTime) -> Option<Timestamp> {
    u64::try_from(at.to_millis().ok()?).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use ecs_bridge_core::advice;

    use super::*;

    #[test]
    fn each_refusal_has_its_verdict() {
        use Obstacle::{Access, Capacity, Other};
        use Verdict::{ForGood, ForNow, Unanswered};
        for (code, message, expected) in [
            ("ServerException", "internal", Unanswered),
            ("ThrottlingException", "Rate exceeded", ForNow(Other)),
            ("InvalidParameterException", "Rate exceeded", ForNow(Other)),
            ("InvalidParameterException", "The request was throttled", ForNow(Other)),
            ("InvalidParameterException", "No Container Instances were found in your cluster.", ForNow(Capacity)),
            (
                "InvalidParameterException",
                "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
                ForNow(Other),
            ),
            ("InvalidParameterException", "The image is not valid", ForGood),
            ("ClientException", "You've reached the limit on the number of tasks you can provision", ForNow(Capacity)),
            ("ClientException", "You've reached the limit on the number of vCPUs", ForNow(Capacity)),
            ("ClientException", "TaskDefinition not found.", ForGood),
            ("ClientException", "TaskDefinition is inactive", ForGood),
            ("ClientException", "No Fargate configuration exists for given values.", ForGood),
            (
                "ClientException",
                "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task.",
                ForGood,
            ),
            ("LimitExceededException", "", ForNow(Capacity)),
            ("AccessDeniedException", "not authorized to perform: ecs:RunTask", ForNow(Access)),
            ("ClusterNotFoundException", "Cluster not found.", ForGood),
            ("BlockedException", "Your account is currently blocked.", ForGood),
            ("ExpiredTokenException", "", ForNow(Other)),
            ("SomethingNew", "", ForNow(Other)),
        ] {
            assert_eq!(verdict(code, message), expected, "{code}: {message}");
            let is_told = advice::of_refusal(&format!("{code}: {message}")).is_some();
            assert!(is_told || code == "SomethingNew", "{code}: {message}");
        }
    }
}
