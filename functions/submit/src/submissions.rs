//! `POST /v1/submissions`: record first, RunTask second.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Display,
    time::{Duration, SystemTime},
};

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlResponse;
use ecs_bridge_aws::{
    Bridge, BridgeError, Created, Settled,
    http::{Refusal, json_answer},
    now, telemetry,
};
use ecs_bridge_core::{
    Action, Input, ProfileName, Record, State, SubmissionId,
    api::{self, ItemAnswer, ItemCode, ItemError, SubmissionItem},
    capacity::Shape,
    notify::Notify,
    pool::PoolRow,
    profile::Profile,
    record::Submission,
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::Mutex;

use crate::handler::{App, malformed};

/// The number of submissions handled concurrently.
const SIDE_BY_SIDE: usize = 32;

/// The number of launch tokens taken at a time. Known submissions need none, and tokens held by this call are
/// unavailable to others.
const TOKENS: usize = 16;

/// The invocation time that must remain to start a submission: enough for its writes and a RunTask call that times
/// out.
const TO_LAUNCH: Duration = Duration::from_secs(20);

/// The launch tokens of a call, taken as needed.
struct Tokens<'a> {
    bridge: &'a Bridge,
    held: Mutex<Held>,
}

struct Held {
    tokens: usize,
    /// The number of submissions that have not taken a token yet.
    to_come: usize,
    /// `true` if the bucket is empty. This call then takes no more tokens.
    is_out: bool,
}

impl<'a> Tokens<'a> {
    fn new(bridge: &'a Bridge, submissions: usize) -> Self {
        Self { bridge, held: Mutex::new(Held { tokens: 0, to_come: submissions, is_out: false }) }
    }

