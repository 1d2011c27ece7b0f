//! How many runners a pool has, in a small world: rounds of reconcile that overlap and die, an index that lags, runners
//! that fail to start, die or are interrupted, a profile that changes in either order of functions, and a pause.
//!
//! Counting and deciding are the real ones, on the real row of the pool; each read and each write of a round is a step of
//! its own. Commands are the other world's ([`Pools`](crate::Pools)): here a runner that is idle takes what waits.
//!
//! A tick is half a day, as a pool key is kept for a day after its last use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ecs_bridge_core::{
    ProfileName, Record, Rules, State, SubmissionId, Timers, Timestamp,
    pool::{Batch, Count, Incarnation, Phase, Pool, PoolKey, PoolRow, RunnerApiAddress, Sizing, Spec, Takes},
    profile::Policy,
    run_task::FrozenRequest,
};
use serde_json::{Map, json};
use stateright::{Model, Property};

use crate::scenario::{CONTAINER, Scenario};

const TICK: Duration = Duration::from_secs(43_200);

/// The time of the first tick: a whole number of ticks, so that the minutes of the pool's row are ticks.
const EPOCH_MS: u64 = 41_660 * 43_200_000;

/// The last tick at which anything is submitted, changed or paused.
const BUSY_UNTIL: u8 = 3;

/// A world of one pool to check.
#[derive(Clone, Copy, Debug)]
pub struct PoolSizing {
    /// How many submissions there are.
    pub submissions: usize,
    /// How many runners the pool has at most.
    pub max: u32,
    /// How many idle ones it keeps.
    pub min_idle: u32,
    /// How many commands a container runs.
    pub commands: u32,
    /// How many faults may happen.
    pub faults: u8,
    /// The profile changes once, in submit and in reconcile at different moments.
    pub changes: bool,
    /// An operator may pause the pool, and resumes it.
    pub pauses: bool,
    /// The seeded bug.
    pub bug: Option<SizingBug>,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizingBug {
    /// A submission is accepted although the pool's row does not have what its runners are launched with.
    KeyNotKept,
    /// A pool key is forgotten although submissions wait under it.
    KeyForgotten,
    /// The ids of runners are not written before the runners are created.
    BatchNotWritten,
    /// A round writes the pool's row whatever that has become.
    ClaimedUnconditionally,
    /// Idle runners of another version of the profile keep their places.
    NoRoomMade,
    /// The ids of runners are forgotten as soon as those have asked, though the index may not show them yet.
    BatchForgottenEarly,
    /// A paused pool launches runners.
    PauseIgnored,
}

impl SizingBug {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::KeyNotKept,
        Self::KeyForgotten,
        Self::BatchNotWritten,
        Self::ClaimedUnconditionally,
        Self::NoRoomMade,
        Self::BatchForgottenEarly,
        Self::PauseIgnored,
    ];
}

/// A promise about the size of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SizingPromise {
    /// There are never more runners than the pool may have.
    NotAboveMax,
    /// With nothing left to happen, no submission waits.
    Served,
    /// With nothing left to happen, no more runners are idle than the pool keeps.
    NoneTooMany,
    /// A paused pool creates no runner.
    Paused,
}

