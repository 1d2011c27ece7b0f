//! RunTask's request: its shape, how overrides are merged into it, and how it is kept until it is sent.
//!
//! It stays JSON in ECS's own spelling from the profile to the wire, so that whatever runs with `RUN_TASK_KWARGS`
//! runs here; the shape below only tells a misspelt parameter from a right one.

use std::io::{self, Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::id::StartedBy;

/// ECS's limit on `overrides`, in characters of JSON ("the total number of characters allowed for overrides").
pub const OVERRIDES_CHARACTERS: usize = 8192;

/// RunTask's parameters that are the bridge's own.
pub const OURS: [&str; 3] = ["count", "startedBy", "clientToken"];

/// Parameters that decide under which rights, where and as what a task runs. An allow-list opens them only by naming
/// them in full.
const GUARDED: [&str; 5] = [
    "cluster",
    "taskDefinition",
    "overrides.taskRoleArn",
    "overrides.executionRoleArn",
    "volumeConfigurations.managedEBSVolume.roleArn",
];

const CONTAINER_OVERRIDES: &str = "overrides.containerOverrides";

/// The shape of a parameter.
enum Shape {
    Text,
    Number,
    Flag,
    List(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{Flag, List, Number, Object, Text};

const TEXTS: Shape = List(&Text);
const TAGS: Shape = List(&Object(&[("key", Text), ("value", Text)]));

/// RunTask's request, by botocore's service model of ECS.
const RUN_TASK: Shape = Object(&[
    ("capacityProviderStrategy", List(&Object(&[("capacityProvider", Text), ("weight", Number), ("base", Number)]))),
    ("cluster", Text),
    ("count", Number),
    ("enableECSManagedTags", Flag),
    ("enableExecuteCommand", Flag),
    ("group", Text),
    ("launchType", Text),
    (
        "networkConfiguration",
        Object(&[(
            "awsvpcConfiguration",
            Object(&[("subnets", TEXTS), ("securityGroups", TEXTS), ("assignPublicIp", Text)]),
        )]),
    ),
    (
        "overrides",
        Object(&[
            ("containerOverrides", List(&CONTAINER_OVERRIDE)),
            ("cpu", Text),
            ("inferenceAcceleratorOverrides", List(&Object(&[("deviceName", Text), ("deviceType", Text)]))),
            ("executionRoleArn", Text),
            ("memory", Text),
            ("taskRoleArn", Text),
            ("ephemeralStorage", Object(&[("sizeInGiB", Number)])),
        ]),
    ),
    ("placementConstraints", List(&Object(&[("type", Text), ("expression", Text)]))),
    ("placementStrategy", List(&Object(&[("type", Text), ("field", Text)]))),
    ("platformVersion", Text),
    ("propagateTags", Text),
    ("referenceId", Text),
    ("startedBy", Text),
    ("tags", TAGS),
    ("taskDefinition", Text),
    ("clientToken", Text),
    ("volumeConfigurations", List(&Object(&[("name", Text), ("managedEBSVolume", MANAGED_EBS_VOLUME)]))),
]);

const CONTAINER_OVERRIDE: Shape = Object(&[
    ("name", Text),
    ("command", TEXTS),
    ("environment", List(&Object(&[("name", Text), ("value", Text)]))),
    ("environmentFiles", List(&Object(&[("value", Text), ("type", Text)]))),
    ("cpu", Number),
    ("memory", Number),
    ("memoryReservation", Number),
    (
        "resourceRequirements",
        List(&Object(&[
            ("value", Text),
            ("type", Text),
            ("sharingStrategy", Object(&[("nvidiaMps", Object(&[("memory", Number), ("maxComputePercent", Number)]))])),
        ])),
    ),
]);

const MANAGED_EBS_VOLUME: Shape = Object(&[
    ("encrypted", Flag),
    ("kmsKeyId", Text),
    ("volumeType", Text),
    ("sizeInGiB", Number),
    ("snapshotId", Text),
    ("volumeInitializationRate", Number),
    ("iops", Number),
    ("throughput", Number),
    ("tagSpecifications", List(&Object(&[("resourceType", Text), ("tags", TAGS), ("propagateTags", Text)]))),
    ("roleArn", Text),
    ("terminationPolicy", Object(&[("deleteOnTermination", Flag)])),
    ("filesystemType", Text),
]);

/// What is wrong with RunTask parameters: where, and what would be right. Never the value itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Problem {
    /// Where, in dots: `overrides.containerOverrides.cpu`.
    pub path: String,
    /// The same with `*` for a name that RunTask does not have.
    place: String,
    /// What.
    pub problem: String,
}

impl Problem {
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: path.to_owned(), problem: problem.into() }
    }

    /// As a stranger may read it: nothing of what was sent, not even a name.
    pub fn unquoted(&self) -> String {
        format!("{}: {}", self.place, self.problem)
    }
}

