//! `POST /v1/submissions`: record first, RunTask second.

use std::{
    collections::HashSet,
    fmt::Display,
    time::{Duration, SystemTime},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::{Bridge, BridgeError, Created, Settled, now, telemetry};
use ecs_bridge_core::{
    Action, Input, Record, State, SubmissionId,
    api::{self, ItemAnswer, ItemCode, ItemError, SubmissionItem},
    record::Submission,
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    handler::App,
    http::{Refusal, json_answer},
};

/// How many submissions are worked on side by side.
const SIDE_BY_SIDE: usize = 32;

/// How many launch tokens are taken at a time: what turns out to be known needs none, and what a call holds others miss.
const TOKENS: usize = 16;

/// What must be left of an invocation's time for a submission to be begun: for its writes, and a RunTask that is not
/// answered.
const TO_LAUNCH: Duration = Duration::from_secs(20);

/// The launch tokens of a call, taken as they are needed.
struct Tokens<'a> {
    bridge: &'a Bridge,
    held: Mutex<Held>,
}

struct Held {
    tokens: usize,
    /// How many submissions have not asked for one yet.
    to_come: usize,
    /// Whether the bucket had none left: this call does not ask again.
    is_out: bool,
}

impl<'a> Tokens<'a> {
    fn new(bridge: &'a Bridge, submissions: usize) -> Self {
        Self { bridge, held: Mutex::new(Held { tokens: 0, to_come: submissions, is_out: false }) }
    }

    async fn take(&self) -> bool {
        let mut held = self.held.lock().await;
        if held.tokens == 0 && !held.is_out {
            held.tokens = self.bridge.launch_tokens(held.to_come.clamp(1, TOKENS)).await;
            held.is_out = held.tokens == 0;
        }
        held.to_come = held.to_come.saturating_sub(1);
        let has_token = held.tokens > 0;
        held.tokens -= usize::from(has_token);
        has_token
    }

    async fn put_back(&self) {
        self.held.lock().await.tokens += 1;
    }

    /// Gives back those that were not used.
    async fn give_back(self) {
        self.bridge.give_back(self.held.into_inner().tokens).await;
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
    /// Answers `POST /v1/submissions` before `deadline`: what there is no time for is `unavailable`, and not begun.
    pub async fn submit(&self, body: &[u8], deadline: SystemTime) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let items = api::submissions(body, &self.profiles)?;
        let wanted = items.iter().filter(|item| item.submission.is_ok()).count();
        let tokens = Tokens::new(&self.bridge, wanted);
        // Of those with one id, the first is the submission, and the others are answered by it.
        let mut ids = HashSet::new();
        let (firsts, repeats): (Vec<_>, Vec<_>) =
            items.into_iter().enumerate().partition(|(_, item)| ids.insert(item.submission_id.clone()));
        let mut answers = Vec::with_capacity(firsts.len() + repeats.len());
        for part in [firsts, repeats] {
            let part = stream::iter(part).map(|(index, item)| self.submit_item(index, item, &tokens, deadline));
            answers.append(&mut part.buffer_unordered(SIDE_BY_SIDE).collect().await);
        }
        tokens.give_back().await;
        answers.sort_unstable_by_key(|(answer, _)| answer.index);
        if answers.iter().any(|(_, left_queued)| *left_queued) {
            self.wake.wake().await;
        }
        let answers: Vec<_> = answers.into_iter().map(|(answer, _)| answer).collect();
        Ok(json_answer(200, &json!({"submissions": answers})))
    }

    /// The answer to one item, and whether this call left it queued.
    async fn submit_item(
        &self,
        index: usize,
        item: SubmissionItem,
        tokens: &Tokens<'_>,
        deadline: SystemTime,
    ) -> (ItemAnswer, bool) {
        let SubmissionItem { submission_id, submission } = item;
        let answer = |state, task_arn, error| ItemAnswer { index, submission_id, state, task_arn, error };
        let submission = match submission {
            Ok(submission) => submission,
            Err(error) => return (answer(None, None, Some(error)), false),
        };
        if is_short(deadline) {
            let error = ItemError::new(ItemCode::Unavailable, "the call ran out of time; retry this item");
            return (answer(None, None, Some(error)), false);
        }
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
                let message = "this id was submitted with a different command, overrides or profile";
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
    ///
    /// # Errors
    /// If DynamoDB does not take the record, or what came of its launch. The caller retries, and that brings the timer
    /// of its unanswered launch forward.
    async fn accept(&self, submission: Submission, tokens: &Tokens<'_>) -> Result<Outcome, BridgeError> {
        let is_blocked = || self.bridge.is_blocked(&submission.profile);
        let mut has_token = !is_blocked() && tokens.take().await;
        // Who takes tokens sees what has no capacity.
        let is_blocked = is_blocked();
        if is_blocked && has_token {
            tokens.put_back().await;
            has_token = false;
        }
        let (record, call) = if is_blocked {
            (Record::waiting(submission, now(), &self.bridge.rules), None)
        } else if has_token {
            Record::launching(submission, now(), &self.bridge.rules)
        } else {
            (Record::queued(submission, now(), &self.bridge.rules), None)
        };
        match self.bridge.table.create(&record).await? {
            Created::Known(known) => {
                if has_token {
                    tokens.put_back().await;
                }
                Ok(Outcome::Known(*known))
            }
            Created::New => {
                telemetry::accepted(&record);
                let settled = Settled { record, action: call.map(Action::RunTask) };
                self.bridge.carry_out(settled).await.map(Outcome::New)
            }
        }
    }
}

/// Whether there is too little time left to begin a launch. A deadline in the past is none at all: `cargo lambda watch`
/// tells a moment in 1970.
fn is_short(deadline: SystemTime) -> bool {
    deadline.duration_since(SystemTime::now()).is_ok_and(|left| left < TO_LAUNCH)
}

/// The error of an item that DynamoDB did not take.
pub fn unavailable(submission_id: &SubmissionId, error: &impl Display) -> ItemError {
    tracing::error!(%submission_id, %error, "an item was not accepted");
    ItemError::new(ItemCode::Unavailable, "DynamoDB is unavailable; retry this item")
}