impl SizingPromise {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NotAboveMax, Self::Served, Self::NoneTooMany, Self::Paused];

    /// Its property's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAboveMax => "a pool has no more runners than its maximum",
            Self::Served => "with nothing left to happen, no submission waits",
            Self::NoneTooMany => "with nothing left to happen, no more runners are idle than the pool keeps",
            Self::Paused => "a paused pool creates no runner",
        }
    }
}

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SizingWorld {
    now: u8,
    faults: u8,
    row: Arc<PoolRow>,
    taken: u64,
    submissions: Vec<Submission>,
    runners: Vec<Runner>,
    /// What the index shows of both.
    shown: Shown,
    rounds: Vec<Round>,
    /// A round is to begin: by the schedule, or as submit has woken reconcile.
    is_due: bool,
    /// The version of the profile in submit, and in reconcile.
    versions: [usize; 2],
    may_pause: bool,
    broken: Option<SizingPromise>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Submission {
    New,
    /// submit has made sure that its key can be served.
    Kept(usize),
    Waiting {
        version: usize,
        since: u8,
    },
    Taken,
    Ended,
}

/// A runner whose row exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Runner {
    id: SubmissionId,
    version: usize,
    is: Is,
    served: u32,
    created_at: u8,
    polled_at: Option<u8>,
    ended_at: u8,
    /// It asks no more, and nobody knows.
    is_silent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Is {
    Starting,
    Idle,
    Busy(usize),
    Closing,
    Ended,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Shown {
    waiting: Vec<usize>,
    runners: Vec<usize>,
}

/// A round of sizing, and what it does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Round {
    /// It has read the pool's row, and reads the index and the runners.
    Look { before: Arc<PoolRow>, version: usize },
    /// It writes what it has decided to the pool's row.
    Claim { before: Arc<PoolRow>, after: Arc<PoolRow>, close: Vec<SubmissionId>, known: BTreeSet<SubmissionId> },
    /// It creates the runners of the row that it has not seen.
    Create { row: Arc<PoolRow>, close: Vec<SubmissionId>, known: BTreeSet<SubmissionId> },
    /// It closes idle runners.
    Close(Vec<SubmissionId>),
}

/// Something that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are places in the lists of the state before")]
pub enum SizingStep {
    /// Half a day passes.
    Wait,
    /// submit reads the profile and the pool's row, for a submission.
    Keep { submission: usize },
    /// submit records it.
    Accept { submission: usize },
    /// The index catches up with the table.
    CatchUp,
    /// A round of sizing begins.
    Begin,
    /// A round goes on.
    Go { round: usize },
    /// A round dies.
    Drop { round: usize },
    /// A round writes the pool's row, gets no answer, and ends.
    Unanswered { round: usize },
    /// A runner asks for the first time.
    Start { runner: usize },
    /// A runner fails to start.
    Fail { runner: usize },
    /// An idle runner takes a submission.
    Take { runner: usize, submission: usize },
    /// A command ends.
    Return { runner: usize },
    /// A runner that was closed ends.
    Leave { runner: usize },
    /// A runner asks no more.
    FallSilent { runner: usize },
    /// A function is updated to the other version of the profile.
    Update { function: usize },
    /// The operator pauses the pool.
    Pause,
    /// And resumes it.
    Resume,
}

impl PoolSizing {
    /// Two submissions, and a pool of one runner with a command.
    pub const fn new(faults: u8) -> Self {
        Self { submissions: 2, max: 1, min_idle: 0, commands: 1, faults, changes: false, pauses: false, bug: None }
    }

    /// The tick at which everything that was submitted must have ended: a runner that dies silently holds its place for
    /// four.
    fn horizon(&self) -> u8 {
        2 * BUSY_UNTIL + 4 * self.faults
    }

    fn has(&self, bug: SizingBug) -> bool {
        self.bug == Some(bug)
    }

    fn rules() -> Rules {
        let ticks = |count: u32| TICK * count;
        let timers = Timers {
            minute: TICK,
            index_lag: TICK,
            passed_over: ticks(1),
            silent_after: ticks(3),
            runner_counted: ticks(4),
            runner_launch: ticks(4),
            head_start: Duration::ZERO,
            ..Timers::default()
        };
        Rules { timers, ..Scenario::rules() }
    }

    fn at(tick: u8) -> Timestamp {
        Timestamp::from_millis(EPOCH_MS).plus(TICK * tick.into())
    }

    /// A version of the profile, as reconcile reads it.
    fn spec(&self, version: usize) -> (PoolKey, Spec) {
        let pool = json!({"max": self.max, "min_idle": self.min_idle, "commands_per_container": self.commands});
        // It is a pool, by construction.
        let pool: Pool = serde_json::from_value(pool).unwrap_or_else(|_| unreachable!());
        let run_task = Map::from_iter([("taskDefinition".to_owned(), json!(format!("etl:{version}")))]);
        let key = PoolKey::of(&ProfileName::default_profile(), std::slice::from_ref(&run_task), CONTAINER, &pool);
        let spec = Spec {
            run_task: FrozenRequest::freeze(&[run_task]),
            container_name: CONTAINER.to_owned(),
            cluster: "nightly".to_owned(),
            policy: Policy::default(),
            pool,
            doorbell: None,
        };
        (key, spec)
    }

    /// The row of a runner, as far as sizing reads it.
    fn record(&self, runner: &Runner) -> Record {
        let (key, spec) = self.spec(runner.version);
        let of = (runner.id.clone(), key, ProfileName::default_profile());
        let work = RunnerApiAddress::Function("runner-api".to_owned());
        let created = spec.runner(of, "secret", &work, Self::at(runner.created_at), &Self::rules());
        // The request was frozen above.
        let mut record = created.unwrap_or_else(|_| unreachable!());
        let has_asked = runner.polled_at.is_some();
        record.state = match (runner.is, has_asked) {
            (Is::Starting, _) => State::Launched,
            (Is::Idle | Is::Busy(_) | Is::Closing, _) => State::Running,
            (Is::Ended, true) => State::Succeeded,
            (Is::Ended, false) => State::Failed,
        };
        record.changed_at = record.state.is_terminal().then(|| Self::at(runner.ended_at));
        record.started_at = has_asked.then(|| Self::at(runner.created_at));
        if let Some(part) = &mut record.runner {
            part.closing = runner.is == Is::Closing;
            part.polled_at = runner.polled_at.map(Self::at);
            part.incarnation = has_asked.then(|| Incarnation::try_from("process-1".to_owned()).ok()).flatten();
            // Whichever it is.
            part.serves = matches!(runner.is, Is::Busy(_)).then(|| runner.id.clone());
        }
        record
    }

    /// What a round finds: what waits and runs under each key, the runners that were created lately, and idle ones.
    fn look(&self, world: &SizingWorld, row: &PoolRow) -> (BTreeMap<PoolKey, Seen>, Vec<Record>) {
        let (now, timers) = (Self::at(world.now), Self::rules().timers);
        let mut by_key: BTreeMap<_, Seen> = row.specs.keys().map(|key| (key.clone(), Seen::default())).collect();
        for submission in &world.shown.waiting {
            // The index has the attributes of the row as it was; only waiting rows are in it.
            if let Some(Submission::Waiting { version, since }) = world.submissions.get(*submission)
                && let Some(seen) = by_key.get_mut(&self.spec(*version).0)
            {
                seen.count.waiting(Self::at(*since), now, &timers);
            }
        }
        let lately: BTreeSet<SubmissionId> = row.batches.iter().flat_map(Batch::ids).collect();
        let shown = world.shown.runners.iter().filter_map(|runner| world.runners.get(*runner));
        let ids: BTreeSet<_> = shown.map(|runner| &runner.id).chain(&lately).collect();
        let mut created_lately = Vec::new();
        for runner in world.runners.iter().filter(|runner| ids.contains(&runner.id)) {
            let record = self.record(runner);
            if let (false, Some(part)) = (record.state.is_terminal(), &record.runner)
                && let Some(seen) = by_key.get_mut(&part.key)
            {
                let phase = part.phase(now, &timers);
                seen.count.runner(phase);
                if phase == Phase::Idle {
                    seen.idle.push(runner.id.clone());
                }
            }
            if lately.contains(&runner.id) {
                created_lately.push(record);
            }
        }
        let found: BTreeSet<_> = created_lately.iter().map(|record| &record.submission_id).collect();
        for batch in &row.batches {
            let missing = batch.ids().iter().filter(|id| !found.contains(id)).count();
            if let Some(seen) = by_key.get_mut(&batch.key) {
                (0..missing).for_each(|_| seen.count.runner(Phase::Starting));
            }
        }
        (by_key, created_lately)
    }

    /// What a round decides by what it finds.
    fn decide(&self, world: &SizingWorld, before: Arc<PoolRow>, version: usize) -> Round {
        let now = Self::at(world.now);
        let mut row = PoolRow::clone(&before);
        let current = self.spec(version);
        row.set_current(Some(&current));
        let (mut seen, lately) = self.look(world, &row);
        let counts: Vec<_> = seen.iter().map(|(key, seen)| (key, seen.count)).collect();
        let paused = row.paused;
        row.paused &= !self.has(SizingBug::PauseIgnored);
        let takes = Takes { taken: world.taken, found_idle: 0 };
        let mut timers = Self::rules().timers;
        if self.has(SizingBug::BatchForgottenEarly) {
            timers.index_lag = Duration::ZERO;
        }
        let (sizes, spare) = row.plan(&counts, &lately, takes, now, &timers);
        (row.paused, row.spare) = (paused, spare);
        let (mut close, mut batches) = (Vec::new(), Vec::new());
        for ((key, seen), Sizing { create, close: some, excess }) in seen.iter_mut().zip(sizes) {
            let excess = if self.has(SizingBug::NoRoomMade) { 0 } else { excess };
            if create > 0 {
                // As unlikely to be another round's as a random number.
                let number = u128::from(row.rev + 1) << 96 | u128::from(world.now) << 64 | (version as u128) << 40;
                batches.push(Batch::new(number, create, key.clone(), now));
            }
            // Half a day is longer than any `idle_timeout`.
            seen.idle.truncate(some.max(excess) as usize);
            close.append(&mut seen.idle);
        }
        row.batches.extend(batches);
        let forgets = self.has(SizingBug::KeyForgotten);
        row.forget_keys(now, |key| {
            let uses = |seen: &Seen| seen.count.alive + if forgets { 0 } else { seen.count.waiting };
            *key == current.0 || seen.get(key).is_some_and(|seen| uses(seen) > 0)
        });
        row.rev += u64::from(row != *before);
        let known = lately.into_iter().map(|record| record.submission_id).collect();
        Round::Claim { before, after: Arc::new(row), close, known }
    }
}

/// What is there under one key.
#[derive(Default)]
struct Seen {
    count: Count,
    idle: Vec<SubmissionId>,
}

impl SizingWorld {
    fn break_if(&mut self, promise: SizingPromise, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    fn truth(&self) -> Shown {
        let is_waiting = |it: &&Submission| matches!(it, Submission::Waiting { .. });
        let places = |all: &[bool]| all.iter().enumerate().filter(|(_, is)| **is).map(|(place, _)| place).collect();
        Shown {
            waiting: places(&self.submissions.iter().map(|it| is_waiting(&it)).collect::<Vec<_>>()),
            runners: places(&self.runners.iter().map(|it| it.is != Is::Ended).collect::<Vec<_>>()),
        }
    }

    fn alive(&self) -> usize {
        self.runners.iter().filter(|runner| runner.is != Is::Ended).count()
    }

    /// Writes a round's row, if that is still as it was read. Returns whether it is.
    fn claim(&mut self, sizing: &PoolSizing, before: &Arc<PoolRow>, after: &Arc<PoolRow>) -> bool {
        if before == after {
            return true;
        }
        if self.row.rev != before.rev && !sizing.has(SizingBug::ClaimedUnconditionally) {
            return false;
        }
        let mut written = PoolRow::clone(after);
        if sizing.has(SizingBug::BatchNotWritten) {
            written.batches.clear();
        }
        self.row = Arc::new(written);
        true
    }

    fn go(&mut self, sizing: &PoolSizing, round: Round) {
        match round {
            Round::Look { before, version } => {
                let next = sizing.decide(self, before, version);
                self.rounds.push(next);
            }
            Round::Claim { before, after, close, known } => {
                if self.claim(sizing, &before, &after) {
                    self.rounds.push(Round::Create { row: after, close, known });
                }
            }
            Round::Create { row, close, known } => {
                let may_create = !row.paused || sizing.has(SizingBug::PauseIgnored);
                for batch in row.batches.iter().filter(|_| may_create) {
                    let Some(version) = (0..2).find(|version| sizing.spec(*version).0 == batch.key) else { continue };
                    if !row.specs.contains_key(&batch.key) {
                        continue;
                    }
                    for id in batch.ids() {
                        if known.contains(&id) || self.runners.iter().any(|runner| runner.id == id) {
                            continue;
                        }
                        let (created_at, is) = (self.now, Is::Starting);
                        let (served, polled_at, ended_at, is_silent) = (0, None, 0, false);
                        self.runners.push(Runner {
                            id,
                            version,
                            is,
                            served,
                            created_at,
                            polled_at,
                            ended_at,
                            is_silent,
                        });
                        let is_too_many = self.alive() > sizing.max as usize;
                        self.break_if(SizingPromise::NotAboveMax, is_too_many);
                        self.break_if(SizingPromise::Paused, row.paused);
                    }
                }
                if !close.is_empty() {
                    self.rounds.push(Round::Close(close));
                }
            }
            Round::Close(close) => {
                for runner in self.runners.iter_mut().filter(|runner| close.contains(&runner.id)) {
                    if runner.is == Is::Idle {
                        runner.is = Is::Closing;
                    }
                }
            }
        }
    }

    fn end(&mut self, runner: usize) {
        let now = self.now;
        if let Some(runner) = self.runners.get_mut(runner) {
            (runner.is, runner.ended_at) = (Is::Ended, now);
        }
    }

    /// Half a day passes: idle runners have asked again, and those that do not were stopped.
    fn pass(&mut self) {
        self.now += 1;
        self.is_due = true;
        let now = self.now;
        for runner in &mut self.runners {
            match (runner.is, runner.is_silent) {
                (Is::Idle | Is::Closing, true) if runner.polled_at.is_some_and(|at| now >= at + 3) => {
                    (runner.is, runner.ended_at) = (Is::Ended, now);
                }
                (Is::Idle | Is::Busy(_), false) => runner.polled_at = Some(now),
                _ => {}
            }
        }
    }
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
            shown: Shown::default(),
            rounds: Vec::new(),
            is_due: true,
            versions: [0, 0],
            may_pause: self.pauses,
            broken: None,
        }]
    }

    fn actions(&self, world: &SizingWorld, steps: &mut Vec<SizingStep>) {
        if world.broken.is_some() {
            return;
        }
        // What has to happen before time passes.
        for (submission, it) in world.submissions.iter().enumerate() {
            if matches!(it, Submission::Kept(_)) {
                steps.push(SizingStep::Accept { submission });
            }
        }
        for round in 0..world.rounds.len() {
            steps.push(SizingStep::Go { round });
        }
        if world.is_due && world.rounds.len() < 2 {
            steps.push(SizingStep::Begin);
        }
        if world.shown != world.truth() {
            steps.push(SizingStep::CatchUp);
        }
        for (place, runner) in world.runners.iter().enumerate() {
            match runner.is {
                Is::Starting => steps.push(SizingStep::Start { runner: place }),
                Is::Busy(_) => steps.push(SizingStep::Return { runner: place }),
                Is::Closing if !runner.is_silent => steps.push(SizingStep::Leave { runner: place }),
                Is::Idle if !runner.is_silent && !world.row.paused => {
                    let is_of = |it: &Submission| matches!(it, Submission::Waiting { version, .. } if *version == runner.version);
                    let first = world.submissions.iter().position(is_of);
                    steps.extend(first.map(|submission| SizingStep::Take { runner: place, submission }));
                }
                Is::Idle | Is::Closing | Is::Ended => {}
            }
        }
        let is_busy = world.now < BUSY_UNTIL;
        if world.row.paused {
            steps.push(SizingStep::Resume);
        }
        if steps.is_empty() && world.now < self.horizon() {
            steps.push(SizingStep::Wait);
        }
        // What may happen beside it. A pause lasts for as long as it likes, until the end of the busy ticks.
        if world.row.paused && is_busy && steps.iter().all(|step| *step == SizingStep::Resume) {
            steps.push(SizingStep::Wait);
        }
        if is_busy {
            // Submissions are interchangeable until they are made.
            let next = world.submissions.iter().position(|it| *it == Submission::New);
            steps.extend(next.map(|submission| SizingStep::Keep { submission }));
            if world.may_pause && !world.row.paused && world.row.rev > 0 {
                steps.push(SizingStep::Pause);
            }
            let old = |function: &usize| self.changes && world.versions.get(*function) == Some(&0);
            steps.extend((0..2).filter(old).map(|function| SizingStep::Update { function }));
        }
        if world.faults > 0 {
            for (round, it) in world.rounds.iter().enumerate() {
                steps.push(SizingStep::Drop { round });
                if matches!(it, Round::Claim { .. }) {
                    steps.push(SizingStep::Unanswered { round });
                }
            }
            for (runner, it) in world.runners.iter().enumerate() {
                match it.is {
                    Is::Starting => steps.push(SizingStep::Fail { runner }),
                    Is::Idle if !it.is_silent => steps.push(SizingStep::FallSilent { runner }),
                    Is::Idle | Is::Busy(_) | Is::Closing | Is::Ended => {}
                }
            }
        }
    }

    fn next_state(&self, world: &SizingWorld, step: SizingStep) -> Option<SizingWorld> {
        let mut world = world.clone();
        match step {
            SizingStep::Wait => world.pass(),
            SizingStep::Keep { submission } => {
                let [version, _] = world.versions;
                let (key, spec) = self.spec(version);
                let mut row = PoolRow::clone(&world.row);
                if !self.has(SizingBug::KeyNotKept) && row.keep(&key, &spec) {
                    row.rev += 1;
                    world.row = Arc::new(row);
                }
                *world.submissions.get_mut(submission)? = Submission::Kept(version);
            }
            SizingStep::Accept { submission } => {
                let it = world.submissions.get_mut(submission)?;
                let Submission::Kept(version) = *it else { return None };
                *it = Submission::Waiting { version, since: world.now };
                world.is_due = true;
            }
            SizingStep::CatchUp => world.shown = world.truth(),
            SizingStep::Begin => {
                world.is_due = false;
                let [_, version] = world.versions;
                world.rounds.push(Round::Look { before: Arc::clone(&world.row), version });
            }
            SizingStep::Go { round } => {
                let round = world.rounds.remove(round);
                world.go(self, round);
            }
            SizingStep::Drop { round } => {
                world.faults -= 1;
                world.rounds.remove(round);
            }
            SizingStep::Unanswered { round } => {
                world.faults -= 1;
                if let Round::Claim { before, after, .. } = world.rounds.remove(round) {
                    world.claim(self, &before, &after);
                }
            }
            SizingStep::Start { runner } => {
                let now = world.now;
                let it = world.runners.get_mut(runner)?;
                (it.is, it.polled_at) = (Is::Idle, Some(now));
            }
            SizingStep::Fail { runner } => {
                world.faults -= 1;
                world.end(runner);
            }
            SizingStep::Take { runner, submission } => {
                *world.submissions.get_mut(submission)? = Submission::Taken;
                world.runners.get_mut(runner)?.is = Is::Busy(submission);
                world.taken += 1;
            }
            SizingStep::Return { runner } => {
                let it = world.runners.get_mut(runner)?;
                let Is::Busy(submission) = it.is else { return None };
                (it.is, it.served) = (Is::Idle, it.served + 1);
                let is_used_up = it.served >= self.commands;
                *world.submissions.get_mut(submission)? = Submission::Ended;
                if is_used_up {
                    world.end(runner);
                }
            }
            SizingStep::Leave { runner } => world.end(runner),
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
        if world.now >= self.horizon() && world.rounds.is_empty() && !world.is_due && world.shown == world.truth() {
            let waits = |it: &Submission| matches!(it, Submission::Waiting { .. });
            let runs = world.runners.iter().any(|runner| matches!(runner.is, Is::Starting | Is::Busy(_) | Is::Closing));
            let is_served = !world.submissions.iter().any(waits);
            let idle = world.runners.iter().filter(|runner| runner.is == Is::Idle).count();
            // What the last 15 ticks needed at once is kept too.
            let kept = (self.min_idle as usize).max(self.submissions).min(self.max as usize);
            world.break_if(SizingPromise::Served, !runs && !is_served);
            world.break_if(SizingPromise::NoneTooMany, !runs && is_served && idle > kept);
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
        kept!(NotAboveMax Served NoneTooMany Paused)
    }
}
