//! Parses and describes the bodies of the HTTP API. Unknown members are errors.
//!
//! No error text quotes the request, because it may hold a secret.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    id::{PlacementHash, ProfileName, SubmissionId},
    notify::{Listeners, Notify},
    pool::{RUNNER_PREFIX, is_runner},
    priority::{InvalidPriority, Priority},
    profile::{Profiles, Request, RequestError},
    record::{ContentHash, LABEL_BYTES, Submission},
    state::State,
    time::Timestamp,
};

/// The limit on items per call.
pub const ITEMS: usize = 100;

/// The limit on the reason of a stop, in bytes.
pub const REASON_BYTES: usize = 256;

/// The kind of error for which an item was not accepted. The other items are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemCode {
    /// The item is malformed or exceeds a limit.
    Invalid,
    /// The named profile does not exist.
    UnknownProfile,
    /// The profile does not allow one of the overrides.
    OverrideNotAllowed,
    /// The ID exists with different content.
    Conflict,
    /// The item cannot be accepted now, and the caller must retry.
    Unavailable,
}

/// The error of one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ItemError {
    /// The kind of error.
    pub code: ItemCode,
    /// The error, and the values that are allowed.
    pub message: String,
}

impl ItemError {
    /// Returns an error with this text.
    pub fn new(code: ItemCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(ItemCode::Invalid, message)
    }
}

/// The result for one item, at the position of the item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ItemAnswer {
    /// Its position in the call, from 0.
    pub index: usize,
    /// Its id, if valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission_id: Option<SubmissionId>,
    /// The state of the submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Its task, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// The error if the item was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// The error for which a body as a whole is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is not JSON (status 400).
    #[error("the body is not JSON in UTF-8 (line {line}, column {column})")]
    NotJson {
        /// The line at which parsing stopped, from 1.
        line: usize,
        /// The column at which parsing stopped, from 1.
        column: usize,
    },
    /// The body does not have the required members (status 422).
    #[error("{0}")]
    Envelope(String),
}

/// One item of `POST /v1/submissions`, as far as it could be parsed.
#[derive(Debug)]
pub struct SubmissionItem {
    /// Its id, if valid.
    pub submission_id: Option<SubmissionId>,
    /// The submission, ready to be recorded.
    pub submission: Result<Submission, ItemError>,
}

/// Parses the body of `POST /v1/submissions`: 1 to [`ITEMS`] items, each valid or with its own error.
///
/// # Errors
///
/// If the body as a whole is malformed.
pub fn submissions(body: &[u8], profiles: &Profiles, listeners: &Listeners) -> Result<Vec<SubmissionItem>, BodyError> {
    let mut envelope = envelope(body, &["submissions"])?;
    let items = items(&mut envelope, "submissions")?;
    Ok(items.into_iter().map(|item| submission_item(item, profiles, listeners)).collect())
}

/// The body of `POST /v1/stops`.
#[derive(Debug)]
pub struct Stops {
    /// The IDs, each valid or with its own error.
    pub submission_ids: Vec<Result<SubmissionId, ItemError>>,
    /// The caller's reason for the stop.
    pub reason: String,
}

/// Parses the body of `POST /v1/stops`.
///
/// # Errors
///
/// If the body as a whole is malformed.
pub fn stops(body: &[u8]) -> Result<Stops, BodyError> {
    let mut envelope = envelope(body, &["submission_ids", "reason"])?;
    let reason = match envelope.remove("reason") {
        Some(Value::String(reason)) if (1..=REASON_BYTES).contains(&reason.len()) => reason,
        _ => return Err(BodyError::Envelope(format!("reason must be a string of 1 to {REASON_BYTES} bytes"))),
    };
    let ids = items(&mut envelope, "submission_ids")?;
    Ok(Stops { submission_ids: ids.into_iter().map(submission_id).collect(), reason })
}

fn envelope(body: &[u8], members: &[&str]) -> Result<Map<String, Value>, BodyError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| BodyError::NotJson { line: error.line(), column: error.column() })?;
    let Value::Object(envelope) = body else {
        return Err(BodyError::Envelope(format!("the body must be an object with {}", members.join(" and "))));
    };
    if envelope.keys().any(|member| !members.contains(&member.as_str())) {
        return Err(BodyError::Envelope(format!("the body has members besides {}", members.join(" and "))));
    }
    Ok(envelope)
}

