//! The `pool` object of a profile, and the key that its runners and submissions share.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    id::{Deployment, ProfileName},
    record::canonical,
};

/// The limit on command and environment of a pooled submission, in bytes of JSON. They are not sent to RunTask.
pub const WORK_BYTES: usize = 64 * 1024;

/// The version of the input of a pool key. A new version replaces all runners.
const KEY_VERSION: u8 = 2;

/// The `pool` object of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The maximum number of runners, 1 to 10,000.
    pub max: u32,
    /// The minimum number of idle runners.
    #[serde(default)]
    pub min_idle: u32,
    /// The time in seconds after which an idle runner beyond `min_idle` is closed.
    #[serde(default = "five_minutes")]
    pub idle_timeout: u32,
    /// The number of commands that a container runs before it ends.
    #[serde(default = "one")]
    pub commands_per_container: u32,
    /// The time in milliseconds between two polls of an idle runner.
    #[serde(default = "a_second")]
    pub poll_interval_ms: u32,
    /// The command of its containers: the runner program with its arguments.
    #[serde(default = "runner_program")]
    pub runner: Vec<String>,
}

fn runner_program() -> Vec<String> {
    vec!["ecs-bridge-runner".to_owned()]
}

const fn five_minutes() -> u32 {
    300
}

pub(super) const fn one() -> u32 {
    1
}

const fn a_second() -> u32 {
    1000
}

impl Pool {
    /// Returns a text for each value that is out of range.
    pub fn problems(&self) -> Vec<&'static str> {
        let Self { max, min_idle, idle_timeout, commands_per_container, poll_interval_ms, runner } = self;
        let checks = [
            ((1..=10_000).contains(max), "max must be from 1 to 10000"),
            (min_idle <= max, "min_idle must not exceed max"),
            ((30..=86_400).contains(idle_timeout), "idle_timeout must be from 30 to 86400 seconds"),
            ((1..=100_000).contains(commands_per_container), "commands_per_container must be from 1 to 100000"),
            ((100..=60_000).contains(poll_interval_ms), "poll_interval_ms must be from 100 to 60000"),
            (!runner.is_empty(), "runner must be the command of the runner program, at least one string"),
        ];
        checks.into_iter().filter(|(fits, _)| !fits).map(|(_, problem)| problem).collect()
    }
}

/// The key that a submission and its runner share: the profile, and a hash of its `run_task` and of what its runners
/// receive. A changed profile therefore never runs a command in a container of the earlier version. Limits and policy are
/// not part of the key, so a change of them applies to existing runners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolKey(String);

impl PoolKey {
    /// Creates the key of a profile. `choices` are the requests of its own `run_task` and of its fallbacks.
    pub fn of(profile: &ProfileName, choices: &[Map<String, Value>], container_name: &str, pool: &Pool) -> Self {
        let mut digest = Sha256::new();
        for choice in choices {
            digest.update(canonical(&Value::Object(choice.clone())));
            digest.update([0]);
        }
        let Pool { runner, commands_per_container, poll_interval_ms, max: _, min_idle: _, idle_timeout: _ } = pool;
        let content = json!([KEY_VERSION, container_name, runner, commands_per_container, poll_interval_ms]);
        digest.update(canonical(&content));
        let hash: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{profile}#{hash}"))
    }

    /// Returns the partition of the index `pool` for waiting submissions, in the order of their rank.
    pub fn waiting(&self) -> String {
        self.0.clone()
    }

    /// Returns the partition of the index `pool` for runners that have not ended.
    pub fn runners(&self) -> String {
        format!("{}/runners", self.0)
    }

    /// Returns the name of its doorbell, an SQS queue. The deployment stands last, after a fixed number of characters. The
    /// pattern `ecs-bridge-pool-????????????-<deployment>` in a role therefore matches no queue of another deployment.
    pub fn doorbell_name(&self, deployment: &Deployment) -> String {
        let hash: String = Sha256::digest(&self.0).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("ecs-bridge-pool-{hash}-{deployment}")
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
