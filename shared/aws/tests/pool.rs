//! Runners and the submissions that they serve, tested at the wire: two rows that no transaction joins.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod support;

use ecs_bridge_core::{
    Input, LaunchAnswer, ProfileName, Record, State, Task, api,
    decide::PoolInput,
    notify::Listeners,
    pool::{Batch, Pool, PoolKey, PoolRow, Process, Runner, Spec, Takes, TokenHash},
    profile::Policy,
    record::Submission,
    run_task::FrozenRequest,
};
use futures_util::future::join_all;
use serde_json::{Map, json};
use support::{CLUSTER, Deployment, Reply, TASK, item, profiles, submission_id};

const RUNNER: &str = "runner-1";

fn process() -> Process {
    let incarnation = "incarnation-1".to_owned().try_into().unwrap();
    Process { runner_id: submission_id(RUNNER), incarnation }
}

fn pool_of() -> Pool {
    serde_json::from_value(json!({"max": 5})).unwrap()
}

fn key() -> PoolKey {
    PoolKey::of(&ProfileName::default_profile(), &[Map::new()], "main", &pool_of())
}

fn spec() -> Spec {
    let run_task = FrozenRequest::freeze(&[Map::new()]);
    let (container_name, cluster) = ("main".to_owned(), CLUSTER.to_owned());
    Spec { run_task, container_name, cluster, policy: Policy::default(), pool: pool_of(), doorbell: None }
}

fn submission(id: &str) -> Submission {
    let body = json!({"submissions": [item(id)]}).to_string();
    let submission =
        api::submissions(body.as_bytes(), &profiles(), &Listeners::default()).unwrap().remove(0).submission.unwrap();
    Submission { pool: Some(key()), ..submission }
}

/// Returns a runner that polls.
async fn runner(deployment: &Deployment) -> Record {
    let bridge = &deployment.bridge;
    let runner = Runner { commands: 9, ..Runner::new(key(), TokenHash::of("secret"), &pool_of()) };
    let submission = Submission { submission_id: submission_id(RUNNER), ..submission("stands-in") };
    let record = Record::new_runner(submission, runner, ecs_bridge_aws::now(), &bridge.rules);
    bridge.table.create(&record).await.unwrap();
    let settled = bridge.decide(record, &Input::Due).await.unwrap();
    let Some(ecs_bridge_core::Action::RunTask(call)) = settled.action else { unreachable!("{settled:?}") };
    let task = LaunchAnswer::Task { arn: TASK.to_owned(), live: true };
    let record = bridge.settle(settled.record, Input::Launch(call, task)).await.unwrap();
    pool(deployment, record, PoolInput::Contact(process().incarnation)).await
}

async fn pool(deployment: &Deployment, record: Record, input: PoolInput) -> Record {
    deployment.bridge.settle(record, Input::Pool(input)).await.unwrap()
}

/// Returns a waiting submission that the runner's row lists as served.
async fn served(deployment: &Deployment, id: &str) -> Record {
    let record = Record::queued(submission(id), ecs_bridge_aws::now(), &deployment.bridge.rules);
    deployment.bridge.table.create(&record).await.unwrap();
    pool(deployment, deployment.record(RUNNER).await, PoolInput::Serve(submission_id(id))).await;
    record
}

async fn taken(deployment: &Deployment, id: &str) -> Record {
    let record = served(deployment, id).await;
    let take = PoolInput::Take { by: process(), task_arn: TASK.to_owned(), cluster: CLUSTER.to_owned() };
    pool(deployment, record, take).await
}

fn stopped() -> Input {
    Input::Seen(Task {
        arn: TASK.to_owned(),
        cluster_arn: CLUSTER.to_owned(),
        attempt: ecs_bridge_core::AttemptNumber::FIRST,
        version: Some(7),
        last_status: "STOPPED".to_owned(),
        desired_status: "STOPPED".to_owned(),
        stop_code: Some("SpotInterruption".to_owned()),
        stopped_reason: None,
        containers: vec![],
        runs_on: Some("FARGATE".to_owned()),
        cpu: None,
        memory: None,
        started_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        at: None,
    })
}

