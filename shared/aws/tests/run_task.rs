//! The effect of each RunTask response on a record, with the real client and ECS replaced at the wire.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::time::Duration;

use ecs_bridge_aws::{Bridge, Clients};
use ecs_bridge_core::{Input, Record, State};
use serde_json::{Value, json};
use support::{CLUSTER, Deployment, Reply, TASK, clients, config, error, item, task};

fn ok(body: Value) -> Reply {
    Reply::Answer(200, body.to_string())
}

fn failure(reason: &str) -> Reply {
    ok(json!({"tasks": [], "failures": [{"arn": "arn:aws:ecs:us-east-1:123456789012:container-instance/x",
                                         "reason": reason}]}))
}

/// Returns the record after one RunTask call with this reply, which took exactly one request.
async fn after(reply: Reply) -> Record {
    let deployment = Deployment::answering(reply).await;
    let record = deployment.launched(item("a")).await;
    assert_eq!(deployment.ecs.operations(), ["RunTask"]);
    assert_eq!(record, deployment.record("a").await);
    record
}

async fn is_queued_again(reply: Reply, reason: &str) {
    let record = after(reply.clone()).await;
    assert_eq!(record.state(), State::Queued, "{reply:?}");
    assert_eq!(
        (record.attempt.number.get(), record.attempt.refusals, record.attempt.calls.launch_calls),
        (1, 1, 0),
        "{reply:?}"
    );
    assert!(record.request.is_some() && record.due.as_deref() == Some("repeat"), "{reply:?}");
    assert!(record.attempt.reason.as_deref().unwrap().contains(reason), "{record:?} does not say {reason}");
}

async fn is_rejected(reply: Reply, reason: &str) {
    let record = after(reply.clone()).await;
    assert_eq!(record.state(), State::Rejected, "{reply:?}");
    assert!(record.request.is_none() && record.check_at.is_none() && record.feed.is_some(), "{reply:?}");
    assert!(record.attempt.reason.as_deref().unwrap().contains(reason), "{record:?} does not say {reason}");
}

async fn is_unanswered(reply: Reply) {
    let record = after(reply.clone()).await;
    assert_eq!(record.state(), State::Launching, "{reply:?}");
    assert!(record.attempt.calls.unanswered_since.is_some() && record.attempt.calls.launch_calls == 1, "{reply:?}");
    assert!(record.request.is_some() && record.check_at.is_some(), "{reply:?}");
    assert_eq!((record.attempt.task_arn, record.attempt.reason), (None, None), "{reply:?}");
}

#[tokio::test]
async fn runtask_response_sets_launched_and_arn() {
    let record = after(ok(task(json!({})))).await;
    assert_eq!((record.state(), record.attempt.task_arn.as_deref()), (State::Launched, Some(TASK)));
    assert_eq!((record.attempt.calls.unanswered_since, record.attempt.calls.launch_calls), (None, 0));
    assert_eq!(record.attempt.ecs_version, None, "the answer contributes the ARN alone");
}

#[tokio::test]
async fn task_with_unexpected_types_is_launched() {
    for odd in [
        json!({"version": "x", "createdAt": "yesterday", "cpu": 256}),
        json!({"containers": {"exitCode": 3_221_225_786_u64}, "tags": 7}),
        json!({"containers": [{"name": "main", "exitCode": 3_221_225_786_u64}], "desiredStatus": null}),
        json!({"lastStatus": ["PENDING"], "version": -1, "attachments": "none"}),
    ] {
        let record = after(ok(task(odd))).await;
        assert_eq!((record.state(), record.attempt.task_arn.as_deref()), (State::Launched, Some(TASK)));
    }
    let beside = json!({"tasks": [7, {"taskArn": null}, {"taskArn": TASK}], "failures": "none"});
    assert_eq!(after(ok(beside)).await.attempt.task_arn.as_deref(), Some(TASK));
}