fn items(envelope: &mut Map<String, Value>, member: &str) -> Result<Vec<Value>, BodyError> {
    let Some(Value::Array(items)) = envelope.remove(member) else {
        return Err(BodyError::Envelope(format!("{member} must be a list of 1 to {ITEMS} items")));
    };
    if (1..=ITEMS).contains(&items.len()) {
        Ok(items)
    } else {
        Err(BodyError::Envelope(format!("{member} has {} items; a call takes 1 to {ITEMS}", items.len())))
    }
}

fn submission_id(value: Value) -> Result<SubmissionId, ItemError> {
    let Value::String(id) = value else { return Err(ItemError::invalid("submission_id must be a string")) };
    let id: SubmissionId =
        id.try_into().map_err(|error: crate::id::InvalidName| ItemError::invalid(error.to_string()))?;
    if is_runner(&id) {
        return Err(ItemError::invalid(format!(
            "submission_id must not begin with {RUNNER_PREFIX}, as the ids of runners do"
        )));
    }
    Ok(id)
}

fn submission_item(item: Value, profiles: &Profiles, listeners: &Listeners) -> SubmissionItem {
    let Value::Object(mut members) = item else {
        return SubmissionItem {
            submission_id: None,
            submission: Err(ItemError::invalid("a submission must be an object")),
        };
    };
    let id = match members.remove("submission_id") {
        Some(id) => submission_id(id),
        None => Err(ItemError::invalid("submission_id is required")),
    };
    let known = id.clone().ok();
    SubmissionItem { submission_id: known, submission: id.and_then(|id| submission(id, members, profiles, listeners)) }
}

fn submission(
    submission_id: SubmissionId,
    mut members: Map<String, Value>,
    profiles: &Profiles,
    listeners: &Listeners,
) -> Result<Submission, ItemError> {
    let command = command(members.remove("command"))?;
    let profile_name = profile_name(members.remove("profile"))?;
    let overrides = match members.remove("overrides") {
        None => Map::new(),
        Some(Value::Object(overrides)) => overrides,
        Some(_) => return Err(ItemError::invalid("overrides must be an object of RunTask's parameters")),
    };
    let launch_deadline = launch_deadline(members.remove("launch_deadline"))?;
    let labels = labels(members.remove("labels"))?;
    let priority = priority(members.remove("priority"))?;
    let notify = members.remove("notify").map_or_else(|| Ok(Notify::default()), |value| listeners.parse(value));
    let notify = notify.map_err(|error| ItemError::invalid(error.to_string()))?;
    if !members.is_empty() {
        return Err(ItemError::invalid(
            "unknown members; known are submission_id, command, profile, overrides, launch_deadline, labels, priority and notify",
        ));
    }
    let Some(profile) = profiles.get(&profile_name) else {
        let known: Vec<_> = profiles.names().map(ProfileName::as_str).collect();
        return Err(ItemError::new(ItemCode::UnknownProfile, format!("no such profile; known: {}", known.join(", "))));
    };
    let names_own_command = overrides
        .get("overrides")
        .and_then(|value| value.get("containerOverrides"))
        .and_then(Value::as_array)
        .is_some_and(|entries| {
            entries.iter().any(|entry| entry.get("command").is_some() && entry["name"] == *profile.container_name)
        });
    if names_own_command {
        return Err(ItemError::invalid("the command of the profile's container must be in command, not in overrides"));
    }
    let Request { frozen, cluster, policy, pool } =
        profile.request(&command, &overrides, &labels).map_err(|error| {
            let code = match &error {
                RequestError::NotAllowed(_) | RequestError::UnknownCluster(_) => ItemCode::OverrideNotAllowed,
                RequestError::Malformed(_)
                | RequestError::TooLong(_)
                | RequestError::TooMuchWork(_)
                | RequestError::TooLarge(_) => ItemCode::Invalid,
            };
            ItemError::new(code, error.to_string())
        })?;
    let overrides = Value::Object(overrides);
    Ok(Submission {
        content_hash: ContentHash::of(&command, &overrides, &profile_name),
        placement: PlacementHash::of(&overrides),
        container_name: profile.container_name.clone(),
        policy,
        profile: profile_name,
        submission_id,
        cluster,
        request: frozen,
        labels,
        launch_deadline,
        priority,
        pool,
        notify: Notify { event_bus: notify.event_bus.or_else(|| profile.event_bus.clone()), ..notify },
    })
}

