//! The one decision of the bridge: what a record becomes, and what is to be done, when something is learnt of it.
//!
//! Every handler reads a record, calls [`decide`], writes the result if the record's `rev` is unchanged, and only then
//! acts. A handler that dies between the write and the act leaves a record that is due again at `check_at`; one that
//! loses the race decides anew with what the other left. An input that changes nothing asks for no write.
//!
//! What never happens here: a clock is read, an attempt is launched again whose container may have started (but for
//! `relaunch_on`), a terminal state changes, an exit code is made up.

use std::time::Duration;

use crate::{
    id::{Attempt, Deployment},
    profile::CompleteOn,
    record::{self, Record, Stop, StopCause},
    state::State,
    task::{Task, cluster_name, task_id},
    time::Timestamp,
};

/// What a deployment's decisions rest on, besides the record.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose submissions they are; the partition of the feed.
    pub deployment: Deployment,
    /// How long a terminal record is kept, and its id is taken.
    pub retention: Duration,
    /// The protocol's times.
    pub timers: Timers,
}

/// The protocol's times. They fit together, and to what ECS keeps: see each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long a claimed RunTask may take to be sent; later it is not sent at all.
    pub send_within: Duration,
    /// How long a claim holds. Longer than a function runs (2 minutes).
    pub lease: Duration,
    /// How long an unanswered RunTask is repeated: ECS keeps a client token for the task's lifetime and 1 hour, and a
    /// repeat after that would start a second task.
    pub repeat_for: Duration,
    /// How long after the last call, and after each other, lookups count: RunTask is eventually consistent.
    pub lookup_after: Duration,
    /// How long after a submission something should have been heard of its task. Longer than
    /// [`missing_after`](Self::missing_after) and the time that a claimed RunTask may take: MISSING then counts.
    pub first_check: Duration,
    /// The times after that. Shorter than the hour for which ECS describes a stopped task.
    pub check_every: Duration,
    /// How long after the launch MISSING counts.
    pub missing_after: Duration,
    /// How far apart two MISSING count.
    pub missing_apart: Duration,
    /// How often a stop is repeated until it is over.
    pub stop_every: Duration,
    /// The first wait after a refusal for now, doubled with each one up to [`backoff_most`](Self::backoff_most).
    pub backoff: Duration,
    /// The longest such wait.
    pub backoff_most: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            send_within: Duration::from_secs(MINUTE),
            lease: Duration::from_secs(3 * MINUTE),
            repeat_for: Duration::from_secs(50 * MINUTE),
            lookup_after: Duration::from_secs(5 * MINUTE),
            first_check: Duration::from_secs(12 * MINUTE),
            check_every: Duration::from_secs(20 * MINUTE),
            missing_after: Duration::from_secs(10 * MINUTE),
            missing_apart: Duration::from_secs(5 * MINUTE),
            stop_every: Duration::from_secs(30),
            backoff: Duration::from_secs(5),
            backoff_most: Duration::from_secs(MINUTE),
        }
    }
}

impl Timers {
    /// All of them divided by `scale`: for tests against a stand-in that lives faster too. ECS's own hour and day are
    /// not to be scaled, so this is 1 in earnest.
    pub fn scaled(self, scale: f64) -> Self {
        let by = |duration: Duration| duration.div_f64(scale);
        Self {
            send_within: by(self.send_within),
            lease: by(self.lease),
            repeat_for: by(self.repeat_for),
            lookup_after: by(self.lookup_after),
            first_check: by(self.first_check),
            check_every: by(self.check_every),
            missing_after: by(self.missing_after),
            missing_apart: by(self.missing_apart),
            stop_every: by(self.stop_every),
            backoff: by(self.backoff),
            backoff_most: by(self.backoff_most),
        }
    }
}

/// Something learnt, or asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing was heard by `check_at`.
    Due,
    /// What came of a RunTask call.
    Launch(Call, LaunchAnswer),
    /// ListTasks, begun at this moment, found no task of this attempt.
    NotFound(Attempt, Timestamp),
    /// ECS told of a task of this submission: an event, or a description.
    Seen(Task),
    /// DescribeTasks, begun at `at`, called the task MISSING.
    Missing {
        /// The task that was asked for.
        task_arn: String,
        /// When.
        at: Timestamp,
        /// Whether StopTask was sent since.
        stop_sent: bool,
    },
    /// The caller wants it stopped, for this reason.
    Stop(String),
    /// The caller sent it again: who had claimed its launch may have died.
    Resubmitted,
}