#[tokio::test]
async fn malformed_task_hides_no_other_task() {
    let odd = [
        json!({"containers": [{"name": "main", "lastStatus": "STOPPED", "exitCode": 3_221_225_786_u64}]}),
        json!({"containers": [{"name": "main", "lastStatus": "STOPPED", "exitCode": "7"}], "cpu": 256, "version": "5"}),
        json!({"containers": [{"name": "main", "lastStatus": "STOPPED", "exitCode": 7}], "stoppedAt": "2026-11-30T07:34:33Z"}),
        json!({"lastStatus": 7}),
        json!({"containers": "main"}),
        json!({"taskArn": {}}),
    ];
    let arn = |n: usize| format!("{TASK}{n}");
    let tasks: Vec<_> = (0..10)
        .map(|n| {
            let mut one = json!({"taskArn": arn(n), "clusterArn": CLUSTER, "lastStatus": "STOPPED", "version": 5,
                "desiredStatus": "STOPPED", "stopCode": "EssentialContainerExited", "startedBy": format!("local/s{n}/1"),
                "containers": [{"name": "main", "lastStatus": "STOPPED", "exitCode": n}]});
            for (name, value) in odd.get(n).and_then(Value::as_object).into_iter().flatten() {
                one[name] = value.clone();
            }
            one
        })
        .collect();
    let answer = json!({"tasks": tasks, "failures": [{"arn": arn(10), "reason": "MISSING"}, 7]});
    let deployment = Deployment::new(move |seen, _| match seen.operation.as_str() {
        "RunTask" => {
            let started_by = seen.body()["startedBy"].as_str().unwrap().to_owned();
            let n = started_by.trim_start_matches("local/s").trim_end_matches("/1").to_owned();
            ok(json!({"tasks": [{"taskArn": format!("{TASK}{n}")}]}))
        }
        _ => ok(answer.clone()),
    })
    .await;
    let mut records = Vec::new();
    for n in 0..11 {
        records.push(deployment.launched(item(&format!("s{n}"))).await);
    }
    let described: Vec<_> =
        records.iter().map(|record| (record, record.attempt.task_arn.as_deref().unwrap())).collect();
    let inputs = deployment.bridge.describe_all(CLUSTER, &described).await;
    let codes: Vec<_> = inputs
        .iter()
        .map(|input| match input {
            Input::Seen(task) => task.exit_code("main"),
            Input::LookupFailed { .. } => Some(-1),
            Input::Missing { .. } => Some(-2),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [-1_073_741_510, 7, 7, -1, -1, -1, 6, 7, 8, 9, -2].map(Some);
    assert_eq!(codes, expected);
    assert_eq!(deployment.ecs.operations().iter().filter(|operation| **operation == "DescribeTasks").count(), 1);
}

#[tokio::test]
async fn denied_roles_wait_like_denied_access() {
    for (code, message) in [
        (
            "ClientException",
            "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task.",
        ),
        ("InvalidParameterException", "ECS was unable to assume the infrastructure role 'arn:aws:iam::1:role/x'."),
        ("InvalidParameterException", "Unable to assume the service linked role."),
        ("AccessDeniedException", "User is not authorized to perform: iam:PassRole"),
    ] {
        let record = after(error(400, code, message)).await;
        assert_eq!((record.state(), record.attempt.denied_since.is_some()), (State::Queued, true), "{message}");
    }
}

#[tokio::test]
async fn failure_reasons_are_retryable() {
    for reason in [
        "RESOURCE:CPU",
        "RESOURCE:MEMORY",
        "RESOURCE:ENI",
        "AGENT",
        "ATTRIBUTE",
        "Capacity is unavailable at this time. Please try again later or in a different availability zone",
        "A REASON OF TOMORROW",
    ] {
        is_queued_again(failure(reason), reason).await;
    }
}

#[tokio::test]
async fn throttling_and_quota_errors_are_retryable() {
    for (code, message) in [
        ("ThrottlingException", "Rate exceeded"),
        ("InvalidParameterException", "Rate exceeded"),
        ("InvalidParameterException", "The request was throttled, try later"),
        ("LimitExceededException", "The limit for the resource was exceeded"),
        ("ClientException", "You've reached the limit on the number of tasks you can provision"),
        ("ClientException", "You've reached the limit on the number of vCPUs you can run concurrently"),
        ("InvalidParameterException", "No Container Instances were found in your cluster."),
        ("InvalidParameterException", "Unable to assume the service linked role."),
        ("InvalidParameterException", "Error: Request limit exceeded. (ErrorCode: RequestLimitExceeded)"),
        ("InvalidParameterException", "Error: An internal error has occurred (ErrorCode: InternalError)"),
        ("ClientException", "Error retrieving subnets (ErrorCode: ServiceUnavailable)"),
        ("ClientException", "Invalid 'cpu' setting for task."),
        ("AccessDeniedException", "User is not authorized to perform: iam:PassRole"),
        ("ExpiredTokenException", "The security token included in the request is expired"),
        ("AnExceptionOfTomorrow", "who knows"),
    ] {
        is_queued_again(error(400, code, message), message).await;
    }
}

#[tokio::test]
async fn permanent_errors_reject_with_the_ecs_message() {
    for (code, message) in [
        ("ClusterNotFoundException", "Cluster not found."),
        ("InvalidParameterException", "No Fargate configuration exists for given values."),
        ("PlatformUnknownException", "The specified platform version does not exist."),
        ("PlatformTaskDefinitionIncompatibilityException", "The platform does not support a needed attribute."),
        ("UnsupportedFeatureException", "The specified task isn't supported in this Region."),
        ("BlockedException", "Your account is currently blocked."),
        ("ClientException", "TaskDefinition is inactive"),
        ("ClientException", "TaskDefinition not found."),
    ] {
        is_rejected(error(400, code, message), message).await;
    }
}

#[tokio::test]
async fn ambiguous_launch_is_unanswered_and_sent_once() {
    for reply in [
        error(500, "ServerException", "Service Unavailable. Please try again later."),
        error(400, "ServerException", "Service Unavailable. Please try again later."),
        error(503, "ThrottlingException", "Rate exceeded"),
        Reply::Answer(502, "<html><body>Bad Gateway</body></html>".to_owned()),
        // This comes from a proxy rather than from ECS, and the proxy may have forwarded the request.
        Reply::Answer(408, "<html><body>Request Timeout</body></html>".to_owned()),
        Reply::Answer(400, String::new()),
        Reply::Answer(200, "{\"tasks\": [{\"taskArn\"".to_owned()),
        Reply::Answer(200, String::new()),
        ok(json!({})),
        ok(json!({"tasks": [], "failures": []})),
        Reply::CutShort,
        Reply::Closed,
    ] {
        is_unanswered(reply).await;
    }
}

#[tokio::test]
async fn runtask_timeout_is_unanswered() {
    let mut deployment = Deployment::answering(Reply::Never).await;
    // This is enough for a busy machine to send the request.
    let hasty = deployment.bridge_with_attempts_of(Duration::from_secs(5));
    deployment.bridge = hasty;
    let record = deployment.launched(item("a")).await;
    assert_eq!((record.state(), record.attempt.calls.launch_calls), (State::Launching, 1));
    assert_eq!(deployment.ecs.operations(), ["RunTask"]);
}

impl Deployment {
    /// Returns the same bridge with a shorter timeout for ECS.
    fn bridge_with_attempts_of(&self, patience: Duration) -> Bridge {
        let timeouts = aws_config::timeout::TimeoutConfig::builder().operation_attempt_timeout(patience).build();
        let ecs = clients(&self.ecs.url).ecs.config().to_builder().timeout_config(timeouts).build();
        let clients = Clients { ecs: aws_sdk_ecs::Client::from_conf(ecs), ..clients(&self.table.url) };
        Bridge::new(&clients, config())
    }
}

#[tokio::test]
async fn runtask_sends_frozen_request_and_derived_names() {
    let deployment = Deployment::answering(ok(task(json!({})))).await;
    deployment
        .launched(json!({
            "submission_id": "etl-2026_11", "command": ["python", "-c", "print('ä')"],
            "overrides": {"tags": [{"key": "team", "value": "data"}],
                          "overrides": {"containerOverrides": [{"name": "main", "environment": [{"name": "K", "value": "v"}]}]}},
        }))
        .await;
    let seen = deployment.ecs.seen().remove(0);
    assert_eq!(
        seen.body(),
        json!({
            "startedBy": "local/etl-2026_11/1",
            // base64url(SHA-256("local/etl-2026_11/1"))
            "clientToken": "0Cd5CX-5INUjp8bn8vUfnf4ox_wyggLayrmQxDaDVLQ",
            "taskDefinition": "etl:7",
            "launchType": "FARGATE",
            "cluster": CLUSTER,
            "tags": [{"key": "team", "value": "data"}],
            "overrides": {"containerOverrides": [{"name": "main", "command": ["python", "-c", "print('ä')"],
                                                  "environment": [{"name": "K", "value": "v"}]}]},
        })
    );
    assert_eq!(seen.header("x-amz-target"), "AmazonEC2ContainerServiceV20141113.RunTask");
    assert_eq!(seen.header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(seen.header("content-length"), seen.text.len().to_string());
    assert!(seen.header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=key/"), "{:?}", seen.headers);
}

#[tokio::test]
async fn repeated_runtask_finds_the_first_task() {
    let deployment = Deployment::new(|_, nth| match nth {
        0 => Reply::Closed,
        _ => ok(task(json!({"lastStatus": "RUNNING"}))),
    })
    .await;
    let record = deployment.launched(item("a")).await;
    assert_eq!(record.state(), State::Launching);
    let record = deployment.bridge.settle(record, Input::Due).await.unwrap();
    assert_eq!((record.state(), record.attempt.task_arn.as_deref()), (State::Launched, Some(TASK)));
    let seen = deployment.ecs.seen();
    assert_eq!((seen.len(), &seen[0].text), (2, &seen[1].text));
}

#[tokio::test]
async fn repeated_runtask_describes_stopped_task_at_once() {
    let brief = json!({"taskArn": TASK, "clusterArn": CLUSTER, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"});
    let stopped = task(json!({"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "version": 7,
                              "stopCode": "EssentialContainerExited",
                              "containers": [{"name": "main", "lastStatus": "STOPPED", "exitCode": 3}]}));
    let deployment = Deployment::new(move |seen, nth| match (seen.operation.as_str(), nth) {
        ("RunTask", 0) => error(500, "ServerException", "try again"),
        ("RunTask", _) => ok(json!({"tasks": [brief], "failures": []})),
        _ => ok(stopped.clone()),
    })
    .await;
    let record = deployment.launched(item("a")).await;
    let record = deployment.bridge.settle(record, Input::Due).await.unwrap();
    assert_eq!(record.state(), State::Launched);
    let record = deployment.bridge.settle(record, Input::Due).await.unwrap();
    assert_eq!((record.state(), record.attempt.exit_code), (State::Failed, Some(3)));
    assert_eq!(deployment.ecs.operations(), ["RunTask", "RunTask", "DescribeTasks"]);
}

#[tokio::test]
async fn rejected_repeat_leaves_first_call_open() {
    for refusal in [
        error(400, "AccessDeniedException", "not authorized"),
        error(400, "ThrottlingException", "Rate exceeded"),
        failure("RESOURCE:CPU"),
    ] {
        let refusal_again = refusal.clone();
        let deployment = Deployment::new(move |_, nth| if nth == 0 { Reply::Closed } else { refusal.clone() }).await;
        let record = deployment.launched(item("a")).await;
        let since = record.attempt.calls.unanswered_since;
        let record = deployment.bridge.settle(record, Input::Due).await.unwrap();
        assert_eq!((record.state(), record.attempt.calls.launch_calls), (State::Launching, 2), "{refusal_again:?}");
        assert_eq!(record.attempt.calls.unanswered_since, since);
    }
}

fn conflict() -> Reply {
    let body = json!({"__type": "ConflictException", "message": "used before", "resourceIds": [TASK]});
    Reply::Answer(400, body.to_string())
}

async fn after_conflict(described: Reply) -> (Record, Vec<String>) {
    let deployment = Deployment::new(move |seen, _| match seen.operation.as_str() {
        "RunTask" => conflict(),
        _ => described.clone(),
    })
    .await;
    let record = deployment.launched(item("a")).await;
    (record, deployment.ecs.operations())
}

#[tokio::test]
async fn conflict_with_own_task_adopts_it() {
    let ours = json!({"startedBy": "local/a/1", "lastStatus": "RUNNING", "version": 4,
                      "containers": [{"name": "main", "lastStatus": "RUNNING"}]});
    let (record, operations) = after_conflict(ok(task(ours))).await;
    assert_eq!((record.state(), record.attempt.task_arn.as_deref()), (State::Running, Some(TASK)));
    assert_eq!(record.attempt.ecs_version, Some(4));
    assert_eq!(operations, ["RunTask", "DescribeTasks"]);
}

#[tokio::test]
async fn conflict_with_foreign_task_is_unanswered() {
    for started_by in [json!("local/b/1"), json!("local/a/2"), json!("other/a/1"), json!("ecs-svc/1"), json!(null)] {
        let foreign = json!({"startedBy": started_by, "lastStatus": "RUNNING"});
        let (record, _) = after_conflict(ok(task(foreign))).await;
        assert_eq!((record.state(), record.attempt.calls.launch_calls), (State::Launching, 1), "{started_by}");
        assert_eq!(record.attempt.task_arn, None, "{started_by}");
    }
}

#[tokio::test]
async fn conflict_with_missing_task_is_unanswered() {
    let missing = json!({"tasks": [], "failures": [{"arn": TASK, "reason": "MISSING"}]});
    let (record, _) = after_conflict(ok(missing)).await;
    assert_eq!((record.state(), record.attempt.calls.launch_calls), (State::Launching, 1));
    let (record, _) = after_conflict(error(400, "AccessDeniedException", "not authorized")).await;
    assert_eq!((record.state(), record.attempt.calls.launch_calls), (State::Launching, 1));
}

#[tokio::test]
async fn ecs_messages_are_redacted() {
    let quoting = "Container.command: ['--password', 'hunter2-hunter2'] and env DB=postgres://u:p@h are not valid";
    for reply in [error(400, "InvalidParameterException", quoting), failure(quoting)] {
        let deployment = Deployment::answering(reply).await;
        let record = deployment
            .launched(json!({
                "submission_id": "a", "command": ["run", "--password", "hunter2-hunter2"],
                "overrides": {"overrides": {"containerOverrides": [
                    {"name": "main", "environment": [{"name": "DB", "value": "postgres://u:p@h"}]}]}},
            }))
            .await;
        let reason = record.attempt.reason.unwrap();
        assert!(reason.contains("are not valid"), "{reason}");
        assert!(!reason.contains("hunter2") && !reason.contains("postgres://"), "{reason}");
    }
}

#[tokio::test]
async fn expired_claim_is_not_sent() {
    let deployment = Deployment::answering(ok(task(json!({})))).await;
    let (record, call) = deployment.claimed(item("a")).await;
    let old = ecs_bridge_core::Call {
        claimed_at: ecs_bridge_core::Timestamp::from_millis(call.claimed_at.millis() - 61_000),
        ..call
    };
    let settled = ecs_bridge_aws::Settled { record, action: Some(ecs_bridge_core::Action::RunTask(old)) };
    let record = deployment.bridge.carry_out(settled).await.unwrap();
    assert_eq!(record.state(), State::Launching);
    assert!(deployment.ecs.operations().is_empty());
}

#[tokio::test]
async fn sdk_retries_other_calls() {
    let deployment = Deployment::new(|_, nth| match nth {
        0 => error(500, "ServerException", "try again"),
        1 => error(400, "ThrottlingException", "Rate exceeded"),
        _ => ok(task(json!({}))),
    })
    .await;
    let described = deployment.bridge.ecs.describe(CLUSTER, &[TASK.to_owned()]).await.unwrap();
    assert_eq!((described.len(), deployment.ecs.operations().len()), (1, 3));
}
