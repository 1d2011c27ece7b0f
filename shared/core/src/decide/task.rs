//! Handles the task: its events and descriptions, its outcome, and the next attempt.

use std::{cmp::Ordering, time::Duration};

use crate::{
    decide::{Action, AfterStop, Alarm, Step},
    profile::{CompleteOn, Relaunch},
    record::{Attempt, Hint, Record, Stop, StopCause},
    state::State,
    task::{FAILED_TO_START, StartFailure, Task, cluster_name, task_id},
    time::Timestamp,
};

/// The limit on how far ECS's clock may be behind that of the bridge.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

impl Step<'_> {
    pub(super) fn due_launched(&mut self) -> Option<Action> {
        let task_arn = self.record.attempt.task_arn.clone()?;
        self.request_stop_if_overdue();
        if self.record.stop_requested.is_none() && self.is_idle_runner() {
            return self.due_idle(&task_arn);
        }
        if let Some(stop) = &self.record.stop_requested {
            let reason = stop.reason.clone();
            self.check_in(self.timers().stop_every);
            return Some(self.stop_task(task_arn, reason, AfterStop::Describe));
        }
        let wait =
            if self.record.attempt.missing_count > 0 { self.timers().missing_apart } else { self.timers().check_every };
        self.check_in(wait);
        self.check_by_timeout();
        Some(Action::Describe { task_arn })
    }

    pub(super) fn seen(&mut self, task: &Task) -> Option<Action> {
        if task.attempt != self.record.attempt.number || !self.is_our_cluster(task) || self.is_from_before(task) {
            return None;
        }
        let live = task.is_live(&self.record.container_name);
        if self.is_another(&task.arn) {
            return self.second_task(&task.arn, live);
        }
        let newer = match self.compare(task) {
            Ordering::Less => return None,
            Ordering::Equal => self.answers_again(task),
            Ordering::Greater => true,
        };
        if self.record.state().is_terminal() {
            // A stop that arrived first created a record without a cluster. A task must be stopped in its own cluster.
            if self.record.cluster.is_empty() {
                self.record.cluster.clone_from(&task.cluster_arn);
            }
            // This includes an equal version, because the process that saw it first may have died between the write and
            // StopTask.
            let refuted = newer && self.record.attempt.last_status.as_deref() == Some("STOPPED");
            let action = live.then(|| self.orphan(&task.arn, refuted)).flatten();
            self.fill_in(task);
            return action;
        }
        if !newer {
            self.heard();
            self.fill_in(task);
            return None;
        }
        if self.may_be_refused(task) {
            return None;
        }
        let news = self.record.attempt.task_arn.is_none();
        self.observe(task);
        if news && self.record.stop_requested.is_some() {
            // The process that saw the task may not have permission to stop it.
            self.check_by(self.now);
        }
        self.conclude(task);
        None
    }

    /// Returns true if the task, which ended without an exit code, may be one that ECS rejected and still launched. A
    /// call through another option may still be pending, and this task proves nothing about that call.
    fn may_be_refused(&self, task: &Task) -> bool {
        let ended = task.is_stopped() && task.exit_code(&self.record.container_name).is_none();
        let is_answered = self.record.attempt.task_arn.is_some() || !self.record.may_repeat(self.now, self.rules);
        ended && self.record.attempt.was_refused && !is_answered
    }

    /// Compares the reported task with the recorded one, by version.
    ///
    /// If either version is unknown, the status decides. It only advances, so a later status cannot be older. The
    /// record then has no version until a report with a version has a status that is no earlier.
    pub(super) fn compare(&self, task: &Task) -> Ordering {
        let by_version = self.record.attempt.ecs_version.zip(task.version).map(|(known, seen)| seen.cmp(&known));
        by_version.unwrap_or_else(|| self.compare_status(task))
    }

    fn compare_status(&self, task: &Task) -> Ordering {
        let Some(known) = &self.record.attempt.last_status else { return Ordering::Greater };
        if *known != task.last_status {
            // A status that is unknown to the bridge has no place in the order, and does not count as progress.
            return place(&task.last_status).cmp(&place(known)).then(Ordering::Less);
        }
        // Without a version, an exit is recorded once, if it ends the attempt.
        let ends =
            self.record.policy.complete_on == CompleteOn::ContainerExit && self.record.attempt.exit_code.is_none();
        let has_news = task.version.is_some() || ends && task.exit_code(&self.record.container_name).is_some();
        if has_news { Ordering::Greater } else { Ordering::Equal }
    }

    pub(super) fn is_our_cluster(&self, task: &Task) -> bool {
        // An old short task ARN does not contain the cluster, and `clusterArn` may be missing.
        let is_unknown = self.record.cluster.is_empty() || task.cluster_arn.is_empty();
        is_unknown || cluster_name(&self.record.cluster) == cluster_name(&task.cluster_arn)
    }

    /// Returns true if the event is older than the record. A replayed dead-letter message may belong to an earlier
    /// submission with the same ID.
    fn is_from_before(&self, task: &Task) -> bool {
        task.at.is_some_and(|at| at.plus(CLOCK_SKEW) < self.record.created_at)
    }

    pub(super) fn heard(&mut self) {
        self.record.attempt.clear_failed_lookups();
    }

    /// Fills in only missing attributes, and never an exit code or a state.
    pub(super) fn fill_in(&mut self, task: &Task) {
        let stopped_reason = task.stopped_reason.as_deref().map(|text| self.record.redact(text));
        let attempt = &mut self.record.attempt;
        let before = attempt.clone();
        fill(&mut attempt.task_arn, Some(&task.arn));
        fill(&mut attempt.stop_code, task.stop_code.as_ref());
        fill(&mut attempt.stopped_reason, stopped_reason.as_ref());
        fill(&mut attempt.started_at, task.started_at.as_ref());
        fill(&mut attempt.stopped_at, task.stopped_at.as_ref());
        fill(&mut attempt.container_exited_at, task.execution_stopped_at.as_ref());
        // The task's status is recorded along with another fact, and causes no write by itself.
        if before != *attempt {
            if task.version.is_some() || attempt.last_status.as_ref() != Some(&task.last_status) {
                attempt.ecs_version = task.version;
            }
            attempt.last_status = Some(task.last_status.clone());
            attempt.desired_status = Some(task.desired_status.clone());
        }
    }

    /// Records a newer version of the task.
    pub(super) fn observe(&mut self, task: &Task) {
        self.heard();
        if matches!(self.record.state(), State::Queued | State::Launching) {
            // No call is in progress while the submission is queued, so ECS launched a task that it had rejected.
            if self.record.state() == State::Queued && self.record.attempt.no_capacity_since.is_some() {
                self.alarm = Some(Alarm::RefusedTask);
            }
            self.launched();
        }
        self.take_over(task);
        let has_run = task.has_run(&self.record.container_name);
        let attempt = &mut self.record.attempt;
        if attempt.asked_again && !task.is_stopped() {
            // The task had not ended.
            (attempt.asked_again, attempt.exit_code, attempt.container_exited_at) = (false, None, None);
        }
        take(&mut attempt.started_at, task.started_at.as_ref());
        take(&mut attempt.container_exited_at, task.execution_stopped_at.as_ref());
        if has_run {
            attempt.seen_running = true;
            attempt.no_capacity_since = None;
            attempt.started_at.get_or_insert(task.at.unwrap_or(self.now));
            if self.record.state() == State::Launched {
                self.change_to(State::Running);
                self.check_by_timeout();
                if self.record.runner().is_some() {
                    // The runner should poll soon.
                    self.check_by(self.now.plus(self.timers().silent_after));
                }
            }
        }
    }

    /// Records the version of a task, its status, and its stop reasons.
    pub(super) fn take_over(&mut self, task: &Task) {
        let stopped_reason = task.stopped_reason.as_deref().map(|text| self.record.redact(text));
        let attempt = &mut self.record.attempt;
        attempt.task_arn = Some(task.arn.clone());
        attempt.ecs_version = task.version;
        attempt.last_status = Some(task.last_status.clone());
        attempt.desired_status = Some(task.desired_status.clone());
        take(&mut attempt.stop_code, task.stop_code.as_ref());
        take(&mut attempt.stopped_reason, stopped_reason.as_ref());
        take(&mut attempt.stopped_at, task.stopped_at.as_ref());
        take(&mut attempt.runs_on, task.runs_on.as_ref());
        take(&mut attempt.cpu, task.cpu.as_ref());
        take(&mut attempt.memory, task.memory.as_ref());
    }

    /// Ends the attempt or the submission if `task` has ended.
    pub(super) fn conclude(&mut self, task: &Task) {
        let exit_code = task.exit_code(&self.record.container_name);
        let over = match self.record.policy.complete_on {
            CompleteOn::ContainerExit => task.is_stopped() || exit_code.is_some(),
            CompleteOn::TaskStopped => task.is_stopped(),
        };
        if !over {
            return;
        }
        self.record.attempt.container_exited_at = exit_code
            .map(|_| task.execution_stopped_at.or(task.at).unwrap_or(self.now))
            .or(self.record.attempt.container_exited_at);
        self.note_a_hint(task.ran_out_of_memory(&self.record.container_name), exit_code);
        match exit_code {
            Some(code) => self.exited(task, code),
            None => self.stopped_without_a_code(task),
        }
    }

    /// Records the likely cause: out of memory if ECS reports it, or if a container was killed and neither a stop nor
    /// its capacity explains it.
    pub(super) fn note_a_hint(&mut self, says_so: bool, exit_code: Option<i32>) {
        const KILLED: i32 = 137;
        let Record { attempt: Attempt { stop_code, stopped_reason, .. }, stop_requested, .. } = &*self.record;
        // ECS sometimes reports maintenance of the host only in the reason.
        let by_itself = stop_code.as_deref().is_none_or(|code| code == "EssentialContainerExited")
            && stopped_reason.as_deref().is_none_or(|reason| reason.starts_with("Essential container"));
        if says_so || exit_code == Some(KILLED) && by_itself && stop_requested.is_none() {
            self.record.attempt.hint = Some(Hint::OutOfMemory);
        }
    }

    /// Returns true if this responds to the repeated request to ECS, and is not a redelivered event.
    fn answers_again(&self, task: &Task) -> bool {
        self.record.attempt.asked_again && task.at.is_none()
    }

    /// Returns true if ECS must be queried again before the next attempt of a command that may have run, because an
    /// event reported that the task stopped. On EC2 the container agent reports this, and it can be wrong: it has
    /// reported containers that were still running (amazon-ecs-agent, issue 5135).
    pub(super) fn asks_again(&mut self, task: &Task) -> bool {
        if task.is_on_fargate() || task.at.is_none() {
            return false;
        }
        self.record.attempt.asked_again = true;
        self.check_by(self.now);
        true
    }

    pub(super) fn exited(&mut self, task: &Task, code: i32) {
        self.record.attempt.exit_code = Some(code);
        // A Spot interruption ends containers with 143 or 137. The next attempt waits until this task is STOPPED.
        if task.is_stopped() {
            self.stopped_with_code(task, code);
        } else if code == 0 || self.relaunch().is_none() {
            self.end_with_code(code);
        }
    }

    /// Handles a STOPPED task with a known exit code.
    pub(super) fn stopped_with_code(&mut self, task: &Task, code: i32) {
        match self.relaunch().filter(|_| code != 0) {
            Some(_) if self.asks_again(task) => {}
            Some(relaunch) => {
                let reason = format!("{} with exit code {code}", self.stop_words());
                self.next_attempt(reason, true, Some(&relaunch));
            }
            None => self.end_with_code(code),
        }
    }

    /// Ends the submission with its exit code.
    pub(super) fn end_with_code(&mut self, code: i32) {
        let (state, reason) = match (code, &self.record.stop_requested) {
            (0, _) => (State::Succeeded, self.interruption()),
            (_, Some(Stop { cause: StopCause::User, reason })) => (State::Cancelled, reason.clone()),
            (_, Some(Stop { reason, .. })) => (State::Failed, reason.clone()),
            (_, None) => {
                let suspicion =
                    self.record.attempt.hint.map_or("", |Hint::OutOfMemory| "; it may have run out of memory");
                (State::Failed, format!("container {} exited with {code}{suspicion}", self.record.container_name))
            }
        };
        self.end(state, reason);
    }

    /// Returns a reason for a success after an interruption. A worker that handles SIGTERM exits with 0 if it is
    /// interrupted.
    fn interruption(&self) -> String {
        match self.record.attempt.stop_code.as_deref() {
            _ if self.record.attempt.hint.is_some() => "exit code 0, although ECS reports OutOfMemoryError".to_owned(),
            Some(code) if code != "EssentialContainerExited" => format!("{code} with exit code 0"),
            _ if !self.record.attempts.is_empty() => format!("succeeded in attempt {}", self.record.attempt.number),
            _ => String::new(),
        }
    }

    pub(super) fn stopped_without_a_code(&mut self, task: &Task) {
        if let Some(Stop { cause, reason }) = self.record.stop_requested.clone() {
            let state = match cause {
                StopCause::User => State::Cancelled,
                StopCause::LaunchTimeout | StopCause::RunTimeout => State::Failed,
            };
            return self.end(state, reason);
        }
        let name = &self.record.container_name;
        // The last reason of a restarted container is no evidence about its first start.
        let may_have_run =
            self.record.attempt.seen_running || self.record.policy.complete_on != CompleteOn::ContainerExit;
        let failure = if may_have_run { None } else { task.start_failure(name) };
        let reason = self.end_without_a_code(task);
        let relaunch = self.relaunch();
        match failure {
            Some(StartFailure::Capacity) if self.record.waits_for_its_capacity() => self.capacity_given_up(reason),
            Some(StartFailure::NeverStarted | StartFailure::Capacity) if self.record.has_attempts_left() => {
                self.next_attempt(reason, false, relaunch.as_ref());
            }
            Some(StartFailure::NeverStarted | StartFailure::Capacity) | None => match relaunch {
                Some(_) if failure.is_none() && self.asks_again(task) => {}
                Some(relaunch) => self.next_attempt(reason, failure.is_none(), Some(&relaunch)),
                None => self.end(State::Failed, reason),
            },
        }
    }

    /// Describes a result without an exit code. The cause is the reason of the named container or, if missing, of the
    /// task, as ECS states it.
    fn end_without_a_code(&self, task: &Task) -> String {
        let (name, stop) = (&self.record.container_name, self.stop_words());
        // This reason does not name the cause.
        let of_task = task.stopped_reason.as_deref().filter(|words| !words.starts_with("Essential container"));
        let of_container = task.named(name).find_map(|container| container.reason.as_deref());
        match of_container.or(of_task).map(|words| self.record.redact(words)) {
            // ECS puts the stop code before some of its reasons.
            Some(words) if words.starts_with(stop) => words,
            Some(words) if of_container.is_some() || stop == FAILED_TO_START => format!("{stop}: {words}"),
            Some(words) => format!("{stop}, and container {name} has no exit code: {words}"),
            None => format!("{stop}, and container {name} has no exit code"),
        }
    }

    /// Handles a task whose capacity provider gave up, after 10 to 30 minutes or immediately. The next attempt uses the
    /// next capacity option, or waits as after a rejection because capacity is unavailable. No container was started,
    /// so the attempt does not count. It still gets a number of its own, because ECS would return the stopped task for
    /// the same client token.
    fn capacity_given_up(&mut self, reason: String) {
        let (choices, given_up) = (self.record.choices(), self.record.attempt.fallback);
        let since = self.record.attempt.no_capacity_since.or(self.record.attempt.launched_at);
        self.next_attempt(reason.clone(), false, None);
        if self.record.state() != State::Queued {
            return;
        }
        self.record.attempt.no_capacity_since = since;
        self.record.given_up += 1;
        self.record.attempt.reason = Some(reason);
        if let Some(next) = given_up.checked_add(1).filter(|next| choices.contains(next)) {
            self.record.attempt.fallback = next;
            return self.check_in(Duration::ZERO);
        }
        self.record.attempt.refusals += 1;
        let wait = self.backoff(self.record.given_up.into());
        self.check_in(wait);
    }

    /// Returns the entry of `relaunch_on` for the recorded stop code, if an attempt is left for it.
    pub(super) fn relaunch(&self) -> Option<Relaunch> {
        let Record { attempt: Attempt { stop_code, .. }, stop_requested, .. } = &*self.record;
        let mut relaunches = self.record.relaunches().filter(|_| stop_requested.is_none());
        relaunches.find(|relaunch| stop_code.as_deref() == Some(&relaunch.stop_code)).cloned()
    }

    pub(super) fn stop_words(&self) -> &str {
        self.record.attempt.stop_code.as_deref().unwrap_or("the task stopped without a stop code")
    }

    /// Returns the submission to `queued` for another attempt, as `relaunch` specifies. Only the reason of this attempt
    /// is kept.
    pub(super) fn next_attempt(&mut self, reason: String, may_have_run: bool, relaunch: Option<&Relaunch>) {
        let Some(number) = self.record.attempt.number.next() else {
            return self.end(State::Failed, reason);
        };
        let record = &mut *self.record;
        if let Some(Relaunch { fallback, counts, .. }) = relaunch {
            record.first_choice = fallback.unwrap_or(record.first_choice);
            record.uncounted += u8::from(!counts);
        }
        record.ran_before |= may_have_run;
        let started = record.start_attempt(number, reason);
        self.legal(started);
        if self.record.pooled().is_some() {
            self.record.enter_the_index(self.rules);
            return self.record.wait_for_a_runner(self.now, self.rules);
        }
        let wait = self.backoff(number.get().into());
        self.check_in(wait);
    }

    pub(super) fn missing(&mut self, task_arn: &str, at: Timestamp, stop_sent: bool) -> Option<Action> {
        let timers = self.timers();
        let current = matches!(self.record.state(), State::Launched | State::Running)
            && self.record.attempt.task_arn.as_deref().map(task_id) == Some(task_id(task_arn));
        if !current || self.record.attempt.launched_at.is_none_or(|launched| at < launched.plus(timers.missing_after)) {
            return None;
        }
        match self.record.attempt.missing_at {
            None => {
                (self.record.attempt.missing_count, self.record.attempt.missing_at) = (1, Some(at));
                self.check_by(self.now.plus(timers.missing_apart));
                None
            }
            Some(first) if at < first.plus(timers.missing_apart) => None,
            Some(_) if !stop_sent => {
                let reason = "ECS no longer describes it".to_owned();
                Some(self.stop_task(task_arn.to_owned(), reason, AfterStop::GiveUp(at)))
            }
            Some(_) => {
                match self.record.attempt.exit_code {
                    Some(code) => self.end(State::Failed, format!("{} with exit code {code}", self.stop_words())),
                    None => self.end(State::Lost, "ECS no longer knows the task, and no exit code was ever seen"),
                }
                None
            }
        }
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

/// Returns the position of a `lastStatus` in a task's lifecycle, or none if it is unknown to the bridge.
fn place(last_status: &str) -> Option<usize> {
    const LIFE: [&str; 8] =
        ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"];
    LIFE.iter().position(|known| *known == last_status)
}