/// One claimed RunTask call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The attempt that it is for.
    pub attempt: Attempt,
    /// When the first call of this launch was claimed; with `nth` it identifies the call.
    pub since: Timestamp,
    /// The first, second, … call of this launch.
    pub nth: u32,
    /// When this one was claimed: it is sent soon after, or never.
    pub claimed_at: Timestamp,
}

/// What came of a RunTask call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LaunchAnswer {
    /// ECS has a task: this call's, or that of an earlier one with the same token.
    Task {
        /// Its ARN.
        arn: String,
        /// Whether it is to run, as the answer has it.
        live: bool,
    },
    /// ECS certainly launched nothing, and may do so later.
    RefusedForNow(String),
    /// ECS certainly launched nothing, and never will.
    RefusedForGood(String),
    /// Nobody knows: a timeout, a broken connection, an error of the server.
    Unanswered(String),
}

/// What is to be done once the record is written; by whoever wrote it, and with the ECS calls that it may make.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Call RunTask.
    RunTask(Call),
    /// List the tasks with the current attempt's `startedBy`.
    LookUp(Attempt),
    /// Describe the task.
    Describe {
        /// Its ARN.
        task_arn: String,
    },
    /// Stop the task.
    Stop {
        /// Its ARN.
        task_arn: String,
        /// Its cluster, by name or ARN.
        cluster: String,
        /// The reason to give.
        reason: String,
        /// What to do after it.
        then: AfterStop,
    },
}

/// What follows a StopTask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterStop {
    /// Nothing: its end will be heard of.
    Nothing,
    /// A description, as it is time to look.
    Describe,
    /// The submission is given up as lost: [`Input::Missing`] with `stop_sent`.
    GiveUp(Timestamp),
}

/// Something that should not be, and that people should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A task lives for a submission that has ended.
    OrphanTask,
    /// A second task has the same `startedBy`.
    SecondTask,
}

/// What follows from an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The record to write; none if nothing changed.
    pub record: Option<Record>,
    /// What to do after the write.
    pub action: Option<Action>,
    /// What to tell people.
    pub alarm: Option<Alarm>,
}

/// Decides what `record` becomes on `input` at `now`.
pub fn decide(record: &Record, input: &Input, now: Timestamp, rules: &Rules) -> Decision {
    let mut next = record.clone();
    let mut step = Step { record: &mut next, now, rules, alarm: None };
    let action = match input {
        Input::Due => step.due(),
        Input::Launch(call, answer) => step.launch_answered(*call, answer),
        Input::NotFound(attempt, began_at) => step.not_found(*attempt, *began_at),
        Input::Seen(task) => step.seen(task),
        Input::Missing { task_arn, at, stop_sent } => step.missing(task_arn, *at, *stop_sent),
        Input::Stop(reason) => step.stop(reason),
        Input::Resubmitted => {
            step.resubmitted();
            None
        }
    };
    let alarm = step.alarm;
    if next == *record {
        return Decision { record: None, action, alarm };
    }
    if !next.state.is_terminal() {
        if matches!(next.state, State::Launched | State::Running) && !next.may_relaunch() {
            next.request = None;
        }
        next.keep_alive(now, rules.retention);
    }
    next.rev += 1;
    next.updated_at = now;
    next.fit();
    Decision { record: Some(next), action, alarm }
}

/// Makes the record `launching` and claims its next RunTask call.
pub(crate) fn claim(record: &mut Record, now: Timestamp, rules: &Rules) -> Call {
    let since = *record.unanswered_since.get_or_insert(now);
    record.state = State::Launching;
    record.launch_calls += 1;
    record.last_call_at = Some(now);
    record.set_check_at(now.plus(rules.timers.lease));
    Call { attempt: record.attempt, since, nth: record.launch_calls, claimed_at: now }
}

struct Step<'a> {
    record: &'a mut Record,
    now: Timestamp,
    rules: &'a Rules,
    alarm: Option<Alarm>,
}

