//! Why the submissions under a pool key are waiting, where no runner is about to take them.
//!
//! Submissions that wait for their turn while `max` is reached, or for a container that is starting, have no such reason.

use serde::{Deserialize, Serialize};

use super::{Count, Phase, PoolKey, PoolRow, Runner};
use crate::{record::Record, rules::Timers, state::State, time::Timestamp};

/// How many minutes a launched container may take to start, before it counts as stuck.
const STARTS_WITHIN: u32 = 5;

/// Why the submissions under a pool key are waiting.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WaitReason {
    /// Since when reconcile has found them so.
    pub since: Timestamp,
    /// The reason, for people.
    pub reason: String,
    /// Nothing serves them until a person acts, or nothing has for a minute although the limits allow it. Absent where an
    /// operator has paused the pool, or other launches come first.
    #[serde(default)]
    pub stuck: bool,
}

/// What the runners of one key show that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symptoms {
    /// Why ECS refused to launch one of them, for a minute.
    refusal: Option<String>,
    /// Runners that have waited for their launch for a minute, and that ECS did not refuse.
    queued: u32,
    /// Runners whose container has not started for minutes.
    pending: u32,
    /// Runners whose container has run for a minute without asking for work.
    mute: u32,
    /// Runners that have asked for work for a minute, and got none.
    idle: u32,
    /// Runners that no longer ask for work, and have not ended yet.
    silent: u32,
}

impl Symptoms {
    /// Adds one runner that has not ended.
    pub fn add(&mut self, record: &Record, runner: &Runner, phase: Phase, now: Timestamp, timers: &Timers) {
        let is_long_ago = |since: Timestamp| now.since(since) >= timers.minute;
        match (phase, record.state()) {
            (Phase::Starting, State::Queued | State::Launching) if is_long_ago(record.created_at) => {
                match &record.attempt.reason {
                    Some(reason) => self.refusal = Some(reason.clone()),
                    None => self.queued += 1,
                }
            }
            (Phase::Starting, State::Launched) => {
                let launched_at = record.attempt.launched_at.unwrap_or(record.created_at);
                self.pending += u32::from(now.since(launched_at) >= timers.minute * STARTS_WITHIN);
            }
            (Phase::Starting, State::Running) => {
                let since = record.attempt.started_at.or(record.attempt.launched_at).unwrap_or(record.created_at);
                self.mute += u32::from(is_long_ago(since));
            }
            (Phase::Idle, _) => self.idle += u32::from(runner.idle_since.is_some_and(is_long_ago)),
            // It is being stopped for that.
            (Phase::Closing, _) if runner.incarnation.is_none() => self.mute += 1,
            (Phase::Closing, _) => {
                self.silent += u32::from(!runner.closing || record.stop_requested.is_some());
            }
            (Phase::Starting | Phase::Busy, _) => {}
        }
    }
}

impl PoolRow {
    /// Why the submissions under `key` are waiting; none if nothing waits, or no longer than a minute, or for its turn.
    /// `is_full` if `max` allows no other runner, and `has_address` if runners can be created at all.
    pub fn wait_reason(
        &self,
        key: &PoolKey,
        count: &Count,
        symptoms: &Symptoms,
        (is_full, has_address): (bool, bool),
        now: Timestamp,
        timers: &Timers,
    ) -> Option<WaitReason> {
        let oldest = count.oldest?;
        let is_late = now.since(oldest) >= timers.minute;
        let shown = || self.what_runners_show(key, symptoms, (is_full, has_address), now, timers).filter(|_| is_late);
        let failure = || Some((is_late, self.failure_of(key)?));
        let (stuck, reason) = self.what_is_wrong(key).or_else(failure).or_else(shown)?;
        let before = self.wait_reasons.get(key).filter(|before| before.stuck == stuck);
        Some(WaitReason { since: before.map_or(now, |before| before.since), reason, stuck })
    }

    /// What keeps the key from being served, whatever its runners do.
    fn what_is_wrong(&self, key: &PoolKey) -> Option<(bool, String)> {
        if let Some(error) = self.unreadable.get(key) {
            return Some((true, format!("the pool's row holds a launch configuration that cannot be read: {error}")));
        }
        if !self.specs.contains_key(key) {
            return Some((
                true,
                "the pool's row has no launch configuration for this version of the profile".to_owned(),
            ));
        }
        self.paused.then(|| (false, "the pool is paused".to_owned()))
    }

    fn failure_of(&self, key: &PoolKey) -> Option<String> {
        let failure = self.failing.get(key)?.reason.as_deref().unwrap_or("they end without asking for work");
        Some(format!("the runners of its pool fail: {failure}"))
    }

