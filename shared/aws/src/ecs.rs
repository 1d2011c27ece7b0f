//! ECS calls: RunTask and the meaning of its responses, DescribeTasks, ListTasks, StopTask.

use std::{
    error::Error,
    fmt, io,
    sync::{Arc, OnceLock},
};

use aws_sdk_ecs::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::FinalizerInterceptorContextMut, retry::RetryConfig,
    },
    error::{BoxError, ConnectorError, ProvideErrorMetadata, SdkError},
    operation::{
        describe_tasks::DescribeTasksOutput,
        run_task::{RunTaskError, RunTaskOutput},
    },
    types::{self, DesiredStatus},
};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use ecs_bridge_core::{
    LaunchAnswer, LaunchBlocker, StartedBy, Task, ecs_json::Response, record::Record, run_task,
    task::is_want_of_capacity, task_id,
};
use hyper_util::client::legacy;

/// The maximum number of tasks in a DescribeTasks call.
pub const DESCRIBED: usize = 100;

const NO_CLUSTER: &str = "ClusterNotFoundException";

/// The cause of a failed ECS call other than RunTask. The call is repeated when the record is due again.
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

/// One task of a DescribeTasks response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// The task, and its `startedBy` if ECS returns one in the bridge's format.
    Task(Option<StartedBy>, Box<Task>),
    /// MISSING: ECS has no task with this ARN, or no longer knows it.
    Missing(String),
}

impl Described {
    /// Returns the task's id, which is the last segment of its ARN.
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
    /// A response or its absence.
    Answer(LaunchAnswer),
    /// These tasks used the client token before with other parameters.
    Conflict(Vec<String>),
}

/// ECS in the deployment's Region.
#[derive(Clone, Debug)]
pub struct Ecs {
    client: Client,
}

impl Ecs {
    /// Creates an ECS client from this SDK client.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Calls RunTask once with the record's frozen request for this capacity option.
    ///
    /// The frozen JSON is sent unchanged rather than through the SDK's types, so parameters that this SDK does not
    /// know yet are kept. The SDK supplies signing, endpoint and errors. Its retries are off, because the meaning of
    /// a failure depends on whether it answers the first call.
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
        let answered = Body::default();
        let result = self
            .client
            .run_task()
            .customize()
            .config_override(aws_sdk_ecs::Config::builder().retry_config(RetryConfig::disabled()))
            .mutate_request(move |request| {
                request.headers_mut().insert("content-length", sent.len().to_string());
                *request.body_mut() = sent.as_str().into();
            })
            .interceptor(answered.instead_of(|| Output::erase(RunTaskOutput::builder().build())))
            .send()
            .await;
        match result {
            Ok(_) => RunTaskAnswer::Answer(answer(&answered, &body)),
            Err(error) => refusal(&error, &body),
        }
    }

    /// Describes up to [`DESCRIBED`] tasks of a cluster. If the cluster does not exist, all of them are missing.
    ///
    /// # Errors
    /// If ECS is unavailable or rejects the call.
    pub async fn describe(&self, cluster: &str, task_arns: &[String]) -> Result<Vec<Described>, EcsError> {
        let answered = Body::default();
        let request = self.client.describe_tasks().cluster(cluster).set_tasks(Some(task_arns.to_vec())).customize();
        let request =
            request.interceptor(answered.instead_of(|| Output::erase(DescribeTasksOutput::builder().build())));
        match request.send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some(NO_CLUSTER) => {
                return Ok(task_arns.iter().cloned().map(Described::Missing).collect());
            }
            Err(error) => return Err(EcsError::call("DescribeTasks")(error)),
        }
        let Some(answer) = answered.response() else { return Ok(Vec::new()) };
        let tasks = answer.tasks().filter_map(|task| match task {
            Ok((started_by, task)) => Some(Described::Task(started_by, Box::new(task))),
            // Its record is handled as if the response did not contain the task.
            Err(error) => {
                tracing::error!(%error, "ignored invalid task description");
                None
            }
        });
        let missing = answer.failures().filter(|failure| failure.reason.as_deref() == Some("MISSING"));
        Ok(tasks.chain(missing.filter_map(|failure| Some(Described::Missing(failure.arn?)))).collect())
    }

    /// Returns the ARNs of the tasks with this `startedBy`: the running ones, otherwise the stopped ones. Returns
    /// none if the cluster does not exist. Reads pages until one has a task, because ECS may return an empty page
    /// before the last.
    ///
    /// # Errors
    /// If ECS is unavailable or rejects the call.
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

    /// Stops a task: ECS sends SIGTERM, and SIGKILL after the container's stop timeout. Succeeds if ECS does not know
    /// the task.
    ///
    /// # Errors
    /// If ECS is unavailable or rejects the call.
    pub async fn stop(&self, cluster: &str, task_arn: &str, reason: &str) -> Result<(), EcsError> {
        let request = self.client.stop_task().cluster(cluster).task(task_arn).reason(cut(reason));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_unknown_task(&error) => Ok(()),
            Err(error) => Err(EcsError::call("StopTask")(error)),
        }
    }

    /// Returns `true` if the cluster exists and is active.
    ///
    /// # Errors
    /// If ECS is unavailable.
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

    /// Returns the container called `name` of a task definition, or none if it has no such container.
    ///
    /// # Errors
    /// If ECS is unavailable or cannot find the task definition.
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

