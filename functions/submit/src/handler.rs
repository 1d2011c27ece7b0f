//! The routes.

use std::time::SystemTime;

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use ecs_bridge_aws::{
    Bridge, Doorbells, Wake,
    http::{Refusal, json_answer, json_body, text_answer},
};
use ecs_bridge_core::{
    SubmissionId,
    api::BodyError,
    notify::Listeners,
    pool::RunnerApiAddress,
    profile::{Clusters, Profiles},
};

use crate::submissions::IdleCapacity;

/// The maximum size of a body, in bytes: four times the size of 100 submissions with the longest overrides that ECS
/// accepts. Longer commands, which pools allow, reduce the number of submissions per call.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;

/// The JSON form of docs/openapi.yaml, written by `make openapi`.
const OPENAPI: &str = include_str!("openapi.json");

/// The state that the function keeps between invocations.
#[derive(Debug)]
pub struct App {
    /// The table, ECS and decision rules.
    pub bridge: Bridge,
    /// The deployment's profiles.
    pub profiles: Profiles,
    /// The clusters that the function's role allows.
    pub clusters: Clusters,
    /// The notification targets that the function's role allows.
    pub listeners: Listeners,
    /// Wakes reconcile, which launches queued submissions.
    pub wake: Wake,
    /// The address of the runner API.
    pub runner_api: Option<RunnerApiAddress>,
    /// Announces submissions to idle runners.
    pub doorbells: Doorbells,
    /// The idle capacity of pools, as far as this process knows.
    pub spares: IdleCapacity,
}

impl App {
    /// Handles one request before `deadline`. An error also becomes a response.
    pub async fn handle(
        &self,
        request: LambdaFunctionUrlRequest,
        request_id: &str,
        deadline: SystemTime,
    ) -> LambdaFunctionUrlResponse {
        self.route(&request, request_id, deadline).await.unwrap_or_else(|refusal| refusal.answer(request_id))
    }

    async fn route(
        &self,
        request: &LambdaFunctionUrlRequest,
        request_id: &str,
        deadline: SystemTime,
    ) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let method = request.request_context.http.method.as_deref().unwrap_or_default();
        let path = request.raw_path.as_deref().unwrap_or_default();
        match path {
            "/v1/submissions" => {
                accepts("POST", method)?;
                self.submit(&json_body(request, BODY_BYTES)?, deadline).await
            }
            "/v1/stops" => {
                accepts("POST", method)?;
                self.stop(&json_body(request, BODY_BYTES)?).await
            }
            "/v1/health" => {
                accepts("GET", method)?;
                Ok(self.health(request_id).await)
            }
            "/v1/openapi.json" => {
                accepts("GET", method)?;
                Ok(text_answer(200, OPENAPI.to_owned()))
            }
            _ => {
                let Some(id) = path.strip_prefix("/v1/submissions/") else { return Err(not_found()) };
                accepts("GET", method)?;
                self.show(id).await
            }
        }
    }

    /// Handles `GET /v1/submissions/{id}`.
    pub async fn show(&self, id: &str) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let id: SubmissionId = id.parse().map_err(|error| Refusal::new(404, "not_found", format!("{error}")))?;
        match self.bridge.table.get(&id).await {
            Ok(Some(record)) => Ok(json_answer(200, &record.public())),
            Ok(None) => Err(Refusal::new(404, "not_found", "no submission has this id, or its record has expired")),
            Err(error) => {
                tracing::error!(submission_id = %id, %error, "failed to read a record");
                Err(Refusal::unavailable())
            }
        }
    }
}

fn accepts(allowed: &'static str, method: &str) -> Result<(), Refusal> {
    if method == allowed {
        return Ok(());
    }
    let refusal = Refusal::new(405, "method_not_allowed", format!("this path accepts {allowed}"));
    Err(Refusal { allow: Some(allowed), ..refusal })
}

fn not_found() -> Refusal {
    let known = "POST /v1/submissions, GET /v1/submissions/{id}, POST /v1/stops, GET /v1/health, GET /v1/openapi.json";
    Refusal::new(404, "not_found", format!("no such path; known: {known}"))
}

/// Returns the rejection of a whole body.
pub fn malformed(error: &BodyError) -> Refusal {
    match error {
        BodyError::NotJson { .. } => Refusal::new(400, "bad_request", error.to_string()),
        BodyError::Envelope(message) => Refusal::new(422, "unprocessable", message),
    }
}
