//! The responses to a runner.

use std::time::Duration;

use ecs_bridge_aws::{TableError, http::Refusal};
use ecs_bridge_core::Record;
use serde_json::{Value, json};

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

/// Returns the response for an unavailable table. The runner retries.
pub fn unavailable(error: TableError) -> Refusal {
    tracing::error!(%error, "failed to handle a poll");
    Refusal::unavailable()
}

/// Returns the response that makes a runner exit.
pub fn close() -> Value {
    json!({"close": true})
}

/// Returns the command of a taken submission.
pub fn run(submission: &Record) -> Result<Value, Refusal> {
    let work = submission.request.as_ref().map(|request| request.work(&submission.container_name));
    match work {
        Some(Ok(work)) => Ok(json!({"run": {
            "submission_id": submission.submission_id,
            "command": work.command,
            "environment": work.environment,
        }})),
        Some(Err(_)) | None => {
            let id = &submission.submission_id;
            tracing::error!(submission_id = %id, "failed to read the command of a taken submission");
            Err(Refusal::new(500, "internal", "the command of a submission cannot be read"))
        }
    }
}
