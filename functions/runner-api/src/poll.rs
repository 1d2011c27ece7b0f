//! One poll of a runner: authenticate it, record its result, and choose its next command.
//!
//! A command is dispatched only after one conditional write on the submission's row has assigned it to the runner. If
//! that write or the response is lost, the next poll starts again from the runner's row, and no command starts twice.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use ecs_bridge_aws::{Ranked, TableError, http::Refusal, now, telemetry};
use ecs_bridge_core::{
    Input, Record, SubmissionId,
    decide::{
        PoolInput,
        pool::{RunnerStatus, Served, runner_status, served},
    },
    pool::{Incarnation, Process, Runner, TokenHash},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    caller::Caller,
    handler::{App, another_process, forbidden, rest, wait},
};

/// The number of times that the runner's row is reread, after another runner took the submission or the served
/// submission ended.
const TRIES: usize = 8;

/// The number of waiting submissions read from the index. The index can still show submissions that were taken
/// recently.
const READ: usize = 150;

/// The number of them that are read from the table, sequentially, until one is still waiting.
const CANDIDATES: usize = 12;

/// The time for which takes are counted in memory before they are written.
const COUNTED: Duration = Duration::from_secs(1);

/// A poll request from a runner.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    runner_id: SubmissionId,
    token: String,
    incarnation: Incarnation,
    /// `true` if the runner must stop and accepts no more commands.
    #[serde(default)]
    stopping: bool,
    /// A command that has ended.
    #[serde(default)]
    done: Option<Done>,
    /// The doorbell's message: the id of a submission, or any other text that only triggers a poll.
    #[serde(default)]
    rung_for: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    submission_id: SubmissionId,
    exit_code: i32,
}

/// The runner's next step.
enum Next {
    /// This submission is already assigned to the runner. The response was lost.
    Again(Box<Record>),
    /// The runner can take this submission.
    Take(Box<Record>),
    /// The runner's row has changed and must be read again.
    Look,
    /// The runner can take no submission now.
    Nothing,
    /// No submission is waiting.
    Rest,
}

impl App {
    /// Handles a poll.
    ///
    /// # Errors
    /// If the caller is not this runner, or is a second process of it, or if DynamoDB is unavailable.
    pub async fn ask(&self, ask: &Ask, caller: &Caller) -> Result<Value, Refusal> {
        let unavailable = |error: TableError| Self::unavailable(&error);
        let (id, incarnation) = (&ask.runner_id, &ask.incarnation);
        let Some((record, runner)) = self.authenticate(ask, caller).await? else {
            return Err(self.refuse(id, "there is no such runner with this token"));
        };
        let Some(task_arn) = record.task_arn.clone() else {
            // Its RunTask call has no response yet, or its launch was abandoned before the response.
            return Ok(if record.state.is_terminal() { close() } else { wait(runner.interval_ms) });
        };
        if let Some(reason) = caller.mismatch(&task_arn) {
            return Err(self.refuse(id, reason));
        }
        let by = Process { runner_id: id.clone(), incarnation: incarnation.clone() };
        if let Some(done) = &ask.done {
            self.done(&by, done, ask.stopping).await.map_err(unavailable)?;
        }
        if !caller.is_of(&self.roles) {
            let reason = "the caller's role is not one of the deployment's task roles";
            let refusal = self.refuse(id, reason);
            // Its result is recorded even if the roles were restricted while its command ran.
            return if ask.done.is_some() { Ok(close()) } else { Err(refusal) };
        }
        let contact = Input::Pool(PoolInput::Contact(incarnation.clone()));
        let record = self.bridge.decide(record, &contact).await.map_err(unavailable)?.record;
        let rung_for = ask.rung_for.as_deref().and_then(|message| message.parse().ok());
        self.next(record, &by, ask.stopping, rung_for).await
    }

    /// Returns the runner's row if the token matches.
    async fn authenticate(&self, ask: &Ask, caller: &Caller) -> Result<Option<(Record, Runner)>, Refusal> {
        if *caller == Caller::Identity(String::new()) {
            return Err(self.refuse(&ask.runner_id, "the request was not signed"));
        }
        let record = self.bridge.table.get(&ask.runner_id).await.map_err(|error| Self::unavailable(&error))?;
        let token = TokenHash::of(&ask.token);
        Ok(record.and_then(|record| {
            let runner = record.runner.as_deref().filter(|runner| runner.token == token)?.clone();
            Some((record, runner))
        }))
    }