async fn deployment() -> Deployment {
    Deployment::new(|_, _| Reply::Answer(200, "{}".to_owned())).await
}

#[tokio::test]
async fn runner_task_stop_ends_served_submission_first() {
    let deployment = deployment().await;
    runner(&deployment).await;
    taken(&deployment, "a").await;
    deployment.table.take();
    deployment.bridge.settle(deployment.record(RUNNER).await, stopped()).await.unwrap();
    let writes = deployment.table.seen().into_iter().filter(|seen| seen.operation == "UpdateItem");
    let ids: Vec<_> =
        writes.map(|seen| seen.body()["Key"]["submission_id"]["S"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["a", RUNNER]);
    let (submission, runner) = (deployment.record("a").await, deployment.record(RUNNER).await);
    assert_eq!((submission.state(), submission.attempt.exit_code), (State::Failed, None));
    assert!(submission.attempt.reason.unwrap().starts_with("SpotInterruption"));
    assert!(runner.state().is_terminal() && runner.feed.is_none());
}

#[tokio::test]
async fn untaken_submission_survives_runner_task_stop() {
    let deployment = deployment().await;
    runner(&deployment).await;
    let read = served(&deployment, "a").await;
    deployment.bridge.settle(deployment.record(RUNNER).await, stopped()).await.unwrap();
    let now = deployment.record("a").await;
    assert_eq!((now.state(), now.rev), (State::Queued, read.rev + 1));
    let mut late = read.clone();
    late.rev += 1;
    let written = deployment.bridge.table.update(&read, &late).await.unwrap();
    assert!(written.is_err(), "the take that is still under way loses");
}

#[tokio::test]
async fn stop_closes_runner_before_its_task() {
    let deployment = deployment().await;
    runner(&deployment).await;
    let record = taken(&deployment, "a").await;
    deployment.bridge.settle(record, Input::Stop("enough".to_owned())).await.unwrap();
    assert!(deployment.record(RUNNER).await.runner().unwrap().closing);
    assert_eq!(deployment.ecs.operations(), ["StopTask"]);
}

#[tokio::test]
async fn stop_affects_no_other_command() {
    let deployment = deployment().await;
    runner(&deployment).await;
    let stale = taken(&deployment, "a").await;
    // Its command is done, and the runner has taken the next one.
    pool(&deployment, stale.clone(), PoolInput::Done { by: process(), exit_code: 0, stopping: false }).await;
    let over = PoolInput::Served { submission_id: submission_id("a"), done: true };
    pool(&deployment, deployment.record(RUNNER).await, over).await;
    taken(&deployment, "b").await;
    // A process that read the row earlier decides to stop it.
    let settled = ecs_bridge_aws::Settled {
        action: ecs_bridge_core::decide(
            &stale,
            &Input::Stop("enough".to_owned()),
            ecs_bridge_aws::now(),
            &deployment.bridge.rules,
        )
        .action,
        record: stale,
    };
    deployment.bridge.carry_out(settled).await.unwrap();
    assert!(deployment.ecs.operations().is_empty(), "no StopTask");
    assert!(!deployment.record(RUNNER).await.runner().unwrap().closing);
}

#[tokio::test]
async fn waiting_submissions_are_ranked_until_taken() {
    let deployment = deployment().await;
    let bridge = &deployment.bridge;
    runner(&deployment).await;
    for (id, priority) in [("late", 999), ("usual", 500), ("urgent", 0)] {
        let submission = Submission { priority: priority.try_into().unwrap(), ..submission(id) };
        let record = Record::queued(submission, ecs_bridge_aws::now(), &bridge.rules);
        bridge.table.create(&record).await.unwrap();
    }
    let waiting = |limit| async move {
        let rows = bridge.table.ranked(&key().waiting(), limit).await.unwrap();
        rows.into_iter().map(|row| (row.submission_id.to_string(), u16::from(row.priority))).collect::<Vec<_>>()
    };
    let row = |id: &str, priority| (id.to_owned(), priority);
    assert_eq!(waiting(9).await, [row("urgent", 0), row("usual", 500), row("late", 999)]);
    assert_eq!(waiting(1).await, [row("urgent", 0)]);
    let runners = bridge.table.ranked(&key().runners(), 9).await.unwrap();
    assert_eq!(runners.len(), 1);

    let urgent = deployment.record("urgent").await;
    let take = PoolInput::Take { by: process(), task_arn: TASK.to_owned(), cluster: CLUSTER.to_owned() };
    let taken = bridge.attempt(&urgent, &Input::Pool(take.clone())).await.unwrap().unwrap();
    assert_eq!(taken.state(), State::Running);
    assert!(bridge.attempt(&urgent, &Input::Pool(take)).await.unwrap().is_none(), "it was read before it was taken");
    assert_eq!(waiting(9).await.len(), 2);
}

#[tokio::test]
async fn pool_row_has_one_writer_per_round() {
    let deployment = deployment().await;
    let (table, profile) = (&deployment.bridge.table, ProfileName::default_profile());
    assert_eq!(table.takes(&profile).await.unwrap(), Takes::default());
    let before = table.pool_row(&profile).await.unwrap();
    let batch = Batch::new(1 << 64, 2, key(), ecs_bridge_aws::now());
    let after = PoolRow { rev: 1, spare: 3, batches: vec![batch], ..before.clone() };
    assert!(table.update_pool_row(&profile, &before, &after).await.unwrap());
    assert!(!table.update_pool_row(&profile, &before, &after).await.unwrap(), "another round was quicker");
    for takes in [Takes { taken: 1, found_idle: 1 }, Takes { taken: 4, found_idle: 2 }] {
        table.count_taken(&profile, takes).await.unwrap();
    }
    assert_eq!(table.takes(&profile).await.unwrap(), Takes { taken: 5, found_idle: 3 });
    assert_eq!(table.pool_row(&profile).await.unwrap(), after, "the large row is not written for a count");
}

#[tokio::test]
async fn pool_key_is_stored_once_by_submit() {
    let deployment = deployment().await;
    let (table, profile) = (&deployment.bridge.table, ProfileName::default_profile());
    let of = (key(), spec());
    let rows = join_all((0..3).map(|_| table.keep_pool(&profile, &of))).await;
    for row in rows {
        assert!(row.unwrap().specs.contains_key(&key()));
    }
    deployment.table.take();
    table.keep_pool(&profile, &of).await.unwrap();
    assert_eq!(deployment.table.take(), ["GetItem"], "it is there");
    table.look_at_launch_tokens().await.unwrap();
    assert_eq!(table.pools(), std::slice::from_ref(&profile));
    // A reconcile of another version considers it unused, but a submit of this version still uses it.
    let before = table.pool_row(&profile).await.unwrap();
    let mut unused = PoolRow { rev: before.rev + 1, ..before.clone() };
    unused.forget_keys(ecs_bridge_aws::now(), |_| false);
    assert!(table.update_pool_row(&profile, &before, &unused).await.unwrap());
    assert!(table.keep_pool(&profile, &of).await.unwrap().unused_since.is_empty());
}

#[tokio::test]
async fn pools_are_known_without_profile_configuration() {
    let deployment = deployment().await;
    let (table, profile) = (&deployment.bridge.table, ProfileName::default_profile());
    table.set_pool(&profile, true).await.unwrap();
    table.look_at_launch_tokens().await.unwrap();
    assert_eq!(table.pools(), std::slice::from_ref(&profile));
    table.set_pool(&profile, false).await.unwrap();
    table.look_at_launch_tokens().await.unwrap();
    assert!(table.pools().is_empty());
}
