//! The other resources of a deployment: functions, queues, rule, alarms, logs, and ECS.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::types::MetricAlarm;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::result::SdkError;
use serde_json::{Map, Value};

use crate::client::connection::{Client, LocalStack, lambda};

/// The clients of the services that a deployment uses.
#[derive(Debug)]
pub struct Account {
    /// The local stack, which emulates only some services.
    pub local: Option<LocalStack>,
    /// The outputs of the stack.
    pub outputs: BTreeMap<String, String>,
    /// CloudWatch.
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    /// ECS.
    pub ecs: aws_sdk_ecs::Client,
    /// EventBridge.
    pub events: aws_sdk_eventbridge::Client,
    /// Lambda.
    pub lambda: aws_sdk_lambda::Client,
    /// CloudWatch Logs.
    pub logs: aws_sdk_cloudwatchlogs::Client,
    /// SQS.
    pub sqs: aws_sdk_sqs::Client,
    /// STS.
    pub sts: aws_sdk_sts::Client,
}

/// The functions of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Accepts submissions.
    Submit,
    /// Handles events.
    TaskState,
    /// Launches queued submissions, and repairs records.
    Reconcile,
    /// Dispatches commands to runners.
    RunnerApi,
}

impl Function {
    /// All functions.
    pub const ALL: [Self; 4] = [Self::Submit, Self::TaskState, Self::Reconcile, Self::RunnerApi];

    /// Returns the output with its name, and its name in a local stack.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Submit => ("SubmitFunctionName", "submit"),
            Self::TaskState => ("TaskStateFunctionName", "task-state"),
            Self::Reconcile => ("ReconcileFunctionName", "reconcile"),
            Self::RunnerApi => ("RunnerApiFunctionName", "runner-api"),
        }
    }

    /// Returns its name without that of the deployment.
    pub const fn short(self) -> &'static str {
        self.names().1
    }
}

/// The names of the alarms, after that of the deployment. Those of function URLs do not exist without function URLs.
///
/// A query by prefix would also find the alarms of other deployments.
const ALARMS: [&str; 28] = [
    "access-denied",
    "profiles-without-capacity",
    "dead-letters",
    "dead-letters-lost",
    "event-age",
    "lost",
    "checks-overdue",
    "pools-failing",
    "pools-stuck",
    "queue-age",
    "reconcile-errors",
    "reconcile-stalled",
    "rejected",
    "missed-events",
    "runners-refused",
    "submit-5xx",
    "submit-errors",
    "submit-throttles",
    "table-throttles",
    "task-state-errors",
    "task-state-throttles",
    "notifications-failed",
    "illegal-changes",
    "unusable-events",
    "orphan-tasks",
    "runner-api-5xx",
    "runner-api-errors",
    "runner-api-throttles",
];

/// The configuration of a function.
#[derive(Debug)]
pub struct Configuration {
    /// Its ARN.
    pub arn: String,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its log group.
    pub log_group: String,
}

impl Account {
    /// Creates the clients of the account of a bridge.
    pub fn of(client: &Client) -> Self {
        let config: &SdkConfig = client.config();
        let local = client.local.clone();
        let mut ecs = aws_sdk_ecs::config::Builder::from(config);
        ecs.set_endpoint_url(local.as_ref().map(|local| local.ecs_url.clone()).or_else(|| endpoint("ECS")));
        Self {
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
            ecs: aws_sdk_ecs::Client::from_conf(ecs.build()),
            events: aws_sdk_eventbridge::Client::new(config),
            lambda: lambda(config, local.as_ref().map(|local| local.lambda_url.clone())),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
            sqs: aws_sdk_sqs::Client::new(config),
            sts: aws_sdk_sts::Client::new(config),
            outputs: client.outputs.clone(),
            local,
        }
    }

    /// Returns `true` if the service exists. For a local stack, other services exist only if an endpoint is set.
    pub fn has(&self, service: &str) -> bool {
        self.local.is_none() || endpoint(service).is_some()
    }

    /// Returns the name of a function.
    pub fn function(&self, function: Function) -> Option<String> {
        let (output, local) = function.names();
        self.outputs.get(output).cloned().or_else(|| self.local.is_some().then(|| local.to_owned()))
    }

    /// Returns the alarms of a deployment. CloudWatch returns up to 100 per page, so there is only one page.
    pub async fn alarms(&self, deployment: &str) -> Result<Vec<MetricAlarm>, String> {
        let names = ALARMS.iter().map(|name| format!("{deployment}-{name}")).collect();
        let request = self.cloudwatch.describe_alarms().set_alarm_names(Some(names)).max_records(100);
        let answer = request.send().await.map_err(|error| error_text(&error))?;
        Ok(answer.metric_alarms.unwrap_or_default())
    }

    /// Reads a function's configuration.
    pub async fn configuration(&self, function: Function) -> Result<Configuration, String> {
        let name = self
            .function(function)
            .ok_or_else(|| format!("cannot find the name of the function {}: pass --stack NAME", function.short()))?;
        let answer = self.lambda.get_function_configuration().function_name(&name).send().await;
        let answer = answer.map_err(|error| error_text(&error))?;
        let variables = answer.environment.and_then(|environment| environment.variables).unwrap_or_default();
        Ok(Configuration {
            arn: answer.function_arn.unwrap_or_default(),
            environment: variables.into_iter().collect(),
            log_group: answer
                .logging_config
                .and_then(|logging| logging.log_group)
                .unwrap_or_else(|| format!("/aws/lambda/{name}")),
        })
    }
}

impl Configuration {
    /// Returns the profiles of the environment. Profiles of a file are in the layer of the functions.
    pub fn profiles(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(self.environment.get("ECS_BRIDGE_PROFILES")?).ok()
    }

    /// Returns the default cluster of profiles.
    pub fn cluster(&self) -> Option<&str> {
        self.environment.get("ECS_BRIDGE_CLUSTER").map(String::as_str)
    }
}

/// Returns the endpoint of a service from the environment.
fn endpoint(service: &str) -> Option<String> {
    [format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL".to_owned()]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Returns code and message of an error of a service, or the cause of a missing response.
pub fn error_text<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => crate::output::with_causes(error),
    }
}
