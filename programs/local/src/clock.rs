//! Times in AWS formats, and the scale that shortens the delays of the emulator.

use std::time::{Duration, SystemTime};

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// Returns the current time.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time this many milliseconds earlier.
    #[must_use]
    pub fn before(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// Formats as seconds with a fraction, as in the JSON protocol of ECS.
    #[must_use]
    pub fn epoch_seconds(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double for 285,000 years")]
        let millis = self.0 as f64;
        millis / 1000.0
    }

    /// Formats as `2020-08-14T18:06:23.679Z`, as in events.
    #[must_use]
    pub fn iso(self) -> String {
        self.date().and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_default()
    }

    /// Formats as `12/Mar/2020:19:03:58 +0000`, as in requests of function URLs.
    #[must_use]
    pub fn common_log(self) -> String {
        let form = format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
        self.date().and_then(|date| date.format(form).ok()).unwrap_or_default()
    }

    fn date(self) -> Option<time::OffsetDateTime> {
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok()
    }
}

/// The factor by which the delays of the emulator are shorter than those of AWS.
#[derive(Clone, Copy, Debug)]
pub struct Scale(pub f64);

impl Scale {
    /// Shortens a delay of AWS.
    #[must_use]
    pub fn shorten(self, delay: Duration) -> Duration {
        Duration::try_from_secs_f64(delay.as_secs_f64() / self.0).unwrap_or(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_use_aws_formats() {
        let time = Millis(1_597_428_383_679);
        assert_eq!(time.iso(), "2020-08-14T18:06:23.679Z");
        assert_eq!(time.common_log(), "14/Aug/2020:18:06:23 +0000");
        assert!((time.epoch_seconds() - 1_597_428_383.679).abs() < 0.000_5);
    }
}