/// StopTask has no specific error code for a task that ECS never knew or no longer knows.
fn is_unknown_task(error: &impl ProvideErrorMetadata) -> bool {
    let message = error.message().unwrap_or_default();
    error.code() == Some("InvalidParameterException") && message.starts_with("The referenced task was not found")
}

/// Truncates a reason to StopTask's limit of 255 characters.
fn cut(reason: &str) -> String {
    reason.chars().take(255).collect()
}

/// Returns the code and message of an error.
fn words<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    words_with(error, str::to_owned)
}

/// Returns the code and message of an error, with the message changed by `rewrite`.
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

/// The body of a successful response.
///
/// The SDK's types fail a whole response over a single member with an unexpected type. An exit code above 2^31 would
/// hide 99 other tasks. Tasks are therefore parsed from the body, as those of events are.
#[derive(Clone, Debug, Default)]
struct Body(Arc<OnceLock<String>>);

impl Body {
    /// Returns an interceptor that keeps the body. It makes the SDK return `output` if it cannot parse the body,
    /// because the SDK would otherwise repeat the call.
    fn instead_of(&self, output: fn() -> Output) -> KeepBody {
        KeepBody { body: self.clone(), output }
    }

    fn response(&self) -> Option<Response<'_>> {
        self.0.get().and_then(|body| Response::parse(body))
    }
}

struct KeepBody {
    body: Body,
    output: fn() -> Output,
}

impl fmt::Debug for KeepBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeepBody")
    }
}

impl Intercept for KeepBody {
    fn name(&self) -> &'static str {
        "KeepBody"
    }

    fn modify_before_attempt_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let succeeded = context.response().filter(|response| response.status().is_success());
        // None if the body was truncated. A body that is not a JSON object stays the SDK's error.
        let bytes = succeeded.and_then(|response| response.body().bytes()).map(String::from_utf8_lossy);
        let Some(body) = bytes.filter(|body| Response::parse(body).is_some()) else { return Ok(()) };
        self.body.0.get_or_init(|| body.into_owned());
        if let Some(result @ Err(_)) = context.output_or_error_mut() {
            *result = Ok((self.output)());
        }
        Ok(())
    }
}

