//! Handles pools: claiming, reporting and losing a submission, and a runner's own row.
//!
//! A command starts only after the one write that makes its submission's row `running` and names the runner's process.
//! The runner's row, the index and every count are hints. If they are late, wrong or lost, they cost time but break no
//! promise.

use serde::{Deserialize, Serialize};

use crate::{
    decide::{Action, AfterStop, Step},
    id::SubmissionId,
    pool::{Incarnation, Process, Runner},
    record::{Record, Stop, StopCause},
    state::State,
    task::Task,
};

/// An input that concerns only pools.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PoolInput {
    // These inputs are for a submission's row.
    /// A process of a runner claims the submission. The runner's task, as recorded in its row, becomes the submission's
    /// task.
    Take {
        /// The claiming process.
        by: Process,
        /// The runner's task.
        task_arn: String,
        /// The cluster of that task.
        cluster: String,
    },
    /// The process that claimed the submission reports that its command has ended.
    Done {
        /// The reporting process.
        by: Process,
        /// The command's exit code, or 128 plus the signal's number if a signal ended it.
        exit_code: i32,
        /// True if the runner was being stopped, which may explain the exit code.
        stopping: bool,
    },
    /// The task of this runner was reported.
    RunnerSeen(SubmissionId, Box<Task>),
    /// No runner can serve the submission, for this reason. Without a reason, one can again.
    Held(Option<String>),
    /// The task of a runner that was about to claim it has ended. A claim in progress must fail.
    RunnerGone,

    // These inputs are for a runner's row.
    /// A process polls for work.
    Contact(Incarnation),
    /// The runner is about to claim this submission. The row is written even if it names the submission already, so
    /// that concurrent readers of the row fail.
    Serve(SubmissionId),
    /// The submission that the runner serves has ended, or belongs to another runner.
    Served {
        /// The submission.
        submission_id: SubmissionId,
        /// True if this runner served it, so that one of its commands counts as done.
        done: bool,
    },
    /// The runner gets no more work, on condition that it serves exactly this submission, or none.
    Close(Option<SubmissionId>),
}

