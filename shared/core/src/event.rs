//! Parses EventBridge's *ECS Task State Change* events, and finds those that belong to the deployment.
//!
//! Only the members that a decision needs are parsed, each separately. Only `startedBy`, `taskArn`, `lastStatus` and
//! `containers` can make an event unusable. The member `detail.overrides` holds the command and its environment. It is
//! never parsed, so that no log can contain it.

use std::time::Duration;

use crate::{
    ecs_json::{self, Members, Unusable},
    id::{Deployment, StartedBy, SubmissionId},
    task::Task,
    time::Timestamp,
};

/// An event, as far as it concerns the deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task of one of this deployment's submissions.
    Ours(SubmissionId, Box<Task>),
    /// A task of another deployment or of none, or another type of event.
    Foreign,
}

/// An unusable event that may belong to this deployment. A retry would fail too.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The event is not a JSON object.
    #[error("not an EventBridge event")]
    Envelope,
    /// A member that every decision needs is missing. The error contains only its name, because the text may hold a
    /// command.
    #[error("event {id} has a detail with {unusable}")]
    Detail {
        /// The ID of the event, if it is valid.
        id: String,
        /// The missing member.
        #[source]
        unusable: Unusable,
    },
}

/// Parses an event for `deployment`.
///
/// # Errors
///
/// If the text is not an event, or belongs to `deployment` and a member that every decision needs is missing.
pub fn parse(text: &str, deployment: &Deployment) -> Result<Event, EventError> {
    let envelope = Members::parse(text).ok_or(EventError::Envelope)?;
    let Some(detail) = envelope.get("detail") else { return Ok(Event::Foreign) };
    if envelope.text("source").as_deref() != Some("aws.ecs")
        || envelope.text("detail-type").as_deref() != Some("ECS Task State Change")
    {
        return Ok(Event::Foreign);
    }
    let unusable = |unusable| EventError::Detail {
        id: envelope.text("id").filter(|id| is_event_id(id)).unwrap_or_default(),
        unusable,
    };
    let detail = Members::parse(detail.get()).ok_or(unusable(Unusable("object")))?;
    if detail.get("startedBy").is_none() {
        return Ok(Event::Foreign);
    }
    let started_by = detail.text("startedBy").ok_or(unusable(Unusable("startedBy")))?;
    let Some(owner) = StartedBy::parse(&started_by).filter(|owner| owner.deployment == *deployment) else {
        return Ok(Event::Foreign);
    };
    let task = ecs_json::task(&detail, owner.attempt, event_time(&envelope, &detail)).map_err(unusable)?;
    Ok(Event::Ours(owner.submission_id, Box::new(task)))
}

/// The limit on the time from a change of the task until ECS sends its event.
const SENT_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Returns the time of the reported change. Some senders of replayed events write `event_time` instead of `time`, or
/// both.
///
/// An `updatedAt` long before the event was sent is not the time of this change. It must not make the event one of an
/// earlier submission.
fn event_time(envelope: &Members<'_>, detail: &Members<'_>) -> Option<Timestamp> {
    let sent = envelope.time("time").or_else(|| envelope.time("event_time"));
    let updated = detail.time("updatedAt").filter(|at| sent.is_none_or(|sent| sent <= at.plus(SENT_WITHIN)));
    updated.or(sent)
}

/// Returns true if `text` may be quoted. EventBridge's IDs are UUIDs, and a replayed event could contain anything.
fn is_event_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
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
        assert_eq!((task.version, task.attempt.get(), task.last_status.as_str()), (Some(5), 2, "STOPPED"));
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
    fn error_names_the_member_alone() {
        let mut event = event("exit1");
        event["detail"]["overrides"] = json!({"containerOverrides": [{"command": ["--password", "hunter2"]}]});
        event["detail"]["lastStatus"] = json!(["hunter2"]);
        let error = parse(&event.to_string(), &deployment()).unwrap_err().to_string();
        assert!(
            error.starts_with("event 894b524e") && error.ends_with("has a detail with no usable lastStatus"),
            "{error}"
        );
        assert!(matches!(parse("hunter2", &deployment()), Err(EventError::Envelope)));
    }

    #[test]
    fn error_gives_the_events_id_only_if_it_is_one() {
        let error = |id: &str| {
            let mut event = event("running");
            event["id"] = json!(id);
            event["detail"]["taskArn"] = json!(7);
            parse(&event.to_string(), &deployment()).unwrap_err().to_string()
        };
        assert!(error("3317b2af-7005-947d-b652-f55e762e571a").starts_with("event 3317b2af-"));
        assert!(!error("my secret").contains("secret"));
    }

    #[test]
    fn member_of_any_type_leaves_the_event_usable() {
        let odd = [
            json!(7),
            json!(-1),
            json!(5.5),
            json!("x"),
            json!(true),
            json!([]),
            json!([7]),
            json!({"a": {}}),
            Value::Null,
        ];
        let whole = event("exit1");
        let names: Vec<_> = whole["detail"].as_object().unwrap().keys().cloned().collect();
        for name in
            names.iter().filter(|name| !["startedBy", "taskArn", "lastStatus", "containers"].contains(&name.as_str()))
        {
            for value in &odd {
                let mut event = whole.clone();
                event["detail"][name] = value.clone();
                let task = task(&event);
                assert_eq!(
                    (task.last_status.as_str(), task.exit_code("main")),
                    ("STOPPED", Some(1)),
                    "{name}: {value}"
                );
            }
        }
        for name in whole
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| !["detail", "source", "detail-type"].contains(&name.as_str()))
        {
            for value in &odd {
                let mut event = whole.clone();
                event[name] = value.clone();
                assert_eq!(task(&event).exit_code("main"), Some(1), "{name}: {value}");
            }
        }
    }

    #[test]
    fn update_long_before_the_event_is_not_its_time() {
        let mut event = event("exit1");
        event["detail"]["updatedAt"] = json!(1_597_400_000.5);
        assert_eq!(task(&event).at, Timestamp::parse_iso("2020-08-14T18:06:47Z"));
        event["time"] = json!("soon");
        assert_eq!(task(&event).at, Some(Timestamp::from_millis(1_597_400_000_500)));
    }

    #[test]
    fn event_with_both_times_has_the_time() {
        let mut event = event("exit1");
        event["event_time"] = json!("2021-01-01T00:00:00Z");
        event["detail"]["updatedAt"] = Value::Null;
        assert_eq!(task(&event).at, Timestamp::parse_iso("2020-08-14T18:06:47Z"));
    }
}
