//! The table at the wire: lost races, partial responses, invalid rows, launch tokens.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use ecs_bridge_aws::{Begun, Bridge, Created, Page, TableError, now};
use ecs_bridge_core::{
    AttemptNumber, Container, Input, ProfileName, Record, State, SubmissionId, Task, Timestamp,
    api::{self, ItemCode},
    capacity::{Capacity, Shape},
    event::Event,
    launch_rate::LaunchRate,
    notify::Listeners,
    profile::Policy,
    record::{DUE_SHARDS, REPEAT},
    run_task::REQUEST_BYTES,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{CLUSTER, Deployment, Reply, TABLE, TASK, Wire, clients, item, profiles, submission_id, task};

async fn deployment() -> Deployment {
    Deployment::answering(Reply::Answer(200, task(json!({})).to_string())).await
}

fn seen(version: u64, last_status: &str) -> Input {
    let container = Container { name: "main".to_owned(), last_status: last_status.to_owned(), ..Container::default() };
    Input::Seen(Task {
        arn: TASK.to_owned(),
        cluster_arn: CLUSTER.to_owned(),
        attempt: AttemptNumber::FIRST,
        version: Some(version),
        last_status: last_status.to_owned(),
        desired_status: "RUNNING".to_owned(),
        stop_code: None,
        stopped_reason: None,
        containers: vec![container],
        runs_on: Some("FARGATE".to_owned()),
        cpu: None,
        memory: None,
        started_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        at: None,
    })
}

#[tokio::test]
async fn record_round_trips_through_the_table() {
    let deployment = deployment().await;
    let (record, _) = deployment.claimed(item("a")).await;
    assert_eq!(deployment.record("a").await, record);
}

#[tokio::test]
async fn largest_accepted_request_fits_into_row() {
    let mut random = fastrand::Rng::with_seed(1);
    // Random letters and digits compress equally badly at both lengths.
    let mut large = |characters: usize| {
        let text: String = (0..characters).map(|_| random.alphanumeric()).collect();
        let labels = json!({"l": "v".repeat(199)});
        let overrides = json!({"tags": [{"key": "k", "value": text}]});
        json!({"submission_id": "x".repeat(60), "command": ["true"], "labels": labels, "overrides": overrides})
    };
    let read = |item: &Value| {
        let body = json!({"submissions": [item]}).to_string();
        api::submissions(body.as_bytes(), &profiles(), &Listeners::default()).unwrap().remove(0).submission
    };
    let sample = read(&large(400_000)).unwrap().request.bytes();
    let most = REQUEST_BYTES * 400_000 / sample;

    let error = read(&large(most + most / 500)).unwrap_err();
    assert_eq!(error.code, ItemCode::Invalid, "{error:?}");
    assert!(error.message.contains(&REQUEST_BYTES.to_string()), "{error:?}");

    let largest = large(most - most / 500);
    assert!(read(&largest).unwrap().request.bytes() > REQUEST_BYTES / 100 * 99);
    deployment().await.claimed(largest).await;
}

#[tokio::test]
async fn concurrent_creates_have_one_winner() {
    let deployment = deployment().await;
    let (first, _) = deployment.claimed(item("other")).await;
    let mut record = first;
    record.submission_id = submission_id("a");
    let created = join_all((0..50).map(|_| deployment.bridge.table.create(&record))).await;
    let new = created.iter().filter(|created| matches!(created, Ok(Created::New))).count();
    let known = created.iter().filter(|created| matches!(created, Ok(Created::Known(known)) if **known == record));
    assert_eq!((new, known.count()), (1, 49));
}

#[tokio::test]
async fn create_with_lost_response_is_new() {
    let table = Wire::dynamodb(|seen, nth| match (seen.operation.as_str(), nth) {
        ("PutItem", 0) => Reply::AnswerLost,
        _ => Reply::PassOn,
    })
    .await;
    let launches = Wire::start(|_, _| Reply::Answer(200, task(json!({})).to_string())).await;
    let deployment = Deployment::with(table, launches);
    let (record, _) = deployment.claimed(item("a")).await;
    assert_eq!(deployment.table.operations(), ["PutItem", "PutItem"]);
    let created = deployment.bridge.table.create(&record).await.unwrap();
    assert!(matches!(created, Created::Known(_)), "another caller's row is not this call's");
}

/// Returns a deployment that loses the response to the `nth` UpdateItem.
async fn deployment_that_loses(nth: usize) -> Deployment {
    let table = Wire::dynamodb(move |seen, seen_before| match (seen.operation.as_str(), seen_before) {
        ("UpdateItem", before) if before == nth => Reply::AnswerLost,
        _ => Reply::PassOn,
    })
    .await;
    Deployment::with(table, Wire::start(|_, _| Reply::Answer(200, task(json!({})).to_string())).await)
}

#[tokio::test]
async fn update_with_lost_response_wins_its_race() {
    let deployment = deployment_that_loses(0).await;
    let (record, _) = deployment.claimed(item("a")).await;
    let due = record.check_at.unwrap();
    let mut next = record.clone();
    (next.rev, next.check_at) = (record.rev + 1, Some(due.plus(Duration::from_secs(1))));
    let table = &deployment.bridge.table;
    assert_eq!(table.update(&record, &next).await.unwrap(), Ok(()));
    assert_eq!(deployment.table.operations(), ["PutItem", "UpdateItem", "UpdateItem"]);

    let again = table.update(&record, &next).await.unwrap();
    assert_eq!(again, Err(Some(Box::new(next))), "the same write by another process is a lost race");
}

#[tokio::test]
async fn claim_with_lost_response_is_carried_out() {
    let deployment = deployment_that_loses(0).await;
    let (record, _) = deployment.claimed(item("a")).await;
    let mut due = record;
    (due.check_at, due.due) = (Some(now()), Some(REPEAT.to_owned()));
    let claimed = deployment.bridge.claim(due, &Input::Due).await.unwrap();
    assert!(claimed.is_some_and(|claimed| claimed.action.is_some()), "the claim would stand and nobody act on it");
}

#[tokio::test]
async fn lost_race_is_decided_on_newer_record() {
    let deployment = deployment().await;
    let stale = deployment.launched(item("a")).await;
    let other = deployment.another_process();
    other.settle(stale.clone(), Input::Stop("enough".to_owned())).await.ok();
    deployment.table.take();

    let record = deployment.bridge.settle(stale, seen(3, "RUNNING")).await.unwrap();
    assert_eq!(deployment.table.take(), ["UpdateItem", "UpdateItem"], "the conflict carries the row: no read");
    assert_eq!((record.state(), record.attempt.ecs_version), (State::Running, Some(3)));
    assert_eq!(record.stop_requested.as_ref().unwrap().reason, "enough");
    assert_eq!(record, deployment.record("a").await);
}

#[tokio::test]
async fn lost_race_without_work_writes_nothing() {
    let deployment = deployment().await;
    let stale = deployment.launched(item("a")).await;
    deployment.bridge.settle(stale.clone(), seen(5, "RUNNING")).await.unwrap();
    let before = deployment.record("a").await;
    deployment.bridge.settle(stale, seen(4, "PENDING")).await.unwrap();
    assert_eq!(deployment.record("a").await, before);
}

#[tokio::test]
async fn concurrent_events_keep_the_newest() {
    let deployment = deployment().await;
    let stale = deployment.launched(item("a")).await;
    let versions = [9, 2, 12, 7, 5, 11, 3, 8, 10, 4, 6];
    deployment.table.take();
    let settled =
        join_all(versions.into_iter().map(|version| deployment.bridge.settle(stale.clone(), seen(version, "RUNNING"))))
            .await;
    assert!(settled.iter().all(Result::is_ok));
    let record = deployment.record("a").await;
    assert_eq!(record.attempt.ecs_version, Some(12));
    assert!((stale.rev + 1..=stale.rev + 11).contains(&record.rev), "{} after {}", record.rev, stale.rev);
}

#[tokio::test]
async fn expired_record_stays_removed() {
    let deployment = deployment().await;
    let stale = deployment.launched(item("a")).await;
    let client = clients(&deployment.table.url).dynamodb;
    let key = aws_sdk_dynamodb::types::AttributeValue::S("a".to_owned());
    client.delete_item().table_name(TABLE).key("submission_id", key).send().await.unwrap();
    deployment.bridge.settle(stale, seen(3, "RUNNING")).await.unwrap();
    assert!(deployment.bridge.table.get(&submission_id("a")).await.unwrap().is_none(), "an event creates no record");
}

#[tokio::test]
async fn attribute_of_newer_version_survives_write() {
    let deployment = deployment().await;
    let record = deployment.launched(item("a")).await;
    put(&deployment, &record, json!({"invented": {"S": "tomorrow"}})).await;
    let record = deployment.record("a").await;
    deployment.bridge.settle(record, seen(3, "RUNNING")).await.unwrap();
    let row = raw(&deployment, "a").await;
    assert_eq!(row["invented"].as_s().unwrap(), "tomorrow");
    assert_eq!(row["state"].as_s().unwrap(), "running");
}

#[tokio::test]
async fn unprocessed_batch_keys_are_retried() {
    let ids: Vec<SubmissionId> = (0..7).map(|n| submission_id(&format!("s{n}"))).collect();
    let unprocessed = |ids: &[SubmissionId]| {
        let keys: Vec<_> = ids.iter().map(|id| json!({"submission_id": {"S": id.as_str()}})).collect();
        json!({"Responses": {}, "UnprocessedKeys": {TABLE: {"Keys": keys, "ConsistentRead": true}}})
    };
    let (all, rest) = (unprocessed(&ids), unprocessed(&ids[3..]));
    let table = Wire::dynamodb(move |seen, nth| match (seen.operation.as_str(), nth) {
        ("BatchGetItem", 0) => Reply::Answer(200, all.to_string()),
        ("BatchGetItem", 1) => Reply::Answer(200, rest.to_string()),
        _ => Reply::PassOn,
    })
    .await;
    let deployment = Deployment::with(table, Wire::start(|_, _| Reply::Closed).await);
    for id in &ids {
        deployment.claimed(item(id.as_str())).await;
    }
    deployment.table.take();
    let records = deployment.bridge.table.get_all(&ids).await.unwrap();
    // The second response reported the first three as processed and not found.
    let found: BTreeSet<_> = records.into_iter().map(|record| record.submission_id).collect();
    assert_eq!(found, ids[3..].iter().cloned().collect());
    assert_eq!(deployment.table.operations(), ["BatchGetItem"; 3]);
}

#[tokio::test]
async fn batch_is_split_into_hundreds() {
    let deployment = deployment().await;
    let ids: Vec<SubmissionId> = (0..250).map(|n| submission_id(&format!("s{n}"))).collect();
    let (first, _) = deployment.claimed(item("s0")).await;
    for id in &ids[1..] {
        let mut record = first.clone();
        record.submission_id = id.clone();
        assert!(matches!(deployment.bridge.table.create(&record).await, Ok(Created::New)));
    }
    deployment.table.take();
    assert_eq!(deployment.bridge.table.get_all(&ids).await.unwrap().len(), 250);
    assert_eq!(deployment.table.operations(), ["BatchGetItem"; 3]);
}

#[tokio::test]
async fn unreadable_row_blocks_no_other() {
    let deployment = deployment().await;
    let record = deployment.launched(item("good")).await;
    let mut bad = record;
    bad.submission_id = submission_id("bad");
    put(&deployment, &bad, json!({"state": {"S": "resting"}})).await;
    let ids = [submission_id("bad"), submission_id("good")];
    let records = deployment.bridge.table.get_all(&ids).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].submission_id, ids[1]);
    let error = deployment.bridge.table.get(&ids[0]).await.unwrap_err();
    assert_eq!(error.to_string(), "the row of bad is no record of a submission");
}