    fn what_runners_show(
        &self,
        key: &PoolKey,
        Symptoms { refusal, queued, pending, mute, idle, silent }: &Symptoms,
        (is_full, has_address): (bool, bool),
        now: Timestamp,
        timers: &Timers,
    ) -> Option<(bool, String)> {
        if !has_address {
            return Some((true, "reconcile has no address of the runner API, so it creates no runner".to_owned()));
        }
        if self.current.as_ref() == Some(key) && self.most_taken(now, timers) > 0 {
            return None;
        }
        let stuck = if let Some(refusal) = refusal {
            format!("the runners of its pool are not launched: {refusal}")
        } else if *mute > 0 {
            "the containers of its pool run, and do not ask for work".to_owned()
        } else if *pending > 0 {
            format!("the containers of its pool have not started for {STARTS_WITHIN} minutes")
        } else if *idle > 0 {
            "the runners of its pool ask for work, and do not get it".to_owned()
        } else if is_full && *silent > 0 {
            "runners that no longer ask for work take up the pool's max".to_owned()
        } else if *queued > 0 {
            return Some((false, "the runners of its pool wait for the launch rate".to_owned()));
        } else {
            return None;
        };
        Some((true, stuck))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        decide::tests::{now, rules, submission},
        pool::{
            Failing, TokenHash,
            row::slot,
            tests::{earlier, key, pool, row},
        },
        record::{Stop, StopCause},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u32) -> Timestamp {
        now().plus(MINUTE * minutes)
    }

    /// A runner that was created at the beginning, changed by `change`.
    fn symptoms(minutes: u32, change: impl FnOnce(&mut Record)) -> Symptoms {
        let runner = Runner::new(key(), TokenHash::of("secret"), &pool());
        let mut record = Record::new_runner(submission("runner-1"), runner, now(), &rules());
        change(&mut record);
        let runner = record.runner().unwrap().clone();
        let mut symptoms = Symptoms::default();
        let timers = Timers::default();
        symptoms.add(&record, &runner, runner.phase(at(minutes), &timers), at(minutes), &timers);
        symptoms
    }

    fn reason_of(row: &PoolRow, symptoms: &Symptoms, is_full: bool, minutes: u32) -> Option<(bool, String)> {
        let count = Count { waiting: 1, oldest: Some(now()), ..Count::default() };
        let timers = Timers::default();
        let reason = row.wait_reason(&key(), &count, symptoms, (is_full, true), at(minutes), &timers)?;
        Some((reason.stuck, reason.reason))
    }

    fn is_stuck(row: &PoolRow, symptoms: &Symptoms) -> Option<bool> {
        reason_of(row, symptoms, false, 10).map(|(stuck, _)| stuck)
    }

    fn asked(record: &mut Record, idle_since: Timestamp, polled_at: Timestamp) {
        record.change_to(State::Running).unwrap();
        let runner = record.runner_mut().unwrap();
        runner.incarnation = Some("incarnation-1".to_owned().try_into().unwrap());
        (runner.idle_since, runner.polled_at) = (Some(idle_since), Some(polled_at));
    }

    #[test]
    fn unknown_key_and_unreadable_launch_configuration_are_stuck_at_once() {
        let unknown = PoolRow { specs: [(earlier(), row().specs[&earlier()].clone())].into(), ..row() };
        assert_eq!(reason_of(&unknown, &Symptoms::default(), false, 0).map(|(stuck, _)| stuck), Some(true));
        let unreadable = PoolRow { unreadable: [(key(), "no map".to_owned())].into(), ..unknown };
        let (stuck, reason) = reason_of(&unreadable, &Symptoms::default(), false, 0).unwrap();
        assert!(stuck && reason.ends_with("cannot be read: no map"), "{reason}");
    }

    #[test]
    fn paused_pool_has_a_reason_and_is_not_stuck() {
        let paused = PoolRow { paused: true, ..row() };
        assert_eq!(reason_of(&paused, &Symptoms::default(), true, 0), Some((false, "the pool is paused".to_owned())));
    }

    #[test]
    fn pool_where_nothing_waits_has_no_reason() {
        let paused = PoolRow { paused: true, ..row() };
        let (count, timers) = (Count::default(), Timers::default());
        assert_eq!(paused.wait_reason(&key(), &count, &Symptoms::default(), (true, true), now(), &timers), None);
    }

    #[test]
    fn turn_within_max_and_first_minute_are_no_reason() {
        let mute = symptoms(9, |record| record.change_to(State::Running).unwrap());
        assert_eq!(reason_of(&row(), &mute, false, 0), None);
        assert_eq!(reason_of(&row(), &mute, false, 1).map(|(stuck, _)| stuck), Some(true));
        assert_eq!(reason_of(&row(), &Symptoms::default(), true, 10), None);
    }

    #[test]
    fn refused_launch_is_stuck_with_the_reason_of_ecs_after_a_minute() {
        let refused = |record: &mut Record| record.attempt.reason = Some("no such cluster".to_owned());
        assert_eq!(reason_of(&row(), &symptoms(0, refused), false, 10), None);
        let (stuck, reason) = reason_of(&row(), &symptoms(1, refused), false, 10).unwrap();
        assert!(stuck && reason.ends_with("not launched: no such cluster"), "{reason}");
    }

    #[test]
    fn runner_behind_other_launches_is_a_reason_and_not_stuck() {
        assert_eq!(is_stuck(&row(), &symptoms(0, |_| {})), None);
        assert_eq!(is_stuck(&row(), &symptoms(1, |_| {})), Some(false));
    }

