//! Direct invocations: the bodies of the HTTP API without HTTP, for callers that can invoke a function but cannot
//! sign a request.

use std::time::SystemTime;

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::http::Refusal;
use lambda_runtime::Diagnostic;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{app::App, routes::BODY_BYTES};

/// The request in a payload, selected by its members.
#[derive(Deserialize)]
struct Payload {
    submissions: Option<Value>,
    submission_ids: Option<Value>,
    submission_id: Option<Value>,
    command: Option<Value>,
    health: Option<bool>,
}

const FORMS: &str = "a direct invocation is {\"submission_id\", \"command\", …} for a submission, {\"submissions\": [...]} for \
                     several, {\"submission_ids\": [...]} for stops, {\"submission_id\"} alone for a record, or {\"health\": \
                     true}";

impl App {
    /// Handles a direct invocation before `deadline` and returns the JSON of the HTTP API. A single submission
    /// returns its own result.
    ///
    /// # Errors
    /// If the HTTP API's status is not 200, or a single submission was not accepted. The error's type is the API's
    /// error code.
    pub async fn invoke(
        &self,
        payload: &RawValue,
        request_id: &str,
        deadline: SystemTime,
    ) -> Result<Value, Diagnostic> {
        let text = payload.get();
        let answer = match serde_json::from_str(text) {
            Ok(_) if text.len() > BODY_BYTES => {
                let message = format!("the payload has {} bytes; at most {BODY_BYTES} are accepted", text.len());
                Err(Refusal::new(413, "too_large", message))
            }
            Ok(Payload { submissions: Some(_), .. }) => self.submit(text.as_bytes(), deadline).await,
            Ok(Payload { submission_ids: Some(_), .. }) => self.stop(text.as_bytes()).await,
            Ok(Payload { command: Some(_), .. }) => {
                let body = format!("{{\"submissions\":[{text}]}}");
                return alone(&respond(self.submit(body.as_bytes(), deadline).await, request_id)?);
            }
            Ok(Payload { submission_id: Some(Value::String(id)), .. }) => self.show(&id).await,
            Ok(Payload { health: Some(true), .. }) => Ok(self.health(request_id).await),
            Ok(Payload { .. }) | Err(_) => Err(Refusal::new(422, "unprocessable", FORMS)),
        };
        respond(answer, request_id)
    }
}

/// Returns the body of a response, or the code and message of an error.
fn respond(answer: Result<LambdaFunctionUrlResponse, Refusal>, request_id: &str) -> Result<Value, Diagnostic> {
    let answer = answer.unwrap_or_else(|refusal| refusal.answer(request_id));
    let body: Value = serde_json::from_str(answer.body.as_deref().unwrap_or_default()).unwrap_or_default();
    if answer.status_code == 200 { Ok(body) } else { Err(failure(&body)) }
}

/// Returns the only item of a response.
fn alone(body: &Value) -> Result<Value, Diagnostic> {
    let mut item = body.pointer("/submissions/0").cloned().unwrap_or_else(|| json!({}));
    if item.get("error").is_some() {
        return Err(failure(&item));
    }
    if let Some(members) = item.as_object_mut() {
        members.remove("index");
    }
    Ok(item)
}

fn failure(body: &Value) -> Diagnostic {
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).unwrap_or("unknown").to_owned();
    Diagnostic { error_type: text("/error/code"), error_message: text("/error/message") }
}
