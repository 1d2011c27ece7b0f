//! A state of the world, and what may happen in it.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use ecs_bridge_core::{
    Action, Call, Input, LaunchAnswer, LaunchBlocker, Record, State, Task, decide::AfterStop, notify::Delivery, task_id,
};
use stateright::{Model, Property};

use crate::{
    Mutation, Promise, Scenario,
    ecs::{Change, EcsTask},
    hashed::{Hashed, fingerprint},
    promise,
    scenario::CONTAINER,
};

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The current tick.
    pub now: u8,
    /// How many faults may still happen.
    pub faults: u8,
    /// ECS refuses every call, and EventBridge may lose any event.
    pub outage: bool,
    /// The submission whose turn it is. Submissions share only the clock and the faults, so the order of their steps
    /// within a tick does not matter: each takes all of its steps before the next.
    turn: usize,
    /// The submissions.
    pub lanes: Vec<Lane>,
    /// The promise that the last step broke.
    pub broken: Option<Promise>,
}

/// Submissions are interchangeable as long as none of them has had its turn.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut lanes: Vec<_> = self.lanes.iter().map(fingerprint).collect();
        if self.turn == 0 {
            lanes.sort_unstable();
        }
        (self.now, self.faults, self.outage, self.turn, self.broken, lanes).hash(state);
    }
}

/// One submission: its caller, its row, its tasks, their events, and the functions at work on it.
///
/// A function that handles several submissions counts as one function for each: that they stop together is one of the
/// orders in which each may stop.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Lane {
    submitted: bool,
    /// A stop was requested, and answered.
    stopped: bool,
    row: Option<Hashed<Record>>,
    tasks: Vec<EcsTask>,
    /// In flight, in no order.
    events: Vec<Event>,
    /// In no order.
    processes: Vec<Process>,
    /// How many times the event bus was notified of its end.
    notified: u8,
}

/// An event in flight: the task as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Event {
    task: EcsTask,
    /// It may arrive at any time, or never; else it arrives within the tick.
    late: bool,
}

/// A running function.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Process {
    /// It continues at any time, or never: slow, frozen, dead. Else it continues within the tick.
    paused: bool,
    next: Next,
}

/// What a function is about to do.
#[derive(Clone, Debug, PartialEq, Hash)]
enum Next {
    /// It has read and decided; the row has not changed since.
    Write {
        input: Hashed<Input>,
        next: Hashed<Record>,
        action: Option<Hashed<Action>>,
    },
    /// It has read, and the row has changed since: its write will fail.
    WriteTooLate(Hashed<Input>),
    Act(Hashed<Action>),
    /// It knows the outcome of its call, and no other function does.
    Learn(Vec<Hashed<Input>>),
}

/// Something that may happen. `stalls`: the function reads and decides, and writes later or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are places in the lists of the state before")]
pub enum Step {
    /// Nothing more happens to a submission within the tick; after the last one, time passes.
    Wait,
    /// An outage begins, and does not end.
    Outage,
    /// The caller submits; there is a launch token or not.
    Submit { lane: usize, token: bool },
    /// The caller submits the same again.
    Resubmit { lane: usize },
    /// The caller requests a stop.
    Stop { lane: usize, stalls: bool },
    /// reconcile handles a record that is due.
    Reconcile { lane: usize, stalls: bool },
    /// Its profile has no capacity.
    Block { lane: usize },
    /// It waits for capacity, or is due, and reconcile finds out whether there is any for this choice.
    LaunchBy { lane: usize, choice: u8, stalls: bool },
    /// An event reaches task-state, and may do so again. It may have no valid version.
    Deliver { lane: usize, event: usize, again: bool, stalls: bool, versioned: bool },
    /// An event is delayed, or lost.
    Delay { lane: usize, event: usize },
    /// Something happens to a task.
    Task { lane: usize, task: usize, change: Change },
    /// A function calls ECS.
    Act { lane: usize, process: usize, outcome: Outcome },
    /// A function decides on the answer.
    Learn { lane: usize, process: usize, stalls: bool },
    /// A function writes an earlier decision.
    Write { lane: usize, process: usize },
    /// A function stalls or dies.
    Pause { lane: usize, process: usize },
}

