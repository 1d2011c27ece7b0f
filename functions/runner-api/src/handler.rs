//! The request: from the function URL, or by direct invocation.

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

/// The limit on a body, in bytes. What a runner sends is short.
const BODY_BYTES: usize = 16 * 1024;

/// The state that the function keeps between invocations.
#[derive(Debug)]
pub struct App {
    /// Its table and rules.
    pub bridge: Bridge,
    /// The roles that a runner's task may have.
    pub roles: Roles,
    /// Invokes reconcile, which notifies of ends.
    pub wake: Wake,
    /// What was taken from each pool and is not written yet, and when that was last written.
    pub takes: Mutex<BTreeMap<ProfileName, (Takes, Option<Instant>)>>,
    /// Whether it answers direct invocations, where the token alone identifies the caller.
    pub takes_invocations: bool,
}

impl App {
    /// Answers one event. An error is an answer too.
    pub async fn handle(&self, event: &str, request_id: &str) -> LambdaFunctionUrlResponse {
        self.route(event).await.unwrap_or_else(|refusal| refusal.answer(request_id))
    }

    async fn route(&self, event: &str) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let (caller, body) = self.request(event)?;
        let ask: Ask = serde_json::from_value(body).map_err(|error| malformed(&error))?;
        let answer = self.ask(&ask, &caller).await?;
        Ok(json_answer(200, &answer))
    }

    /// Who asks, and the body of the request.
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

    /// The answer of a function without a usable table: the runner asks again.
    pub fn unavailable(error: &impl std::fmt::Display) -> Refusal {
        tracing::error!(%error, "a runner got no answer");
        Refusal::unavailable()
    }
}

/// A refusal of a body that is not a runner's question.
fn malformed(error: &serde_json::Error) -> Refusal {
    let shape = "the body must be an object with runner_id, token and incarnation, and may have stopping (a boolean), rung_for (a string) \
                 and done: {submission_id, exit_code (a whole number)}";
    let error = error.to_string();
    // These quote what was sent, which may be a token.
    let quotes = ["invalid type", "invalid value"].iter().any(|start| error.starts_with(start));
    let message = if quotes { shape.to_owned() } else { format!("{shape}: {error}") };
    Refusal::new(422, "unprocessable", message)
}

/// A refusal of a caller that is not the runner that it claims to be.
pub fn forbidden(reason: &str) -> Refusal {
    Refusal::new(403, "forbidden", reason)
}

/// The answer to a runner that is one process too many.
pub fn another_process() -> Refusal {
    Refusal::new(409, "conflict", "another process asked for work as this runner before; this one must end")
}

/// The answer where nothing waits: a runner with a doorbell asks again when that rings, or after `rest`.
pub fn rest(milliseconds: u32, rest: Duration) -> Value {
    json!({"wait_ms": milliseconds, "rest_ms": u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)})
}

/// The answer that lets a runner ask again.
pub fn wait(milliseconds: u32) -> Value {
    json!({"wait_ms": milliseconds})
}
