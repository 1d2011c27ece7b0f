//! A state of the world of pools, and the reads and writes of its rows.

use std::sync::Arc;

use ecs_bridge_core::{Action, AttemptNumber, Container, Input, Record, State, Task, decide::PoolInput};

use super::{
    function::{Function, Row},
    promise::PoolPromise,
    scenario::{Pools, incarnation},
};
use crate::scenario::{CONTAINER, Scenario};

/// A state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolWorld {
    pub(super) now: u8,
    pub(super) faults: u8,
    /// A runner died, was stopped, or has had two processes.
    pub(super) harmed: bool,
    /// The rows of the submissions, followed by those of the runners.
    pub(super) rows: Vec<Row>,
    pub(super) programs: Vec<Program>,
    pub(super) functions: Vec<Function>,
    /// Events in flight: the runner, and its task at the time of the event.
    pub(super) events: Vec<(usize, Task)>,
    /// The attempts whose command was started, by submission.
    pub(super) starts: Vec<Vec<AttemptNumber>>,
    /// The exit codes that commands have returned, by submission.
    pub(super) codes: Vec<Vec<i32>>,
    pub(super) stops_requested: Vec<bool>,
    /// The guarantee that the last step broke.
    pub(super) broken: Option<PoolPromise>,
}

/// A runner's container, and the program in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub(super) is_up: bool,
    pub(super) incarnation: u8,
    pub(super) is_polling: bool,
    /// It has received SIGTERM.
    pub(super) signalled: bool,
    /// The submission whose command runs.
    pub(super) command: Option<usize>,
    /// The submissions whose commands this process has started.
    pub(super) started: Vec<usize>,
    /// A command that has exited, with its exit code, until runner-api acknowledges the result.
    pub(super) done: Option<(usize, i32)>,
    /// The version of its task.
    pub(super) version: u64,
    /// ECS has reclaimed its capacity.
    pub(super) spot: bool,
    /// The exit code of the container, once it has exited.
    pub(super) ended: Option<i32>,
}

