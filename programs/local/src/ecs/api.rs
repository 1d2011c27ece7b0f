//! The way in: ECS's JSON protocol, whose address also serves SQS, Step Functions and EventBridge.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;

use super::control;
use super::error::{ApiError, CONTENT_TYPE, parse};
use super::notifications;
use super::queues;
use super::rules::{self, Answer, Then};
use super::settings::EcsSettings;
use super::state::{Ecs, hash_of};
use crate::http::{self, NoResponse, lock};

const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";

/// The result of a call, and whether it is sent.
enum Reply {
    Result(Result<Value, ApiError>),
    NoResponse,
}

#[derive(Deserialize)]
struct OfCluster {
    #[serde(default)]
    cluster: Option<String>,
}

/// Returns the router of the API and of the routes under `/_local/`.
pub fn router(ecs: Arc<Ecs>) -> Router {
    Router::new()
        .route("/", post(call))
        .merge(control::routes())
        .layer(DefaultBodyLimit::max(16 * 1024 * 1024))
        .with_state(ecs)
}

async fn call(Shared(ecs): Shared<Arc<Ecs>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    if let Some(operation) = target.strip_prefix(queues::TARGET) {
        return match ecs.answer_queue(operation, &body).await {
            Ok(result) => http::bytes(StatusCode::OK, "application/x-amz-json-1.0", result.to_string().into()),
            Err(error) => error.response(),
        };
    }
    let services = [TARGET].into_iter().chain(notifications::TARGETS);
    let Some(operation) = services.filter_map(|service| target.strip_prefix(service)).next() else {
        return ApiError::new("UnknownOperationException", format!("unknown operation in X-Amz-Target: \"{target}\""))
            .response();
    };
    let nth = ecs.count(operation, &body);
    let latency = ecs.settings.api_latency;
    // The call takes effect halfway through its latency, so that its events may overtake the response.
    tokio::time::sleep(latency / 2).await;
    let reply = ecs.answer(operation, &body, nth);
    tokio::time::sleep(latency / 2).await;
    let mut response = match reply {
        Reply::Result(Ok(result)) => http::bytes(StatusCode::OK, CONTENT_TYPE, result.to_string().into()),
        Reply::Result(Err(error)) => error.response(),
        Reply::NoResponse => {
            let mut response = http::bytes(StatusCode::OK, CONTENT_TYPE, Bytes::new());
            response.extensions_mut().insert(NoResponse);
            return response;
        }
    };
    let request_id = ecs.settings.chance.uuid("call", &format!("{operation}/{nth}/{}", hash_of(&body)));
    http::set_header(&mut response, "x-amzn-requestid", &request_id);
    response
}

impl Ecs {
    fn answer(self: &Arc<Self>, operation: &str, body: &[u8], nth: u32) -> Reply {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return Reply::Result(Err(ApiError::new("SerializationException", "the body is not JSON")));
        };
        if operation == "RunTask" && !self.within_rate() {
            self.faults.throttled.count();
            return Reply::Result(Err(ApiError::new("ThrottlingException", "Rate exceeded")));
        }
        let rule = rules::take_rule(&mut lock(&self.state).rules, operation, &body);
        if let Some(Then::Error { code, message }) = &rule {
            self.faults.refused_by_rule.count();
            return Reply::Result(Err(ApiError::new(code, message.clone())));
        }
        let result = self.dispatch(operation, &body, rule.as_ref());
        let identity = format!("{operation}/{nth}/{}", hash_of(body.to_string().as_bytes()));
        let asked = match rule {
            Some(Then::Answer(answer)) => Some(answer),
            _ if self.settings.chance.happens(self.settings.api_error, "api error", &identity) => {
                let answers = [Answer::ServerError, Answer::None];
                Some(self.settings.chance.pick(answers, "api answer", &identity))
            }
            _ => None,
        };
        match asked {
            None => Reply::Result(result),
            Some(Answer::ServerError) => {
                self.faults.server_errors.count();
                Reply::Result(Err(ApiError::new("ServerException", "Service Unavailable. Please try again later.")))
            }
            Some(Answer::None) => {
                self.faults.unanswered.count();
                Reply::NoResponse
            }
        }
    }

    async fn answer_queue(&self, operation: &str, body: &[u8]) -> Result<Value, ApiError> {
        self.count(operation, body);
        let body = serde_json::from_slice(body)
            .map_err(|_| ApiError::new("SerializationException", "the body is not JSON"))?;
        let rule = rules::take_rule(&mut lock(&self.state).rules, operation, &body);
        if let Some(Then::Error { code, message }) = rule {
            self.faults.refused_by_rule.count();
            return Err(ApiError::new(&code, message));
        }
        let url = format!("{}/{}", self.url, self.settings.location.account);
        let EcsSettings { messages, chance, .. } = self.settings;
        self.queues.answer(operation, &body, &url, (messages, chance, &self.faults)).await
    }

    fn dispatch(self: &Arc<Self>, operation: &str, body: &Value, rule: Option<&Then>) -> Result<Value, ApiError> {
        match operation {
            "DescribeClusters" => return self.describe_clusters(&parse(body)?),
            "DescribeTaskDefinition" => return self.describe_task_definition(&parse(body)?),
            "RegisterTaskDefinition" => return self.register_task_definition(body),
            "DeregisterTaskDefinition" => return self.deregister_task_definition(&parse(body)?),
            "ListTaskDefinitions" => return self.list_task_definitions(&parse(body)?),
            "SendTaskSuccess" | "SendTaskFailure" => return self.send_task(operation, body),
            "PutEvents" => return self.put_events(body),
            _ => {}
        }
        let OfCluster { cluster } = parse(body)?;
        let cluster = cluster.as_deref().unwrap_or("default");
        if !self.is_this_cluster(cluster) {
            // The roles of the functions allow only this cluster.
            if operation == "StopTask" {
                let message = format!("User is not authorized to perform: ecs:StopTask in cluster {cluster}");
                return Err(ApiError::new("AccessDeniedException", message));
            }
            return Err(ApiError::new("ClusterNotFoundException", "Cluster not found."));
        }
        match operation {
            "RunTask" => self.run_task(body, rule),
            "DescribeTasks" => self.describe_tasks(&parse(body)?),
            "ListTasks" => self.list_tasks(&parse(body)?),
            "StopTask" => self.stop_task(parse(body)?),
            _ => {
                let message = format!("the local stack does not support the operation \"{operation}\"");
                Err(ApiError::new("UnknownOperationException", message))
            }
        }
    }
}
