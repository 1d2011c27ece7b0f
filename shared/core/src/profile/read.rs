//! The reader of one profile, which collects all of its problems.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use super::{
    clusters::Clusters,
    policy::{CompleteOn, Policy, Relaunch},
    request::{Profile, TAG_KEY, tag_value},
};
use crate::{
    id::{AttemptNumber, ProfileName},
    notify::Notify,
    pool::{Pool, PoolKey},
    record::MOST_ATTEMPTS,
    run_task::{self, TAGS_OF_A_TASK},
};

/// The stop codes that `relaunch_on` permits: those of tasks that ECS or the host ended, not the command or its caller.
const RELAUNCHABLE: [&str; 5] =
    ["SpotInterruption", "TerminationNotice", "InfrastructureHealth", "TaskFailedToStart", "ServiceSchedulerInitiated"];

/// The limit on fallbacks of a profile.
const FALLBACKS: usize = 8;

/// The parameters that select the capacity of a task. ECS accepts one of them.
pub(super) const CAPACITY: [&str; 2] = ["launchType", "capacityProviderStrategy"];

/// Returns the number of fallbacks among the choices, at most [`FALLBACKS`].
pub(super) fn fallbacks(choices: &[Map<String, Value>]) -> u8 {
    u8::try_from(choices.len().saturating_sub(1)).unwrap_or(u8::MAX)
}

const FIELDS: [&str; 12] = [
    "run_task",
    "fallbacks",
    "tags_from_labels",
    "container_name",
    "allow_overrides",
    "max_attempts",
    "relaunch_on",
    "complete_on",
    "launch_timeout",
    "run_timeout",
    "pool",
    "notify",
];

