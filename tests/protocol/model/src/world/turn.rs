//! A step of one submission, by the loop of every function: read, decide, write if unchanged, act.

use ecs_bridge_core::{Action, Input, Record, Task};

use super::{
    state::{Event, Next, Process, SubmissionState},
    step::{Outcome, Step},
};
use crate::{
    hashed::Hashed,
    mutation::Mutation,
    promise::{self, Promise},
    scenario::Scenario,
};

/// A submission that takes a step, and the parts of the world that the step can change.
pub(super) struct Turn<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) now: u8,
    pub(super) faults: &'a mut u8,
    pub(super) outage: bool,
    pub(super) submission: &'a mut SubmissionState,
    pub(super) broken: &'a mut Option<Promise>,
}

/// The calls to ECS that a function may make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CallsAllowed {
    Any,
    /// StopTask, and notifications.
    OnlyStops,
}

impl Turn<'_> {
    /// Applies a step. Returns none if the step changes nothing or is impossible.
    pub(super) fn apply(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Wait | Step::Outage => return None,
            Step::Submit { token, .. } => return self.submit(token),
            Step::Resubmit { .. } => {
                self.use_fault();
                return self.resubmit();
            }
            Step::Stop { stalls, .. } => {
                let stop = Hashed::new(Input::Stop("no longer needed".to_owned()));
                return self.settle(&stop, stalls, CallsAllowed::OnlyStops);
            }
            Step::Reconcile { stalls, .. } => return self.settle(&Hashed::new(Input::Due), stalls, CallsAllowed::Any),
            Step::NoCapacity { .. } => {
                self.use_fault();
                return self.settle(&Hashed::new(Input::NoCapacity), false, CallsAllowed::Any);
            }
            Step::LaunchBy { choice, stalls, .. } => {
                return self.settle(&Hashed::new(Input::LaunchBy(choice)), stalls, CallsAllowed::Any);
            }
            Step::Deliver { event, again, stalls, versioned, .. } => {
                let Event { task, .. } = self.submission.events.remove(event);
                if !versioned {
                    self.use_fault();
                }
                if again {
                    self.use_fault();
                    self.submission.events.push(Event { task, late: true });
                }
                let described = task.describe(self.scenario);
                let version = described.version.filter(|_| versioned);
                let seen = Hashed::new(Input::Seen(Task { version, ..described }));
                return self.settle(&seen, stalls, CallsAllowed::OnlyStops);
            }
            Step::Delay { event, .. } => {
                if !self.outage {
                    self.use_fault();
                }
                self.submission.events.get_mut(event)?.late = true;
            }
            Step::Task { task, change, .. } => self.change(task, change)?,
            Step::Act { process, outcome, .. } => {
                let Process { next: Next::Act(action), .. } = self.submission.processes.remove(process) else {
                    return None;
                };
                if outcome != Outcome::Answered && (!self.outage || matches!(*action, Action::Notify(_))) {
                    self.use_fault();
                }
                let inputs = self.act(&action, outcome);
                if !inputs.is_empty() {
                    self.start_process(Next::Decide(inputs.into_iter().map(Hashed::new).collect()));
                }
            }
            Step::Decide { process, stalls, .. } => {
                let Process { next: Next::Decide(mut inputs), .. } = self.submission.processes.remove(process) else {
                    return None;
                };
                let input = inputs.remove(0);
                if !inputs.is_empty() {
                    self.start_process(Next::Decide(inputs));
                }
                return self.settle(&input, stalls, CallsAllowed::Any);
            }
            Step::Write { process, .. } => match self.submission.processes.remove(process).next {
                Next::Write { input, next, action } => {
                    let before = self.submission.row.clone()?;
                    self.commit(&before, next, action.as_deref());
                    self.follow_up(&before, &input, action);
                }
                Next::WriteTooLate(input) => return self.settle(&input, false, CallsAllowed::Any),
                Next::Act(_) | Next::Decide(_) => return None,
            },
            Step::Pause { process, .. } => {
                self.use_fault();
                self.submission.processes.get_mut(process)?.paused = true;
            }
        }
        Some(())
    }

    pub(super) fn use_fault(&mut self) {
        // A step that needs a fault is offered only while one is left.
        *self.faults -= 1;
    }

    pub(super) fn break_if(&mut self, promise: Promise, is_broken: bool) {
        if is_broken {
            self.broken.get_or_insert(promise);
        }
    }

    pub(super) fn start_process(&mut self, next: Next) {
        self.submission.processes.push(Process { paused: false, next });
    }

    /// Creates the record by a conditional put. If a record exists, submit returns its state.
    pub(super) fn submit(&mut self, token: bool) -> Option<()> {
        self.submission.submitted = true;
        if self.submission.row.is_some() {
            // A stop request arrived first.
            self.settle(&self.resubmitted(), false, CallsAllowed::OnlyStops)?;
            return Some(());
        }
        let (now, rules) = (Scenario::at(self.now), Scenario::rules());
        let submission = self.scenario.submission();
        if !token {
            self.create(Record::queued(submission, now, &rules));
            return Some(());
        }
        let (record, call) = Record::launching(submission, now, &rules);
        self.break_if(Promise::StopIsFinal, call.is_some() && self.submission.stopped);
        if !self.scenario.has(Mutation::RunTaskBeforeRecord) {
            self.create(record);
        }
        if let Some(call) = call {
            self.start_process(Next::Act(Hashed::new(Action::RunTask(call))));
        }
        Some(())
    }

    /// The caller got no response and submits again. Returns none if that changes nothing.
    pub(super) fn resubmit(&mut self) -> Option<()> {
        let Some(row) = &self.submission.row else { return self.submit(true) };
        let rev = row.rev;
        self.settle(&self.resubmitted(), false, CallsAllowed::OnlyStops)?;
        self.submission.row.as_ref().filter(|row| row.rev > rev).map(|_| ())
    }

    pub(super) fn resubmitted(&self) -> Hashed<Input> {
        Hashed::new(Input::Resubmitted(self.scenario.submission().notify))
    }

    /// Writes a row that does not exist yet.
    pub(super) fn create(&mut self, record: Record) {
        self.check_row(&record);
        self.submission.row = Some(Hashed::row(record));
    }

    /// Reads the row and decides on `input`. The write follows immediately, because a write in between would only make this
    /// function read and decide again. If the function `stalls`, the write follows at any time.
    pub(super) fn settle(&mut self, input: &Hashed<Input>, stalls: bool, calls: CallsAllowed) -> Option<()> {
        let now = Scenario::at(self.now);
        let Some(row) = self.submission.row.clone() else {
            return self.settle_unknown(input, stalls);
        };
        let decision = self.scenario.decide(&row, input, now);
        if calls == CallsAllowed::OnlyStops {
            self.break_if(
                Promise::OnlyStops,
                !matches!(decision.action, None | Some(Action::Stop { .. } | Action::Notify(_))),
            );
        }
        let action = decision.action.map(Hashed::new);
        match decision.record {
            Some(next) if stalls => {
                self.use_fault();
                let next = Next::Write { input: input.clone(), next: Hashed::row(next), action };
                self.submission.processes.push(Process { paused: true, next });
            }
            None if stalls => return None,
            Some(next) => {
                self.commit(&row, Hashed::row(next), action.as_deref());
                self.follow_up(&row, input, action);
            }
            None => self.follow_up(&row, input, action),
        }
        Some(())
    }

    /// Decides without a row. Only a stop creates one.
    pub(super) fn settle_unknown(&mut self, input: &Input, stalls: bool) -> Option<()> {
        let (now, rules) = (Scenario::at(self.now), Scenario::rules());
        match input {
            _ if stalls => return None,
            Input::Stop(reason) => {
                if !self.scenario.has(Mutation::StopOfUnknownIgnored) {
                    let id = self.scenario.submission().submission_id;
                    self.create(Record::tombstone(id, reason, now, &rules));
                }
                self.submission.stopped = true;
            }
            Input::Launch(call, _) if self.scenario.has(Mutation::RunTaskBeforeRecord) => {
                self.create(Record::launching(self.scenario.submission(), call.claimed_at, &rules).0);
                return self.settle(&Hashed::new(input.clone()), false, CallsAllowed::Any);
            }
            Input::Due
            | Input::Launch(..)
            | Input::NotFound(..)
            | Input::LookupFailed { .. }
            | Input::Seen(_)
            | Input::Missing { .. }
            | Input::Resubmitted(_)
            | Input::Delivered(_)
            | Input::NoCapacity
            | Input::LaunchBy(_)
            | Input::Pool(_) => {}
        }
        Some(())
    }

    pub(super) fn commit(&mut self, before: &Record, next: Hashed<Record>, action: Option<&Action>) {
        self.check_row(&next);
        self.break_if(Promise::StopIsFinal, self.submission.stopped && matches!(action, Some(Action::RunTask(_))));
        promise::of_write(before, &next, |promise, is_broken| self.break_if(promise, is_broken));
        self.submission.row = Some(next);
        if !self.scenario.has(Mutation::NoVersionCheck) {
            for process in &mut self.submission.processes {
                if let Next::Write { input, .. } = &process.next {
                    process.next = Next::WriteTooLate(input.clone());
                }
            }
        }
    }

    /// Starts the action of a decision on `input`, which was made with the row `before`.
    pub(super) fn follow_up(&mut self, before: &Record, input: &Input, action: Option<Hashed<Action>>) {
        match input {
            Input::Stop(_) => self.submission.stopped = true,
            Input::Seen(task) => self.check_seen(before, task, action.as_deref()),
            Input::Due
            | Input::Launch(..)
            | Input::NotFound(..)
            | Input::LookupFailed { .. }
            | Input::Missing { .. }
            | Input::Resubmitted(_)
            | Input::Delivered(_)
            | Input::NoCapacity
            | Input::LaunchBy(_)
            | Input::Pool(_) => {}
        }
        if let Some(action) = action {
            self.start_process(Next::Act(action));
        }
    }
}
