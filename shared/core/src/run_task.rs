//! RunTask's request: its shape, how overrides are merged into it, how it is stored, and how its secrets are redacted.
//!
//! It stays JSON in ECS's own spelling from the profile to the wire, so that an existing `RUN_TASK_KWARGS` works
//! unchanged. The shape below only finds misspelt and mistyped parameters.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{self, Read, Write},
    ops::Range,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{id::StartedBy, wildcard::matches};

/// ECS's limit on `overrides`, in characters of JSON (`overrides` of RunTask in the ECS API Reference).
pub const OVERRIDES_CHARACTERS: usize = 8192;

/// The limit on a frozen request, in bytes: DynamoDB's 400 KB for an item less 16 KB for the rest of the record.
pub const REQUEST_BYTES: usize = 384 * 1024;

/// ECS's limit on the tags of a task (`tags` of RunTask in the ECS API Reference).
pub(crate) const TAGS_OF_A_TASK: usize = 50;

/// The RunTask parameters that the bridge sets itself.
pub const OURS: [&str; 3] = ["count", "startedBy", "clientToken"];

/// Parameters that decide what a task runs, where, with which rights and network, and who may open a shell in it. An
/// allow-list allows them only by naming them, or a parameter below them.
const GUARDED: [&str; 8] = [
    "cluster",
    "taskDefinition",
    "networkConfiguration",
    "enableExecuteCommand",
    "overrides.taskRoleArn",
    "overrides.executionRoleArn",
    "overrides.containerOverrides.environmentFiles",
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

/// RunTask's request, from botocore's service model of ECS.
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

/// An invalid RunTask parameter. Never quotes its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Problem {
    /// Its path, such as `overrides.containerOverrides.cpu`.
    pub path: String,
    /// The path with `*` for a name that RunTask does not know.
    place: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Problem {
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: path.to_owned(), problem: problem.into() }
    }

    /// The text for a caller: quotes nothing that was sent, not even a name, but the names of RunTask's parameters.
    pub fn unquoted(&self) -> String {
        format!("{}: {}", self.place, self.problem)
    }
}

/// Finds everything in `parameters` that is not a RunTask parameter, has the wrong type, or is set by the bridge.
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
                    // The name is RunTask's, and so discloses nothing.
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

/// The path of the first RunTask parameter called `name`, outer ones first.
fn place_of(name: &str, shape: &Shape, path: &str) -> Option<String> {
    match shape {
        List(item) => place_of(name, item, path),
        Object(members) if members.iter().any(|(member, _)| *member == name) => Some(join(path, name)),
        Object(members) => members.iter().find_map(|(member, shape)| place_of(name, shape, &join(path, member))),
        Text | Number | Flag => None,
    }
}

/// Returns whether an entry of an allow-list, `path` or `path=pattern`, names a parameter; only texts and lists of texts
/// have patterns.
pub(crate) fn is_allow_entry(entry: &str) -> bool {
    let (path, pattern) = path_and_pattern(entry);
    let is_text = |shape: &Shape| matches!(shape, Text | List(Text));
    shape_of(path).is_some_and(|shape| pattern.is_none() || is_text(shape))
}

/// Returns the shape of the parameter `path`, at any depth; none if RunTask has no such parameter.
/// `overrides.containerOverrides[log].cpu` is the `cpu` of the container `log`.
fn shape_of(path: &str) -> Option<&'static Shape> {
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

/// The paths that `overrides` sets and `allowed` does not allow. `own` is the profile's container. An override of another
/// container is allowed only by its name in brackets, and returned as `overrides.containerOverrides[*]`.
pub fn not_allowed(overrides: &Map<String, Value>, allowed: &[String], own: &str) -> Vec<String> {
    let overrides = Value::Object(overrides.clone());
    let mut found = Vec::new();
    leaves(&overrides, "", own, &mut found);
    found.retain(|(path, value)| !is_allowed(path, value, allowed));
    let mut refused: Vec<_> = found.iter().map(|(path, _)| anonymous(path)).collect();
    refused.sort();
    refused.dedup();
    refused
}

