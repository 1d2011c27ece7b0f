//! `GET /v1/submissions/{id}`.

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::http::{Refusal, json_answer};
use ecs_bridge_core::SubmissionId;

use crate::app::App;

impl App {
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
