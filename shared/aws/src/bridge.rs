//! The loop that every function runs: decide, write if unchanged, act, and learn from the act.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use ecs_bridge_core::{
    Action, Call, Input, LaunchAnswer, Record, Rules, StartedBy, Task, Timestamp, config::Config, decide,
    decide::AfterStop, launch_rate::LaunchRate,
};

use crate::{
    clients::Clients,
    ecs::{Described, Ecs, EcsError, RunTaskAnswer},
    table::{Table, TableError},
    telemetry,
};

/// The clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A record after a decision, and what is to be done.
#[derive(Debug)]
pub struct Settled {
    /// As it now stands in the table.
    pub record: Record,
    /// What is to be done next; none if the record went while it was being decided.
    pub action: Option<Action>,
}

/// Why a decision could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The table did not answer. The record is due again at its `check_at`.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A task lives that should not, and no record is due that would stop it.
    #[error("a task that should not live was not stopped")]
    NotStopped(#[source] EcsError),
}

/// Table, ECS and rules of a deployment.
#[derive(Debug)]
pub struct Bridge {
    /// Its table.
    pub table: Table,
    /// Its ECS.
    pub ecs: Ecs,
    /// What its decisions rest on.
    pub rules: Rules,
    /// How fast it may call RunTask.
    pub launch_rate: LaunchRate,
}

impl Bridge {
    /// The deployment that a function's environment tells of.
    pub fn new(clients: &Clients, config: Config) -> Self {
        Self {
            table: Table::new(clients.dynamodb.clone(), config.table),
            ecs: Ecs::new(clients.ecs.clone()),
            rules: config.rules,
            launch_rate: config.launch_rate,
        }
    }

    /// Up to `wanted` launch tokens; none where the table does not give them, as what is not launched stays queued.
    pub async fn launch_tokens(&self, wanted: usize) -> usize {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if wanted == 0 {
            return 0;
        }
        match self.table.take_launch_tokens(wanted, now(), self.launch_rate).await {
            Ok(taken) => taken.tokens as usize,
            Err(error) => {
                tracing::warn!(%error, "no launch tokens now; what is to be launched stays queued");
                0
            }
        }
    }

    /// Decides on `input` and writes the result; anew with what another left, as long as another was quicker.
    ///
    /// The action is for the caller to do, and only then: it is void if this fails.
    ///
    /// # Errors
    /// Where the table does not answer. The write may have happened; the record is due again at its `check_at`.
    pub async fn decide(&self, mut record: Record, input: &Input) -> Result<Settled, TableError> {
        loop {
            let decision = decide(&record, input, now(), &self.rules);
            let Some(next) = decision.record else {
                telemetry::raised(&record, decision.alarm);
                return Ok(Settled { record, action: decision.action });
            };
            match self.table.update(&record, &next).await? {
                Ok(()) => {
                    telemetry::written(&record, &next, now());
                    telemetry::raised(&next, decision.alarm);
                    return Ok(Settled { record: next, action: decision.action });
                }
                Err(Some(current)) => record = *current,
                // Removed by its time to live in between.
                Err(None) => return Ok(Settled { record, action: None }),
            }
        }
    }

    /// Decides on `input`, acts, decides on what came of it, and so on until there is nothing left to do.
    ///
    /// # Errors
    /// Where the table does not answer, see [`decide`](Self::decide), or ECS does not stop what nobody else will.
    pub async fn settle(&self, record: Record, input: Input) -> Result<Record, BridgeError> {
        let settled = self.decide(record, &input).await?;
        self.carry_out(settled).await
    }

    /// Does what was decided, and what follows from it.
    ///
    /// # Errors
    /// As of [`settle`](Self::settle).
    pub async fn carry_out(&self, Settled { mut record, action }: Settled) -> Result<Record, BridgeError> {
        let mut actions = VecDeque::from_iter(action);
        while let Some(action) = actions.pop_front() {
            let only_chance = is_only_chance(&record, &action);
            let inputs = match self.act(&record, action).await {
                Ok(inputs) => inputs,
                Err(error) if only_chance => return Err(BridgeError::NotStopped(error)),
                Err(error) => {
                    tracing::warn!(submission_id = %record.submission_id, %error, "a call to ECS failed; it is repeated when due");
                    continue;
                }
            };
            for input in inputs {
                let settled = self.decide(record, &input).await?;
                record = settled.record;
                actions.extend(settled.action);
            }
        }
        Ok(record)
    }

    /// Does one thing, and tells what was learnt by it.
    async fn act(&self, record: &Record, action: Action) -> Result<Vec<Input>, EcsError> {
        match action {
            Action::RunTask(call) => Ok(self.run_task(record, call).await),
            Action::LookUp(_) => self.look_up(record).await,
            Action::Describe { task_arn } => self.describe(record, task_arn).await,
            Action::Stop { task_arn, cluster, reason, then } => {
                self.stop(record, task_arn, &cluster, &reason, then).await
            }
        }
    }

