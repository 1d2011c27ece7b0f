//! The calls of a function, with the outcome that the step chose.

use ecs_bridge_core::{Action, Call, Input, LaunchAnswer, LaunchBlocker, Task, decide::AfterStop, notify::Delivery};

use super::{step::Outcome, turn::Turn};
use crate::{ecs::EcsTask, promise::Promise, scenario::Scenario};

impl Turn<'_> {
    /// Performs an action, and returns the inputs that follow from its outcome.
    pub(super) fn act(&mut self, action: &Action, outcome: Outcome) -> Vec<Input> {
        let now = Scenario::at(self.now);
        match action {
            Action::RunTask(call) => {
                let found = self.look_up_refused(*call);
                if found.is_empty() { vec![Input::Launch(*call, self.run_task(*call, outcome))] } else { found }
            }
            Action::LookUp(_) if outcome == Outcome::Denied => self.lookup_failed(),
            Action::LookUp(attempt) => {
                let found = self.submission.tasks.iter().filter(|task| task.attempt == *attempt);
                let found = found.filter(|task| task.is_remembered(self.now) && outcome != Outcome::Stale);
                let described = |task: &EcsTask| Task { at: None, ..task.describe(self.scenario) };
                let seen: Vec<_> = found.map(|task| Input::Seen(described(task))).collect();
                if seen.is_empty() { vec![Input::NotFound(*attempt, now)] } else { seen }
            }
            Action::Describe { task_arn } => self.describe(task_arn, outcome),
            Action::Notify(nth) => vec![Input::Delivered(self.notify(*nth, outcome))],
            Action::Stop { task_arn, then, .. } => {
                if let Some(task) = self.submission.task_of(task_arn).filter(|_| outcome != Outcome::Denied) {
                    task.stop();
                }
                match *then {
                    AfterStop::Nothing => vec![],
                    AfterStop::Describe => self.describe(task_arn, outcome),
                    AfterStop::GiveUp(at) => vec![Input::Missing { task_arn: task_arn.clone(), at, stop_sent: true }],
                }
            }
        }
    }

    /// Notifies the event bus.
    pub(super) fn notify(&mut self, nth: u32, outcome: Outcome) -> Delivery {
        if matches!(outcome, Outcome::Answered | Outcome::Unanswered { arrived: true }) {
            let has_ended = self.submission.row.as_deref().is_some_and(|row| row.state().is_terminal());
            self.break_if(Promise::NotifiedAfterEnd, !has_ended);
            // Each notification after the first needs a fault: a process died, or a response was lost.
            let faults = self.scenario.faults - *self.faults;
            self.break_if(Promise::NotifiedOnce, self.submission.notified > faults);
            self.submission.notified += 1;
        }
        Delivery { nth, event_bus: outcome == Outcome::Answered, ..Delivery::default() }
    }

    pub(super) fn describe(&mut self, task_arn: &str, outcome: Outcome) -> Vec<Input> {
        if outcome == Outcome::Denied {
            return self.lookup_failed();
        }
        let (now, scenario) = (self.now, self.scenario);
        let known =
            self.submission.task_of(task_arn).filter(|task| task.is_remembered(now) && outcome != Outcome::Stale);
        vec![match known {
            Some(task) => Input::Seen(Task { at: None, ..task.describe(scenario) }),
            None => Input::Missing { task_arn: task_arn.to_owned(), at: Scenario::at(now), stop_sent: false },
        }]
    }

    pub(super) fn lookup_failed(&self) -> Vec<Input> {
        let row = self.submission.row.iter();
        let reason = || "access denied".to_owned();
        row.map(|row| Input::LookupFailed { attempt: row.attempt.number, at: Scenario::at(self.now), reason: reason() })
            .collect()
    }

    /// Looks up the tasks of an attempt that was refused, before another request is sent. It finds the tasks that ECS knows.
    pub(super) fn look_up_refused(&self, call: Call) -> Vec<Input> {
        let is_needed = self
            .submission
            .row
            .as_deref()
            .is_some_and(|row| row.attempt.was_refused && row.attempt.number == call.attempt);
        if !is_needed || call.nth > 1 || !self.scenario.is_sent(call, self.now) {
            return vec![];
        }
        let found = self.submission.tasks.iter().filter(|task| task.attempt == call.attempt && !task.is_new(self.now));
        let found = found.filter(|task| task.is_remembered(self.now));
        found.map(|task| Input::Seen(Task { at: None, ..task.describe(self.scenario) })).collect()
    }

    pub(super) fn run_task(&mut self, call: Call, outcome: Outcome) -> LaunchAnswer {
        let arrives = match outcome {
            Outcome::Answered
            | Outcome::Unanswered { arrived: true }
            | Outcome::NoCapacity { launched: true }
            | Outcome::Stale => true,
            Outcome::NoCapacity { launched: false }
            | Outcome::Refused { .. }
            | Outcome::Denied
            | Outcome::Unanswered { arrived: false } => false,
        };
        if !self.scenario.is_sent(call, self.now) {
            return LaunchAnswer::Unanswered("not sent".to_owned());
        }
        let token = self.scenario.token(call);
        if arrives && self.submission.task_of_token(token, call, self.now).is_none() {
            let id = self.submission.tasks.len().try_into().unwrap_or(u8::MAX);
            let refused = matches!(outcome, Outcome::NoCapacity { .. });
            // A refused task that was launched may be found too late. It is then stopped as soon as a function sees it.
            let others = |task: &EcsTask| task.attempt == call.attempt && !task.refused && !refused;
            self.break_if(Promise::OneTask, self.submission.tasks.iter().any(others));
            self.submission.tasks.push(EcsTask { refused, ..EcsTask::new(id, call.attempt, token, self.now) });
        }
        let task = self.submission.task_of_token(token, call, self.now);
        match (outcome, task) {
            (Outcome::Answered | Outcome::Stale, Some(task)) => {
                LaunchAnswer::Task { arn: task.arn(self.scenario), live: task.is_live() && !task.to_stop }
            }
            (Outcome::Refused { permanent: true }, _) => LaunchAnswer::RefusedForGood("no such cluster".to_owned()),
            (Outcome::Refused { permanent: false }, _) => {
                LaunchAnswer::RefusedForNow(LaunchBlocker::Other, "throttled".to_owned())
            }
            (Outcome::NoCapacity { .. }, _) => {
                LaunchAnswer::RefusedForNow(LaunchBlocker::Capacity, "RESOURCE:CPU".to_owned())
            }
            (Outcome::Denied, _) => LaunchAnswer::RefusedForNow(LaunchBlocker::Access, "access denied".to_owned()),
            (Outcome::Answered | Outcome::Stale | Outcome::Unanswered { .. }, _) => {
                LaunchAnswer::Unanswered("timeout".to_owned())
            }
        }
    }
}
