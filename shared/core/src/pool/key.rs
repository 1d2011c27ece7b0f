//! The `pool` object of a profile, and the key that its runners and submissions share.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    id::{Deployment, ProfileName},
    record::canonical,
};

/// How many bytes of JSON the command and environment of a waiting submission may take. They do not travel in RunTask.
pub const WORK_BYTES: usize = 64 * 1024;

/// The version of what a pool key is made of. Another one replaces all runners.
const KEY_VERSION: u8 = 2;

/// The `pool` object of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// How many runners there are at most, 1 to 10,000.
    pub max: u32,
    /// How many idle runners are kept at least.
    #[serde(default)]
    pub min_idle: u32,
    /// Seconds after which an idle runner above that is closed.
    #[serde(default = "five_minutes")]
    pub idle_timeout: u32,
    /// How many commands a container runs before it ends.
    #[serde(default = "one")]
    pub commands_per_container: u32,
    /// Milliseconds between two requests of an idle runner.
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
    /// Everything that is out of range.
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

/// Which runners may take which submissions: the profile, and a hash of its `run_task` and of what its runners get.
/// Only equal keys meet, so that a changed profile never runs a command in a container of the old one. Limits and policy
/// are not in it: a change of those reaches the pool as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolKey(String);

impl PoolKey {
    /// The key of a profile as it is, with the requests of its own choice and of its fallbacks.
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

    /// The partition of the index `pool` for the submissions that wait, in the order of their rank.
    pub fn waiting(&self) -> String {
        self.0.clone()
    }

    /// The partition of the index `pool` for the runners that are not over.
    pub fn runners(&self) -> String {
        format!("{}/runners", self.0)
    }

    /// The name of its doorbell, an SQS queue. The deployment stands last, after characters whose number is fixed, so that
    /// `ecs-bridge-pool-????????????-<deployment>` in a role names the queues of no other deployment.
    pub fn doorbell_name(&self, deployment: &Deployment) -> String {
        let hash: String = Sha256::digest(&self.0).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("ecs-bridge-pool-{hash}-{deployment}")
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