    async fn run_task(&self, record: &Record, call: Call) -> Vec<Input> {
        if now().since(call.claimed_at) > self.rules.timers.send_within {
            let late = "not sent: its claim was too old";
            return vec![Input::Launch(call, LaunchAnswer::Unanswered(late.to_owned()))];
        }
        let started_by = record.started_by(&self.rules);
        match self.ecs.run_task(record, &started_by).await {
            RunTaskAnswer::Answer(answer) => {
                telemetry::answered(record, &answer);
                vec![Input::Launch(call, answer)]
            }
            RunTaskAnswer::Conflict(task_arns) => self.adopt(record, call, &started_by, task_arns).await,
        }
    }

    /// The token was used before, with other parameters. Whose tasks are those?
    async fn adopt(&self, record: &Record, call: Call, started_by: &StartedBy, task_arns: Vec<String>) -> Vec<Input> {
        match self.ecs.describe(&record.cluster, &task_arns).await {
            Ok(described) => {
                let ours = seen(described, started_by);
                if !ours.is_empty() {
                    return ours;
                }
                tracing::error!(submission_id = %record.submission_id, "RunTask conflicts with a task that is not known");
            }
            Err(error) => {
                tracing::warn!(submission_id = %record.submission_id, %error, "a conflict could not be looked at")
            }
        }
        vec![Input::Launch(call, LaunchAnswer::Unanswered("ConflictException".to_owned()))]
    }

    async fn look_up(&self, record: &Record) -> Result<Vec<Input>, EcsError> {
        let began_at = now();
        let started_by = record.started_by(&self.rules);
        let task_arns = self.ecs.list(&record.cluster, &started_by).await?;
        if task_arns.is_empty() {
            return Ok(vec![Input::NotFound(record.attempt, began_at)]);
        }
        Ok(seen(self.ecs.describe(&record.cluster, &task_arns).await?, &started_by))
    }

    async fn describe(&self, record: &Record, task_arn: String) -> Result<Vec<Input>, EcsError> {
        let at = now();
        let described = self.ecs.describe(&record.cluster, std::slice::from_ref(&task_arn)).await?;
        Ok(described.into_iter().map(|described| learnt(record, described, at)).collect())
    }

    async fn stop(
        &self,
        record: &Record,
        task_arn: String,
        cluster: &str,
        reason: &str,
        then: AfterStop,
    ) -> Result<Vec<Input>, EcsError> {
        let stopped = self.ecs.stop(cluster, &task_arn, reason).await;
        match (stopped, then) {
            (Ok(()), AfterStop::Nothing) => Ok(Vec::new()),
            (Err(error), AfterStop::Nothing) => Err(error),
            (Ok(()), AfterStop::Describe) => self.describe(record, task_arn).await,
            // What cannot be stopped may be over.
            (Err(error), AfterStop::Describe) => {
                tracing::warn!(submission_id = %record.submission_id, %error, "a task could not be stopped");
                self.describe(record, task_arn).await
            }
            // A task that ECS calls MISSING is not expected to be found for a stop either: it was asked.
            (_, AfterStop::GiveUp(at)) => Ok(vec![Input::Missing { task_arn, at, stop_sent: true }]),
        }
    }
}

/// Whether no timer will bring this action again: it stops a task that is not, or not any more, its record's own.
fn is_only_chance(record: &Record, action: &Action) -> bool {
    match action {
        Action::Stop { task_arn, .. } => record.state.is_terminal() || record.task_arn.as_ref() != Some(task_arn),
        Action::RunTask(_) | Action::LookUp(_) | Action::Describe { .. } => false,
    }
}

/// What a description of the record's own task, begun at `at`, tells. ECS leaves `startedBy` out now and then.
pub fn learnt(record: &Record, described: Described, at: Timestamp) -> Input {
    match described {
        Described::Task(Some(_), task) => Input::Seen(*task),
        Described::Task(None, task) => Input::Seen(Task { attempt: record.attempt, ..*task }),
        Described::Missing(task_arn) => Input::Missing { task_arn, at, stop_sent: false },
    }
}

/// The tasks of one attempt among those described.
fn seen(described: Vec<Described>, started_by: &StartedBy) -> Vec<Input> {
    let ours = described.into_iter().filter_map(|described| match described {
        Described::Task(of, task) if of.as_ref() == Some(started_by) => Some(Input::Seen(*task)),
        Described::Task(..) | Described::Missing(_) => None,
    });
    ours.collect()
}
