//! The RunTask request: its validation, with ECS's messages.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::behavior::{SHAPE_TAG, SHAPE_VARIABLE, Shapes};
use super::definition::{TaskDefinition, Variable};
use super::error::{ApiError, parse};

/// The limit on overrides, in characters of JSON.
const MAX_OVERRIDES: usize = 8_192;

/// The maximum memory of a Fargate task, in MiB.
const MOST_MEMORY: u64 = 120 * 1_024;

/// A valid RunTask request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) count: usize,
    pub(super) started_by: Option<String>,
    pub(super) client_token: Option<String>,
    pub(super) group: Option<String>,
    pub(super) launch_type: String,
    pub(super) capacity_provider: Option<String>,
    pub(super) subnets: Vec<String>,
    pub(super) enable_execute_command: bool,
    pub(super) overrides: Overrides,
    pub(super) tags: Value,
    pub(super) shapes: Shapes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overrides {
    #[serde(default, rename = "containerOverrides")]
    pub(super) containers: Vec<ContainerOverride>,
    #[serde(default)]
    pub(super) cpu: Option<String>,
    #[serde(default)]
    pub(super) memory: Option<String>,
    #[serde(default)]
    pub(super) task_role_arn: Option<String>,
    #[serde(skip)]
    given: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ContainerOverride {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) command: Option<Vec<String>>,
    #[serde(default)]
    pub(super) environment: Vec<Variable>,
}

impl Overrides {
    /// Returns the overrides in the format of a task, with the lists that are always present.
    pub(super) fn shown(&self) -> Value {
        let mut shown = self.given.as_object().cloned().unwrap_or_default();
        shown.entry("containerOverrides").or_insert_with(|| json!([]));
        shown.entry("inferenceAcceleratorOverrides").or_insert_with(|| json!([]));
        Value::Object(shown)
    }
}

