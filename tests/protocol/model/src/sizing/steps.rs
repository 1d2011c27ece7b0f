//! The steps of the world of pool sizing, and the model that lists and applies them.

use std::sync::Arc;

use ecs_bridge_core::pool::PoolRow;
use stateright::{Model, Property};

use super::{
    bug::SizingBug,
    promise::SizingPromise,
    scenario::{BUSY_UNTIL, PoolSizing},
    world::{IndexView, Round, RunnerState, SizingWorld, Submission},
};

/// A step of the world. Indexes refer to the lists of the state before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the comment of the enum explains the fields")]
pub enum SizingStep {
    /// Half a day passes.
    Wait,
    /// submit reads the profile, and makes sure that the pool's row has the key of the submission.
    RegisterKey { submission: usize },
    /// submit records the submission.
    Accept { submission: usize },
    /// The index catches up with the table.
    CatchUp,
    /// A round of sizing begins.
    BeginRound,
    /// A round runs its next step.
    RunRound { round: usize },
    /// A round is killed.
    KillRound { round: usize },
    /// A round writes the pool's row, gets no response, and ends.
    LoseResponse { round: usize },
    /// A runner polls for the first time.
    Start { runner: usize },
    /// A runner fails to start.
    StartFails { runner: usize },
    /// An idle runner claims a submission.
    Claim { runner: usize, submission: usize },
    /// A command exits.
    CommandExits { runner: usize },
    /// A runner that was closed exits.
    ClosedRunnerExits { runner: usize },
    /// A runner stops polling.
    FallSilent { runner: usize },
    /// A function is updated to the other version of the profile.
    Update { function: usize },
    /// The operator pauses the pool.
    Pause,
    /// The operator resumes the pool.
    Resume,
}

impl Model for PoolSizing {
    type State = SizingWorld;
    type Action = SizingStep;

    fn init_states(&self) -> Vec<SizingWorld> {
        vec![SizingWorld {
            now: 0,
            faults: self.faults,
            row: Arc::default(),
            taken: 0,
            submissions: vec![Submission::New; self.submissions],
            runners: Vec::new(),
            index: IndexView::default(),
            rounds: Vec::new(),
            is_round_due: true,
            versions: [0, 0],
            may_pause: self.pauses,
            broken: None,
        }]
    }

    fn actions(&self, world: &SizingWorld, steps: &mut Vec<SizingStep>) {
        if world.broken.is_some() {
            return;
        }
        // The steps that must happen before time passes.
        for (submission, it) in world.submissions.iter().enumerate() {
            if matches!(it, Submission::KeyRegistered(_)) {
                steps.push(SizingStep::Accept { submission });
            }
        }
        for round in 0..world.rounds.len() {
            steps.push(SizingStep::RunRound { round });
        }
        if world.is_round_due && world.rounds.len() < 2 {
            steps.push(SizingStep::BeginRound);
        }
        if world.index != world.index_view() {
            steps.push(SizingStep::CatchUp);
        }
        for (index, runner) in world.runners.iter().enumerate() {
            match runner.state {
                RunnerState::Starting => steps.push(SizingStep::Start { runner: index }),
                RunnerState::Busy(_) => steps.push(SizingStep::CommandExits { runner: index }),
                RunnerState::Closing if !runner.is_silent => {
                    steps.push(SizingStep::ClosedRunnerExits { runner: index })
                }
                RunnerState::Idle if !runner.is_silent && !world.row.paused => {
                    let is_of = |it: &Submission| matches!(it, Submission::Waiting { version, .. } if *version == runner.version);
                    let first = world.submissions.iter().position(is_of);
                    steps.extend(first.map(|submission| SizingStep::Claim { runner: index, submission }));
                }
                RunnerState::Idle | RunnerState::Closing | RunnerState::Ended => {}
            }
        }
        let is_busy = world.now < BUSY_UNTIL;
        if world.row.paused {
            steps.push(SizingStep::Resume);
        }
        if steps.is_empty() && world.now < self.horizon() {
            steps.push(SizingStep::Wait);
        }
        // The steps that can happen in addition. A pause can last until the end of the busy ticks.
        if world.row.paused && is_busy && steps.iter().all(|step| *step == SizingStep::Resume) {
            steps.push(SizingStep::Wait);
        }
        if is_busy {
            // New submissions are interchangeable, so only the first is offered.
            let next = world.submissions.iter().position(|it| *it == Submission::New);
            steps.extend(next.map(|submission| SizingStep::RegisterKey { submission }));
            if world.may_pause && !world.row.paused && world.row.rev > 0 {
                steps.push(SizingStep::Pause);
            }
            let old = |function: &usize| self.changes && world.versions.get(*function) == Some(&0);
            steps.extend((0..2).filter(old).map(|function| SizingStep::Update { function }));
        }
        if world.faults > 0 {
            for (round, it) in world.rounds.iter().enumerate() {
                steps.push(SizingStep::KillRound { round });
                if matches!(it, Round::Claim { .. }) {
                    steps.push(SizingStep::LoseResponse { round });
                }
            }
            for (runner, it) in world.runners.iter().enumerate() {
                match it.state {
                    RunnerState::Starting => steps.push(SizingStep::StartFails { runner }),
                    RunnerState::Idle if !it.is_silent => steps.push(SizingStep::FallSilent { runner }),
                    RunnerState::Idle | RunnerState::Busy(_) | RunnerState::Closing | RunnerState::Ended => {}
                }
            }
        }
    }

