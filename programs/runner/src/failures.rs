//! Consecutive failed calls: retries, and the end of the runner.

use std::time::{Duration, Instant};

use crate::api::PollError;
use crate::log::log;
use crate::outcome::Outcome;

/// The maximum delay between two calls.
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);
/// The period after which a rejected idle runner exits. New roles and policies take time to reach every part of AWS.
const REJECTED_FOR: Duration = Duration::from_secs(60);
/// The period for which a failed call is retried. reconcile stops a silent runner long before.
const UNANSWERED_FOR: Duration = Duration::from_secs(3600);

/// Consecutive calls without a usable response.
#[derive(Default)]
pub struct Failures {
    count: u32,
    since: Option<Instant>,
    printed: String,
}

impl Failures {
    /// Counts a failure, and prints it if it differs from the previous one. Returns the outcome if it ends the
    /// runner.
    pub fn add(&mut self, error: &PollError, done: bool, now: Instant) -> Option<Outcome> {
        self.count += 1;
        let since = *self.since.get_or_insert(now);
        let patience = match error {
            // An operator may fix the deployment's roles.
            PollError::RunnerRejected(_) if done => UNANSWERED_FOR,
            PollError::RunnerRejected(_) | PollError::OtherIncarnation(_) => Duration::ZERO,
            PollError::CallRejected { .. } | PollError::ClockSkew(_) | PollError::Credentials(_) => REJECTED_FOR,
            PollError::Unavailable(_) => UNANSWERED_FOR,
        };
        // Only this process knows the exit code.
        let patience = if done && !patience.is_zero() { UNANSWERED_FOR } else { patience };
        if now.duration_since(since) >= patience {
            return Some(Outcome::of(error));
        }
        let message = error.to_string();
        if message != self.printed {
            log!("{message}; retrying");
            self.printed = message;
        }
        None
    }

    /// Returns between half and all of an exponentially growing delay.
    pub fn backoff(&self, first: Duration) -> Duration {
        let longest = first.saturating_mul(1 << self.count.saturating_sub(1).min(16)).min(LONGEST_BACKOFF);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::CallError;

    /// Returns the outcome of a runner that gets only this error, and the seconds until its exit.
    fn outcome(error: PollError, done: bool) -> (Outcome, u64) {
        let (mut failures, start) = (Failures::default(), Instant::now());
        (0..)
            .find_map(|seconds| Some((failures.add(&error, done, start + Duration::from_secs(seconds))?, seconds)))
            .unwrap()
    }

    fn no_credentials() -> PollError {
        PollError::Credentials(CallError::Credentials(String::new()))
    }

    #[test]
    fn completion_without_response_is_retried_for_an_hour() {
        assert_eq!(outcome(PollError::Unavailable("no route".into()), true), (Outcome::Unreachable, 3600));
        assert_eq!(
            outcome(PollError::CallRejected { status: 403, message: String::new() }, true),
            (Outcome::Rejected, 3600)
        );
        assert_eq!(outcome(no_credentials(), true), (Outcome::NoCredentials, 3600));
    }

    #[test]
    fn idle_runner_without_permission_exits_after_a_minute() {
        assert_eq!(
            outcome(PollError::CallRejected { status: 403, message: String::new() }, false),
            (Outcome::Rejected, 60)
        );
        assert_eq!(outcome(no_credentials(), false), (Outcome::NoCredentials, 60));
    }

    #[test]
    fn function_rejection_ends_runner_at_once() {
        assert_eq!(outcome(PollError::RunnerRejected(String::new()), false), (Outcome::Rejected, 0));
        assert_eq!(
            outcome(PollError::RunnerRejected(String::new()), true),
            (Outcome::Rejected, 3600),
            "only it knows the exit code"
        );
        assert_eq!(outcome(PollError::OtherIncarnation(String::new()), true), (Outcome::OtherIncarnation, 0));
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
