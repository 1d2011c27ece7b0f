//! How a submission's parameters are merged into those of its profile.

use serde_json::{Map, Value, json};

use super::{
    allow::{covers, leaves},
    shape::{CONTAINER_OVERRIDES, join},
};

/// ECS's limit on `overrides`, in characters of JSON (`overrides` of RunTask in the ECS API Reference).
pub const OVERRIDES_CHARACTERS: usize = 8192;

/// ECS's limit on the tags of a task (`tags` of RunTask in the ECS API Reference).
pub(crate) const TAGS_OF_A_TASK: usize = 50;

/// Merges `over` into `base`: objects member by member, and container overrides by the container's name. All other values
/// are replaced, and null removes a member.
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

/// Returns `patch` without the members that are null, which remove a parameter.
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

/// Adds the tags whose keys are not present.
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

/// Adds variables to the environment of the container `name`. They replace variables of the same name.
pub(super) fn add_environment(parameters: &mut Map<String, Value>, name: &str, variables: &[(&str, &str)]) {
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

/// Returns true if `overrides` sets only the environment of the container `own`.
pub(crate) fn is_environment_of(overrides: &Map<String, Value>, own: &str) -> bool {
    let overrides = Value::Object(overrides.clone());
    let mut found = Vec::new();
    leaves(&overrides, "", own, &mut found);
    let allowed = [format!("{CONTAINER_OVERRIDES}.name"), format!("{CONTAINER_OVERRIDES}.environment")];
    found.iter().all(|(path, _)| allowed.iter().any(|allowed| covers(allowed, path)))
}

/// Returns the length of `overrides` in characters of JSON, as ECS counts it.
pub fn overrides_characters(parameters: &Map<String, Value>) -> usize {
    parameters.get("overrides").map_or(0, |overrides| overrides.to_string().chars().count())
}