/// Everything in `parameters` that is no RunTask parameter, is of another type, or is the bridge's own.
pub fn check(parameters: &Map<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in OURS.into_iter().filter(|name| parameters.contains_key(*name)) {
        problems.push(Problem::new(name, "is set by the bridge; leave it out"));
    }
    check_object(parameters, &RUN_TASK, "", &mut problems);
    problems
}

fn check_object(object: &Map<String, Value>, shape: &Shape, path: &str, problems: &mut Vec<Problem>) {
    let Object(members) = shape else { return };
    for (name, value) in object {
        match members.iter().find(|(member, _)| member == name) {
            Some((_, shape)) => check_value(value, shape, &join(path, name), problems),
            None => {
                let known: Vec<_> = members.iter().map(|(member, _)| *member).collect();
                let problem = format!("is no parameter of RunTask; known here: {}", known.join(", "));
                problems.push(Problem { path: join(path, name), place: join(path, "*"), problem });
            }
        }
    }
    if path == CONTAINER_OVERRIDES && !object.contains_key("name") {
        problems.push(Problem::new(path, "each entry needs the name of its container"));
    }
}

fn check_value(value: &Value, shape: &Shape, path: &str, problems: &mut Vec<Problem>) {
    let wanted = match (shape, value) {
        (Text, Value::String(text)) if text.contains('\0') => "must not contain NUL characters",
        (Text, Value::String(_)) | (Flag, Value::Bool(_)) => return,
        (Number, Value::Number(number)) if number.is_i64() => return,
        (List(item), Value::Array(items)) => {
            return items.iter().for_each(|value| check_value(value, item, path, problems));
        }
        (Object(_), Value::Object(members)) => return check_object(members, shape, path, problems),
        (Text, _) => "must be a string",
        (Number, _) => "must be a whole number",
        (Flag, _) => "must be true or false",
        (List(_), _) => "must be a list",
        (Object(_), _) => "must be an object",
    };
    problems.push(Problem::new(path, wanted));
}

/// Whether `path` names a parameter of RunTask, at any depth.
pub(crate) fn is_parameter(path: &str) -> bool {
    let mut shape = &RUN_TASK;
    path.split('.').all(|name| {
        while let List(item) = shape {
            shape = item;
        }
        let Object(members) = shape else { return false };
        match members.iter().find(|(member, _)| *member == name) {
            Some((_, inner)) => shape = inner,
            None => return false,
        }
        true
    })
}

/// The parameters that `overrides` sets and `allowed` does not open, in dots.
pub fn not_allowed(overrides: &Map<String, Value>, allowed: &[String]) -> Vec<String> {
    let mut paths = Vec::new();
    leaves(&Value::Object(overrides.clone()), "", &mut paths);
    paths.retain(|path| !is_allowed(path, allowed));
    paths.sort();
    paths.dedup();
    paths
}

fn is_allowed(path: &str, allowed: &[String]) -> bool {
    // The name only says which container an override is for.
    path == "overrides.containerOverrides.name"
        || allowed.iter().any(|entry| match GUARDED.iter().find(|guarded| covers(guarded, path)) {
            Some(guarded) => entry == guarded,
            None => entry == "*" || covers(entry, path),
        })
}

fn covers(entry: &str, path: &str) -> bool {
    path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn leaves(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(name, value)| leaves(value, &join(path, name), paths));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| leaves(item, path, paths));
        }
        // The root itself is no parameter.
        Value::Object(_) if path.is_empty() => {}
        _ => paths.push(path.to_owned()),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Merges `over` into `base`: objects member by member, container overrides by the container's name; all else
/// is replaced.
pub fn merge(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    merge_at(base, over, "");
}

