//! `GET /v1/health`: can it do its work, and do the profiles fit their task definitions?

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_core::{
    SubmissionId,
    profile::{CompleteOn, Profile},
};
use serde::Serialize;
use serde_json::json;

use crate::{handler::App, http::json_answer};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, result: Result<(), String>) -> Self {
        Self { name: name.into(), ok: result.is_ok(), message: result.err() }
    }
}

impl App {
    /// Answers `GET /v1/health`: 200 where all is well, else 503 with what is not.
    pub async fn health(&self, request_id: &str) -> LambdaFunctionUrlResponse {
        let mut checks = vec![Check::new("table", self.reads_table().await)];
        checks.push(Check::new("cluster", self.reaches_cluster(self.clusters.default_cluster()).await));
        for (name, profile) in self.profiles.iter() {
            let mut result = self.fits(profile).await;
            if !self.clusters.is_default(&profile.cluster) {
                result = result.and(self.reaches_cluster(&profile.cluster).await);
            }
            checks.push(Check::new(format!("profile {name}"), result));
        }
        let problems: Vec<_> =
            checks.iter().filter_map(|check| Some(format!("{}: {}", check.name, check.message.as_deref()?))).collect();
        if problems.is_empty() {
            return json_answer(200, &json!({"status": "ok", "checks": checks}));
        }
        let error = json!({"code": "unhealthy", "message": problems.join("; ")});
        json_answer(503, &json!({"error": error, "request_id": request_id, "checks": checks}))
    }

    async fn reads_table(&self) -> Result<(), String> {
        // No caller can be hurt by an id that is only read.
        let id: SubmissionId = "health".parse().map_err(|error| format!("{error}"))?;
        self.bridge.table.get(&id).await.map(drop).map_err(|error| error.to_string())
    }

    async fn reaches_cluster(&self, cluster: &str) -> Result<(), String> {
        match self.bridge.ecs.is_active(cluster).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("cluster {cluster} is not there, or not ACTIVE")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the end of the named container is the end of the work.
    async fn fits(&self, profile: &Profile) -> Result<(), String> {
        let (family, name) = (profile.task_definition(), &profile.container_name);
        let found = self.bridge.ecs.container_definition(family, name).await.map_err(|error| error.to_string())?;
        let Some(container) = found else {
            return Err(format!("task definition {family} has no container called {name}"));
        };
        // ECS takes `essential` for true where it is absent.
        if container.essential() == Some(false) {
            return Err(format!("container {name} of {family} is not essential: its task would go on without it"));
        }
        let restarts = container.restart_policy().is_some_and(aws_sdk_ecs::types::ContainerRestartPolicy::enabled);
        if restarts && profile.policy.complete_on == CompleteOn::ContainerExit {
            return Err(format!(
                "container {name} of {family} has a restart policy: its exit may not be its last; set complete_on to task_stopped"
            ));
        }
        Ok(())
    }
}