/// How a call to ECS goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Successful.
    Answered,
    /// Refused for want of capacity, and `launched` all the same or not.
    NoCapacity {
        /// A task is there.
        launched: bool,
    },
    /// Refused.
    Refused {
        /// For good; else for now.
        for_good: bool,
    },
    /// No answer arrives.
    Unanswered {
        /// The call did.
        arrived: bool,
    },
    /// ECS does not know a new task yet.
    Stale,
    /// Access is denied.
    Denied,
}

impl World {
    /// Whether nothing more has to happen: everything still in flight is late, and may never arrive.
    pub(crate) fn is_quiet(&self, scenario: &Scenario) -> bool {
        self.broken.is_none()
            && self.lanes.iter().all(|lane| !lane.is_busy(self.now))
            && (self.now >= scenario.horizon || !self.lanes.iter().any(|lane| lane.is_pending(self.now)))
    }

    pub(crate) fn has_one(&self, state: State) -> bool {
        self.lanes.iter().any(|lane| lane.row.as_ref().is_some_and(|row| row.state == state))
    }

    /// Whether every submission that was accepted has ended.
    pub(crate) fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.row.as_ref().is_none_or(|row| row.is_settled()))
    }

    /// Whether the event bus has got every notification.
    pub(crate) fn all_are_notified(&self, scenario: &Scenario) -> bool {
        !scenario.notify || self.lanes.iter().all(|lane| !lane.submitted || lane.notified > 0)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.row {
            None => f.write_str("no record")?,
            Some(row) => {
                let check_in = row.check_at.map(Scenario::tick_from);
                write!(f, "{} #{} rev {} due {check_in:?}", row.state, row.attempt, row.rev)?;
            }
        }
        for task in &self.tasks {
            write!(f, "; task {} #{} v{} {:?}", task.id, task.attempt, task.version, task.status)?;
        }
        write!(f, "; {} events, {} at work", self.events.len(), self.processes.len())
    }
}

impl Lane {
    /// Something must happen in it before time passes.
    fn is_busy(&self, now: u8) -> bool {
        self.processes.iter().any(|process| !process.paused)
            || self.events.iter().any(|event| !event.late)
            || self.tasks.iter().any(|task| task.is_overdue(now))
    }

    fn is_due(&self, now: u8) -> bool {
        self.row.as_ref().and_then(|row| row.check_at).is_some_and(|check_at| check_at <= Scenario::at(now))
    }

    /// It depends on time.
    fn is_pending(&self, now: u8) -> bool {
        let late = self.processes.iter().any(|process| process.paused) || self.events.iter().any(|event| event.late);
        self.row.as_ref().is_some_and(|row| !row.is_settled())
            || self.tasks.iter().any(|task| !task.is_stopped() || late && task.is_remembered(now))
    }

