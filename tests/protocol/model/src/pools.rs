//! Pools in a small world: submissions that wait, runners that take them, and all that may befall both.
//!
//! The decisions are the real ones, on real records. The steps of the functions runner-api, task-state and reconcile are those
//! of their loops: each read, each conditional write and each call is a step of its own, others' steps come in between, and
//! a function may stop after any of them. A runner's program asks, starts what it is given once, reports, and may die, be
//! started again in its container, or be stopped by ECS.
//!
//! Launches are not modelled here: both runners have their tasks from the beginning.

use std::{collections::BTreeMap, sync::Arc};

use ecs_bridge_core::{
    Action, Attempt, Container, Decision, Input, LaunchAnswer, ProfileName, Record, State, SubmissionId, Task,
    Timestamp, decide,
    decide::{
        AfterStop, PoolInput,
        pool::{RunnerStatus, Served, runner_status, served},
    },
    pool::{Incarnation, Pool, PoolKey, Process, Runner, TokenHash},
    profile::{Policy, Relaunch},
    record::{ContentHash, Submission},
    run_task::FrozenRequest,
};
use serde_json::{Map, json};
use stateright::{Model, Property};

use crate::scenario::{CONTAINER, Scenario};

/// The tick at which nothing may be left to happen.
const HORIZON: u8 = 24;

/// The tick by which runners that start late have started.
const UP_BY: u8 = 4;

/// How often a take is begun again, as in the runner API.
const TRIES: u8 = 3;

/// The exit code that a stopped command returns.
const TERMINATED: i32 = 143;

/// A world of pools to check.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// How many submissions wait at the beginning.
    pub submissions: usize,
    /// How many runners there are.
    pub runners: usize,
    /// How many faults may happen.
    pub faults: u8,
    /// How many commands a container runs.
    pub commands: u32,
    /// The caller may request a stop of any of them.
    pub stops: bool,
    /// ECS may reclaim the capacity of a runner.
    pub spot: bool,
    /// A command is run again after that.
    pub relaunch: bool,
    /// After this tick nothing is taken any more; the runners start then at any tick until [`UP_BY`].
    pub deadline: Option<u8>,
    /// The seeded bug.
    pub bug: Option<PoolBug>,
}

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolBug {
    /// The taking write is made whatever the row has become.
    TakenUnconditionally,
    /// Any process of a runner gets its work.
    IncarnationIgnored,
    /// A submission whose runner ended is queued again.
    TakenQueuedAgain,
    /// What is seen of a runner is applied to whatever its row names, though another has taken that.
    EventToAnother,
    /// The runner's row says what it serves only after the submission was taken.
    ServesAfterTake,
    /// The runner's row forgets what nobody has taken yet.
    ServesForgotten,
    /// The exit code of the container counts as the command's.
    ContainersCode,
    /// A task is stopped without closing its runner first.
    StopWithoutClosing,
    /// Work is handed out to a runner that is stopping.
    WorkWhileStopping,
}

impl PoolBug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::TakenUnconditionally,
        Self::IncarnationIgnored,
        Self::TakenQueuedAgain,
        Self::EventToAnother,
        Self::ServesAfterTake,
        Self::ServesForgotten,
        Self::ContainersCode,
        Self::StopWithoutClosing,
        Self::WorkWhileStopping,
    ];
}

/// A promise about pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolPromise {
    /// An attempt's command starts at most once, and never beside another attempt's.
    OneStart,
    /// What nobody has taken is not failed.
    UntakenNotFailed,
    /// A stop hits no other command.
    StopHitsItsOwn,
    /// An end is final.
    Final,
    /// The exit code is what the command returned.
    ExitCode,
    /// A submission does not end while its command runs.
    NotBeforeItsCommand,
    /// A command that was taken starts, unless its runner came to harm.
    Started,
    /// A runner that is stopping gets nothing.
    NotWhileStopping,
    /// The request is kept until the end, and no longer.
    Request,
    /// With nothing left to happen, every submission that a runner could take is over.
    Settled,
}

impl PoolPromise {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OneStart,
        Self::UntakenNotFailed,
        Self::StopHitsItsOwn,
        Self::Final,
        Self::ExitCode,
        Self::NotBeforeItsCommand,
        Self::Started,
        Self::NotWhileStopping,
        Self::Request,
        Self::Settled,
    ];

    /// Its property's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneStart => "a command starts once an attempt",
            Self::UntakenNotFailed => "what nobody has taken is not failed",
            Self::StopHitsItsOwn => "a stop hits no other command",
            Self::Final => "an end is final",
            Self::ExitCode => "the exit code is the command's",
            Self::NotBeforeItsCommand => "nothing ends while its command runs",
            Self::Started => "what is taken is started",
            Self::NotWhileStopping => "a runner that is stopping gets nothing",
            Self::Request => "the request is kept as long as it is needed",
            Self::Settled => "with nothing left to happen, every submission is over",
        }
    }
}