    fn refuse(&self, runner_id: &SubmissionId, reason: &'static str) -> Refusal {
        telemetry::refused_runner(runner_id, reason);
        forbidden(reason)
    }

    /// Ends a submission with the exit code of its command, if this process has taken it.
    async fn done(&self, by: &Process, done: &Done, stopping: bool) -> Result<(), TableError> {
        // The record has expired or never existed, so there is nothing to end.
        let Some(submission) = self.bridge.table.get(&done.submission_id).await? else { return Ok(()) };
        let input = PoolInput::Done { by: by.clone(), exit_code: done.exit_code, stopping };
        let ended = self.bridge.decide(submission, &Input::Pool(input)).await?.record;
        if ended.state.is_terminal() && ended.pending_notifications.is_some() {
            // The runner does not wait for the delivery of notifications.
            self.wake.wake(&self.bridge.table).await;
        }
        Ok(())
    }

    /// Returns the runner's next step, based on its row as just read or written.
    async fn next(
        &self,
        mut record: Record,
        by: &Process,
        stopping: bool,
        mut rung_for: Option<SubmissionId>,
    ) -> Result<Value, Refusal> {
        let unavailable = |error: TableError| Self::unavailable(&error);
        let mut interval = 0;
        for _ in 0..TRIES {
            let Some(runner) = record.runner.as_deref() else { break };
            interval = runner.interval_ms;
            match runner_status(&record, runner, &by.incarnation) {
                RunnerStatus::Taken => return Err(another_process()),
                RunnerStatus::Close => return Ok(close()),
                RunnerStatus::TooEarly => break,
                RunnerStatus::Open if stopping => break,
                RunnerStatus::Open => {}
            }
            match self.choose(&record, runner, by, rung_for.take()).await.map_err(unavailable)? {
                Next::Again(submission) => return run(&submission),
                Next::Nothing => break,
                Next::Rest => return Ok(rest(interval, self.bridge.rules.timers.rest)),
                Next::Look => {}
                Next::Take(submission) => {
                    let idle_since = runner.idle_since;
                    if let Some(taken) = self.take(&record, *submission, by).await.map_err(unavailable)? {
                        let found_idle = idle_since.is_some_and(|since| since <= taken.created_at);
                        self.count(&taken, found_idle).await;
                        return run(&taken);
                    }
                }
            }
            let again = self.bridge.table.get(&by.runner_id).await.map_err(unavailable)?;
            let Some(again) = again else { return Ok(close()) };
            record = again;
        }
        Ok(wait(interval))
    }

    /// Chooses the next step of a runner that may receive a command.
    async fn choose(
        &self,
        record: &Record,
        runner: &Runner,
        by: &Process,
        rung_for: Option<SubmissionId>,
    ) -> Result<Next, TableError> {
        let table = &self.bridge.table;
        if let Some(serves) = &runner.serves {
            let submission = table.get(serves).await?;
            return Ok(match (served(submission.as_ref(), by), submission) {
                (Served::Ours, Some(submission)) => Next::Again(Box::new(submission)),
                // A take that has begun is completed. Otherwise another runner could wait in vain for this
                // submission.
                (Served::Untaken, Some(_)) if self.is_paused(record).await? => Next::Nothing,
                (Served::Untaken, Some(submission)) => self.unless_expired(submission).await?,
                (Served::Over(done), _) => {
                    self.clear(record, serves, done).await?;
                    Next::Look
                }
                (Served::Ours | Served::Untaken, None) => {
                    self.clear(record, serves, false).await?;
                    Next::Look
                }
            });
        }
        let mut waiting = table.ranked(&runner.key.waiting(), READ).await?;
        let announced = match rung_for {
            Some(id) => self.announced(id, runner, &mut waiting).await?,
            None => None,
        };
        let (false, Some(profile)) = (waiting.is_empty(), &record.profile) else { return Ok(Next::Rest) };
        let pool = table.pool_row(profile).await?;
        if pool.paused {
            return Ok(Next::Nothing);
        }
        // The first candidate is random, so that concurrent polls rarely choose the same submission. The others
        // follow in order.
        let choices = pool.choices(now(), &self.bridge.rules.timers).min(waiting.len());
        if let Some(first) = waiting.get_mut(..choices) {
            fastrand::shuffle(first);
            // No other runner received this doorbell message.
            if let Some(at) = first.iter().position(|row| Some(&row.submission_id) == announced.as_ref()) {
                first.swap(0, at);
            }
        }
        for candidate in waiting.iter().take(CANDIDATES) {
            // The index is eventually consistent: the submission may have been taken or removed.
            let submission = table.get(&candidate.submission_id).await?;
            match (served(submission.as_ref(), by), submission) {
                (Served::Untaken, Some(submission)) => return self.unless_expired(submission).await,
                (Served::Untaken, None) | (Served::Ours | Served::Over(_), _) => {}
            }
        }
        Ok(Next::Nothing)
    }

