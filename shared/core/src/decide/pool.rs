//! Pools: taking, reporting and losing a submission, and a runner's own row.
//!
//! A command starts only after the one write that makes its submission's row `running` and names the runner's process.
//! The runner's row, the index and every count are hints: late, wrong or lost, they cost time and no promise.

use serde::{Deserialize, Serialize};

use crate::{
    decide::{Action, AfterStop, Step},
    id::SubmissionId,
    pool::{Incarnation, Process, Runner},
    record::{Record, Stop, StopCause},
    state::State,
    task::Task,
};

/// An input that only pools have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PoolInput {
    // For a submission's row.
    /// A process of a runner takes it: the runner's task, as its row has it, is now this submission's.
    Take {
        /// Who takes it.
        by: Process,
        /// The runner's task.
        task_arn: String,
        /// The cluster of that task.
        cluster: String,
    },
    /// The process that took it reports the end of its command.
    Done {
        /// Who reports.
        by: Process,
        /// The command's exit code; 128 and the signal's number where a signal ended it.
        exit_code: i32,
        /// The runner was stopped: the exit code may be due to that.
        stopping: bool,
    },
    /// The task of this runner was seen.
    RunnerSeen(SubmissionId, Box<Task>),
    /// Nothing serves it, for this reason; or for none any more.
    Held(Option<String>),
    /// The task of a runner ended that was about to take it: a take that is still under way must fail.
    RunnerGone,

    // For a runner's row.
    /// A process asks for work.
    Contact(Incarnation),
    /// It is about to take this submission. Written again where it says so already, so that whatever read the row before
    /// fails.
    Serve(SubmissionId),
    /// The submission that it serves is over, or another's.
    Served {
        /// The submission.
        submission_id: SubmissionId,
        /// It was this runner's, so that one of its commands is done.
        done: bool,
    },
    /// It gets no more work, on condition that it serves just this submission, or none.
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

    // A submission's row.

    pub(super) fn is_waiting(&self) -> bool {
        self.record.state == State::Queued && self.record.pooled.is_some()
    }

    /// The one commit point. Nothing where it may not be taken; then the row is not written.
    fn take(&mut self, by: &Process, task_arn: &str, cluster: &str) {
        if !self.is_waiting() || self.record.stop_requested.is_some() || self.record.is_past_deadline(self.now) {
            return;
        }
        let Some(pooled) = &mut self.record.pooled else { return };
        pooled.taken = Some(by.clone());
        let record = &mut *self.record;
        record.state = State::Running;
        record.leave_the_index();
        record.task_arn = Some(task_arn.to_owned());
        cluster.clone_into(&mut record.cluster);
        (record.launched_at, record.started_at) = (Some(self.now), Some(self.now));
        record.seen_running = true;
        record.reason = None;
        self.check_in(self.timers().first_check);
        self.check_by_timeout();
    }

    /// What waits for a runner shows why there is none.
    fn held(&mut self, reason: Option<&str>) {
        if self.is_waiting() && self.record.reason.as_deref() != reason {
            self.record.reason = reason.map(str::to_owned);
        }
    }

    fn is_taken_by(&self, by: &Process) -> bool {
        !self.record.state.is_terminal() && self.record.taken() == Some(by)
    }

    fn done(&mut self, by: &Process, exit_code: i32, stopping: bool) {
        if !self.is_taken_by(by) || self.record.exit_code.is_some() {
            return;
        }
        self.record.exit_code = Some(exit_code);
        self.record.container_exited_at = Some(self.now);
        if !stopping {
            self.note_a_hint(false, Some(exit_code));
        }
        // Where the runner was being stopped, the task's stop code decides whether this is run again.
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

    /// The runner's container exits with a code of its own, which is never the command's.
    fn runner_seen(&mut self, runner_id: &SubmissionId, task: &Task) {
        let is_its_runner = self.record.taken().is_some_and(|taken| taken.runner_id == *runner_id);
        if self.record.state.is_terminal() || !is_its_runner || self.is_another(&task.arn) {
            return;
        }
        if self.compare(task).is_lt() {
            return;
        }
        self.heard();
        let ended = task.is_stopped();
        // Statuses go along with a fact, and cost no write of their own.
        if ended || task.stop_code.is_some() && self.record.stop_code != task.stop_code {
            self.take_over(task);
        }
        if ended {
            match self.record.exit_code {
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

    // A runner's row.

    /// The runner of a row that may still get work.
    fn serving(&mut self) -> Option<&mut Runner> {
        let is_running = self.record.state == State::Running && self.record.stop_requested.is_none();
        self.record.runner.as_deref_mut().filter(|runner| is_running && !runner.closing)
    }

    fn contact(&mut self, incarnation: &Incarnation) {
        let (now, noted) = (self.now, self.timers().silent_after / 3);
        let is_known = self.record.task_arn.is_some() && !self.record.state.is_terminal();
        let Some(runner) = self.record.runner.as_mut().filter(|_| is_known) else { return };
        match &runner.incarnation {
            None => {
                runner.incarnation = Some(incarnation.clone());
                (runner.polled_at, runner.idle_since) = (Some(now), Some(now));
                self.record.seen_running = true;
                self.record.started_at.get_or_insert(now);
                if self.record.state == State::Launched {
                    self.record.state = State::Running;
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
        let Some(runner) = self.record.runner.as_mut() else { return };
        if runner.serves.as_ref() == Some(submission_id) {
            runner.serves = None;
            runner.idle_since = Some(now);
            runner.served += u32::from(done);
            runner.closing |= runner.served >= runner.commands;
        }
    }

    fn close(&mut self, serves: Option<&SubmissionId>) {
        if let Some(runner) = self.record.runner.as_mut()
            && runner.serves.as_ref() == serves
        {
            runner.closing = true;
        }
    }

    /// Whether a runner is idle: it runs, has nothing to do, and its task needs no description while it asks for work.
    pub(super) fn is_idle_runner(&self) -> bool {
        self.record.state == State::Running && self.record.runner.as_ref().is_some_and(|runner| runner.serves.is_none())
    }

    /// Closes an idle runner that no longer asks for work, or that should have ended and did not. Whoever gives it work in
    /// the meantime makes this write fail.
    pub(super) fn due_idle(&mut self, task_arn: &str) -> Option<Action> {
        let (now, silent_after) = (self.now, self.timers().silent_after);
        let since = self.record.started_at.or(self.record.launched_at);
        let runner = self.record.runner.as_mut()?;
        let asked_at = runner.polled_at.or(since).unwrap_or(now);
        // `polled_at` is noted every third of that time.
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

/// Whether a runner may be given work, by its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerStatus {
    /// The runner gets no more work.
    Close,
    /// Its row does not know its task yet: it asks again.
    TooEarly,
    /// Another process of the runner has the work.
    Taken,
    /// It may be given work.
    Open,
}

/// Where a runner's row stands for a process that asks.
pub fn runner_status(record: &Record, runner: &Runner, incarnation: &Incarnation) -> RunnerStatus {
    let to_stop = record.desired_status.as_deref() == Some("STOPPED") || record.stop_requested.is_some();
    if runner.incarnation.as_ref().is_some_and(|known| known != incarnation) {
        RunnerStatus::Taken
    } else if record.state.is_terminal() || runner.closing || to_stop {
        RunnerStatus::Close
    } else if record.task_arn.is_none() {
        RunnerStatus::TooEarly
    } else {
        RunnerStatus::Open
    }
}

/// Where the submission stands that a runner's row says it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Taken by this process, and not over: its command is to run, or runs.
    Ours,
    /// Nobody has taken it.
    Untaken,
    /// Over; `true` where it was this runner's.
    Over(bool),
}

/// Where `submission`, read after the runner's row, stands for `by`.
pub fn served(submission: Option<&Record>, by: &Process) -> Served {
    let Some(submission) = submission else { return Served::Over(false) };
    let is_ours = submission.taken() == Some(by);
    let is_waiting = submission.state == State::Queued && submission.pooled.is_some();
    match (is_ours && !submission.state.is_terminal(), is_waiting) {
        (true, _) => Served::Ours,
        (false, true) => Served::Untaken,
        (false, false) => Served::Over(is_ours),
    }
}