/// Parses RunTask's HTTP 200 response, which is valid only if it contains a task or a failure.
fn answer(answered: &Body, body: &str) -> LaunchAnswer {
    let answer = answered.response();
    if let Some((arn, live)) = answer.as_ref().and_then(Response::launched) {
        return LaunchAnswer::Task { arn, live };
    }
    // Every ECS failure reason here is retryable because hosts appear and tasks end. The launch deadline ends the
    // wait.
    match answer.and_then(|answer| answer.failures().next()) {
        Some(failure) => {
            let reason = [failure.reason, failure.detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let blocker = wrapped(&reason.to_ascii_lowercase()).unwrap_or(LaunchBlocker::Capacity);
            LaunchAnswer::RefusedForNow(blocker, run_task::redact(&reason, body))
        }
        None => LaunchAnswer::Unanswered("RunTask answered with neither a task nor a failure".to_owned()),
    }
}

/// Classifies an error of RunTask.
fn refusal(error: &SdkError<RunTaskError>, body: &str) -> RunTaskAnswer {
    let reason = words_with(error, |message| run_task::redact(message, body));
    let answer = match error {
        // The request was never sent.
        SdkError::ConstructionFailure(_) => LaunchAnswer::RefusedForNow(LaunchBlocker::Other, reason),
        SdkError::DispatchFailure(failure) if failure.as_connector_error().is_some_and(never_connected) => {
            LaunchAnswer::RefusedForNow(LaunchBlocker::Other, "no connection to ECS".to_owned())
        }
        SdkError::ServiceError(context) => {
            if let RunTaskError::ConflictException(conflict) = context.err() {
                return RunTaskAnswer::Conflict(conflict.resource_ids().to_vec());
            }
            // An error without a code comes from a proxy rather than from ECS, and the proxy may have forwarded the
            // call.
            match error.code().filter(|_| !context.raw().status().is_server_error()) {
                None => LaunchAnswer::Unanswered(reason),
                Some(code) => match verdict(code, error.message().unwrap_or_default()) {
                    Verdict::Unanswered => LaunchAnswer::Unanswered(reason),
                    Verdict::ForNow(blocker) => LaunchAnswer::RefusedForNow(blocker, reason),
                    Verdict::ForGood => LaunchAnswer::RefusedForGood(reason),
                },
            }
        }
        // A timeout, a broken connection or a truncated response.
        _ => LaunchAnswer::Unanswered(reason),
    };
    RunTaskAnswer::Answer(answer)
}

/// Returns `true` if the connection failed in name resolution, TCP, TLS or the connect timeout. The request was never
/// sent then. hyper reports each of these as a connect error.
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
    ForNow(LaunchBlocker),
    ForGood,
}

/// Classifies a failure with this code and message. The message matters because ECS uses one code for several causes.
/// The texts come from the ECS API reference and from the guide's chapter on API failure reasons.
fn verdict(code: &str, message: &str) -> Verdict {
    use LaunchBlocker::{Access, Capacity, Other};
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match code {
        "ServerException" => Verdict::Unanswered,
        // ECS also reports throttling and the errors of other services under these codes.
        "InvalidParameterException" | "ClientException" if let Some(blocker) = wrapped(&message) => {
            Verdict::ForNow(blocker)
        }
        "ClientException" if says(&["taskdefinition", "task definition", "no fargate configuration"]) => {
            Verdict::ForGood
        }
        // Quotas on tasks in PROVISIONING and on vCPUs become available again as tasks end.
        "ClientException"
            if says(&[
                "reached the limit",
                "limit on",
                "limit of",
                "limit for",
                "limit exceeded",
                "quota",
                "capacity limit",
            ]) =>
        {
            Verdict::ForNow(Capacity)
        }
        "LimitExceededException" => Verdict::ForNow(Capacity),
        // A change of a role takes time to reach every part of AWS.
        "AccessDeniedException" => Verdict::ForNow(Access),
        "ClusterNotFoundException"
        | "InvalidParameterException"
        | "PlatformUnknownException"
        | "PlatformTaskDefinitionIncompatibilityException"
        | "UnsupportedFeatureException"
        | "BlockedException"
        | "SerializationException"
        | "ValidationException" => Verdict::ForGood,
        // ThrottlingException, expired credentials, a ClientException without a known cause, and new codes.
        _ => Verdict::ForNow(Other),
    }
}

