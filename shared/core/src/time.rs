//! Moments, as the table stores them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, the unit of DynamoDB's time to live.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The moment `by` later.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// The moment `by` earlier, but not before the epoch.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// The time since `earlier`; zero if `earlier` is later, as clocks differ.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// A moment from the ISO 8601 text of an event (`2020-08-14T18:06:23.679Z`); none if it is not one.
    pub fn parse_iso(text: &str) -> Option<Self> {
        use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_time_is_read_to_the_millisecond() {
        let at = Timestamp::parse_iso("2020-08-14T18:06:23.679Z");
        assert_eq!(at, Some(Timestamp::from_millis(1_597_428_383_679)));
        assert_eq!(Timestamp::parse_iso("2020-08-14T18:06:23Z").map(Timestamp::seconds), Some(1_597_428_383));
    }

    #[test]
    fn invalid_time_is_none() {
        for text in ["", "yesterday", "1969-12-31T23:59:59Z", "2020-08-14"] {
            assert_eq!(Timestamp::parse_iso(text), None, "{text}");
        }
    }
}
