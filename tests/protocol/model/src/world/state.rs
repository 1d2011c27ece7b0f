//! A state of the world: submissions with their rows, tasks, events and functions.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use ecs_bridge_core::{Action, Call, Input, Record, State, task_id};

use crate::{
    ecs::EcsTask,
    hashed::{Hashed, fingerprint},
    promise::Promise,
    scenario::Scenario,
};

/// A state of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The current tick.
    pub now: u8,
    /// The number of faults that can still happen.
    pub faults: u8,
    /// ECS refuses every call, and EventBridge can lose any event.
    pub outage: bool,
    /// The index of the submission that takes its steps. Submissions share only the clock and the faults, so the order of
    /// their steps within a tick does not matter. Each submission takes all of its steps before the next one.
    pub(super) turn: usize,
    /// The submissions.
    pub submissions: Vec<SubmissionState>,
    /// The guarantee that the last step broke.
    pub broken: Option<Promise>,
}

/// Submissions are interchangeable while none of them has taken a step in the current tick.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut submissions: Vec<_> = self.submissions.iter().map(fingerprint).collect();
        if self.turn == 0 {
            submissions.sort_unstable();
        }
        (self.now, self.faults, self.outage, self.turn, self.broken, submissions).hash(state);
    }
}

/// One submission: its caller, its row, its tasks, their events, and the functions that work on it.
///
/// A function that handles several submissions is modeled as one function for each. The case that all of them stop at
/// once is among the orders in which each can stop.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct SubmissionState {
    pub(super) submitted: bool,
    /// A stop was requested, and the caller got a response.
    pub(super) stopped: bool,
    pub(super) row: Option<Hashed<Record>>,
    pub(super) tasks: Vec<EcsTask>,
    /// Events in flight, sorted, because their order has no meaning.
    pub(super) events: Vec<Event>,
    /// Functions, sorted, because their order has no meaning.
    pub(super) processes: Vec<Process>,
    /// The number of notifications that the event bus received.
    pub(super) notified: u8,
}

/// An event in flight, with the task as it was when ECS sent the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) task: EcsTask,
    /// The event can arrive at any time, or never. Otherwise, it arrives within the tick.
    pub(super) late: bool,
}

/// A running function.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Process {
    /// The function is slow, frozen or dead: it continues at any time, or never. Otherwise, it continues within the tick.
    pub(super) paused: bool,
    pub(super) next: Next,
}

/// The next step of a function.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) enum Next {
    /// The function has read the row and decided. The row has not changed since.
    Write { input: Hashed<Input>, next: Hashed<Record>, action: Option<Hashed<Action>> },
    /// The function has read the row, which has changed since. Its write will fail.
    WriteTooLate(Hashed<Input>),
    /// The function performs an action.
    Act(Hashed<Action>),
    /// The function decides on the outcome of its call, which no other function knows.
    Decide(Vec<Hashed<Input>>),
}

impl World {
    /// Returns true if nothing more must happen. Everything in flight is late and may never arrive.
    pub(super) fn is_quiet(&self, scenario: &Scenario) -> bool {
        self.broken.is_none()
            && self.submissions.iter().all(|submission| !submission.is_busy(self.now))
            && (self.now >= scenario.horizon
                || !self.submissions.iter().any(|submission| submission.is_pending(self.now)))
    }

    /// Returns true if a submission is in this state.
    pub(super) fn has_submission_in(&self, state: State) -> bool {
        self.submissions.iter().any(|submission| submission.row.as_ref().is_some_and(|row| row.state() == state))
    }

    /// Returns true if every accepted submission is settled.
    pub(super) fn is_settled(&self) -> bool {
        self.submissions.iter().all(|submission| submission.row.as_ref().is_none_or(|row| row.is_settled()))
    }

    /// Returns true if the event bus has received every notification.
    pub(super) fn all_are_notified(&self, scenario: &Scenario) -> bool {
        !scenario.notify || self.submissions.iter().all(|submission| !submission.submitted || submission.notified > 0)
    }
}

impl fmt::Display for SubmissionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.row {
            None => f.write_str("no record")?,
            Some(row) => {
                let due_in = row.check_at.map(Scenario::tick_from);
                write!(f, "{} #{} rev {} due {due_in:?}", row.state(), row.attempt.number, row.rev)?;
            }
        }
        for task in &self.tasks {
            write!(f, "; task {} #{} v{} {:?}", task.id, task.attempt, task.version, task.status)?;
        }
        write!(f, "; {} events, {} at work", self.events.len(), self.processes.len())
    }
}

impl SubmissionState {
    /// Returns true if a step must happen before time passes.
    pub(super) fn is_busy(&self, now: u8) -> bool {
        self.processes.iter().any(|process| !process.paused)
            || self.events.iter().any(|event| !event.late)
            || self.tasks.iter().any(|task| task.is_overdue(now))
    }

    pub(super) fn is_due(&self, now: u8) -> bool {
        self.row.as_ref().and_then(|row| row.check_at).is_some_and(|check_at| check_at <= Scenario::at(now))
    }

    /// Returns true if the submission can change as time passes.
    pub(super) fn is_pending(&self, now: u8) -> bool {
        let late = self.processes.iter().any(|process| process.paused) || self.events.iter().any(|event| event.late);
        self.row.as_ref().is_some_and(|row| !row.is_settled())
            || self.tasks.iter().any(|task| !task.is_stopped() || late && task.is_remembered(now))
    }

    pub(super) fn task_of(&mut self, arn: &str) -> Option<&mut EcsTask> {
        let id: usize = task_id(arn).parse().ok()?;
        self.tasks.get_mut(id)
    }

    /// Returns the task that ECS returns for a client token.
    pub(super) fn task_of_token(&self, token: u32, call: Call, now: u8) -> Option<&EcsTask> {
        self.tasks.iter().find(|task| task.attempt == call.attempt && task.token == token && task.is_remembered(now))
    }
}
