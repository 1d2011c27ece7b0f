//! Outage tests: ECS is unreachable or rejects every call, for hours of the protocol's time.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::time::Duration;

use ecs_bridge_aws::{Bridge, Ecs, now};
use ecs_bridge_core::{Input, Record, State, Timestamp};
use serde_json::{Value, json};
use support::{Deployment, Reply, TASK, Wire, clients, error, item, submission_id, task};
use tokio::net::TcpSocket;

/// The divisor of the protocol's times: two hours take two seconds.
const SCALE: f64 = 3600.0;

/// Expires reconcile's timers for as long as `goes_on` returns true for the records.
async fn reconcile(bridge: &Bridge, ids: &[&str], goes_on: impl Fn(&[Record]) -> bool) -> Vec<Record> {
    let ids: Vec<_> = ids.iter().map(|id| submission_id(id)).collect();
    loop {
        let records = bridge.table.get_all(&ids).await.unwrap();
        if !goes_on(&records) {
            return records;
        }
        for record in records.into_iter().filter(|record| record.check_at.is_some_and(|at| at <= now())) {
            bridge.settle(record, Input::Due).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn of<'a>(records: &'a [Record], id: &str) -> &'a Record {
    records.iter().find(|record| record.submission_id.as_str() == id).unwrap()
}

/// Returns a deployment with ECS at `url` and faster timers. Claims are sent regardless of their age, because a busy
/// machine is slow.
async fn deployment(url: &str) -> Deployment {
    let mut deployment = Deployment::answering(Reply::Never).await;
    deployment.bridge.ecs = Ecs::new(clients(url).ecs);
    let timers = &mut deployment.bridge.rules.timers;
    *timers = ecs_bridge_core::Timers { send_within: timers.send_within, ..timers.scaled(SCALE) };
    deployment
}

fn with_deadline(id: &str, deadline: Timestamp) -> Value {
    json!({"submission_id": id, "command": ["true"], "launch_deadline": deadline.millis()})
}

#[tokio::test]
async fn launches_resume_after_two_hour_ecs_outage() {
    // The socket is bound but not listening. Connections are refused, and no other process gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let deployment = deployment(&url).await;

    let outage = Duration::from_secs(7200).div_f64(SCALE);
    let (begun, heals) = (now(), now().plus(outage));
    let record = deployment.launched(item("patient")).await;
    assert_eq!((record.state(), record.attempt.reason.as_deref()), (State::Queued, Some("no connection to ECS")));
    deployment.launched(with_deadline("expires", begun.plus(outage / 2))).await;
    deployment.launched(with_deadline("in-time", heals.plus(Duration::from_secs(600)))).await;
    let ids = ["patient", "expires", "in-time"];
    let goes_on = |records: &[Record]| now() < heals || of(records, "expires").state() == State::Queued;
    let records = reconcile(&deployment.bridge, &ids, goes_on).await;
    for (id, state) in [("patient", State::Queued), ("expires", State::Expired), ("in-time", State::Queued)] {
        assert_eq!(of(&records, id).state(), state, "{id}");
    }

    let ecs = Wire::start_on(socket.listen(1024).unwrap(), |seen, _| {
        assert_eq!(seen.operation, "RunTask");
        let started_by = seen.body()["startedBy"].as_str().unwrap().to_owned();
        let arn = TASK.replace("0123456789abcdef0123456789abcdef", &started_by.replace('/', "-"));
        Reply::Answer(200, task(json!({"taskArn": arn})).to_string())
    });
    let waits = |records: &[Record]| records.iter().any(|record| record.state() == State::Queued);
    let records = reconcile(&deployment.bridge, &ids, waits).await;
    assert_eq!((of(&records, "patient").state(), of(&records, "in-time").state()), (State::Launched, State::Launched));
    assert_eq!(ecs.operations(), ["RunTask", "RunTask"]);
}

#[tokio::test]
async fn tls_handshake_failure_launches_nothing() {
    let ecs = Wire::start(|seen, _| panic!("{} was not expected", seen.operation)).await;
    let deployment = deployment(&ecs.url.replace("http://", "https://")).await;
    let record = deployment.launched(item("a")).await;
    assert_eq!((record.state(), record.attempt.calls.launch_calls), (State::Queued, 0));
}

/// Returns one submission whose first RunTask gets no response. It is looked up with `answers` until it ends.
async fn unanswered(
    give_up_after: Duration,
    answers: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (Record, Duration) {
    let ecs = Wire::start(move |seen, _| match seen.operation.as_str() {
        "RunTask" => Reply::Closed,
        other => answers(other),
    })
    .await;
    let mut deployment = deployment(&ecs.url).await;
    deployment.bridge.rules.timers.give_up_after = give_up_after;
    let begun = now();
    deployment.launched(item("a")).await;
    let records = reconcile(&deployment.bridge, &["a"], |records| !records[0].state().is_terminal()).await;
    (records[0].clone(), now().since(begun))
}

#[tokio::test]
async fn denied_lookups_lose_submission_after_a_day() {
    let denied = || error(400, "AccessDeniedException", "not authorized to perform: ecs:ListTasks");
    // A day takes slightly more than a second.
    let day = Duration::from_secs(24 * 3600).div_f64(SCALE * 20.0);
    let (record, lasted) = unanswered(day, move |_| denied()).await;
    assert_eq!(record.state(), State::Lost);
    assert!(record.attempt.reason.unwrap().contains("AccessDeniedException"));
    assert!(lasted >= day);
}

#[tokio::test]
async fn deleted_cluster_has_no_task() {
    // The duration of the lookups does not matter.
    let never = Duration::from_secs(24 * 3600);
    let (record, _) = unanswered(never, |_| error(400, "ClusterNotFoundException", "Cluster not found.")).await;
    assert_eq!(record.state(), State::Lost);
    assert!(record.attempt.reason.unwrap().contains("ECS has no task"));
}

#[tokio::test]
async fn lookup_reads_every_page() {
    let ecs = Wire::start(|seen, _| match seen.operation.as_str() {
        "ListTasks" if seen.body()["desiredStatus"] == "RUNNING" => {
            Reply::Answer(200, json!({"taskArns": []}).to_string())
        }
        "ListTasks" if seen.body()["nextToken"].is_null() => {
            Reply::Answer(200, json!({"taskArns": [], "nextToken": "more"}).to_string())
        }
        "ListTasks" => Reply::Answer(200, json!({"taskArns": [TASK]}).to_string()),
        other => panic!("{other} was not expected"),
    })
    .await;
    let bridge = deployment(&ecs.url).await.bridge;
    let started_by = ecs_bridge_core::StartedBy::parse("local/a/1").unwrap();
    assert_eq!(bridge.ecs.list("local", &started_by).await.unwrap(), [TASK]);
}