impl Step<'_> {
    pub(super) fn pool(&mut self, input: &PoolInput) -> Option<Action> {
        match input {
            PoolInput::Take { by, task_arn, cluster } => self.take(by, task_arn, cluster),
            PoolInput::Done { by, exit_code, stopping } => self.done(by, *exit_code, *stopping),
            PoolInput::RunnerSeen(runner_id, task) => self.runner_seen(runner_id, task),
            PoolInput::RunnerGone => self.forced = self.is_waiting(),
            PoolInput::Contact(incarnation) => self.contact(incarnation),
            PoolInput::Serve(submission_id) => self.serve(submission_id),
            PoolInput::Held(reason) => self.held(reason.as_deref()),
            PoolInput::Served { submission_id, done } => self.served(submission_id, *done),
            PoolInput::Close(serves) => self.close(serves.as_ref()),
        }
        None
    }

    // The following functions are for a submission's row.

    pub(super) fn is_waiting(&self) -> bool {
        self.record.state() == State::Queued && self.record.pooled().is_some()
    }

    /// Records the claim, which is the only commit point. The row is not written if the submission cannot be claimed.
    fn take(&mut self, by: &Process, task_arn: &str, cluster: &str) {
        if !self.is_waiting() || self.record.stop_requested.is_some() || self.record.is_past_deadline(self.now) {
            return;
        }
        let Some(pooled) = self.record.pooled_mut() else { return };
        pooled.taken = Some(by.clone());
        self.change_to(State::Running);
        let record = &mut *self.record;
        record.leave_the_index();
        record.attempt.task_arn = Some(task_arn.to_owned());
        cluster.clone_into(&mut record.cluster);
        (record.attempt.launched_at, record.attempt.started_at) = (Some(self.now), Some(self.now));
        record.attempt.seen_running = true;
        record.attempt.reason = None;
        self.check_in(self.timers().first_check);
        self.check_by_timeout();
    }

    /// Records why no runner is available for a waiting submission.
    fn held(&mut self, reason: Option<&str>) {
        if self.is_waiting() && self.record.attempt.reason.as_deref() != reason {
            self.record.attempt.reason = reason.map(str::to_owned);
        }
    }

    fn is_taken_by(&self, by: &Process) -> bool {
        !self.record.state().is_terminal() && self.record.taken() == Some(by)
    }

    fn done(&mut self, by: &Process, exit_code: i32, stopping: bool) {
        if !self.is_taken_by(by) || self.record.attempt.exit_code.is_some() {
            return;
        }
        self.record.attempt.exit_code = Some(exit_code);
        self.record.attempt.container_exited_at = Some(self.now);
        if !stopping {
            self.note_a_hint(false, Some(exit_code));
        }
        // If the runner was being stopped, the task's stop code decides whether the command is relaunched.
        let waits = stopping
            && exit_code != 0
            && self.record.stop_requested.is_none()
            && !self.record.policy.relaunch_on.is_empty();
        if waits {
            self.check_in(self.timers().lease);
        } else {
            self.end_with_code(exit_code);
        }
    }

    /// Applies the runner's task to its submission. The exit code of the runner's container is never that of the
    /// command.
    fn runner_seen(&mut self, runner_id: &SubmissionId, task: &Task) {
        let is_its_runner = self.record.taken().is_some_and(|taken| taken.runner_id == *runner_id);
        if self.record.state().is_terminal() || !is_its_runner || self.is_another(&task.arn) {
            return;
        }
        if self.compare(task).is_lt() {
            return;
        }
        self.heard();
        let ended = task.is_stopped();
        // Statuses are recorded along with another fact, and cause no write by themselves.
        if ended || task.stop_code.is_some() && self.record.attempt.stop_code != task.stop_code {
            self.take_over(task);
        }
        if ended {
            match self.record.attempt.exit_code {
                Some(code) => self.stopped_with_code(task, code),
                None => self.stopped_unreported(task),
            }
        }
    }

    fn stopped_unreported(&mut self, task: &Task) {
        if let Some(Stop { cause, reason }) = self.record.stop_requested.clone() {
            let state = match cause {
                StopCause::User => State::Cancelled,
                StopCause::LaunchTimeout | StopCause::RunTimeout => State::Failed,
            };
            return self.end(state, reason);
        }
        let reason = format!("{}, and its runner reported no exit code", self.stop_words());
        match self.relaunch() {
            Some(_) if self.asks_again(task) => {}
            Some(relaunch) => self.next_attempt(reason, true, Some(&relaunch)),
            None => self.end(State::Failed, reason),
        }
    }

    // The following functions are for a runner's row.

    /// Returns the runner of a row that may still get work.
    fn serving(&mut self) -> Option<&mut Runner> {
        let is_running = self.record.state() == State::Running && self.record.stop_requested.is_none();
        self.record.runner_mut().filter(|runner| is_running && !runner.closing)
    }

    fn contact(&mut self, incarnation: &Incarnation) {
        let (now, noted) = (self.now, self.timers().silent_after / 3);
        let is_known = self.record.attempt.task_arn.is_some() && !self.record.state().is_terminal();
        let Some(runner) = self.record.runner_mut().filter(|_| is_known) else { return };
        match &runner.incarnation {
            None => {
                runner.incarnation = Some(incarnation.clone());
                (runner.polled_at, runner.idle_since) = (Some(now), Some(now));
                self.record.attempt.seen_running = true;
                self.record.attempt.started_at.get_or_insert(now);
                if self.record.state() == State::Launched {
                    self.change_to(State::Running);
                }
                let silent_after = self.timers().silent_after;
                self.check_in(silent_after);
            }
            Some(known) if known == incarnation => {
                if runner.polled_at.is_none_or(|at| now.since(at) >= noted) {
                    runner.polled_at = Some(now);
                }
            }
            Some(_) => {
                runner.closing = true;
                if self.record.stop_requested.is_none() {
                    let reason = "a second process of this runner asked for work".to_owned();
                    self.record.stop_requested = Some(Stop { cause: StopCause::User, reason });
                    self.check_by(now);
                }
            }
        }
    }

    fn serve(&mut self, submission_id: &SubmissionId) {
        let Some(runner) = self.serving() else { return };
        if runner.serves.as_ref().is_none_or(|serves| serves == submission_id) {
            runner.serves = Some(submission_id.clone());
            self.forced = true;
        }
    }

    fn served(&mut self, submission_id: &SubmissionId, done: bool) {
        let now = self.now;
        let Some(runner) = self.record.runner_mut() else { return };
        if runner.serves.as_ref() == Some(submission_id) {
            runner.serves = None;
            runner.idle_since = Some(now);
            runner.served += u32::from(done);
            runner.closing |= runner.served >= runner.commands;
        }
    }

    fn close(&mut self, serves: Option<&SubmissionId>) {
        if let Some(runner) = self.record.runner_mut()
            && runner.serves.as_ref() == serves
        {
            runner.closing = true;
        }
    }

    /// Returns true if a runner is idle: it runs, serves nothing, and needs no description while it polls.
    pub(super) fn is_idle_runner(&self) -> bool {
        self.record.state() == State::Running && self.record.runner().is_some_and(|runner| runner.serves.is_none())
    }

    /// Closes an idle runner that no longer polls, or that should have ended and did not. This write fails if another
    /// process assigns work to the runner in the meantime.
    pub(super) fn due_idle(&mut self, task_arn: &str) -> Option<Action> {
        let (now, silent_after) = (self.now, self.timers().silent_after);
        let since = self.record.attempt.started_at.or(self.record.attempt.launched_at);
        let runner = self.record.runner_mut()?;
        let asked_at = runner.polled_at.or(since).unwrap_or(now);
        // The time `polled_at` is updated every third of that time.
        if !runner.closing && now.since(asked_at) < silent_after + silent_after / 3 {
            self.check_in(silent_after);
            return None;
        }
        runner.closing = true;
        let has_asked = runner.incarnation.is_some();
        let reason =
            if has_asked { "the runner has stopped asking for work" } else { "the runner never asked for work" };
        let reason = reason.to_owned();
        self.record.stop_requested = Some(Stop { cause: StopCause::User, reason: reason.clone() });
        self.check_in(self.timers().stop_every);
        Some(self.stop_task(task_arn.to_owned(), reason, AfterStop::Describe))
    }
}

