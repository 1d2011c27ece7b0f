//! The main loop: polls for a command, runs it and reports its exit code, until the runner must exit.

mod command;
mod idle;

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::api::{Completion, Instruction, Run, RunnerApi};
use crate::doorbell::{Doorbell, Received};
use crate::events::Event;
use crate::failures::Failures;
use crate::log::log;
use crate::outcome::Outcome;
use crate::process::{Ended, reap, signal_group};
use crate::zygote::Zygote;

/// A runner.
pub struct Runner {
    api: RunnerApi,
    events: Receiver<Event>,
    zygote: Option<Zygote>,
    doorbell: Option<Doorbell>,
    /// The result of the last wait for a doorbell message.
    received: Option<Received>,
    /// The time until which the doorbell is not used because a call failed.
    doorbell_failed_until: Option<Instant>,
    interval: Duration,
    /// `true` if it must stop.
    stopping: bool,
    /// The exit codes of all commands that it ran. These submissions are never started again.
    finished: HashMap<String, i32>,
    /// The processes that have ended since the current command was received.
    ended: Vec<Ended>,
    failures: Failures,
    /// `true` once the runner API has responded.
    has_contact: bool,
}

impl Runner {
    /// Creates a runner that has not polled yet. `interval` is the first delay after a failed call.
    pub fn new(
        api: RunnerApi,
        events: Receiver<Event>,
        zygote: Option<Zygote>,
        doorbell: Option<Doorbell>,
        interval: Duration,
    ) -> Self {
        Self {
            api,
            events,
            zygote,
            doorbell,
            received: None,
            doorbell_failed_until: None,
            interval,
            stopping: false,
            finished: HashMap::new(),
            ended: Vec::new(),
            failures: Failures::default(),
            has_contact: false,
        }
    }

    /// Runs commands until the runner must exit.
    pub fn run(mut self) -> Outcome {
        let mut done: Option<Completion> = None;
        let mut announced: Option<String> = None;
        loop {
            let stopping = self.stopping;
            let polled_at = Instant::now();
            match self.api.poll(done.as_ref(), stopping, announced.take().as_deref()) {
                Ok(_) if stopping => return Outcome::Closed,
                Ok(instruction) => {
                    self.has_contact = true;
                    self.failures = Failures::default();
                    done = None;
                    match instruction {
                        Instruction::Run(run) => done = self.serve(&run),
                        Instruction::Wait { poll_after, rest } => announced = self.rest(poll_after, rest, polled_at),
                        Instruction::Close => return Outcome::Closed,
                    }
                }
                Err(error) => {
                    // The report is not retried because the task's own event reports the same. A runner without any
                    // response was stopped for that reason, and its exit code shows it.
                    if stopping && done.is_none() {
                        log!("{error}");
                        return if self.has_contact { Outcome::Closed } else { Outcome::of(&error) };
                    }
                    if let Some(outcome) = self.failures.add(&error, done.is_some(), Instant::now()) {
                        log!("{error}; exiting with {}", outcome.exit_code());
                        return outcome;
                    }
                    self.wait(self.failures.backoff(self.interval));
                }
            }
        }
    }

    /// Runs a command unless it ran before. Returns its completion, or `None` if it was not started.
    fn serve(&mut self, run: &Run) -> Option<Completion> {
        let id = &run.submission_id;
        let exit_code = match self.finished.get(id) {
            Some(exit_code) => {
                log!("{id} has already ended with exit code {exit_code}; it is not started again");
                let exit_code = *exit_code;
                self.wait(jitter(self.interval));
                exit_code
            }
            None => {
                let exit_code = self.execute(run)?;
                self.finished.insert(id.clone(), exit_code);
                exit_code
            }
        };
        Some(Completion { submission_id: id.clone(), exit_code })
    }

    /// Waits until the time has elapsed or a signal stops the runner.
    fn wait(&mut self, duration: Duration) {
        let deadline = Instant::now() + duration;
        let stopping = self.stopping;
        while Instant::now() < deadline && self.stopping == stopping {
            self.handle_next(deadline, None);
        }
    }

    /// Handles the next event, if there is one before the deadline.
    fn handle_next(&mut self, deadline: Instant, group: Option<Pid>) {
        if let Ok(event) = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.handle(event, group);
        }
    }

    /// Handles an event. `group` is the process group of the running command.
    fn handle(&mut self, event: Event, group: Option<Pid>) {
        match event {
            Event::ChildEnded => {
                for ended in reap() {
                    if let Some(zygote) = self.zygote.as_mut().filter(|zygote| zygote.pid() == ended.pid) {
                        zygote.has_ended();
                        self.drop_zygote(&format!("it exited with {}", ended.exit_code));
                    } else {
                        self.ended.push(ended);
                    }
                }
            }
            Event::Signal { signal, stops } => {
                self.stopping |= stops;
                if let Some(group) = group {
                    signal_group(group, signal);
                }
            }
            Event::Zygote(message) => {
                if let Some(Err(error)) = self.zygote.as_mut().map(|zygote| zygote.handle(message)) {
                    self.drop_zygote(&error);
                }
            }
            Event::ZygoteClosed => self.drop_zygote("it closed its socket"),
            Event::Doorbell(received) => self.received = Some(received),
        }
    }
}

/// Returns 90% to 110% of the duration, so that runners that started together do not poll in step.
fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}