impl Step<'_> {
    fn timers(&self) -> Timers {
        self.rules.timers
    }

    fn end(&mut self, state: State, reason: impl Into<String>) {
        self.record.end(state, reason, self.now, self.rules);
    }

    /// Ends what was not launched and never will be; `failed` if a container of an attempt before may have run.
    fn end_unlaunched(&mut self, state: State, reason: &str) {
        if self.record.ran_before {
            let before = self.record.attempts.last().cloned().unwrap_or_default();
            self.end(State::Failed, format!("{before}; not launched again: {reason}"));
        } else {
            self.end(state, reason);
        }
    }

    /// Moves the timer, but never further than a wanted stop allows.
    fn check_in(&mut self, wait: Duration) {
        let wait = if self.record.stop_requested.is_some() { wait.min(self.timers().stop_every) } else { wait };
        self.record.set_check_at(self.now.plus(wait));
    }

    /// Moves the timer closer, if it is not close enough.
    fn check_by(&mut self, at: Timestamp) {
        self.record.check_at = self.record.check_at.map(|check_at| check_at.min(at));
    }

    fn backoff(&self, count: u32) -> Duration {
        let Timers { backoff, backoff_most, .. } = self.timers();
        let wait = backoff.saturating_mul(1 << count.saturating_sub(1).min(16)).min(backoff_most);
        let half = wait / 2;
        let jitter = record::jitter(&self.record.submission_id, count) % 1000;
        // At most 999 of 1000: it fits.
        half + half.mul_f64(jitter as f64 / 1000.0)
    }

    // The timer.

    fn due(&mut self) -> Option<Action> {
        // Terminal, or claimed by another since the index was read.
        if self.record.check_at.is_none_or(|check_at| check_at > self.now) {
            return None;
        }
        match self.record.state {
            State::Queued => self.due_queued(),
            State::Launching => self.due_launching(),
            State::Launched | State::Running => self.due_launched(),
            State::Succeeded | State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Lost => {
                None
            }
        }
    }

    fn due_queued(&mut self) -> Option<Action> {
        if self.record.is_past_deadline(self.now) {
            let earlier = self.record.reason.take().map_or(String::new(), |reason| format!("; before that: {reason}"));
            self.end_unlaunched(State::Expired, &format!("the launch deadline passed{earlier}"));
            return None;
        }
        Some(Action::RunTask(claim(self.record, self.now, self.rules)))
    }

    /// An unanswered RunTask: repeated with the same token while that is safe, then looked up.
    fn due_launching(&mut self) -> Option<Action> {
        let timers = self.timers();
        let stopping = self.record.stop_requested.is_some();
        let safe_to_repeat = self.record.unanswered_since.is_some_and(|since| self.now < since.plus(timers.repeat_for));
        if safe_to_repeat && !stopping && !self.record.is_past_deadline(self.now) {
            return Some(Action::RunTask(claim(self.record, self.now, self.rules)));
        }
        let counts_from = self.lookup_counts_from();
        if self.now < counts_from && !stopping {
            self.record.set_check_at(counts_from);
            return None;
        }
        self.check_in(timers.lookup_after);
        Some(Action::LookUp(self.record.attempt))
    }

    fn due_launched(&mut self) -> Option<Action> {
        let task_arn = self.record.task_arn.clone()?;
        self.request_stop_if_overdue();
        if let Some(stop) = &self.record.stop_requested {
            let reason = stop.reason.clone();
            self.check_in(self.timers().stop_every);
            return Some(self.stop_task(task_arn, reason, AfterStop::Describe));
        }
        let wait = if self.record.missing_count > 0 { self.timers().missing_apart } else { self.timers().check_every };
        self.check_in(wait);
        self.check_by_timeout();
        Some(Action::Describe { task_arn })
    }

    /// When the state's timeout strikes, and which it is.
    fn timeout(&self) -> Option<(Timestamp, StopCause, u32)> {
        // A container that has exited is only waiting for its task to be torn down.
        if self.record.exit_code.is_some() {
            return None;
        }
        let (from, seconds, cause) = match self.record.state {
            State::Launched => (self.record.launched_at, self.record.policy.launch_timeout, StopCause::LaunchTimeout),
            State::Running => (self.record.started_at, self.record.policy.run_timeout, StopCause::RunTimeout),
            _ => return None,
        };
        let (from, seconds) = (from?, seconds?);
        Some((from.plus(Duration::from_secs(seconds.into())), cause, seconds))
    }

    fn check_by_timeout(&mut self) {
        if let Some((at, ..)) = self.timeout() {
            self.check_by(at.max(self.now));
        }
    }

    fn request_stop_if_overdue(&mut self) {
        let Some((at, cause, seconds)) = self.timeout() else { return };
        if self.now >= at && self.record.stop_requested.is_none() {
            let reason = match cause {
                StopCause::LaunchTimeout => format!("not running {seconds} s after its launch (launch_timeout)"),
                StopCause::RunTimeout | StopCause::User => format!("still running after {seconds} s (run_timeout)"),
            };
            self.record.stop_requested = Some(Stop { cause, reason });
        }
    }

    fn stop_task(&self, task_arn: String, reason: String, then: AfterStop) -> Action {
        Action::Stop { task_arn, cluster: self.record.cluster.clone(), reason, then }
    }

    // The launch.

    fn launch_answered(&mut self, call: Call, answer: &LaunchAnswer) -> Option<Action> {
        match answer {
            LaunchAnswer::Task { arn, live } => self.has_task(call.attempt, arn, *live),
            LaunchAnswer::RefusedForNow(reason) => {
                self.refused(call, reason, false);
                None
            }
            LaunchAnswer::RefusedForGood(reason) => {
                self.refused(call, reason, true);
                None
            }
            LaunchAnswer::Unanswered(_) => {
                // Nothing is known, so nothing changes, but that this call need not be waited for any longer.
                if self.awaits(call) {
                    let wait = self.backoff(call.nth);
                    self.check_by(self.now.plus(wait));
                }
                None
            }
        }
    }

    /// Whether `call` is the last one claimed of a launch that is still unanswered.
    fn awaits(&self, call: Call) -> bool {
        self.record.state == State::Launching
            && self.record.attempt == call.attempt
            && self.record.unanswered_since == Some(call.since)
            && self.record.launch_calls == call.nth
    }

    fn has_task(&mut self, attempt: Attempt, arn: &str, live: bool) -> Option<Action> {
        if attempt != self.record.attempt {
            return None;
        }
        if self.is_another(arn) {
            return self.second_task(arn, live);
        }
        if self.record.state.is_terminal() {
            if self.record.task_arn.is_none() {
                self.record.task_arn = Some(arn.to_owned());
            }
            return live.then(|| self.orphan(arn)).flatten();
        }
        let news = self.record.task_arn.is_none();
        self.record.task_arn = Some(arn.to_owned());
        if self.record.state == State::Launching {
            self.launched();
        }
        if !live {
            // It has ended, and the answer does not say how.
            self.check_by(self.now);
        }
        self.stop_if_asked(news, arn)
    }

    fn is_another(&self, arn: &str) -> bool {
        self.record.task_arn.as_deref().is_some_and(|recorded| task_id(recorded) != task_id(arn))
    }

    /// Stops a task that has the `startedBy` of the recorded one.
    fn second_task(&mut self, arn: &str, live: bool) -> Option<Action> {
        self.alarm = Some(Alarm::SecondTask);
        let reason = "a second task of the same attempt".to_owned();
        live.then(|| self.stop_task(arn.to_owned(), reason, AfterStop::Nothing))
    }

    /// Stops a live task of a submission that ended without it.
    fn orphan(&mut self, arn: &str) -> Option<Action> {
        let ended_without = match self.record.state {
            State::Lost | State::Cancelled | State::Expired | State::Rejected => true,
            State::Queued | State::Launching | State::Launched | State::Running => false,
            State::Succeeded | State::Failed => false,
        };
        // Its own end was seen: what shows it alive is older.
        let seen_to_end = self.record.exit_code.is_some() || self.record.stopped_at.is_some();
        if !ended_without || seen_to_end {
            return None;
        }
        self.alarm = Some(Alarm::OrphanTask);
        let reason = format!("its submission is {}", self.record.state);
        Some(self.stop_task(arn.to_owned(), reason, AfterStop::Nothing))
    }

    /// ECS has a task for the current attempt.
    fn launched(&mut self) {
        self.record.state = State::Launched;
        self.record.launched_at = Some(self.now);
        self.record.reason = None;
        self.record.refusals = 0;
        self.record.forget_the_launch();
        // The timer of the creating claim stays: to move it costs two writes of the index, a sixth of what a submission
        // costs.
        if self.record.check_at.is_none_or(|check_at| check_at < self.now.plus(self.timers().missing_after)) {
            self.check_in(self.timers().first_check);
        }
        self.check_by_timeout();
    }

    /// A stop that was asked for before the task was known.
    fn stop_if_asked(&mut self, news: bool, arn: &str) -> Option<Action> {
        let reason = self.record.stop_requested.as_ref().filter(|_| news)?.reason.clone();
        Some(self.stop_task(arn.to_owned(), reason, AfterStop::Nothing))
    }

    /// A refusal that certainly launched nothing. It counts only for the first call, and while no repeat was claimed:
    /// a refused repeat says nothing about the call before it.
    fn refused(&mut self, call: Call, reason: &str, for_good: bool) {
        if call.nth != 1 || !self.awaits(call) {
            return;
        }
        if for_good {
            self.end_unlaunched(State::Rejected, reason);
        } else if let Some(stop) = &self.record.stop_requested {
            let reason = stop.reason.clone();
            self.end(State::Cancelled, reason);
        } else {
            self.record.state = State::Queued;
            self.record.forget_the_launch();
            self.record.refusals += 1;
            self.record.reason = Some(reason.to_owned());
            self.check_in(self.backoff(self.record.refusals));
        }
    }

    fn lookup_counts_from(&self) -> Timestamp {
        let last = self.record.last_call_at.max(self.record.looked_up_at).unwrap_or(self.record.created_at);
        last.plus(self.timers().lookup_after)
    }

    fn not_found(&mut self, attempt: Attempt, began_at: Timestamp) -> Option<Action> {
        if self.record.state != State::Launching
            || self.record.attempt != attempt
            || began_at < self.lookup_counts_from()
        {
            return None;
        }
        self.record.lookups += 1;
        self.record.looked_up_at = Some(began_at);
        if self.record.lookups >= 2 {
            self.end(
                State::Lost,
                "RunTask was never answered, and no task of this submission was found; it may have run",
            );
        } else {
            self.check_in(self.timers().lookup_after);
        }
        None
    }

    // The task.

    fn seen(&mut self, task: &Task) -> Option<Action> {
        if task.attempt != self.record.attempt || !self.is_our_cluster(task) {
            return None;
        }
        let live = task.is_live(&self.record.container_name);
        if self.is_another(&task.arn) {
            return self.second_task(&task.arn, live);
        }
        let known = self.record.ecs_version;
        if known.is_some_and(|known| task.version < known) {
            return None;
        }
        let newer = known.is_none_or(|known| task.version > known);
        if self.record.state.is_terminal() {
            // The record of a stop that came first knows no cluster, and a task is stopped in its own.
            if self.record.cluster.is_empty() {
                self.record.cluster.clone_from(&task.cluster_arn);
            }
            // At an equal version too: who saw it first may have died between the write and StopTask.
            let action = live.then(|| self.orphan(&task.arn)).flatten();
            self.fill_in(task);
            return action;
        }
        if !newer {
            self.heard();
            self.fill_in(task);
            return None;
        }
        let news = self.record.task_arn.is_none();
        self.observe(task);
        if news && self.record.stop_requested.is_some() {
            // Whoever saw the task may not be the one that may stop it.
            self.check_by(self.now);
        }
        self.conclude(task);
        None
    }

    fn is_our_cluster(&self, task: &Task) -> bool {
        self.record.cluster.is_empty() || cluster_name(&self.record.cluster) == cluster_name(&task.cluster_arn)
    }

    fn heard(&mut self) {
        (self.record.missing_count, self.record.missing_at) = (0, None);
    }

    /// Takes over only what was unknown; never an exit code, never a state.
    fn fill_in(&mut self, task: &Task) {
        let record = &mut *self.record;
        let before = record.clone();
        fill(&mut record.task_arn, Some(&task.arn));
        fill(&mut record.stop_code, task.stop_code.as_ref());
        fill(&mut record.stopped_reason, task.stopped_reason.as_ref());
        fill(&mut record.started_at, task.started_at.as_ref());
        fill(&mut record.stopped_at, task.stopped_at.as_ref());
        fill(&mut record.container_exited_at, task.execution_stopped_at.as_ref());
        // The task's status goes along with a fact that is written anyway, and is not worth a write of its own.
        if before != *record {
            record.ecs_version = Some(task.version);
            record.last_status = Some(task.last_status.clone());
            record.desired_status = Some(task.desired_status.clone());
        }
    }

    /// Takes over a newer version of the task.
    fn observe(&mut self, task: &Task) {
        self.heard();
        if matches!(self.record.state, State::Queued | State::Launching) {
            self.launched();
        }
        let record = &mut *self.record;
        record.task_arn = Some(task.arn.clone());
        record.ecs_version = Some(task.version);
        record.last_status = Some(task.last_status.clone());
        record.desired_status = Some(task.desired_status.clone());
        take(&mut record.stop_code, task.stop_code.as_ref());
        take(&mut record.stopped_reason, task.stopped_reason.as_ref());
        take(&mut record.started_at, task.started_at.as_ref());
        take(&mut record.stopped_at, task.stopped_at.as_ref());
        take(&mut record.container_exited_at, task.execution_stopped_at.as_ref());
        if task.has_run(&record.container_name) {
            record.seen_running = true;
            record.started_at.get_or_insert(task.at.unwrap_or(self.now));
            if record.state == State::Launched {
                record.state = State::Running;
                self.check_by_timeout();
            }
        }
    }

    /// Ends the attempt, or the submission, if what was seen is its end.
    fn conclude(&mut self, task: &Task) {
        let exit_code = task.exit_code(&self.record.container_name);
        let over = match self.record.policy.complete_on {
            CompleteOn::ContainerExit => task.is_stopped() || exit_code.is_some(),
            CompleteOn::TaskStopped => task.is_stopped(),
        };
        if !over {
            return;
        }
        self.record.container_exited_at = exit_code
            .map(|_| task.execution_stopped_at.or(task.at).unwrap_or(self.now))
            .or(self.record.container_exited_at);
        match exit_code {
            Some(code) => self.exited(task, code),
            None => self.stopped_without_a_code(task),
        }
    }

    fn exited(&mut self, task: &Task, code: i32) {
        self.record.exit_code = Some(code);
        if code != 0 && self.relaunches() {
            // Spot ends containers with 143 or 137. The next attempt waits until this one's task is over.
            if task.is_stopped() {
                let reason = format!("{} with exit code {code}", self.stop_words());
                self.next_attempt(reason, true);
            }
            return;
        }
        let (state, reason) = match (code, &self.record.stop_requested) {
            (0, _) => (State::Succeeded, String::new()),
            (_, Some(Stop { cause: StopCause::User, reason })) => (State::Cancelled, reason.clone()),
            (_, Some(Stop { reason, .. })) => (State::Failed, reason.clone()),
            (_, None) => (State::Failed, format!("container {} exited with {code}", self.record.container_name)),
        };
        self.end(state, reason);
    }

    fn stopped_without_a_code(&mut self, task: &Task) {
        if let Some(Stop { cause, reason }) = self.record.stop_requested.clone() {
            let state = match cause {
                StopCause::User => State::Cancelled,
                StopCause::LaunchTimeout | StopCause::RunTimeout => State::Failed,
            };
            return self.end(state, reason);
        }
        let name = &self.record.container_name;
        let may_have_run = self.record.seen_running || !task.never_started(name);
        let certain = !may_have_run
            && self.record.policy.complete_on == CompleteOn::ContainerExit
            && task.stop_code.as_deref() == Some("TaskFailedToStart");
        let words = task.named(name).find_map(|container| container.reason.clone());
        let reason = match words {
            Some(words) => format!("{}: {words}", self.stop_words()),
            None => format!("{}, and container {name} has no exit code", self.stop_words()),
        };
        let attempts_left = self.record.attempt < self.record.policy.max_attempts;
        if (certain && attempts_left) || self.relaunches() {
            self.next_attempt(reason, !certain);
        } else {
            self.end(State::Failed, reason);
        }
    }

    /// Whether the stop code known by now is one to run again after, and there is an attempt left to do so.
    fn relaunches(&self) -> bool {
        let Record { policy, stop_code, stop_requested, attempt, .. } = &*self.record;
        stop_requested.is_none()
            && *attempt < policy.max_attempts
            && stop_code.as_ref().is_some_and(|code| policy.relaunch_on.contains(code))
    }

    fn stop_words(&self) -> &str {
        self.record.stop_code.as_deref().unwrap_or("the task stopped without a stop code")
    }

    /// Back to `queued` for another attempt; all that was observed of this one is forgotten but its reason.
    fn next_attempt(&mut self, reason: String, may_have_run: bool) {
        let Some(attempt) = self.record.attempt.next() else {
            return self.end(State::Failed, reason);
        };
        let record = &mut *self.record;
        record.attempts.push(reason);
        record.attempt = attempt;
        record.state = State::Queued;
        record.ran_before |= may_have_run;
        record.seen_running = false;
        record.refusals = 0;
        (record.task_arn, record.ecs_version, record.exit_code) = (None, None, None);
        (record.last_status, record.desired_status) = (None, None);
        (record.stop_code, record.stopped_reason, record.reason) = (None, None, None);
        (record.launched_at, record.started_at) = (None, None);
        (record.container_exited_at, record.stopped_at) = (None, None);
        record.forget_the_launch();
        self.heard();
        let wait = self.backoff(attempt.get().into());
        self.check_in(wait);
    }

    fn missing(&mut self, task_arn: &str, at: Timestamp, stop_sent: bool) -> Option<Action> {
        let timers = self.timers();
        let current = matches!(self.record.state, State::Launched | State::Running)
            && self.record.task_arn.as_deref().map(task_id) == Some(task_id(task_arn));
        if !current || self.record.launched_at.is_none_or(|launched| at < launched.plus(timers.missing_after)) {
            return None;
        }
        match self.record.missing_at {
            None => {
                (self.record.missing_count, self.record.missing_at) = (1, Some(at));
                self.check_by(self.now.plus(timers.missing_apart));
                None
            }
            Some(first) if at < first.plus(timers.missing_apart) => None,
            Some(_) if !stop_sent => {
                let reason = "ECS no longer describes it".to_owned();
                Some(self.stop_task(task_arn.to_owned(), reason, AfterStop::GiveUp(at)))
            }
            Some(_) => {
                match self.record.exit_code {
                    Some(code) => self.end(State::Failed, format!("{} with exit code {code}", self.stop_words())),
                    None => self.end(State::Lost, "ECS no longer knows the task, and no exit code was ever seen"),
                }
                None
            }
        }
    }

    // The caller.

    /// Brings the timer of an unanswered launch to the end of its claim's lease. The claim that created the record set
    /// it later, and a caller that was not answered has no other way to tell that who made it has died.
    fn resubmitted(&mut self) {
        if let (State::Launching, Some(claimed_at)) = (self.record.state, self.record.last_call_at) {
            self.check_by(claimed_at.plus(self.timers().lease));
        }
    }

    fn stop(&mut self, reason: &str) -> Option<Action> {
        if self.record.state.is_terminal() {
            return None;
        }
        if self.record.stop_requested.is_none() {
            self.record.stop_requested = Some(Stop { cause: StopCause::User, reason: reason.to_owned() });
            self.check_by(self.now.plus(self.timers().stop_every));
        }
        if self.record.state == State::Queued {
            self.end(State::Cancelled, reason);
            return None;
        }
        let task_arn = self.record.task_arn.clone()?;
        Some(self.stop_task(task_arn, reason.to_owned(), AfterStop::Nothing))
    }
}

fn fill<T: Clone>(known: &mut Option<T>, seen: Option<&T>) {
    if known.is_none() {
        *known = seen.cloned();
    }
}

fn take<T: Clone>(known: &mut Option<T>, seen: Option<&T>) {
    if let Some(seen) = seen {
        *known = Some(seen.clone());
    }
}

#[cfg(test)]
pub(crate) mod tests;
