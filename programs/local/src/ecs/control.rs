//! The routes under `/_local/`, through which tests control the emulator, and the metadata endpoint of containers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::behavior::{HOST_REASON, SPOT_REASON, Shapes};
use super::rules::{Rule, Then};
use super::state::Ecs;
use super::task::{Order, Task};
use crate::http::{self, lock};

pub(super) fn routes() -> Router<Arc<Ecs>> {
    Router::new()
        .route("/_local/calls", get(calls))
        .route("/_local/tasks", get(tasks))
        .route("/_local/tasks/{id}/{action}", post(act))
        .route("/_local/faults", get(async |ecs: State<Arc<Ecs>>| http::json(StatusCode::OK, &ecs.faults.counts())))
        .route("/_local/rules", post(add_rule).delete(drop_rules))
        .route("/_local/capacity", put(set_capacity))
        .route("/_local/notifications", get(notifications))
        .route("/_local/events", post(put_event).get(recent_events))
        .route("/credentials/{task}", get(credentials))
        .route("/v4/{task}/{container}", get(container_metadata))
        .route("/v4/{task}/{container}/task", get(task_metadata))
}

async fn calls(State(ecs): State<Arc<Ecs>>) -> Response<Body> {
    http::json(StatusCode::OK, &json!({"calls": lock(&ecs.state).calls}))
}

async fn tasks(State(ecs): State<Arc<Ecs>>) -> Response<Body> {
    let state = lock(&ecs.state);
    let rows = state.order.iter().filter_map(|id| state.tasks.get(id)).map(|task| row(&ecs, task));
    http::json(StatusCode::OK, &json!({"tasks": rows.collect::<Vec<_>>()}))
}

fn row(ecs: &Ecs, task: &Task) -> Value {
    let started_by = task.request.started_by.as_deref();
    let mut parts = started_by.unwrap_or_default().splitn(3, '/').skip(1);
    let submission_id = parts.next();
    let attempt: Option<u32> = parts.next().and_then(|attempt| attempt.parse().ok());
    json!({
        "task_arn": task.arn(&ecs.settings.location), "cluster_arn": ecs.settings.location.cluster_arn(),
        "started_by": started_by, "submission_id": submission_id, "attempt": attempt,
        "refused": task.refused, "start_count": task.start_count, "exit_code": task.reported_exit_code(), "last_status": task.status.as_str(),
        "process_exit_code": task.process_exit_code, "stop_code": task.stop_code,
        "role": task.request.overrides.task_role_arn.as_ref().or(task.definition.task_role_arn.as_ref()),
        "created_at": task.times.created.0, "exited_at": task.process_exited.map(|at| at.0),
        "stopped_at": task.times.stopped.map(|at| at.0),
    })
}

async fn act(State(ecs): State<Arc<Ecs>>, Path((id, action)): Path<(String, String)>) -> Response<Body> {
    if !lock(&ecs.state).tasks.contains_key(&id) {
        return http::json(
            StatusCode::NOT_FOUND,
            &json!({"error": format!("unknown task \"{id}\": GET /_local/tasks lists the tasks")}),
        );
    }
    match action.as_str() {
        "spot-notice" => ecs.order(&id, Order::Live, "SpotInterruption", SPOT_REASON),
        "termination-notice" => ecs.order(&id, Order::Live, "TerminationNotice", SPOT_REASON),
        "spot-interruption" => ecs.order(&id, Order::Stop, "SpotInterruption", SPOT_REASON),
        "infrastructure-health" => ecs.order(&id, Order::LoseHost, "InfrastructureHealth", HOST_REASON),
        "send-event" => {
            ecs.send_event(&id);
        }
        "report-lost" => {
            ecs.report_stopped(&id, &json!({"stopCode": "InfrastructureHealth", "stoppedReason": HOST_REASON}), None)
        }
        "report-out-of-memory" => ecs.report_stopped(
            &id,
            &json!({"stopCode": "EssentialContainerExited", "stoppedReason": "OutOfMemoryError"}),
            Some(137),
        ),
        "forget" => {
            if let Some(task) = lock(&ecs.state).tasks.get_mut(&id) {
                task.forgotten = true;
            }
        }
        _ => {
            return http::json(
                StatusCode::NOT_FOUND,
                &json!({"error": format!("unknown action \"{action}\": `ecs-bridge local --help` lists the actions")}),
            );
        }
    }
    http::json(StatusCode::OK, &json!({}))
}

