//! `GET /v1/health`: checks access to the table and the cluster, and checks the profiles against their task
//! definitions.

use std::collections::BTreeMap;

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::http::json_answer;
use ecs_bridge_core::{
    ProfileName, SubmissionId,
    pool::RunnerApiAddress,
    profile::{CompleteOn, Profile},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::App;

/// The version of the functions.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The result of one check.
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

/// Returns a message for each failed check.
fn problems(checks: &[Check]) -> Vec<String> {
    checks.iter().filter_map(|check| Some(format!("{}: {}", check.name, check.message.as_deref()?))).collect()
}

impl App {
    /// Handles `GET /v1/health`. The status is 503 if the table or the cluster fails, otherwise 200.
    ///
    /// A profile that does not match its task definition is a warning, because submissions with other profiles work.
    pub async fn health(&self, request_id: &str) -> LambdaFunctionUrlResponse {
        let vital = [
            Check::new("table", self.reads_table().await),
            Check::new("cluster", self.reaches_cluster(self.clusters.default_cluster()).await),
        ];
        let mut profiles = Vec::new();
        for (name, profile) in self.profiles.iter() {
            let mut result = self.fits(profile).await;
            if !self.clusters.is_default(&profile.cluster) {
                result = result.and(self.reaches_cluster(&profile.cluster).await);
            }
            profiles.push(Check::new(format!("profile {name}"), result));
        }
        let (failures, warnings) = (problems(&vital), problems(&profiles));
        let (deployment, table) = (&self.bridge.rules.deployment, self.bridge.table.name());
        let checks: Vec<_> = vital.iter().chain(&profiles).collect();
        // Callers may need these parts of the profiles: the number of attempts and the conditions for a retry.
        let policies: BTreeMap<_, _> = self.profiles.iter().map(|(name, profile)| (name, &profile.policy)).collect();
        let pools = self.pools();
        if failures.is_empty() {
            return json_answer(
                200,
                &json!({"status": "ok", "version": VERSION, "deployment": deployment, "table": table, "checks": checks, "warnings": warnings,
                        "profiles": policies, "pools": pools}),
            );
        }
        let error = json!({"code": "unhealthy", "message": failures.join("; ")});
        json_answer(
            503,
            &json!({"error": error, "request_id": request_id, "version": VERSION, "deployment": deployment, "table": table, "checks": checks,
                    "warnings": warnings, "profiles": policies, "pools": pools}),
        )
    }

    /// Returns the pools and the addresses that their runners must reach.
    fn pools(&self) -> BTreeMap<&ProfileName, Value> {
        let pooled = self.profiles.iter().filter_map(|(name, profile)| Some((name, &profile.pool.as_ref()?.1)));
        let reaches = match &self.runner_api {
            Some(RunnerApiAddress::Url(url)) => format!("{url}, over the internet: function URLs have no VPC endpoint"),
            Some(RunnerApiAddress::Function(arn)) => {
                format!("Lambda's API, through an interface endpoint or not, for {arn}")
            }
            None => "nothing: this deployment has no runner API".to_owned(),
        };
        pooled
            .map(|(name, pool)| {
                (name, json!({"max": pool.max, "min_idle": pool.min_idle, "runners_must_reach": reaches}))
            })
            .collect()
    }

    async fn reads_table(&self) -> Result<(), String> {
        // Reading this id affects no submission, even if a submission with it exists.
        let id: SubmissionId = "health".parse().map_err(|error| format!("{error}"))?;
        self.bridge.table.get(&id).await.map(drop).map_err(|error| error.to_string())
    }

    async fn reaches_cluster(&self, cluster: &str) -> Result<(), String> {
        match self.bridge.ecs.is_active(cluster).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("cluster {cluster} does not exist or is not ACTIVE")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Checks that the exit of the named container ends the task, in every task definition of the profile.
    async fn fits(&self, profile: &Profile) -> Result<(), String> {
        for family in profile.task_definitions() {
            self.fits_in(profile, family).await?;
        }
        Ok(())
    }

    async fn fits_in(&self, profile: &Profile, family: &str) -> Result<(), String> {
        let name = &profile.container_name;
        let found = self.bridge.ecs.container_definition(family, name).await.map_err(|error| error.to_string())?;
        let Some(container) = found else {
            return Err(format!("task definition {family} has no container called {name}"));
        };
        // `essential` defaults to true (ContainerDefinition in the ECS API Reference).
        if container.essential() == Some(false) {
            return Err(format!("container {name} of {family} is not essential: its task would continue without it"));
        }
        let restarts = container.restart_policy().is_some_and(aws_sdk_ecs::types::ContainerRestartPolicy::enabled);
        if restarts && profile.pool.is_some() {
            return Err(format!(
                "container {name} of {family} has a restart policy, and the container of a pool must not have one: a restarted runner is refused"
            ));
        }
        if restarts && profile.policy.complete_on == CompleteOn::ContainerExit {
            return Err(format!(
                "container {name} of {family} has a restart policy: its exit may not be its last; set complete_on to task_stopped"
            ));
        }
        Ok(())
    }
}