/// The members that matter here. ECS's protocol ignores unknown ones.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    #[serde(default)]
    capacity_provider_strategy: Option<Vec<CapacityProvider>>,
    #[serde(default)]
    count: Option<i64>,
    #[serde(default)]
    enable_execute_command: Option<bool>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    launch_type: Option<String>,
    #[serde(default)]
    network_configuration: Option<NetworkConfiguration>,
    #[serde(default)]
    overrides: Option<Value>,
    #[serde(default)]
    propagate_tags: Option<String>,
    #[serde(default)]
    started_by: Option<String>,
    #[serde(default)]
    tags: Option<Vec<Tag>>,
    #[serde(default)]
    client_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CapacityProvider {
    capacity_provider: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkConfiguration {
    #[serde(default)]
    awsvpc_configuration: Option<AwsVpcConfiguration>,
}

#[derive(Deserialize)]
struct AwsVpcConfiguration {
    #[serde(default)]
    subnets: Vec<String>,
}

#[derive(Deserialize)]
struct Tag {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
}

impl Request {
    /// Validates a request against ECS's limits.
    pub(super) fn parse(body: &Value, definition: &Arc<TaskDefinition>) -> Result<Self, ApiError> {
        let input: Input = parse(body)?;
        let count = input.count.unwrap_or(1);
        if !(1..=10).contains(&count) {
            return Err(ApiError::invalid("Task count should be between 1 and 10."));
        }
        check_token(input.client_token.as_deref())?;
        check_started_by(input.started_by.as_deref())?;
        check_launch(&input, definition)?;
        check_resources(&input)?;
        let tags = input.tags.unwrap_or_default();
        check_tags(&tags)?;
        if let Some(other) = input.propagate_tags.filter(|from| !matches!(from.as_str(), "TASK_DEFINITION" | "NONE")) {
            return Err(ApiError::invalid(format!("Invalid value for propagateTags: {other}")));
        }

        let given = input.overrides.unwrap_or_else(|| json!({}));
        if given.to_string().chars().count() > MAX_OVERRIDES {
            return Err(ApiError::invalid("Container Overrides length must be at most 8192"));
        }
        let mut overrides: Overrides = parse(&given)?;
        overrides.given = given;
        for container in &overrides.containers {
            let name = container.name.as_deref().unwrap_or_default();
            if !definition.containers.iter().any(|defined| defined.name == name) {
                let message = format!("Override for container named {name} is not a container in the TaskDefinition.");
                return Err(ApiError::invalid(message));
            }
        }

        let mut shapes = Shapes::default();
        let from_tags = tags.iter().filter(|tag| tag.key == SHAPE_TAG).map(|tag| &tag.value);
        let variables = overrides.containers.iter().flat_map(|container| &container.environment);
        let from_environment =
            variables.filter(|variable| variable.name == SHAPE_VARIABLE).map(|variable| &variable.value);
        for words in from_tags.chain(from_environment) {
            shapes.extend(&words.parse().map_err(|error| ApiError::invalid(format!("{error}")))?);
        }

        let network = input.network_configuration.and_then(|network| network.awsvpc_configuration);
        let provider = input.capacity_provider_strategy.and_then(|strategy| strategy.into_iter().next());
        Ok(Self {
            count: usize::try_from(count).unwrap_or(1),
            started_by: input.started_by,
            client_token: input.client_token,
            group: input.group,
            launch_type: input.launch_type.unwrap_or_else(|| "EC2".into()),
            capacity_provider: provider.map(|provider| provider.capacity_provider),
            subnets: network.map(|network| network.subnets).unwrap_or_default(),
            enable_execute_command: input.enable_execute_command.unwrap_or(false),
            overrides,
            tags: tags.into_iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect(),
            shapes,
        })
    }

    /// Returns true if `without` contains its capacity provider (or launch type), or all of its subnets.
    pub(super) fn needs(&self, without: &[String]) -> bool {
        let capacity = self.capacity_provider.as_ref().unwrap_or(&self.launch_type);
        let is_without = |name: &String| without.contains(name);
        is_without(capacity) || (!self.subnets.is_empty() && self.subnets.iter().all(is_without))
    }

    /// Returns the identity of the request, for decisions that are the same in every run.
    pub(super) fn identity(&self) -> &str {
        self.started_by.as_deref().or(self.client_token.as_deref()).unwrap_or_default()
    }
}

fn check_token(token: Option<&str>) -> Result<(), ApiError> {
    let valid = |token: &str| (1..=64).contains(&token.len()) && token.bytes().all(|byte| (33..=126).contains(&byte));
    if token.is_none_or(valid) {
        return Ok(());
    }
    Err(ApiError::invalid("Invalid clientToken: up to 64 ASCII characters in the range of 33-126 are allowed."))
}

fn check_started_by(started_by: Option<&str>) -> Result<(), ApiError> {
    let Some(text) = started_by else { return Ok(()) };
    if text.chars().count() > 128 {
        return Err(ApiError::invalid("startedBy must have at most 128 characters."));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/')) {
        return Err(ApiError::invalid(
            "Invalid startedBy: letters, numbers, hyphens, underscores and slashes are allowed.",
        ));
    }
    Ok(())
}

fn check_launch(input: &Input, definition: &TaskDefinition) -> Result<(), ApiError> {
    if let Some(other) = input
        .launch_type
        .as_deref()
        .filter(|kind| !matches!(*kind, "EC2" | "FARGATE" | "EXTERNAL" | "MANAGED_INSTANCES"))
    {
        return Err(ApiError::invalid(format!("Invalid launchType: {other}")));
    }
    if input.launch_type.is_some() && input.capacity_provider_strategy.is_some() {
        let message =
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.";
        return Err(ApiError::invalid(message));
    }
    if definition.network_mode.as_deref() == Some("awsvpc") {
        let network = input.network_configuration.as_ref().and_then(|network| network.awsvpc_configuration.as_ref());
        let Some(network) = network else {
            let message = "Network Configuration must be provided when networkMode 'awsvpc' is specified.";
            return Err(ApiError::invalid(message));
        };
        if network.subnets.is_empty() {
            return Err(ApiError::invalid("subnets can not be empty."));
        }
    }
    Ok(())
}

/// Rejects subnets that cannot exist, such as `subnet-0`, and memory above the maximum of Fargate.
fn check_resources(input: &Input) -> Result<(), ApiError> {
    let network = input.network_configuration.as_ref().and_then(|network| network.awsvpc_configuration.as_ref());
    let subnets = network.map(|network| network.subnets.as_slice()).unwrap_or_default();
    if let Some(id) = subnets.iter().find(|id| id.trim_start_matches("subnet-").bytes().all(|digit| digit == b'0')) {
        return Err(ApiError::invalid(format!(
            "Error retrieving subnet information for [{id}]: The subnet ID '{id}' does not exist (ErrorCode: InvalidSubnetID.NotFound)"
        )));
    }
    let memory = input.overrides.as_ref().and_then(|overrides| overrides.get("memory")?.as_str()?.parse::<u64>().ok());
    if let Some(memory) = memory.filter(|memory| *memory > MOST_MEMORY) {
        return Err(ApiError::invalid(format!("No Fargate configuration exists for given values: {memory} memory.")));
    }
    Ok(())
}

fn check_tags(tags: &[Tag]) -> Result<(), ApiError> {
    if tags.len() > 50 {
        return Err(ApiError::invalid("Too many tags: at most 50 are allowed."));
    }
    for tag in tags {
        if !(1..=128).contains(&tag.key.chars().count()) || tag.value.chars().count() > 256 {
            return Err(ApiError::invalid("A tag's key has 1 to 128 characters, its value at most 256."));
        }
    }
    Ok(())
}
