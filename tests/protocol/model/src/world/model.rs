//! The model of the world: which steps are possible in a state, and the state that each leads to.

use ecs_bridge_core::{Action, Record, State};
use stateright::{Model, Property};

use super::{
    properties,
    state::{Event, Next, SubmissionState, World},
    step::{Outcome, Step},
    turn::Turn,
};
use crate::{hashed::fingerprint, scenario::Scenario};

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            faults: self.faults,
            outage: false,
            turn: 0,
            submissions: vec![SubmissionState::default(); self.submissions],
            broken: None,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        let faulty = world.faults > 0;
        let stalls: &[bool] = if faulty { &[false, true] } else { &[false] };
        let submission = world.turn;
        let Some(this) = world.submissions.get(submission) else { return };
        if self.outage && !world.outage {
            steps.push(Step::Outage);
        }
        if !this.submitted && world.now == 0 {
            steps.extend([true, false].map(|token| Step::Submit { submission, token }));
        }
        if this.submitted && faulty {
            steps.push(Step::Resubmit { submission });
        }
        if self.stops && !this.stopped {
            steps.extend(stalls.iter().map(|&stalls| Step::Stop { submission, stalls }));
        }
        if this.is_due(world.now) {
            steps.extend(stalls.iter().map(|&stalls| Step::Reconcile { submission, stalls }));
        }
        let row = this.row.as_deref();
        if faulty && row.is_some_and(|row| row.state() == State::Queued && !row.waits_for_capacity()) {
            steps.push(Step::NoCapacity { submission });
        }
        let is_due = |row: &Record| this.is_due(world.now) && row.state() == State::Queued;
        if let Some(row) = row.filter(|row| row.waits_for_capacity() || is_due(row)) {
            // A submission that is due is launched by its own option through `Reconcile`.
            for choice in row.choices().filter(|choice| row.waits_for_capacity() || *choice != row.attempt.fallback) {
                steps.extend(stalls.iter().map(|&stalls| Step::LaunchBy { submission, choice, stalls }));
            }
        }
        for (event, Event { late, .. }) in this.events.iter().enumerate() {
            for &stalls in stalls {
                steps.push(Step::Deliver { submission, event, again: false, stalls, versioned: true });
            }
            if self.rare_reports && faulty {
                steps.push(Step::Deliver { submission, event, again: false, stalls: false, versioned: false });
            }
            if faulty {
                steps.push(Step::Deliver { submission, event, again: true, stalls: false, versioned: true });
            }
            if (faulty || world.outage) && !late {
                steps.push(Step::Delay { submission, event });
            }
        }
        for (task, it) in this.tasks.iter().enumerate() {
            steps.extend(it.changes(self).into_iter().map(|change| Step::Task { submission, task, change }));
        }
        for (process, it) in this.processes.iter().enumerate() {
            match &it.next {
                Next::Write { .. } | Next::WriteTooLate(_) => steps.push(Step::Write { submission, process }),
                Next::Decide(_) => {
                    steps.extend(stalls.iter().map(|&stalls| Step::Decide { submission, process, stalls }));
                }
                Next::Act(action) => {
                    let outcomes = self.outcomes(action, this, world);
                    steps.extend(outcomes.into_iter().map(|outcome| Step::Act { submission, process, outcome }));
                }
            }
            if faulty && !it.paused {
                steps.push(Step::Pause { submission, process });
            }
        }
        let is_last = submission + 1 == world.submissions.len();
        let continues =
            world.now < self.horizon && world.submissions.iter().any(|submission| submission.is_pending(world.now));
        if !this.is_busy(world.now) && (continues || !is_last) && (faulty || !this.is_due(world.now)) {
            steps.push(Step::Wait);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        match step {
            Step::Wait => {
                // Time passes although a record is due: reconcile is late.
                if world.submissions.get(world.turn)?.is_due(world.now) {
                    world.faults -= 1;
                }
                world.turn += 1;
                if world.turn < world.submissions.len() {
                    return Some(world);
                }
                (world.turn, world.now) = (0, world.now + 1);
                let tasks = world.submissions.iter_mut().flat_map(|submission| &mut submission.tasks);
                tasks.for_each(|task| task.age(world.now));
            }
            Step::Outage => world.outage = true,
            Step::Submit { submission, .. }
            | Step::Resubmit { submission }
            | Step::Stop { submission, .. }
            | Step::Reconcile { submission, .. }
            | Step::NoCapacity { submission }
            | Step::LaunchBy { submission, .. }
            | Step::Deliver { submission, .. }
            | Step::Delay { submission, .. }
            | Step::Task { submission, .. }
            | Step::Act { submission, .. }
            | Step::Decide { submission, .. }
            | Step::Write { submission, .. }
            | Step::Pause { submission, .. } => {
                let World { now, faults, outage, submissions, broken, .. } = &mut world;
                let submission = submissions.get_mut(submission)?;
                let mut turn = Turn { scenario: self, now: *now, faults, outage: *outage, submission, broken };
                turn.apply(step)?;
                let SubmissionState { events, processes, tasks, row, .. } = turn.submission;
                let attempt = row.as_ref().map(|row| row.attempt.number);
                let outlived = tasks.iter_mut().filter(|task| task.is_stopped() && Some(task.attempt) < attempt);
                outlived.for_each(|task| *task = task.outlived());
                events.sort_unstable();
                processes.sort_by_cached_key(fingerprint);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties()
    }
}

impl Scenario {
    /// Returns the possible outcomes of an action.
    fn outcomes(&self, action: &Action, submission: &SubmissionState, world: &World) -> Vec<Outcome> {
        // In an outage of ECS, every call fails.
        if world.outage && !matches!(action, Action::Notify(_)) {
            return vec![Outcome::Denied];
        }
        let mut outcomes = vec![Outcome::Answered];
        if world.faults == 0 {
            return outcomes;
        }
        match action {
            Action::RunTask(call) if self.is_sent(*call, world.now) => {
                outcomes.extend([true, false].map(|permanent| Outcome::Refused { permanent }));
                outcomes.push(Outcome::Unanswered { arrived: true });
                outcomes.push(Outcome::Denied);
                if self.policy.fallbacks > 0 {
                    outcomes.push(Outcome::NoCapacity { launched: false });
                }
                if self.launched_failures {
                    outcomes.push(Outcome::NoCapacity { launched: true });
                }
                if submission.task_of_token(self.token(*call), *call, world.now).is_none() {
                    outcomes.push(Outcome::Unanswered { arrived: false });
                }
            }
            Action::LookUp(_) | Action::Describe { .. } => {
                outcomes.push(Outcome::Denied);
                if submission.tasks.iter().any(|task| task.is_new(world.now)) {
                    outcomes.push(Outcome::Stale);
                }
            }
            Action::Notify(_) => {
                outcomes.extend([true, false].map(|arrived| Outcome::Unanswered { arrived }));
                outcomes.push(Outcome::Denied);
            }
            Action::RunTask(_) | Action::Stop { .. } => {}
        }
        outcomes
    }
}
