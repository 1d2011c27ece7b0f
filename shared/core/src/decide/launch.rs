//! Handles launches: the outcomes of a claimed RunTask call, and lookups if no response arrived.

use std::time::Duration;

use crate::{
    decide::{Action, AfterStop, Alarm, LaunchAnswer, LaunchBlocker, Step},
    id::AttemptNumber,
    notify::Notify,
    record::{Attempt, Call, LaunchCalls, REPEAT, Record},
    state::State,
    time::Timestamp,
};

impl Step<'_> {
    pub(super) fn due_queued(&mut self) -> Option<Action> {
        if self.has_expired() {
            return None;
        }
        if self.is_waiting() {
            self.record.wait_for_a_runner(self.now, self.rules);
            return None;
        }
        self.claim()
    }

    /// Ends the submission if its launch deadline has passed. A submission without one ends if ECS had no capacity for
    /// so long that the task may never fit.
    fn has_expired(&mut self) -> bool {
        let gives_up = self.record.attempt.no_capacity_since.map(|since| since.plus(self.timers().no_capacity_for));
        let cause = if self.record.is_past_deadline(self.now) {
            "the launch deadline passed"
        } else if self.record.launch_deadline.is_none() && gives_up.is_some_and(|at| self.now >= at) {
            "ECS had no capacity for it for a day"
        } else {
            return false;
        };
        let earlier =
            self.record.attempt.reason.take().map_or(String::new(), |reason| format!("; before that: {reason}"));
        self.end_unlaunched(State::Expired, &format!("{cause}{earlier}"));
        true
    }

    /// Moves a submission without available capacity to its own partition, where it waits until its deadline.
    pub(super) fn no_capacity(&mut self) {
        let is_waiting = self.record.waits_for_capacity() && self.record.check_at.is_some_and(|at| at > self.now);
        if self.record.state() == State::Queued && !is_waiting && !self.has_expired() {
            self.record.wait_for_capacity(self.now, self.rules);
        }
    }

    /// Launches the submission through another capacity option than its first, or from the partition that waits for
    /// capacity.
    pub(super) fn turn(&mut self, choice: u8) -> Option<Action> {
        let is_due = self.record.state() == State::Queued && self.record.check_at.is_some_and(|at| at <= self.now);
        if !(self.record.waits_for_capacity() || is_due) || !self.record.choices().contains(&choice) {
            return None;
        }
        let before = std::mem::replace(&mut self.record.attempt.fallback, choice);
        let action = self.due_queued();
        if action.is_none() {
            self.record.attempt.fallback = before;
        }
        action
    }

    /// Repeats an unanswered RunTask with the same token while that is safe, and looks the task up afterwards.
    pub(super) fn due_launching(&mut self) -> Option<Action> {
        let timers = self.timers();
        let stopping = self.record.stop_requested.is_some();
        if self.record.may_repeat(self.now, self.rules) {
            if self.record.due.as_deref() != Some(REPEAT) {
                // A process that serves this partition has no launch token for the submission.
                self.record.due = Some(REPEAT.to_owned());
                return None;
            }
            return self.claim();
        }
        let counts_from = self.lookup_counts_from();
        if self.now < counts_from && !stopping {
            self.record.check_at = Some(counts_from);
            return None;
        }
        self.check_in(timers.lookup_after);
        Some(Action::LookUp(self.record.attempt.number))
    }

    pub(super) fn launch_answered(&mut self, call: Call, answer: &LaunchAnswer) -> Option<Action> {
        match answer {
            LaunchAnswer::Task { arn, live } => self.has_task(call.attempt, arn, *live),
            LaunchAnswer::RefusedForNow(blocker, reason) => {
                if self.is_proof(call) {
                    self.refused_for_now(*blocker, reason);
                }
                None
            }
            LaunchAnswer::RefusedForGood(reason) => {
                if self.is_proof(call) {
                    self.end_unlaunched(State::Rejected, reason);
                }
                None
            }
            LaunchAnswer::Unanswered(_) => {
                // The outcome is unknown, so only the wait for this call ends.
                if self.awaits(call) {
                    let wait = self.backoff(call.nth);
                    self.check_by(self.now.plus(wait));
                }
                None
            }
        }
    }

    /// Returns true if a rejection of `call` proves that nothing was launched: it is the first call, and no repeat was
    /// claimed. A rejected repeat proves nothing about the call before it.
    fn is_proof(&self, call: Call) -> bool {
        call.nth == 1 && self.awaits(call)
    }

    /// Returns true if `call` is the last claimed call of a launch that is still unanswered.
    pub(super) fn awaits(&self, call: Call) -> bool {
        self.record.state() == State::Launching
            && self.record.attempt.number == call.attempt
            && self.record.attempt.calls.unanswered_since == Some(call.since)
            && self.record.attempt.calls.launch_calls == call.nth
    }

    pub(super) fn has_task(&mut self, attempt: AttemptNumber, arn: &str, live: bool) -> Option<Action> {
        if attempt != self.record.attempt.number {
            return None;
        }
        if self.record.state().is_terminal() {
            if self.is_another(arn) {
                return self.second_task(arn, live);
            }
            if self.record.attempt.task_arn.is_none() {
                self.record.attempt.task_arn = Some(arn.to_owned());
            }
            return live.then(|| self.orphan(arn, false)).flatten();
        }
        if self.is_another(arn) {
            return self.replace_task(arn);
        }
        let news = self.record.attempt.task_arn.is_none();
        self.record.attempt.task_arn = Some(arn.to_owned());
        if self.record.state() == State::Launching {
            self.launched();
        }
        if !live {
            // The task has stopped, and the response does not contain the outcome.
            self.check_by(self.now);
        }
        self.stop_if_asked(news, arn)
    }

    /// Replaces the recorded task and stops it. RunTask's own response is certain, because its client token is that of
    /// this attempt. The recorded task was adopted by its `startedBy`, which any caller of ECS may set.
    fn replace_task(&mut self, arn: &str) -> Option<Action> {
        let adopted = self.record.attempt.task_arn.replace(arn.to_owned())?;
        (self.record.attempt.ecs_version, self.record.attempt.exit_code) = (None, None);
        self.check_by(self.now);
        self.second_task(&adopted, true)
    }

    /// Records that ECS has a task for the current attempt.
    pub(super) fn launched(&mut self) {
        self.change_to(State::Launched);
        self.record.attempt.launched_at = Some(self.now);
        self.record.attempt.reason = None;
        self.record.attempt.clear_refusals();
        self.record.attempt.calls = LaunchCalls::default();
        // The timer of the creating claim stays. Moving it costs two index writes, a sixth of the price of a
        // submission.
        if self.record.check_at.is_none_or(|check_at| check_at <= self.now.plus(self.timers().lease)) {
            self.check_in(self.timers().first_check);
        }
        self.check_by_timeout();
    }

    /// Returns the submission to `queued` for the same attempt, after a rejection that certainly launched nothing.
    fn refused_for_now(&mut self, blocker: LaunchBlocker, reason: &str) {
        if let Some(stop) = &self.record.stop_requested {
            let reason = stop.reason.clone();
            return self.end(State::Cancelled, reason);
        }
        if self.is_denied_for_good(blocker) {
            return self.end_unlaunched(State::Rejected, reason);
        }
        self.change_to(State::Queued);
        self.record.attempt.calls = LaunchCalls::default();
        self.record.attempt.reason = Some(reason.to_owned());
        match blocker {
            LaunchBlocker::Capacity => {
                self.record.attempt.no_capacity_since.get_or_insert(self.now);
                self.record.attempt.was_refused |= self.record.policy.fallbacks > 0;
            }
            LaunchBlocker::Access | LaunchBlocker::Other => {}
        }
        let choices = self.record.choices();
        let next = self.record.attempt.fallback.checked_add(1).filter(|next| choices.contains(next));
        if let (LaunchBlocker::Capacity, Some(next)) = (blocker, next) {
            self.record.attempt.fallback = next;
            return self.check_in(Duration::ZERO);
        }
        if blocker == LaunchBlocker::Capacity {
            // No option has capacity, so the next round starts with the first.
            self.record.attempt.fallback = *choices.start();
        }
        self.record.attempt.refusals += 1;
        self.check_in(self.backoff(self.record.attempt.refusals));
    }

    /// Returns true if ECS has denied access for too long. A recently changed role takes a while to take effect, so the
    /// launch is retried until its deadline, or for [`Timers::denied_for`](crate::Timers::denied_for) without one.
    fn is_denied_for_good(&mut self, blocker: LaunchBlocker) -> bool {
        let Record { attempt: Attempt { denied_since, .. }, launch_deadline, .. } = &mut *self.record;
        match blocker {
            LaunchBlocker::Capacity | LaunchBlocker::Other => {
                *denied_since = None;
                false
            }
            LaunchBlocker::Access => {
                if denied_since.is_none() {
                    self.alarm = Some(Alarm::AccessDenied);
                }
                let since = *denied_since.get_or_insert(self.now);
                launch_deadline.is_none() && self.now >= since.plus(self.rules.timers.denied_for)
            }
        }
    }

    pub(super) fn lookup_counts_from(&self) -> Timestamp {
        let last = self
            .record
            .attempt
            .calls
            .last_call_at
            .max(self.record.attempt.calls.looked_up_at)
            .unwrap_or(self.record.created_at);
        last.plus(self.timers().lookup_after)
    }

    pub(super) fn not_found(&mut self, attempt: AttemptNumber, began_at: Timestamp) -> Option<Action> {
        if self.record.state() != State::Launching
            || self.record.attempt.number != attempt
            || began_at < self.lookup_counts_from()
        {
            return None;
        }
        self.record.attempt.calls.lookups += 1;
        self.record.attempt.calls.looked_up_at = Some(began_at);
        if self.record.attempt.calls.lookups >= 2 {
            self.end(
                State::Lost,
                "RunTask was never answered, and ECS has no task of this submission; it may have run",
            );
        } else {
            self.check_in(self.timers().lookup_after);
        }
        None
    }

    /// Handles a failed lookup of this submission's task. After [`Timers::give_up_after`](crate::Timers::give_up_after)
    /// the submission ends as lost. Its task is stopped if ECS allows it.
    pub(super) fn lookup_failed(&mut self, attempt: AttemptNumber, at: Timestamp, reason: &str) -> Option<Action> {
        if attempt != self.record.attempt.number {
            return None;
        }
        let since = match self.record.state() {
            State::Launching => self.record.attempt.calls.unanswered_since,
            State::Launched | State::Running => {
                self.check_by(self.now.plus(self.timers().lease));
                Some(*self.record.attempt.lookup_failed_since.get_or_insert(at))
            }
            State::Queued => None,
            State::Succeeded | State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Lost => {
                None
            }
        };
        if since.is_none_or(|since| at < since.plus(self.timers().give_up_after)) {
            return None;
        }
        self.alarm = Some(Alarm::GivenUp);
        self.end(State::Lost, format!("ECS could not be asked about its task for too long; it may have run: {reason}"));
        let task_arn = self.record.attempt.task_arn.clone()?;
        Some(self.stop_task(task_arn, "its submission is lost".to_owned(), AfterStop::Nothing))
    }

    /// Brings the timer of an unanswered launch forward to the end of its claim's lease. The claim that created the
    /// record set a later time, and a caller without a response cannot know that the claiming process died.
    pub(super) fn resubmitted(&mut self, notify: &Notify) -> Option<Action> {
        if let (State::Launching, Some(claimed_at)) = (self.record.state(), self.record.attempt.calls.last_call_at) {
            self.check_by(claimed_at.plus(self.timers().lease));
        }
        self.listen(notify)
    }

    /// Ends a submission whose current attempt was never launched. It is `failed` if a container of an earlier attempt
    /// may have run.
    pub(super) fn end_unlaunched(&mut self, state: State, reason: &str) {
        if self.record.ran_before {
            let before = self.record.attempts.last().cloned().unwrap_or_default();
            self.end(State::Failed, format!("{before}; not launched again: {reason}"));
        } else {
            self.end(state, reason);
        }
    }
}
