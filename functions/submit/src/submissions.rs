//! `POST /v1/submissions`: record first, RunTask second.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::{Created, Settled, TableError, now, telemetry};
use ecs_bridge_core::{
    Action, Input, Record, State, SubmissionId,
    api::{self, ItemAnswer, ItemCode, ItemError, SubmissionItem},
    record::Submission,
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::{
    handler::App,
    http::{Refusal, json_answer},
};

/// How many submissions are worked on side by side.
const SIDE_BY_SIDE: usize = 32;

/// Launch tokens that this call took and has not used.
struct Tokens(AtomicUsize);

impl Tokens {
    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn put_back(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of one submission.
enum Outcome {
    /// Recorded by this call, and taken as far as it went.
    New(Record),
    /// It was there already.
    Known(Record),
}

impl App {
    /// Answers `POST /v1/submissions`.
    pub async fn submit(&self, body: &[u8]) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let items = api::submissions(body, &self.profiles)?;
        let wanted = items.iter().filter(|item| item.submission.is_ok()).count();
        let tokens = Tokens(AtomicUsize::new(self.bridge.launch_tokens(wanted).await));
        // Of those with one id, the first is the submission, and the others are answered by it.
        let mut ids = HashSet::new();
        let (firsts, repeats): (Vec<_>, Vec<_>) =
            items.into_iter().enumerate().partition(|(_, item)| ids.insert(item.submission_id.clone()));
        let mut answers = Vec::with_capacity(firsts.len() + repeats.len());
        for part in [firsts, repeats] {
            let part = stream::iter(part).map(|(index, item)| self.submit_item(index, item, &tokens));
            answers.append(&mut part.buffer_unordered(SIDE_BY_SIDE).collect().await);
        }
        answers.sort_unstable_by_key(|(answer, _)| answer.index);
        if let Some(wake) = &self.wake
            && answers.iter().any(|(_, left_queued)| *left_queued)
        {
            wake.wake().await;
        }
        let answers: Vec<_> = answers.into_iter().map(|(answer, _)| answer).collect();
        Ok(json_answer(200, &json!({"submissions": answers})))
    }

    /// The answer to one item, and whether this call left it queued.
    async fn submit_item(&self, index: usize, item: SubmissionItem, tokens: &Tokens) -> (ItemAnswer, bool) {
        let SubmissionItem { submission_id, submission } = item;
        let answer = |state, task_arn, error| ItemAnswer { index, submission_id, state, task_arn, error };
        let submission = match submission {
            Ok(submission) => submission,
            Err(error) => return (answer(None, None, Some(error)), false),
        };
        let (id, content_hash) = (submission.submission_id.clone(), submission.content_hash);
        match self.accept(submission, tokens).await {
            Ok(Outcome::New(record)) => {
                let left_queued = record.state == State::Queued;
                (answer(Some(record.state), record.task_arn, None), left_queued)
            }
            Ok(Outcome::Known(record)) if record.is_same_work(&content_hash) => {
                let record = self.resubmitted(record).await;
                (answer(Some(record.state), record.task_arn, None), false)
            }
            Ok(Outcome::Known(record)) => {
                let message = "this id was submitted before with another command, overrides or profile";
                (answer(Some(record.state), None, Some(ItemError::new(ItemCode::Conflict, message))), false)
            }
            Err(error) => (answer(None, None, Some(unavailable(&id, &error))), false),
        }
    }

    /// What becomes of a known record that its caller sent again.
    async fn resubmitted(&self, record: Record) -> Record {
        match self.bridge.settle(record.clone(), Input::Resubmitted).await {
            Ok(record) => record,
            Err(error) => {
                // It is recorded, and due in any case.
                tracing::warn!(submission_id = %record.submission_id, %error, "its timer was not brought forward");
                record
            }
        }
    }

    /// Records a submission and, with a token, launches it.
    ///
    /// A crash after the record is written leaves it due: `queued` at once, `launching` when its claim has run out.
    async fn accept(&self, submission: Submission, tokens: &Tokens) -> Result<Outcome, TableError> {
        let has_token = tokens.take();
        let (record, call) = if has_token {
            Record::launching(submission, now(), &self.bridge.rules)
        } else {
            (Record::queued(submission, now(), &self.bridge.rules), None)
        };
        match self.bridge.table.create(&record).await? {
            Created::Known(known) => {
                if has_token {
                    tokens.put_back();
                }
                Ok(Outcome::Known(*known))
            }
            Created::New => {
                telemetry::accepted(&record);
                let settled = Settled { record: record.clone(), action: call.map(Action::RunTask) };
                let launched = self.bridge.carry_out(settled).await;
                Ok(Outcome::New(launched.unwrap_or_else(|error| {
                    // It is recorded, and so accepted: reconcile takes it from here.
                    tracing::warn!(submission_id = %record.submission_id, %error, "the answer of RunTask was not recorded");
                    record
                })))
            }
        }
    }
}

/// The error of an item that the table did not take.
pub fn unavailable(submission_id: &SubmissionId, error: &impl Display) -> ItemError {
    tracing::error!(%submission_id, %error, "an item was not accepted");
    ItemError::new(ItemCode::Unavailable, "the table does not answer; send this item again")
}
