//! Launching: what a claimed RunTask call comes to, and what is done where nothing answers it.

use crate::{
    decide::{Action, LaunchAnswer, Step},
    id::Attempt,
    record::Call,
    state::State,
    time::Timestamp,
};

impl Step<'_> {
    pub(super) fn due_queued(&mut self) -> Option<Action> {
        if self.record.is_past_deadline(self.now) {
            let earlier = self.record.reason.take().map_or(String::new(), |reason| format!("; before that: {reason}"));
            self.end_unlaunched(State::Expired, &format!("the launch deadline passed{earlier}"));
            return None;
        }
        Some(Action::RunTask(self.record.claim(self.now, self.rules)))
    }

    /// An unanswered RunTask: repeated with the same token while that is safe, then looked up.
    pub(super) fn due_launching(&mut self) -> Option<Action> {
        let timers = self.timers();
        let stopping = self.record.stop_requested.is_some();
        let safe_to_repeat = self.record.unanswered_since.is_some_and(|since| self.now < since.plus(timers.repeat_for));
        if safe_to_repeat && !stopping && !self.record.is_past_deadline(self.now) {
            return Some(Action::RunTask(self.record.claim(self.now, self.rules)));
        }
        let counts_from = self.lookup_counts_from();
        if self.now < counts_from && !stopping {
            self.record.set_check_at(counts_from);
            return None;
        }
        self.check_in(timers.lookup_after);
        Some(Action::LookUp(self.record.attempt))
    }

    pub(super) fn launch_answered(&mut self, call: Call, answer: &LaunchAnswer) -> Option<Action> {
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
    pub(super) fn awaits(&self, call: Call) -> bool {
        self.record.state == State::Launching
            && self.record.attempt == call.attempt
            && self.record.unanswered_since == Some(call.since)
            && self.record.launch_calls == call.nth
    }

    pub(super) fn has_task(&mut self, attempt: Attempt, arn: &str, live: bool) -> Option<Action> {
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

    /// ECS has a task for the current attempt.
    pub(super) fn launched(&mut self) {
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

    /// A refusal that certainly launched nothing. It counts only for the first call, and while no repeat was claimed:
    /// a refused repeat says nothing about the call before it.
    pub(super) fn refused(&mut self, call: Call, reason: &str, for_good: bool) {
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

    pub(super) fn lookup_counts_from(&self) -> Timestamp {
        let last = self.record.last_call_at.max(self.record.looked_up_at).unwrap_or(self.record.created_at);
        last.plus(self.timers().lookup_after)
    }

    pub(super) fn not_found(&mut self, attempt: Attempt, began_at: Timestamp) -> Option<Action> {
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

    /// Brings the timer of an unanswered launch to the end of its claim's lease. The claim that created the record set
    /// it later, and a caller that was not answered has no other way to tell that who made it has died.
    pub(super) fn resubmitted(&mut self) {
        if let (State::Launching, Some(claimed_at)) = (self.record.state, self.record.last_call_at) {
            self.check_by(claimed_at.plus(self.timers().lease));
        }
    }

    /// Ends what was not launched and never will be; `failed` if a container of an attempt before may have run.
    pub(super) fn end_unlaunched(&mut self, state: State, reason: &str) {
        if self.record.ran_before {
            let before = self.record.attempts.last().cloned().unwrap_or_default();
            self.end(State::Failed, format!("{before}; not launched again: {reason}"));
        } else {
            self.end(state, reason);
        }
    }
}
