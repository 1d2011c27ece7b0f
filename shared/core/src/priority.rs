//! Priority: a head start, in pools and in the queue of launches alike.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{rules::Timers, time::Timestamp};

/// How early a submission is served: 0 to 999, smaller first, 500 by default.
///
/// Each step is a head start of 0.6 s: priority 0 is served as if it had been submitted 10 minutes before 999. So of what
/// was submitted together the smaller goes first, equal ones go in the order in which they were submitted, and nothing
/// that was submitted more than 10 minutes later goes before the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Priority(u16);

/// Why a number is no [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("priority must be a whole number from 0 to 999, smaller first")]
pub struct InvalidPriority;

impl Priority {
    const LAST: u16 = 999;

    /// Whether it is the default, so that the row can omit it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// By how much it is served earlier than what has the last priority.
    pub fn head_start(self, timers: &Timers) -> Duration {
        timers.head_start * u32::from(Self::LAST - self.0) / u32::from(Self::LAST)
    }

    /// The place of what was submitted at `created_at`: the smaller is served first.
    pub fn rank(self, created_at: Timestamp, timers: &Timers) -> Timestamp {
        created_at.minus(self.head_start(timers))
    }

    /// When what has this place was submitted.
    pub fn submitted_at(self, rank: Timestamp, timers: &Timers) -> Timestamp {
        rank.plus(self.head_start(timers))
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(500)
    }
}

impl TryFrom<u16> for Priority {
    type Error = InvalidPriority;

    fn try_from(number: u16) -> Result<Self, InvalidPriority> {
        if number <= Self::LAST { Ok(Self(number)) } else { Err(InvalidPriority) }
    }
}

impl From<Priority> for u16 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::now;

    fn rank(priority: u16, seconds: u64) -> Timestamp {
        let priority = Priority::try_from(priority).unwrap();
        priority.rank(now().plus(Duration::from_secs(seconds)), &Timers::default())
    }

    #[test]
    fn smaller_numbers_go_first_and_equal_ones_in_order() {
        assert!(rank(0, 0) < rank(1, 0));
        assert!(rank(499, 0) < rank(500, 0));
        assert!(rank(0, 1) < rank(999, 0));
        assert!(rank(500, 0) < rank(500, 1));
    }

    #[test]
    fn nothing_goes_before_what_was_submitted_ten_minutes_earlier() {
        assert!(rank(0, 599) < rank(999, 0));
        assert!(rank(999, 0) <= rank(0, 600));
    }

    #[test]
    fn place_holds_the_time_of_submission() {
        for number in [0, 1, 500, 998, 999] {
            let priority = Priority::try_from(number).unwrap();
            assert_eq!(priority.submitted_at(rank(number, 7), &Timers::default()), now().plus(Duration::from_secs(7)));
        }
        assert_eq!(Priority::try_from(1000), Err(InvalidPriority));
    }
}
