//! Lifecycle tests: each case of `tests/fixtures/lives.json` runs through the function's own entry point. The tests count
//! every request to DynamoDB and ECS at the wire.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

#[path = "../src/event.rs"]
mod event;
#[path = "../../../shared/aws/tests/support/mod.rs"]
mod support;

use ecs_bridge_aws::{Created, Wake};
use ecs_bridge_core::Record;
use serde_json::{Value, json};
use support::{Deployment, Reply, Wire};

fn fixtures() -> Value {
    serde_json::from_str(include_str!("../../../tests/fixtures/lives.json")).unwrap()
}

/// Applies an RFC 7396 merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            _ => merge(&mut target[name], value),
        }
    }
}

fn merged(base: &Value, patch: &Value) -> Value {
    let mut merged = base.clone();
    merge(&mut merged, patch);
    merged
}

/// Returns the event of one step.
fn event_of(base: &Value, id: &str, step: &Value) -> String {
    let attempt = step["attempt"].as_u64().unwrap_or(1);
    let ours = json!({"detail": {"startedBy": format!("local/{id}/{attempt}")}});
    merged(&merged(base, &ours), &step["event"]).to_string()
}

async fn deployment() -> Deployment {
    Deployment::new(|_, _| Reply::Answer(200, "{}".to_owned())).await
}

/// Returns the requests since the last call: table reads, table writes, and stopped tasks.
fn requests(deployment: &Deployment) -> (u64, u64, Vec<String>) {
    let operations = deployment.table.take();
    let count = |operation| operations.iter().filter(|seen| **seen == operation).count() as u64;
    let (reads, writes) = (count("GetItem"), count("UpdateItem"));
    assert_eq!(reads + writes, operations.len() as u64, "{operations:?}");
    let calls = deployment.ecs.seen();
    assert!(calls.iter().all(|call| call.operation == "StopTask"), "the one ECS call that task-state may make");
    (reads, writes, calls.iter().map(|call| call.body()["task"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn lifecycle_event_costs_one_read_and_one_write() {
    let fixtures = fixtures();
    for life in fixtures["lives"].as_array().unwrap() {
        let (id, shows) = (life["id"].as_str().unwrap(), &life["shows"]);
        let mut row = merged(&fixtures["record"], &json!({"submission_id": id}));
        if let Some(patch) = life.get("record") {
            merge(&mut row, patch);
        }
        let record: Record = serde_json::from_value(row).unwrap();
        let deployment = deployment().await;
        assert!(matches!(deployment.bridge.table.create(&record).await, Ok(Created::New)));
        deployment.table.take();
        let mut stopped = Vec::new();
        for step in life["steps"].as_array().unwrap() {
            event::handle(&deployment.bridge, &nobody(), &event_of(&fixtures["event"], id, step)).await.unwrap();
            let expected = |name| step.get(name).map_or(1, |count| count.as_u64().unwrap());
            for task in step.get("stops").and_then(Value::as_array).into_iter().flatten() {
                stopped.push(task.as_str().unwrap().to_owned());
            }
            assert_eq!(requests(&deployment), (expected("reads"), expected("writes"), stopped.clone()), "{shows}");
        }
        let seen = serde_json::to_value(deployment.record(id).await).unwrap();
        for (name, value) in life["ends"].as_object().unwrap() {
            assert_eq!(seen.get(name).unwrap_or(&Value::Null), value, "{shows}: {name} of {seen}");
        }
    }
}

#[tokio::test]
async fn invalid_event_is_ignored_without_a_request() {
    let deployment = deployment().await;
    for text in ["null", "7", "\"event\"", "[]", "{}", "{\"detail\": null}", "{\"detail\": []}", "not JSON", ""] {
        event::handle(&deployment.bridge, &nobody(), text).await.unwrap();
    }
    assert_eq!(requests(&deployment), (0, 0, vec![]));
}

#[tokio::test]
async fn event_of_unknown_submission_creates_no_record() {
    let deployment = deployment().await;
    let text = event_of(&fixtures()["event"], "never-submitted", &json!({"event": {"detail": {"version": 9}}}));
    event::handle(&deployment.bridge, &nobody(), &text).await.unwrap();
    assert_eq!(requests(&deployment), (1, 0, vec![]));
}

#[tokio::test]
async fn event_is_retried_while_dynamodb_is_unavailable() {
    let deployment = Deployment::with(
        Wire::dynamodb(|_, _| support::error(500, "InternalServerError", "try again")).await,
        Wire::start(|_, _| Reply::Closed).await,
    );
    let text = event_of(&fixtures()["event"], "a", &json!({"event": {}}));
    let error = event::handle(&deployment.bridge, &nobody(), &text).await.unwrap_err();
    assert_eq!(error.to_string(), "GetItem: InternalServerError: try again");
}

#[tokio::test]
async fn event_with_unreadable_row_is_retried() {
    let table = Wire::dynamodb(|_, _| {
        Reply::Answer(200, json!({"Item": {"submission_id": {"S": "a"}, "state": {"S": "resting"}}}).to_string())
    });
    let deployment = Deployment::with(table.await, Wire::start(|_, _| Reply::Closed).await);
    let text = event_of(&fixtures()["event"], "a", &json!({"event": {}}));
    let error = event::handle(&deployment.bridge, &nobody(), &text).await.unwrap_err();
    assert_eq!(error.to_string(), "the row of a is no record of a submission");
}

/// Returns a live task without times. The fixture's times are older than a record of today.
fn live_task() -> Value {
    let detail = json!({"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "containers": [], "updatedAt": null});
    json!({"event": {"time": null, "detail": detail}})
}

#[tokio::test]
async fn orphan_task_event_is_retried_until_task_stops() {
    let deployment = Deployment::new(|_, _| support::error(400, "ThrottlingException", "Rate exceeded")).await;
    let tombstone =
        Record::tombstone("a".parse().unwrap(), "not needed", ecs_bridge_aws::now(), &deployment.bridge.rules);
    assert!(matches!(deployment.bridge.table.create(&tombstone).await, Ok(Created::New)));
    let live = live_task();
    let text = event_of(&fixtures()["event"], "a", &live);
    let error = event::handle(&deployment.bridge, &nobody(), &text).await.unwrap_err();
    assert_eq!(error.to_string(), "a task that should not be alive was not stopped");
}

#[tokio::test]
async fn stop_of_unknown_task_succeeds() {
    let unknown = support::error(400, "InvalidParameterException", "The referenced task was not found.");
    let deployment = Deployment::new(move |_, _| unknown.clone()).await;
    let tombstone =
        Record::tombstone("a".parse().unwrap(), "not needed", ecs_bridge_aws::now(), &deployment.bridge.rules);
    assert!(matches!(deployment.bridge.table.create(&tombstone).await, Ok(Created::New)));
    let live = live_task();
    event::handle(&deployment.bridge, &nobody(), &event_of(&fixtures()["event"], "a", &live)).await.unwrap();
}

/// Returns a wake-up that reaches no reconcile function.
fn nobody() -> Wake {
    Wake::new(&support::clients("http://127.0.0.1:9").config, None)
}