    fn next_state(&self, world: &SizingWorld, step: SizingStep) -> Option<SizingWorld> {
        let mut world = world.clone();
        match step {
            SizingStep::Wait => world.advance(),
            SizingStep::RegisterKey { submission } => {
                let [version, _] = world.versions;
                let (key, spec) = self.spec(version);
                let mut row = PoolRow::clone(&world.row);
                if !self.has(SizingBug::KeyNotRegistered) && row.keep(&key, &spec) {
                    row.rev += 1;
                    world.row = Arc::new(row);
                }
                *world.submissions.get_mut(submission)? = Submission::KeyRegistered(version);
            }
            SizingStep::Accept { submission } => {
                let it = world.submissions.get_mut(submission)?;
                let Submission::KeyRegistered(version) = *it else { return None };
                *it = Submission::Waiting { version, since: world.now };
                world.is_round_due = true;
            }
            SizingStep::CatchUp => world.index = world.index_view(),
            SizingStep::BeginRound => {
                world.is_round_due = false;
                let [_, version] = world.versions;
                world.rounds.push(Round::Read { before: Arc::clone(&world.row), version });
            }
            SizingStep::RunRound { round } => {
                let round = world.rounds.remove(round);
                world.run_round(self, round);
            }
            SizingStep::KillRound { round } => {
                world.faults -= 1;
                world.rounds.remove(round);
            }
            SizingStep::LoseResponse { round } => {
                world.faults -= 1;
                if let Round::Claim { before, after, .. } = world.rounds.remove(round) {
                    world.claim(self, &before, &after);
                }
            }
            SizingStep::Start { runner } => {
                let now = world.now;
                let it = world.runners.get_mut(runner)?;
                (it.state, it.polled_at) = (RunnerState::Idle, Some(now));
            }
            SizingStep::StartFails { runner } => {
                world.faults -= 1;
                world.end_runner(runner);
            }
            SizingStep::Claim { runner, submission } => {
                *world.submissions.get_mut(submission)? = Submission::Claimed;
                world.runners.get_mut(runner)?.state = RunnerState::Busy(submission);
                world.taken += 1;
            }
            SizingStep::CommandExits { runner } => {
                let it = world.runners.get_mut(runner)?;
                let RunnerState::Busy(submission) = it.state else { return None };
                (it.state, it.served) = (RunnerState::Idle, it.served + 1);
                let is_used_up = it.served >= self.commands;
                *world.submissions.get_mut(submission)? = Submission::Ended;
                if is_used_up {
                    world.end_runner(runner);
                }
            }
            SizingStep::ClosedRunnerExits { runner } => world.end_runner(runner),
            SizingStep::FallSilent { runner } => {
                world.faults -= 1;
                world.runners.get_mut(runner)?.is_silent = true;
            }
            SizingStep::Update { function } => *world.versions.get_mut(function)? = 1,
            SizingStep::Pause | SizingStep::Resume => {
                world.may_pause = false;
                let mut row = PoolRow::clone(&world.row);
                (row.paused, row.rev) = (step == SizingStep::Pause, row.rev + 1);
                world.row = Arc::new(row);
            }
        }
        if world.now >= self.horizon()
            && world.rounds.is_empty()
            && !world.is_round_due
            && world.index == world.index_view()
        {
            let waits = |it: &Submission| matches!(it, Submission::Waiting { .. });
            let runs = world.runners.iter().any(|runner| {
                matches!(runner.state, RunnerState::Starting | RunnerState::Busy(_) | RunnerState::Closing)
            });
            let is_served = !world.submissions.iter().any(waits);
            let idle = world.runners.iter().filter(|runner| runner.state == RunnerState::Idle).count();
            // The pool also keeps as many idle runners as were busy at once during the last 15 ticks.
            let kept = (self.min_idle as usize).max(self.submissions).min(self.max as usize);
            world.break_if(SizingPromise::Served, !runs && !is_served);
            world.break_if(SizingPromise::IdleLimit, !runs && is_served && idle > kept);
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! kept {
            ($($promise:ident)*) => {
                vec![$(Property::always(SizingPromise::$promise.name(), |_, world: &SizingWorld| {
                    world.broken != Some(SizingPromise::$promise)
                })),*]
            };
        }
        kept!(NotAboveMax Served IdleLimit Paused)
    }
}