    #[test]
    fn container_that_does_not_start_is_stuck_after_five_minutes() {
        let launched = |record: &mut Record| {
            record.change_to(State::Launched).unwrap();
            record.attempt.launched_at = Some(now());
        };
        assert_eq!(
            (is_stuck(&row(), &symptoms(4, launched)), is_stuck(&row(), &symptoms(5, launched))),
            (None, Some(true))
        );
    }

    #[test]
    fn container_that_runs_and_never_asks_is_stuck_after_a_minute() {
        let started = |record: &mut Record| {
            record.change_to(State::Running).unwrap();
            record.attempt.started_at = Some(at(3));
        };
        assert_eq!(
            (is_stuck(&row(), &symptoms(3, started)), is_stuck(&row(), &symptoms(4, started))),
            (None, Some(true))
        );
    }

    #[test]
    fn container_that_never_asked_is_the_reason_while_it_is_stopped() {
        let stopped = symptoms(5, |record| {
            record.change_to(State::Running).unwrap();
            record.attempt.started_at = Some(at(0));
            record.runner_mut().unwrap().closing = true;
        });
        assert_eq!(is_stuck(&row(), &stopped), Some(true));
    }

    #[test]
    fn runner_that_asks_and_gets_nothing_is_stuck_unless_others_are_served() {
        let idle = symptoms(3, |record| asked(record, at(2), at(3)));
        assert_eq!(is_stuck(&row(), &idle), Some(true));
        assert_eq!(is_stuck(&row(), &symptoms(3, |record| asked(record, at(3), at(3)))), None);
        let minute = at(10).millis() / 60_000;
        for (ago, stuck) in [(0, None), (1, None), (2, Some(true))] {
            let mut served = PoolRow { minute: minute - ago, ..row() };
            served.minutes = (0..15).map(|at| u32::from(at == slot(minute - ago))).collect();
            assert_eq!(is_stuck(&served, &idle), stuck);
            // They were those of the current version.
            let other = PoolRow { current: Some(earlier()), ..served };
            assert_eq!(is_stuck(&other, &idle), Some(true));
        }
    }

    #[test]
    fn silent_runners_are_the_reason_only_where_they_fill_the_pool() {
        let silent = symptoms(9, |record| asked(record, at(0), at(0)));
        assert_eq!(reason_of(&row(), &silent, false, 10), None);
        assert_eq!(reason_of(&row(), &silent, true, 10).map(|(stuck, _)| stuck), Some(true));
        let closing = |stop_requested: Option<Stop>| {
            let symptoms = symptoms(9, |record| {
                asked(record, at(0), at(0));
                record.runner_mut().unwrap().closing = true;
                record.stop_requested = stop_requested;
            });
            reason_of(&row(), &symptoms, true, 10).map(|(stuck, _)| stuck)
        };
        assert_eq!(closing(None), None, "its commands are done");
        let stop = Stop { cause: StopCause::User, reason: "the runner has stopped asking for work".to_owned() };
        assert_eq!(closing(Some(stop)), Some(true));
    }

    #[test]
    fn failing_runners_of_a_key_are_the_reason_for_that_key_alone() {
        let failing = |key| [(key, Failing { since: now(), reason: Some("no such image".to_owned()) })].into();
        let (stuck, reason) =
            reason_of(&PoolRow { failing: failing(key()), ..row() }, &Symptoms::default(), false, 2).unwrap();
        assert!(stuck && reason == "the runners of its pool fail: no such image", "{reason}");
        let early = PoolRow { failing: failing(key()), ..row() };
        assert_eq!(reason_of(&early, &Symptoms::default(), false, 0), Some((false, reason)));
        let other = PoolRow { failing: failing(earlier()), ..row() };
        assert_eq!(reason_of(&other, &Symptoms::default(), false, 2), None);
    }

    #[test]
    fn deployment_without_an_address_of_work_is_stuck() {
        let (count, timers) = (Count { waiting: 1, oldest: Some(now()), ..Count::default() }, Timers::default());
        let reason = row().wait_reason(&key(), &count, &Symptoms::default(), (false, false), at(2), &timers);
        assert!(reason.unwrap().stuck);
    }

    #[test]
    fn reason_keeps_its_beginning_until_it_is_of_another_kind() {
        let (count, timers) = (Count { waiting: 1, oldest: Some(now()), ..Count::default() }, Timers::default());
        let mut paused = PoolRow { paused: true, ..row() };
        let since = |row: &mut PoolRow, minutes| {
            let reason = row.wait_reason(&key(), &count, &Symptoms::default(), (true, true), at(minutes), &timers);
            row.wait_reasons = [(key(), reason.clone().unwrap())].into();
            reason.unwrap().since
        };
        assert_eq!((since(&mut paused, 1), since(&mut paused, 5)), (at(1), at(1)));
        paused.specs.clear();
        assert_eq!(since(&mut paused, 7), at(7));
    }
}