fn command(value: Option<Value>) -> Result<Vec<String>, ItemError> {
    let command: Option<Vec<String>> = value.and_then(|value| serde_json::from_value(value).ok());
    match command {
        Some(command) if command.is_empty() => Err(ItemError::invalid("command must have at least one string")),
        Some(command) if command.iter().any(|word| word.contains('\0')) => {
            Err(ItemError::invalid("command must not contain NUL characters"))
        }
        Some(command) => Ok(command),
        None => Err(ItemError::invalid("command is required: a list of strings")),
    }
}

fn profile_name(value: Option<Value>) -> Result<ProfileName, ItemError> {
    match value {
        None => Ok(ProfileName::default_profile()),
        Some(Value::String(name)) => {
            name.try_into().map_err(|error: crate::id::InvalidName| ItemError::invalid(error.to_string()))
        }
        Some(_) => Err(ItemError::invalid("profile must be a string")),
    }
}

fn launch_deadline(value: Option<Value>) -> Result<Option<Timestamp>, ItemError> {
    // This range covers milliseconds of the years 2001 to 5138. Seconds that a caller sends by mistake are below it.
    const MILLISECONDS: std::ops::Range<u64> = 1_000_000_000_000..100_000_000_000_000;
    match value {
        None => Ok(None),
        Some(value) => match value.as_u64().filter(|ms| MILLISECONDS.contains(ms)) {
            Some(ms) => Ok(Some(Timestamp::from_millis(ms))),
            None => Err(ItemError::invalid("launch_deadline must be a whole number of milliseconds since 1970")),
        },
    }
}

fn priority(value: Option<Value>) -> Result<Priority, ItemError> {
    let priority = value.map(|value| serde_json::from_value(value).map_err(|_| InvalidPriority));
    Ok(priority.transpose().map_err(|error| ItemError::invalid(error.to_string()))?.unwrap_or_default())
}

