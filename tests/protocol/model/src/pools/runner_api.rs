//! The steps of runner-api for one poll, as in its loop.

use std::sync::Arc;

use ecs_bridge_core::{
    Input,
    decide::{
        PoolInput,
        pool::{RunnerStatus, Served, runner_status, served},
    },
    pool::Process,
};

use super::{
    bug::PoolBug,
    function::{Poll, PollStep, Reply, Row},
    promise::PoolPromise,
    scenario::{Pools, incarnation},
    world::PoolWorld,
};
use crate::scenario::Scenario;

/// The number of claims that runner-api begins for one poll.
const TRIES: u8 = 3;

impl PoolWorld {
    /// Runs one step of runner-api. Returns the next step, or none after the response.
    pub(super) fn run_poll(&mut self, pools: &Pools, poll: Poll, step: PollStep, choice: usize) -> Option<PollStep> {
        let runner_row = pools.submissions + poll.runner;
        let own = if pools.has(PoolBug::IncarnationIgnored) { 0 } else { poll.incarnation };
        let by = Process { runner_id: pools.id(runner_row), incarnation: incarnation(own) };
        Some(match step {
            PollStep::RecordResult(row) => {
                if let Some((submission, exit_code)) = poll.done {
                    let read = self.rows.get(submission)?.clone();
                    let done = PoolInput::Done { by, exit_code, stopping: poll.stopping };
                    self.apply(pools, submission, read, &Input::Pool(done))?;
                }
                PollStep::RecordContact(row)
            }
            PollStep::RecordContact(row) => {
                let contact = Input::Pool(PoolInput::Contact(by.incarnation));
                PollStep::Choose(self.apply(pools, runner_row, row, &contact)?.0, 0)
            }
            PollStep::Choose(row, tries) => {
                let runner = row.runner()?;
                match runner_status(&row, runner, &by.incarnation) {
                    _ if tries == TRIES => return Some(PollStep::Respond(Reply::Wait)),
                    RunnerStatus::Taken => return Some(PollStep::Respond(Reply::Conflict)),
                    RunnerStatus::Close => return Some(PollStep::Respond(Reply::Close)),
                    RunnerStatus::TooEarly => return Some(PollStep::Respond(Reply::Wait)),
                    RunnerStatus::Open if poll.stopping && !pools.has(PoolBug::CommandWhileStopping) => {
                        return Some(PollStep::Respond(Reply::Wait));
                    }
                    RunnerStatus::Open => {}
                }
                if let Some(serves) = &runner.serves {
                    let submission = pools.place(serves)?;
                    let read = self.rows.get(submission)?.clone();
                    return Some(match served(Some(&read), &by) {
                        Served::Ours => PollStep::Respond(Reply::Run(submission, read.attempt.number)),
                        Served::Untaken if pools.has(PoolBug::ServesCleared) => {
                            PollStep::ClearServes(Arc::clone(&row), serves.clone(), false, tries)
                        }
                        Served::Untaken => self.serve_or_expire(pools, Arc::clone(&row), submission, read, tries)?,
                        Served::Over(done) => PollStep::ClearServes(Arc::clone(&row), serves.clone(), done, tries),
                    });
                }
                let mut waiting = (0..pools.submissions).filter(|submission| self.is_waiting(*submission));
                match waiting.nth(choice) {
                    None => PollStep::Respond(Reply::Wait),
                    Some(submission) => {
                        let read = self.rows.get(submission)?.clone();
                        if pools.has(PoolBug::ServesAfterClaim) {
                            PollStep::Claim(row, submission, read, tries)
                        } else {
                            self.serve_or_expire(pools, row, submission, read, tries)?
                        }
                    }
                }
            }
            PollStep::RecordServes(row, submission, read, tries) => {
                let serve = PoolInput::Serve(pools.id(submission));
                match self.write_if_unchanged(pools, runner_row, &row, serve, false) {
                    None => PollStep::Reread(tries + 1),
                    Some(_) if pools.has(PoolBug::ServesAfterClaim) => {
                        PollStep::Respond(Reply::Run(submission, read.attempt.number))
                    }
                    Some(row) => PollStep::Claim(row, submission, read, tries),
                }
            }
            PollStep::Claim(row, submission, read, tries) => {
                self.break_if(PoolPromise::NoCommandWhileStopping, poll.stopping);
                let claim = PoolInput::Take { by, task_arn: Pools::arn(poll.runner), cluster: row.cluster.clone() };
                let anyway = pools.has(PoolBug::UnconditionalClaim);
                match self.write_if_unchanged(pools, submission, &read, claim, anyway) {
                    None => PollStep::Reread(tries + 1),
                    Some(claimed) if pools.has(PoolBug::ServesAfterClaim) => {
                        PollStep::RecordServes(row, submission, claimed, tries)
                    }
                    Some(claimed) => PollStep::Respond(Reply::Run(submission, claimed.attempt.number)),
                }
            }
            PollStep::ClearServes(row, submission_id, done, tries) => {
                self.write_if_unchanged(pools, runner_row, &row, PoolInput::Served { submission_id, done }, false);
                PollStep::Reread(tries + 1)
            }
            PollStep::Reread(tries) => PollStep::Choose(self.rows.get(runner_row)?.clone(), tries),
            PollStep::Respond(reply) => {
                self.deliver_response(poll, reply);
                return None;
            }
        })
    }

    /// Ends a submission that is past its deadline, and serves any other.
    fn serve_or_expire(
        &mut self,
        pools: &Pools,
        row: Row,
        submission: usize,
        read: Row,
        tries: u8,
    ) -> Option<PollStep> {
        if read.is_past_deadline(Scenario::at(self.now)) {
            self.apply(pools, submission, read, &Input::Due)?;
            return Some(PollStep::Reread(tries + 1));
        }
        Some(PollStep::RecordServes(row, submission, read, tries))
    }

    /// Delivers the response to the program, if it still waits for it.
    fn deliver_response(&mut self, poll: Poll, reply: Reply) {
        if !poll.is_awaited {
            return;
        }
        let is_another = self.programs.get(poll.runner).is_none_or(|program| program.incarnation != poll.incarnation);
        if let Reply::Run(submission, attempt) = reply {
            let program = self.programs.get(poll.runner);
            let starts = is_another
                || program.is_some_and(|program| !program.started.contains(&submission) && !program.signalled);
            if starts && program.is_some_and(|program| program.ended.is_none()) {
                let concurrent = self.programs.iter().any(|program| program.command == Some(submission));
                let twice = self.starts.get(submission).is_some_and(|attempts| attempts.contains(&attempt));
                self.break_if(PoolPromise::OneStart, concurrent || twice);
                if let Some(attempts) = self.starts.get_mut(submission) {
                    attempts.push(attempt);
                }
            }
        }
        if is_another {
            // The process no longer exists, or is a second one, which exits.
            return;
        }
        let Some(program) = self.programs.get_mut(poll.runner).filter(|program| program.ended.is_none()) else {
            return;
        };
        program.is_polling = false;
        program.done = program.done.filter(|_| poll.done.is_none());
        match reply {
            Reply::Run(submission, _) if !program.started.contains(&submission) && !program.signalled => {
                program.started.push(submission);
                program.command = Some(submission);
            }
            Reply::Run(..) | Reply::Wait => {}
            Reply::Close => self.end_container(poll.runner, 0),
            Reply::Conflict => self.end_container(poll.runner, 201),
        }
    }
}
