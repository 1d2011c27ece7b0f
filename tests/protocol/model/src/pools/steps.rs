//! The steps of the world of pools, and the model that lists and applies them.

use std::sync::Arc;

use ecs_bridge_core::{Input, Record, record::Submission};
use stateright::{Model, Property};

use super::{
    function::{Function, Poll, PollStep, Row},
    promise::PoolPromise,
    scenario::Pools,
    world::{PoolWorld, Program},
};
use crate::scenario::Scenario;

/// The tick at which no step may be left.
const HORIZON: u8 = 24;

/// The last tick at which a runner starts.
const UP_BY: u8 = 4;

/// The exit code of a command that ends on SIGTERM: 128 + 15.
const TERMINATED: i32 = 143;

/// A step of the world. Indexes refer to the lists of the state before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the comment of the enum explains the fields")]
pub enum PoolStep {
    /// Time passes.
    Wait,
    /// A program polls runner-api, and reports its result.
    Poll { runner: usize },
    /// A program starts late.
    Start { runner: usize },
    /// A program no longer waits for a response, which can still arrive.
    AbandonPoll { runner: usize },
    /// A second process of a runner polls.
    SecondProcess { runner: usize },
    /// A command exits.
    CommandExits { runner: usize, code: i32 },
    /// A program that received SIGTERM exits.
    ProgramExits { runner: usize },
    /// A program is killed. Its container ends, or restarts the program.
    ProgramKilled { runner: usize, restarts: bool },
    /// ECS reclaims the capacity of a runner.
    SpotNotice { runner: usize },
    /// The caller requests a stop.
    RequestStop { submission: usize },
    /// reconcile handles a row that is due.
    HandleDue { row: usize },
    /// An event reaches task-state.
    DeliverEvent { event: usize },
    /// An event is lost.
    LoseEvent { event: usize },
    /// A function runs its next step. `choice` is the index of a waiting submission.
    RunFunction { function: usize, choice: usize },
    /// A function is killed.
    KillFunction { function: usize },
}

impl Model for Pools {
    type State = PoolWorld;
    type Action = PoolStep;

    fn init_states(&self) -> Vec<PoolWorld> {
        let (now, rules) = (Scenario::at(0), Scenario::rules());
        let key = self.pool().0;
        let waiting = (0..self.submissions).map(|row| {
            let submission = Submission { pool: Some(key.clone()), ..self.submission(row) };
            Arc::new(Record::queued(submission, now, &rules))
        });
        let runners = (0..self.runners).map(|runner| Arc::new(self.launched(runner)));
        vec![PoolWorld {
            now: 0,
            faults: self.faults,
            harmed: false,
            rows: waiting.chain(runners).collect(),
            programs: vec![Program { is_up: self.deadline.is_none(), version: 1, ..Program::default() }; self.runners],
            functions: Vec::new(),
            events: Vec::new(),
            starts: vec![Vec::new(); self.submissions],
            codes: vec![Vec::new(); self.submissions],
            stops_requested: vec![false; self.submissions],
            broken: None,
        }]
    }

    fn actions(&self, world: &PoolWorld, steps: &mut Vec<PoolStep>) {
        if world.broken.is_some() {
            return;
        }
        let faulty = world.faults > 0;
        for (runner, program) in world.programs.iter().enumerate().filter(|(_, program)| program.ended.is_none()) {
            if !program.is_up {
                steps.push(PoolStep::Start { runner });
                continue;
            }
            let is_idle = program.command.is_none() && !program.is_polling;
            if is_idle && world.is_busy(self, runner) && !(program.signalled && program.done.is_none()) {
                steps.push(PoolStep::Poll { runner });
            }
            if program.signalled && is_idle && program.done.is_none() {
                steps.push(PoolStep::ProgramExits { runner });
                if program.started.is_empty() && world.faults == self.faults {
                    // A program can poll again before it exits.
                    steps.push(PoolStep::Poll { runner });
                }
            }
            match (program.command, program.signalled) {
                (Some(_), false) => steps.extend([0, 7].map(|code| PoolStep::CommandExits { runner, code })),
                (Some(_), true) => steps.push(PoolStep::CommandExits { runner, code: TERMINATED }),
                (None, _) => {}
            }
            if self.spot && !program.spot {
                steps.push(PoolStep::SpotNotice { runner });
            }
            if faulty {
                steps.extend([false, true].map(|restarts| PoolStep::ProgramKilled { runner, restarts }));
                steps.push(PoolStep::SecondProcess { runner });
                if program.is_polling {
                    steps.push(PoolStep::AbandonPoll { runner });
                }
            }
        }
        if self.stops {
            let stops = world.stops_requested.iter().enumerate().filter(|(_, requested)| !**requested);
            steps.extend(stops.map(|(submission, _)| PoolStep::RequestStop { submission }));
        }
        for event in 0..world.events.len() {
            steps.push(PoolStep::DeliverEvent { event });
            if faulty {
                steps.push(PoolStep::LoseEvent { event });
            }
        }
        for (function, it) in world.functions.iter().enumerate() {
            let is_choice = matches!(it, Function::RunnerApi(_, PollStep::Choose(..)));
            let waiting = (0..self.submissions).filter(|submission| world.is_waiting(*submission)).count();
            let choices = if is_choice { waiting.max(1) } else { 1 };
            steps.extend((0..choices).map(|choice| PoolStep::RunFunction { function, choice }));
            if faulty {
                steps.push(PoolStep::KillFunction { function });
            }
        }
        if world.is_at_rest(self) {
            let at = Scenario::at(world.now);
            let due = |row: &Row| row.check_at.is_some_and(|check_at| check_at <= at);
            let rows = world.rows.iter().enumerate().filter(|(_, row)| due(row)).map(|(row, _)| row);
            let before = steps.len();
            steps.extend(rows.map(|row| PoolStep::HandleDue { row }));
            let must_start = world.now >= UP_BY && world.programs.iter().any(|program| !program.is_up);
            if steps.len() == before && world.now < HORIZON && !must_start {
                steps.push(PoolStep::Wait);
            }
        }
    }

