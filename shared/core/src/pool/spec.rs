//! What the runners of a pool key are launched with.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    key::{Pool, PoolKey},
    runner::{Runner, TokenHash},
};
use crate::{
    id::{ProfileName, SubmissionId},
    notify::Notify,
    priority::Priority,
    profile::Policy,
    record::{ContentHash, Record, Submission},
    rules::Rules,
    run_task::FrozenRequest,
    time::Timestamp,
};

/// The part of a profile with which its runners are launched. The pool's row keeps it by pool key, so that submissions
/// under an earlier version of the profile still get runners.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// The profile's own RunTask request, without a command.
    pub run_task: FrozenRequest,
    /// The container of the runner program.
    pub container_name: String,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// The profile's policy.
    pub policy: Policy,
    /// The profile's pool.
    pub pool: Pool,
    /// The URL of the SQS queue that announces new submissions to idle runners. None until reconcile has created the queue.
    /// Runners then poll every `poll_interval_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doorbell: Option<String>,
}

/// The address of the runner API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerApiAddress {
    /// The function's URL.
    Url(String),
    /// The function's ARN, for direct invocation.
    Function(String),
}

impl Spec {
    /// Creates the row of a new runner with the secret `token`.
    ///
    /// # Errors
    /// If the stored request cannot be read.
    pub fn runner(
        &self,
        (submission_id, key, profile): (SubmissionId, PoolKey, ProfileName),
        token: &str,
        runner_api: &RunnerApiAddress,
        now: Timestamp,
        rules: &Rules,
    ) -> io::Result<Record> {
        let (variable, address) = match runner_api {
            RunnerApiAddress::Url(url) => ("ECS_BRIDGE_RUNNER_API_URL", url),
            RunnerApiAddress::Function(arn) => ("ECS_BRIDGE_RUNNER_API_FUNCTION", arn),
        };
        let interval = self.pool.poll_interval_ms.to_string();
        let doorbell = self.doorbell.as_deref().map(|url| ("ECS_BRIDGE_DOORBELL_URL", url));
        let variables = [
            (variable, address.as_str()),
            ("ECS_BRIDGE_RUNNER_ID", submission_id.as_str()),
            ("ECS_BRIDGE_RUNNER_TOKEN", token),
            ("ECS_BRIDGE_POLL_INTERVAL_MS", &interval),
        ];
        let variables: Vec<_> = variables.into_iter().chain(doorbell).collect();
        let request = self.run_task.for_runner(&self.container_name, &self.pool.runner, &variables)?;
        let submission = Submission {
            submission_id,
            content_hash: ContentHash::of(&self.pool.runner, &Value::Null, &profile),
            placement: None,
            profile,
            container_name: self.container_name.clone(),
            cluster: self.cluster.clone(),
            policy: self.policy.clone(),
            request,
            labels: BTreeMap::new(),
            launch_deadline: Some(now.plus(rules.timers.runner_launch)),
            priority: Priority::default(),
            pool: None,
            notify: Notify::default(),
        };
        let runner = Runner::new(key, TokenHash::of(token), &self.pool);
        Ok(Record::new_runner(submission, runner, now, rules))
    }
}
