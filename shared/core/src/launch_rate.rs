//! The rate at which the deployment calls RunTask: one token bucket for all of its functions.
//!
//! ECS limits launches per account and region, and throttles the rest. The bucket is one row of the table, changed by
//! conditional writes, so that any number of processes stay below the rate together.

use std::time::Duration;

use crate::time::Timestamp;

/// The key of the bucket's row. No submission can have it: `#` is in no id.
pub const ROW: &str = "#launch-rate";

/// How far the clocks of two functions may differ. A bucket that is empty for longer than that from now was written by
/// a clock that is ahead.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// How many launches ECS takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchRate {
    /// A second, sustained. ECS's default quota on Fargate is 20.
    pub per_second: f64,
    /// At once, after a rest. ECS's default is 100.
    pub burst: u32,
}

impl LaunchRate {
    /// How long it takes until the bucket has gained this many tokens; no longer than it takes to fill it.
    pub fn time_for(self, tokens: u32) -> Duration {
        Duration::try_from_secs_f64(f64::from(tokens.min(self.burst)) / self.per_second).unwrap_or(Duration::MAX)
    }

    /// How far this many tokens move the moment at which the bucket is empty, in microseconds.
    pub fn micros(self, tokens: u32) -> u64 {
        // Casts of floats saturate; the numbers are far from 2^53.
        (1e6 / self.per_second * f64::from(tokens)) as u64
    }
}

/// The bucket's content, as the moment at which it was empty, or would have been: nothing has to tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Microseconds since the Unix epoch.
    empty_at: u64,
}

/// What taking from a bucket results in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many of the wanted tokens the bucket holds.
    pub tokens: u32,
    /// The bucket afterwards. It differs from the one before if tokens were taken, or a clock was ahead.
    pub bucket: Bucket,
}

impl Bucket {
    /// A full one.
    pub const FULL: Self = Self { empty_at: 0 };

    /// From the row's number.
    pub const fn from_micros(empty_at: u64) -> Self {
        Self { empty_at }
    }

    /// For the row.
    pub const fn micros(self) -> u64 {
        self.empty_at
    }

    /// Takes up to `wanted` tokens at `now`.
    ///
    /// A bucket that a clock ahead of ours has emptied into the future is taken to be empty now. It fills from then on.
    pub fn take(self, wanted: u32, now: Timestamp, rate: LaunchRate) -> Taken {
        let micros = |at: Timestamp| at.millis().saturating_mul(1000);
        if self.empty_at > micros(now.plus(CLOCKS_DIFFER)) {
            return Taken { tokens: 0, bucket: Self { empty_at: micros(now) } };
        }
        let full = micros(now).saturating_sub(rate.micros(rate.burst));
        let empty_at = self.empty_at.max(full);
        let held = (micros(now).saturating_sub(empty_at) as f64 * rate.per_second / 1e6 + 1e-9) as u32;
        let tokens = held.min(wanted);
        if tokens == 0 {
            return Taken { tokens, bucket: self };
        }
        Taken { tokens, bucket: Self { empty_at: empty_at + rate.micros(tokens) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: LaunchRate = LaunchRate { per_second: 20.0, burst: 100 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_full_bucket_gives_the_burst_and_then_the_rate() {
        let first = Bucket::FULL.take(1000, at(0), RATE);
        assert_eq!(first.tokens, 100);
        assert_eq!(first.bucket.take(1000, at(0), RATE).tokens, 0);
        let later = first.bucket.take(1000, at(1000), RATE);
        assert_eq!(later.tokens, 20);
        assert_eq!(later.bucket.take(1000, at(1049), RATE).tokens, 0);
        assert_eq!(later.bucket.take(1000, at(1050), RATE).tokens, 1);
    }

    #[test]
    fn what_is_not_taken_stays_up_to_the_burst() {
        let taken = Bucket::FULL.take(30, at(0), RATE);
        assert_eq!(taken.bucket.take(1000, at(0), RATE).tokens, 70);
        assert_eq!(taken.bucket.take(1000, at(3_600_000), RATE).tokens, 100);
    }

    #[test]
    fn over_any_stretch_no_more_than_burst_and_rate_are_given() {
        let (mut bucket, mut given) = (Bucket::FULL, 0);
        for ms in (0..60_000).step_by(7) {
            let taken = bucket.take(3, at(ms), RATE);
            (bucket, given) = (taken.bucket, given + taken.tokens);
            assert!(f64::from(given) <= 100.0 + ms as f64 / 50.0 + 1.0);
        }
        assert!(given >= 100 + 20 * 59, "{given}");
    }

    #[test]
    fn a_clock_that_is_ahead_empties_the_bucket_and_no_more() {
        let ahead = Bucket::FULL.take(1000, at(3_600_000), RATE).bucket;
        let noticed = ahead.take(1000, at(0), RATE);
        assert_eq!(noticed.tokens, 0);
        assert_eq!(noticed.bucket.take(1000, at(1000), RATE).tokens, 20);
        // A clock that is hardly ahead is waited for, or each of its turns would add to the rate.
        let hardly_ahead = Bucket::FULL.take(1000, at(500), RATE).bucket;
        assert_eq!(hardly_ahead.take(1000, at(0), RATE), Taken { tokens: 0, bucket: hardly_ahead });
        assert_eq!(hardly_ahead.take(1000, at(600), RATE).tokens, 2);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_up_to_the_burst() {
        let given_back = |bucket: Bucket, tokens| Bucket::from_micros(bucket.micros() - RATE.micros(tokens));
        let taken = Bucket::FULL.take(1000, at(0), RATE).bucket;
        assert_eq!(given_back(taken, 30).take(1000, at(0), RATE).tokens, 30);
        assert_eq!(given_back(taken, 500).take(1000, at(0), RATE).tokens, 100);
    }

    #[test]
    fn tokens_gather_as_fast_as_the_rate_and_no_longer_than_the_bucket_takes_to_fill() {
        assert_eq!(RATE.time_for(10), Duration::from_millis(500));
        assert_eq!(RATE.time_for(1000), Duration::from_secs(5));
    }
}
