//! `POST /v1/submissions`: record first, RunTask second.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::{
    BridgeError, Created, Settled,
    http::{Refusal, json_answer},
    now, telemetry,
};
use ecs_bridge_core::{
    Action, Input, Record,
    api::{self, ItemAnswer, ItemCode, ItemError, SubmissionItem},
    capacity::Shape,
    notify::Notify,
    record::Submission,
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::{
    app::App,
    errors::{malformed, unavailable},
    follow_up::{FollowUp, has_pending_notifications},
    launch_tokens::Tokens,
    pools::PoolRows,
};

/// The number of submissions handled concurrently.
const SIDE_BY_SIDE: usize = 32;

/// The invocation time that must remain to start a submission: enough for its writes and a RunTask call that times
/// out.
const TO_LAUNCH: Duration = Duration::from_secs(20);

/// The result for one submission.
enum Outcome {
    /// Recorded by this call, with the result of its launch.
    New(Record),
    /// Recorded by an earlier call.
    Known(Record),
}

impl App {
    /// Handles `POST /v1/submissions` before `deadline`. Items for which too little time remains are `unavailable`
    /// and are not recorded.
    pub async fn submit(&self, body: &[u8], deadline: SystemTime) -> Result<LambdaFunctionUrlResponse, Refusal> {
        let items = api::submissions(body, &self.profiles, &self.listeners).map_err(|error| malformed(&error))?;
        let is_launched = |item: &&SubmissionItem| item.submission.as_ref().is_ok_and(|it| it.pool.is_none());
        let wanted = items.iter().filter(is_launched).count();
        let tokens = Tokens::new(&self.bridge, wanted);
        let pools = self.keep_pools(&items).await;
        // The first item with an id is the submission. The others get the result of its record.
        let mut ids = HashSet::new();
        let (firsts, repeats): (Vec<_>, Vec<_>) =
            items.into_iter().enumerate().partition(|(_, item)| ids.insert(item.submission_id.clone()));
        let mut answers = Vec::with_capacity(firsts.len() + repeats.len());
        for part in [firsts, repeats] {
            let part = stream::iter(part).map(|(index, item)| self.submit_item(index, item, &tokens, &pools, deadline));
            answers.append(&mut part.buffer_unordered(SIDE_BY_SIDE).collect().await);
        }
        tokens.give_back().await;
        answers.sort_unstable_by_key(|(answer, _)| answer.index);
        tokio::join!(self.wake_for(answers.iter().map(|(_, left)| left), &pools), self.ring(&answers, &pools));
        let answers: Vec<_> = answers.into_iter().map(|(answer, _)| answer).collect();
        Ok(json_answer(200, &json!({"submissions": answers})))
    }

    /// Returns the result for one item, and the work that this call leaves to reconcile.
    async fn submit_item(
        &self,
        index: usize,
        item: SubmissionItem,
        tokens: &Tokens<'_>,
        pools: &PoolRows,
        deadline: SystemTime,
    ) -> (ItemAnswer, FollowUp) {
        let SubmissionItem { submission_id, submission } = item;
        let answer = |state, task_arn, error| ItemAnswer { index, submission_id, state, task_arn, error };
        let submission = match submission {
            Ok(submission) => submission,
            Err(error) => return (answer(None, None, Some(error)), FollowUp::None),
        };
        if is_short(deadline) {
            let error = ItemError::new(ItemCode::Unavailable, "the call ran out of time; retry this item");
            return (answer(None, None, Some(error)), FollowUp::None);
        }
        if submission.pool.is_some() && !pools.contains_key(&submission.profile) {
            let error = ItemError::new(ItemCode::Unavailable, "DynamoDB is unavailable; retry this item");
            return (answer(None, None, Some(error)), FollowUp::None);
        }
        let (id, content_hash) = (submission.submission_id.clone(), submission.content_hash);
        let notify = submission.notify.clone();
        match self.accept(submission, tokens).await {
            Ok(Outcome::New(record)) => {
                let left = FollowUp::of(&record);
                (answer(Some(record.state()), record.attempt.task_arn, None), left)
            }
            Ok(Outcome::Known(record)) if record.is_same_work(&content_hash) => {
                match self.resubmitted(record, notify).await {
                    Ok(record) => {
                        let left = if has_pending_notifications(&record) { FollowUp::Due } else { FollowUp::None };
                        (answer(Some(record.state()), record.attempt.task_arn, None), left)
                    }
                    Err(error) => (answer(None, None, Some(unavailable(&id, &error))), FollowUp::None),
                }
            }
            Ok(Outcome::Known(record)) => {
                let message = "this id was submitted with a different command, overrides or profile";
                (answer(Some(record.state()), None, Some(ItemError::new(ItemCode::Conflict, message))), FollowUp::None)
            }
            Err(error) => (answer(None, None, Some(unavailable(&id, &error))), FollowUp::None),
        }
    }

    /// Brings the timer of a resubmitted record forward if needed, adds its notifications, and returns the record.
    ///
    /// # Errors
    /// If DynamoDB does not record a notification. Only the caller has the notification, so the caller must retry.
    async fn resubmitted(&self, record: Record, notify: Notify) -> Result<Record, BridgeError> {
        let adds_none = notify.is_empty();
        match self.bridge.settle(record.clone(), Input::Resubmitted(notify)).await {
            Err(error) if adds_none => {
                // The record is due regardless.
                tracing::warn!(submission_id = %record.submission_id, %error, "failed to bring the timer of a resubmitted record forward");
                Ok(record)
            }
            settled => settled,
        }
    }

    /// Records a submission and, with a token, launches it.
    ///
    /// After a crash the record is due: `queued` at once, `launching` when its claim has expired.
    ///
    /// # Errors
    /// If DynamoDB does not accept the record or the result of its launch. The caller's retry brings the timer of a
    /// launch without a response forward.
    async fn accept(&self, submission: Submission, tokens: &Tokens<'_>) -> Result<Outcome, BridgeError> {
        // A submission for a pool needs no launch.
        let is_pooled = submission.pool.is_some();
        let shape = Shape { profile: submission.profile.clone(), placement: submission.placement.clone() };
        let choices = 0..=submission.policy.fallbacks;
        let is_blocked = || !is_pooled && self.bridge.open_choice(&shape, choices.clone(), 0).is_none();
        let mut has_token = !is_pooled && !is_blocked() && tokens.take().await;
        // A token buys an up-to-date view of the capacity.
        let is_blocked = is_blocked();
        let (at, rules) = (now(), &self.bridge.rules);
        let mut record = Record::queued(submission, at, rules);
        let mut call = None;
        if is_blocked {
            record.wait_for_capacity(at, rules);
        } else if has_token && let Some(choice) = self.bridge.choose(&record).await {
            call = record.launch(choice, at, rules);
        }
        if has_token && call.is_none() {
            tokens.put_back().await;
            has_token = false;
        }
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

/// Returns `true` if the remaining time is too short for a launch. A deadline in the past counts as none because
/// `cargo lambda watch` sends a time in 1970.
fn is_short(deadline: SystemTime) -> bool {
    deadline.duration_since(SystemTime::now()).is_ok_and(|left| left < TO_LAUNCH)
}