fn is_allowed(path: &str, value: &Value, allowed: &[String]) -> bool {
    let plain = without_container(path);
    let is_own = plain == path;
    // The name only says which container an override is for.
    is_own && path == "overrides.containerOverrides.name"
        || allowed.iter().any(|entry| {
            let (entry, pattern) = path_and_pattern(entry);
            let allows = covers(entry, path) && pattern.is_none_or(|pattern| fits(value, pattern));
            match GUARDED.iter().find(|guarded| covers(guarded, &plain)) {
                Some(guarded) => covers(guarded, &without_container(entry)) && allows,
                None if is_own => entry == "*" || allows,
                None => entry.contains('[') && (allows || is_name_of(path, entry)),
            }
        })
}

/// Splits an entry of an allow-list, `path` or `path=pattern`.
fn path_and_pattern(entry: &str) -> (&str, Option<&str>) {
    entry.split_once('=').map_or((entry, None), |(path, pattern)| (path, Some(pattern)))
}

/// Returns whether a text, or each text of a list, matches `pattern`.
fn fits(value: &Value, pattern: &str) -> bool {
    let is_match = |value: &Value| value.as_str().is_some_and(|text| matches(pattern, text));
    value.as_array().map_or_else(|| is_match(value), |items| items.iter().all(is_match))
}

/// Whether `path` is the `name` of a container whose override `entry` allows in part.
fn is_name_of(path: &str, entry: &str) -> bool {
    let container = |text: &str| text.find(']').and_then(|end| text.get(..=end)).map(str::to_owned);
    path.ends_with("].name") && container(path) == container(entry)
}

/// `overrides.containerOverrides[log].cpu` without `[log]`.
fn without_container(path: &str) -> Cow<'_, str> {
    replace_container(path, "")
}

/// The same with `[*]`: the name of the container comes from the caller, and is not repeated.
fn anonymous(path: &str) -> String {
    replace_container(path, "[*]").into_owned()
}

/// Whether ECS accepts `name` for a container: letters, digits, hyphens and underscores (`ContainerDefinition`).
fn is_container_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn replace_container<'a>(path: &'a str, with: &str) -> Cow<'a, str> {
    match path.strip_prefix(CONTAINER_OVERRIDES).and_then(|rest| rest.strip_prefix('[')?.rsplit_once(']')) {
        Some((_, rest)) => format!("{CONTAINER_OVERRIDES}{with}{rest}").into(),
        None => path.into(),
    }
}

fn covers(entry: &str, path: &str) -> bool {
    path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn leaves<'a>(value: &'a Value, path: &str, own: &str, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(name, value)| leaves(value, &join(path, name), own, found));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => items.iter().for_each(|item| {
            match item.get("name").and_then(Value::as_str).filter(|_| path == CONTAINER_OVERRIDES) {
                Some(name) if name == own => leaves(item, path, own, found),
                Some(name) if is_container_name(name) => leaves(item, &format!("{path}[{name}]"), own, found),
                // No entry of an allow-list allows this.
                Some(_) => leaves(item, &format!("{path}[*]"), own, found),
                None => leaves(item, path, own, found),
            }
        }),
        // The root itself is not a parameter.
        Value::Object(_) if path.is_empty() => {}
        _ => found.push((path.to_owned(), value)),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Merges `over` into `base`: objects member by member, container overrides by the container's name. Everything else is
/// replaced, and what is null removed.
pub fn merge(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    merge_at(base, over, "");
}

