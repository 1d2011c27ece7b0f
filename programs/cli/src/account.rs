//! What belongs to a bridge besides API and table: its functions, queues, rule, alarms and logs, and ECS.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::types::MetricAlarm;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::result::SdkError;
use serde_json::{Map, Value};

use crate::bridge::{Bridge, LocalStack, lambda};

/// The clients of the services that a deployed bridge consists of.
#[derive(Debug)]
pub struct Account {
    /// Where it is local, and thus most of AWS is not there.
    pub local: Option<LocalStack>,
    /// The stack's outputs.
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

/// The functions of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Takes submissions.
    Submit,
    /// Takes events.
    TaskState,
    /// Repairs.
    Reconcile,
    /// Dispatches commands to runners.
    RunnerApi,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Submit, Self::TaskState, Self::Reconcile, Self::RunnerApi];

    /// The output of its name, and the name that it has in a local stack.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Submit => ("SubmitFunctionName", "submit"),
            Self::TaskState => ("TaskStateFunctionName", "task-state"),
            Self::Reconcile => ("ReconcileFunctionName", "reconcile"),
            Self::RunnerApi => ("RunnerApiFunctionName", "runner-api"),
        }
    }

    /// Its name without the deployment's.
    pub const fn short(self) -> &'static str {
        self.names().1
    }
}

/// What the names of the deployment's alarms have after its own; those of URLs are absent without URLs.
///
/// By name: a prefix would find the alarms of every deployment whose name begins alike.
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

/// What a function's configuration says.
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
    /// The account that a bridge is in.
    pub fn of(bridge: &Bridge) -> Self {
        let config: &SdkConfig = bridge.config();
        let local = bridge.local.clone();
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
            outputs: bridge.outputs.clone(),
            local,
        }
    }

    /// Whether there is such a service: a local stack has none of AWS's others but where an endpoint is set.
    pub fn has(&self, service: &str) -> bool {
        self.local.is_none() || endpoint(service).is_some()
    }

    /// The name of a function.
    pub fn function(&self, function: Function) -> Option<String> {
        let (output, local) = function.names();
        self.outputs.get(output).cloned().or_else(|| self.local.is_some().then(|| local.to_owned()))
    }

    /// The alarms of a deployment that exist. CloudWatch returns up to 100 on a page, so there is one.
    pub async fn alarms(&self, deployment: &str) -> Result<Vec<MetricAlarm>, String> {
        let names = ALARMS.iter().map(|name| format!("{deployment}-{name}")).collect();
        let request = self.cloudwatch.describe_alarms().set_alarm_names(Some(names)).max_records(100);
        let answer = request.send().await.map_err(|error| words(&error))?;
        Ok(answer.metric_alarms.unwrap_or_default())
    }

    /// Reads a function's configuration.
    pub async fn configuration(&self, function: Function) -> Result<Configuration, String> {
        let name = self
            .function(function)
            .ok_or_else(|| format!("cannot find the name of the function {}: pass --stack NAME", function.short()))?;
        let answer = self.lambda.get_function_configuration().function_name(&name).send().await;
        let answer = answer.map_err(|error| words(&error))?;
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
    /// The profiles, where they are in the environment: those of a file are in the functions' layer.
    pub fn profiles(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(self.environment.get("ECS_BRIDGE_PROFILES")?).ok()
    }

    /// The cluster of profiles that name none.
    pub fn cluster(&self) -> Option<&str> {
        self.environment.get("ECS_BRIDGE_CLUSTER").map(String::as_str)
    }
}

/// The endpoint of a service in the environment.
fn endpoint(service: &str) -> Option<String> {
    [format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL".to_owned()]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Code and message of a service's error, or why there is none.
pub fn words<E, R>(error: &SdkError<E, R>) -> String
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