/// Parses one profile, and collects its problems.
pub(super) struct Reader<'a> {
    pub(super) profile: &'a str,
    pub(super) problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn note(&mut self, field: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{}.{field}: {problem}", self.profile));
    }

    pub(super) fn profile(&mut self, value: Value, clusters: &Clusters) -> Profile {
        let Value::Object(mut fields) = value else {
            self.problems.push(format!("{}: must be an object", self.profile));
            return Profile {
                choices: Vec::new(),
                tags_from_labels: Vec::new(),
                allow_overrides: Vec::new(),
                clusters: clusters.clone(),
                container_name: String::new(),
                cluster: String::new(),
                policy: Policy::default(),
                pool: None,
                event_bus: None,
            };
        };
        for unknown in fields.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
            self.problems.push(format!(
                "{}.{unknown}: is not a field of a profile; known: {}",
                self.profile,
                FIELDS.join(", ")
            ));
        }
        let run_task = self.run_task(fields.remove("run_task"), clusters);
        let cluster = run_task.get("cluster").and_then(Value::as_str).unwrap_or_default().to_owned();
        let container_name = self.container_name(fields.remove("container_name"));
        let choices = self.choices(run_task, fields.remove("fallbacks"));
        let pool = self.pool(fields.remove("pool"), &choices, &container_name);
        let fallbacks = fallbacks(&choices);
        let profile = Profile {
            tags_from_labels: self.tags_from_labels(fields.remove("tags_from_labels"), &choices),
            allow_overrides: self.allow_overrides(fields.remove("allow_overrides"), &container_name),
            container_name,
            policy: Policy {
                max_attempts: self.max_attempts(fields.remove("max_attempts")),
                relaunch_on: self.relaunch_on(fields.remove("relaunch_on"), fallbacks),
                fallbacks,
                complete_on: self.complete_on(fields.remove("complete_on")),
                launch_timeout: self.seconds("launch_timeout", fields.remove("launch_timeout")),
                run_timeout: self.seconds("run_timeout", fields.remove("run_timeout")),
            },
            clusters: clusters.clone(),
            cluster,
            choices,
            pool,
            event_bus: self.event_bus(fields.remove("notify")),
        };
        if profile.pool.is_some() && profile.policy.complete_on == CompleteOn::TaskStopped {
            self.note(
                "pool",
                "the container of a pool must not have a restart policy, so complete_on must be container_exit",
            );
        }
        profile
    }

    fn pool(
        &mut self,
        value: Option<Value>,
        choices: &[Map<String, Value>],
        container_name: &str,
    ) -> Option<(PoolKey, Pool)> {
        let pool: Pool = match serde_json::from_value(value?) {
            Ok(pool) => pool,
            Err(error) => {
                self.note("pool", format_args!("{error}; valid is, for example, {{\"max\": 100, \"min_idle\": 2}}"));
                return None;
            }
        };
        pool.problems().into_iter().for_each(|problem| self.note("pool", problem));
        // Invalid names are reported elsewhere.
        let profile = ProfileName::try_from(self.profile.to_owned()).ok()?;
        Some((PoolKey::of(&profile, choices, container_name, &pool), pool))
    }

    fn event_bus(&mut self, notify: Option<Value>) -> Option<String> {
        match serde_json::from_value(notify?) {
            Ok(Notify { task_token: None, event_bus: Some(bus) }) if !bus.is_empty() => Some(bus),
            _ => {
                self.note("notify", "must be {\"event_bus\": NAME}; a task token belongs to a submission");
                None
            }
        }
    }

    fn run_task(&mut self, value: Option<Value>, clusters: &Clusters) -> Map<String, Value> {
        let Some(Value::Object(mut run_task)) = value else {
            self.note("run_task", "is required: an object of RunTask's parameters");
            return Map::new();
        };
        for problem in run_task::check(&run_task) {
            self.note("run_task", problem);
        }
        if run_task.get("taskDefinition").and_then(Value::as_str).is_none_or(str::is_empty) {
            self.note("run_task.taskDefinition", "is required: family, family:revision, or ARN");
        }
        // A problem of the deployment's default cluster is reported once, with its variable.
        let Some(cluster) = run_task.get("cluster").and_then(Value::as_str) else {
            run_task.entry("cluster").or_insert_with(|| clusters.default.as_str().into());
            return run_task;
        };
        if let Some(problem) = clusters.problem_of_region(cluster) {
            self.note("run_task.cluster", problem);
        } else if !clusters.contains(cluster) {
            let problem = format_args!("is not a cluster of the deployment; known: {clusters}");
            self.note("run_task.cluster", problem);
        }
        run_task
    }

    /// Returns the requests of a launch: `run_task`, and `run_task` with each fallback merged over it.
    fn choices(&mut self, run_task: Map<String, Value>, fallbacks: Option<Value>) -> Vec<Map<String, Value>> {
        let patches = match fallbacks.map(serde_json::from_value::<Vec<Map<String, Value>>>) {
            None => Vec::new(),
            Some(Ok(patches)) if (1..=FALLBACKS).contains(&patches.len()) => patches,
            Some(_) => {
                let example = "[{\"capacityProviderStrategy\": [{\"capacityProvider\": \"FARGATE\"}]}]";
                self.note(
                    "fallbacks",
                    format_args!(
                        "must be a list of 1 to {FALLBACKS} objects of RunTask's parameters, such as {example}"
                    ),
                );
                Vec::new()
            }
        };
        let mut choices = vec![run_task];
        for (index, patch) in patches.iter().enumerate() {
            let field = format!("fallbacks[{index}]");
            for problem in run_task::check(&run_task::without_nulls(patch)) {
                self.note(&field, problem);
            }
            for name in ["cluster", "tags"].into_iter().filter(|name| patch.contains_key(*name)) {
                self.note(&field, format_args!("{name}: is that of run_task for every fallback; leave it out"));
            }
            let mut choice = choices.first().cloned().unwrap_or_default();
            run_task::merge(&mut choice, patch);
            if CAPACITY.iter().all(|name| choice.contains_key(*name)) {
                self.note(
                    &field,
                    "has launchType and capacityProviderStrategy, of which ECS takes one; remove the other by null",
                );
            }
            if choice.get("taskDefinition").is_none() {
                self.note(&field, "taskDefinition: must not be removed");
            }
            if choices.contains(&choice) {
                self.note(&field, "asks for the same as run_task or an earlier fallback");
            }
            choices.push(choice);
        }
        choices
    }

    fn tags_from_labels(&mut self, value: Option<Value>, choices: &[Map<String, Value>]) -> Vec<String> {
        let names = self.texts("tags_from_labels", value);
        let of_profile = choices.first().and_then(|first| first.get("tags")?.as_array()).map_or(0, Vec::len);
        if names.len() + of_profile > TAGS_OF_A_TASK {
            self.note(
                "tags_from_labels",
                format_args!("with those of run_task, a task has at most {TAGS_OF_A_TASK} tags"),
            );
        }
        for name in &names {
            let is_key = (1..=TAG_KEY).contains(&name.chars().count()) && *name == tag_value(name);
            if !is_key || name.to_ascii_lowercase().starts_with("aws:") {
                self.note(
                    "tags_from_labels",
                    format_args!(
                        "{name:?} is no key of a tag: 1 to {TAG_KEY} letters, digits, spaces or + - = . _ : / @, not \
                         beginning with aws:"
                    ),
                );
            }
        }
        names
    }

    fn container_name(&mut self, value: Option<Value>) -> String {
        match value {
            Some(Value::String(name)) if (1..=255).contains(&name.len()) => name,
            _ => {
                self.note(
                    "container_name",
                    "is required: the name, in the task definition, of the container that runs the command",
                );
                String::new()
            }
        }
    }

    fn texts(&mut self, field: &str, value: Option<Value>) -> Vec<String> {
        match value.map(serde_json::from_value::<Vec<String>>) {
            None => Vec::new(),
            Some(Ok(texts)) => texts,
            Some(Err(_)) => {
                self.note(field, "must be a list of strings");
                Vec::new()
            }
        }
    }

    fn allow_overrides(&mut self, value: Option<Value>, container_name: &str) -> Vec<String> {
        let allowed = self.texts("allow_overrides", value);
        for entry in &allowed {
            if entry != "*" && !run_task::is_allow_entry(entry) {
                self.note(
                    "allow_overrides",
                    format_args!(
                        "{entry:?} is not a parameter of RunTask; valid entries are, for example, \"overrides.cpu\" and \"taskDefinition=etl-*\""
                    ),
                );
            } else if run_task::OURS.contains(&entry.as_str()) {
                self.note("allow_overrides", format_args!("{entry:?} is set by the bridge"));
            }
        }
        // A path without brackets means the profile's own container.
        let own = format!("[{container_name}]");
        allowed.iter().map(|entry| entry.replace(&own, "")).collect()
    }

    fn max_attempts(&mut self, value: Option<Value>) -> AttemptNumber {
        match value.map(serde_json::from_value::<AttemptNumber>) {
            None => Policy::default().max_attempts,
            Some(Ok(attempts)) if attempts.get() <= MOST_ATTEMPTS => attempts,
            Some(Ok(_) | Err(_)) => {
                self.note("max_attempts", "must be a whole number from 1 to 99");
                AttemptNumber::FIRST
            }
        }
    }

    fn relaunch_on(&mut self, value: Option<Value>, fallbacks: u8) -> Vec<Relaunch> {
        let relaunches = match value.map(serde_json::from_value::<Vec<Relaunch>>) {
            None => Vec::new(),
            Some(Ok(relaunches)) => relaunches,
            Some(Err(_)) => {
                self.note(
                    "relaunch_on",
                    "must be a list of stop codes, or of objects such as {\"stop_code\": \"SpotInterruption\", \
                     \"fallback\": 1, \"counts_as_attempt\": false}",
                );
                Vec::new()
            }
        };
        for Relaunch { stop_code, fallback, .. } in &relaunches {
            if !RELAUNCHABLE.contains(&stop_code.as_str()) {
                self.note(
                    "relaunch_on",
                    format_args!("{stop_code:?} is not a stop code to relaunch on; known: {}", RELAUNCHABLE.join(", ")),
                );
            }
            if let Some(fallback) = fallback.filter(|fallback| *fallback > fallbacks) {
                self.note(
                    "relaunch_on",
                    format_args!(
                        "fallback {fallback} is none of the {fallbacks} fallbacks; 1 is the first, 0 run_task itself"
                    ),
                );
            }
        }
        let codes: BTreeSet<_> = relaunches.iter().map(|relaunch| &relaunch.stop_code).collect();
        if codes.len() < relaunches.len() {
            self.note("relaunch_on", "names a stop code twice");
        }
        relaunches
    }

    fn complete_on(&mut self, value: Option<Value>) -> CompleteOn {
        match value.map(serde_json::from_value) {
            None => CompleteOn::default(),
            Some(Ok(complete_on)) => complete_on,
            Some(Err(_)) => {
                self.note("complete_on", "must be \"container_exit\" or \"task_stopped\"");
                CompleteOn::default()
            }
        }
    }

    fn seconds(&mut self, field: &str, value: Option<Value>) -> Option<u32> {
        match value.map(serde_json::from_value::<u32>) {
            None => None,
            Some(Ok(seconds)) if seconds > 0 => Some(seconds),
            Some(_) => {
                self.note(field, "must be a whole number of seconds, at least 1");
                None
            }
        }
    }
}
