//! Whether there is capacity for a choice of a profile: after a few refusals in a row the next choice is taken, or its
//! submissions wait, and one at a time finds out.
//!
//! Kept beside the launch rate's bucket, so that whoever takes launch tokens learns it for nothing.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::{InvalidName, ProfileName},
    rules::Timers,
    time::Timestamp,
};

/// After how many refusals for want of capacity in a row a profile is blocked.
const BLOCKED_AFTER: u32 = 3;

/// How long an entry is kept that nothing has changed: far longer than anyone acts on what they read of it.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a profile stays blocked with no submission to find out by.
const BLOCKED_IDLE: Duration = Duration::from_secs(60 * 60);

/// One of the requests that a submission of a profile may be launched by: 0, the profile's own, or a fallback.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// The profile.
    pub profile: ProfileName,
    /// 0, or the number of the fallback.
    pub number: u8,
}

/// `profile`, or `profile/number` of a fallback.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => self.profile.fmt(f),
            number => write!(f, "{}/{number}", self.profile),
        }
    }
}

impl FromStr for Choice {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let numbered = text.split_once('/').and_then(|(profile, number)| Some((profile, number.parse().ok()?)));
        let (profile, number) = numbered.unwrap_or((text, 0));
        Ok(Self { profile: profile.parse()?, number })
    }
}

/// What is known of capacity, by choice. Those that never lacked it are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacities(BTreeMap<Choice, Capacity>);

impl FromIterator<(Choice, Capacity)> for Capacities {
    fn from_iter<I: IntoIterator<Item = (Choice, Capacity)>>(known: I) -> Self {
        Self(known.into_iter().collect())
    }
}

impl Capacities {
    /// What is known of one choice.
    pub fn get(&self, choice: &Choice) -> Option<Capacity> {
        self.0.get(choice).copied()
    }

    /// What is known of each choice of a profile.
    pub fn of<'a>(&'a self, profile: &'a ProfileName) -> impl Iterator<Item = (&'a Choice, Capacity)> {
        self.0.iter().filter(move |(choice, _)| choice.profile == *profile).map(|(choice, known)| (choice, *known))
    }

    /// The profiles of which anything is known.
    pub fn profiles(&self) -> impl Iterator<Item = &ProfileName> {
        let profiles = self.0.keys().map(|choice| &choice.profile);
        profiles.scan(None, |last, profile| Some((last.replace(profile) != Some(profile)).then_some(profile))).flatten()
    }

    /// Whether all that is known of a profile is blocked: its submissions wait for capacity.
    pub fn is_blocked(&self, profile: &ProfileName) -> bool {
        let mut of = self.of(profile).peekable();
        of.peek().is_some() && of.all(|(_, known)| known.is_blocked())
    }

    /// When a submission next finds out whether capacity is back; none while nothing is blocked.
    pub fn next_probe(&self) -> Option<Timestamp> {
        self.0.values().filter(|known| known.is_blocked()).map(|known| known.probe_at).min()
    }

    /// The first of `choices` that is open, beginning with `current` and going round; none if all are blocked.
    pub fn open(&self, profile: &ProfileName, choices: RangeInclusive<u8>, current: u8) -> Option<u8> {
        let is_open = |number: &u8| {
            let choice = Choice { profile: profile.clone(), number: *number };
            !self.0.get(&choice).is_some_and(Capacity::is_blocked)
        };
        let (later, earlier): (Vec<u8>, Vec<u8>) = choices.partition(|number| *number >= current);
        later.into_iter().chain(earlier).find(is_open)
    }
}

/// What is known of the capacity for a choice.
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

    fn choice(number: u8) -> Choice {
        Choice { profile: ProfileName::default_profile(), number }
    }

    #[test]
    fn a_choice_is_written_as_it_is_parsed() {
        for (number, text) in [(0, "default"), (3, "default/3")] {
            assert_eq!((choice(number).to_string(), text.parse().as_ref()), (text.to_owned(), Ok(&choice(number))));
        }
        assert!("a b".parse::<Choice>().is_err() && "default/x".parse::<Choice>().is_err());
    }

    #[test]
    fn the_first_open_choice_is_taken_from_where_a_submission_stands() {
        let profile = ProfileName::default_profile();
        let known: Capacities = [(choice(0), blocked()), (choice(2), blocked())].into_iter().collect();
        assert_eq!(known.open(&profile, 0..=2, 0), Some(1));
        assert_eq!(known.open(&profile, 0..=3, 2), Some(3));
        assert_eq!(known.open(&profile, 0..=2, 2), Some(1), "and round");
        assert_eq!(known.open(&profile, 2..=2, 2), None);
        assert!(known.is_blocked(&profile));
        let opened: Capacities =
            [(choice(0), blocked()), (choice(1), blocked().launched(now()).unwrap())].into_iter().collect();
        assert!(!opened.is_blocked(&profile));
        assert_eq!((opened.profiles().count(), opened.next_probe()), (1, Some(blocked().probe_at)));
        assert!(!Capacities::default().is_blocked(&profile));
    }
}
