//! EventBridge's *ECS Task State Change* events, and which of them belong to the deployment.
//!
//! Only the fields that a decision needs are parsed. `detail.overrides` holds the command and its environment: it is
//! never parsed, so that no log can hold it.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    id::{Deployment, StartedBy, SubmissionId},
    task::{Container, Task, without_program},
    time::Timestamp,
};

/// An event, as far as the deployment is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task of one of this deployment's submissions.
    Ours(SubmissionId, Box<Task>),
    /// A task of another deployment or of none, or another type of event.
    Foreign,
}

/// An event that cannot be parsed, although it may belong to this deployment. A retry would fail too.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not an event. The error gives only a position: the text may hold a command.
    #[error("not an EventBridge event (line {line}, column {column})")]
    Envelope {
        /// Where parsing stopped, from 1.
        line: usize,
        /// Where parsing stopped, from 1.
        column: usize,
    },
    /// A task of this deployment with a missing or mistyped field.
    #[error("event {id} has a detail that is not an ECS task (line {line}, column {column} of the detail)")]
    Detail {
        /// The id of the event, if it is one.
        id: String,
        /// Where parsing stopped, from 1.
        line: usize,
        /// Where parsing stopped, from 1.
        column: usize,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default, rename = "detail-type")]
    detail_type: Option<String>,
    // Some senders of replayed events write `event_time`.
    #[serde(default, alias = "event_time")]
    time: Option<String>,
    #[serde(default, borrow)]
    detail: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    #[serde(default)]
    started_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    task_arn: String,
    cluster_arn: String,
    version: u64,
    last_status: String,
    #[serde(default)]
    desired_status: Option<String>,
    #[serde(default)]
    stop_code: Option<String>,
    #[serde(default)]
    stopped_reason: Option<String>,
    #[serde(default)]
    containers: Option<Vec<DetailContainer>>,
    #[serde(default)]
    capacity_provider_name: Option<String>,
    #[serde(default)]
    launch_type: Option<String>,
    #[serde(default, deserialize_with = "digits")]
    cpu: Option<u32>,
    #[serde(default, deserialize_with = "digits")]
    memory: Option<u32>,
    #[serde(default, deserialize_with = "iso")]
    started_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "iso")]
    execution_stopped_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "iso")]
    stopped_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "iso")]
    updated_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DetailContainer {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    last_status: Option<String>,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    reason: Option<String>,
}

/// ECS gives sizes as text. One that is no number counts as absent.
fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

/// A time that is not valid counts as absent: the rest of the event still counts.
fn iso<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.as_deref().and_then(Timestamp::parse_iso))
}

/// Parses an event for `deployment`.
///
/// # Errors
/// If the text is not an event, or is one of `deployment` that cannot be parsed.
pub fn parse(text: &str, deployment: &Deployment) -> Result<Event, EventError> {
    let envelope: Envelope<'_> = serde_json::from_str(text)
        .map_err(|error| EventError::Envelope { line: error.line(), column: error.column() })?;
    let Some(detail) = envelope.detail else { return Ok(Event::Foreign) };
    if envelope.source.as_deref() != Some("aws.ecs") || envelope.detail_type.as_deref() != Some("ECS Task State Change")
    {
        return Ok(Event::Foreign);
    }
    let poison = |error: serde_json::Error| EventError::Detail {
        id: envelope.id.clone().filter(|id| is_event_id(id)).unwrap_or_default(),
        line: error.line(),
        column: error.column(),
    };
    let owner: Owner = serde_json::from_str(detail.get()).map_err(poison)?;
    let Some(owner) = owner.started_by.as_deref().and_then(StartedBy::parse) else { return Ok(Event::Foreign) };
    if owner.deployment != *deployment {
        return Ok(Event::Foreign);
    }
    let detail: Detail = serde_json::from_str(detail.get()).map_err(poison)?;
    let at = envelope.time.as_deref().and_then(Timestamp::parse_iso);
    Ok(Event::Ours(owner.submission_id, Box::new(detail.into_task(owner.attempt, at))))
}

