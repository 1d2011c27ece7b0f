//! Tracks which capacity options are available. After a few rejections in a row, submissions use the next option of
//! their profile, or wait while one at a time probes for capacity.
//!
//! Capacity is tracked per requested resources: a [`Shape`] and the number of the option. A submission that requests
//! more memory than any instance has does not affect other submissions of its profile.
//!
//! The state is stored in the launch rate's row. Every process that takes launch tokens therefore reads it at no extra
//! cost.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    id::{InvalidName, PlacementHash, ProfileName},
    record::canonical,
    rules::Timers,
    time::Timestamp,
};

/// The number of rejections in a row, because capacity is unavailable, after which an option is blocked.
const BLOCKED_AFTER: u32 = 3;

/// The time for which an unchanged entry is kept. It is far longer than any process acts on a reading of it.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The time for which an unchanged entry for overrides is kept. It is short because there may be many.
const OVERRIDES_KEPT: Duration = Duration::from_secs(60 * 60);

/// The time for which an option stays blocked if no submission can probe it.
const BLOCKED_IDLE: Duration = Duration::from_secs(60 * 60);

/// The limit on entries for overrides. Each takes about 100 bytes in a row that every launch writes. Submissions beyond
/// the limit retry independently, each with its own backoff.
const OVERRIDES_KNOWN: usize = 32;

/// Parameters of RunTask that do not affect placement.
const ELSEWHERE: [&str; 5] = ["tags", "enableECSManagedTags", "enableExecuteCommand", "propagateTags", "referenceId"];

/// Parameters of `overrides` that do not affect placement.
const ELSEWHERE_IN_OVERRIDES: [&str; 2] = ["executionRoleArn", "taskRoleArn"];

/// Parameters of a container's overrides that do not affect placement.
const ELSEWHERE_IN_CONTAINER: [&str; 4] = ["name", "command", "environment", "environmentFiles"];

impl PlacementHash {
    /// Hashes the overrides of a submission (RunTask parameters) that affect placement. Returns none if no override
    /// does.
    pub fn of(overrides: &Value) -> Option<Self> {
        let mut placement = overrides.clone();
        remove(&mut placement, &ELSEWHERE);
        if let Some(overrides) = placement.get_mut("overrides") {
            remove(overrides, &ELSEWHERE_IN_OVERRIDES);
            let containers = overrides.get_mut("containerOverrides").and_then(Value::as_array_mut);
            containers.into_iter().flatten().for_each(|container| remove(container, &ELSEWHERE_IN_CONTAINER));
        }
        let digest = Sha256::digest(canonical(&without_empty(placement)?));
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>().try_into().ok()
    }
}

fn remove(value: &mut Value, names: &[&str]) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|name, _| !names.contains(&name.as_str()));
    }
}

/// Returns a value without empty objects, empty lists and nulls, or none if it contains nothing else.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Object(members) => {
            let members: Map<_, _> =
                members.into_iter().filter_map(|(name, value)| Some((name, without_empty(value)?))).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.into_iter().filter_map(without_empty).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value),
    }
}

/// The properties that determine placement: the profile, and the overrides that matter for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// The profile.
    pub profile: ProfileName,
    /// The overrides that matter for placement, or none if the profile is unchanged.
    pub placement: Option<PlacementHash>,
}

impl Shape {
    /// Returns one of the capacity options of this shape.
    pub fn choice(&self, number: u8) -> Choice {
        Choice { shape: self.clone(), number }
    }
}

/// Writes `profile` or `profile@hash`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.placement {
            None => self.profile.fmt(f),
            Some(hash) => write!(f, "{}@{hash}", self.profile),
        }
    }
}

impl FromStr for Shape {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (profile, hash) = text.split_once('@').map_or((text, None), |(profile, hash)| (profile, Some(hash)));
        Ok(Self { profile: profile.parse()?, placement: hash.map(str::parse).transpose()? })
    }
}

/// One of a submission's capacity options: 0 for the profile's own request, or the number of a fallback.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// The requested resources.
    pub shape: Shape,
    /// Zero, or the number of the fallback.
    pub number: u8,
}

/// Writes the shape, or `shape/number` for a fallback.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => self.shape.fmt(f),
            number => write!(f, "{}/{number}", self.shape),
        }
    }
}

impl FromStr for Choice {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let numbered = text.split_once('/').and_then(|(shape, number)| Some((shape, number.parse().ok()?)));
        let (shape, number) = numbered.unwrap_or((text, 0));
        Ok(Self { shape: shape.parse()?, number })
    }
}

/// The known state of capacity, by option. Options that were never unavailable have no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacities(BTreeMap<Choice, Capacity>);

impl FromIterator<(Choice, Capacity)> for Capacities {
    fn from_iter<I: IntoIterator<Item = (Choice, Capacity)>>(known: I) -> Self {
        Self(known.into_iter().collect())
    }
}

impl Capacities {
    /// Returns the known state of one option.
    pub fn get(&self, choice: &Choice) -> Option<Capacity> {
        self.0.get(choice).copied()
    }

