//! Lambda's Invoke API, and the routes by which tests control the functions' processes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{delete, get, post};
use serde::de::IgnoredAny;
use serde_json::json;

use super::function::{MAX_EVENT, MAX_PAYLOAD, Outcome};
use super::service::Lambda;
use crate::http;

/// Returns the router of Invoke, GetFunctionConfiguration and the routes under `/_local/`.
pub fn router(lambda: Arc<Lambda>) -> Router {
    Router::new()
        .route("/2015-03-31/functions/{name}/configuration", get(configuration))
        .route("/2015-03-31/functions/{name}/invocations", post(invoke))
        .route(
            "/_local/processes",
            get(async |lambda: State<Arc<Lambda>>| http::json(StatusCode::OK, &lambda.processes())),
        )
        .route("/_local/processes/{pid}", delete(kill))
        .route(
            "/_local/invocations",
            get(async |lambda: State<Arc<Lambda>>| http::json(StatusCode::OK, &lambda.counts())),
        )
        .route(
            "/_local/abandoned",
            get(async |lambda: State<Arc<Lambda>>| http::json(StatusCode::OK, &lambda.abandoned())),
        )
        .layer(DefaultBodyLimit::max(4 * MAX_PAYLOAD))
        .with_state(lambda)
}

async fn invoke(
    State(lambda): State<Arc<Lambda>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let payload = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    let kind = headers.get("x-amz-invocation-type").map_or("RequestResponse", |kind| kind.to_str().unwrap_or_default());
    let most = if kind == "Event" { MAX_EVENT } else { MAX_PAYLOAD };
    if payload.len() > most {
        let message =
            format!("{} byte payload is too large for the invocation type (limit {most} bytes)", payload.len());
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", &message);
    }
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(&payload) {
        let message = format!("Could not parse request body into json: {error}");
        return refuse(StatusCode::BAD_REQUEST, "InvalidRequestContentException", &message);
    }
    let unknown = |_| unknown(&name);
    match kind {
        "RequestResponse" => lambda.invoke(&name, payload).await.map_or_else(unknown, |(request_id, outcome)| {
            let (payload, failed) = match outcome {
                Outcome::Answer(payload) => (payload, false),
                Outcome::FunctionError(payload) => (payload, true),
            };
            let mut answer = http::bytes(StatusCode::OK, "application/json", payload);
            http::set_header(&mut answer, "x-amzn-requestid", &request_id);
            http::set_header(&mut answer, "x-amz-executed-version", "$LATEST");
            if failed {
                http::set_header(&mut answer, "x-amz-function-error", "Unhandled");
            }
            answer
        }),
        "Event" => lambda.invoke_event(&name, payload).map_or_else(unknown, |request_id| {
            let mut answer = http::bytes(StatusCode::ACCEPTED, "application/json", Bytes::new());
            http::set_header(&mut answer, "x-amzn-requestid", &request_id);
            answer
        }),
        "DryRun" => http::bytes(StatusCode::NO_CONTENT, "application/json", Bytes::new()),
        _ => refuse(
            StatusCode::BAD_REQUEST,
            "InvalidParameterValueException",
            &format!("unknown invocation type \"{kind}\": must be RequestResponse, Event or DryRun"),
        ),
    }
}

fn unknown(name: &str) -> Response<Body> {
    refuse(StatusCode::NOT_FOUND, "ResourceNotFoundException", &format!("Function not found: {name}"))
}

/// Returns the members of GetFunctionConfiguration's response that apply to a local stack.
async fn configuration(State(lambda): State<Arc<Lambda>>, Path(name): Path<String>) -> Response<Body> {
    let Ok(function) = lambda.function(&name) else { return unknown(&name) };
    let settings = &function.settings;
    let environment: BTreeMap<_, _> = settings.environment.iter().map(|(name, value)| (name, value)).collect();
    http::json(
        StatusCode::OK,
        &json!({
            "FunctionName": name, "FunctionArn": function.arn, "State": "Active", "MemorySize": 128,
            "Timeout": settings.timeout.as_secs(), "Architectures": ["x86_64"],
            "Environment": {"Variables": environment}, "LoggingConfig": {"LogGroup": format!("/aws/lambda/{name}")},
        }),
    )
}

async fn kill(State(lambda): State<Arc<Lambda>>, Path(pid): Path<u32>) -> Response<Body> {
    let status = if lambda.kill(pid).await { StatusCode::OK } else { StatusCode::NOT_FOUND };
    http::json(status, &json!({"killed": status == StatusCode::OK}))
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let mut answer = http::json(status, &json!({"Type": "User", "Message": message}));
    http::set_header(&mut answer, "x-amzn-errortype", kind);
    answer
}