fn labels(value: Option<Value>) -> Result<BTreeMap<String, String>, ItemError> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let labels: BTreeMap<String, String> =
        serde_json::from_value(value).map_err(|_| ItemError::invalid("labels must be an object of strings"))?;
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if labels.keys().any(String::is_empty) {
        return Err(ItemError::invalid("a label must have a name"));
    }
    if bytes > LABEL_BYTES {
        return Err(ItemError::invalid(format!("labels are {bytes} bytes in all; at most {LABEL_BYTES} are accepted")));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Clusters;
    use serde_json::json;

    fn profiles() -> Profiles {
        let text = json!({"default": {"run_task": {"taskDefinition": "etl"}, "container_name": "main",
                                      "allow_overrides": ["overrides.cpu", "overrides.containerOverrides"]}});
        Profiles::parse(&text.to_string(), &Clusters::new("nightly", "")).unwrap()
    }

    fn item(item: Value) -> Result<Submission, ItemError> {
        let body = json!({"submissions": [item]}).to_string();
        submissions(body.as_bytes(), &profiles(), &Listeners::new(true, "ends")).unwrap().remove(0).submission
    }

    fn error(value: Value) -> (ItemCode, String) {
        let error = item(value).unwrap_err();
        (error.code, error.message)
    }

    #[test]
    fn a_submission_requires_only_an_id_and_a_command() {
        let submission = item(json!({"submission_id": "a", "command": ["true"]})).unwrap();
        assert_eq!(submission.profile.as_str(), "default");
        assert_eq!(submission.cluster, "nightly");
    }

    #[test]
    fn deadline_and_labels_are_not_content() {
        let plain = item(json!({"submission_id": "a", "command": ["true"]})).unwrap();
        let labelled = item(json!({"submission_id": "a", "command": ["true"], "overrides": {}, "profile": "default",
                                   "launch_deadline": 1_800_000_000_000_u64, "labels": {"dag_id": "etl"}}));
        assert_eq!(plain.content_hash, labelled.unwrap().content_hash);
    }

    #[test]
    fn invalid_item_error_names_allowed_values() {
        use ItemCode::*;
        for (value, code, text) in [
            (json!(7), Invalid, "must be an object"),
            (json!({"command": ["true"]}), Invalid, "submission_id is required"),
            (json!({"submission_id": "x".repeat(61), "command": ["true"]}), Invalid, "1 to 60 characters"),
            (json!({"submission_id": "a"}), Invalid, "command is required: a list of strings"),
            (json!({"submission_id": "a", "command": "true"}), Invalid, "a list of strings"),
            (json!({"submission_id": "a", "command": []}), Invalid, "at least one string"),
            (json!({"submission_id": "a", "command": ["a\u{0}b"]}), Invalid, "NUL"),
            (json!({"submission_id": "a", "command": ["true"], "profile": "big"}), UnknownProfile, "known: default"),
            (
                json!({"submission_id": "a", "command": ["true"], "overrides": {"overrides": {"memory": "1"}}}),
                OverrideNotAllowed,
                "overrides.memory",
            ),
            (
                json!({"submission_id": "a", "command": ["true"], "overrides": {"overrides": {"cpu": 1}}}),
                Invalid,
                "overrides.cpu: must be a string",
            ),
            (
                json!({"submission_id": "a", "command": ["true"], "overrides": {"overrides": {"containerOverrides": [{"name": "main", "command": ["x"]}]}}}),
                Invalid,
                "must be in command",
            ),
            (json!({"submission_id": "a", "command": ["true"], "overrides": []}), Invalid, "an object of RunTask"),
            (
                json!({"submission_id": "a", "command": ["true"], "overrides": {"hunter2": 1}}),
                Invalid,
                "overrides: *: is not a parameter",
            ),
            (json!({"submission_id": "a", "command": ["x".repeat(9000)]}), Invalid, "8192"),
            (
                json!({"submission_id": "a", "command": ["true"], "launch_deadline": 1_800_000_000}),
                Invalid,
                "milliseconds",
            ),
            (
                json!({"submission_id": "a", "command": ["true"], "labels": {"k": "v".repeat(200)}}),
                Invalid,
                "201 bytes",
            ),
            (json!({"submission_id": "runner-a", "command": ["true"]}), Invalid, "must not begin with runner-"),
            (json!({"submission_id": "a", "command": ["true"], "priority": 1000}), Invalid, "from 0 to 999"),
            (json!({"submission_id": "a", "command": ["true"], "priority": -1}), Invalid, "from 0 to 999"),
            (json!({"submission_id": "a", "command": ["true"], "priority": "1"}), Invalid, "from 0 to 999"),
            (json!({"submission_id": "a", "command": ["true"], "comand": []}), Invalid, "unknown members"),
        ] {
            let (seen, message) = error(value.clone());
            assert_eq!(seen, code, "{value}: {message}");
            assert!(message.contains(text), "{message} does not contain {text}");
        }
    }

    #[test]
    fn a_valid_id_is_echoed_if_the_rest_of_the_item_is_not_valid() {
        let body =
            json!({"submissions": [{"submission_id": "a"}, {"submission_id": "a b", "command": ["true"]}]}).to_string();
        let items = submissions(body.as_bytes(), &profiles(), &Listeners::new(true, "ends")).unwrap();
        assert_eq!(items[0].submission_id.as_ref().map(SubmissionId::as_str), Some("a"));
        assert!(items[1].submission_id.is_none() && items[1].submission.is_err());
    }

    #[test]
    fn a_body_that_is_not_json_is_distinguished_from_a_bad_envelope() {
        let read = |body: &[u8]| submissions(body, &profiles(), &Listeners::default()).unwrap_err();
        assert!(matches!(read(b"{"), BodyError::NotJson { .. }));
        assert!(matches!(read(b"{\"submissions\": [\"\xff\"]}"), BodyError::NotJson { .. }));
        assert!(matches!(read(b"[]"), BodyError::Envelope(_)));
        assert!(matches!(read(b"{\"submissions\": []}"), BodyError::Envelope(_)));
        assert!(matches!(read(b"{\"submissions\": [{}], \"more\": 1}"), BodyError::Envelope(_)));
        let many = json!({"submissions": vec![json!({}); 101]}).to_string();
        assert_eq!(
            read(many.as_bytes()),
            BodyError::Envelope("submissions has 101 items; a call takes 1 to 100".into())
        );
    }

    #[test]
    fn stops_require_ids_and_a_reason() {
        let read = stops(br#"{"submission_ids": ["a", "b c", 7], "reason": "cleared"}"#).unwrap();
        assert_eq!(read.reason, "cleared");
        let valid: Vec<_> = read.submission_ids.iter().map(Result::is_ok).collect();
        assert_eq!(valid, [true, false, false]);
        assert!(matches!(stops(br#"{"submission_ids": ["a"]}"#), Err(BodyError::Envelope(_))));
        assert!(matches!(stops(br#"{"submission_ids": [], "reason": "x"}"#), Err(BodyError::Envelope(_))));
    }
}
