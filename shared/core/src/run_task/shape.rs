//! The names and types of RunTask's parameters, and the problems of a request that differs from them.

use serde_json::{Map, Value};

use super::allow::{is_container_name, without_container};

/// The RunTask parameters that the bridge sets itself.
pub const OURS: [&str; 3] = ["count", "startedBy", "clientToken"];

pub(super) const CONTAINER_OVERRIDES: &str = "overrides.containerOverrides";

/// The type of a parameter.
pub(super) enum Shape {
    Text,
    Number,
    Flag,
    List(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{Flag, List, Number, Object, Text};

const TEXTS: Shape = List(&Text);
const TAGS: Shape = List(&Object(&[("key", Text), ("value", Text)]));

/// RunTask's request, from botocore's service model of ECS.
pub(super) const RUN_TASK: Shape = Object(&[
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

/// An invalid RunTask parameter. Never quotes its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Problem {
    /// Its path, such as `overrides.containerOverrides.cpu`.
    pub path: String,
    /// The path with `*` for a name that RunTask does not know.
    place: String,
    /// What is wrong, and what is valid.
    pub problem: String,
}

impl Problem {
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: path.to_owned(), problem: problem.into() }
    }

    /// Returns the text for a caller. It quotes only names of RunTask's parameters, and no other name or value of the
    /// request.
    pub fn unquoted(&self) -> String {
        format!("{}: {}", self.place, self.problem)
    }
}

/// Returns a problem for each member of `parameters` that is no RunTask parameter, has the wrong type, or is set by the
/// bridge.
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
                let at = join(path, name);
                problems.push(match place_of(name, &RUN_TASK, "") {
                    // The name is one of RunTask's, so it discloses nothing.
                    Some(place) => Problem::new(&at, format!("is not a parameter here; RunTask has {place}")),
                    None => {
                        let known: Vec<_> = members.iter().map(|(member, _)| *member).collect();
                        let problem = format!("is not a parameter of RunTask; known here: {}", known.join(", "));
                        Problem { path: at, place: join(path, "*"), problem }
                    }
                });
            }
        }
    }
    if path == CONTAINER_OVERRIDES && !object.contains_key("name") {
        problems.push(Problem::new(path, "each entry must have the name of a container"));
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

/// Returns the path of the first RunTask parameter `name`, outer ones first.
fn place_of(name: &str, shape: &Shape, path: &str) -> Option<String> {
    match shape {
        List(item) => place_of(name, item, path),
        Object(members) if members.iter().any(|(member, _)| *member == name) => Some(join(path, name)),
        Object(members) => members.iter().find_map(|(member, shape)| place_of(name, shape, &join(path, member))),
        Text | Number | Flag => None,
    }
}

/// Returns the shape of the parameter `path`, at any depth; none if RunTask has no such parameter.
/// `overrides.containerOverrides[log].cpu` is the `cpu` of the container `log`.
pub(super) fn shape_of(path: &str) -> Option<&'static Shape> {
    let is_container = |rest: &str| rest.split_once(']').is_some_and(|(name, _)| is_container_name(name));
    if path.split_once('[').is_some_and(|(_, rest)| !is_container(rest)) {
        return None;
    }
    let mut shape = &RUN_TASK;
    for name in without_container(path).split('.') {
        while let List(item) = shape {
            shape = item;
        }
        let Object(members) = shape else { return None };
        shape = members.iter().find_map(|(member, inner)| (*member == name).then_some(inner))?;
    }
    Some(shape)
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
