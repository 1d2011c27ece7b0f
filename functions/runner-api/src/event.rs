//! One event: a request through the function URL, or a direct invocation.

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use ecs_bridge_aws::http::{Refusal, json_answer, json_body};
use serde_json::Value;

use crate::{app::App, caller::Caller, poll::Poll};

/// The maximum size of a body, in bytes. Requests of runners are short.
const BODY_BYTES: usize = 16 * 1024;

impl App {
    /// Handles one event. An error also becomes a response.
    pub async fn handle(&self, event: &str, request_id: &str) -> LambdaFunctionUrlResponse {
        self.route(event).await.unwrap_or_else(|refusal| refusal.answer(request_id))
    }

    async fn route(&self, event: &str) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let (caller, body) = self.request(event)?;
        let poll: Poll = serde_json::from_value(body).map_err(|error| malformed(&error))?;
        let answer = self.poll(&poll, &caller).await?;
        Ok(json_answer(200, &answer))
    }

    /// Returns the caller and the body of the request.
    fn request(&self, event: &str) -> Result<(Caller, Value), Refusal> {
        let not_json = |_| Refusal::new(400, "bad_request", "the body is not JSON in UTF-8");
        let payload: Value = serde_json::from_str(event).map_err(not_json)?;
        if payload.get("requestContext").is_none() {
            if self.takes_invocations {
                return Ok((Caller::Invocation, payload));
            }
            let message = "direct invocation is not enabled in this deployment (RunnerApiDirectInvocation)";
            return Err(Refusal::new(403, "forbidden", message));
        }
        let request: LambdaFunctionUrlRequest = serde_json::from_value(payload).map_err(not_json)?;
        if request.raw_path.as_deref() != Some("/v1/poll") {
            return Err(Refusal::new(404, "not_found", "no such path; known: POST /v1/poll"));
        }
        if request.request_context.http.method.as_deref() != Some("POST") {
            let refusal = Refusal::new(405, "method_not_allowed", "this path accepts POST");
            return Err(Refusal { allow: Some("POST"), ..refusal });
        }
        let body = serde_json::from_slice(&json_body(&request, BODY_BYTES)?).map_err(not_json)?;
        let iam = request.request_context.authorizer.and_then(|authorizer| authorizer.iam);
        let user_arn = iam.and_then(|iam| iam.user_arn).unwrap_or_default();
        Ok((Caller::Identity(user_arn), body))
    }
}

/// Returns the rejection of an invalid poll request.
fn malformed(error: &serde_json::Error) -> Refusal {
    let shape = "the body must be an object with runner_id, token and incarnation, and may have stopping (a boolean), rung_for (a string) \
                 and done: {submission_id, exit_code (a whole number)}";
    let error = error.to_string();
    // These messages quote the input, which may contain a token.
    let quotes = ["invalid type", "invalid value"].iter().any(|start| error.starts_with(start));
    let message = if quotes { shape.to_owned() } else { format!("{shape}: {error}") };
    Refusal::new(422, "unprocessable", message)
}