    /// Returns the known state of each option, by shape and number.
    pub fn iter(&self) -> impl Iterator<Item = (&Choice, Capacity)> {
        self.0.iter().map(|(choice, known)| (choice, *known))
    }

    /// Returns the known state of the options that a submission may use if it begins with `first`.
    pub fn from<'a>(&'a self, first: &'a Choice) -> impl Iterator<Item = (&'a Choice, Capacity)> {
        let later = self.0.range(first..).take_while(|(choice, _)| choice.shape == first.shape);
        later.map(|(choice, known)| (choice, *known))
    }

    /// Returns true if submissions that begin with this option wait for capacity, because this and all later known
    /// options are blocked.
    pub fn is_blocked(&self, first: &Choice) -> bool {
        let mut from = self.from(first).peekable();
        from.peek().is_some() && from.all(|(_, known)| known.is_blocked())
    }

    /// Returns the first available option of `choices`, starting at `current` and wrapping around, or none if all are
    /// blocked.
    pub fn open(&self, shape: &Shape, choices: RangeInclusive<u8>, current: u8) -> Option<u8> {
        let is_open = |number: &u8| !self.get(&shape.choice(*number)).is_some_and(|known| known.is_blocked());
        let (later, earlier): (Vec<u8>, Vec<u8>) = choices.partition(|number| *number >= current);
        later.into_iter().chain(earlier).find(is_open)
    }

    /// Returns the new state of an option after a rejection, or nothing if it does not change or no entry is free.
    pub fn refused(&self, choice: &Choice, now: Timestamp, timers: &Timers) -> Option<Capacity> {
        let seen = self.get(choice);
        let of_overrides = || self.0.keys().filter(|known| known.shape.placement.is_some()).count();
        if seen.is_none() && choice.shape.placement.is_some() && of_overrides() >= OVERRIDES_KNOWN {
            return None;
        }
        Capacity::refused(seen, now, timers)
    }
}

/// The known state of one capacity option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Rejections in a row, probes included.
    pub refusals: u32,
    /// The time of the next probe, if the option is blocked.
    pub probe_at: Timestamp,
    /// The time of the last change.
    pub changed_at: Timestamp,
}

impl Capacity {
    /// Returns the state after a rejection, or nothing if it does not change.
    fn refused(seen: Option<Self>, now: Timestamp, timers: &Timers) -> Option<Self> {
        let refusals = seen.map_or(0, |seen| seen.refusals) + 1;
        let probe_at = now.plus(timers.backoff);
        (refusals <= BLOCKED_AFTER).then_some(Self { refusals, probe_at, changed_at: now })
    }

    /// Returns the state after a launch, or nothing if it does not change.
    pub fn launched(self, now: Timestamp) -> Option<Self> {
        (self.refusals > 0).then_some(Self { refusals: 0, probe_at: now, changed_at: now })
    }

    /// Returns the state while a submission probes for capacity, or nothing if no probe is due.
    pub fn probed(self, now: Timestamp, timers: &Timers) -> Option<Self> {
        let Timers { backoff, backoff_most, .. } = timers;
        let doublings = self.refusals.saturating_sub(BLOCKED_AFTER).min(16) + 1;
        let probe_at = now.plus(backoff.saturating_mul(1 << doublings).min(*backoff_most));
        let refusals = self.refusals.saturating_add(1);
        (self.is_blocked() && now >= self.probe_at).then_some(Self { refusals, probe_at, changed_at: now })
    }

    /// Returns true if submissions wait for capacity.
    pub const fn is_blocked(&self) -> bool {
        self.refusals >= BLOCKED_AFTER
    }