fn merge_at(base: &mut Map<String, Value>, over: &Map<String, Value>, path: &str) {
    for (name, value) in over {
        let path = join(path, name);
        match (base.get_mut(name), value) {
            (_, Value::Null) => drop(base.remove(name)),
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

/// `patch` without the members that are null, which remove a parameter.
pub(crate) fn without_nulls(patch: &Map<String, Value>) -> Map<String, Value> {
    let kept = patch.iter().filter(|(_, value)| !value.is_null());
    let kept = kept.map(|(name, value)| {
        let value = match value {
            Value::Object(members) => Value::Object(without_nulls(members)),
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    kept.collect()
}

/// Sets the command of the container `name`.
pub fn set_command(parameters: &mut Map<String, Value>, name: &str, command: &[String]) {
    let entry = json!({"overrides": {"containerOverrides": [{"name": name, "command": command}]}});
    if let Value::Object(over) = entry {
        merge(parameters, &over);
    }
}

/// Adds tags, but for those whose keys are there.
pub(crate) fn add_tags<'a>(parameters: &mut Map<String, Value>, tags: impl Iterator<Item = (&'a str, String)>) {
    let mut tags = tags.peekable();
    if tags.peek().is_none() {
        return;
    }
    let present = parameters.entry("tags").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(present) = present {
        for (key, value) in tags {
            if present.len() < TAGS_OF_A_TASK && present.iter().all(|tag| tag["key"] != key) {
                present.push(json!({"key": key, "value": value}));
            }
        }
    }
}

/// Adds variables to the environment of the container `name`, in place of those of the same name.
fn add_environment(parameters: &mut Map<String, Value>, name: &str, variables: &[(&str, &str)]) {
    let containers = parameters.get("overrides").and_then(|overrides| overrides.get("containerOverrides"));
    let container = containers.and_then(Value::as_array).into_iter().flatten().find(|entry| entry["name"] == name);
    let mut environment = match container.and_then(|entry| entry.get("environment")) {
        Some(Value::Array(environment)) => environment.clone(),
        Some(_) | None => Vec::new(),
    };
    environment.retain(|variable| variables.iter().all(|(name, _)| variable["name"] != *name));
    environment.extend(variables.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let entry = json!({"overrides": {"containerOverrides": [{"name": name, "environment": environment}]}});
    if let Value::Object(over) = entry {
        merge(parameters, &over);
    }
}

/// Whether `overrides` sets nothing but the environment of the container `own`.
pub(crate) fn is_environment_of(overrides: &Map<String, Value>, own: &str) -> bool {
    let overrides = Value::Object(overrides.clone());
    let mut found = Vec::new();
    leaves(&overrides, "", own, &mut found);
    let allowed = [format!("{CONTAINER_OVERRIDES}.name"), format!("{CONTAINER_OVERRIDES}.environment")];
    found.iter().all(|(path, _)| allowed.iter().any(|allowed| covers(allowed, path)))
}

/// The length of `overrides` in characters of JSON, as ECS counts it.
pub fn overrides_characters(parameters: &Map<String, Value>) -> usize {
    parameters.get("overrides").map_or(0, |overrides| overrides.to_string().chars().count())
}

/// A command and its environment, as a runner receives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables to set over those of the runner's container.
    #[serde(default)]
    pub environment: Vec<Variable>,
}

/// A variable, as RunTask spells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A merged request as the table stores it: deflated JSON, without the parameters that depend on the attempt. One object,
/// or a list of them: the profile's own choice, and its fallbacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrozenRequest(#[serde(with = "serde_bytes")] Vec<u8>);

impl FrozenRequest {
    /// Freezes a request, or the requests of several choices.
    pub fn freeze(choices: &[Map<String, Value>]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        let written = match choices {
            [only] => serde_json::to_writer(&mut encoder, only),
            _ => serde_json::to_writer(&mut encoder, choices),
        };
        // Writing to memory does not fail. If it did, `body` would return the error.
        let bytes = written.ok().and_then(|()| {
            encoder.flush().ok()?;
            encoder.finish().ok()
        });
        Self(bytes.unwrap_or_default())
    }

    /// Its size in the table, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    fn json(&self) -> io::Result<String> {
        let mut request = String::new();
        DeflateDecoder::new(&*self.0).read_to_string(&mut request)?;
        Ok(request)
    }

    /// The requests of all choices.
    fn choices(&self) -> io::Result<Vec<Map<String, Value>>> {
        let json = self.json()?;
        Ok(if json.starts_with('[') { serde_json::from_str(&json)? } else { vec![serde_json::from_str(&json)?] })
    }

    /// The request of one choice, as JSON.
    fn choice(&self, choice: u8) -> io::Result<String> {
        let json = self.json()?;
        if !json.starts_with('[') {
            return if choice == 0 { Ok(json) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
        let choices: Vec<&RawValue> = serde_json::from_str(&json)?;
        Ok(choices.get(usize::from(choice)).ok_or(io::ErrorKind::InvalidData)?.get().to_owned())
    }

    /// [`redact`] for a text of ECS about a task of one of these requests.
    pub(crate) fn redact(&self, text: &str) -> String {
        // Bytes that are not a request have launched no task.
        redact_requests(text, &self.choices().unwrap_or_default())
    }

    /// What a runner needs of it: the command and the environment of the container `name`.
    ///
    /// # Errors
    /// If the stored bytes are not a request with a command for that container.
    pub fn work(&self, name: &str) -> io::Result<Work> {
        let mut request: Value = serde_json::from_str(&self.choice(0)?)?;
        let containers = request.pointer_mut("/overrides/containerOverrides").and_then(Value::as_array_mut);
        let container = containers.into_iter().flatten().find(|entry| entry["name"] == name);
        Ok(serde_json::from_value(container.ok_or(io::ErrorKind::InvalidData)?.take())?)
    }

    /// The requests with another command and further variables for the container `name`.
    ///
    /// # Errors
    /// If the stored bytes are not a request.
    pub(crate) fn for_runner(&self, name: &str, command: &[String], variables: &[(&str, &str)]) -> io::Result<Self> {
        let mut choices = self.choices()?;
        for parameters in &mut choices {
            set_command(parameters, name, command);
            add_environment(parameters, name, variables);
        }
        Ok(Self::freeze(&choices))
    }

    /// The body of the RunTask call for one attempt, by one choice.
    ///
    /// # Errors
    /// If the stored bytes are not a request, or do not hold that choice.
    pub fn body(&self, started_by: &StartedBy, choice: u8) -> io::Result<String> {
        let request = self.choice(choice)?;
        let rest = request.strip_prefix('{').ok_or(io::ErrorKind::InvalidData)?;
        let comma = if rest == "}" { "" } else { "," };
        // Neither of the two holds a character that JSON would escape.
        let token = started_by.client_token(choice);
        Ok(format!(r#"{{"startedBy":"{started_by}","clientToken":"{token}"{comma}{rest}"#))
    }
}

/// The length of the shortest fragment of a command or an environment that is redacted, in characters other than white
/// space. Shorter ones would make ordinary text unreadable, and disclose little.
const FRAGMENT: usize = 6;

const REDACTED: &str = "[redacted]";

/// A text of ECS without the command and the environment of the request in `body`: an error may quote what it refuses.
///
/// Replaces every run of 6 or more characters that occurs in an argument of a command or in the value of a variable,
/// whether whole, cut off, wrapped by white space, or escaped as in JSON, once or twice. Linear in both lengths.
pub fn redact(message: &str, body: &str) -> String {
    redact_requests(message, &[serde_json::from_str(body).unwrap_or_default()])
}

fn redact_requests(message: &str, requests: &[Map<String, Value>]) -> String {
    let overrides = requests.iter().filter_map(|request| request.get("overrides")?.get("containerOverrides"));
    let containers = overrides.filter_map(Value::as_array).flatten();
    let secrets = containers.flat_map(|container| {
        let list = |name| container.get(name).and_then(Value::as_array).into_iter().flatten();
        let values = list("environment").filter_map(|variable| variable.get("value"));
        list("command").chain(values).filter_map(Value::as_str)
    });
    let mut fragments = HashSet::new();
    for secret in secrets {
        let escaped = json_escaped(secret);
        for form in [secret, &escaped, &json_escaped(&escaped)] {
            fragments.extend(visible(form).collect::<Vec<_>>().windows(FRAGMENT).map(text_of));
        }
    }
    // The visible characters of the message, with their positions.
    let seen: Vec<_> = message.char_indices().filter(|(_, character)| !character.is_whitespace()).collect();
    let mut spans: Vec<Range<usize>> = Vec::new();
    for window in seen.windows(FRAGMENT) {
        let [(begin, _), .., (last, character)] = window else { continue };
        let end = last + character.len_utf8();
        if fragments.contains(&window.iter().map(|(_, character)| *character).collect::<String>()) {
            match spans.last_mut().filter(|span| *begin <= span.end) {
                Some(span) => span.end = end,
                None => spans.push(*begin..end),
            }
        }
    }
    let mut redacted = String::with_capacity(message.len());
    let mut from = 0;
    for span in spans {
        redacted.push_str(message.get(from..span.start).unwrap_or_default());
        redacted.push_str(REDACTED);
        from = span.end;
    }
    redacted.push_str(message.get(from..).unwrap_or_default());
    redacted
}

fn visible(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|character| !character.is_whitespace())
}

fn text_of(characters: &[char]) -> String {
    characters.iter().collect()
}

/// `text` as it stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
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
    fn roles_cluster_and_task_definition_are_allowed_only_by_name() {
        let overrides = object(json!({
            "cluster": "other", "taskDefinition": "other", "platformVersion": "LATEST",
            "overrides": {"taskRoleArn": "arn", "cpu": "512", "containerOverrides": [{"name": "main", "cpu": 1}]},
        }));
        let refused = |allowed: &[&str]| {
            not_allowed(&overrides, &allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), "main").join(" ")
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
        assert_eq!(not_allowed(&object(json!({"networkConfiguration": {}})), &[], "main"), ["networkConfiguration"]);
        assert!(not_allowed(&Map::new(), &[], "main").is_empty());
    }

    fn refused(overrides: Value, allowed: &[&str]) -> String {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        not_allowed(&object(overrides), &allowed, "main").join(" ")
    }

    #[test]
    fn entry_with_pattern_allows_only_matching_texts() {
        let allowed = ["taskDefinition=etl-*", "networkConfiguration.awsvpcConfiguration.subnets=subnet-0*"];
        for (overrides, expected) in [
            (json!({"taskDefinition": "etl-load:3"}), ""),
            (json!({"taskDefinition": "web"}), "taskDefinition"),
            (json!({"taskDefinition": 7}), "taskDefinition"),
            (json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-01", "subnet-02"]}}}), ""),
            (
                json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-01", "subnet-1"]}}}),
                "networkConfiguration.awsvpcConfiguration.subnets",
            ),
            (json!({"cluster": "etl-1"}), "cluster"),
        ] {
            assert_eq!(refused(overrides.clone(), &allowed), expected, "{overrides}");
        }
        assert!(is_allow_entry("taskDefinition=etl-*") && is_allow_entry("overrides.cpu=256"));
        for wrong in ["taskDefinitions=etl-*", "networkConfiguration=*", "enableExecuteCommand=true", "*=x"] {
            assert!(!is_allow_entry(wrong), "{wrong}");
        }
    }

    #[test]
    fn another_container_is_allowed_only_by_its_name() {
        let sidecar = json!({"overrides": {"containerOverrides": [{"name": "log", "cpu": 1, "environment": []}]}});
        let all = "overrides.containerOverrides[*].cpu overrides.containerOverrides[*].environment \
                   overrides.containerOverrides[*].name";
        for allowed in ["*", "overrides", "overrides.containerOverrides", "overrides.containerOverrides[other]"] {
            assert_eq!(refused(sidecar.clone(), &[allowed]), all, "{allowed}");
        }
        assert_eq!(refused(sidecar.clone(), &["overrides.containerOverrides[log]"]), "");
        let cpu = refused(sidecar, &["overrides.containerOverrides[log].cpu"]);
        assert_eq!(cpu, "overrides.containerOverrides[*].environment");
        assert!(
            is_allow_entry("overrides.containerOverrides[log].cpu")
                && !is_allow_entry("overrides.containerOverrides[log].cpus")
        );
        for odd in ["log].cpu[x", "*", "", "log]", "log].cpu"] {
            let odd = json!({"overrides": {"containerOverrides": [{"name": odd, "cpu": 1}]}});
            assert_ne!(refused(odd.clone(), &["overrides.containerOverrides[log]"]), "", "{odd}");
        }
        assert!(
            !is_allow_entry("overrides.containerOverrides[*].cpu")
                && !is_allow_entry("overrides.containerOverrides[log")
        );
    }

    #[test]
    fn a_guarded_parameter_is_allowed_only_by_its_name_or_by_one_below_it() {
        let overrides = json!({
            "enableExecuteCommand": true,
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"], "assignPublicIp": "ENABLED"}},
            "overrides": {"containerOverrides": [{"name": "main", "environmentFiles": [{"value": "s3", "type": "s3"}]}]},
        });
        let files = "overrides.containerOverrides.environmentFiles";
        let all = refused(overrides.clone(), &["*", "overrides.containerOverrides"]);
        assert!(all.contains("enableExecuteCommand") && all.contains("assignPublicIp") && all.contains(files), "{all}");
        let subnets = "networkConfiguration.awsvpcConfiguration.subnets";
        let rest = refused(overrides, &["enableExecuteCommand", files, subnets]);
        assert_eq!(rest, "networkConfiguration.awsvpcConfiguration.assignPublicIp");
    }

    #[test]
    fn misplaced_parameter_error_names_its_place() {
        let problems = check(&object(json!({"containerOverrides": [], "subnets": ["secret"], "hunter2": 1})));
        let words: Vec<_> = problems.iter().map(Problem::unquoted).collect();
        assert!(
            words.contains(
                &"containerOverrides: is not a parameter here; RunTask has overrides.containerOverrides".to_owned()
            ),
            "{words:?}"
        );
        assert!(
            words.iter().any(|words| words.contains("networkConfiguration.awsvpcConfiguration.subnets")),
            "{words:?}"
        );
        assert!(words.iter().all(|words| !words.contains("hunter2") && !words.contains("secret")), "{words:?}");
    }

    #[test]
    fn a_frozen_request_comes_back_with_its_attempts_names() {
        let parameters = object(json!({"cluster": "nightly", "taskDefinition": "etl:7"}));
        let started_by = StartedBy::parse("prod/a/2").unwrap();
        let body: Value =
            serde_json::from_str(&FrozenRequest::freeze(&[parameters]).body(&started_by, 0).unwrap()).unwrap();
        let token = started_by.client_token(0);
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

    fn body(secrets: &[&str]) -> String {
        json!({"overrides": {"containerOverrides": [{"name": "main", "command": secrets}]}}).to_string()
    }

    #[test]
    fn nested_secrets_are_redacted_in_any_order() {
        let command = ["/bin/sh", "-c", "/bin/sh /run.sh --password hunter2hunter2"];
        let message = "invalid: [/bin/sh, -c, /bin/sh /run.sh --password hunter2hunter2]";
        for order in [command, [command[2], command[1], command[0]]] {
            let redacted = redact(message, &body(&order));
            assert!(redacted.starts_with("invalid: [[redacted], -c, [redacted]"), "{redacted}");
            assert!(!redacted.contains("hunter"), "{redacted}");
        }
    }

    #[test]
    fn a_secret_is_redacted_cut_wrapped_and_escaped() {
        let secret = "pass\"word\n=hunter2-hunter3";
        for message in [
            "cut: pass\"word\n=hunt...",
            "cut: ...ter2-hunter3 is too long",
            "wrapped: pass\"word =hunter2-\n   hunter3",
            r#"escaped: pass\"word\n=hunter2-hunter3"#,
            r#"twice: pass\\\"word\\n=hunter2-hunter3"#,
        ] {
            let redacted = redact(message, &body(&[secret]));
            assert!(
                redacted.contains("[redacted]") && !redacted.contains("word") && !redacted.contains("hunter"),
                "{redacted}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_request_are_an_error() {
        assert!(FrozenRequest(b"not deflated".to_vec()).body(&StartedBy::parse("prod/a/1").unwrap(), 0).is_err());
    }
}
