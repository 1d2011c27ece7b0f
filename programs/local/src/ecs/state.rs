//! The state of the ECS emulator: its tasks, client tokens, rules and counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::definition::{TaskDefinition, TaskDefinitions};
use super::queues::Queues;
use super::rules::Rule;
use super::settings::{EcsSettings, Throttle};
use super::task::{Reader, Task};
use crate::events::Bus;
use crate::faults::Faults;
use crate::http::lock;
use crate::rng::Chance;

/// The time for which ECS describes a stopped task, and keeps its client token.
pub(super) const MEMORY: Duration = Duration::from_secs(60 * 60);

/// The ECS emulator.
#[derive(Debug)]
pub struct Ecs {
    pub(super) settings: EcsSettings,
    pub(super) bus: Arc<Bus>,
    pub(super) faults: Arc<Faults>,
    /// The URL of this server, for the containers' metadata endpoint.
    pub(super) url: String,
    pub(super) definitions: RwLock<TaskDefinitions>,
    pub(super) state: Mutex<State>,
    pub(super) queues: Queues,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tasks: HashMap<String, Task>,
    /// Ids in the order of creation.
    pub(super) order: Vec<String>,
    /// The number of tasks that are not STOPPED.
    pub(super) live: usize,
    pub(super) by_started_by: HashMap<String, Vec<String>>,
    pub(super) tokens: HashMap<String, Token>,
    pub(super) calls: BTreeMap<String, u64>,
    /// The number of calls by their content.
    pub(super) repeats: HashMap<u64, u32>,
    pub(super) bucket: Option<Bucket>,
    pub(super) rules: Vec<Rule>,
    /// The notifications that Step Functions and event buses received.
    pub(super) notifications: Vec<Notification>,
    /// Capacity providers, launch types and subnets without capacity.
    pub(super) without: Vec<String>,
}

/// A client token.
#[derive(Debug)]
pub(super) struct Token {
    /// The hash of the request.
    pub(super) hash: u64,
    pub(super) created: Instant,
    pub(super) tasks: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) tokens: f64,
    pub(super) filled: Instant,
}

/// A notification that was received.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Notification {
    pub(super) operation: String,
    pub(super) at: u64,
    /// The task token, or the name of the bus.
    pub(super) to: String,
    /// The error of a failure.
    pub(super) error: Option<String>,
    /// Its content: output, cause or detail.
    pub(super) end: Value,
}

/// Returns a hash that is the same in every run.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    Chance::new(0).number("body", &String::from_utf8_lossy(bytes))
}

/// Returns the ID of a task from its ARN or ID.
pub(super) fn task_id(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

impl Ecs {
    /// Creates a cluster without tasks.
    #[must_use]
    pub fn new(settings: EcsSettings, bus: Arc<Bus>, faults: Arc<Faults>, url: String) -> Self {
        let state = State { without: settings.no_capacity.clone(), ..State::default() };
        let definitions = RwLock::new(settings.definitions.clone());
        Self { settings, bus, faults, url, definitions, state: Mutex::new(state), queues: Queues::default() }
    }

    /// Counts the call. Returns the number of calls with the same content, including this one.
    pub(super) fn count(&self, operation: &str, body: &[u8]) -> u32 {
        let mut state = lock(&self.state);
        *state.calls.entry(operation.to_owned()).or_default() += 1;
        let repeats = state.repeats.entry(hash_of(body) ^ hash_of(operation.as_bytes())).or_default();
        *repeats += 1;
        *repeats
    }

    pub(super) fn within_rate(&self) -> bool {
        let Some(Throttle { rate, burst }) = self.settings.throttle else { return true };
        let mut state = lock(&self.state);
        let now = Instant::now();
        let bucket = state.bucket.get_or_insert(Bucket { tokens: burst, filled: now });
        bucket.tokens = burst.min(bucket.tokens + rate * (now - bucket.filled).as_secs_f64());
        bucket.filled = now;
        let passes = bucket.tokens >= 1.0;
        if passes {
            bucket.tokens -= 1.0;
        }
        passes
    }

    pub(super) fn is_this_cluster(&self, name: &str) -> bool {
        name == self.settings.location.cluster || name == self.settings.location.cluster_arn()
    }

    /// Returns the task definition with this family, `family:revision` or ARN.
    pub(super) fn definition(&self, name: &str) -> Option<Arc<TaskDefinition>> {
        self.definitions.read().unwrap_or_else(PoisonError::into_inner).find(name).cloned()
    }

    pub(super) fn show(&self, task: &Task, with_tags: bool) -> Value {
        let mut shown = task.describe(&self.settings.location, &self.settings.chance, Reader::Api);
        if !with_tags {
            shown.insert("tags".into(), json!([]));
        }
        Value::Object(shown)
    }

    /// Returns a task that ECS would return now.
    pub(super) fn known<'state>(&self, state: &'state State, id: &str) -> Option<&'state Task> {
        let task = state.tasks.get(id)?;
        let too_old = task.stopped.is_some_and(|at| at.elapsed() > self.settings.scale.shorten(MEMORY));
        let too_young = task.times.created_at.elapsed() < self.settings.consistency_lag;
        (!too_old && !too_young && !task.forgotten).then_some(task)
    }
}
