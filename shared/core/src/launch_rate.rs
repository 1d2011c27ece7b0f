//! The rate at which the deployment calls RunTask: one token bucket for all of its functions.
//!
//! ECS meters launches per account and region, and answers too many with throttles. The bucket is one row of the
//! table, taken from by conditional writes, so that any number of processes stay below the rate together.

use crate::time::Timestamp;

/// The key of the bucket's row. No submission can have it: `#` is in no id.
pub const ROW: &str = "#launch-rate";

/// How many launches ECS takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchRate {
    /// A second, sustained. ECS's default quota on Fargate is 20.
    pub per_second: f64,
    /// At once, after a rest. ECS's default is 100.
    pub burst: u32,
}

/// The bucket's content, as the moment at which it was, or will be, empty: nothing has to tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Microseconds since the Unix epoch.
    empty_at: u64,
}

/// What taking came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many were there, of those wanted.
    pub tokens: u32,
    /// The bucket that this was reckoned from: as known, but no fuller than full.
    pub assumed: Bucket,
    /// The bucket afterwards.
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
    pub fn take(self, wanted: u32, now: Timestamp, rate: LaunchRate) -> Taken {
        let micros_each = 1e6 / rate.per_second;
        let now = now.millis().saturating_mul(1000);
        // Fuller than full it does not get. Casts of floats saturate; the numbers are far from 2^53.
        let full = now.saturating_sub((micros_each * f64::from(rate.burst)) as u64);
        let empty_at = self.empty_at.max(full);
        let held = (now.saturating_sub(empty_at) as f64 / micros_each + 1e-9) as u32;
        let tokens = held.min(wanted);
        let bucket = Self { empty_at: empty_at + (micros_each * f64::from(tokens)) as u64 };
        Taken { tokens, assumed: Self { empty_at }, bucket }
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
}
