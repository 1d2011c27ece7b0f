//! Whether a profile has capacity: after a few refusals in a row its submissions wait, and one at a time finds out.
//!
//! Kept beside the launch rate's bucket, so that whoever takes launch tokens learns it for nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{rules::Timers, time::Timestamp};

/// After how many refusals for want of capacity in a row a profile is blocked.
const BLOCKED_AFTER: u32 = 3;

/// How long an entry is kept that nothing has changed: far longer than anyone acts on what they read of it.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a profile stays blocked with no submission to find out by.
const BLOCKED_IDLE: Duration = Duration::from_secs(60 * 60);

/// What is known of a profile's capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Refusals in a row, probes counted.
    pub refusals: u32,
    /// If it is blocked: when the next submission is launched to find out.
    pub probe_at: Timestamp,
    /// When this last changed.
    pub changed_at: Timestamp,
}

impl Capacity {
    /// After a refusal; nothing if that is no news.
    pub fn refused(seen: Option<Self>, now: Timestamp, timers: &Timers) -> Option<Self> {
        let refusals = seen.map_or(0, |seen| seen.refusals) + 1;
        let probe_at = now.plus(timers.backoff);
        (refusals <= BLOCKED_AFTER).then_some(Self { refusals, probe_at, changed_at: now })
    }

    /// After a launch; nothing if that is no news.
    pub fn launched(self, now: Timestamp) -> Option<Self> {
        (self.refusals > 0).then_some(Self { refusals: 0, probe_at: now, changed_at: now })
    }

    /// As it is while a submission finds out whether capacity is back; nothing if it is not time for that.
    pub fn probed(self, now: Timestamp, timers: &Timers) -> Option<Self> {
        let Timers { backoff, backoff_most, .. } = timers;
        let doublings = self.refusals.saturating_sub(BLOCKED_AFTER).min(16) + 1;
        let probe_at = now.plus(backoff.saturating_mul(1 << doublings).min(*backoff_most));
        let refusals = self.refusals.saturating_add(1);
        (self.is_blocked() && now >= self.probe_at).then_some(Self { refusals, probe_at, changed_at: now })
    }

    /// Whether submissions wait for capacity.
    pub const fn is_blocked(&self) -> bool {
        self.refusals >= BLOCKED_AFTER
    }

    /// What follows for a profile that no submission waits for: it is opened if it was blocked for long, and forgotten a
    /// day after; nothing follows before.
    pub fn idle(self, now: Timestamp) -> Option<Option<Self>> {
        let idle = now.since(self.changed_at);
        if self.is_blocked() {
            return (idle > BLOCKED_IDLE).then(|| self.launched(now));
        }
        (idle > KEPT).then_some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::now;

    fn blocked() -> Capacity {
        let timers = Timers::default();
        let twice = Capacity::refused(Capacity::refused(None, now(), &timers), now(), &timers).unwrap();
        assert!(!twice.is_blocked());
        Capacity::refused(Some(twice), now(), &timers).unwrap()
    }

    #[test]
    fn the_third_refusal_in_a_row_blocks_and_a_launch_opens() {
        assert!(blocked().is_blocked());
        assert_eq!(Capacity::refused(Some(blocked()), now(), &Timers::default()), None, "further ones are no news");
        let open = blocked().launched(now()).unwrap();
        assert!(!open.is_blocked());
        assert_eq!(open.launched(now()), None);
        assert!(!Capacity::refused(Some(open), now(), &Timers::default()).unwrap().is_blocked());
    }

    #[test]
    fn probes_come_seconds_apart_and_later_a_minute() {
        let (timers, mut capacity, mut waits) = (Timers::default(), blocked(), vec![]);
        let mut at = now();
        for _ in 0..6 {
            assert_eq!(capacity.probed(at, &timers), None, "it is not time yet");
            waits.push(capacity.probe_at.since(at).as_secs());
            at = capacity.probe_at;
            capacity = capacity.probed(at, &timers).unwrap();
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn what_nothing_waits_for_is_opened_after_an_hour_and_forgotten_a_day_later() {
        let later = |hours: u64| now().plus(Duration::from_secs(hours * 3600 + 1));
        assert_eq!(blocked().idle(now()), None);
        let open = blocked().idle(later(1)).unwrap().unwrap();
        assert!(!open.is_blocked());
        assert_eq!(open.idle(later(24)), None);
        assert_eq!(open.idle(later(26)), Some(None));
    }
}
