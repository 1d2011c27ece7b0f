//! The main loop: polls for a command, runs it and reports its exit code, until the runner must exit.

use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::api::{Answer, AskError, Done, Run, RunnerApi};
use crate::doorbell::{Doorbell, Heard, LONGEST_WAIT};
use crate::process::{Ended, kill_descendants, reap, signal_group, spawn};
use crate::zygote::{Reply, Zygote};
use crate::{Event, say};

/// The maximum delay between two calls.
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);
/// The period after which a rejected idle runner exits. New roles and policies take time to reach every part of AWS.
const REJECTED_FOR: Duration = Duration::from_secs(60);
/// The period for which a failed call is retried. reconcile stops a silent runner long before.
const UNANSWERED_FOR: Duration = Duration::from_secs(3600);
/// The period for which a command waits for the zygote's imports. They take about 3 s, and more on a throttled CPU.
const ZYGOTE_READY: Duration = Duration::from_secs(60);
/// The timeout of a fork, which normally takes milliseconds.
const ZYGOTE_FORK: Duration = Duration::from_secs(10);
/// The period for which leftover processes may take to die after SIGKILL.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// The age, relative to the last poll, up to which a message can announce a new submission. Dates have a resolution
/// of one second, and the index that the runner API reads shows a submission slightly later.
const STILL_NEW: Duration = Duration::from_secs(5);
/// The period for which a runner polls at intervals after its doorbell has failed.
const DEAF_FOR: Duration = Duration::from_secs(300);

/// The outcome of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The runner API closed it, or it was stopped.
    Closed,
    /// It has no credentials.
    NoCredentials,
    /// The runner API or Lambda rejects it.
    Refused,
    /// Another process runs as this runner.
    OtherIncarnation,
    /// There was no response for an hour, or none before it was stopped.
    Unreachable,
}

impl End {
    /// Returns the outcome of a runner whose calls all fail with this error.
    const fn of(error: &AskError) -> Self {
        match error {
            AskError::Refused(_) | AskError::Rejected { .. } | AskError::ClockSkew(_) => Self::Refused,
            AskError::OtherIncarnation(_) => Self::OtherIncarnation,
            AskError::Credentials(_) => Self::NoCredentials,
            AskError::Unavailable(_) => Self::Unreachable,
        }
    }
}

