//! Profiles: the named launch configurations of a deployment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, iter,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    id::{AttemptNumber, ProfileName},
    notify::{Listeners, Notify},
    pool::{Pool, PoolKey, Spec, WORK_BYTES},
    record::MOST_ATTEMPTS,
    run_task::{self, FrozenRequest, OVERRIDES_CHARACTERS, REQUEST_BYTES, TAGS_OF_A_TASK},
    task::cluster_name,
};

/// What is retried, and what ends a submission. Each record keeps the policy that it was accepted with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// The number of attempts of a submission, the first included.
    pub max_attempts: AttemptNumber,
    /// After what a container that may have run is launched again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relaunch_on: Vec<Relaunch>,
    /// The number of fallbacks: the choices of a launch are 0, the profile's own `run_task`, and 1 to this.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fallbacks: u8,
    /// What ends a submission.
    #[serde(default, skip_serializing_if = "CompleteOn::is_default")]
    pub complete_on: CompleteOn,
    /// The seconds from launched to running after which the task is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_timeout: Option<u32>,
    /// The seconds from running to the end after which the task is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout: Option<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: AttemptNumber::FIRST.next().and_then(AttemptNumber::next).unwrap_or(AttemptNumber::FIRST),
            relaunch_on: Vec::new(),
            fallbacks: 0,
            complete_on: CompleteOn::ContainerExit,
            launch_timeout: None,
            run_timeout: None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Policy {
    /// Whether it equals the default, so that the row can omit it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A stop code after which a container that may have run is launched again. In JSON just the code where the rest is as by
/// default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "RelaunchForm", into = "RelaunchForm")]
pub struct Relaunch {
    /// The task's `stopCode`.
    pub stop_code: String,
    /// The choice that the next attempt, and any after it, begins with; none leaves it as it is.
    pub fallback: Option<u8>,
    /// Whether the next attempt counts towards `max_attempts`; by default it does.
    pub counts: bool,
}

impl From<&str> for Relaunch {
    fn from(stop_code: &str) -> Self {
        Self { stop_code: stop_code.to_owned(), fallback: None, counts: true }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum RelaunchForm {
    Code(String),
    Full(RelaunchFields),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelaunchFields {
    stop_code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fallback: Option<u8>,
    #[serde(default = "yes", rename = "counts_as_attempt", skip_serializing_if = "is_true")]
    counts: bool,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_true(flag: &bool) -> bool {
    *flag
}

impl From<RelaunchForm> for Relaunch {
    fn from(form: RelaunchForm) -> Self {
        match form {
            RelaunchForm::Code(stop_code) => Self { stop_code, fallback: None, counts: true },
            RelaunchForm::Full(RelaunchFields { stop_code, fallback, counts }) => Self { stop_code, fallback, counts },
        }
    }
}

impl From<Relaunch> for RelaunchForm {
    fn from(Relaunch { stop_code, fallback, counts }: Relaunch) -> Self {
        if fallback.is_none() && counts {
            return Self::Code(stop_code);
        }
        Self::Full(RelaunchFields { stop_code, fallback, counts })
    }
}

/// What ends a submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompleteOn {
    /// The exit of the named container, even if its task is not STOPPED yet.
    #[default]
    ContainerExit,
    /// The end of the task: for containers with a restart policy, which may exit more than once.
    TaskStopped,
}

impl CompleteOn {
    /// Whether it equals the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Stop codes that `relaunch_on` may name: those of tasks that ECS or the host ended, not the command or its caller.
const RELAUNCHABLE: [&str; 5] =
    ["SpotInterruption", "TerminationNotice", "InfrastructureHealth", "TaskFailedToStart", "ServiceSchedulerInitiated"];

/// The most fallbacks of a profile.
const FALLBACKS: usize = 8;

/// The parameters that say on which capacity a task runs. ECS takes one of them.
const CAPACITY: [&str; 2] = ["launchType", "capacityProviderStrategy"];

/// How many of the choices are fallbacks: at most [`FALLBACKS`].
fn fallbacks(choices: &[Map<String, Value>]) -> u8 {
    u8::try_from(choices.len().saturating_sub(1)).unwrap_or(u8::MAX)
}

// ECS's limits on a tag, in characters (`Tag` in the ECS API Reference).
const TAG_KEY: usize = 128;
const TAG_VALUE: usize = 256;

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

/// The clusters that the deployment's roles allow, each by name or ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    default: String,
    others: Vec<String>,
    region: Option<String>,
}

impl Clusters {
    /// The cluster of profiles that name none, and `others`, separated by commas.
    pub fn new(default: &str, others: &str) -> Self {
        let others = others.split(',').map(str::trim).filter(|cluster| !cluster.is_empty());
        Self { default: default.to_owned(), others: others.map(str::to_owned).collect(), region: None }
    }

    /// The same, for functions that run in `region`: the event rule, the roles and ECS's endpoint are those of that Region.
    #[must_use]
    pub fn in_region(self, region: Option<String>) -> Self {
        Self { region, ..self }
    }

    /// The problems of clusters whose ARN names another Region than that of the functions.
    pub fn in_other_regions(&self) -> impl Iterator<Item = String> {
        iter::once(&self.default).chain(&self.others).filter_map(|cluster| self.problem_of_region(cluster))
    }

    /// The problem of a cluster whose ARN names another Region than that of the functions.
    fn problem_of_region(&self, cluster: &str) -> Option<String> {
        let ours = self.region.as_deref()?;
        let theirs = cluster.strip_prefix("arn:")?.split(':').nth(2)?;
        (theirs != ours).then(|| {
            format!(
                "{cluster:?} is in the Region {theirs:?}, and the functions run in {ours:?}: name a cluster of {ours:?}, or \
                 deploy the stack in {theirs:?}"
            )
        })
    }

    /// The cluster of profiles that name none.
    pub fn default_cluster(&self) -> &str {
        &self.default
    }

    /// Whether `cluster` is the default one.
    pub fn is_default(&self, cluster: &str) -> bool {
        is_same_cluster(&self.default, cluster)
    }

    fn contains(&self, cluster: &str) -> bool {
        self.problem_of_region(cluster).is_none()
            && (self.is_default(cluster) || self.others.iter().any(|other| is_same_cluster(other, cluster)))
    }
}

impl fmt::Display for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.default)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

/// Whether both denote one cluster. ECS resolves a name in the caller's account and region; an ARN ends with the name.
fn is_same_cluster(one: &str, other: &str) -> bool {
    let is_arn = |cluster: &str| cluster.starts_with("arn:");
    one == other || (is_arn(one) != is_arn(other) && cluster_name(one) == cluster_name(other))
}

/// A named launch configuration.
#[derive(Clone, Debug)]
pub struct Profile {
    /// RunTask's parameters, `cluster` included: the profile's own, and those of each fallback.
    choices: Vec<Map<String, Value>>,
    /// The labels that become tags of the task.
    tags_from_labels: Vec<String>,
    allow_overrides: Vec<String>,
    clusters: Clusters,
    /// The container that runs the command.
    pub container_name: String,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// What is retried, and what ends a submission.
    pub policy: Policy,
    /// Its runners, if it has a pool.
    pub pool: Option<(PoolKey, Pool)>,
    /// The event bus that is notified of the end of its submissions, by name or ARN.
    pub event_bus: Option<String>,
}

/// A submission's request with its profile.
#[derive(Clone, Debug)]
pub struct Request {
    /// The merged RunTask request.
    pub frozen: FrozenRequest,
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// What is retried, and how.
    pub policy: Policy,
    /// The pool whose runners take the command; none if it is launched in a container of its own.
    pub pool: Option<PoolKey>,
}

/// Why a profile refuses a submission. The texts are for the caller and quote no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A parameter outside the allow-list.
    #[error("the profile does not allow overrides of {}", .0.join(", "))]
    NotAllowed(Vec<String>),
    /// A cluster that the deployment's roles do not allow.
    #[error("cluster: is not a cluster of the deployment; known: {0}")]
    UnknownCluster(Clusters),
    /// Not parameters of RunTask.
    #[error("overrides: {}", .0.iter().map(run_task::Problem::unquoted).collect::<Vec<_>>().join("; "))]
    Malformed(Vec<run_task::Problem>),
    /// ECS would refuse it.
    #[error(
        "command and overrides, with the profile's, are {0} characters of JSON; ECS accepts at most {OVERRIDES_CHARACTERS}"
    )]
    TooLong(usize),
    /// A pool would refuse it.
    #[error("command and environment, with the profile's, are {0} bytes of JSON; a pool accepts at most {WORK_BYTES}")]
    TooMuchWork(usize),
    /// DynamoDB would refuse the record.
    #[error("the request is {0} bytes compressed; a record holds at most {REQUEST_BYTES}")]
    TooLarge(usize),
}

