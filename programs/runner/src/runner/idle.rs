//! Waiting for the next poll: for a message in the doorbell queue, or for a fixed time.

use std::time::{Duration, Instant};

use super::{Runner, jitter};
use crate::doorbell::{LONGEST_WAIT, Received};
use crate::log::log;

/// The age, relative to the last poll, up to which a message can announce a new submission. Dates have a resolution
/// of one second, and the index that the runner API reads shows a submission slightly later.
const STILL_NEW: Duration = Duration::from_secs(5);
/// The period for which a runner polls at intervals after a failed call to its doorbell queue.
const DOORBELL_RETRY: Duration = Duration::from_secs(300);

impl Runner {
    /// Waits for a doorbell message, up to `rest`, and returns the announced submission. Without a working doorbell, waits
    /// for `poll_after`. The last poll was at `polled_at`.
    pub(super) fn rest(&mut self, poll_after: Duration, rest: Option<Duration>, polled_at: Instant) -> Option<String> {
        let has_failed = self.doorbell_failed_until.is_some_and(|until| Instant::now() < until);
        let Some(rest) = rest.filter(|_| self.doorbell.is_some() && !has_failed) else {
            self.wait(jitter(poll_after));
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
            match self.receive(left) {
                // The last poll already covered messages that were sent before it.
                Some(Ok(Some(message))) if message.age > polled_at.elapsed() + STILL_NEW => {}
                Some(Ok(Some(message))) => return Some(message.submission_id),
                Some(Ok(None)) => {}
                None => return None,
                Some(Err(error)) => {
                    log!(
                        "cannot receive from the doorbell queue: {error}; polling every {} ms instead; see \"doorbell\" in \
                         docs/pools.md",
                        poll_after.as_millis()
                    );
                    self.doorbell_failed_until = Some(Instant::now() + DOORBELL_RETRY);
                    self.wait(jitter(poll_after));
                    return None;
                }
            }
        }
    }

    /// Waits once for a doorbell message. Returns `None` if this runner is being stopped.
    fn receive(&mut self, timeout: Duration) -> Option<Received> {
        self.received = None;
        self.doorbell.as_ref()?.receive(timeout);
        while self.received.is_none() && !self.stopping {
            self.handle_next(Instant::now() + LONGEST_WAIT, None);
        }
        self.received.take()
    }
}
