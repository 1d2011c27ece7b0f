//! The loop of every function: decide, write if the record is unchanged, act, and decide on the outcome.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    ops::RangeInclusive,
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use ecs_bridge_core::{
    Action, Alarm, Call, Input, LaunchAnswer, Record, Rules, StartedBy, SubmissionId, Task, Timestamp,
    capacity::Shape,
    config::Config,
    decide,
    decide::{AfterStop, LaunchBlocker, PoolInput},
    launch_rate::LaunchRate,
    notify::Delivery,
    task_id,
};

use crate::{
    clients::Clients,
    ecs::{Described, Ecs, EcsError, RunTaskAnswer},
    notify::Notifier,
    table::{Table, TableError},
    telemetry,
};

/// Returns the current time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A record after a decision, and the action to take.
#[derive(Debug)]
pub struct Settled {
    /// The record as stored in the table.
    pub record: Record,
    /// The next action, or none if the row was removed in the meantime.
    pub action: Option<Action>,
}

/// The cause of a failed decision.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// DynamoDB failed. The record is due again at its `check_at`.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An unwanted task is running, and no timer retries its stop.
    #[error("a task that should not be alive was not stopped")]
    NotStopped(#[source] EcsError),
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, TableError>> + 'a>>;

/// The table, ECS client and rules of a deployment.
#[derive(Debug)]
pub struct Bridge {
    /// The deployment's table.
    pub table: Table,
    /// The ECS client.
    pub ecs: Ecs,
    /// The rules of decisions.
    pub rules: Rules,
    /// The rate limit on RunTask calls.
    pub launch_rate: LaunchRate,
    /// Delivers notifications. A function without it leaves them to reconcile.
    pub notifier: Option<Notifier>,
}

impl Bridge {
    /// Creates the bridge that a function's environment describes.
    pub fn new(clients: &Clients, config: Config) -> Self {
        Self {
            table: Table::new(clients.dynamodb.clone(), config.table),
            ecs: Ecs::new(clients.ecs.clone()),
            rules: config.rules,
            launch_rate: config.launch_rate,
            notifier: None,
        }
    }

    /// Adds the delivery of notifications.
    #[must_use]
    pub fn delivery(self, clients: &Clients) -> Self {
        Self { notifier: Some(Notifier::new(&clients.config)), ..self }
    }

    /// Takes up to `wanted` launch tokens for new submissions. Submissions that already wait go first. Returns none
    /// if DynamoDB fails, because submissions without a token stay queued.
    pub async fn spare_launch_tokens(&self, wanted: usize) -> usize {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if wanted == 0 {
            return 0;
        }
        tokens(self.table.take_spare_launch_tokens(wanted, now(), self.launch_rate).await)
    }

    /// Takes up to `wanted` launch tokens for the first of `waiting` due records. Returns none if DynamoDB fails.
    pub async fn launch_tokens(&self, wanted: usize, waiting: usize) -> usize {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if wanted == 0 {
            return 0;
        }
        tokens(self.table.take_launch_tokens(wanted, waiting, now(), self.launch_rate).await)
    }

    /// Returns the capacity option of `choices` for launches of this shape, starting with `current`. Returns none if
    /// they must wait for capacity, as far as this process knows.
    pub fn open_choice(&self, shape: &Shape, choices: RangeInclusive<u8>, current: u8) -> Option<u8> {
        self.table.capacity(now()).open(shape, choices, current)
    }

    /// Returns the capacity option for a launch that starts now, as [`open_choice`](Self::open_choice) does. If a
    /// probe of an earlier option is due and no other process makes it, returns that option. Runners probe every
    /// option, because a waiting runner does not share a queue with the submissions that would probe.
    pub async fn choose(&self, record: &Record) -> Option<u8> {
        let (shape, choices, at) = (record.shape()?, record.choices(), now());
        let known = self.table.capacity(at);
        let open = known.open(&shape, choices.clone(), record.attempt.fallback);
        let passed_over = choices.filter(|number| open.map_or(record.runner().is_some(), |open| *number < open));
        for choice in passed_over.map(|number| shape.choice(number)) {
            let Some(seen) = known.get(&choice) else { continue };
            let Some(probed) = seen.probed(at, &self.rules.timers) else { continue };
            match self.table.set_capacity(&choice, Some(seen), Some(probed)).await {
                Ok(true) => return Some(choice.number),
                Ok(false) => {}
                Err(error) => tracing::warn!(%choice, %error, "failed to claim a capacity probe; will retry"),
            }
        }
        open
    }

    /// Updates the known capacity of an option from a RunTask response. If DynamoDB fails, the next response repeats
    /// the update.
    async fn see_capacity(&self, record: &Record, answer: &LaunchAnswer) {
        let Some(shape) = record.shape() else { return };
        let (choice, at) = (shape.choice(record.attempt.fallback), now());
        let known = self.table.capacity(at);
        let seen = known.get(&choice);
        let next = match answer {
            LaunchAnswer::Task { .. } => seen.and_then(|seen| seen.launched(at)),
            LaunchAnswer::RefusedForNow(LaunchBlocker::Capacity, _) => known.refused(&choice, at, &self.rules.timers),
            LaunchAnswer::RefusedForNow(LaunchBlocker::Access | LaunchBlocker::Other, _)
            | LaunchAnswer::RefusedForGood(_)
            | LaunchAnswer::Unanswered(_) => None,
        };
        if let Some(next) = next
            && let Err(error) = self.table.set_capacity(&choice, seen, Some(next)).await
        {
            tracing::warn!(%choice, %error, "failed to record the capacity of an option");
        }
    }

    /// Returns unused launch tokens. They are lost if the write fails.
    pub async fn give_back(&self, tokens: usize) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if tokens > 0
            && let Err(error) = self.table.give_back_launch_tokens(tokens, self.launch_rate).await
        {
            tracing::warn!(%error, tokens, "failed to return launch tokens");
        }
    }

    /// Decides on `input` and writes the result. Repeats both with the newer record after a lost race.
    ///
    /// The caller takes the action after this returns. If this fails, the caller must drop the action.
    ///
    /// # Errors
    /// If DynamoDB fails. The write may have happened, and the record is due again at its `check_at`.
    pub async fn decide(&self, record: Record, input: &Input) -> Result<Settled, TableError> {
        Ok(self.decide_and_write(record, input).await?.0)
    }

    /// Decides as [`decide`](Self::decide) does. Returns none if nothing was written, because another process has
    /// claimed the record.
    ///
    /// # Errors
    /// As for [`decide`](Self::decide).
    pub async fn claim(&self, record: Record, input: &Input) -> Result<Option<Settled>, TableError> {
        let (settled, written) = self.decide_and_write(record, input).await?;
        Ok(written.then_some(settled))
    }

    /// Decides on this version of the record only, and returns the written record. Returns none if nothing was
    /// written or another process wrote first.
    ///
    /// # Errors
    /// As for [`decide`](Self::decide).
    pub async fn attempt(&self, record: &Record, input: &Input) -> Result<Option<Record>, TableError> {
        let at = now();
        let decision = decide(record, input, at, &self.rules);
        telemetry::raised(record, decision.alarm);
        let Some(next) = decision.record else { return Ok(None) };
        telemetry::decided(record, input, at);
        let written = self.table.update(record, &next).await?;
        if written.is_ok() {
            telemetry::written(record, &next, now());
        }
        Ok(written.is_ok().then_some(next))
    }

    async fn decide_and_write(&self, mut record: Record, input: &Input) -> Result<(Settled, bool), TableError> {
        loop {
            let at = now();
            let decision = decide(&record, input, at, &self.rules);
            let Some(next) = decision.record else {
                telemetry::raised(&record, decision.alarm);
                return Ok((Settled { record, action: decision.action }, false));
            };
            telemetry::decided(&record, input, at);
            if let Input::Seen(task) = input {
                self.notify_served(&record, task).await?;
            }
            match self.table.update(&record, &next).await? {
                Ok(()) => {
                    telemetry::written(&record, &next, now());
                    telemetry::raised(&next, decision.alarm);
                    return Ok((Settled { record: next, action: decision.action }, true));
                }
                Err(Some(current)) => record = *current,
                // Its time to live expired in the meantime.
                Err(None) => return Ok((Settled { record, action: None }, false)),
            }
        }
    }

    /// Applies an observation of a runner's task to the submission that it serves, before the runner's own record. If
    /// the process stops between the two writes, the runner's row is unchanged and the input still has its effect.
    ///
    /// The future is boxed because it contains another decision, whose state every decision would otherwise hold.
    fn notify_served<'a>(&'a self, record: &'a Record, task: &'a Task) -> Boxed<'a, ()> {
        Box::pin(async move {
            let Some(serves) = record.runner().and_then(|runner| runner.serves.as_ref()) else { return Ok(()) };
            let Some(served) = self.table.get(serves).await? else { return Ok(()) };
            let is_taken = served.taken().is_some_and(|taken| taken.runner_id == record.submission_id);
            let input = match (is_taken, task.is_stopped()) {
                (true, _) => PoolInput::RunnerSeen(record.submission_id.clone(), Box::new(task.clone())),
                (false, true) => PoolInput::RunnerGone,
                (false, false) => return Ok(()),
            };
            self.decide_and_notify(served, &Input::Pool(input)).await
        })
    }

    /// Decides as [`decide`](Self::decide) does, and delivers the notifications of a submission that ends. Other
    /// actions are left to the record's timer.
    ///
    /// # Errors
    /// As for [`decide`](Self::decide).
    pub async fn decide_and_notify(&self, record: Record, input: &Input) -> Result<(), TableError> {
        let (Settled { record, action }, _) = self.decide_and_write(record, input).await?;
        if let Some(Action::Notify(nth)) = action {
            let delivered = Input::Delivered(self.notify(&record, nth).await);
            self.decide_and_write(record, &delivered).await?;
        }
        Ok(())
    }

    /// Closes a runner if it serves this submission. Returns `true` if it does. Its task can then be stopped without
    /// affecting another command.
    fn close_runner<'a>(&'a self, runner_id: &'a SubmissionId, serves: &'a SubmissionId) -> Boxed<'a, bool> {
        Box::pin(async move {
            // An expired runner serves no other submission.
            let Some(runner) = self.table.get(runner_id).await? else { return Ok(true) };
            let settled = self.decide(runner, &Input::Pool(PoolInput::Close(Some(serves.clone())))).await?;
            Ok(settled.record.runner().is_some_and(|runner| runner.serves.as_ref() == Some(serves)))
        })
    }

    /// Decides on `input`, acts, decides on the outcome, and repeats until no action is left.
    ///
    /// # Errors
    /// If DynamoDB fails (see [`decide`](Self::decide)), or if ECS does not stop a task for which no timer retries
    /// the stop.
    pub async fn settle(&self, record: Record, input: Input) -> Result<Record, BridgeError> {
        let settled = self.decide(record, &input).await?;
        self.carry_out(settled).await
    }

    /// Takes the decided action, and the actions that follow from it.
    ///
    /// # Errors
    /// As for [`settle`](Self::settle).
    pub async fn carry_out(&self, Settled { mut record, action }: Settled) -> Result<Record, BridgeError> {
        let mut actions = VecDeque::from_iter(action);
        while let Some(action) = actions.pop_front() {
            let only_chance = is_only_chance(&record, &action);
            let inputs = match self.act(&record, action).await {
                Ok(inputs) => inputs,
                Err(error) if only_chance => return Err(BridgeError::NotStopped(error)),
                Err(error) => {
                    tracing::warn!(submission_id = %record.submission_id, %error, "ECS call failed; will retry when due");
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

    /// Takes one action, and returns the inputs that follow from it.
    async fn act(&self, record: &Record, action: Action) -> Result<Vec<Input>, EcsError> {
        match action {
            Action::RunTask(call) => Ok(self.run_task(record, call).await),
            Action::LookUp(_) => Ok(self.look_up(record).await),
            Action::Describe { task_arn } => Ok(self.describe(record, &task_arn).await),
            Action::Notify(nth) => Ok(vec![Input::Delivered(self.notify(record, nth).await)]),
            Action::Stop { task_arn, cluster, reason, runner, then } => {
                if let Some(runner_id) = runner {
                    match self.close_runner(&runner_id, &record.submission_id).await {
                        Ok(true) => {}
                        Ok(false) => return Ok(Vec::new()),
                        Err(error) => {
                            tracing::warn!(submission_id = %record.submission_id, %error, "failed to close the runner; will retry the stop when due");
                            return Ok(Vec::new());
                        }
                    }
                }
                self.stop(record, task_arn, &cluster, &reason, then).await
            }
        }
    }

    async fn notify(&self, record: &Record, nth: u32) -> Delivery {
        let delivery = match &self.notifier {
            Some(notifier) => notifier.notify(record, nth).await,
            None => Delivery { nth, ..Delivery::default() },
        };
        telemetry::delivered(record, &delivery);
        delivery
    }

    async fn run_task(&self, record: &Record, call: Call) -> Vec<Input> {
        if now().since(call.claimed_at) > self.rules.timers.send_within {
            let late = "not sent: its claim was too old";
            return vec![Input::Launch(call, LaunchAnswer::Unanswered(late.to_owned()))];
        }
        let started_by = record.started_by(&self.rules);
        if record.attempt.was_refused && call.nth == 1 {
            let found = self.find_refused(record, &started_by).await;
            if !found.is_empty() {
                telemetry::raised(record, Some(Alarm::RefusedTask));
                return found;
            }
        }
        match self.ecs.run_task(record, call.choice, &started_by).await {
            RunTaskAnswer::Answer(answer) => {
                telemetry::answered(record, &answer);
                self.see_capacity(record, &answer).await;
                vec![Input::Launch(call, answer)]
            }
            RunTaskAnswer::Conflict(task_arns) => self.adopt(record, call, &started_by, task_arns).await,
        }
    }

    /// Handles a client token that was used before with other parameters. Adopts the earlier tasks if they belong to
    /// this attempt.
    async fn adopt(&self, record: &Record, call: Call, started_by: &StartedBy, task_arns: Vec<String>) -> Vec<Input> {
        match self.ecs.describe(&record.cluster, &task_arns).await {
            Ok(described) => {
                let ours = seen(described, started_by);
                if !ours.is_empty() {
                    return ours;
                }
                tracing::error!(submission_id = %record.submission_id, "RunTask conflicts with a task of another caller");
            }
            Err(error) => {
                tracing::warn!(submission_id = %record.submission_id, %error, "failed to describe the tasks of a conflict")
            }
        }
        vec![Input::Launch(call, LaunchAnswer::Unanswered("ConflictException".to_owned()))]
    }

    /// Returns the tasks of this attempt that ECS launched despite a failure response. The next request has another
    /// client token and would start a second task. ListTasks may omit a very recent task. If ListTasks fails, the
    /// request is still sent, because no such failure has been observed for years.
    async fn find_refused(&self, record: &Record, started_by: &StartedBy) -> Vec<Input> {
        let found = match self.ecs.list(&record.cluster, started_by).await {
            Ok(task_arns) if task_arns.is_empty() => return Vec::new(),
            Ok(task_arns) => self.ecs.describe(&record.cluster, &task_arns).await,
            Err(error) => Err(error),
        };
        found.map(|described| seen(described, started_by)).unwrap_or_else(|error| {
            tracing::warn!(submission_id = %record.submission_id, %error, "failed to check whether a rejected request launched a task");
            Vec::new()
        })
    }

    async fn look_up(&self, record: &Record) -> Vec<Input> {
        let at = now();
        let started_by = record.started_by(&self.rules);
        let found = match self.ecs.list(&record.cluster, &started_by).await {
            Ok(task_arns) if task_arns.is_empty() => return vec![Input::NotFound(record.attempt.number, at)],
            Ok(task_arns) => self.ecs.describe(&record.cluster, &task_arns).await,
            Err(error) => Err(error),
        };
        match found.map(|described| seen(described, &started_by)) {
            Ok(seen) if seen.is_empty() => {
                vec![lookup_failed(record, at, "ListTasks found a task that ECS does not describe")]
            }
            Ok(seen) => seen,
            Err(error) => vec![lookup_failed(record, at, &error)],
        }
    }

    async fn describe(&self, record: &Record, task_arn: &str) -> Vec<Input> {
        self.describe_all(&record.cluster, &[(record, task_arn)]).await
    }

    /// Describes the tasks of up to [`DESCRIBED`](crate::DESCRIBED) records of one cluster in one call. Every record
    /// gets one input, in the same order.
    pub async fn describe_all(&self, cluster: &str, tasks: &[(&Record, &str)]) -> Vec<Input> {
        let at = now();
        let task_arns: Vec<_> = tasks.iter().map(|&(_, task_arn)| task_arn.to_owned()).collect();
        let described = match self.ecs.describe(cluster, &task_arns).await {
            Ok(described) => described,
            Err(error) => return tasks.iter().map(|(record, _)| lookup_failed(record, at, &error)).collect(),
        };
        let mut described: HashMap<_, _> =
            described.into_iter().map(|described| (described.task_id().to_owned(), described)).collect();
        let inputs = tasks.iter().map(|&(record, task_arn)| match described.remove(task_id(task_arn)) {
            Some(described) => described_task(record, described, at),
            None => lookup_failed(record, at, "DescribeTasks answered without this task"),
        });
        inputs.collect()
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
            (Ok(()), AfterStop::Describe) => Ok(self.describe(record, &task_arn).await),
            // The task may have stopped already.
            (Err(error), AfterStop::Describe) => {
                tracing::warn!(submission_id = %record.submission_id, %error, "StopTask failed");
                Ok(self.describe(record, &task_arn).await)
            }
            // ECS is not expected to find a MISSING task for a stop either. The stop request was sent.
            (_, AfterStop::GiveUp(at)) => Ok(vec![Input::Missing { task_arn, at, stop_sent: true }]),
        }
    }
}

/// Returns the tokens taken, or none if DynamoDB failed.
fn tokens(taken: Result<u32, TableError>) -> usize {
    match taken {
        Ok(tokens) => tokens as usize,
        Err(error) => {
            tracing::warn!(%error, "failed to take launch tokens; submissions stay queued");
            0
        }
    }
}

/// Returns the input of a failed lookup or description that began at `at`.
fn lookup_failed(record: &Record, at: Timestamp, reason: impl Display) -> Input {
    tracing::warn!(submission_id = %record.submission_id, %reason, "failed to look up a task; will retry at its next check");
    Input::LookupFailed { attempt: record.attempt.number, at, reason: reason.to_string() }
}

/// Returns `true` if no timer repeats this action, because it stops a task that does not belong to its record, or no
/// longer does.
fn is_only_chance(record: &Record, action: &Action) -> bool {
    match action {
        Action::Stop { task_arn, .. } => {
            record.state().is_terminal() || record.attempt.task_arn.as_ref() != Some(task_arn)
        }
        Action::RunTask(_) | Action::LookUp(_) | Action::Describe { .. } | Action::Notify(_) => false,
    }
}

/// Returns the input of a description of the record's own task, begun at `at`. ECS occasionally omits `startedBy`.
fn described_task(record: &Record, described: Described, at: Timestamp) -> Input {
    match (described, record.taken()) {
        (Described::Task(_, task), Some(taken)) => Input::Pool(PoolInput::RunnerSeen(taken.runner_id.clone(), task)),
        (Described::Task(Some(_), task), None) => Input::Seen(*task),
        (Described::Task(None, task), None) => Input::Seen(Task { attempt: record.attempt.number, ..*task }),
        (Described::Missing(task_arn), _) => Input::Missing { task_arn, at, stop_sent: false },
    }
}

/// Returns the described tasks that belong to one attempt.
fn seen(described: Vec<Described>, started_by: &StartedBy) -> Vec<Input> {
    let ours = described.into_iter().filter_map(|described| match described {
        Described::Task(of, task) if of.as_ref() == Some(started_by) => Some(Input::Seen(*task)),
        Described::Task(..) | Described::Missing(_) => None,
    });
    ours.collect()
}