impl Profile {
    /// The request that runs `command` with this profile and `overrides` merged over it, over its fallbacks too.
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
            // The caller says what it is to run on.
            choices.truncate(1);
        }
        for parameters in &mut choices {
            run_task::merge(parameters, overrides);
            run_task::set_command(parameters, &self.container_name, command);
            run_task::add_tags(parameters, self.tags(labels));
        }
        // A runner is launched already: it can do only what takes nothing but environment variables.
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

    /// What the runners of its pool are launched with, and their key; none without a pool.
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

    /// Its task definitions, those of its fallbacks included: family, family:revision, or ARN.
    pub fn task_definitions(&self) -> BTreeSet<&str> {
        self.choices.iter().filter_map(|choice| choice.get("taskDefinition")?.as_str()).collect()
    }

    /// The tags that a task gets from the labels of its submission.
    fn tags<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> impl Iterator<Item = (&'a str, String)> {
        let known = self.tags_from_labels.iter().filter_map(|name| Some((name.as_str(), labels.get(name)?)));
        known.map(|(name, value)| (name, tag_value(value)))
    }
}

/// All profiles of a deployment.
#[derive(Clone, Debug)]
pub struct Profiles(BTreeMap<ProfileName, Profile>);

impl Profiles {
    /// Parses a JSON object of profiles. Each runs on one of `clusters`.
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

