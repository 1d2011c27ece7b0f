//! One poll of a runner: authenticates it, records its result, and returns its next step.

use ecs_bridge_aws::{TableError, http::Refusal, telemetry};
use ecs_bridge_core::{
    Input, Record, SubmissionId,
    decide::PoolInput,
    pool::{Incarnation, Process, Runner, TokenHash},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    app::App,
    caller::Caller,
    responses::{close, forbidden, unavailable, wait},
};

/// A poll request from a runner.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
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

impl App {
    /// Handles a poll.
    ///
    /// # Errors
    /// If the caller is not this runner, or is a second process of it, or if DynamoDB is unavailable.
    pub async fn poll(&self, poll: &Poll, caller: &Caller) -> Result<Value, Refusal> {
        let (id, incarnation) = (&poll.runner_id, &poll.incarnation);
        let Some((record, runner)) = self.authenticate(poll, caller).await? else {
            return Err(self.refuse(id, "there is no such runner with this token"));
        };
        let Some(task_arn) = record.attempt.task_arn.clone() else {
            // Its RunTask call has no response yet, or its launch was abandoned before the response.
            return Ok(if record.state().is_terminal() { close() } else { wait(runner.interval_ms) });
        };
        if let Some(reason) = caller.mismatch(&task_arn) {
            return Err(self.refuse(id, reason));
        }
        let by = Process { runner_id: id.clone(), incarnation: incarnation.clone() };
        if let Some(done) = &poll.done {
            self.done(&by, done, poll.stopping).await.map_err(unavailable)?;
        }
        if !caller.is_of(&self.roles) {
            let reason = "the caller's role is not one of the deployment's task roles";
            let refusal = self.refuse(id, reason);
            // Its result is recorded even if the roles were restricted while its command ran.
            return if poll.done.is_some() { Ok(close()) } else { Err(refusal) };
        }
        let contact = Input::Pool(PoolInput::Contact(incarnation.clone()));
        let record = self.bridge.decide(record, &contact).await.map_err(unavailable)?.record;
        let rung_for = poll.rung_for.as_deref().and_then(|message| message.parse().ok());
        self.next(record, &by, poll.stopping, rung_for).await
    }

    /// Returns the runner's row if the token matches.
    async fn authenticate(&self, poll: &Poll, caller: &Caller) -> Result<Option<(Record, Runner)>, Refusal> {
        if *caller == Caller::Identity(String::new()) {
            return Err(self.refuse(&poll.runner_id, "the request was not signed"));
        }
        let record = self.bridge.table.get(&poll.runner_id).await.map_err(unavailable)?;
        let token = TokenHash::of(&poll.token);
        Ok(record.and_then(|record| {
            let runner = record.runner().filter(|runner| runner.token == token)?.clone();
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
        if ended.state().is_terminal() && ended.pending_notifications.is_some() {
            // The runner does not wait for the delivery of notifications.
            self.wake.wake(&self.bridge.table).await;
        }
        Ok(())
    }
}