    fn next_state(&self, world: &PoolWorld, step: PoolStep) -> Option<PoolWorld> {
        let mut world = world.clone();
        match step {
            PoolStep::Wait => {
                world.now += 1;
                world.poll_idle(self);
            }
            PoolStep::Start { runner } => world.programs.get_mut(runner)?.is_up = true,
            PoolStep::Poll { runner } => {
                let program = world.programs.get_mut(runner)?;
                program.is_polling = true;
                let Program { incarnation, signalled, done, .. } = *program;
                let poll = Poll { runner, incarnation, stopping: signalled, done, is_awaited: true };
                let row = world.rows.get(self.submissions + runner)?.clone();
                world.functions.push(Function::RunnerApi(poll, PollStep::RecordResult(row)));
            }
            PoolStep::AbandonPoll { runner } => {
                world.faults -= 1;
                let program = world.programs.get_mut(runner)?;
                program.is_polling = false;
                for function in &mut world.functions {
                    if let Function::RunnerApi(poll, _) = function
                        && (poll.runner, poll.incarnation) == (runner, program.incarnation)
                    {
                        poll.is_awaited = false;
                    }
                }
            }
            PoolStep::SecondProcess { runner } => {
                (world.faults, world.harmed) = (world.faults - 1, true);
                // The incarnation is a new one each time.
                let incarnation = 100 + world.faults;
                let poll = Poll { runner, incarnation, stopping: false, done: None, is_awaited: true };
                let row = world.rows.get(self.submissions + runner)?.clone();
                world.functions.push(Function::RunnerApi(poll, PollStep::RecordResult(row)));
            }
            PoolStep::CommandExits { runner, code } => {
                let program = world.programs.get_mut(runner)?;
                let submission = program.command.take()?;
                program.done = Some((submission, code));
                world.codes.get_mut(submission)?.push(code);
            }
            PoolStep::ProgramExits { runner } => world.end_container(runner, 0),
            PoolStep::ProgramKilled { runner, restarts } => {
                (world.faults, world.harmed) = (world.faults - 1, true);
                if restarts {
                    let program = world.programs.get_mut(runner)?;
                    let Program { is_up, incarnation, version, spot, signalled, .. } = *program;
                    let incarnation = incarnation + 1;
                    *program = Program { is_up, incarnation, version, spot, signalled, ..Program::default() };
                } else {
                    world.end_container(runner, 137);
                }
            }
            PoolStep::SpotNotice { runner } => {
                world.harmed = true;
                let program = world.programs.get_mut(runner)?;
                (program.spot, program.signalled, program.version) = (true, true, program.version + 1);
                let task = world.task(runner)?;
                world.events.push((runner, task));
            }
            PoolStep::RequestStop { submission } => {
                *world.stops_requested.get_mut(submission)? = true;
                let read = world.rows.get(submission)?.clone();
                world.functions.push(Function::Apply {
                    row: submission,
                    read,
                    input: Input::Stop("enough".to_owned()),
                });
            }
            PoolStep::HandleDue { row } => {
                let read = world.rows.get(row)?.clone();
                world.functions.push(Function::Apply { row, read, input: Input::Due });
            }
            PoolStep::DeliverEvent { event } => {
                let (runner, task) = world.events.remove(event);
                let read = world.rows.get(self.submissions + runner)?.clone();
                world.functions.push(Function::Seen { runner, read, task, is_reported: false });
            }
            PoolStep::LoseEvent { event } => {
                world.faults -= 1;
                world.events.remove(event);
            }
            PoolStep::RunFunction { function, choice } => {
                let function = world.functions.remove(function);
                world.run(self, function, choice);
            }
            PoolStep::KillFunction { function } => {
                world.faults -= 1;
                // A program that waited for its response gets none.
                if let Function::RunnerApi(poll, _) = world.functions.remove(function)
                    && poll.is_awaited
                {
                    let program = world.programs.get_mut(poll.runner)?;
                    program.is_polling &= program.incarnation != poll.incarnation;
                }
            }
        }
        let is_over = world.is_at_rest(self) && world.now >= HORIZON;
        let is_unsettled = is_over && !world.is_settled(self);
        world.break_if(PoolPromise::Settled, is_unsettled);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! kept {
            ($($promise:ident)*) => {
                vec![$(Property::always(PoolPromise::$promise.name(), |_, world: &PoolWorld| {
                    world.broken != Some(PoolPromise::$promise)
                })),*]
            };
        }
        kept!(OneStart UnclaimedNotFailed StopAffectsOnlyTarget Final ExitCode EndsAfterCommand Started NoCommandWhileStopping Request Settled)
    }
}