fn merge_at(base: &mut Map<String, Value>, over: &Map<String, Value>, path: &str) {
    for (name, value) in over {
        let path = join(path, name);
        match (base.get_mut(name), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge_at(base, over, &path),
            (Some(Value::Array(base)), Value::Array(over)) if path == CONTAINER_OVERRIDES => {
                over.iter().for_each(|entry| merge_container(base, entry, &path));
            }
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge_container(entries: &mut Vec<Value>, over: &Value, path: &str) {
    match (entries.iter_mut().find(|entry| entry["name"] == over["name"]), over) {
        (Some(Value::Object(base)), Value::Object(over)) => merge_at(base, over, path),
        _ => entries.push(over.clone()),
    }
}

/// Makes `command` what the container `name` runs.
pub fn set_command(parameters: &mut Map<String, Value>, name: &str, command: &[String]) {
    let entry = json!({"overrides": {"containerOverrides": [{"name": name, "command": command}]}});
    if let Value::Object(over) = entry {
        merge(parameters, &over);
    }
}

/// How long `overrides` is as JSON, in characters, as ECS counts it.
pub fn overrides_characters(parameters: &Map<String, Value>) -> usize {
    parameters.get("overrides").map_or(0, |overrides| overrides.to_string().chars().count())
}

/// A merged request as the table keeps it: deflated JSON, without the parameters that depend on the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrozenRequest(#[serde(with = "serde_bytes")] Vec<u8>);

impl FrozenRequest {
    /// Freezes a request.
    pub fn freeze(parameters: &Map<String, Value>) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        // Writing into memory does not fail; were it to, the request could not be read back, and that is handled.
        let bytes = serde_json::to_writer(&mut encoder, parameters).ok().and_then(|()| {
            encoder.flush().ok()?;
            encoder.finish().ok()
        });
        Self(bytes.unwrap_or_default())
    }

    /// The body of the RunTask call for one attempt.
    ///
    /// # Errors
    /// Where the stored bytes are no request.
    pub fn body(&self, started_by: &StartedBy) -> io::Result<String> {
        let mut request = String::new();
        DeflateDecoder::new(&*self.0).read_to_string(&mut request)?;
        let rest = request.strip_prefix('{').ok_or(io::ErrorKind::InvalidData)?;
        let comma = if rest == "}" { "" } else { "," };
        // Neither of the two holds a character that JSON would escape.
        Ok(format!(r#"{{"startedBy":"{started_by}","clientToken":"{}"{comma}{rest}"#, started_by.client_token()))
    }
}

/// `message` of an ECS error, without any longer text that the body of the request gave as command or environment:
/// such a message may quote what it refuses.
pub fn redact(message: &str, body: &str) -> String {
    const SHORTEST: usize = 6;
    let request: Value = serde_json::from_str(body).unwrap_or_default();
    let containers = request.pointer("/overrides/containerOverrides").and_then(Value::as_array).into_iter().flatten();
    let secrets = containers.flat_map(|container| {
        let list = |name| container.get(name).and_then(Value::as_array).into_iter().flatten();
        let values = list("environment").filter_map(|variable| variable.get("value"));
        list("command").chain(values).filter_map(Value::as_str)
    });
    secrets
        .filter(|secret| secret.len() >= SHORTEST)
        .fold(message.to_owned(), |message, secret| message.replace(secret, "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    fn shape_of(model: &Value, shape: &Shape, path: &str) {
        match (model, shape) {
            (Value::Object(model), Object(members)) => {
                let mut ours: Vec<_> = members.iter().map(|(name, _)| (*name).to_owned()).collect();
                let mut theirs: Vec<_> = model.keys().cloned().collect();
                ours.sort();
                theirs.sort();
                assert_eq!(ours, theirs, "{path}");
                members.iter().for_each(|(name, shape)| shape_of(&model[*name], shape, &join(path, name)));
            }
            (Value::Array(model), List(item)) => shape_of(&model[0], item, path),
            (Value::String(model), shape) => {
                let ours = match shape {
                    Text => "text",
                    Number => "number",
                    Flag => "flag",
                    List(_) | Object(_) => "nested",
                };
                assert_eq!(ours, model, "{path}");
            }
            _ => panic!("{path} is of another shape in botocore's model"),
        }
    }

    #[test]
    fn the_shape_is_that_of_botocores_service_model() {
        let model = include_str!("../../../tests/fixtures/run_task_shape.json");
        shape_of(&serde_json::from_str(model).unwrap(), &RUN_TASK, "");
    }

    #[test]
    fn every_misspelt_or_mistyped_parameter_is_named() {
        let problems = check(&object(json!({
            "taskDefintion": "etl",
            "count": 2,
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": "subnet-1"}},
            "overrides": {"containerOverrides": [{"cpu": "256"}]},
        })));
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "count",
                "networkConfiguration.awsvpcConfiguration.subnets",
                "overrides.containerOverrides.cpu",
                "overrides.containerOverrides",
                "taskDefintion"
            ]
        );
    }

    #[test]
    fn objects_merge_lists_replace_and_containers_merge_by_name() {
        let mut base = object(json!({
            "tags": [{"key": "a", "value": "1"}],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s-1"], "assignPublicIp": "DISABLED"}},
            "overrides": {"cpu": "256", "containerOverrides": [
                {"name": "log", "cpu": 1},
                {"name": "main", "memory": 512, "environment": [{"name": "A", "value": "1"}]}]},
        }));
        merge(
            &mut base,
            &object(json!({
                "tags": [{"key": "b", "value": "2"}],
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s-2"]}},
                "overrides": {"containerOverrides": [
                    {"name": "main", "environment": [{"name": "B", "value": "2"}]}, {"name": "new", "cpu": 2}]},
            })),
        );
        set_command(&mut base, "main", &["true".to_owned()]);
        assert_eq!(
            Value::Object(base),
            json!({
                "tags": [{"key": "b", "value": "2"}],
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s-2"], "assignPublicIp": "DISABLED"}},
                "overrides": {"cpu": "256", "containerOverrides": [
                    {"name": "log", "cpu": 1},
                    {"name": "main", "memory": 512, "environment": [{"name": "B", "value": "2"}], "command": ["true"]},
                    {"name": "new", "cpu": 2}]},
            })
        );
    }

    #[test]
    fn roles_cluster_and_task_definition_are_open_only_by_their_full_name() {
        let overrides = object(json!({
            "cluster": "other", "taskDefinition": "other", "platformVersion": "LATEST",
            "overrides": {"taskRoleArn": "arn", "cpu": "512", "containerOverrides": [{"name": "main", "cpu": 1}]},
        }));
        let refused = |allowed: &[&str]| {
            not_allowed(&overrides, &allowed.iter().map(ToString::to_string).collect::<Vec<_>>()).join(" ")
        };
        assert_eq!(refused(&["*"]), "cluster overrides.taskRoleArn taskDefinition");
        assert_eq!(refused(&["*", "cluster", "taskDefinition", "overrides.taskRoleArn"]), "");
        assert_eq!(
            refused(&["overrides.cpu"]),
            "cluster overrides.containerOverrides.cpu overrides.taskRoleArn platformVersion taskDefinition"
        );
    }

    #[test]
    fn an_empty_object_is_an_override_too() {
        assert_eq!(not_allowed(&object(json!({"networkConfiguration": {}})), &[]), ["networkConfiguration"]);
        assert!(not_allowed(&Map::new(), &[]).is_empty());
    }

    #[test]
    fn a_frozen_request_comes_back_with_its_attempts_names() {
        let parameters = object(json!({"cluster": "nightly", "taskDefinition": "etl:7"}));
        let started_by = StartedBy::parse("prod/a/2").unwrap();
        let body: Value = serde_json::from_str(&FrozenRequest::freeze(&parameters).body(&started_by).unwrap()).unwrap();
        let token = started_by.client_token();
        assert_eq!(
            body,
            json!({"startedBy": "prod/a/2", "clientToken": token, "cluster": "nightly", "taskDefinition": "etl:7"})
        );
    }

    #[test]
    fn an_error_does_not_quote_command_or_environment() {
        let body = json!({"overrides": {"containerOverrides": [
            {"name": "main", "command": ["run", "--token=hunter2"], "environment": [{"name": "KEY", "value": "s3cr3t-value"}]}]}});
        assert_eq!(
            redact("cannot run --token=hunter2 with s3cr3t-value in main", &body.to_string()),
            "cannot run [redacted] with [redacted] in main"
        );
        assert_eq!(redact("as it is", "not json"), "as it is");
    }

    #[test]
    fn bytes_that_are_no_request_are_an_error() {
        assert!(FrozenRequest(b"not deflated".to_vec()).body(&StartedBy::parse("prod/a/1").unwrap()).is_err());
    }
}
