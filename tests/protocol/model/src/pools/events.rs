//! The steps of task-state and reconcile: decide on an input, write, and act.

use ecs_bridge_core::{
    Action, Input, Task,
    decide::{AfterStop, PoolInput},
};

use super::{
    bug::PoolBug,
    function::{EcsAction, Function, Row},
    promise::PoolPromise,
    scenario::Pools,
    world::PoolWorld,
};
use crate::scenario::Scenario;

impl PoolWorld {
    /// Runs one step of a function.
    pub(super) fn run(&mut self, pools: &Pools, function: Function, choice: usize) -> Option<()> {
        match function {
            Function::RunnerApi(poll, step) => {
                if let Some(next) = self.run_poll(pools, poll, step, choice) {
                    self.functions.push(Function::RunnerApi(poll, next));
                }
            }
            Function::Apply { row, read, input } => {
                let (_, action) = self.apply(pools, row, read, &input)?;
                self.follow_up(row, action);
            }
            Function::Seen { runner, read, task, is_reported } => {
                self.handle_seen(pools, runner, read, task, is_reported)?
            }
            Function::Act { row, action } => self.perform(pools, row, action)?,
        }
        Some(())
    }

    /// Performs an action that follows a write of this row.
    fn perform(&mut self, pools: &Pools, row: usize, action: EcsAction) -> Option<()> {
        let runner = row.checked_sub(pools.submissions);
        match (action, runner) {
            (EcsAction::Describe, Some(runner)) => {
                let (read, task) = (self.rows.get(row)?.clone(), self.task(runner)?);
                self.functions.push(Function::Seen { runner, read, task, is_reported: false });
            }
            (EcsAction::Describe, None) => {
                let read = self.rows.get(row)?.clone();
                let claimed = pools.place(&read.taken()?.runner_id)? - pools.submissions;
                let seen = PoolInput::RunnerSeen(pools.id(pools.submissions + claimed), Box::new(self.task(claimed)?));
                self.functions.push(Function::Apply { row, read, input: Input::Pool(seen) });
            }
            (EcsAction::Close { describes }, _) => {
                let runner_id = self.rows.get(row)?.taken()?.runner_id.clone();
                let runner_row = pools.place(&runner_id)?;
                let runner = runner_row - pools.submissions;
                let read = self.rows.get(runner_row)?.clone();
                let close = Input::Pool(PoolInput::Close(Some(pools.id(row))));
                let serves = if pools.has(PoolBug::StopWithoutClosing) {
                    true
                } else {
                    let (closed, _) = self.apply(pools, runner_row, read, &close)?;
                    closed.runner().is_some_and(|runner| runner.serves.as_ref() == Some(&pools.id(row)))
                };
                if serves {
                    self.functions.push(Function::Act { row, action: EcsAction::StopTask { runner, describes } });
                }
            }
            (EcsAction::StopTask { runner: of, describes }, runner) => {
                let of = runner.unwrap_or(of);
                let hit = self.programs.get(of).and_then(|program| program.command);
                let is_other = hit.is_some_and(|hit| hit != row) && (runner.is_none() || !self.harmed);
                self.break_if(PoolPromise::StopAffectsOnlyTarget, is_other);
                self.harmed = true;
                if let Some(program) = self.programs.get_mut(of).filter(|program| program.ended.is_none()) {
                    program.signalled = true;
                }
                if describes {
                    self.functions.push(Function::Act { row, action: EcsAction::Describe });
                }
            }
        }
        Some(())
    }

    /// Adds the function that performs the action of a write.
    fn follow_up(&mut self, row: usize, action: Option<Action>) {
        let action = match action {
            Some(Action::Describe { .. }) => EcsAction::Describe,
            Some(Action::Stop { runner, then, .. }) => {
                let describes = then == AfterStop::Describe;
                match runner {
                    Some(_) => EcsAction::Close { describes },
                    None => EcsAction::StopTask { runner: usize::MAX, describes },
                }
            }
            // There are no notifications in this world.
            Some(Action::RunTask(_) | Action::LookUp(_) | Action::Notify(_)) | None => return,
        };
        self.functions.push(Function::Act { row, action });
    }

    /// Handles an observation of a runner's task: first for the submission that the runner serves, then for its own row.
    fn handle_seen(&mut self, pools: &Pools, runner: usize, read: Row, task: Task, is_reported: bool) -> Option<()> {
        let row = pools.submissions + runner;
        let input = Input::Seen(task.clone());
        let decision = pools.decide(&read, &input, Scenario::at(self.now));
        let Some(next) = decision.record else {
            self.follow_up(row, decision.action);
            return Some(());
        };
        if !is_reported {
            if let Some(submission) = read.runner().and_then(|runner| pools.place(runner.serves.as_ref()?)) {
                let served = self.rows.get(submission)?.clone();
                let is_claimed = served.taken().is_some_and(|taken| taken.runner_id == read.submission_id);
                let report = match (is_claimed, task.is_stopped()) {
                    (true, _) => Some(PoolInput::RunnerSeen(read.submission_id.clone(), Box::new(task.clone()))),
                    (false, true) if pools.has(PoolBug::EventToOtherRunner) && served.taken().is_some() => {
                        let (of, arn) = (served.taken()?.runner_id.clone(), served.attempt.task_arn.clone()?);
                        Some(PoolInput::RunnerSeen(of, Box::new(Task { arn, version: Some(u64::MAX), ..task.clone() })))
                    }
                    (false, true) => Some(PoolInput::RunnerGone),
                    (false, false) => None,
                };
                if let Some(report) = report {
                    let (_, action) = self.apply(pools, submission, served, &Input::Pool(report))?;
                    self.follow_up(submission, action);
                }
            }
            self.functions.push(Function::Seen { runner, read, task, is_reported: true });
            return Some(());
        }
        if self.rows.get(row)?.rev == read.rev {
            self.write(pools, row, next);
            self.follow_up(row, decision.action);
        } else {
            let read = self.rows.get(row)?.clone();
            self.functions.push(Function::Seen { runner, read, task, is_reported: false });
        }
        Some(())
    }
}
