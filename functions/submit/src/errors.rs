//! The errors that several verbs return.

use std::fmt::Display;

use ecs_bridge_aws::http::Refusal;
use ecs_bridge_core::{
    SubmissionId,
    api::{BodyError, ItemCode, ItemError},
};

/// Returns the rejection of a whole body.
pub fn malformed(error: &BodyError) -> Refusal {
    match error {
        BodyError::NotJson { .. } => Refusal::new(400, "bad_request", error.to_string()),
        BodyError::Envelope(message) => Refusal::new(422, "unprocessable", message),
    }
}

/// Returns the error of an item that DynamoDB did not accept.
pub fn unavailable(submission_id: &SubmissionId, error: &impl Display) -> ItemError {
    tracing::error!(%submission_id, %error, "failed to record an item");
    ItemError::new(ItemCode::Unavailable, "DynamoDB is unavailable; retry this item")
}
