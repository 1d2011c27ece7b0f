//! The settings of the ECS emulator.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::definition::TaskDefinitions;
use super::queues::MessageFaults;
use super::task::Location;
use crate::clock::Scale;
use crate::rng::Chance;
use crate::sessions::Sessions;

/// The settings of the ECS emulator.
#[derive(Clone, Debug)]
pub struct EcsSettings {
    /// The parts of its ARNs.
    pub location: Location,
    /// The task definitions.
    pub definitions: TaskDefinitions,
    /// The divisor of ECS's own times.
    pub scale: Scale,
    /// The time from creation to PENDING.
    pub provisioning: Duration,
    /// The time from PENDING to the start of the containers.
    pub pull: Duration,
    /// The time from the exit of the containers to STOPPED.
    pub teardown: Duration,
    /// The age below which a task is unknown to DescribeTasks and ListTasks.
    pub consistency_lag: Duration,
    /// The duration of each call.
    pub api_latency: Duration,
    /// The limit on RunTask calls.
    pub throttle: Option<Throttle>,
    /// The number of tasks that fit into the cluster.
    pub capacity: Option<usize>,
    /// Capacity providers, launch types and subnets that have no capacity at the start.
    pub no_capacity: Vec<String>,
    /// The share of tasks that do not start.
    pub fail_start: f64,
    /// The share of calls that take effect without a successful response.
    pub api_error: f64,
    /// The share of RunTask calls that launch a task and return a failure.
    pub launched_failure: f64,
    /// The faults of SQS.
    pub messages: MessageFaults,
    /// `true` if trivial commands are simulated.
    pub simulate: bool,
    /// Environment variables of every container.
    pub environment: Vec<(String, String)>,
    /// The directory of the containers' output.
    pub log_dir: Option<PathBuf>,
    /// The source of decisions.
    pub chance: Chance,
    /// The roles' sessions of its tasks.
    pub sessions: Arc<Sessions>,
}

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Calls per second.
    pub rate: f64,
    /// The maximum number of calls at once.
    pub burst: f64,
}