#[tokio::test]
async fn throttled_table_is_retried_without_quoting_items() {
    let table = Wire::dynamodb(|seen, nth| match (seen.operation.as_str(), nth) {
        ("PutItem", _) | ("GetItem", 0..2) => support::error(
            400,
            "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded",
        ),
        _ => Reply::PassOn,
    })
    .await;
    let deployment = Deployment::with(table, Wire::start(|_, _| Reply::Closed).await);
    assert!(deployment.bridge.table.get(&submission_id("a")).await.unwrap().is_none());
    assert_eq!(deployment.table.take(), ["GetItem"; 3]);

    let elsewhere = self::deployment().await;
    let (record, _) = elsewhere.claimed(json!({"submission_id": "a", "command": ["echo", "hunter2-hunter2"]})).await;
    let error = deployment.bridge.table.create(&record).await.unwrap_err();
    assert!(matches!(error, TableError::Call { operation: "PutItem", .. }));
    assert!(error.to_string().contains("ProvisionedThroughputExceededException"), "{error}");
    assert_eq!(deployment.table.take(), ["PutItem"; 4]);
}

#[tokio::test]
async fn launch_tokens_never_exceed_rate_and_burst() {
    const RATE: LaunchRate = LaunchRate { per_second: 20.0, burst: 100 };
    const FROM: u64 = 1_700_000_000_000;
    let deployment = deployment().await;
    let processes: Vec<Bridge> = (0..6).map(|_| deployment.another_process()).collect();
    let mut given = 0;
    for ms in (0..20_000).step_by(400) {
        // All processes take tokens at once, with clocks that differ by up to 50 ms, and each wants more than its
        // share.
        let takes = processes.iter().zip(0_u32..).map(|(process, n)| {
            let at = Timestamp::from_millis(FROM + ms + u64::from(n) * 10);
            process.table.take_launch_tokens(1 + n * 7, 0, at, RATE)
        });
        given += join_all(takes).await.into_iter().flatten().sum::<u32>();
        let allowed = 100.0 + 20.0 * (ms as f64 + 50.0) / 1000.0;
        assert!(f64::from(given) <= allowed, "{given} after {ms} ms");
    }
    assert!(given >= 100 + 20 * 19, "{given}: what is there is given");
}

