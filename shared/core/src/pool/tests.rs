use std::time::Duration;

use serde_json::Map;

use super::row::STARTING_AT_ONCE;
use super::row::WIDEST;
use crate::id::ProfileName;
use crate::profile::Policy;
use crate::record::Record;
use crate::rules::Timers;
use crate::run_task::FrozenRequest;
use crate::state::State;
use crate::time::Timestamp;

use super::*;
use crate::{
    decide::tests::{now, rules, submission},
    record::{Stop, StopCause},
};

pub(crate) fn pool() -> Pool {
    serde_json::from_str(r#"{"max": 10, "min_idle": 2}"#).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

pub(crate) fn key() -> PoolKey {
    PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "main", &pool())
}

fn spec() -> Spec {
    let run_task = FrozenRequest::freeze(&[Map::new()]);
    let policy = Policy::default();
    Spec {
        run_task,
        container_name: "main".to_owned(),
        cluster: "nightly".to_owned(),
        policy,
        pool: pool(),
        doorbell: None,
    }
}

pub(crate) fn earlier() -> PoolKey {
    PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "before", &pool())
}

pub(crate) fn row() -> PoolRow {
    let specs = [(key(), spec()), (earlier(), spec())].into();
    PoolRow { specs, current: Some(key()), ..PoolRow::default() }
}

/// The size of a pool with the current key alone, and what is spare.
fn sizing(row: &PoolRow, count: &Count) -> (Sizing, u32) {
    let (sizes, spare) = row.size(&[(&key(), *count)], now());
    (sizes[0], spare)
}

fn create(row: &PoolRow, count: &Count) -> u32 {
    sizing(row, count).0.create
}

#[test]
fn empty_pool_gets_its_idle_runners() {
    let (sizing, spare) = sizing(&row(), &Count::default());
    assert_eq!((sizing, spare), (Sizing { create: 2, ..Sizing::default() }, 2));
}

#[test]
fn runners_never_exceed_the_maximum_of_all_keys() {
    let count = Count { waiting: 100, busy: 4, starting: 1, alive: 7, ..Count::default() };
    assert_eq!(create(&row(), &count), 3);
    let busy = Count { busy: 2, alive: 2, ..Count::default() };
    let (sizes, _) = row().size(&[(&key(), count), (&earlier(), busy)], now());
    assert_eq!(sizes.iter().map(|sizing| sizing.create).sum::<u32>(), 1);
    assert_eq!(create(&PoolRow { max: Some(5), ..row() }, &count), 0);
}

#[test]
fn lowered_maximum_closes_the_excess_and_no_more() {
    let count = Count { idle: 4, busy: 4, alive: 8, ..Count::default() };
    for (max, excess) in [(6, 2), (1, 4), (8, 0)] {
        assert_eq!(sizing(&PoolRow { max: Some(max), ..row() }, &count).0.excess, excess);
    }
    let closing = Count { idle: 2, closing: 2, ..count };
    assert_eq!(sizing(&PoolRow { max: Some(6), ..row() }, &closing).0.excess, 0, "two close already");
}

#[test]
fn starting_and_idle_runners_are_not_created_twice() {
    let count = Count { waiting: 3, starting: 3, idle: 2, alive: 5, ..Count::default() };
    assert_eq!(create(&row(), &count), 0);
}

#[test]
fn submission_that_idle_runners_pass_over_gets_a_runner_of_its_own() {
    let row = PoolRow { min_idle: Some(0), ..row() };
    let count = Count { waiting: 1, passed_over: 1, idle: 3, alive: 3, ..Count::default() };
    assert_eq!(create(&row, &count), 0);
    assert_eq!(create(&row, &Count { idle: 1, alive: 1, ..count }), 1);
}

#[test]
fn paused_pool_creates_nothing() {
    let count = Count { waiting: 5, ..Count::default() };
    assert_eq!(create(&PoolRow { paused: true, ..row() }, &count), 0);
}

#[test]
fn more_runners_start_at_once_than_a_minute_of_launches_and_not_more() {
    let large = PoolRow { max: Some(10_000), ..row() };
    let count = Count { waiting: 9_000, ..Count::default() };
    assert_eq!(create(&large, &count), STARTING_AT_ONCE);
    let starting = Count { starting: 2_400, alive: 2_400, ..count };
    assert_eq!(create(&large, &starting), 100);
    let busy = Count { busy: 2_400, alive: 2_400, ..count };
    assert_eq!(create(&large, &busy), STARTING_AT_ONCE, "what was created and runs does not count");
}

