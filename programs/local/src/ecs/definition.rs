//! Task definitions, in the format of RegisterTaskDefinition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

const BUILT_IN: &str = include_str!("definitions.json");

/// All task definitions, by family and by `family:revision`.
#[derive(Clone, Debug, Default)]
pub struct TaskDefinitions(BTreeMap<String, Arc<TaskDefinition>>);

/// One revision of a family.
#[derive(Clone, Debug)]
pub struct TaskDefinition {
    /// The name of the family.
    pub family: String,
    /// The revision number, from 1.
    pub revision: u32,
    /// Its containers.
    pub containers: Vec<ContainerDefinition>,
    /// Task CPU, as text.
    pub cpu: Option<String>,
    /// Task memory, as text.
    pub memory: Option<String>,
    /// The network mode, such as `awsvpc`.
    pub network_mode: Option<String>,
    /// The role of its tasks.
    pub task_role_arn: Option<String>,
    /// The request that registered it, for DescribeTaskDefinition.
    given: Map<String, Value>,
}

/// The parts of a container definition that matter for a local process.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDefinition {
    /// Its name.
    pub name: String,
    /// Its image, which is never pulled.
    #[serde(default)]
    pub image: String,
    /// `true` if the task ends when this container exits.
    #[serde(default = "essential")]
    pub essential: bool,
    /// The entry point, before the command.
    #[serde(default)]
    pub entry_point: Vec<String>,
    /// The command, unless the request overrides it.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Seconds between SIGTERM and SIGKILL.
    #[serde(default)]
    pub stop_timeout: Option<u64>,
    /// Its restart policy.
    #[serde(default)]
    pub restart_policy: Option<RestartPolicy>,
    /// Its working directory.
    #[serde(default)]
    pub working_directory: Option<std::path::PathBuf>,
}

/// An environment variable as ECS writes it.
#[derive(Clone, Debug, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// ECS's container restart policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartPolicy {
    /// `true` if it applies.
    pub enabled: bool,
    /// The exit codes after which it is not restarted.
    #[serde(default)]
    pub ignored_exit_codes: Vec<i32>,
    /// The minimum runtime before a restart, in seconds.
    #[serde(default = "restart_attempt_period")]
    pub restart_attempt_period: u64,
}

fn essential() -> bool {
    true
}

fn restart_attempt_period() -> u64 {
    60
}

/// The cause of invalid task definitions.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// The text is not an array of requests.
    #[error("task definitions must be a JSON array of RegisterTaskDefinition requests")]
    Json(#[from] serde_json::Error),
    /// The family has no containers.
    #[error("task definition \"{0}\": containerDefinitions must contain at least one container")]
    NoContainers(String),
    /// Two containers have the same name.
    #[error("task definition \"{0}\": each container must have another name")]
    SameName(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    family: String,
    #[serde(default)]
    revision: Option<u32>,
    container_definitions: Vec<ContainerDefinition>,
    #[serde(default)]
    cpu: Option<String>,
    #[serde(default)]
    memory: Option<String>,
    #[serde(default)]
    network_mode: Option<String>,
    #[serde(default)]
    task_role_arn: Option<String>,
}

impl TaskDefinitions {
    /// Parses the task definitions of a file and adds the built-in ones. A family of the file replaces a built-in one
    /// with that name.
    ///
    /// # Errors
    /// If the text is not an array of RegisterTaskDefinition requests.
    pub fn parse(file: Option<&str>) -> Result<Self, DefinitionError> {
        let mut all = Self::default();
        for text in [Some(BUILT_IN), file].into_iter().flatten() {
            for given in serde_json::from_str::<Vec<Map<String, Value>>>(text)? {
                all.add(given)?;
            }
        }
        Ok(all)
    }

    /// Adds the next revision of a family, as RegisterTaskDefinition does.
    ///
    /// # Errors
    /// If the request is not valid.
    pub fn register(&mut self, mut given: Map<String, Value>) -> Result<Arc<TaskDefinition>, DefinitionError> {
        let family = given.get("family").and_then(Value::as_str).unwrap_or_default();
        let next = self.find(family).map_or(1, |latest| latest.revision + 1);
        given.insert("revision".into(), next.into());
        self.add(given)
    }

    /// Removes a revision, and returns it.
    pub fn deregister(&mut self, name: &str) -> Option<Arc<TaskDefinition>> {
        let gone = self.0.remove(name.rsplit('/').next().unwrap_or(name))?;
        self.0.remove(&gone.family);
        let left = self.all().filter(|other| other.family == gone.family).max_by_key(|other| other.revision).cloned();
        if let Some(latest) = left {
            self.0.insert(gone.family.clone(), latest);
        }
        Some(gone)
    }

    /// Returns all revisions.
    pub fn all(&self) -> impl Iterator<Item = &Arc<TaskDefinition>> {
        self.0.iter().filter(|(name, _)| name.contains(':')).map(|(_, definition)| definition)
    }

    fn add(&mut self, given: Map<String, Value>) -> Result<Arc<TaskDefinition>, DefinitionError> {
        let registration: Registration = serde_json::from_value(Value::Object(given.clone()))?;
        let mut names: Vec<_> = registration.container_definitions.iter().map(|container| &container.name).collect();
        if names.is_empty() {
            return Err(DefinitionError::NoContainers(registration.family));
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(DefinitionError::SameName(registration.family));
        }
        let definition = Arc::new(TaskDefinition {
            revision: registration.revision.unwrap_or(1),
            family: registration.family,
            containers: registration.container_definitions,
            cpu: registration.cpu,
            memory: registration.memory,
            network_mode: registration.network_mode,
            task_role_arn: registration.task_role_arn,
            given,
        });
        self.0.insert(format!("{}:{}", definition.family, definition.revision), Arc::clone(&definition));
        self.0.insert(definition.family.clone(), Arc::clone(&definition));
        Ok(definition)
    }

    /// Returns the task definition for a family, `family:revision` or ARN.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<TaskDefinition>> {
        self.0.get(name.rsplit('/').next().unwrap_or(name))
    }
}

impl TaskDefinition {
    /// Formats the definition as in DescribeTaskDefinition.
    #[must_use]
    pub fn describe(&self, arn: &str) -> Value {
        let mut shown = self.given.clone();
        // The response does not contain these members of the request.
        shown.remove("tags");
        shown.insert("taskDefinitionArn".into(), arn.into());
        shown.insert("revision".into(), self.revision.into());
        shown.insert("status".into(), "ACTIVE".into());
        for (member, empty) in [("volumes", json!([])), ("placementConstraints", json!([]))] {
            shown.entry(member).or_insert(empty);
        }
        Value::Object(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_found_by_family_revision_and_arn() {
        let all = TaskDefinitions::parse(None).unwrap();
        for name in ["demo", "demo:1", "arn:aws:ecs:us-east-1:123456789012:task-definition/demo:1"] {
            assert_eq!(all.find(name).unwrap().family, "demo", "{name}");
        }
        assert!(all.find("demo:2").is_none());
    }

    #[test]
    fn duplicate_container_names_are_rejected() {
        let text = r#"[{"family": "f", "containerDefinitions": [{"name": "a"}, {"name": "a"}]}]"#;
        assert!(matches!(TaskDefinitions::parse(Some(text)), Err(DefinitionError::SameName(_))));
    }
}