    /// Returns the announced submission if it is waiting for such a runner. The index may not show it yet, so it is
    /// added to the waiting rows.
    async fn announced(
        &self,
        id: SubmissionId,
        runner: &Runner,
        waiting: &mut Vec<Ranked>,
    ) -> Result<Option<SubmissionId>, TableError> {
        if waiting.iter().any(|row| row.submission_id == id) {
            return Ok(Some(id));
        }
        let submission = self.bridge.table.get(&id).await?;
        let is_of_pool = |it: &Record| it.pooled.as_ref().is_some_and(|pooled| pooled.key == runner.key);
        let Some((submission, rank)) = submission.filter(is_of_pool).and_then(|it| it.rank.map(|rank| (it, rank)))
        else {
            return Ok(None);
        };
        let place = waiting.partition_point(|row| row.rank <= rank);
        waiting.insert(place, Ranked { submission_id: id.clone(), rank, priority: submission.priority });
        Ok(Some(id))
    }

    /// Returns the submission to take. A submission past its deadline expires instead, so that no other runner reads
    /// it.
    async fn unless_expired(&self, submission: Record) -> Result<Next, TableError> {
        if !submission.is_past_deadline(now()) {
            return Ok(Next::Take(Box::new(submission)));
        }
        self.bridge.decide(submission, &Input::Due).await?;
        Ok(Next::Look)
    }

    /// Takes a submission: writes first the runner's row, then the submission's row, each on condition that it is
    /// unchanged. Returns none if either row has changed or the submission may not be taken.
    async fn take(&self, record: &Record, submission: Record, by: &Process) -> Result<Option<Record>, TableError> {
        let serve = PoolInput::Serve(submission.submission_id.clone());
        if self.bridge.attempt(record, &Input::Pool(serve)).await?.is_none() {
            return Ok(None);
        }
        let Some(task_arn) = record.task_arn.clone() else { return Ok(None) };
        let take = PoolInput::Take { by: by.clone(), task_arn, cluster: record.cluster.clone() };
        self.bridge.attempt(&submission, &Input::Pool(take)).await
    }

    /// Records that the runner no longer serves this submission.
    async fn clear(&self, record: &Record, serves: &SubmissionId, done: bool) -> Result<(), TableError> {
        let input = PoolInput::Served { submission_id: serves.clone(), done };
        self.bridge.attempt(record, &Input::Pool(input)).await.map(drop)
    }

    /// Returns `true` if an operator has paused the pool. Called only when a submission can be dispatched.
    async fn is_paused(&self, record: &Record) -> Result<bool, TableError> {
        let Some(profile) = &record.profile else { return Ok(false) };
        Ok(self.bridge.table.pool_row(profile).await?.paused)
    }

    /// Counts a take for sizing: at once after a quiet period, and once per second under load. If the write fails or
    /// this process ends, the pool is sized by its waiting submissions.
    async fn count(&self, taken: &Record, found_idle: bool) {
        let Some(profile) = &taken.profile else { return };
        let counted = {
            let mut takes = self.takes.lock().unwrap_or_else(PoisonError::into_inner);
            let (counted, written_at) = takes.entry(profile.clone()).or_default();
            counted.taken += 1;
            counted.found_idle += u64::from(found_idle);
            if written_at.is_some_and(|at| at.elapsed() < COUNTED) {
                return;
            }
            *written_at = Some(Instant::now());
            std::mem::take(counted)
        };
        if let Err(error) = self.bridge.table.count_taken(profile, counted).await {
            tracing::warn!(%error, %profile, "failed to count taken submissions");
        }
    }
}

fn close() -> Value {
    json!({"close": true})
}

/// Returns the command of a taken submission.
fn run(submission: &Record) -> Result<Value, Refusal> {
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