/// Returns the temporary blocker that a lower-case message describes. ECS wraps the errors of EC2 and other services,
/// as in `… (ErrorCode: RequestLimitExceeded)` or `(Service: Ec2, Status Code: 503, …)`.
fn wrapped(message: &str) -> Option<LaunchBlocker> {
    const THROTTLING: [&str; 9] = [
        "throttl",
        "rate exceeded",
        "rate limit exceeded",
        "requestlimitexceeded",
        "request limit exceeded",
        "toomanyrequests",
        "too many requests",
        "slowdown",
        "bandwidthlimitexceeded",
    ];
    // These are EC2's own quotas on network interfaces, addresses and instances. ECS's quotas come as
    // ClientException.
    const QUOTAS: [&str; 4] =
        ["interfacelimitexceeded", "addresslimitexceeded", "instancelimitexceeded", "vcpulimitexceeded"];
    const ADDRESSES: [&str; 2] = ["insufficientfreeaddresses", "free addresses"];
    const FAULTS: [&str; 22] = [
        "internalerror",
        "internal error",
        "internalfailure",
        "internal failure",
        "internalservererror",
        "internal server error",
        "internalserviceerror",
        "internal service error",
        "serverinternal",
        "serviceunavailable",
        "service unavailable",
        "service is unavailable",
        "temporarily unavailable",
        "code: unavailable",
        "(unavailable)",
        "requesttimeout",
        "request timeout",
        "request timed out",
        "requestexpired",
        "priorrequestnotcomplete",
        "status code: 5",
        "try again later",
    ];
    const DENIED: [&str; 4] = ["unauthorizedoperation", "accessdenied", "not authorized to perform", "authfailure"];
    let says = |known: &[&str]| known.iter().any(|known| message.contains(known));
    // A new or changed role takes time to reach every part of AWS. An account's first RunTask creates the
    // service-linked role. "Linked role" is spelled with and without a hyphen.
    let is_role = message.contains("role") && says(&["assume", "linked role", "infrastructure role"]);
    if says(&THROTTLING) {
        Some(LaunchBlocker::Other)
    } else if is_role || says(&DENIED) {
        Some(LaunchBlocker::Access)
    } else if is_want_of_capacity(message) || says(&QUOTAS) || says(&ADDRESSES) {
        Some(LaunchBlocker::Capacity)
    } else {
        says(&FAULTS).then_some(LaunchBlocker::Other)
    }
}

#[cfg(test)]
mod tests {
    use ecs_bridge_core::advice;

    use super::*;