/// A runner.
pub struct Runner {
    api: RunnerApi,
    events: Receiver<Event>,
    zygote: Option<Zygote>,
    doorbell: Option<Doorbell>,
    /// The result of the doorbell's last wait.
    heard: Option<Heard>,
    /// The time until which the doorbell is not used because it has failed.
    deaf_until: Option<Instant>,
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
            heard: None,
            deaf_until: None,
            interval,
            stopping: false,
            finished: HashMap::new(),
            ended: Vec::new(),
            failures: Failures::default(),
            has_contact: false,
        }
    }

    /// Runs commands until the runner must exit.
    pub fn run(mut self) -> End {
        let mut done: Option<Done> = None;
        let mut rung_for: Option<String> = None;
        loop {
            let stopping = self.stopping;
            let asked_at = Instant::now();
            match self.api.ask(done.as_ref(), stopping, rung_for.take().as_deref()) {
                Ok(_) if stopping => return End::Closed,
                Ok(answer) => {
                    self.has_contact = true;
                    self.failures = Failures::default();
                    done = None;
                    match answer {
                        Answer::Run(run) => done = self.serve(&run),
                        Answer::Wait { ask_after, rest } => rung_for = self.rest(ask_after, rest, asked_at),
                        Answer::Close => return End::Closed,
                    }
                }
                Err(error) => {
                    // The report is not retried because the task's own event reports the same. A runner without any
                    // response was stopped for that reason, and its exit code shows it.
                    if stopping && done.is_none() {
                        say!("{error}");
                        return if self.has_contact { End::Closed } else { End::of(&error) };
                    }
                    if let Some(end) = self.failures.add(&error, done.is_some(), Instant::now()) {
                        say!("{error}; giving up");
                        return end;
                    }
                    self.wait(self.failures.backoff(self.interval));
                }
            }
        }
    }

    /// Runs a command unless it ran before. Returns its completion, or `None` if it was not started.
    fn serve(&mut self, run: &Run) -> Option<Done> {
        let id = &run.submission_id;
        let exit_code = match self.finished.get(id) {
            Some(exit_code) => {
                say!("{id} has ended with exit code {exit_code}, and is not started again");
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
        Some(Done { submission_id: id.clone(), exit_code })
    }

    fn execute(&mut self, run: &Run) -> Option<i32> {
        self.ended.clear();
        while let Ok(event) = self.events.try_recv() {
            self.handle(event, None);
        }
        let forked = self.fork(run);
        if self.stopping {
            say!("{} is not started: this runner is being stopped", run.submission_id);
            return None;
        }
        let exit_code = match forked.map_or_else(|| spawn(run), Ok) {
            Ok(pid) => self.until_ended(pid),
            Err(error) => {
                say!("{} cannot be started: {}", run.submission_id, error.message);
                error.exit_code
            }
        };
        Some(exit_code)
    }

    /// Makes the zygote fork and start a command. Returns `None` if this program must start it.
    fn fork(&mut self, run: &Run) -> Option<Pid> {
        let ready = |zygote: &mut Zygote| match zygote.can_run(run) {
            Some(false) => Some(false),
            Some(true) => zygote.is_ready().then_some(true),
            None => None,
        };
        if !self.ask_zygote(ZYGOTE_READY, ready)? {
            return None;
        }
        if let Err(error) = self.zygote.as_mut()?.fork(run) {
            self.drop_zygote(&error.to_string());
        }
        let pid = match self.ask_zygote(ZYGOTE_FORK, Zygote::take_reply)? {
            Reply::Forked(pid) => pid,
            Reply::Declined(reason) => {
                say!("the zygote declined {}: {reason}", run.submission_id);
                return None;
            }
        };
        match self.zygote.as_mut()?.go() {
            Ok(()) => Some(pid),
            // No process reads the socket any more, so nothing was started.
            Err(error) => {
                self.drop_zygote(&error.to_string());
                None
            }
        }
    }

    /// Waits until the zygote has replied. Returns `None` if there is no zygote or this runner is being stopped.
    fn ask_zygote<T>(&mut self, at_most: Duration, answer: impl Fn(&mut Zygote) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + at_most;
        loop {
            let answered = answer(self.zygote.as_mut()?);
            if self.stopping {
                // A process that waits for `go` detects the closed socket and exits.
                self.zygote = None;
                return None;
            }
            if answered.is_some() {
                return answered;
            }
            if Instant::now() >= deadline {
                self.drop_zygote("it does not answer");
            }
            self.handle_next(deadline, None);
        }
    }

    fn drop_zygote(&mut self, why: &str) {
        if self.zygote.take().is_some() {
            say!("the zygote is unusable ({why}); each command is started in a new process");
        }
    }

    /// Forwards signals to a command until it exits, then kills the processes that it left behind, as the end of a
    /// container does.
    fn until_ended(&mut self, pid: Pid) -> i32 {
        let exit_code = loop {
            if let Some(ended) = self.ended.iter().find(|ended| ended.pid == pid) {
                break ended.exit_code;
            }
            self.handle_next(Instant::now() + UNANSWERED_FOR, Some(pid));
        };
        signal_group(pid, Signal::KILL);
        let deadline = Instant::now() + LEFTOVERS;
        let zygote = self.zygote.as_ref().map(Zygote::pid);
        // Scan twice: /proc is not a snapshot, and an orphan has no parent until it is reparented.
        while kill_descendants(zygote) || kill_descendants(zygote) {
            if Instant::now() >= deadline {
                say!("processes that a command left behind cannot be killed; this runner ends");
                self.stopping = true;
                break;
            }
            self.handle_next(Instant::now() + Duration::from_millis(20), None);
        }
        self.handle(Event::ChildEnded, None);
        exit_code
    }

    /// Waits for the doorbell, up to `rest`, and returns the announced submission. Without a working doorbell, waits
    /// for `ask_after`. The last poll was at `asked_at`.
    fn rest(&mut self, ask_after: Duration, rest: Option<Duration>, asked_at: Instant) -> Option<String> {
        let is_deaf = self.deaf_until.is_some_and(|until| Instant::now() < until);
        let Some(rest) = rest.filter(|_| self.doorbell.is_some() && !is_deaf) else {
            self.wait(jitter(ask_after));
            return None;
        };
        // The wait must not exceed `rest`, because the bridge considers a runner that polls later as lost.
        let deadline = Instant::now() + rest.mul_f64(0.9 + 0.1 * fastrand::f64());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.stopping || left < Duration::from_secs(1) {
                self.wait(left);
                return None;
            }
            match self.listen(left) {
                // The last poll already covered messages that were sent before it.
                Some(Ok(Some(ring))) if ring.age > asked_at.elapsed() + STILL_NEW => {}
                Some(Ok(Some(ring))) => return Some(ring.submission_id),
                Some(Ok(None)) => {}
                None => return None,
                Some(Err(error)) => {
                    say!("the doorbell cannot be heard: {error}; asking every {} ms instead", ask_after.as_millis());
                    self.deaf_until = Some(Instant::now() + DEAF_FOR);
                    self.wait(jitter(ask_after));
                    return None;
                }
            }
        }
    }

    /// Waits once for the doorbell. Returns `None` if this runner is being stopped.
    fn listen(&mut self, at_most: Duration) -> Option<Heard> {
        self.heard = None;
        self.doorbell.as_ref()?.listen(at_most);
        while self.heard.is_none() && !self.stopping {
            self.handle_next(Instant::now() + LONGEST_WAIT, None);
        }
        self.heard.take()
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
                        self.drop_zygote(&format!("it ended with exit code {}", ended.exit_code));
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
            Event::Heard(heard) => self.heard = Some(heard),
        }
    }
}