#[test]
fn earlier_version_of_a_profile_gets_runners_for_what_waits_and_none_to_spare() {
    let size = |count: Count| row().size(&[(&key(), Count::default()), (&earlier(), count)], now()).0[1];
    assert_eq!(size(Count { waiting: 1, ..Count::default() }).create, 1);
    assert_eq!(size(Count { idle: 2, alive: 2, ..Count::default() }).close, 2);
}

#[test]
fn oldest_submission_comes_before_idle_runners_of_the_current_version() {
    let waits = Count { waiting: 3, oldest: Some(at(0)), ..Count::default() };
    for (order, of) in [([key(), earlier()], 1), ([earlier(), key()], 0)] {
        // The current version's idle runners fill the pool.
        let idle = Count { idle: 10, alive: 10, ..Count::default() };
        let counts: Vec<_> = order.iter().map(|it| (it, if *it == key() { idle } else { waits })).collect();
        let (sizes, _) = row().size(&counts, at(9));
        assert_eq!((sizes[of].create, sizes[1 - of].excess), (0, 3), "three make room");
        let closing = Count { idle: 7, closing: 3, ..idle };
        let counts: Vec<_> = order.iter().map(|it| (it, if *it == key() { closing } else { waits })).collect();
        assert_eq!(row().size(&counts, at(9)).0[1 - of].excess, 0, "they do already");
        let closed = Count { idle: 7, alive: 7, ..idle };
        let counts: Vec<_> = order.iter().map(|it| (it, if *it == key() { closed } else { waits })).collect();
        let (sizes, _) = row().size(&counts, at(9));
        assert_eq!((sizes[of].create, sizes[1 - of].create, sizes[1 - of].excess), (3, 0, 0));
    }
}

#[test]
fn oldest_submission_of_all_versions_gets_the_last_place() {
    let waiting = |seconds| Count { waiting: 2, oldest: Some(at(seconds)), ..Count::default() };
    let one = PoolRow { max: Some(1), ..row() };
    let of = |current, before| {
        let (sizes, _) = one.size(&[(&key(), waiting(current)), (&earlier(), waiting(before))], at(99));
        (sizes[0].create, sizes[1].create)
    };
    assert_eq!((of(5, 9), of(9, 5)), ((1, 0), (0, 1)));
}

fn takes(taken: u64) -> Takes {
    Takes { taken, found_idle: 0 }
}

#[test]
fn short_commands_keep_few_reusable_runners_idle() {
    let timers = Timers::default();
    let reuse = Pool { commands_per_container: 50, min_idle: 0, ..pool() };
    let mut row = row();
    for second in 0..600 {
        row.count(takes(second), u32::from(second % 3 == 0), at(second), &timers);
    }
    assert!((1..=3).contains(&row.idle_target(&reuse, 0)), "{}", row.idle_target(&reuse, 0));
    let once = Pool { commands_per_container: 1, ..reuse };
    assert_eq!(row.idle_target(&once, 0), 61, "each takes a container, which starts within a minute");
}

#[test]
fn peak_of_the_last_15_minutes_is_kept_and_then_let_end() {
    let timers = Timers::default();
    let reuse = Pool { commands_per_container: 50, ..pool() };
    let mut row = row();
    row.count(takes(4), 4, at(0), &timers);
    row.count(takes(7), 7, at(1), &timers);
    row.count(takes(8), 0, at(120), &timers);
    assert_eq!((row.idle_target(&reuse, 0), row.idle_target(&reuse, 6), row.taken_lately()), (7, 2, 8));
    row.count(takes(8), 0, at(14 * 60), &timers);
    assert_eq!(row.idle_target(&reuse, 0), 7);
    row.count(takes(8), 0, at(15 * 60), &timers);
    assert_eq!(row.idle_target(&reuse, 0), reuse.min_idle);
    row.count(takes(9), 5, at(86_400), &timers);
    assert_eq!(row.idle_target(&reuse, 0), 5);
}

#[test]
fn idle_runners_beyond_the_target_are_closed_and_not_spare() {
    let (sizing, spare) = sizing(&row(), &Count { idle: 9, alive: 9, ..Count::default() });
    assert_eq!((sizing.close, sizing.excess, spare), (7, 0, 9), "whoever closes them subtracts them");
}

#[test]
fn pool_at_rest_needs_no_write() {
    let mut row = PoolRow::default();
    row.count(Takes::default(), 0, at(0), &Timers::default());
    assert_eq!(row, PoolRow::default());
}

