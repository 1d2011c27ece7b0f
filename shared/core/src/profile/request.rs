//! Profiles, and the request that a submission becomes with its profile.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    clusters::Clusters,
    policy::Policy,
    read::{CAPACITY, Reader, fallbacks},
};
use crate::{
    id::ProfileName,
    notify::Listeners,
    pool::{Pool, PoolKey, Spec, WORK_BYTES},
    run_task::{self, FrozenRequest, OVERRIDES_CHARACTERS, REQUEST_BYTES},
};

// ECS's limits on a tag, in characters (`Tag` in the ECS API Reference).
pub(super) const TAG_KEY: usize = 128;
const TAG_VALUE: usize = 256;

/// A named launch configuration.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The RunTask parameters, including `cluster`, of its own `run_task` and of each fallback.
    pub(super) choices: Vec<Map<String, Value>>,
    /// The labels that become tags of the task.
    pub(super) tags_from_labels: Vec<String>,
    pub(super) allow_overrides: Vec<String>,
    pub(super) clusters: Clusters,
    /// The container that runs the command.
    pub container_name: String,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// What is retried, and what ends a submission.
    pub policy: Policy,
    /// Its pool, if any.
    pub pool: Option<(PoolKey, Pool)>,
    /// The event bus that is notified when its submissions end, by name or ARN.
    pub event_bus: Option<String>,
}

/// The request of a submission, merged with its profile.
#[derive(Clone, Debug)]
pub struct Request {
    /// The merged RunTask request.
    pub frozen: FrozenRequest,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// What is retried, and how.
    pub policy: Policy,
    /// The pool key whose runners claim it, or none if it is launched as a task of its own.
    pub pool: Option<PoolKey>,
}

/// The reason why a profile rejects a submission. The texts are for the caller and quote no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The submission overrides a parameter that the profile does not allow.
    #[error("the profile does not allow overrides of {}", .0.join(", "))]
    NotAllowed(Vec<String>),
    /// The deployment's roles do not allow the cluster.
    #[error("cluster: is not a cluster of the deployment; known: {0}")]
    UnknownCluster(Clusters),
    /// The overrides are not valid RunTask parameters.
    #[error("overrides: {}", .0.iter().map(run_task::Problem::unquoted).collect::<Vec<_>>().join("; "))]
    Malformed(Vec<run_task::Problem>),
    /// The request exceeds a limit of ECS.
    #[error(
        "command and overrides, with the profile's, are {0} characters of JSON; ECS accepts at most {OVERRIDES_CHARACTERS}"
    )]
    TooLong(usize),
    /// The request exceeds a limit of pools.
    #[error("command and environment, with the profile's, are {0} bytes of JSON; a pool accepts at most {WORK_BYTES}")]
    TooMuchWork(usize),
    /// The record exceeds the limit of DynamoDB.
    #[error("the request is {0} bytes compressed; a record holds at most {REQUEST_BYTES}")]
    TooLarge(usize),
}