/// The availability of a runner for work, according to its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerStatus {
    /// The runner gets no more work.
    Close,
    /// Its row does not name its task yet, and the runner polls again.
    TooEarly,
    /// Another process of the runner has the work.
    Taken,
    /// The runner may get work.
    Open,
}

/// Returns the availability of a runner for a process that polls.
pub fn runner_status(record: &Record, runner: &Runner, incarnation: &Incarnation) -> RunnerStatus {
    let to_stop = record.attempt.desired_status.as_deref() == Some("STOPPED") || record.stop_requested.is_some();
    if runner.incarnation.as_ref().is_some_and(|known| known != incarnation) {
        RunnerStatus::Taken
    } else if record.state().is_terminal() || runner.closing || to_stop {
        RunnerStatus::Close
    } else if record.attempt.task_arn.is_none() {
        RunnerStatus::TooEarly
    } else {
        RunnerStatus::Open
    }
}

/// The status of the submission that a runner's row names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// This process has claimed it and it has not ended, so its command must run or is running.
    Ours,
    /// No process has claimed it.
    Untaken,
    /// It has ended. The value is `true` if this runner served it.
    Over(bool),
}

/// Returns the status of `submission` for `by`. The submission must be read after the runner's row.
pub fn served(submission: Option<&Record>, by: &Process) -> Served {
    let Some(submission) = submission else { return Served::Over(false) };
    let is_ours = submission.taken() == Some(by);
    let is_waiting = submission.state() == State::Queued && submission.pooled().is_some();
    match (is_ours && !submission.state().is_terminal(), is_waiting) {
        (true, _) => Served::Ours,
        (false, true) => Served::Untaken,
        (false, false) => Served::Over(is_ours),
    }
}