/// Whether `text` may be quoted: EventBridge's ids are UUIDs, and a replayed event could hold anything.
fn is_event_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Detail {
    fn into_task(self, attempt: crate::Attempt, at: Option<Timestamp>) -> Task {
        let containers = self.containers.unwrap_or_default().into_iter();
        Task {
            arn: self.task_arn,
            cluster_arn: self.cluster_arn,
            attempt,
            version: self.version,
            desired_status: self.desired_status.unwrap_or_default(),
            last_status: self.last_status,
            stop_code: self.stop_code.filter(|code| !code.is_empty()),
            stopped_reason: self.stopped_reason.filter(|words| !words.is_empty()).as_deref().map(without_program),
            containers: containers
                .map(|container| Container {
                    name: container.name.unwrap_or_default(),
                    last_status: container.last_status.unwrap_or_default(),
                    exit_code: container.exit_code,
                    reason: container.reason.as_deref().map(without_program),
                })
                .collect(),
            runs_on: self.capacity_provider_name.or(self.launch_type),
            cpu: self.cpu,
            memory: self.memory,
            started_at: self.started_at,
            execution_stopped_at: self.execution_stopped_at,
            stopped_at: self.stopped_at,
            at: self.updated_at.or(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment() -> Deployment {
        "prod".parse().unwrap()
    }

    fn event(name: &str) -> Value {
        let text = match name {
            "running" => include_str!("../../../tests/fixtures/events/fargate_running.json"),
            _ => include_str!("../../../tests/fixtures/events/fargate_exit1.json"),
        };
        let mut event: Value = serde_json::from_str(text).unwrap();
        event["detail"]["startedBy"] = json!("prod/nightly-1/2");
        event
    }

    fn task(event: &Value) -> Task {
        match parse(&event.to_string(), &deployment()).unwrap() {
            Event::Ours(id, task) => {
                assert_eq!(id.as_str(), "nightly-1");
                *task
            }
            Event::Foreign => panic!("foreign"),
        }
    }

    #[test]
    fn a_captured_fargate_event_is_read() {
        let task = task(&event("exit1"));
        assert_eq!((task.version, task.attempt.get(), task.last_status.as_str()), (5, 2, "STOPPED"));
        assert_eq!(task.exit_code("main"), Some(1));
        assert_eq!(task.stop_code.as_deref(), Some("EssentialContainerExited"));
        assert_eq!(task.stopped_at, Timestamp::parse_iso("2020-08-14T18:06:47.229Z"));
        assert_eq!(task.id(), "eeccdb34-d8cf-49e7-b379-1cf4f123c0ee");
    }

    #[test]
    fn a_running_event_has_no_exit_code() {
        let task = task(&event("running"));
        assert!(task.has_run("FargateApp") && task.is_live("FargateApp"));
        assert_eq!(task.exit_code("FargateApp"), None);
    }

    #[test]
    fn an_optional_field_may_be_absent_or_null() {
        let mut event = event("exit1");
        let detail = event["detail"].as_object_mut().unwrap();
        for field in ["launchType", "attachments", "platformVersion", "desiredStatus", "startedAt", "overrides"] {
            detail.remove(field);
        }
        detail.insert(
            "containers".into(),
            json!([{"name": "main", "lastStatus": "STOPPED", "exitCode": null, "new": {}}]),
        );
        assert_eq!(task(&event).exit_code("main"), None);
        event["detail"]["containers"] = Value::Null;
        assert!(task(&event).containers.is_empty());
        let time = event["time"].take();
        event.as_object_mut().unwrap().remove("time");
        event["event_time"] = time;
        event["detail"]["updatedAt"] = Value::Null;
        assert_eq!(task(&event).at, Timestamp::parse_iso("2020-08-14T18:06:47Z"));
    }

    #[test]
    fn events_of_other_deployments_and_types_are_foreign() {
        let foreign = |path: &str, value: Value| {
            let mut event = event("exit1");
            *event.pointer_mut(path).unwrap() = value;
            assert_eq!(parse(&event.to_string(), &deployment()).unwrap(), Event::Foreign, "{path}");
        };
        foreign("/source", json!("aws.batch"));
        foreign("/detail-type", json!("ECS Service Action"));
        foreign("/detail/startedBy", json!("ecs-svc/0123"));
        foreign("/detail/startedBy", json!("staging/nightly-1/2"));
        foreign("/detail/startedBy", Value::Null);
        foreign("/detail", Value::Null);
    }

    #[test]
    fn an_error_gives_the_position_alone() {
        let mut event = event("exit1");
        event["detail"]["overrides"] = json!({"containerOverrides": [{"command": ["--password", "hunter2"]}]});
        event["detail"]["version"] = json!("hunter2");
        let error = parse(&event.to_string(), &deployment()).unwrap_err();
        assert!(matches!(error, EventError::Detail { .. }));
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("894b524e"), "{error}");
        assert!(matches!(parse("hunter2", &deployment()), Err(EventError::Envelope { .. })));
    }

    #[test]
    fn an_error_gives_the_events_id_only_if_it_is_one() {
        let error = |id: &str| {
            let mut event = event("running");
            event["id"] = json!(id);
            event["detail"]["version"] = json!("secret");
            parse(&event.to_string(), &deployment()).unwrap_err().to_string()
        };
        assert!(error("3317b2af-7005-947d-b652-f55e762e571a").starts_with("event 3317b2af-"));
        assert!(!error("my secret").contains("secret"));
    }
}