impl Profile {
    /// Returns the request that runs `command`, with `overrides` merged over this profile and its fallbacks.
    ///
    /// # Errors
    /// If `overrides` is invalid, sets something that the profile does not allow, or names a cluster that the deployment
    /// does not have; if the request is too large for ECS, a pool or DynamoDB.
    pub fn request(
        &self,
        command: &[String],
        overrides: &Map<String, Value>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Request, RequestError> {
        let problems = run_task::check(overrides);
        if !problems.is_empty() {
            return Err(RequestError::Malformed(problems));
        }
        let refused = run_task::not_allowed(overrides, &self.allow_overrides, &self.container_name);
        if !refused.is_empty() {
            return Err(RequestError::NotAllowed(refused));
        }
        let mut choices = self.choices.clone();
        if CAPACITY.iter().any(|name| overrides.contains_key(*name)) {
            // The caller selects the capacity.
            choices.truncate(1);
        }
        for parameters in &mut choices {
            run_task::merge(parameters, overrides);
            run_task::set_command(parameters, &self.container_name, command);
            run_task::add_tags(parameters, self.tags(labels));
        }
        // A runner is already launched, so only environment variables can differ.
        let pool = self.pool.as_ref().filter(|_| run_task::is_environment_of(overrides, &self.container_name));
        let pool = pool.map(|(key, _)| key.clone());
        let characters = choices.iter().map(run_task::overrides_characters).max().unwrap_or_default();
        if pool.is_none() && characters > OVERRIDES_CHARACTERS {
            return Err(RequestError::TooLong(characters));
        }
        let first = choices.first();
        let cluster = first.and_then(|first| first.get("cluster")?.as_str()).unwrap_or(&self.cluster).to_owned();
        if !self.clusters.contains(&cluster) {
            return Err(RequestError::UnknownCluster(self.clusters.clone()));
        }
        let bytes = first.and_then(|first| first.get("overrides")).map_or(0, |overrides| overrides.to_string().len());
        if pool.is_some() && bytes > WORK_BYTES {
            return Err(RequestError::TooMuchWork(bytes));
        }
        let frozen = FrozenRequest::freeze(&choices);
        if frozen.bytes() > REQUEST_BYTES {
            return Err(RequestError::TooLarge(frozen.bytes()));
        }
        let policy = Policy { fallbacks: fallbacks(&choices), ..self.policy.clone() };
        Ok(Request { frozen, cluster, policy, pool })
    }

    /// Returns the pool key and the spec of its runners, or none if it has no pool.
    pub fn spec(&self) -> Option<(PoolKey, Spec)> {
        let (key, pool) = self.pool.clone()?;
        let spec = Spec {
            run_task: FrozenRequest::freeze(&self.choices),
            container_name: self.container_name.clone(),
            cluster: self.cluster.clone(),
            policy: self.policy.clone(),
            pool,
            doorbell: None,
        };
        Some((key, spec))
    }

    /// Returns its task definitions, including those of its fallbacks, as family, family:revision or ARN.
    pub fn task_definitions(&self) -> BTreeSet<&str> {
        self.choices.iter().filter_map(|choice| choice.get("taskDefinition")?.as_str()).collect()
    }

    /// Returns the tags of a task that come from the labels of its submission.
    fn tags<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> impl Iterator<Item = (&'a str, String)> {
        let known = self.tags_from_labels.iter().filter_map(|name| Some((name.as_str(), labels.get(name)?)));
        known.map(|(name, value)| (name, tag_value(value)))
    }
}

/// All profiles of a deployment.
#[derive(Clone, Debug)]
pub struct Profiles(BTreeMap<ProfileName, Profile>);

impl Profiles {
    /// Parses a JSON object of profiles. Each must run on one of `clusters`.
    ///
    /// # Errors
    /// All problems of all profiles.
    pub fn parse(text: &str, clusters: &Clusters) -> Result<Self, Vec<String>> {
        let all: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| vec![format!("not a JSON object: {error}")])?;
        let mut problems = Vec::new();
        if all.is_empty() {
            problems.push("at least one profile is required".to_owned());
        }
        let mut profiles = BTreeMap::new();
        for (name, value) in all {
            let mut reader = Reader { profile: &name, problems: &mut problems };
            let profile = reader.profile(value, clusters);
            match ProfileName::try_from(name.clone()) {
                Ok(name) => drop(profiles.insert(name, profile)),
                Err(error) => problems.push(format!("{name:?}: {error}")),
            }
        }
        if problems.is_empty() { Ok(Self(profiles)) } else { Err(problems) }
    }

    /// Returns a text for each profile whose `notify` names an event bus that the deployment's roles do not allow.
    pub fn unreachable_event_buses(&self, listeners: &Listeners) -> Vec<String> {
        let bus = |profile: &Profile| Some(serde_json::json!({"event_bus": profile.event_bus.as_ref()?}));
        let parsed = self.0.iter().filter_map(|(name, profile)| Some((name, listeners.parse(bus(profile)?))));
        parsed.filter_map(|(name, parsed)| Some(format!("{name}.{}", parsed.err()?))).collect()
    }

    /// Returns the profile `name`.
    pub fn get(&self, name: &ProfileName) -> Option<&Profile> {
        self.0.get(name)
    }

    /// Returns the names in order.
    pub fn names(&self) -> impl Iterator<Item = &ProfileName> {
        self.0.keys()
    }

    /// Returns all profiles, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ProfileName, &Profile)> {
        self.0.iter()
    }
}

/// Returns a label as the value of a tag. Characters that ECS rejects become `_`, and the text is shortened to the limit.
pub(super) fn tag_value(label: &str) -> String {
    let is_taken = |character: char| character.is_alphanumeric() || " +-=._:/@".contains(character);
    label.chars().take(TAG_VALUE).map(|character| if is_taken(character) { character } else { '_' }).collect()
}