impl PoolWorld {
    /// Returns a runner's task as ECS reports it now.
    pub(super) fn task(&self, runner: usize) -> Option<Task> {
        let program = self.programs.get(runner)?;
        let status = if program.ended.is_some() { "STOPPED" } else { "RUNNING" };
        let code = if program.spot { "SpotInterruption" } else { "EssentialContainerExited" };
        let to_stop = program.ended.is_some() || program.spot;
        Some(Task {
            arn: Pools::arn(runner),
            cluster_arn: "arn:aws:ecs:eu-west-1:123456789012:cluster/nightly".to_owned(),
            attempt: AttemptNumber::FIRST,
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

    pub(super) fn break_if(&mut self, promise: PoolPromise, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    pub(super) fn is_waiting(&self, submission: usize) -> bool {
        self.rows.get(submission).is_some_and(|row| row.state() == State::Queued && row.pool.is_some())
    }

    /// Returns true for a runner that can still get a command.
    pub(super) fn is_open(&self, pools: &Pools, runner: usize) -> bool {
        let program = self.programs.get(runner);
        let is_up = program.is_some_and(|program| program.is_up && program.ended.is_none() && !program.signalled);
        let row = self.rows.get(pools.submissions + runner);
        let can_serve = |row: &Row| {
            let is_closed = row.state().is_terminal() || row.stop_requested.is_some();
            row.runner().is_some_and(|runner| !runner.closing && !is_closed)
        };
        is_up && row.is_some_and(can_serve)
    }

    /// Returns true if a program has something to report, or can get a command.
    pub(super) fn is_busy(&self, pools: &Pools, runner: usize) -> bool {
        let Some(program) = self.programs.get(runner) else { return false };
        let Some(row) = self.rows.get(pools.submissions + runner) else { return false };
        let serves = row.runner().is_some_and(|runner| runner.serves.is_some());
        let can_claim = (0..pools.submissions).any(|submission| self.is_waiting(submission));
        let has_contact = row.runner().is_some_and(|runner| runner.incarnation.is_some());
        program.is_up
            && program.ended.is_none()
            && (program.is_polling
                || program.command.is_some()
                || program.done.is_some()
                || program.signalled
                || serves
                || can_claim
                || !has_contact
                || !self.is_open(pools, runner))
    }

    /// Returns true if every submission that a runner could claim has ended.
    pub(super) fn is_settled(&self, pools: &Pools) -> bool {
        let is_open = (0..pools.runners).any(|runner| self.is_open(pools, runner));
        self.rows.iter().take(pools.submissions).all(|row| {
            let waits = row.state() == State::Queued && !row.is_past_deadline(Scenario::at(self.now)) && !is_open;
            row.state().is_terminal() || waits
        })
    }

    /// Returns true if nothing can happen before time passes.
    pub(super) fn is_at_rest(&self, pools: &Pools) -> bool {
        self.functions.is_empty()
            && self.events.is_empty()
            && !(0..pools.runners).any(|runner| self.is_busy(pools, runner))
    }

    /// Writes a row and checks the guarantees of a write.
    pub(super) fn write(&mut self, pools: &Pools, row: usize, next: Record) -> Row {
        let next = Arc::new(next);
        let Some(before) = self.rows.get(row).cloned() else { return next };
        if row < pools.submissions {
            let is_end = next.state().is_terminal() && !before.state().is_terminal();
            let runs = self.programs.iter().any(|program| program.command == Some(row));
            let has_started = self.starts.get(row).is_some_and(|attempts| attempts.contains(&before.attempt.number));
            let is_failure = is_end && next.state() == State::Failed;
            let unclaimed = before.state() == State::Queued && !before.ran_before;
            let code = next.attempt.exit_code;
            let codes = self.codes.get(row);
            let is_returned = code.is_none_or(|code| codes.is_some_and(|codes| codes.contains(&code)));
            self.break_if(PoolPromise::EndsAfterCommand, is_end && runs);
            self.break_if(PoolPromise::UnclaimedNotFailed, is_failure && unclaimed);
            self.break_if(PoolPromise::Started, is_failure && !unclaimed && !has_started && !self.harmed);
            let changed = before.state() != next.state() || before.attempt.exit_code != next.attempt.exit_code;
            self.break_if(PoolPromise::Final, before.state().is_terminal() && changed);
            let is_code = is_returned && (next.state() == State::Succeeded) == (is_end && code == Some(0));
            self.break_if(PoolPromise::ExitCode, is_end && !is_code);
            self.break_if(PoolPromise::Request, next.state().is_terminal() == next.request.is_some());
        }
        if let Some(slot) = self.rows.get_mut(row) {
            *slot = Arc::clone(&next);
        }
        next
    }

    /// Decides on the version that was read, or on the current one if the row has changed, and writes. Returns the row and
    /// the action.
    pub(super) fn apply(
        &mut self,
        pools: &Pools,
        row: usize,
        read: Row,
        input: &Input,
    ) -> Option<(Row, Option<Action>)> {
        let current = self.rows.get(row)?.clone();
        let read = if read.rev == current.rev { read } else { current };
        let decision = pools.decide(&read, input, Scenario::at(self.now));
        Some(match decision.record {
            Some(next) => (self.write(pools, row, next), decision.action),
            None => (read, decision.action),
        })
    }

    /// Decides on the version that was read, and writes if the row has not changed since. `anyway` omits this condition.
    pub(super) fn write_if_unchanged(
        &mut self,
        pools: &Pools,
        row: usize,
        read: &Row,
        input: PoolInput,
        anyway: bool,
    ) -> Option<Row> {
        let is_current = self.rows.get(row).is_some_and(|current| current.rev == read.rev);
        let next = pools.decide(read, &Input::Pool(input), Scenario::at(self.now)).record?;
        (is_current || anyway).then(|| self.write(pools, row, next))
    }

    /// Ends a container, and sends the event of its task.
    pub(super) fn end_container(&mut self, runner: usize, code: i32) {
        if let Some(program) = self.programs.get_mut(runner) {
            program.ended = Some(code);
            program.version += 1;
            (program.command, program.done, program.is_polling) = (None, None, false);
        }
        if let Some(task) = self.task(runner) {
            self.events.push((runner, task));
        }
    }

    /// Records a poll of each idle program. They poll continually, and get no command.
    pub(super) fn poll_idle(&mut self, pools: &Pools) {
        for runner in (0..pools.runners).filter(|runner| self.is_open(pools, *runner)).collect::<Vec<_>>() {
            let row = pools.submissions + runner;
            let process = self.programs.get(runner).map(|program| incarnation(program.incarnation));
            if let (Some(process), Some(read)) = (process, self.rows.get(row).cloned()) {
                self.apply(pools, row, read, &Input::Pool(PoolInput::Contact(process)));
            }
        }
    }
}
