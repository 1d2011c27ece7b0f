//! The next step of a runner: which submission it receives, if any.
//!
//! A command is dispatched only after one conditional write on the submission's row has assigned it to the runner. If
//! that write or the response is lost, the next poll starts again from the runner's row, and no command starts twice.

use ecs_bridge_aws::{Ranked, TableError, http::Refusal, now};
use ecs_bridge_core::{
    Input, Record, SubmissionId,
    decide::{
        PoolInput,
        pool::{RunnerStatus, Served, runner_status, served},
    },
    pool::{Process, Runner},
};
use serde_json::Value;

use crate::{
    app::App,
    responses::{another_process, close, rest, run, unavailable, wait},
};

/// The number of times that the runner's row is reread, after another runner took the submission or the served
/// submission ended.
const TRIES: usize = 8;

/// The number of waiting submissions read from the index. The index can still show submissions that were taken
/// recently.
const READ: usize = 150;

/// The number of them that are read from the table, sequentially, until one is still waiting.
const CANDIDATES: usize = 12;

/// The runner's next step.
enum Next {
    /// This submission is already assigned to the runner. The response was lost.
    Repeat(Box<Record>),
    /// The runner can take this submission.
    Take(Box<Record>),
    /// The runner's row has changed and must be read again.
    Reread,
    /// The runner can take no submission now.
    Nothing,
    /// No submission is waiting.
    Rest,
}

impl App {
    /// Returns the runner's next step, based on its row as just read or written.
    pub async fn next(
        &self,
        mut record: Record,
        by: &Process,
        stopping: bool,
        mut rung_for: Option<SubmissionId>,
    ) -> Result<Value, Refusal> {
        let mut interval = 0;
        for _ in 0..TRIES {
            let Some(runner) = record.runner() else { break };
            interval = runner.interval_ms;
            match runner_status(&record, runner, &by.incarnation) {
                RunnerStatus::Taken => return Err(another_process()),
                RunnerStatus::Close => return Ok(close()),
                RunnerStatus::TooEarly => break,
                RunnerStatus::Open if stopping => break,
                RunnerStatus::Open => {}
            }
            match self.choose(&record, runner, by, rung_for.take()).await.map_err(unavailable)? {
                Next::Repeat(submission) => return run(&submission),
                Next::Nothing => break,
                Next::Rest => return Ok(rest(interval, self.bridge.rules.timers.rest)),
                Next::Reread => {}
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
                (Served::Ours, Some(submission)) => Next::Repeat(Box::new(submission)),
                // A take that has begun is completed. Otherwise another runner could wait forever for this
                // submission.
                (Served::Untaken, Some(_)) if self.is_paused(record).await? => Next::Nothing,
                (Served::Untaken, Some(submission)) => self.unless_expired(submission).await?,
                (Served::Over(done), _) => {
                    self.clear(record, serves, done).await?;
                    Next::Reread
                }
                (Served::Ours | Served::Untaken, None) => {
                    self.clear(record, serves, false).await?;
                    Next::Reread
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
        let is_of_pool = |it: &Record| it.pooled().is_some_and(|pooled| pooled.key == runner.key);
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
        Ok(Next::Reread)
    }

    /// Takes a submission: writes first the runner's row, then the submission's row, each on condition that it is
    /// unchanged. Returns none if either row has changed or the submission may not be taken.
    async fn take(&self, record: &Record, submission: Record, by: &Process) -> Result<Option<Record>, TableError> {
        let serve = PoolInput::Serve(submission.submission_id.clone());
        if self.bridge.attempt(record, &Input::Pool(serve)).await?.is_none() {
            return Ok(None);
        }
        let Some(task_arn) = record.attempt.task_arn.clone() else { return Ok(None) };
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

    /// Counts a take for sizing. If the write fails or this process ends, the pool is sized by its waiting submissions.
    async fn count(&self, taken: &Record, found_idle: bool) {
        let Some(profile) = &taken.profile else { return };
        let Some(counted) = self.takes.add(profile, found_idle) else { return };
        if let Err(error) = self.bridge.table.count_taken(profile, counted).await {
            tracing::warn!(%error, %profile, "failed to count taken submissions");
        }
    }
}
