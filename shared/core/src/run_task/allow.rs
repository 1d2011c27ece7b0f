//! Allow-lists: which parameters of a submission may override those of its profile.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::shape::{CONTAINER_OVERRIDES, Shape, join, shape_of};
use crate::wildcard::matches;

/// Parameters that determine what a task runs, where, with which permissions and network, and who may open a shell in it.
/// An allow-list allows them only if it names them or a parameter below them.
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

/// Returns whether an entry of an allow-list, `path` or `path=pattern`, names a parameter; only texts and lists of texts
/// have patterns.
pub(crate) fn is_allow_entry(entry: &str) -> bool {
    let (path, pattern) = path_and_pattern(entry);
    let is_text = |shape: &Shape| matches!(shape, Shape::Text | Shape::List(Shape::Text));
    shape_of(path).is_some_and(|shape| pattern.is_none() || is_text(shape))
}

/// Returns the paths that `overrides` sets and `allowed` does not allow. `own` is the profile's container. An override of
/// another container is allowed only by its name in brackets, and is returned as `overrides.containerOverrides[*]`.
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
    // The name only selects the container.
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

/// Returns true if `path` is the `name` of a container of which `entry` allows an override.
fn is_name_of(path: &str, entry: &str) -> bool {
    let container = |text: &str| text.find(']').and_then(|end| text.get(..=end)).map(str::to_owned);
    path.ends_with("].name") && container(path) == container(entry)
}

/// Returns `overrides.containerOverrides[log].cpu` without `[log]`.
pub(super) fn without_container(path: &str) -> Cow<'_, str> {
    replace_container(path, "")
}

/// Returns the path with `[*]`, because the name of the container comes from the caller and must not be quoted.
fn anonymous(path: &str) -> String {
    replace_container(path, "[*]").into_owned()
}

/// Returns true if ECS accepts `name` for a container: letters, digits, hyphens and underscores (`ContainerDefinition` in
/// the ECS API Reference).
pub(super) fn is_container_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn replace_container<'a>(path: &'a str, with: &str) -> Cow<'a, str> {
    match path.strip_prefix(CONTAINER_OVERRIDES).and_then(|rest| rest.strip_prefix('[')?.rsplit_once(']')) {
        Some((_, rest)) => format!("{CONTAINER_OVERRIDES}{with}{rest}").into(),
        None => path.into(),
    }
}

pub(super) fn covers(entry: &str, path: &str) -> bool {
    path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

pub(super) fn leaves<'a>(value: &'a Value, path: &str, own: &str, found: &mut Vec<(String, &'a Value)>) {
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