type Row = Arc<Record>;

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolWorld {
    now: u8,
    faults: u8,
    /// A runner died, was stopped, or has had two processes.
    harmed: bool,
    /// The submissions, and then the runners.
    rows: Vec<Row>,
    programs: Vec<Program>,
    functions: Vec<Function>,
    /// Events in flight: the runner and its task as it was.
    events: Vec<(usize, Task)>,
    /// The attempts of each submission whose command was started.
    starts: Vec<Vec<Attempt>>,
    /// The exit codes that each submission's command has returned.
    codes: Vec<Vec<i32>>,
    stops_asked: Vec<bool>,
    broken: Option<PoolPromise>,
}

/// A runner's container, and the program in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Program {
    is_up: bool,
    incarnation: u8,
    asking: bool,
    /// It must stop.
    signalled: bool,
    /// The command that runs.
    command: Option<usize>,
    /// What this process has started.
    started: Vec<usize>,
    /// A command that has ended, until that is acknowledged.
    done: Option<(usize, i32)>,
    version: u64,
    spot: bool,
    /// The container has ended, with this exit code.
    ended: Option<i32>,
}

/// A function at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Function {
    /// The runner API, for one question.
    RunnerApi(Asker, Work),
    /// It has read a row, and writes what follows from an input; if the row has changed, from the newer one.
    Apply { row: usize, read: Row, input: Input },
    /// It has read a runner's row and seen its task; `is_reported` once what it serves has got it.
    Seen { runner: usize, read: Row, task: Task, is_reported: bool },
    /// It acts on what it wrote to a row.
    Act { row: usize, action: Act },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Act {
    Describe,
    /// Closes the runner, on condition that it serves this submission.
    Close {
        describes: bool,
    },
    StopTask {
        runner: usize,
        describes: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asker {
    runner: usize,
    incarnation: u8,
    stopping: bool,
    done: Option<(usize, i32)>,
    /// The program still waits for the answer.
    heard: bool,
}

/// What the runner API does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// It has read the runner's row, and records the end of a command.
    Done(Row),
    /// It notes the contact.
    Contact(Row),
    /// It decides by the runner's row what to hand out.
    Choose(Row, u8),
    /// It notes that the runner takes this submission, read before.
    Serve(Row, usize, Row, u8),
    /// It takes it.
    Take(Row, usize, Row, u8),
    /// It notes that the runner serves this no longer.
    Clear(Row, SubmissionId, bool, u8),
    /// It reads the runner's row once more.
    Look(u8),
    /// It answers.
    Answer(Reply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reply {
    Run(usize, Attempt),
    Wait,
    Close,
    Conflict,
}

/// Something that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are places in the lists of the state before")]
pub enum PoolStep {
    /// Time passes.
    Wait,
    /// A program asks for work, and reports with it.
    Ask { runner: usize },
    /// A program starts late.
    Start { runner: usize },
    /// A program waits no longer for an answer, which may still come.
    GiveUp { runner: usize },
    /// A second process of a runner asks.
    Intrude { runner: usize },
    /// A command returns.
    Return { runner: usize, code: i32 },
    /// A program that must stop ends.
    Leave { runner: usize },
    /// A program is killed; its container ends, or starts another.
    Die { runner: usize, restarts: bool },
    /// ECS takes a runner's capacity away.
    Spot { runner: usize },
    /// The caller requests a stop.
    Stop { submission: usize },
    /// reconcile handles a row that is due.
    Due { row: usize },
    /// An event reaches task-state.
    Deliver { event: usize },
    /// An event is lost.
    Lose { event: usize },
    /// A function goes on; `choice` is among what waits.
    Go { function: usize, choice: usize },
    /// A function stops.
    Drop { function: usize },
}

impl Pools {
    /// Two submissions, two runners, a command each.
    pub const fn new(faults: u8) -> Self {
        Self {
            submissions: 2,
            runners: 2,
            faults,
            commands: 1,
            stops: false,
            spot: false,
            relaunch: false,
            deadline: None,
            bug: None,
        }
    }

    fn has(&self, bug: PoolBug) -> bool {
        self.bug == Some(bug)
    }

    fn id(&self, row: usize) -> SubmissionId {
        let name = match row.checked_sub(self.submissions) {
            None => format!("nightly-{row}"),
            Some(runner) => format!("runner-{runner}"),
        };
        // Such a name is valid.
        name.parse().unwrap_or_else(|_| unreachable!())
    }

    fn place(&self, id: &SubmissionId) -> Option<usize> {
        (0..self.submissions + self.runners).find(|row| self.id(*row) == *id)
    }

    fn submission(&self, row: usize) -> Submission {
        let profile = ProfileName::default_profile();
        let relaunch_on = if self.relaunch { vec![Relaunch::from("SpotInterruption")] } else { Vec::new() };
        let max_attempts = Attempt::FIRST.next().unwrap_or(Attempt::FIRST);
        Submission {
            submission_id: self.id(row),
            content_hash: ContentHash::of(&["true".to_owned()], &json!({}), &profile),
            placement: None,
            profile,
            container_name: CONTAINER.to_owned(),
            cluster: "nightly".to_owned(),
            policy: Policy { max_attempts, relaunch_on, ..Policy::default() },
            request: FrozenRequest::freeze(&[Map::new()]),
            labels: BTreeMap::new(),
            launch_deadline: self.deadline.map(Scenario::at),
            priority: Default::default(),
            pool: None,
            notify: Default::default(),
        }
    }

    /// A pool's key, and a runner that carries it.
    pub(crate) fn pool(&self) -> (PoolKey, Runner) {
        let pool = json!({"max": self.runners, "commands_per_container": self.commands});
        // It is a pool, by construction.
        let pool: Pool = serde_json::from_value(pool).unwrap_or_else(|_| unreachable!());
        let key = PoolKey::of(&ProfileName::default_profile(), &[Map::new()], CONTAINER, &pool);
        (key.clone(), Runner::new(key, TokenHash::of("secret"), &pool))
    }

    fn arn(runner: usize) -> String {
        format!("arn:aws:ecs:eu-west-1:123456789012:task/nightly/{runner}")
    }

    /// A runner with a task, that has not asked yet.
    fn launched(&self, runner: usize) -> Record {
        let (now, rules) = (Scenario::at(0), Scenario::rules());
        let row = self.submissions + runner;
        let record =
            Record::runner(Submission { launch_deadline: None, ..self.submission(row) }, self.pool().1, now, &rules);
        let claimed = decide(&record, &Input::Due, now, &rules);
        let (Some(record), Some(Action::RunTask(call))) = (claimed.record, claimed.action) else { unreachable!() };
        let task = LaunchAnswer::Task { arn: Self::arn(runner), live: true };
        decide(&record, &Input::Launch(call, task), now, &rules).record.unwrap_or_else(|| unreachable!())
    }

    fn task(&self, world: &PoolWorld, runner: usize) -> Option<Task> {
        let program = world.programs.get(runner)?;
        let status = if program.ended.is_some() { "STOPPED" } else { "RUNNING" };
        let code = if program.spot { "SpotInterruption" } else { "EssentialContainerExited" };
        let to_stop = program.ended.is_some() || program.spot;
        Some(Task {
            arn: Self::arn(runner),
            cluster_arn: "arn:aws:ecs:eu-west-1:123456789012:cluster/nightly".to_owned(),
            attempt: Attempt::FIRST,
            version: Some(program.version),
            last_status: status.to_owned(),
            desired_status: if to_stop { "STOPPED" } else { "RUNNING" }.to_owned(),
            stop_code: to_stop.then(|| code.to_owned()),
            stopped_reason: None,
            containers: vec![Container {
                name: CONTAINER.to_owned(),
                last_status: status.to_owned(),
                exit_code: program.ended,
                reason: None,
            }],
            runs_on: Some("FARGATE".to_owned()),
            cpu: None,
            memory: None,
            started_at: None,
            execution_stopped_at: None,
            stopped_at: None,
            at: None,
        })
    }

    /// The real decision, changed by the seeded bug if that is one of decisions.
    fn decide(&self, record: &Record, input: &Input, now: Timestamp) -> Decision {
        let rules = Scenario::rules();
        let Input::Pool(PoolInput::RunnerSeen(_, task)) = input else { return decide(record, input, now, &rules) };
        let is_unreported = task.is_stopped() && record.exit_code.is_none() && !record.state.is_terminal();
        if self.has(PoolBug::TakenQueuedAgain) && is_unreported {
            let mut next = record.clone();
            next.state = State::Queued;
            next.rev += 1;
            next.task_arn = None;
            if let Some(pooled) = &mut next.pooled {
                pooled.taken = None;
            }
            return Decision { record: Some(next), ..Decision::default() };
        }
        if self.has(PoolBug::ContainersCode) && is_unreported {
            let record = Record { exit_code: task.exit_code(CONTAINER), ..record.clone() };
            return decide(&record, input, now, &rules);
        }
        decide(record, input, now, &rules)
    }
}

fn incarnation(number: u8) -> Incarnation {
    format!("process-{number}").try_into().unwrap_or_else(|_| unreachable!())
}

impl PoolWorld {
    fn break_if(&mut self, promise: PoolPromise, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    fn is_waiting(&self, submission: usize) -> bool {
        self.rows.get(submission).is_some_and(|row| row.state == State::Queued && row.pool.is_some())
    }

    /// A runner that might still be given work.
    fn is_open(&self, pools: &Pools, runner: usize) -> bool {
        let program = self.programs.get(runner);
        let is_up = program.is_some_and(|program| program.is_up && program.ended.is_none() && !program.signalled);
        let row = self.rows.get(pools.submissions + runner);
        let may_serve = |row: &Row| {
            let is_closed = row.state.is_terminal() || row.stop_requested.is_some();
            row.runner.as_ref().is_some_and(|runner| !runner.closing && !is_closed)
        };
        is_up && row.is_some_and(may_serve)
    }

    /// Whether a program has something to report or to get.
    fn is_busy(&self, pools: &Pools, runner: usize) -> bool {
        let Some(program) = self.programs.get(runner) else { return false };
        let Some(row) = self.rows.get(pools.submissions + runner) else { return false };
        let serves = row.runner.as_ref().is_some_and(|runner| runner.serves.is_some());
        let may_take = (0..pools.submissions).any(|submission| self.is_waiting(submission));
        let has_contact = row.runner.as_ref().is_some_and(|runner| runner.incarnation.is_some());
        program.is_up
            && program.ended.is_none()
            && (program.asking
                || program.command.is_some()
                || program.done.is_some()
                || program.signalled
                || serves
                || may_take
                || !has_contact
                || !self.is_open(pools, runner))
    }

    fn write(&mut self, pools: &Pools, row: usize, next: Record) -> Row {
        let next = Arc::new(next);
        let Some(before) = self.rows.get(row).cloned() else { return next };
        if row < pools.submissions {
            let is_end = next.state.is_terminal() && !before.state.is_terminal();
            let runs = self.programs.iter().any(|program| program.command == Some(row));
            let has_started = self.starts.get(row).is_some_and(|attempts| attempts.contains(&before.attempt));
            let is_failure = is_end && next.state == State::Failed;
            let untaken = before.state == State::Queued && !before.ran_before;
            let code = next.exit_code;
            let codes = self.codes.get(row);
            let is_returned = code.is_none_or(|code| codes.is_some_and(|codes| codes.contains(&code)));
            self.break_if(PoolPromise::NotBeforeItsCommand, is_end && runs);
            self.break_if(PoolPromise::UntakenNotFailed, is_failure && untaken);
            self.break_if(PoolPromise::Started, is_failure && !untaken && !has_started && !self.harmed);
            let changed = before.state != next.state || before.exit_code != next.exit_code;
            self.break_if(PoolPromise::Final, before.state.is_terminal() && changed);
            let is_code = is_returned && (next.state == State::Succeeded) == (is_end && code == Some(0));
            self.break_if(PoolPromise::ExitCode, is_end && !is_code);
            self.break_if(PoolPromise::Request, next.state.is_terminal() == next.request.is_some());
        }
        if let Some(slot) = self.rows.get_mut(row) {
            *slot = Arc::clone(&next);
        }
        next
    }

    /// Decides on what was read, or on what is there by now, and writes. Returns the row and the action.
    fn apply(&mut self, pools: &Pools, row: usize, read: Row, input: &Input) -> Option<(Row, Option<Action>)> {
        let current = self.rows.get(row)?.clone();
        let read = if read.rev == current.rev { read } else { current };
        let decision = pools.decide(&read, input, Scenario::at(self.now));
        Some(match decision.record {
            Some(next) => (self.write(pools, row, next), decision.action),
            None => (read, decision.action),
        })
    }

    /// Decides on what was read, and writes if that is still there.
    fn attempt(&mut self, pools: &Pools, row: usize, read: &Row, input: PoolInput, anyway: bool) -> Option<Row> {
        let is_current = self.rows.get(row).is_some_and(|current| current.rev == read.rev);
        let next = pools.decide(read, &Input::Pool(input), Scenario::at(self.now)).record?;
        (is_current || anyway).then(|| self.write(pools, row, next))
    }

    /// A container ends; an event reports it.
    fn end_container(&mut self, pools: &Pools, runner: usize, code: i32) {
        if let Some(program) = self.programs.get_mut(runner) {
            program.ended = Some(code);
            program.version += 1;
            (program.command, program.done, program.asking) = (None, None, false);
        }
        if let Some(task) = pools.task(self, runner) {
            self.events.push((runner, task));
        }
    }

    /// A program gets an answer.
    fn answered(&mut self, pools: &Pools, asker: Asker, reply: Reply) {
        if !asker.heard {
            return;
        }
        let is_another = self.programs.get(asker.runner).is_none_or(|program| program.incarnation != asker.incarnation);
        if let Reply::Run(submission, attempt) = reply {
            let program = self.programs.get(asker.runner);
            let starts = is_another
                || program.is_some_and(|program| !program.started.contains(&submission) && !program.signalled);
            if starts && program.is_some_and(|program| program.ended.is_none()) {
                let beside = self.programs.iter().any(|program| program.command == Some(submission));
                let twice = self.starts.get(submission).is_some_and(|attempts| attempts.contains(&attempt));
                self.break_if(PoolPromise::OneStart, beside || twice);
                if let Some(attempts) = self.starts.get_mut(submission) {
                    attempts.push(attempt);
                }
            }
        }
        if is_another {
            // Of a process that is gone, or one too many: it ends.
            return;
        }
        let Some(program) = self.programs.get_mut(asker.runner).filter(|program| program.ended.is_none()) else {
            return;
        };
        program.asking = false;
        program.done = program.done.filter(|_| asker.done.is_none());
        match reply {
            Reply::Run(submission, _) if !program.started.contains(&submission) && !program.signalled => {
                program.started.push(submission);
                program.command = Some(submission);
            }
            Reply::Run(..) | Reply::Wait => {}
            Reply::Close => self.end_container(pools, asker.runner, 0),
            Reply::Conflict => self.end_container(pools, asker.runner, 201),
        }
    }

    /// One step of the runner API.
    fn work(&mut self, pools: &Pools, asker: Asker, step: Work, choice: usize) -> Option<Work> {
        let runner_row = pools.submissions + asker.runner;
        let own = if pools.has(PoolBug::IncarnationIgnored) { 0 } else { asker.incarnation };
        let by = Process { runner_id: pools.id(runner_row), incarnation: incarnation(own) };
        Some(match step {
            Work::Done(row) => {
                if let Some((submission, exit_code)) = asker.done {
                    let read = self.rows.get(submission)?.clone();
                    let done = PoolInput::Done { by, exit_code, stopping: asker.stopping };
                    self.apply(pools, submission, read, &Input::Pool(done))?;
                }
                Work::Contact(row)
            }
            Work::Contact(row) => {
                let contact = Input::Pool(PoolInput::Contact(by.incarnation));
                Work::Choose(self.apply(pools, runner_row, row, &contact)?.0, 0)
            }
            Work::Choose(row, tries) => {
                let runner = row.runner.as_deref()?;
                match runner_status(&row, runner, &by.incarnation) {
                    _ if tries == TRIES => return Some(Work::Answer(Reply::Wait)),
                    RunnerStatus::Taken => return Some(Work::Answer(Reply::Conflict)),
                    RunnerStatus::Close => return Some(Work::Answer(Reply::Close)),
                    RunnerStatus::TooEarly => return Some(Work::Answer(Reply::Wait)),
                    RunnerStatus::Open if asker.stopping && !pools.has(PoolBug::WorkWhileStopping) => {
                        return Some(Work::Answer(Reply::Wait));
                    }
                    RunnerStatus::Open => {}
                }
                if let Some(serves) = &runner.serves {
                    let submission = pools.place(serves)?;
                    let read = self.rows.get(submission)?.clone();
                    return Some(match served(Some(&read), &by) {
                        Served::Ours => Work::Answer(Reply::Run(submission, read.attempt)),
                        Served::Untaken if pools.has(PoolBug::ServesForgotten) => {
                            Work::Clear(Arc::clone(&row), serves.clone(), false, tries)
                        }
                        Served::Untaken => self.serve_or_expire(pools, Arc::clone(&row), submission, read, tries)?,
                        Served::Over(done) => Work::Clear(Arc::clone(&row), serves.clone(), done, tries),
                    });
                }
                let mut waiting = (0..pools.submissions).filter(|submission| self.is_waiting(*submission));
                match waiting.nth(choice) {
                    None => Work::Answer(Reply::Wait),
                    Some(submission) => {
                        let read = self.rows.get(submission)?.clone();
                        if pools.has(PoolBug::ServesAfterTake) {
                            Work::Take(row, submission, read, tries)
                        } else {
                            self.serve_or_expire(pools, row, submission, read, tries)?
                        }
                    }
                }
            }
            Work::Serve(row, submission, read, tries) => {
                let serve = PoolInput::Serve(pools.id(submission));
                match self.attempt(pools, runner_row, &row, serve, false) {
                    None => Work::Look(tries + 1),
                    Some(_) if pools.has(PoolBug::ServesAfterTake) => {
                        Work::Answer(Reply::Run(submission, read.attempt))
                    }
                    Some(row) => Work::Take(row, submission, read, tries),
                }
            }
            Work::Take(row, submission, read, tries) => {
                self.break_if(PoolPromise::NotWhileStopping, asker.stopping);
                let take = PoolInput::Take { by, task_arn: Pools::arn(asker.runner), cluster: row.cluster.clone() };
                let anyway = pools.has(PoolBug::TakenUnconditionally);
                match self.attempt(pools, submission, &read, take, anyway) {
                    None => Work::Look(tries + 1),
                    Some(taken) if pools.has(PoolBug::ServesAfterTake) => Work::Serve(row, submission, taken, tries),
                    Some(taken) => Work::Answer(Reply::Run(submission, taken.attempt)),
                }
            }
            Work::Clear(row, submission_id, done, tries) => {
                self.attempt(pools, runner_row, &row, PoolInput::Served { submission_id, done }, false);
                Work::Look(tries + 1)
            }
            Work::Look(tries) => Work::Choose(self.rows.get(runner_row)?.clone(), tries),
            Work::Answer(reply) => {
                self.answered(pools, asker, reply);
                return None;
            }
        })
    }

    /// What is past its deadline ends, and is not taken.
    fn serve_or_expire(&mut self, pools: &Pools, row: Row, submission: usize, read: Row, tries: u8) -> Option<Work> {
        if read.is_past_deadline(Scenario::at(self.now)) {
            self.apply(pools, submission, read, &Input::Due)?;
            return Some(Work::Look(tries + 1));
        }
        Some(Work::Serve(row, submission, read, tries))
    }

    /// What a function does with an action that its write has led to.
    fn act(&mut self, row: usize, action: Option<Action>) {
        let action = match action {
            Some(Action::Describe { .. }) => Act::Describe,
            Some(Action::Stop { runner, then, .. }) => {
                let describes = then == AfterStop::Describe;
                match runner {
                    Some(_) => Act::Close { describes },
                    None => Act::StopTask { runner: usize::MAX, describes },
                }
            }
            // There are no notifications in this world.
            Some(Action::RunTask(_) | Action::LookUp(_) | Action::Notify(_)) | None => return,
        };
        self.functions.push(Function::Act { row, action });
    }

    /// One step of a function.
    fn go(&mut self, pools: &Pools, function: Function, choice: usize) -> Option<()> {
        match function {
            Function::RunnerApi(asker, step) => {
                if let Some(next) = self.work(pools, asker, step, choice) {
                    self.functions.push(Function::RunnerApi(asker, next));
                }
            }
            Function::Apply { row, read, input } => {
                let (_, action) = self.apply(pools, row, read, &input)?;
                self.act(row, action);
            }
            Function::Seen { runner, read, task, is_reported } => self.seen(pools, runner, read, task, is_reported)?,
            Function::Act { row, action } => {
                let runner = row.checked_sub(pools.submissions);
                match (action, runner) {
                    (Act::Describe, Some(runner)) => {
                        let (read, task) = (self.rows.get(row)?.clone(), pools.task(self, runner)?);
                        self.functions.push(Function::Seen { runner, read, task, is_reported: false });
                    }
                    (Act::Describe, None) => {
                        let read = self.rows.get(row)?.clone();
                        let taken = pools.place(&read.taken()?.runner_id)? - pools.submissions;
                        let seen = PoolInput::RunnerSeen(
                            pools.id(pools.submissions + taken),
                            Box::new(pools.task(self, taken)?),
                        );
                        self.functions.push(Function::Apply { row, read, input: Input::Pool(seen) });
                    }
                    (Act::Close { describes }, _) => {
                        let taken = self.rows.get(row)?.taken()?.runner_id.clone();
                        let runner_row = pools.place(&taken)?;
                        let runner = runner_row - pools.submissions;
                        let read = self.rows.get(runner_row)?.clone();
                        let close = Input::Pool(PoolInput::Close(Some(pools.id(row))));
                        let serves = if pools.has(PoolBug::StopWithoutClosing) {
                            true
                        } else {
                            let (closed, _) = self.apply(pools, runner_row, read, &close)?;
                            closed.runner.as_ref().is_some_and(|runner| runner.serves.as_ref() == Some(&pools.id(row)))
                        };
                        if serves {
                            self.functions.push(Function::Act { row, action: Act::StopTask { runner, describes } });
                        }
                    }
                    (Act::StopTask { runner: of, describes }, runner) => {
                        let of = runner.unwrap_or(of);
                        let hit = self.programs.get(of).and_then(|program| program.command);
                        let is_other = hit.is_some_and(|hit| hit != row) && (runner.is_none() || !self.harmed);
                        self.break_if(PoolPromise::StopHitsItsOwn, is_other);
                        self.harmed = true;
                        if let Some(program) = self.programs.get_mut(of).filter(|program| program.ended.is_none()) {
                            program.signalled = true;
                        }
                        if describes {
                            self.functions.push(Function::Act { row, action: Act::Describe });
                        }
                    }
                }
            }
        }
        Some(())
    }

    /// One step of a function that has seen a runner's task: what it serves gets it first.
    fn seen(&mut self, pools: &Pools, runner: usize, read: Row, task: Task, is_reported: bool) -> Option<()> {
        let row = pools.submissions + runner;
        let input = Input::Seen(task.clone());
        let decision = pools.decide(&read, &input, Scenario::at(self.now));
        let Some(next) = decision.record else {
            self.act(row, decision.action);
            return Some(());
        };
        if !is_reported {
            if let Some(submission) = read.runner.as_ref().and_then(|runner| pools.place(runner.serves.as_ref()?)) {
                let served = self.rows.get(submission)?.clone();
                let is_taken = served.taken().is_some_and(|taken| taken.runner_id == read.submission_id);
                let report = match (is_taken, task.is_stopped()) {
                    (true, _) => Some(PoolInput::RunnerSeen(read.submission_id.clone(), Box::new(task.clone()))),
                    (false, true) if pools.has(PoolBug::EventToAnother) && served.taken().is_some() => {
                        let (of, arn) = (served.taken()?.runner_id.clone(), served.task_arn.clone()?);
                        Some(PoolInput::RunnerSeen(of, Box::new(Task { arn, version: Some(u64::MAX), ..task.clone() })))
                    }
                    (false, true) => Some(PoolInput::RunnerGone),
                    (false, false) => None,
                };
                if let Some(report) = report {
                    let (_, action) = self.apply(pools, submission, served, &Input::Pool(report))?;
                    self.act(submission, action);
                }
            }
            self.functions.push(Function::Seen { runner, read, task, is_reported: true });
            return Some(());
        }
        if self.rows.get(row)?.rev == read.rev {
            self.write(pools, row, next);
            self.act(row, decision.action);
        } else {
            let read = self.rows.get(row)?.clone();
            self.functions.push(Function::Seen { runner, read, task, is_reported: false });
        }
        Some(())
    }

    /// Idle programs ask in vain, all the time.
    fn poll(&mut self, pools: &Pools) {
        for runner in (0..pools.runners).filter(|runner| self.is_open(pools, *runner)).collect::<Vec<_>>() {
            let row = pools.submissions + runner;
            let process = self.programs.get(runner).map(|program| incarnation(program.incarnation));
            if let (Some(process), Some(read)) = (process, self.rows.get(row).cloned()) {
                self.apply(pools, row, read, &Input::Pool(PoolInput::Contact(process)));
            }
        }
    }

    /// Whether every submission that a runner could take has ended.
    fn is_settled(&self, pools: &Pools) -> bool {
        let is_open = (0..pools.runners).any(|runner| self.is_open(pools, runner));
        self.rows.iter().take(pools.submissions).all(|row| {
            let waits = row.state == State::Queued && !row.is_past_deadline(Scenario::at(self.now)) && !is_open;
            row.state.is_terminal() || waits
        })
    }

    fn is_at_rest(&self, pools: &Pools) -> bool {
        self.functions.is_empty()
            && self.events.is_empty()
            && !(0..pools.runners).any(|runner| self.is_busy(pools, runner))
    }
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
            stops_asked: vec![false; self.submissions],
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
            let is_idle = program.command.is_none() && !program.asking;
            if is_idle && world.is_busy(self, runner) && !(program.signalled && program.done.is_none()) {
                steps.push(PoolStep::Ask { runner });
            }
            if program.signalled && is_idle && program.done.is_none() {
                steps.push(PoolStep::Leave { runner });
                if program.started.is_empty() && world.faults == self.faults {
                    // It asks once more before it ends.
                    steps.push(PoolStep::Ask { runner });
                }
            }
            match (program.command, program.signalled) {
                (Some(_), false) => steps.extend([0, 7].map(|code| PoolStep::Return { runner, code })),
                (Some(_), true) => steps.push(PoolStep::Return { runner, code: TERMINATED }),
                (None, _) => {}
            }
            if self.spot && !program.spot {
                steps.push(PoolStep::Spot { runner });
            }
            if faulty {
                steps.extend([false, true].map(|restarts| PoolStep::Die { runner, restarts }));
                steps.push(PoolStep::Intrude { runner });
                if program.asking {
                    steps.push(PoolStep::GiveUp { runner });
                }
            }
        }
        if self.stops {
            let stops = world.stops_asked.iter().enumerate().filter(|(_, asked)| !**asked);
            steps.extend(stops.map(|(submission, _)| PoolStep::Stop { submission }));
        }
        for event in 0..world.events.len() {
            steps.push(PoolStep::Deliver { event });
            if faulty {
                steps.push(PoolStep::Lose { event });
            }
        }
        for (function, it) in world.functions.iter().enumerate() {
            let is_choice = matches!(it, Function::RunnerApi(_, Work::Choose(..)));
            let waiting = (0..self.submissions).filter(|submission| world.is_waiting(*submission)).count();
            let choices = if is_choice { waiting.max(1) } else { 1 };
            steps.extend((0..choices).map(|choice| PoolStep::Go { function, choice }));
            if faulty {
                steps.push(PoolStep::Drop { function });
            }
        }
        if world.is_at_rest(self) {
            let at = Scenario::at(world.now);
            let due = |row: &Row| row.check_at.is_some_and(|check_at| check_at <= at);
            let rows = world.rows.iter().enumerate().filter(|(_, row)| due(row)).map(|(row, _)| row);
            let before = steps.len();
            steps.extend(rows.map(|row| PoolStep::Due { row }));
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
                world.poll(self);
            }
            PoolStep::Start { runner } => world.programs.get_mut(runner)?.is_up = true,
            PoolStep::Ask { runner } => {
                let program = world.programs.get_mut(runner)?;
                program.asking = true;
                let Program { incarnation, signalled, done, .. } = *program;
                let asker = Asker { runner, incarnation, stopping: signalled, done, heard: true };
                let row = world.rows.get(self.submissions + runner)?.clone();
                world.functions.push(Function::RunnerApi(asker, Work::Done(row)));
            }
            PoolStep::GiveUp { runner } => {
                world.faults -= 1;
                let program = world.programs.get_mut(runner)?;
                program.asking = false;
                for function in &mut world.functions {
                    if let Function::RunnerApi(asker, _) = function
                        && (asker.runner, asker.incarnation) == (runner, program.incarnation)
                    {
                        asker.heard = false;
                    }
                }
            }
            PoolStep::Intrude { runner } => {
                (world.faults, world.harmed) = (world.faults - 1, true);
                // Another process each time.
                let incarnation = 100 + world.faults;
                let asker = Asker { runner, incarnation, stopping: false, done: None, heard: true };
                let row = world.rows.get(self.submissions + runner)?.clone();
                world.functions.push(Function::RunnerApi(asker, Work::Done(row)));
            }
            PoolStep::Return { runner, code } => {
                let program = world.programs.get_mut(runner)?;
                let submission = program.command.take()?;
                program.done = Some((submission, code));
                world.codes.get_mut(submission)?.push(code);
            }
            PoolStep::Leave { runner } => world.end_container(self, runner, 0),
            PoolStep::Die { runner, restarts } => {
                (world.faults, world.harmed) = (world.faults - 1, true);
                if restarts {
                    let program = world.programs.get_mut(runner)?;
                    let Program { is_up, incarnation, version, spot, signalled, .. } = *program;
                    let incarnation = incarnation + 1;
                    *program = Program { is_up, incarnation, version, spot, signalled, ..Program::default() };
                } else {
                    world.end_container(self, runner, 137);
                }
            }
            PoolStep::Spot { runner } => {
                world.harmed = true;
                let program = world.programs.get_mut(runner)?;
                (program.spot, program.signalled, program.version) = (true, true, program.version + 1);
                let task = self.task(&world, runner)?;
                world.events.push((runner, task));
            }
            PoolStep::Stop { submission } => {
                *world.stops_asked.get_mut(submission)? = true;
                let read = world.rows.get(submission)?.clone();
                world.functions.push(Function::Apply {
                    row: submission,
                    read,
                    input: Input::Stop("enough".to_owned()),
                });
            }
            PoolStep::Due { row } => {
                let read = world.rows.get(row)?.clone();
                world.functions.push(Function::Apply { row, read, input: Input::Due });
            }
            PoolStep::Deliver { event } => {
                let (runner, task) = world.events.remove(event);
                let read = world.rows.get(self.submissions + runner)?.clone();
                world.functions.push(Function::Seen { runner, read, task, is_reported: false });
            }
            PoolStep::Lose { event } => {
                world.faults -= 1;
                world.events.remove(event);
            }
            PoolStep::Go { function, choice } => {
                let function = world.functions.remove(function);
                world.go(self, function, choice);
            }
            PoolStep::Drop { function } => {
                world.faults -= 1;
                // Whoever waited for its answer gets none.
                if let Function::RunnerApi(asker, _) = world.functions.remove(function)
                    && asker.heard
                {
                    let program = world.programs.get_mut(asker.runner)?;
                    program.asking &= program.incarnation != asker.incarnation;
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
        kept!(OneStart UntakenNotFailed StopHitsItsOwn Final ExitCode NotBeforeItsCommand Started NotWhileStopping Request Settled)
    }
}