    /// The problems of profiles whose `notify` names a bus that the deployment's roles do not allow.
    pub fn unreachable_event_buses(&self, listeners: &Listeners) -> Vec<String> {
        let bus = |profile: &Profile| Some(serde_json::json!({"event_bus": profile.event_bus.as_ref()?}));
        let parsed = self.0.iter().filter_map(|(name, profile)| Some((name, listeners.parse(bus(profile)?))));
        parsed.filter_map(|(name, parsed)| Some(format!("{name}.{}", parsed.err()?))).collect()
    }

    /// The profile called `name`.
    pub fn get(&self, name: &ProfileName) -> Option<&Profile> {
        self.0.get(name)
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &ProfileName> {
        self.0.keys()
    }

    /// All of them, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ProfileName, &Profile)> {
        self.0.iter()
    }
}

/// A label as the value of a tag: what ECS does not take is replaced by `_`, and the rest cut off.
fn tag_value(label: &str) -> String {
    let is_taken = |character: char| character.is_alphanumeric() || " +-=._:/@".contains(character);
    label.chars().take(TAG_VALUE).map(|character| if is_taken(character) { character } else { '_' }).collect()
}

/// Parses one profile, and collects its problems.
struct Reader<'a> {
    profile: &'a str,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn note(&mut self, field: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{}.{field}: {problem}", self.profile));
    }

    fn profile(&mut self, value: Value, clusters: &Clusters) -> Profile {
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
        // A name that is not valid is noted elsewhere.
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
        // A problem of the deployment's own cluster is reported once, with its variable.
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

    /// What a launch may ask for: `run_task`, and the same with each fallback merged over it.
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
        // A path without brackets is that of the profile's own container.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(profiles: Value) -> Result<Profiles, Vec<String>> {
        Profiles::parse(&profiles.to_string(), &Clusters::new("nightly", "big, arn:aws:ecs:eu-west-1:1:cluster/gpu,"))
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = parse(json!({
            "a b": {"run_task": {"taskDefinition": "x"}, "container_name": "main"},
            "etl": {"run_task": {"taskDefinition": "x", "count": 3, "clientToken": "t", "subnets": [], "cluster": "x"},
                    "container_name": "", "max_attempts": 0, "relaunch_on": ["EssentialContainerExited"],
                    "complete_on": "exit", "run_timeout": -1, "allow_overrides": ["overrides.cpus"], "retries": 1},
            "empty": 7,
        }))
        .unwrap_err();
        for expected in [
            "\"a b\": the profile's name must be",
            "etl.run_task: count: is set by the bridge",
            "etl.run_task: clientToken: is set by the bridge",
            "etl.run_task: subnets: is not a parameter here; RunTask has networkConfiguration",
            "etl.run_task.cluster: is not a cluster of the deployment; known: nightly, big, arn:aws",
            "etl.container_name: is required",
            "etl.max_attempts: must be a whole number from 1 to 99",
            "etl.relaunch_on: \"EssentialContainerExited\" is not a stop code to relaunch on",
            "etl.complete_on: must be",
            "etl.run_timeout: must be a whole number of seconds",
            "etl.allow_overrides: \"overrides.cpus\" is not a parameter of RunTask",
            "etl.retries: is not a field of a profile",
            "empty: must be an object",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {problems:#?}");
        }
    }

    fn profile(allow: &[&str]) -> Profile {
        let profiles = parse(json!({"default": {
            "run_task": {"taskDefinition": "etl", "launchType": "FARGATE"}, "container_name": "main", "allow_overrides": allow}}));
        profiles.unwrap().get(&ProfileName::default_profile()).unwrap().clone()
    }

    fn request(allow: &[&str], overrides: Value) -> Result<Request, RequestError> {
        profile(allow).request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new())
    }

    #[test]
    fn the_cluster_of_the_deployment_is_the_default() {
        assert_eq!(request(&[], json!({})).unwrap().cluster, "nightly");
    }

    #[test]
    fn cluster_of_another_region_is_refused() {
        let arn = |region: &str| format!("arn:aws-cn:ecs:{region}:1:cluster/nightly");
        let clusters = |others: &str| Clusters::new("nightly", others).in_region(Some("eu-west-1".to_owned()));
        let parsed = |cluster: &str| {
            let profile = json!({"run_task": {"taskDefinition": "x", "cluster": cluster}, "container_name": "main"});
            Profiles::parse(&json!({"etl": profile}).to_string(), &clusters(&arn("us-east-1")))
        };
        let problems = parsed(&arn("us-east-1")).unwrap_err();
        let expected = "etl.run_task.cluster: \"arn:aws-cn:ecs:us-east-1:1:cluster/nightly\" is in the Region \"us-east-1\", and \
                        the functions run in \"eu-west-1\": ";
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
        assert!(parsed(&arn("eu-west-1")).is_ok() && parsed("nightly").is_ok());

        assert_eq!(clusters(&arn("us-east-1")).in_other_regions().count(), 1);
        assert_eq!(clusters(&arn("eu-west-1")).in_other_regions().count(), 0);
        assert_eq!(Clusters::new(&arn("us-east-1"), "").in_other_regions().count(), 0, "the Region is not set");
        assert!(!clusters("").contains(&arn("us-east-1")) && clusters("").contains(&arn("eu-west-1")));
    }

    #[test]
    fn a_submission_may_name_only_a_cluster_of_the_deployment() {
        let arn = |name: &str| format!("arn:aws:ecs:eu-west-1:1:cluster/{name}");
        let on = |cluster: &str| request(&["cluster"], json!({"cluster": cluster})).map(|request| request.cluster);
        for known in ["nightly", "big", "gpu", &arn("gpu"), &arn("big")] {
            assert_eq!(on(known).unwrap(), known);
        }
        for unknown in ["", "other", "nightl", "cluster/big", &arn("other"), "arn:aws:ecs:us-east-1:1:cluster/gpu"] {
            let error = on(unknown).unwrap_err();
            assert!(matches!(error, RequestError::UnknownCluster(_)), "{unknown}: {error}");
            assert!(error.to_string().ends_with("known: nightly, big, arn:aws:ecs:eu-west-1:1:cluster/gpu"), "{error}");
        }
    }

    #[test]
    fn an_override_that_the_profile_does_not_allow_is_refused_by_name() {
        let error = request(&["overrides.cpu"], json!({"overrides": {"cpu": "512", "memory": "1024"}})).unwrap_err();
        assert_eq!(error.to_string(), "the profile does not allow overrides of overrides.memory");
    }

    #[test]
    fn the_profiles_own_container_may_be_named_in_brackets() {
        let overrides = json!({"overrides": {"containerOverrides": [{"name": "main", "cpu": 1}]}});
        assert!(request(&["overrides.containerOverrides[main].cpu"], overrides.clone()).is_ok());
        assert!(request(&["overrides.containerOverrides[log].cpu"], overrides).is_err());
    }

    /// A profile on Spot with these fallbacks and further fields.
    fn falling_back(fallbacks: Value, more: Value) -> Result<Profile, Vec<String>> {
        let spot = json!([{"capacityProvider": "FARGATE_SPOT"}]);
        let mut profile = json!({
            "run_task": {"taskDefinition": "etl", "capacityProviderStrategy": spot}, "container_name": "main",
            "fallbacks": fallbacks, "allow_overrides": ["*"]
        });
        profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(json!({"default": profile})).map(|all| all.get(&ProfileName::default_profile()).unwrap().clone())
    }

    fn body(request: &Request, choice: u8) -> Value {
        let started_by = crate::StartedBy::parse("prod/a/1").unwrap();
        serde_json::from_str(&request.frozen.body(&started_by, choice).unwrap()).unwrap()
    }

    #[test]
    fn each_choice_is_a_request_of_its_own_with_the_same_command_and_overrides() {
        let fallbacks = json!([
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            {"capacityProviderStrategy": null, "launchType": "EC2", "taskDefinition": "etl-ec2"},
        ]);
        let profile = falling_back(fallbacks, json!({})).unwrap();
        let overrides = json!({"overrides": {"cpu": "512"}});
        let request = profile.request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new()).unwrap();
        assert_eq!(request.policy.fallbacks, 2);
        let bodies: Vec<_> = (0..=2).map(|choice| body(&request, choice)).collect();
        let tokens: BTreeSet<_> = bodies.iter().map(|body| body["clientToken"].as_str().unwrap()).collect();
        assert_eq!(tokens.len(), 3);
        for body in &bodies {
            assert_eq!((&body["startedBy"], &body["overrides"]["cpu"]), (&"prod/a/1".into(), &"512".into()));
            assert_eq!(body["overrides"]["containerOverrides"], json!([{"name": "main", "command": ["true"]}]));
        }
        assert_eq!(bodies[1]["capacityProviderStrategy"][0]["capacityProvider"], "FARGATE");
        assert_eq!((&bodies[2]["launchType"], &bodies[2]["taskDefinition"]), (&"EC2".into(), &"etl-ec2".into()));
        assert!(bodies[2].get("capacityProviderStrategy").is_none());
        assert!(request.frozen.body(&crate::StartedBy::parse("prod/a/1").unwrap(), 3).is_err());
        assert_eq!(profile.task_definitions().into_iter().collect::<Vec<_>>(), ["etl", "etl-ec2"]);
    }

    #[test]
    fn capacity_override_disables_fallbacks() {
        let profile =
            falling_back(json!([{"capacityProviderStrategy": null, "launchType": "EC2"}]), json!({})).unwrap();
        let overrides = json!({"capacityProviderStrategy": [{"capacityProvider": "big"}]});
        let request = profile.request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new()).unwrap();
        assert_eq!(request.policy.fallbacks, 0);
        assert_eq!(body(&request, 0)["capacityProviderStrategy"][0]["capacityProvider"], "big");
    }

    #[test]
    fn fallbacks_that_cannot_be_are_refused_with_the_reason() {
        for (fallbacks, more, expected) in [
            (json!([]), json!({}), "default.fallbacks: must be a list of 1 to 8 objects"),
            (
                json!([{"launchType": "EC2"}]),
                json!({}),
                "default.fallbacks[0]: has launchType and capacityProviderStrategy",
            ),
            (json!([{"cluster": "big"}]), json!({}), "default.fallbacks[0]: cluster: is that of run_task"),
            (
                json!([{"cpu": "1"}]),
                json!({}),
                "default.fallbacks[0]: cpu: is not a parameter here; RunTask has overrides",
            ),
            (json!([{"taskDefinition": null}]), json!({}), "default.fallbacks[0]: taskDefinition: must not be removed"),
            (
                json!([{"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}]),
                json!({}),
                "default.fallbacks[0]: asks for the same as run_task or an earlier fallback",
            ),
            (
                json!([{"platformVersion": "LATEST"}]),
                json!({"relaunch_on": [{"stop_code": "SpotInterruption", "fallback": 2}]}),
                "default.relaunch_on: fallback 2 is none of the 1 fallbacks",
            ),
            (
                json!([{"platformVersion": "LATEST"}]),
                json!({"relaunch_on": ["SpotInterruption", {"stop_code": "SpotInterruption"}]}),
                "default.relaunch_on: names a stop code twice",
            ),
            (
                json!([{"platformVersion": "LATEST"}]),
                json!({"relaunch_on": [{"stop_code": "SpotInterruption", "counts": 1}]}),
                "default.relaunch_on: must be a list of stop codes, or of objects",
            ),
        ] {
            let problems = falling_back(fallbacks, more).unwrap_err();
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn a_relaunch_is_as_short_in_a_row_as_in_a_profile() {
        let full = json!({"stop_code": "SpotInterruption", "fallback": 1, "counts_as_attempt": false});
        for text in [json!("SpotInterruption"), full] {
            let relaunch: Relaunch = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(serde_json::to_value(relaunch).unwrap(), text);
        }
    }

    #[test]
    fn labels_become_tags_that_ecs_takes() {
        let tags = json!([{"key": "team", "value": "data"}, {"key": "dag_id", "value": "the profile's own"}]);
        let run_task = json!({"taskDefinition": "etl", "tags": tags});
        let profile = json!({"run_task": run_task, "container_name": "main",
                             "tags_from_labels": ["dag_id", "task_id", "run_id"]});
        let all = parse(json!({"default": profile})).unwrap();
        let labels = BTreeMap::from([
            ("dag_id".to_owned(), "etl".to_owned()),
            ("task_id".to_owned(), format!("load[{}]", "ä".repeat(300))),
            ("other".to_owned(), "x".to_owned()),
        ]);
        let profile = all.get(&ProfileName::default_profile()).unwrap();
        let request = profile.request(&["true".to_owned()], &Map::new(), &labels).unwrap();
        let cut = format!("load_{}", "ä".repeat(251));
        assert_eq!(
            body(&request, 0)["tags"],
            json!([{"key": "team", "value": "data"}, {"key": "dag_id", "value": "the profile's own"}, {"key": "task_id", "value": cut}])
        );
    }

    #[test]
    fn tags_that_ecs_would_refuse_are_refused_at_start() {
        for (names, expected) in [
            (json!(["aws:dag"]), "is no key of a tag"),
            (json!(["da[g]"]), "is no key of a tag"),
            (json!([""]), "is no key of a tag"),
            (json!((0..51).map(|n| format!("l{n}")).collect::<Vec<_>>()), "a task has at most 50 tags"),
        ] {
            let profile =
                json!({"run_task": {"taskDefinition": "x"}, "container_name": "main", "tags_from_labels": names});
            let problems = parse(json!({"default": profile})).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
        }
    }

    fn pooled(pool: Value, more: Value) -> Result<Profile, Vec<String>> {
        let mut profile = json!({"run_task": {"taskDefinition": "etl"}, "container_name": "main", "pool": pool,
                                 "allow_overrides": ["overrides.cpu", "overrides.containerOverrides"]});
        profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(json!({"default": profile})).map(|all| all.get(&ProfileName::default_profile()).unwrap().clone())
    }

    #[test]
    fn runner_claims_only_environment_overrides() {
        let profile = pooled(json!({"max": 10}), json!({})).unwrap();
        let pool = |overrides: Value| {
            profile.request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new()).unwrap().pool
        };
        let environment = json!([{"name": "A", "value": "1"}]);
        let container = |entry: Value| json!({"overrides": {"containerOverrides": [entry]}});
        assert!(pool(json!({})).is_some());
        assert!(pool(container(json!({"name": "main", "environment": environment}))).is_some());
        assert!(pool(container(json!({"name": "main", "cpu": 256, "environment": environment}))).is_none());
        assert!(pool(json!({"overrides": {"cpu": "256"}})).is_none());
    }

    #[test]
    fn a_pool_accepts_longer_commands_than_ecs() {
        let profile = pooled(json!({"max": 10}), json!({})).unwrap();
        let request = |n: usize| profile.request(&["x".repeat(n)], &Map::new(), &BTreeMap::new());
        assert!(request(60_000).unwrap().pool.is_some());
        let error = request(70_000).unwrap_err();
        assert!(error.to_string().contains("a pool accepts at most 65536"), "{error}");
    }

    #[test]
    fn a_pool_that_cannot_work_is_refused_with_the_reason() {
        for (pool, more, expected) in [
            (json!({"max": 1, "min_idle": 2}), json!({}), "default.pool: min_idle must not exceed max"),
            (json!({"max": 0}), json!({}), "default.pool: max must be from 1 to 10000"),
            (json!({"max": 1, "size": 2}), json!({}), "default.pool: unknown field `size`"),
            (json!({}), json!({}), "default.pool: missing field `max`"),
            (
                json!({"max": 1}),
                json!({"complete_on": "task_stopped"}),
                "default.pool: the container of a pool must not",
            ),
        ] {
            let problems = pooled(pool, more).unwrap_err();
            assert!(problems[0].starts_with(expected), "{problems:?}");
        }
    }

    #[test]
    fn the_request_of_a_runner_is_the_profiles_with_the_runner_program() {
        let profile = pooled(json!({"max": 1, "commands_per_container": 3}), json!({})).unwrap();
        let (key, spec) = profile.spec().unwrap();
        let id: crate::SubmissionId = "runner-1".parse().unwrap();
        let (now, rules) = (crate::decide::tests::now(), crate::decide::tests::rules());
        let work = crate::pool::RunnerApiAddress::Url("https://work".into());
        let record = spec.runner((id, key, ProfileName::default_profile()), "secret", &work, now, &rules).unwrap();
        let body = record.request.as_ref().unwrap().body(&record.started_by(&rules), 0).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let container = &body["overrides"]["containerOverrides"][0];
        assert_eq!(container["command"], json!(["ecs-bridge-runner"]));
        for variable in [
            json!({"name": "ECS_BRIDGE_RUNNER_API_URL", "value": "https://work"}),
            json!({"name": "ECS_BRIDGE_RUNNER_ID", "value": "runner-1"}),
            json!({"name": "ECS_BRIDGE_RUNNER_TOKEN", "value": "secret"}),
            json!({"name": "ECS_BRIDGE_POLL_INTERVAL_MS", "value": "1000"}),
        ] {
            assert!(container["environment"].as_array().unwrap().contains(&variable), "{container}");
        }
        let runner = record.runner().unwrap();
        assert_eq!((runner.commands, runner.token.clone()), (3, crate::pool::TokenHash::of("secret")));
    }

    #[test]
    fn one_character_more_than_ecs_accepts_is_refused_with_the_numbers() {
        let length = |n: usize| profile(&[]).request(&["x".repeat(n)], &Map::new(), &BTreeMap::new());
        let frame = r#"{"containerOverrides":[{"command":[""],"name":"main"}]}"#.len();
        assert!(length(OVERRIDES_CHARACTERS - frame).is_ok());
        let error = length(OVERRIDES_CHARACTERS - frame + 1).unwrap_err();
        assert_eq!(error, RequestError::TooLong(8193));
        assert!(error.to_string().contains("8193") && error.to_string().contains("8192"), "{error}");
    }
}