    fn task_of(&mut self, arn: &str) -> Option<&mut EcsTask> {
        let id: usize = task_id(arn).parse().ok()?;
        self.tasks.get_mut(id)
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            faults: self.faults,
            outage: false,
            turn: 0,
            lanes: vec![Lane::default(); self.submissions],
            broken: None,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        let faulty = world.faults > 0;
        let stalls: &[bool] = if faulty { &[false, true] } else { &[false] };
        let lane = world.turn;
        let Some(this) = world.lanes.get(lane) else { return };
        if self.outage && !world.outage {
            steps.push(Step::Outage);
        }
        if !this.submitted && world.now == 0 {
            steps.extend([true, false].map(|token| Step::Submit { lane, token }));
        }
        if this.submitted && faulty {
            steps.push(Step::Resubmit { lane });
        }
        if self.stops && !this.stopped {
            steps.extend(stalls.iter().map(|&stalls| Step::Stop { lane, stalls }));
        }
        if this.is_due(world.now) {
            steps.extend(stalls.iter().map(|&stalls| Step::Reconcile { lane, stalls }));
        }
        let row = this.row.as_deref();
        if faulty && row.is_some_and(|row| row.state == State::Queued && !row.waits_for_capacity()) {
            steps.push(Step::Block { lane });
        }
        let is_due = |row: &Record| this.is_due(world.now) && row.state == State::Queued;
        if let Some(row) = row.filter(|row| row.waits_for_capacity() || is_due(row)) {
            // Without fallbacks, what is due is launched by its own choice.
            for choice in row.choices().filter(|choice| row.waits_for_capacity() || *choice != row.fallback) {
                steps.extend(stalls.iter().map(|&stalls| Step::LaunchBy { lane, choice, stalls }));
            }
        }
        for (event, Event { late, .. }) in this.events.iter().enumerate() {
            for &stalls in stalls {
                steps.push(Step::Deliver { lane, event, again: false, stalls, versioned: true });
            }
            if self.odd && faulty {
                steps.push(Step::Deliver { lane, event, again: false, stalls: false, versioned: false });
            }
            if faulty {
                steps.push(Step::Deliver { lane, event, again: true, stalls: false, versioned: true });
            }
            if (faulty || world.outage) && !late {
                steps.push(Step::Delay { lane, event });
            }
        }
        for (task, it) in this.tasks.iter().enumerate() {
            steps.extend(it.changes(self).into_iter().map(|change| Step::Task { lane, task, change }));
        }
        for (process, it) in this.processes.iter().enumerate() {
            match &it.next {
                Next::Write { .. } | Next::WriteTooLate(_) => steps.push(Step::Write { lane, process }),
                Next::Learn(_) => {
                    steps.extend(stalls.iter().map(|&stalls| Step::Learn { lane, process, stalls }));
                }
                Next::Act(action) => {
                    let outcomes = self.outcomes(action, this, world);
                    steps.extend(outcomes.into_iter().map(|outcome| Step::Act { lane, process, outcome }));
                }
            }
            if faulty && !it.paused {
                steps.push(Step::Pause { lane, process });
            }
        }
        let is_last = lane + 1 == world.lanes.len();
        let goes_on = world.now < self.horizon && world.lanes.iter().any(|lane| lane.is_pending(world.now));
        if !this.is_busy(world.now) && (goes_on || !is_last) && (faulty || !this.is_due(world.now)) {
            steps.push(Step::Wait);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        match step {
            Step::Wait => {
                // reconcile is late.
                if world.lanes.get(world.turn)?.is_due(world.now) {
                    world.faults -= 1;
                }
                world.turn += 1;
                if world.turn < world.lanes.len() {
                    return Some(world);
                }
                (world.turn, world.now) = (0, world.now + 1);
                let tasks = world.lanes.iter_mut().flat_map(|lane| &mut lane.tasks);
                tasks.for_each(|task| task.age(world.now));
            }
            Step::Outage => world.outage = true,
            Step::Submit { lane, .. }
            | Step::Resubmit { lane }
            | Step::Stop { lane, .. }
            | Step::Reconcile { lane, .. }
            | Step::Block { lane }
            | Step::LaunchBy { lane, .. }
            | Step::Deliver { lane, .. }
            | Step::Delay { lane, .. }
            | Step::Task { lane, .. }
            | Step::Act { lane, .. }
            | Step::Learn { lane, .. }
            | Step::Write { lane, .. }
            | Step::Pause { lane, .. } => {
                let World { now, faults, outage, lanes, broken, .. } = &mut world;
                let lane = lanes.get_mut(lane)?;
                let mut turn = LaunchBy { scenario: self, now: *now, faults, outage: *outage, lane, broken };
                turn.take(step)?;
                let Lane { events, processes, tasks, row, .. } = turn.lane;
                let attempt = row.as_ref().map(|row| row.attempt);
                let outlived = tasks.iter_mut().filter(|task| task.is_stopped() && Some(task.attempt) < attempt);
                outlived.for_each(|task| *task = task.outlived());
                events.sort_unstable();
                processes.sort_by_cached_key(fingerprint);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promise::properties()
    }
}

impl Scenario {
    fn outcomes(&self, action: &Action, lane: &Lane, world: &World) -> Vec<Outcome> {
        // An outage of ECS.
        if world.outage && !matches!(action, Action::Notify(_)) {
            return vec![Outcome::Denied];
        }
        let mut outcomes = vec![Outcome::Answered];
        if world.faults == 0 {
            return outcomes;
        }
        match action {
            Action::RunTask(call) if self.is_sent(*call, world.now) => {
                outcomes.extend([true, false].map(|for_good| Outcome::Refused { for_good }));
                outcomes.push(Outcome::Unanswered { arrived: true });
                outcomes.push(Outcome::Denied);
                if self.policy.fallbacks > 0 {
                    outcomes.push(Outcome::NoCapacity { launched: false });
                }
                if self.launched_failures {
                    outcomes.push(Outcome::NoCapacity { launched: true });
                }
                if lane.token_answers(self.token(*call), *call, world.now).is_none() {
                    outcomes.push(Outcome::Unanswered { arrived: false });
                }
            }
            Action::LookUp(_) | Action::Describe { .. } => {
                outcomes.push(Outcome::Denied);
                if lane.tasks.iter().any(|task| task.is_new(world.now)) {
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

    fn is_sent(&self, call: Call, now: u8) -> bool {
        Self::at(now).since(call.claimed_at) <= Self::rules().timers.send_within
            || matches!(self.mutation, Some(Mutation::SentLate | Mutation::OrphanLeft))
    }

    fn token(&self, call: Call) -> u32 {
        const CALLS: u32 = 1_000;
        CALLS * u32::from(call.choice) + if self.has(Mutation::NewToken) { call.nth } else { 1 }
    }
}

impl Lane {
    /// The task that ECS returns for a client token.
    fn token_answers(&self, token: u32, call: Call, now: u8) -> Option<&EcsTask> {
        self.tasks.iter().find(|task| task.attempt == call.attempt && task.token == token && task.is_remembered(now))
    }
}

/// One submission's turn.
struct LaunchBy<'a> {
    scenario: &'a Scenario,
    now: u8,
    faults: &'a mut u8,
    outage: bool,
    lane: &'a mut Lane,
    broken: &'a mut Option<Promise>,
}

impl LaunchBy<'_> {
    /// Returns nothing if the step changes nothing, or is impossible.
    fn take(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Wait | Step::Outage => return None,
            Step::Submit { token, .. } => return self.submit(token),
            Step::Resubmit { .. } => {
                self.fault();
                return self.resubmit();
            }
            Step::Stop { stalls, .. } => {
                let stop = Hashed::new(Input::Stop("no longer needed".to_owned()));
                return self.settle(&stop, stalls, Caller::OnlyStops);
            }
            Step::Reconcile { stalls, .. } => return self.settle(&Hashed::new(Input::Due), stalls, Caller::Any),
            Step::Block { .. } => {
                self.fault();
                return self.settle(&Hashed::new(Input::NoCapacity), false, Caller::Any);
            }
            Step::LaunchBy { choice, stalls, .. } => {
                return self.settle(&Hashed::new(Input::LaunchBy(choice)), stalls, Caller::Any);
            }
            Step::Deliver { event, again, stalls, versioned, .. } => {
                let Event { task, .. } = self.lane.events.remove(event);
                if !versioned {
                    self.fault();
                }
                if again {
                    self.fault();
                    self.lane.events.push(Event { task, late: true });
                }
                let described = task.describe(self.scenario);
                let version = described.version.filter(|_| versioned);
                let seen = Hashed::new(Input::Seen(Task { version, ..described }));
                return self.settle(&seen, stalls, Caller::OnlyStops);
            }
            Step::Delay { event, .. } => {
                if !self.outage {
                    self.fault();
                }
                self.lane.events.get_mut(event)?.late = true;
            }
            Step::Task { task, change, .. } => self.change(task, change)?,
            Step::Act { process, outcome, .. } => {
                let Process { next: Next::Act(action), .. } = self.lane.processes.remove(process) else { return None };
                if outcome != Outcome::Answered && (!self.outage || matches!(*action, Action::Notify(_))) {
                    self.fault();
                }
                let learnt = self.act(&action, outcome);
                if !learnt.is_empty() {
                    self.go_on(Next::Learn(learnt.into_iter().map(Hashed::new).collect()));
                }
            }
            Step::Learn { process, stalls, .. } => {
                let Process { next: Next::Learn(mut inputs), .. } = self.lane.processes.remove(process) else {
                    return None;
                };
                let input = inputs.remove(0);
                if !inputs.is_empty() {
                    self.go_on(Next::Learn(inputs));
                }
                return self.settle(&input, stalls, Caller::Any);
            }
            Step::Write { process, .. } => match self.lane.processes.remove(process).next {
                Next::Write { input, next, action } => {
                    let before = self.lane.row.clone()?;
                    self.commit(&before, next, action.as_deref());
                    self.dealt_with(&before, &input, action);
                }
                Next::WriteTooLate(input) => return self.settle(&input, false, Caller::Any),
                Next::Act(_) | Next::Learn(_) => return None,
            },
            Step::Pause { process, .. } => {
                self.fault();
                self.lane.processes.get_mut(process)?.paused = true;
            }
        }
        Some(())
    }

    fn fault(&mut self) {
        // A step that needs a fault is only offered while one is left.
        *self.faults -= 1;
    }

    fn breaks(&mut self, promise: Promise, is_broken: bool) {
        if is_broken {
            self.broken.get_or_insert(promise);
        }
    }

    fn go_on(&mut self, next: Next) {
        self.lane.processes.push(Process { paused: false, next });
    }

    // The caller, and submit.

    /// The conditional put of a record. Where one exists already, the caller is answered with its state.
    fn submit(&mut self, token: bool) -> Option<()> {
        self.lane.submitted = true;
        if self.lane.row.is_some() {
            // A stop overtook it.
            self.settle(&self.resubmitted(), false, Caller::OnlyStops)?;
            return Some(());
        }
        let (now, rules) = (Scenario::at(self.now), Scenario::rules());
        let submission = self.scenario.submission();
        if !token {
            self.create(Record::queued(submission, now, &rules));
            return Some(());
        }
        let (record, call) = Record::launching(submission, now, &rules);
        self.breaks(Promise::StopIsFinal, call.is_some() && self.lane.stopped);
        if !self.scenario.has(Mutation::RunTaskBeforeRecord) {
            self.create(record);
        }
        if let Some(call) = call {
            self.go_on(Next::Act(Hashed::new(Action::RunTask(call))));
        }
        Some(())
    }

    /// The caller was not answered. Returns nothing if that changes nothing.
    fn resubmit(&mut self) -> Option<()> {
        let Some(row) = &self.lane.row else { return self.submit(true) };
        let rev = row.rev;
        self.settle(&self.resubmitted(), false, Caller::OnlyStops)?;
        self.lane.row.as_ref().filter(|row| row.rev > rev).map(|_| ())
    }

    fn resubmitted(&self) -> Hashed<Input> {
        Hashed::new(Input::Resubmitted(self.scenario.submission().notify))
    }

    /// A conditional put that finds no row.
    fn create(&mut self, record: Record) {
        self.check_row(&record);
        self.lane.row = Some(Hashed::row(record));
    }

    // The loop of every function: read, decide, write if unchanged, act.

    /// Reads the row and decides on `input`. The write follows at once, as another write between would only make this
    /// function read and decide again; or, where it `stalls`, at any time.
    fn settle(&mut self, input: &Hashed<Input>, stalls: bool, caller: Caller) -> Option<()> {
        let now = Scenario::at(self.now);
        let Some(row) = self.lane.row.clone() else {
            return self.settle_unknown(input, stalls);
        };
        let decision = self.scenario.decide(&row, input, now);
        if caller == Caller::OnlyStops {
            self.breaks(
                Promise::OnlyStops,
                !matches!(decision.action, None | Some(Action::Stop { .. } | Action::Notify(_))),
            );
        }
        let action = decision.action.map(Hashed::new);
        match decision.record {
            Some(next) if stalls => {
                self.fault();
                let next = Next::Write { input: input.clone(), next: Hashed::row(next), action };
                self.lane.processes.push(Process { paused: true, next });
            }
            None if stalls => return None,
            Some(next) => {
                self.commit(&row, Hashed::row(next), action.as_deref());
                self.dealt_with(&row, input, action);
            }
            None => self.dealt_with(&row, input, action),
        }
        Some(())
    }

    /// Without a row: a stop creates one, nothing else does.
    fn settle_unknown(&mut self, input: &Input, stalls: bool) -> Option<()> {
        let (now, rules) = (Scenario::at(self.now), Scenario::rules());
        match input {
            _ if stalls => return None,
            Input::Stop(reason) => {
                if !self.scenario.has(Mutation::StopForgotten) {
                    let id = self.scenario.submission().submission_id;
                    self.create(Record::tombstone(id, reason, now, &rules));
                }
                self.lane.stopped = true;
            }
            Input::Launch(call, _) if self.scenario.has(Mutation::RunTaskBeforeRecord) => {
                self.create(Record::launching(self.scenario.submission(), call.claimed_at, &rules).0);
                return self.settle(&Hashed::new(input.clone()), false, Caller::Any);
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

    fn commit(&mut self, before: &Record, next: Hashed<Record>, action: Option<&Action>) {
        self.check_row(&next);
        self.breaks(Promise::StopIsFinal, self.lane.stopped && matches!(action, Some(Action::RunTask(_))));
        promise::of_write(before, &next, |promise, is_broken| self.breaks(promise, is_broken));
        self.lane.row = Some(next);
        if !self.scenario.has(Mutation::NoVersionCheck) {
            for process in &mut self.lane.processes {
                if let Next::Write { input, .. } = &process.next {
                    process.next = Next::WriteTooLate(input.clone());
                }
            }
        }
    }

    /// `input` was decided on, with the row as it was `before`; the action follows.
    fn dealt_with(&mut self, before: &Record, input: &Input, action: Option<Hashed<Action>>) {
        match input {
            Input::Stop(_) => self.lane.stopped = true,
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
            self.go_on(Next::Act(action));
        }
    }

    // ECS.

    /// Calls ECS, and returns the inputs that follow.
    fn act(&mut self, action: &Action, outcome: Outcome) -> Vec<Input> {
        let now = Scenario::at(self.now);
        match action {
            Action::RunTask(call) => {
                let found = self.find_refused(*call);
                if found.is_empty() { vec![Input::Launch(*call, self.run_task(*call, outcome))] } else { found }
            }
            Action::LookUp(_) if outcome == Outcome::Denied => self.lookup_failed(),
            Action::LookUp(attempt) => {
                let found = self.lane.tasks.iter().filter(|task| task.attempt == *attempt);
                let found = found.filter(|task| task.is_remembered(self.now) && outcome != Outcome::Stale);
                let described = |task: &EcsTask| Task { at: None, ..task.describe(self.scenario) };
                let seen: Vec<_> = found.map(|task| Input::Seen(described(task))).collect();
                if seen.is_empty() { vec![Input::NotFound(*attempt, now)] } else { seen }
            }
            Action::Describe { task_arn } => self.describe(task_arn, outcome),
            Action::Notify(nth) => vec![Input::Delivered(self.notify(*nth, outcome))],
            Action::Stop { task_arn, then, .. } => {
                if let Some(task) = self.lane.task_of(task_arn).filter(|_| outcome != Outcome::Denied) {
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
    fn notify(&mut self, nth: u32, outcome: Outcome) -> Delivery {
        if matches!(outcome, Outcome::Answered | Outcome::Unanswered { arrived: true }) {
            let has_ended = self.lane.row.as_deref().is_some_and(|row| row.state.is_terminal());
            self.breaks(Promise::NotifiedTheEnd, !has_ended);
            // Each time but the last, a process stopped or an answer was lost.
            let faults = self.scenario.faults - *self.faults;
            self.breaks(Promise::NotifiedOnce, self.lane.notified > faults);
            self.lane.notified += 1;
        }
        Delivery { nth, event_bus: outcome == Outcome::Answered, ..Delivery::default() }
    }

    fn describe(&mut self, task_arn: &str, outcome: Outcome) -> Vec<Input> {
        if outcome == Outcome::Denied {
            return self.lookup_failed();
        }
        let (now, scenario) = (self.now, self.scenario);
        let known = self.lane.task_of(task_arn).filter(|task| task.is_remembered(now) && outcome != Outcome::Stale);
        vec![match known {
            Some(task) => Input::Seen(Task { at: None, ..task.describe(scenario) }),
            None => Input::Missing { task_arn: task_arn.to_owned(), at: Scenario::at(now), stop_sent: false },
        }]
    }

    fn lookup_failed(&self) -> Vec<Input> {
        let row = self.lane.row.iter();
        let reason = || "access denied".to_owned();
        row.map(|row| Input::LookupFailed { attempt: row.attempt, at: Scenario::at(self.now), reason: reason() })
            .collect()
    }

    /// The lookup before another request of an attempt that was refused: it finds what ECS knows by now.
    fn find_refused(&self, call: Call) -> Vec<Input> {
        let looks = self.lane.row.as_deref().is_some_and(|row| row.was_refused && row.attempt == call.attempt);
        if !looks || call.nth > 1 || !self.scenario.is_sent(call, self.now) {
            return vec![];
        }
        let found = self.lane.tasks.iter().filter(|task| task.attempt == call.attempt && !task.is_new(self.now));
        let found = found.filter(|task| task.is_remembered(self.now));
        found.map(|task| Input::Seen(Task { at: None, ..task.describe(self.scenario) })).collect()
    }

    fn run_task(&mut self, call: Call, outcome: Outcome) -> LaunchAnswer {
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
        if arrives && self.lane.token_answers(token, call, self.now).is_none() {
            let id = self.lane.tasks.len().try_into().unwrap_or(u8::MAX);
            let refused = matches!(outcome, Outcome::NoCapacity { .. });
            // What ECS refused and launched may not be found in time: then it is stopped as soon as it is seen.
            let others = |task: &EcsTask| task.attempt == call.attempt && !task.refused && !refused;
            self.breaks(Promise::OneTask, self.lane.tasks.iter().any(others));
            self.lane.tasks.push(EcsTask { refused, ..EcsTask::new(id, call.attempt, token, self.now) });
        }
        let task = self.lane.token_answers(token, call, self.now);
        match (outcome, task) {
            (Outcome::Answered | Outcome::Stale, Some(task)) => {
                LaunchAnswer::Task { arn: task.arn(self.scenario), live: task.is_live() && !task.to_stop }
            }
            (Outcome::Refused { for_good: true }, _) => LaunchAnswer::RefusedForGood("no such cluster".to_owned()),
            (Outcome::Refused { for_good: false }, _) => {
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

    fn change(&mut self, task: usize, change: Change) -> Option<()> {
        let others = self.lane.tasks.iter().enumerate().filter(|(other, _)| *other != task).map(|(_, other)| other);
        let ran: Vec<_> = others.filter(|other| other.ran).copied().collect();
        let it = self.lane.tasks.get_mut(task)?;
        let before = *it;
        it.change(change, self.now);
        let after = *it;
        if change == Change::SeemsToStop {
            self.lane.events.push(Event { task: after.seemingly_stopped(), late: false });
        } else if after.is_reported() {
            self.lane.events.push(Event { task: after.reported(), late: false });
        }
        if change == Change::Starts {
            let relaunches = !self.scenario.policy.relaunch_on.is_empty();
            let ran: Vec<_> = ran.into_iter().filter(|other| !other.refused && !after.refused).collect();
            self.breaks(Promise::OneTask, ran.iter().any(|other| other.attempt == after.attempt));
            self.breaks(Promise::NeverAgain, ran.iter().any(|other| !relaunches || !other.is_stopped()));
            self.breaks(Promise::Recorded, self.lane.row.is_none());
            let ended = |row: &Record| matches!(row.state, State::Rejected | State::Expired) && !after.refused;
            self.breaks(Promise::NeverStarted, self.lane.row.as_deref().is_some_and(ended));
        }
        if before.is_live() && !after.is_live() && !before.to_stop && before.ran {
            let abandoned = self.lane.row.as_deref().is_some_and(|row| {
                ended_without(row) && row.changed_at.is_some_and(|ended| ended < Scenario::at(self.now))
            });
            let nobody_saw = !self.lane.processes.is_empty() || self.lane.events.len() > 1;
            self.breaks(Promise::NothingLeft, abandoned && !nobody_saw && !self.outage);
        }
        Some(())
    }

    // Promises.

    fn check_row(&mut self, row: &Record) {
        promise::of_row(row, &Scenario::rules(), |promise, is_broken| self.breaks(promise, is_broken));

        if let Some(code) = row.exit_code {
            let arn = row.task_arn.as_deref().unwrap_or_default();
            let reported = self.lane.task_of(arn).filter(|task| task.attempt == row.attempt);
            let reported = reported.and_then(|task| task.exit_code());
            self.breaks(Promise::ExitCode, reported != Some(code));
        }

        let never_started = matches!(row.state, State::Rejected | State::Expired);
        self.breaks(
            Promise::NeverStarted,
            never_started && self.lane.tasks.iter().any(|task| !task.refused && (task.ran || task.is_live())),
        );

        // A submission that ends while its container lives has had its task stopped.
        let alive = row
            .task_arn
            .as_deref()
            .and_then(|arn| self.lane.task_of(arn))
            .is_some_and(|task| task.is_live() && !task.to_stop);
        let ends = ended_without(row) && self.lane.row.as_ref().is_some_and(|row| !row.state.is_terminal());
        // In an outage nothing can be stopped.
        self.breaks(Promise::NothingLeft, ends && alive && !self.outage);
    }

    fn check_seen(&mut self, before: &Record, seen: &Task, action: Option<&Action>) {
        let Some(task) = self.lane.task_of(&seen.arn) else { return };
        let heard = seen.version.map(|version| u8::try_from(version).unwrap_or(u8::MAX));
        if heard.is_some_and(|version| version <= task.heard) {
            return;
        }
        // An event without a version is no news of a live task, but its end counts.
        task.heard = heard.unwrap_or(task.heard);
        let its_own = before.attempt == seen.attempt
            && before.task_arn.as_deref().is_none_or(|arn| task_id(arn) == task_id(&seen.arn));
        if !its_own {
            return;
        }
        let name = CONTAINER;
        if ended_without(before) {
            let alive =
                heard.is_some() && seen.is_live(name) && before.exit_code.is_none() && before.stopped_at.is_none();
            return self.breaks(Promise::NothingLeft, alive && !matches!(action, Some(Action::Stop { .. })));
        }
        let ended = seen.is_stopped() || (!self.scenario.restarts && seen.exit_code(name).is_some());
        let waits_for_relaunch = self.scenario.spot && !seen.is_stopped() && seen.exit_code(name) != Some(0);
        let taken = self.lane.row.as_ref().is_some_and(|row| row.state.is_terminal() || row.attempt > seen.attempt);
        let asks_again = self.lane.row.as_ref().is_some_and(|row| row.asked_again);
        // It may be a task that was refused: RunTask's answer shows it.
        let may_be_refused = before.was_refused && before.state == State::Launching && seen.exit_code(name).is_none();
        let waits = waits_for_relaunch || asks_again || may_be_refused;
        self.breaks(Promise::EndIsHeard, ended && !taken && !waits);
    }
}

/// Whether a submission ended without the end of its container.
fn ended_without(row: &Record) -> bool {
    matches!(row.state, State::Lost | State::Cancelled | State::Expired | State::Rejected)
}

/// Which calls a function may make.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Any,
    OnlyStops,
}