    /// Returns the next state of an option for which no submission waits. An option that was blocked for long is
    /// opened. An entry is removed after a day, or after an hour if it is for overrides. Returns nothing before that.
    pub fn idle(self, choice: &Choice, now: Timestamp) -> Option<Option<Self>> {
        let idle = now.since(self.changed_at);
        if self.is_blocked() {
            return (idle > BLOCKED_IDLE).then(|| self.launched(now));
        }
        let kept = if choice.shape.placement.is_some() { OVERRIDES_KEPT } else { KEPT };
        (idle > kept).then_some(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

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

    fn choice(number: u8) -> Choice {
        Shape { profile: ProfileName::default_profile(), placement: None }.choice(number)
    }

    fn large(number: u8) -> Choice {
        let placement = PlacementHash::of(&json!({"overrides": {"memory": "120000"}}));
        Shape { placement, ..choice(0).shape }.choice(number)
    }

    #[test]
    fn blocked_choice_without_waiting_opens_after_an_hour_and_is_forgotten() {
        let later = |hours: u64| now().plus(Duration::from_secs(hours * 3600 + 1));
        for (choice, forgotten_after) in [(choice(0), 26), (large(0), 3)] {
            assert_eq!(blocked().idle(&choice, now()), None);
            let open = blocked().idle(&choice, later(1)).unwrap().unwrap();
            assert!(!open.is_blocked());
            assert_eq!(open.idle(&choice, later(forgotten_after - 1)), None);
            assert_eq!(open.idle(&choice, later(forgotten_after)), Some(None));
        }
    }

    #[test]
    fn choice_is_parsed_as_it_is_written() {
        let hash = large(0).shape.placement.unwrap();
        for (choice, text) in [
            (choice(0), "default".to_owned()),
            (choice(3), "default/3".to_owned()),
            (large(0), format!("default@{hash}")),
            (large(3), format!("default@{hash}/3")),
        ] {
            assert_eq!((choice.to_string(), text.parse().as_ref()), (text.clone(), Ok(&choice)));
        }
        for text in ["a b", "default/x", "default@", "default@123456789", "default@a b", "@12345678"] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }

    #[test]
    fn placement_hash_covers_what_ecs_places_by_and_nothing_else() {
        let hash = |overrides: Value| PlacementHash::of(&overrides);
        for elsewhere in [
            json!({}),
            json!({"tags": [{"key": "a", "value": "b"}], "enableExecuteCommand": true}),
            json!({"overrides": {"taskRoleArn": "arn", "containerOverrides": [
                {"name": "main", "command": ["a"], "environment": [{"name": "A", "value": "1"}]}]}}),
            json!({"overrides": {"containerOverrides": []}}),
        ] {
            assert_eq!(hash(elsewhere.clone()), None, "{elsewhere}");
        }
        let places = [
            json!({"overrides": {"memory": "120000"}}),
            json!({"overrides": {"memory": "512"}}),
            json!({"overrides": {"cpu": "512"}}),
            json!({"overrides": {"ephemeralStorage": {"sizeInGiB": 200}}}),
            json!({"overrides": {"containerOverrides": [{"name": "main", "memory": 512, "command": ["a"]}]}}),
            json!({"overrides": {"containerOverrides": [
                {"name": "main", "resourceRequirements": [{"type": "GPU", "value": "1"}]}]}}),
            json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}}),
            json!({"launchType": "EC2"}),
            json!({"placementConstraints": [{"type": "memberOf", "expression": "attribute:gpu == 1"}]}),
            json!({"somethingNew": 1}),
        ];
        let hashes: BTreeSet<_> = places.iter().map(|overrides| hash(overrides.clone()).unwrap()).collect();
        assert_eq!(hashes.len(), places.len());
        let with_command = json!({"tags": [], "overrides": {
            "memory": "120000", "containerOverrides": [{"name": "main", "command": ["b"]}]}});
        assert_eq!(hash(with_command), hash(places[0].clone()));
    }

    #[test]
    fn open_choice_is_the_first_from_where_a_submission_stands() {
        let shape = choice(0).shape;
        let known: Capacities = [(choice(0), blocked()), (choice(2), blocked())].into_iter().collect();
        assert_eq!(known.open(&shape, 0..=2, 0), Some(1));
        assert_eq!(known.open(&shape, 0..=3, 2), Some(3));
        assert_eq!(known.open(&shape, 0..=2, 2), Some(1), "and round");
        assert_eq!(known.open(&shape, 2..=2, 2), None);
        assert!(known.is_blocked(&choice(0)));
        let opened: Capacities =
            [(choice(0), blocked().launched(now()).unwrap()), (choice(1), blocked())].into_iter().collect();
        assert!(!opened.is_blocked(&choice(0)));
        assert!(opened.is_blocked(&choice(1)), "what begins with the second choice cannot take the first");
        assert!(!Capacities::default().is_blocked(&choice(0)));
    }

    #[test]
    fn refusal_of_overrides_blocks_no_other_submission() {
        let known: Capacities = [(large(0), blocked())].into_iter().collect();
        assert!(known.is_blocked(&large(0)) && !known.is_blocked(&choice(0)));
        assert_eq!(known.open(&choice(0).shape, 0..=0, 0), Some(0));
        let other = Shape { profile: "other".parse().unwrap(), ..large(0).shape };
        assert_eq!(known.open(&other, 0..=0, 0), Some(0));
    }

    #[test]
    fn entries_for_overrides_are_bounded_and_those_of_profiles_are_not() {
        let of = |number: usize| Shape {
            placement: PlacementHash::of(&json!({"overrides": {"memory": number.to_string()}})),
            ..choice(0).shape
        };
        let known: Capacities = (0..OVERRIDES_KNOWN).map(|number| (of(number).choice(0), blocked())).collect();
        let timers = Timers::default();
        assert_eq!(known.refused(&of(OVERRIDES_KNOWN).choice(0), now(), &timers), None);
        assert!(known.refused(&choice(0), now(), &timers).is_some());
        let fewer: Capacities = known.iter().skip(1).map(|(choice, known)| (choice.clone(), known)).collect();
        assert!(fewer.refused(&of(OVERRIDES_KNOWN).choice(0), now(), &timers).is_some());
    }
}
