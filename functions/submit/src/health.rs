//! `GET /v1/health`: whether the function reaches table and cluster, and whether the profiles fit their task
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

use crate::handler::App;

/// The version of the functions.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One thing that was checked.
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

/// The failed ones of `checks`, in words.
fn problems(checks: &[Check]) -> Vec<String> {
    checks.iter().filter_map(|check| Some(format!("{}: {}", check.name, check.message.as_deref()?))).collect()
}

impl App {
    /// Answers `GET /v1/health`: 503 where table or cluster fails, else 200.
    ///
    /// A profile that does not fit its task definition is a warning: the submissions of the others work.
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
        // The parts of the profiles that a caller may need: how often, and after what, a command is run again.
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

    /// The pools, and what their runners must be able to reach.
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
        // Reading this id affects no submission, even where one has it.
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

    /// Whether the end of the named container is the end of the work, in every task definition of the profile.
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
        // `essential` is true where it is absent (ContainerDefinition in the ECS API Reference).
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
