//! Limits the rate at which the deployment calls RunTask, with one token bucket for all functions.
//!
//! ECS limits launches per account and Region, and throttles the rest. The bucket is one row of the table. A write
//! takes tokens on condition that the bucket still holds them, even if other processes have taken some since it was
//! read. Together, any number of processes therefore stay below the rate, and no process has to win a race.

use std::time::Duration;

use crate::time::Timestamp;

/// The key of the bucket's row. No submission can have it, because IDs must not contain `#`.
pub const ROW: &str = "#launch-rate";

/// The limit on the difference between the clocks of two functions. A bucket that is empty for longer than that from
/// now was written with a clock that is ahead.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// The rate of launches that ECS accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchRate {
    /// The sustained rate per second. ECS's default quota on Fargate is 20.
    pub per_second: f64,
    /// The burst after a pause. ECS's default is 100.
    pub burst: u32,
}

impl LaunchRate {
    /// Returns the time until the bucket has gained this many tokens, up to the time that it takes to fill.
    pub fn time_for(self, tokens: u32) -> Duration {
        Duration::try_from_secs_f64(f64::from(tokens.min(self.burst)) / self.per_second).unwrap_or(Duration::MAX)
    }

    /// Returns by how many microseconds this many tokens move the moment at which the bucket is empty.
    pub fn micros(self, tokens: u32) -> u64 {
        // Float casts saturate, and the numbers are far from 2^53.
        (1e6 / self.per_second * f64::from(tokens)) as u64
    }
}

/// The bucket's content, stored as the moment at which it was empty or would have been. No process has to update it
/// periodically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Microseconds since the Unix epoch.
    empty_at: u64,
}

/// A write that takes from a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    /// The number of tokens to take.
    pub tokens: u32,
    /// The condition: the lowest and the highest `empty_at`, in microseconds, at which the write is valid.
    pub between: (u64, u64),
    /// True if the write is also valid without a bucket, which counts as full.
    pub creates: bool,
    /// The change to write.
    pub change: Change,
}

/// The effect of a write on `empty_at`, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The value rises by this amount, whatever it is.
    Add(u64),
    /// The value is replaced.
    Set(u64),
}

impl Bucket {
    /// A full bucket.
    pub const FULL: Self = Self { empty_at: 0 };

    /// Creates a bucket from the row's number.
    pub const fn from_micros(empty_at: u64) -> Self {
        Self { empty_at }
    }

    /// Returns the number for the row.
    pub const fn micros(self) -> u64 {
        self.empty_at
    }

    /// Returns the number of tokens at `now`. There are none while a clock that is ahead has emptied the bucket into
    /// the future.
    pub fn held(self, now: Timestamp, rate: LaunchRate) -> u32 {
        let empty_at = self.empty_at.max(full(now, rate));
        (micros(now).saturating_sub(empty_at) as f64 * rate.per_second / 1e6 + 1e-9) as u32
    }

    /// Returns the write that takes up to `wanted` tokens at `now`, or none if the bucket is empty.
    ///
    /// If a clock that is ahead has emptied the bucket into the future, the bucket becomes empty now and fills from
    /// then on.
    pub fn take(self, wanted: u32, now: Timestamp, rate: LaunchRate) -> Option<Take> {
        let ahead = micros(now.plus(CLOCKS_DIFFER));
        if self.empty_at > ahead {
            let (between, change) = ((ahead + 1, u64::MAX), Change::Set(micros(now)));
            return Some(Take { tokens: 0, between, creates: false, change });
        }
        let tokens = self.held(now, rate).min(wanted);
        if tokens == 0 {
            return None;
        }
        let (full, taken) = (full(now, rate), rate.micros(tokens));
        Some(if self.empty_at < full {
            let change = Change::Set(full + taken);
            Take { tokens, between: (0, full.saturating_sub(1)), creates: true, change }
        } else {
            let latest = micros(now).saturating_sub(taken);
            Take { tokens, between: (full, latest.max(self.empty_at)), creates: false, change: Change::Add(taken) }
        })
    }
}

impl Take {
    /// Returns the bucket after this write, if the write is valid for it. It emulates DynamoDB's condition in tests.
    #[cfg(test)]
    fn of(self, bucket: Bucket) -> Option<Bucket> {
        let (least, most) = self.between;
        (least..=most).contains(&bucket.empty_at).then_some(match self.change {
            Change::Add(micros) => Bucket { empty_at: bucket.empty_at + micros },
            Change::Set(micros) => Bucket { empty_at: micros },
        })
    }
}