#[test]
fn choices_grow_with_idle_runners_and_with_what_is_taken() {
    let timers = Timers::default();
    let mut row = row();
    assert_eq!(row.choices(at(0), &timers), 1, "priority decides");
    row.idle = 12;
    assert_eq!(row.choices(at(0), &timers), 12);
    row.count(takes(60 * 40), 0, at(30), &timers);
    assert_eq!(row.choices(at(31), &timers), 52);
    assert_eq!(row.choices(at(600), &timers), 12);
    assert_eq!(PoolRow { idle: 5_000, ..row }.choices(at(600), &timers), WIDEST);
}

#[test]
fn key_that_nothing_uses_is_kept_for_a_day_and_for_what_is_accepted_under_it() {
    let mut row = row();
    row.forget_keys(at(0), |key| *key != earlier());
    assert!(row.specs.contains_key(&earlier()));
    assert!(!row.keep(&key(), &spec()));
    assert!(row.keep(&earlier(), &spec()), "a submit function that was not updated yet");
    row.forget_keys(at(80_000), |key| *key != earlier());
    row.forget_keys(at(90_000), |key| *key != earlier());
    assert!(row.specs.contains_key(&earlier()));
    row.forget_keys(at(166_401), |key| *key != earlier());
    assert!(!row.specs.contains_key(&earlier()) && row.unused_since.is_empty());
    assert!(row.keep(&earlier(), &spec()) && row.specs.contains_key(&earlier()));
}

#[test]
fn key_changes_with_the_spec_and_not_with_limits() {
    let key = |pool: &Pool| PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "main", pool);
    let same = Pool { max: 11, min_idle: 3, idle_timeout: 60, ..pool() };
    assert_eq!(key(&same), key(&pool()));
    for other in [
        Pool { commands_per_container: 2, ..pool() },
        Pool { poll_interval_ms: 2000, ..pool() },
        Pool { runner: vec!["other".to_owned()], ..pool() },
    ] {
        assert_ne!(key(&other), key(&pool()), "{other:?}");
    }
}

#[test]
fn claims_since_last_round_are_not_spare() {
    let row = PoolRow { spare: 3, taken: 12, counted: 10, ..PoolRow::default() };
    assert_eq!(row.spare_now(), 1);
}

#[test]
fn a_batch_names_its_runners() {
    let ids = Batch::new(u128::MAX, 2, key(), now()).ids();
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(is_runner));
    assert_ne!(ids.first(), ids.last());
    assert!(Batch::new(1 << 40, 1, key(), now()).ids() != Batch::new(1 << 41, 1, key(), now()).ids());
}

/// A runner that ended at this second without having asked for work, or with.
fn ended(seconds: u64, has_asked: bool) -> Record {
    ended_as(State::Failed, seconds, has_asked)
}

fn ended_as(state: State, seconds: u64, has_asked: bool) -> Record {
    let runner = Runner::new(key(), TokenHash::of("secret"), &pool());
    let mut record = Record::new_runner(submission("runner-1"), runner, at(0), &rules());
    if has_asked {
        record.runner_mut().unwrap().incarnation = Some("incarnation".to_owned().try_into().unwrap());
        record.attempt.started_at = Some(at(seconds));
    }
    record.change_to(State::Launching).unwrap();
    record.end(state, "no such image", at(seconds), &rules()).unwrap();
    record
}

#[test]
fn a_pool_fails_from_the_first_runner_that_never_asked_until_one_asks() {
    let mut row = PoolRow::default();
    row.see(&[ended(5, false), ended(9, false)]);
    assert_eq!((row.failing_since, row.failure.as_deref()), (Some(at(5)), Some("no such image")));
    row.see(&[ended(9, false)]);
    assert_eq!(row.failing_since, Some(at(5)));
    row.see(&[ended(9, false), ended(20, true)]);
    assert_eq!((row.failing_since, &row.failure), (None, &None));
    row.see(&[ended(5, true), ended(9, false)]);
    assert_eq!(row.failing_since, Some(at(9)));
    row.see(&[]);
    assert_eq!(row.failing_since, None);
}