#[tokio::test]
async fn returned_tokens_are_available_to_others() {
    const RATE: LaunchRate = LaunchRate { per_second: 1.0, burst: 100 };
    let deployment = deployment().await;
    let (one, other) = (deployment.another_process(), deployment.another_process());
    let at = Timestamp::from_millis(1_700_000_000_000);
    assert_eq!(one.table.take_launch_tokens(100, 0, at, RATE).await.unwrap(), 100);
    one.table.give_back_launch_tokens(70, RATE).await.unwrap();
    assert_eq!(other.table.take_launch_tokens(100, 0, at, RATE).await.unwrap(), 70);
    assert_eq!(one.table.take_launch_tokens(100, 0, at, RATE).await.unwrap(), 0);
    one.table.give_back_launch_tokens(500, RATE).await.unwrap();
    assert_eq!(one.table.take_launch_tokens(1000, 0, at, RATE).await.unwrap(), 100, "no more than the burst");
}

#[tokio::test]
async fn tokens_with_lost_response_are_returned_once() {
    const RATE: LaunchRate = LaunchRate { per_second: 1.0, burst: 100 };
    let deployment = deployment_that_loses(1).await;
    let (one, other) = (deployment.another_process(), deployment.another_process());
    let at = Timestamp::from_millis(1_700_000_000_000);
    assert_eq!(one.table.take_launch_tokens(100, 0, at, RATE).await.unwrap(), 100);
    assert!(one.table.give_back_launch_tokens(40, RATE).await.is_err());
    assert_eq!(other.table.take_launch_tokens(100, 0, at, RATE).await.unwrap(), 40);
}