const fn micros(at: Timestamp) -> u64 {
    at.millis().saturating_mul(1000)
}

/// Returns the moment at which a bucket was empty that becomes full at `now`.
fn full(now: Timestamp, rate: LaunchRate) -> u64 {
    micros(now).saturating_sub(rate.micros(rate.burst))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const RATE: LaunchRate = LaunchRate { per_second: 20.0, burst: 100 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    /// Takes tokens as a process does that has just read the bucket.
    fn take(bucket: Bucket, wanted: u32, now: Timestamp) -> (u32, Bucket) {
        let Some(take) = bucket.take(wanted, now, RATE) else { return (0, bucket) };
        (take.tokens, take.of(bucket).unwrap())
    }

    #[test]
    fn full_bucket_gives_the_burst_and_then_the_rate() {
        let (tokens, first) = take(Bucket::FULL, 1000, at(0));
        assert_eq!(tokens, 100);
        assert_eq!(take(first, 1000, at(0)).0, 0);
        let (tokens, later) = take(first, 1000, at(1000));
        assert_eq!(tokens, 20);
        assert_eq!(take(later, 1000, at(1049)).0, 0);
        assert_eq!(take(later, 1000, at(1050)).0, 1);
    }

    #[test]
    fn tokens_not_taken_stay_up_to_the_burst() {
        let (_, bucket) = take(Bucket::FULL, 30, at(0));
        assert_eq!(take(bucket, 1000, at(0)).0, 70);
        assert_eq!(take(bucket, 1000, at(3_600_000)).0, 100);
    }

    #[test]
    fn write_planned_on_an_old_reading_takes_only_tokens_that_are_there() {
        // Four processes alternate. Each plans from its last reading, and sees the bucket when its write fails or
        // succeeds.
        let (mut bucket, mut given) = (Bucket::FULL, 0);
        let mut seen = VecDeque::from([Bucket::FULL; 4]);
        for ms in (0..60_000).step_by(7) {
            let wanted = 1 + u32::try_from(ms % 3).unwrap();
            let planned = seen.pop_front().unwrap().take(wanted, at(ms), RATE);
            if let Some((after, tokens)) = planned.and_then(|planned| Some((planned.of(bucket)?, planned.tokens))) {
                (bucket, given) = (after, given + tokens);
            }
            seen.push_back(bucket);
            assert!(f64::from(given) <= 100.0 + ms as f64 / 50.0 + 1.0);
        }
        assert!(given >= 100 + 20 * 58, "{given}: what is there is given");
    }

    #[test]
    fn another_process_in_between_does_not_fail_a_write_while_tokens_are_left() {
        let (_, seen) = take(Bucket::FULL, 10, at(0));
        let planned = seen.take(10, at(0), RATE).unwrap();
        let (_, between) = take(seen, 80, at(0));
        let after = planned.of(between).unwrap();
        assert_eq!(after.held(at(0), RATE), 0);
        assert_eq!(planned.of(after), None, "and no more than are there");
    }

    #[test]
    fn clock_that_is_ahead_empties_the_bucket_and_no_more() {
        let (_, ahead) = take(Bucket::FULL, 1000, at(3_600_000));
        let (tokens, noticed) = take(ahead, 1000, at(0));
        assert_eq!(tokens, 0);
        assert_eq!(take(noticed, 1000, at(1000)).0, 20);
        // A clock that is barely ahead is waited for. Otherwise each of its turns would add to the rate.
        let (_, hardly_ahead) = take(Bucket::FULL, 1000, at(500));
        assert_eq!(take(hardly_ahead, 1000, at(0)), (0, hardly_ahead));
        assert_eq!(take(hardly_ahead, 1000, at(600)).0, 2);
    }

    #[test]
    fn returned_tokens_can_be_taken_again_up_to_the_burst() {
        let returned = |bucket: Bucket, tokens| Bucket::from_micros(bucket.micros() - RATE.micros(tokens));
        let (_, taken) = take(Bucket::FULL, 1000, at(0));
        assert_eq!(take(returned(taken, 30), 1000, at(0)).0, 30);
        assert_eq!(take(returned(returned(taken, 100), 100), 1000, at(0)).0, 100);
    }

    #[test]
    fn token_wait_follows_rate_up_to_fill_time() {
        assert_eq!(RATE.time_for(10), Duration::from_millis(500));
        assert_eq!(RATE.time_for(1000), Duration::from_secs(5));
    }
}