    #[test]
    fn runtask_errors_are_classified() {
        use LaunchBlocker::{Access, Capacity, Other};
        use Verdict::{ForGood, ForNow, Unanswered};
        for (code, message, expected) in [
            ("ServerException", "internal", Unanswered),
            ("ThrottlingException", "Rate exceeded", ForNow(Other)),
            ("InvalidParameterException", "Rate exceeded", ForNow(Other)),
            ("InvalidParameterException", "The request was throttled", ForNow(Other)),
            ("InvalidParameterException", "No Container Instances were found in your cluster.", ForNow(Capacity)),
            ("InvalidParameterException", "The image is not valid", ForGood),
            ("ClientException", "You've reached the limit on the number of tasks you can provision", ForNow(Capacity)),
            ("ClientException", "You've reached the limit on the number of vCPUs", ForNow(Capacity)),
            ("ClientException", "TaskDefinition not found.", ForGood),
            ("ClientException", "TaskDefinition is inactive", ForGood),
            ("ClientException", "No Fargate configuration exists for given values.", ForGood),
            ("LimitExceededException", "", ForNow(Capacity)),
            ("AccessDeniedException", "not authorized to perform: ecs:RunTask", ForNow(Access)),
            ("ClusterNotFoundException", "Cluster not found.", ForGood),
            ("BlockedException", "Your account is currently blocked.", ForGood),
            ("ExpiredTokenException", "", ForNow(Other)),
            ("SomethingNew", "", ForNow(Other)),
        ] {
            assert_eq!(verdict(code, message), expected, "{code}: {message}");
            let is_explained = advice::of_refusal(&format!("{code}: {message}")).is_some();
            assert!(is_explained || code == "SomethingNew", "{code}: {message}");
        }
    }
    #[test]
    fn wrapped_service_errors_are_classified() {
        use LaunchBlocker::{Access, Capacity, Other};
        use Verdict::{ForGood, ForNow};
        for (message, expected) in [
            (
                "Error retrieving security group information for [sg-0aa]: Request limit exceeded. (ErrorCode: \
                 RequestLimitExceeded)",
                ForNow(Other),
            ),
            (
                "Error retrieving subnet information for [subnet-0aa]: An internal error has occurred (ErrorCode: \
                 InternalError)",
                ForNow(Other),
            ),
            ("Error retrieving subnet information for [subnet-0aa]: null (ErrorCode: InternalFailure)", ForNow(Other)),
            ("The service is unavailable. Please try again shortly. (ErrorCode: Unavailable)", ForNow(Other)),
            ("Error retrieving subnets (ErrorCode: ServiceUnavailable)", ForNow(Other)),
            ("Error retrieving subnets (ErrorCode: Throttling)", ForNow(Other)),
            ("Error retrieving subnets (ErrorCode: EC2ThrottledException)", ForNow(Other)),
            ("Error retrieving subnets (ErrorCode: RequestTimeout)", ForNow(Other)),
            ("Error (Service: AmazonEC2; Status Code: 503; Error Code: Unavailable; Request ID: 0a)", ForNow(Other)),
            ("Error (Service: Ec2, Status Code: 500, Request ID: 0a)", ForNow(Other)),
            ("You are not authorized to perform this operation. (ErrorCode: UnauthorizedOperation)", ForNow(Access)),
            ("The maximum is reached. (ErrorCode: NetworkInterfaceLimitExceeded)", ForNow(Capacity)),
            ("The subnet has too few. (ErrorCode: InsufficientFreeAddressesInSubnet)", ForNow(Capacity)),
            ("We have too little. (ErrorCode: InsufficientInstanceCapacity)", ForNow(Capacity)),
            (
                "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task.",
                ForNow(Access),
            ),
            ("ECS was unable to assume the infrastructure role 'arn:aws:iam::1:role/x'.", ForNow(Access)),
            ("The infrastructure role arn:aws:iam::1:role/x lacks ec2:CreateVolume.", ForNow(Access)),
            ("Unable to assume the service linked role. Please verify that it exists.", ForNow(Access)),
            ("The ECS service-linked role does not exist.", ForNow(Access)),
        ] {
            for code in ["InvalidParameterException", "ClientException"] {
                assert_eq!(verdict(code, message), expected, "{code}: {message}");
                assert!(advice::of_refusal(&format!("{code}: {message}")).is_some(), "{code}: {message}");
            }
        }
        for message in [
            "The subnet ID 'subnet-0aa' does not exist (ErrorCode: InvalidSubnetID.NotFound)",
            "The specified capacity provider 'gpu-cp' was not found.",
            "Overrides length must be at most 8192",
            "Security group sg-0aa does not exist",
        ] {
            assert_eq!(verdict("InvalidParameterException", message), ForGood, "{message}");
        }
    }

    #[test]
    fn client_exception_means_capacity_only_if_named() {
        use LaunchBlocker::{Capacity, Other};
        use Verdict::{ForGood, ForNow};
        for (message, expected) in [
            ("Invalid 'cpu' setting for task.", ForNow(Other)),
            ("The request cannot be processed.", ForNow(Other)),
            ("", ForNow(Other)),
            ("You've reached the limit on the number of vCPUs you can run concurrently", ForNow(Capacity)),
            ("The service quota of tasks is used up", ForNow(Capacity)),
            ("Capacity is unavailable at this time. Please try again later", ForNow(Capacity)),
            ("The TaskDefinition is inactive", ForGood),
        ] {
            assert_eq!(verdict("ClientException", message), expected, "{message}");
        }
    }
}
