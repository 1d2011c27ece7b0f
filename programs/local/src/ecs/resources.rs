//! The cluster and the task definitions.

use std::sync::{Arc, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::definition::TaskDefinition;
use super::error::{ApiError, parse};
use super::state::Ecs;
use super::task::Status;
use crate::http::lock;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamesDefinition {
    #[serde(default)]
    pub(super) task_definition: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListTaskDefinitions {
    /// A full family name, although the parameter is called a prefix.
    #[serde(default)]
    pub(super) family_prefix: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DescribeClusters {
    #[serde(default)]
    pub(super) clusters: Vec<String>,
}

impl Ecs {
    pub(super) fn describe_clusters(&self, input: &DescribeClusters) -> Result<Value, ApiError> {
        let (mut clusters, mut failures) = (Vec::new(), Vec::new());
        let default = ["default".to_owned()];
        let names = if input.clusters.is_empty() { default.as_slice() } else { input.clusters.as_slice() };
        if names.len() > 100 {
            return Err(ApiError::invalid("Clusters cannot be more than 100."));
        }
        let location = &self.settings.location;
        for name in names {
            if self.is_this_cluster(name) {
                let state = lock(&self.state);
                let count =
                    |wanted: fn(Status) -> bool| state.tasks.values().filter(|task| wanted(task.status)).count();
                clusters.push(json!({
                    "clusterArn": location.cluster_arn(), "clusterName": location.cluster, "status": "ACTIVE",
                    "runningTasksCount": count(|status| status == Status::Running),
                    "pendingTasksCount": count(|status| status < Status::Running),
                    "activeServicesCount": 0, "registeredContainerInstancesCount": 0,
                    "capacityProviders": ["FARGATE", "FARGATE_SPOT"], "defaultCapacityProviderStrategy": [],
                    "settings": [], "statistics": [], "tags": [],
                }));
            } else {
                let arn =
                    if name.starts_with("arn:") { name.clone() } else { location.arn(&format!("cluster/{name}")) };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
        Ok(json!({"clusters": clusters, "failures": failures}))
    }

    pub(super) fn describe_task_definition(&self, input: &NamesDefinition) -> Result<Value, ApiError> {
        let name = input.task_definition.as_deref().unwrap_or_default();
        let definition = self.definition(name);
        let definition =
            definition.ok_or_else(|| ApiError::new("ClientException", "Unable to describe task definition."))?;
        let arn = self.settings.location.definition_arn(&definition);
        Ok(json!({"taskDefinition": definition.describe(&arn), "tags": []}))
    }

    pub(super) fn register_task_definition(&self, body: &Value) -> Result<Value, ApiError> {
        let given: Map<String, Value> = parse(body)?;
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let definition =
            definitions.register(given).map_err(|error| ApiError::new("ClientException", error.to_string()))?;
        Ok(json!({"taskDefinition": definition.describe(&self.settings.location.definition_arn(&definition))}))
    }

    pub(super) fn deregister_task_definition(&self, input: &NamesDefinition) -> Result<Value, ApiError> {
        let name = input.task_definition.as_deref().unwrap_or_default();
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let gone = definitions
            .deregister(name)
            .ok_or_else(|| ApiError::new("ClientException", "The specified task definition does not exist."))?;
        let mut shown = gone.describe(&self.settings.location.definition_arn(&gone));
        if let Some(members) = shown.as_object_mut() {
            members.insert("status".into(), "INACTIVE".into());
        }
        Ok(json!({"taskDefinition": shown}))
    }

    pub(super) fn list_task_definitions(&self, input: &ListTaskDefinitions) -> Result<Value, ApiError> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_family = |definition: &&Arc<TaskDefinition>| {
            input.family_prefix.as_ref().is_none_or(|family| *family == definition.family)
        };
        let arns =
            definitions.all().filter(of_family).map(|definition| self.settings.location.definition_arn(definition));
        Ok(json!({"taskDefinitionArns": arns.collect::<Vec<_>>()}))
    }
}