#[test]
fn failure_has_the_reason_of_the_stop_and_the_exit_code_with_its_meaning() {
    let failure = |change: &dyn Fn(&mut Record)| {
        let mut record = ended(5, false);
        change(&mut record);
        let mut row = row();
        row.see(&[record]);
        row.failure.unwrap()
    };
    let stopped = |record: &mut Record, code| {
        record.attempt.exit_code = Some(code);
        record.attempt.reason = Some("UserInitiated with exit code 0".to_owned());
        let reason = "the runner never asked for work".to_owned();
        record.stop_requested = Some(Stop { cause: StopCause::User, reason });
    };
    assert_eq!(failure(&|_| {}), "no such image");
    assert_eq!(
        failure(&|record| stopped(record, 204)),
        "the runner never asked for work; container main exited with 204: it did not reach the runner API"
    );
    assert_eq!(failure(&|record| stopped(record, 0)), "the runner never asked for work; container main exited with 0");
    let exited = |record: &mut Record| {
        record.attempt.exit_code = Some(201);
        record.attempt.reason = Some("container main exited with 201".to_owned());
    };
    assert_eq!(failure(&exited), "container main exited with 201: it found no AWS credentials");
}

#[test]
fn runner_that_asked_and_ended_is_no_failure() {
    let mut worked = ended(9, true);
    worked.attempt.started_at = Some(at(5));
    let mut row = row();
    row.see(&[worked]);
    assert_eq!((row.failing.len(), row.failing_since), (0, None));
}

#[test]
fn runner_that_was_stopped_because_it_never_asked_has_failed() {
    let stopped = |closing| {
        let mut record = ended_as(State::Cancelled, 5, false);
        record.runner_mut().unwrap().closing = closing;
        record
    };
    let mut row = PoolRow { batches: vec![Batch::new(0, 1, key(), at(0))], ..row() };
    let of_batch = |closing| {
        let mut record: Record = stopped(closing);
        record.submission_id = row.batches[0].ids()[0].clone();
        record
    };
    let (failed, cancelled) = (of_batch(true), of_batch(false));
    row.see(std::slice::from_ref(&failed));
    assert_eq!(row.failing_since, Some(at(5)));
    row.forget_batches(&[failed], at(120), &Timers::default());
    assert_eq!(row.batches.len(), 1, "the next round still finds it");
    row.see(std::slice::from_ref(&cancelled));
    row.forget_batches(&[cancelled], at(120), &Timers::default());
    assert_eq!(row.batches, []);
}

#[test]
fn failing_version_of_a_profile_holds_up_no_other() {
    let mut row = row();
    let broken = |mut record: Record| {
        record.runner_mut().unwrap().key = earlier();
        record
    };
    row.see(&[broken(ended(5, false)), ended(9, true)]);
    assert_eq!(row.failing.keys().collect::<Vec<_>>(), [&earlier()]);
    assert_eq!((row.failing_since, row.failure.as_deref()), (Some(at(5)), Some("no such image")));
    let waiting = |seconds| Count { waiting: 3, oldest: Some(at(seconds)), ..Count::default() };
    // The older submissions are those of the failing version.
    let (sizes, _) = row.size(&[(&key(), waiting(2)), (&earlier(), waiting(1))], at(20));
    assert_eq!((sizes[0].create, sizes[1].create), (5, 1));
}

#[test]
fn a_failing_pool_tries_one_runner_at_a_time_ever_later() {
    let count = Count { waiting: 9, ..Count::default() };
    let failing = Failing { since: at(0), reason: None };
    let mut row = PoolRow { failing: [(key(), failing)].into(), ..row() };
    let mut tries = vec![];
    for second in 0..600 {
        let create = row.size(&[(&key(), count)], at(second)).0[0].create;
        if create > 0 {
            assert_eq!(create, 1);
            tries.push(second);
            row.batches = vec![Batch::new(0, 1, key(), at(second))];
        }
    }
    assert_eq!(tries[..5], [5, 10, 15, 23, 35]);
    assert_eq!(tries[tries.len() - 1] - tries[tries.len() - 2], 60);
    let starting = Count { starting: 1, alive: 1, ..count };
    assert_eq!(row.size(&[(&key(), starting)], at(3600)).0[0].create, 0);
}

#[test]
fn a_changed_profile_has_another_key() {
    let profile: ProfileName = "etl".parse().unwrap();
    let run_task = |family: &str| serde_json::json!({"taskDefinition": family}).as_object().unwrap().clone();
    let key = PoolKey::of(&profile, &[run_task("a")], "main", &pool());
    assert_eq!(key, PoolKey::of(&profile, &[run_task("a")], "main", &pool()));
    assert_ne!(key, PoolKey::of(&profile, &[run_task("b")], "main", &pool()));
    assert_ne!(key, PoolKey::of(&profile, &[run_task("a")], "other", &pool()));
    assert!(key.as_str().starts_with("etl#"));
}