async fn add_rule(State(ecs): State<Arc<Ecs>>, Json(rule): Json<Rule>) -> Response<Body> {
    if let Then::Shapes(words) = &rule.then
        && let Err(error) = words.parse::<Shapes>()
    {
        return http::json(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()}));
    }
    lock(&ecs.state).rules.push(rule);
    http::json(StatusCode::OK, &json!({}))
}

/// The capacity providers, launch types and subnets that have no capacity from now on.
#[derive(Deserialize)]
struct NoCapacity {
    without: Vec<String>,
}

async fn set_capacity(State(ecs): State<Arc<Ecs>>, Json(NoCapacity { without }): Json<NoCapacity>) -> Response<Body> {
    lock(&ecs.state).without = without;
    http::json(StatusCode::OK, &json!({}))
}

async fn drop_rules(State(ecs): State<Arc<Ecs>>) -> Response<Body> {
    lock(&ecs.state).rules.clear();
    http::json(StatusCode::OK, &json!({}))
}

async fn notifications(State(ecs): State<Arc<Ecs>>) -> Response<Body> {
    http::json(StatusCode::OK, &json!({"notifications": lock(&ecs.state).notifications}))
}

async fn put_event(State(ecs): State<Arc<Ecs>>, Json(event): Json<Value>) -> Response<Body> {
    let identity = event.to_string();
    let matched = ecs.bus.put(event, &identity);
    http::json(StatusCode::OK, &json!({"matched": matched}))
}

async fn recent_events(State(ecs): State<Arc<Ecs>>) -> Response<Body> {
    http::json(StatusCode::OK, &json!({"events": ecs.bus.recent()}))
}

/// Returns the credentials of a task's role, as ECS's agent does for its containers.
async fn credentials(State(ecs): State<Arc<Ecs>>, Path(task): Path<String>, headers: HeaderMap) -> Response<Body> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match ecs.settings.sessions.credentials(&task, authorization) {
        Some(credentials) => http::json(StatusCode::OK, &credentials),
        None => http::json(
            StatusCode::FORBIDDEN,
            &json!({"code": "AccessDenied", "message": "the authorization token is not the one of this task"}),
        ),
    }
}

async fn container_metadata(
    State(ecs): State<Arc<Ecs>>,
    Path((task, container)): Path<(String, String)>,
) -> Response<Body> {
    metadata(&ecs, &task, |task, arn| {
        let found = task.containers.iter().find(|other| other.name == container)?;
        Some(json!({"Name": found.name, "Image": found.image, "DockerId": task.id,
                    "Labels": {"com.amazonaws.ecs.task-arn": arn, "com.amazonaws.ecs.container-name": found.name}}))
    })
}

async fn task_metadata(State(ecs): State<Arc<Ecs>>, Path((task, _)): Path<(String, String)>) -> Response<Body> {
    let cluster = ecs.settings.location.cluster_arn();
    metadata(&ecs, &task, |task, arn| {
        Some(json!({"Cluster": cluster, "TaskARN": arn, "Family": task.definition.family,
                    "Revision": task.definition.revision.to_string(), "DesiredStatus": task.desired_status(),
                    "KnownStatus": task.status.as_str(), "LaunchType": task.request.launch_type}))
    })
}

fn metadata(ecs: &Ecs, id: &str, show: impl Fn(&Task, String) -> Option<Value>) -> Response<Body> {
    let state = lock(&ecs.state);
    match state.tasks.get(id).and_then(|task| show(task, task.arn(&ecs.settings.location))) {
        Some(shown) => http::json(StatusCode::OK, &shown),
        None => http::json(StatusCode::NOT_FOUND, &json!({})),
    }
}
