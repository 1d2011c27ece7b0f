//! The request, from the function URL or a direct invocation.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use ecs_bridge_aws::{
    Bridge, Wake,
    http::{Refusal, json_answer, json_body},
};
use ecs_bridge_core::{ProfileName, pool::Takes};
use serde_json::{Value, json};

use crate::{
    caller::{Caller, Roles},
    poll::Ask,
};

/// The maximum size of a body, in bytes. Requests of runners are short.
const BODY_BYTES: usize = 16 * 1024;

/// The state that the function keeps between invocations.
#[derive(Debug)]
pub struct App {
    /// The table and the decision rules.
    pub bridge: Bridge,
    /// The allowed task roles of runners.
    pub roles: Roles,
    /// Invokes reconcile, which delivers notifications.
    pub wake: Wake,
    /// Takes per pool that are not written yet, and the time of the last write.
    pub takes: Mutex<BTreeMap<ProfileName, (Takes, Option<Instant>)>>,
    /// `true` if direct invocations are allowed, which only the runner's token authenticates.
    pub takes_invocations: bool,
}

impl App {
    /// Handles one event. An error also becomes a response.
    pub async fn handle(&self, event: &str, request_id: &str) -> LambdaFunctionUrlResponse {
        self.route(event).await.unwrap_or_else(|refusal| refusal.answer(request_id))
    }

    async fn route(&self, event: &str) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let (caller, body) = self.request(event)?;
        let ask: Ask = serde_json::from_value(body).map_err(|error| malformed(&error))?;
        let answer = self.ask(&ask, &caller).await?;
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

    /// Returns the response for an unavailable table. The runner retries.
    pub fn unavailable(error: &impl std::fmt::Display) -> Refusal {
        tracing::error!(%error, "failed to handle a poll");
        Refusal::unavailable()
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

/// Returns the rejection of a caller that is not the runner it claims to be.
pub fn forbidden(reason: &str) -> Refusal {
    Refusal::new(403, "forbidden", reason)
}

/// Returns the rejection of a second process of a runner.
pub fn another_process() -> Refusal {
    Refusal::new(409, "conflict", "another process asked for work as this runner before; this one must end")
}

/// Returns the response when no submission is waiting. A runner with a doorbell polls again when it rings, or after
/// `rest`.
pub fn rest(milliseconds: u32, rest: Duration) -> Value {
    json!({"wait_ms": milliseconds, "rest_ms": u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)})
}

/// Returns the response that makes a runner poll again after this time.
pub fn wait(milliseconds: u32) -> Value {
    json!({"wait_ms": milliseconds})
}