    async fn take(&self) -> bool {
        let mut held = self.held.lock().await;
        if held.tokens == 0 && !held.is_out {
            held.tokens = self.bridge.spare_launch_tokens(held.to_come.clamp(1, TOKENS)).await;
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

    /// Gives unused tokens back to the bucket.
    async fn give_back(self) {
        self.bridge.give_back(self.held.into_inner().tokens).await;
    }
}

/// Work that a call leaves to reconcile.
enum Left {
    /// No work.
    Nothing,
    /// A launch, or a notification.
    Due,
    /// A runner, if needed: the submission waits in the pool of this profile.
    Waiting(ProfileName),
}

impl Left {
    fn by(record: &Record) -> Self {
        match (record.state == State::Queued, record.pooled.is_some(), &record.profile) {
            (true, true, Some(profile)) => Self::Waiting(profile.clone()),
            (true, _, _) => Self::Due,
            (false, _, _) if has_pending_notifications(record) => Self::Due,
            (false, _, _) => Self::Nothing,
        }
    }
}

/// The number of submissions of this process that wait for runners, since each pool was last sized.
#[derive(Debug, Default)]
pub struct IdleCapacity(Mutex<BTreeMap<ProfileName, (u64, u64)>>);

impl IdleCapacity {
    /// Returns `true` if `left` more submissions of a profile need more runners than are idle or starting, based on
    /// the pool's `row`.
    async fn lack(&self, row: &PoolRow, profile: &ProfileName, left: u64) -> bool {
        let mut known = self.0.lock().await;
        let (rev, since) = known.entry(profile.clone()).or_default();
        if *rev != row.rev {
            (*rev, *since) = (row.rev, 0);
        }
        *since += left;
        *since > u64::from(row.spare) || left > row.spare_now()
    }
}

/// The rows of pools, by profile.
type PoolRows = BTreeMap<ProfileName, PoolRow>;

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

    /// Returns the rows of the pools of these items. Each row holds the launch configuration for the item's version
    /// of the profile. A pool whose row could not be written is omitted, and nothing is accepted for it.
    async fn keep_pools(&self, items: &[SubmissionItem]) -> PoolRows {
        let mut rows = PoolRows::new();
        let pooled = items.iter().filter_map(|item| item.submission.as_ref().ok()).filter(|it| it.pool.is_some());
        for profile in pooled.map(|submission| &submission.profile).collect::<BTreeSet<_>>() {
            let Some(spec) = self.profiles.get(profile).and_then(Profile::spec) else { continue };
            match self.bridge.table.keep_pool(profile, &spec).await {
                Ok(mut row) => {
                    // Runners that were taken since the pool was sized are no longer idle.
                    match self.bridge.table.takes(profile).await {
                        Ok(takes) => row.taken = row.taken.max(takes.taken),
                        Err(error) => tracing::warn!(%error, %profile, "failed to read the takes of a pool"),
                    }
                    rows.insert(profile.clone(), row);
                }
                Err(error) => tracing::error!(%error, %profile, "failed to read or write a pool's row"),
            }
        }
        rows
    }

    /// Announces the submissions left to runners to idle runners.
    async fn ring(&self, answers: &[(ItemAnswer, Left)], pools: &PoolRows) {
        for (profile, row) in pools {
            let key = self.profiles.get(profile).and_then(|profile| profile.pool.as_ref()).map(|(key, _)| key);
            let doorbell = key.and_then(|key| row.specs.get(key)?.doorbell.as_deref());
            let Some(url) = doorbell.filter(|_| !row.paused) else { continue };
            let left = answers.iter().filter(|(_, left)| matches!(left, Left::Waiting(of) if of == profile));
            let ids: Vec<_> = left.filter_map(|(answer, _)| answer.submission_id.as_ref()).collect();
            self.doorbells.ring(url, &ids).await;
        }
    }

    /// Wakes reconcile if it has something to launch.
    async fn wake_for(&self, left: impl Iterator<Item = &Left>, pools: &PoolRows) {
        let mut waiting: BTreeMap<&ProfileName, u64> = BTreeMap::new();
        let mut is_needed = false;
        for left in left {
            match left {
                Left::Nothing => {}
                Left::Due => is_needed = true,
                Left::Waiting(profile) => *waiting.entry(profile).or_default() += 1,
            }
        }
        for (profile, left) in waiting {
            is_needed |= match pools.get(profile) {
                Some(row) => self.spares.lack(row, profile, left).await,
                None => true,
            };
        }
        if is_needed {
            self.wake.wake(&self.bridge.table).await;
        }
    }

    /// Returns the result for one item, and the work that this call leaves to reconcile.
    async fn submit_item(
        &self,
        index: usize,
        item: SubmissionItem,
        tokens: &Tokens<'_>,
        pools: &PoolRows,
        deadline: SystemTime,
    ) -> (ItemAnswer, Left) {
        let SubmissionItem { submission_id, submission } = item;
        let answer = |state, task_arn, error| ItemAnswer { index, submission_id, state, task_arn, error };
        let submission = match submission {
            Ok(submission) => submission,
            Err(error) => return (answer(None, None, Some(error)), Left::Nothing),
        };
        if is_short(deadline) {
            let error = ItemError::new(ItemCode::Unavailable, "the call ran out of time; retry this item");
            return (answer(None, None, Some(error)), Left::Nothing);
        }
        if submission.pool.is_some() && !pools.contains_key(&submission.profile) {
            let error = ItemError::new(ItemCode::Unavailable, "DynamoDB is unavailable; retry this item");
            return (answer(None, None, Some(error)), Left::Nothing);
        }
        let (id, content_hash) = (submission.submission_id.clone(), submission.content_hash);
        let notify = submission.notify.clone();
        match self.accept(submission, tokens).await {
            Ok(Outcome::New(record)) => {
                let left = Left::by(&record);
                (answer(Some(record.state), record.task_arn, None), left)
            }
            Ok(Outcome::Known(record)) if record.is_same_work(&content_hash) => {
                match self.resubmitted(record, notify).await {
                    Ok(record) => {
                        let left = if has_pending_notifications(&record) { Left::Due } else { Left::Nothing };
                        (answer(Some(record.state), record.task_arn, None), left)
                    }
                    Err(error) => (answer(None, None, Some(unavailable(&id, &error))), Left::Nothing),
                }
            }
            Ok(Outcome::Known(record)) => {
                let message = "this id was submitted with a different command, overrides or profile";
                (answer(Some(record.state), None, Some(ItemError::new(ItemCode::Conflict, message))), Left::Nothing)
            }
            Err(error) => (answer(None, None, Some(unavailable(&id, &error))), Left::Nothing),
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

/// Returns `true` if reconcile has completion notifications to deliver.
pub fn has_pending_notifications(record: &Record) -> bool {
    record.state.is_terminal() && !record.is_settled()
}

/// Returns `true` if the remaining time is too short for a launch. A deadline in the past counts as none because
/// `cargo lambda watch` sends a time in 1970.
fn is_short(deadline: SystemTime) -> bool {
    deadline.duration_since(SystemTime::now()).is_ok_and(|left| left < TO_LAUNCH)
}

/// Returns the error of an item that DynamoDB did not accept.
pub fn unavailable(submission_id: &SubmissionId, error: &impl Display) -> ItemError {
    tracing::error!(%submission_id, %error, "failed to record an item");
    ItemError::new(ItemCode::Unavailable, "DynamoDB is unavailable; retry this item")
}
