//! `POST /v1/stops`.

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::{
    BridgeError, Created,
    http::{Refusal, json_answer},
    now,
};
use ecs_bridge_core::{
    Input, Record, SubmissionId,
    api::{self, ItemAnswer, ItemError},
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::{
    app::App,
    errors::{malformed, unavailable},
    follow_up::has_pending_notifications,
};

/// The number of stops handled concurrently.
const SIDE_BY_SIDE: usize = 16;

impl App {
    /// Handles `POST /v1/stops`.
    pub async fn stop(&self, body: &[u8]) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let stops = api::stops(body).map_err(|error| malformed(&error))?;
        let answers = stream::iter(stops.submission_ids.into_iter().enumerate())
            .map(|(index, id)| self.stop_item(index, id, &stops.reason))
            .buffered(SIDE_BY_SIDE)
            .collect::<Vec<_>>()
            .await;
        if answers.iter().any(|(_, has_pending_notifications)| *has_pending_notifications) {
            self.wake.wake(&self.bridge.table).await;
        }
        let answers: Vec<_> = answers.into_iter().map(|(answer, _)| answer).collect();
        Ok(json_answer(200, &json!({"submissions": answers})))
    }

    /// Returns the result for one item, and whether reconcile has notifications to deliver.
    async fn stop_item(&self, index: usize, id: Result<SubmissionId, ItemError>, reason: &str) -> (ItemAnswer, bool) {
        let blank = ItemAnswer { index, submission_id: None, state: None, task_arn: None, error: None };
        let id = match id {
            Ok(id) => id,
            Err(error) => return (ItemAnswer { error: Some(error), ..blank }, false),
        };
        let blank = ItemAnswer { submission_id: Some(id.clone()), ..blank };
        match self.stop_one(&id, reason).await {
            Ok(record) => {
                let has_pending_notifications = has_pending_notifications(&record);
                (
                    ItemAnswer { state: Some(record.state()), task_arn: record.attempt.task_arn, ..blank },
                    has_pending_notifications,
                )
            }
            Err(error) => (ItemAnswer { error: Some(unavailable(&id, &error)), ..blank }, false),
        }
    }

    /// Stops a submission. For an unknown id it creates a canceled record, so that a submission that arrives after
    /// its stop never launches.
    async fn stop_one(&self, id: &SubmissionId, reason: &str) -> Result<Record, BridgeError> {
        let record = match self.bridge.table.get(id).await? {
            Some(record) => record,
            None => {
                let tombstone = Record::tombstone(id.clone(), reason, now(), &self.bridge.rules);
                match self.bridge.table.create(&tombstone).await? {
                    Created::New => return Ok(tombstone),
                    Created::Known(record) => *record,
                }
            }
        };
        self.bridge.settle(record, Input::Stop(reason.to_owned())).await
    }
}