/// Returns 90% to 110% of the duration, so that runners that started together do not poll in step.
fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Consecutive calls without a usable response.
#[derive(Default)]
struct Failures {
    count: u32,
    since: Option<Instant>,
    printed: String,
}

impl Failures {
    /// Counts a failure, and prints it if it differs from the previous one. Returns the outcome if it ends the
    /// runner.
    fn add(&mut self, error: &AskError, done: bool, now: Instant) -> Option<End> {
        self.count += 1;
        let since = *self.since.get_or_insert(now);
        let patience = match error {
            // An operator may fix the deployment's roles.
            AskError::Refused(_) if done => UNANSWERED_FOR,
            AskError::Refused(_) | AskError::OtherIncarnation(_) => Duration::ZERO,
            AskError::Rejected { .. } | AskError::ClockSkew(_) | AskError::Credentials(_) => REJECTED_FOR,
            AskError::Unavailable(_) => UNANSWERED_FOR,
        };
        // Only this process knows the exit code.
        let patience = if done && !patience.is_zero() { UNANSWERED_FOR } else { patience };
        if now.duration_since(since) >= patience {
            return Some(End::of(error));
        }
        let message = error.to_string();
        if message != self.printed {
            say!("{message}; trying again");
            self.printed = message;
        }
        None
    }

    /// Returns between half and all of an exponentially growing delay.
    fn backoff(&self, first: Duration) -> Duration {
        let longest = first.saturating_mul(1 << self.count.saturating_sub(1).min(16)).min(LONGEST_BACKOFF);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::CallError;

    /// Returns the outcome of a runner that gets only this error, and the seconds until its exit.
    fn end(error: AskError, done: bool) -> (End, u64) {
        let (mut failures, start) = (Failures::default(), Instant::now());
        (0..)
            .find_map(|seconds| Some((failures.add(&error, done, start + Duration::from_secs(seconds))?, seconds)))
            .unwrap()
    }

    fn no_credentials() -> AskError {
        AskError::Credentials(CallError::Credentials(String::new()))
    }

    #[test]
    fn done_without_response_is_retried_for_an_hour() {
        assert_eq!(end(AskError::Unavailable("no route".into()), true), (End::Unreachable, 3600));
        assert_eq!(end(AskError::Rejected { status: 403, message: String::new() }, true), (End::Refused, 3600));
        assert_eq!(end(no_credentials(), true), (End::NoCredentials, 3600));
    }

    #[test]
    fn idle_runner_without_permission_exits_after_a_minute() {
        assert_eq!(end(AskError::Rejected { status: 403, message: String::new() }, false), (End::Refused, 60));
        assert_eq!(end(no_credentials(), false), (End::NoCredentials, 60));
    }

    #[test]
    fn function_rejection_ends_runner_at_once() {
        assert_eq!(end(AskError::Refused(String::new()), false), (End::Refused, 0));
        assert_eq!(end(AskError::Refused(String::new()), true), (End::Refused, 3600), "only it knows the exit code");
        assert_eq!(end(AskError::OtherIncarnation(String::new()), true), (End::OtherIncarnation, 0));
    }

    #[test]
    fn delays_grow_to_twenty_seconds() {
        let backoff = |count| Failures { count, ..Failures::default() }.backoff(Duration::from_secs(1));
        for _ in 0..100 {
            assert!((500..=1000).contains(&backoff(1).as_millis()));
            assert!((2000..=4000).contains(&backoff(3).as_millis()));
            assert!((10_000..=20_000).contains(&backoff(1000).as_millis()));
        }
    }
}