#[tokio::test]
async fn fast_clock_does_not_stall_other_processes() {
    const RATE: LaunchRate = LaunchRate { per_second: 20.0, burst: 100 };
    let deployment = deployment().await;
    let (ahead, right) = (deployment.another_process(), deployment.another_process());
    let at = |ms: u64| Timestamp::from_millis(1_700_000_000_000 + ms);
    assert_eq!(ahead.table.take_launch_tokens(1000, 0, at(3_600_000), RATE).await.unwrap(), 100);
    assert_eq!(right.table.take_launch_tokens(1000, 0, at(0), RATE).await.unwrap(), 0);
    assert_eq!(right.table.take_launch_tokens(1000, 0, at(2000), RATE).await.unwrap(), 40);
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn shape() -> Shape {
    Shape { profile: ProfileName::default_profile(), placement: None }
}

#[tokio::test]
async fn alternating_token_takes_fail_no_write() {
    const RATE: LaunchRate = LaunchRate { per_second: 20.0, burst: 100 };
    let deployment = deployment().await;
    let processes: Vec<Bridge> = (0..4).map(|_| deployment.another_process()).collect();
    for _ in 0..25 {
        for process in &processes {
            assert_eq!(process.table.take_spare_launch_tokens(1, at(0), RATE).await.unwrap(), 1);
        }
    }
    // After its first write, no process has read the row again. Each knows only the response to its own last write.
    assert_eq!(deployment.table.take().len(), 100 + 3, "three did not know that the bucket was there");
    let tables = processes.iter().map(|process| &process.table);
    let takes = join_all(tables.map(|table| table.take_spare_launch_tokens(1, at(0), RATE))).await;
    assert!(takes.into_iter().all(|taken| taken.unwrap() == 0));
    assert!(deployment.table.take().len() <= 4);
}

#[tokio::test]
async fn new_submissions_take_no_tokens_from_backlog() {
    const RATE: LaunchRate = LaunchRate { per_second: 20.0, burst: 100 };
    let deployment = deployment().await;
    let (submit, reconcile) = (deployment.another_process(), deployment.another_process());
    assert_eq!(reconcile.table.take_launch_tokens(10, 300, at(0), RATE).await.unwrap(), 10);
    submit.table.look_at_launch_tokens().await.unwrap();
    deployment.table.take();
    for ms in [0, 500, 1000, 2900] {
        assert_eq!(submit.table.take_spare_launch_tokens(1, at(ms), RATE).await.unwrap(), 0);
    }
    assert!(deployment.table.take().iter().all(|operation| operation == "GetItem"));
    assert_eq!(submit.table.take_spare_launch_tokens(1, at(3100), RATE).await.unwrap(), 1, "reconcile has gone silent");
    assert_eq!(reconcile.table.take_launch_tokens(10, 10, at(4000), RATE).await.unwrap(), 10);
    submit.table.look_at_launch_tokens().await.unwrap();
    assert_eq!(submit.table.take_spare_launch_tokens(1, at(4000), RATE).await.unwrap(), 1, "nothing is left waiting");
}

async fn wakes(processes: &[Bridge], now: Timestamp) -> usize {
    let claims = join_all(processes.iter().map(|process| process.table.claim_wake(now))).await;
    claims.into_iter().filter(|claimed| *claimed.as_ref().unwrap()).count()
}

#[tokio::test]
async fn reconcile_is_invoked_once_per_second() {
    let deployment = deployment().await;
    let processes: Vec<Bridge> = (0..5).map(|_| deployment.another_process()).collect();
    assert_eq!(wakes(&processes, at(0)).await, 1);
    assert_eq!(wakes(&processes, at(900)).await, 0, "the run that was invoked finds this too");
    assert_eq!(wakes(&processes, at(1000)).await, 1, "it has not begun");
    let begun = processes[0].table.begin_run(at(2000), Duration::from_secs(8)).await.unwrap();
    assert_eq!(wakes(&processes, at(8000)).await, 0);
    deployment.table.take();
    assert_eq!(wakes(&processes, at(7000)).await, 0);
    assert!(deployment.table.take().is_empty(), "a promise holds: no one reads it again");
    assert_eq!(wakes(&processes, at(8001)).await, 1, "the index may show it after the last look");
    let prolonged = Begun { looks_until: at(20_000), ..begun };
    assert!(processes[0].table.go_on_looking(prolonged).await.unwrap());
    assert_eq!(wakes(&processes, at(12_000)).await, 0);
}

#[tokio::test]
async fn later_run_supersedes_earlier_run() {
    let deployment = deployment().await;
    let (one, other) = (deployment.another_process(), deployment.another_process());
    let first = one.table.begin_run(at(0), Duration::from_secs(6)).await.unwrap();
    let second = other.table.begin_run(at(3000), Duration::ZERO).await.unwrap();
    assert_eq!((first.looks_until, second.looks_until), (at(6000), at(6000)), "it keeps what the first has promised");
    assert!(one.table.is_last_run(&first) && other.table.is_last_run(&second), "it has not seen the other");
    assert!(!one.table.go_on_looking(Begun { looks_until: at(9000), ..first }).await.unwrap());
    let third = other.table.begin_run(at(7000), Duration::ZERO).await.unwrap();
    assert_eq!(third.looks_until, at(7000), "which has passed");
    assert!(!other.table.is_last_run(&second));
    assert!(!one.table.is_last_run(&first));
    assert!(other.table.go_on_looking(third).await.unwrap());
}

#[tokio::test]
async fn promises_from_fast_clock_are_ignored() {
    let deployment = deployment().await;
    let processes = [deployment.another_process()];
    processes[0].table.begin_run(at(3_600_000), Duration::from_secs(1)).await.unwrap();
    assert_eq!(wakes(&processes, at(3_600_000)).await, 1);
    assert_eq!(wakes(&processes, at(0)).await, 1);
}

#[tokio::test]
async fn token_writes_return_the_known_capacity() {
    let refused = json!({"tasks": [], "failures": [{"reason": "RESOURCE:GPU"}]});
    let deployment = Deployment::answering(Reply::Answer(200, refused.to_string())).await;
    let shape = shape();
    let choice = shape.choice(0);
    let is_blocked = |bridge: &Bridge| bridge.open_choice(&shape, 0..=0, 0).is_none();
    let other = deployment.another_process();
    for n in 0..3 {
        assert_eq!(other.launch_tokens(1, 1).await, 1);
        assert!(!is_blocked(&other), "after {n} refusals");
        deployment.launched(item(&format!("s{n}"))).await;
    }
    deployment.table.take();
    deployment.launched(item("s3")).await;
    assert_eq!(deployment.table.take(), ["PutItem", "UpdateItem"], "a further refusal is no news");
    assert_eq!(other.launch_tokens(1, 1).await, 1);
    assert!(is_blocked(&other));

    let known = other.table.capacity(now()).get(&choice).unwrap();
    let probed = known.probed(known.probe_at, &other.rules.timers);
    assert!(probed.is_some());
    let claimed = [&deployment.bridge, &other].map(|process| process.table.set_capacity(&choice, Some(known), probed));
    let claimed: Vec<_> = join_all(claimed).await.into_iter().map(Result::unwrap).collect();
    assert!(claimed[0] != claimed[1], "one process finds out whether it is back: {claimed:?}");

    let blocked = other.table.capacity(now()).get(&choice).unwrap();
    let open = blocked.launched(now());
    assert!(other.table.set_capacity(&choice, Some(blocked), open).await.unwrap());
    assert!(!is_blocked(&other));
    assert!(other.table.set_capacity(&choice, open, None).await.unwrap());
    assert!(other.table.capacity(now()).get(&choice).is_none());
}

#[tokio::test]
async fn fallback_is_used_while_one_process_probes() {
    let deployment = deployment().await;
    let other = deployment.another_process();
    let [first, fallback] = [0, 1].map(|number| shape().choice(number));
    let policy = Policy { fallbacks: 1, ..Policy::default() };
    let (mut record, _) = deployment.claimed(item("s")).await;
    record.policy = policy;
    assert_eq!(other.choose(&record).await, Some(0));
    let later = now().plus(Duration::from_secs(60));
    let blocked = Capacity { refusals: 3, probe_at: later, changed_at: now() };
    assert!(other.table.set_capacity(&first, None, Some(blocked)).await.unwrap());
    assert_eq!(other.choose(&record).await, Some(1), "it is too early to find out");
    let due = Capacity { probe_at: now(), ..blocked };
    assert!(other.table.set_capacity(&first, Some(blocked), Some(due)).await.unwrap());
    deployment.bridge.launch_tokens(1, 1).await;
    let mut chosen = join_all([&deployment.bridge, &other].map(|process| process.choose(&record))).await;
    chosen.sort_unstable();
    assert_eq!(chosen, [Some(0), Some(1)]);
    assert!(other.table.set_capacity(&fallback, None, Some(due)).await.unwrap());
    assert_eq!(other.choose(&record).await, None, "a submission waits apart for what its profile lacks");
}

#[tokio::test]
async fn tokens_are_none_without_the_table() {
    let table = Wire::dynamodb(|_, _| support::error(500, "InternalServerError", "")).await;
    let deployment = Deployment::with(table, Wire::start(|_, _| Reply::Closed).await);
    assert_eq!(deployment.bridge.launch_tokens(5, 5).await, 0);
    assert_eq!(deployment.bridge.spare_launch_tokens(5).await, 0);
    assert_eq!(deployment.bridge.launch_tokens(0, 0).await, 0);
}

#[tokio::test]
async fn due_records_come_from_every_partition() {
    let deployment = deployment().await;
    for n in 0..40 {
        deployment.launched(item(&format!("s{n}"))).await;
    }
    let (record, _) = deployment.claimed(item("waiting")).await;
    let refused =
        ecs_bridge_core::LaunchAnswer::RefusedForNow(ecs_bridge_core::LaunchBlocker::Capacity, "AGENT".to_owned());
    let call = ecs_bridge_core::Call {
        attempt: AttemptNumber::FIRST,
        choice: 0,
        since: record.attempt.calls.unanswered_since.unwrap(),
        nth: 1,
        claimed_at: now(),
    };
    deployment.bridge.settle(record, Input::Launch(call, refused)).await.unwrap();

    let horizon = now().plus(Duration::from_secs(3600));
    let table = &deployment.bridge.table;
    let mut due = BTreeSet::new();
    for shard in 0..DUE_SHARDS {
        let mut page = Page::default();
        loop {
            page = table.due(&shard.to_string(), horizon, 3, page).await.unwrap();
            assert!(page.records.len() <= 3 && page.records.is_sorted_by_key(|record| record.check_at));
            due.extend(page.records.iter().map(|record| record.submission_id.clone()));
            if page.is_last() {
                break;
            }
        }
        let due_by_now = table.due(&shard.to_string(), now(), 3, Page::default()).await.unwrap();
        assert!(due_by_now.records.is_empty(), "none is due yet");
    }
    assert_eq!(due.len(), 40);
    let queued = table.due(REPEAT, horizon, 100, Page::default()).await.unwrap();
    assert_eq!(queued.records.len(), 1);
    assert_eq!(queued.records[0].submission_id.as_str(), "waiting");
    assert_eq!(table.count_due(REPEAT, horizon).await.unwrap(), 1);
}

#[tokio::test]
async fn captured_event_ends_its_record() {
    let mut event: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/events/fargate_exit1.json")).unwrap();
    event["detail"]["startedBy"] = "local/a/1".into();
    event["detail"]["clusterArn"] = CLUSTER.into();
    let deployment = deployment().await;
    let (mut record, _) = deployment.claimed(item("a")).await;
    record.created_at = Timestamp::parse_iso("2020-08-14T18:00:00Z").unwrap();
    let parsed = ecs_bridge_core::event::parse(&event.to_string(), &deployment.bridge.rules.deployment);
    let Ok(Event::Ours(id, task)) = parsed else { unreachable!("{parsed:?}") };
    assert_eq!(id.as_str(), "a");
    let record = deployment.bridge.settle(record, Input::Seen(*task)).await.unwrap();
    assert_eq!((record.state(), record.attempt.exit_code), (State::Failed, Some(1)));
    assert_eq!(record.attempt.stop_code.as_deref(), Some("EssentialContainerExited"));
}

async fn put(deployment: &Deployment, record: &Record, more: Value) {
    let mut row: Row = serde_dynamo::aws_sdk_dynamodb_1::to_item(record).unwrap();
    for (name, value) in more.as_object().unwrap() {
        let text = value["S"].as_str().unwrap().to_owned();
        row.insert(name.clone(), aws_sdk_dynamodb::types::AttributeValue::S(text));
    }
    let client = clients(&deployment.table.url).dynamodb;
    client.put_item().table_name(TABLE).set_item(Some(row)).send().await.unwrap();
}

type Row = std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>;

async fn raw(deployment: &Deployment, id: &str) -> Row {
    let client = clients(&deployment.table.url).dynamodb;
    let key = aws_sdk_dynamodb::types::AttributeValue::S(id.to_owned());
    let request = client.get_item().table_name(TABLE).key("submission_id", key).consistent_read(true);
    request.send().await.unwrap().item.unwrap()
}
