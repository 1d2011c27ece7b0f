//! Task definitions: what containers a task has, as RegisterTaskDefinition takes them.

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
    /// Its name.
    pub family: String,
    /// Counted from 1.
    pub revision: u32,
    /// What it runs.
    pub containers: Vec<ContainerDefinition>,
    /// Task size, as text.
    pub cpu: Option<String>,
    /// Task size, as text.
    pub memory: Option<String>,
    /// `awsvpc` or another.
    pub network_mode: Option<String>,
    /// All of it as it was given, for DescribeTaskDefinition.
    given: Map<String, Value>,
}

/// One container of a task definition; what matters when it runs as a local process.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDefinition {
    /// Its name.
    pub name: String,
    /// Shown, never pulled.
    #[serde(default)]
    pub image: String,
    /// Whether its end is the task's.
    #[serde(default = "essential")]
    pub essential: bool,
    /// Stands before the command.
    #[serde(default)]
    pub entry_point: Vec<String>,
    /// What it runs unless the request says otherwise.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Seconds between SIGTERM and SIGKILL.
    #[serde(default)]
    pub stop_timeout: Option<u64>,
    /// Whether it is started again.
    #[serde(default)]
    pub restart_policy: Option<RestartPolicy>,
    /// Where it runs.
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
    /// Off without it.
    pub enabled: bool,
    /// With these codes it is not started again.
    #[serde(default)]
    pub ignored_exit_codes: Vec<i32>,
    /// Seconds that it must have run to be started again.
    #[serde(default = "restart_attempt_period")]
    pub restart_attempt_period: u64,
}

fn essential() -> bool {
    true
}

fn restart_attempt_period() -> u64 {
    60
}

/// Why task definitions cannot be used.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// Not the JSON that is expected.
    #[error("task definitions are a JSON array of RegisterTaskDefinition requests")]
    Json(#[from] serde_json::Error),
    /// A family without containers.
    #[error("task definition {0} has no containers")]
    NoContainers(String),
    /// Two containers of one name.
    #[error("task definition {0} names two containers alike")]
    SameName(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
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
}

impl TaskDefinitions {
    /// The built-in ones, and those of a file's text; a family of the file replaces a built-in one of that name.
    ///
    /// # Errors
    /// Where the text is not what RegisterTaskDefinition takes.
    pub fn parse(file: Option<&str>) -> Result<Self, DefinitionError> {
        let mut all = Self::default();
        for text in [Some(BUILT_IN), file].into_iter().flatten() {
            for given in serde_json::from_str::<Vec<Map<String, Value>>>(text)? {
                all.add(given)?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, given: Map<String, Value>) -> Result<(), DefinitionError> {
        let known: Known = serde_json::from_value(Value::Object(given.clone()))?;
        let mut names: Vec<_> = known.container_definitions.iter().map(|container| &container.name).collect();
        if names.is_empty() {
            return Err(DefinitionError::NoContainers(known.family));
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(DefinitionError::SameName(known.family));
        }
        let definition = Arc::new(TaskDefinition {
            revision: known.revision.unwrap_or(1),
            family: known.family,
            containers: known.container_definitions,
            cpu: known.cpu,
            memory: known.memory,
            network_mode: known.network_mode,
            given,
        });
        self.0.insert(format!("{}:{}", definition.family, definition.revision), Arc::clone(&definition));
        self.0.insert(definition.family.clone(), definition);
        Ok(())
    }

    /// Finds one by family, `family:revision` or ARN.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<TaskDefinition>> {
        self.0.get(name.rsplit('/').next().unwrap_or(name))
    }
}

impl TaskDefinition {
    /// As DescribeTaskDefinition shows it.
    #[must_use]
    pub fn describe(&self, arn: &str) -> Value {
        let mut shown = self.given.clone();
        // Input members that the output does not have.
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
    fn a_definition_is_found_by_family_revision_and_arn() {
        let all = TaskDefinitions::parse(None).unwrap();
        for name in ["demo", "demo:1", "arn:aws:ecs:us-east-1:123456789012:task-definition/demo:1"] {
            assert_eq!(all.find(name).unwrap().family, "demo", "{name}");
        }
        assert!(all.find("demo:2").is_none());
    }

    #[test]
    fn containers_of_one_name_are_refused() {
        let text = r#"[{"family": "f", "containerDefinitions": [{"name": "a"}, {"name": "a"}]}]"#;
        assert!(matches!(TaskDefinitions::parse(Some(text)), Err(DefinitionError::SameName(_))));
    }
}
