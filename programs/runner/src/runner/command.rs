//! Running a command: forked by the zygote, or started in a new process.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::Runner;
use crate::api::Run;
use crate::events::Event;
use crate::log::log;
use crate::process::{kill_descendants, signal_group, spawn};
use crate::zygote::{Reply, Zygote};

/// The period for which a command waits for the zygote's imports. They take about 3 s, and more on a throttled CPU.
const ZYGOTE_READY: Duration = Duration::from_secs(60);
/// The timeout of a fork, which normally takes milliseconds.
const ZYGOTE_FORK: Duration = Duration::from_secs(10);
/// The period for which leftover processes may take to die after SIGKILL.
const LEFTOVERS: Duration = Duration::from_secs(10);
/// The longest wait for one event while a command runs.
const EVENT_WAIT: Duration = Duration::from_secs(3600);

impl Runner {
    /// Runs a command, and returns its exit code. Returns `None` if it was not started.
    pub(super) fn execute(&mut self, run: &Run) -> Option<i32> {
        self.ended.clear();
        while let Ok(event) = self.events.try_recv() {
            self.handle(event, None);
        }
        let forked = self.fork(run);
        if self.stopping {
            log!("{} is not started: this runner is being stopped; another runner starts it", run.submission_id);
            return None;
        }
        let exit_code = match forked.map_or_else(|| spawn(run), Ok) {
            Ok(pid) => self.until_ended(pid),
            Err(error) => {
                log!("{} cannot be started: {}", run.submission_id, error.message);
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
        if !self.await_zygote(ZYGOTE_READY, ready)? {
            return None;
        }
        if let Err(error) = self.zygote.as_mut()?.fork(run) {
            self.drop_zygote(&error.to_string());
        }
        let pid = match self.await_zygote(ZYGOTE_FORK, Zygote::take_reply)? {
            Reply::Forked(pid) => pid,
            Reply::Declined(reason) => {
                log!("the zygote declined {}: {reason}; starting it in a new process", run.submission_id);
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
    fn await_zygote<T>(&mut self, timeout: Duration, read: impl Fn(&mut Zygote) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let reply = read(self.zygote.as_mut()?);
            if self.stopping {
                // A process that waits for `go` detects the closed socket and exits.
                self.zygote = None;
                return None;
            }
            if reply.is_some() {
                return reply;
            }
            if Instant::now() >= deadline {
                self.drop_zygote("it did not reply in time");
            }
            self.handle_next(deadline, None);
        }
    }

    /// Stops using the zygote.
    pub(super) fn drop_zygote(&mut self, why: &str) {
        if self.zygote.take().is_some() {
            log!("the zygote is unusable ({why}); each command is started in a new process");
        }
    }

    /// Forwards signals to a command until it exits, then kills the processes that it left behind, as the end of a
    /// container does.
    fn until_ended(&mut self, pid: Pid) -> i32 {
        let exit_code = loop {
            if let Some(ended) = self.ended.iter().find(|ended| ended.pid == pid) {
                break ended.exit_code;
            }
            self.handle_next(Instant::now() + EVENT_WAIT, Some(pid));
        };
        signal_group(pid, Signal::KILL);
        let deadline = Instant::now() + LEFTOVERS;
        let zygote = self.zygote.as_ref().map(Zygote::pid);
        // Scan twice: /proc is not a snapshot, and an orphan has no parent until it is reparented.
        while kill_descendants(zygote) || kill_descendants(zygote) {
            if Instant::now() >= deadline {
                log!(
                    "cannot kill the processes that a command left behind: this runner stops, and reconcile replaces it"
                );
                self.stopping = true;
                break;
            }
            self.handle_next(Instant::now() + Duration::from_millis(20), None);
        }
        self.handle(Event::ChildEnded, None);
        exit_code
    }
}
