//! The HTTP API: which request goes to which verb.

use std::time::SystemTime;

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use ecs_bridge_aws::http::{Refusal, json_body, text_answer};

use crate::app::App;

/// The maximum size of a body, in bytes: four times the size of 100 submissions with the longest overrides that ECS
/// accepts. Longer commands, which pools allow, reduce the number of submissions per call.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;

/// The JSON form of docs/openapi.yaml, written by `make openapi`.
const OPENAPI: &str = include_str!("openapi.json");

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
